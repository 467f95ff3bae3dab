"""Control records on the wire: what is written is read again, and what is no control is refused with a sentence."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from orderflow import controls
from orderflow.controls import AUTHOR_MAX, NOTE_MAX, Discarded, Repaired
from orderflow.errors import InvalidEvent
from orderflow.events import SkipReason
from tests.unit.test_projection import changed, created, uuid

DISCARD = {
    "type": "message.discarded", "event_id": uuid(1), "topic_id": "topic-1", "partition": 3, "offset": 7,
    "author": "mira",
}  # fmt: skip
REPAIR = DISCARD | {"type": "message.repaired", "if_last": 9, "event": json.loads(changed("a", None, "shipped"))}


def wire(**members: Any) -> bytes:
    """A discard with other members; None takes one away."""
    return json.dumps({name: value for name, value in (DISCARD | members).items() if value is not None}).encode()


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
ids = st.uuids().map(str)
said = {
    "event_id": ids,
    "topic_id": texts.filter(bool),
    "partition": st.integers(0, 2**31 - 1),
    "offset": st.integers(0, 2**63 - 1),
    "author": texts.filter(str.strip),
    "reason": texts,
    "operation": st.none() | ids,
    "occurred_at": st.none() | st.datetimes(timezones=st.just(UTC)),
}
mended = st.sampled_from([created("a", 1), changed("ü & co", None, "shipped")])
discards = st.builds(Discarded, **said, if_last=st.none() | st.integers(0, 2**63 - 1), successor=st.none() | ids)
repairs = st.builds(Repaired, **said, if_last=st.integers(0, 2**63 - 1), event=mended.map(msgspec.Raw))


@given(control=discards | repairs)
def test_what_is_written_is_read_again(control: controls.Control) -> None:
    value = controls.encode(control)

    assert controls.is_control(value)
    read = controls.decode(value)
    if isinstance(control, Repaired):
        assert isinstance(read, Repaired)
        assert read.event_text == control.event_text
        read = msgspec.structs.replace(read, event=control.event)
    assert read == control


def test_a_repair_holds_the_mended_event_as_it_was_given() -> None:
    """Its spaces and escapes, too: people compare it with what they sent."""
    text = b'{ "order_id":"a",  "type": "order.status_ch\\u0061nged", "status":"shipped" }'
    value = json.dumps(REPAIR | {"event": 0}).encode().replace(b'"event": 0', b'"event": ' + text)

    read = controls.decode(value)

    assert isinstance(read, Repaired)
    assert read.event_text == text.decode()
    assert read.mended().order_id == "a"


@pytest.mark.parametrize(
    "members",
    [
        {"author": None}, {"author": ""}, {"author": " \t"}, {"author": "x" * (AUTHOR_MAX + 1)}, {"author": 5},
        {"reason": "x" * (NOTE_MAX + 1)}, {"reason": ["why"]},
        {"event_id": None}, {"event_id": "1"}, {"event_id": uuid(1).upper() + "A"}, {"event_id": uuid(1) + "\n"},
        {"topic_id": ""}, {"topic_id": None}, {"topic_id": "x" * 101},
        {"partition": -1}, {"partition": 2**31}, {"partition": "3"}, {"partition": 3.5}, {"partition": True},
        {"offset": -1}, {"offset": 2**63}, {"offset": None},
        {"if_last": -1}, {"if_last": "9"}, {"successor": "none"}, {"operation": "all"}, {"occurred_at": "yesterday"},
        {"occurred_at": "2026-01-02T03:04:05"}, {"type": "message.lost"}, {"type": None}, {"type": 5},
    ],
    ids=str,
)  # fmt: skip
def test_what_is_no_discard_is_refused(members: dict[str, Any]) -> None:
    with pytest.raises(InvalidEvent) as refused:
        controls.decode(wire(**members))

    assert refused.value.reason == SkipReason.INVALID_CONTROL
    assert refused.value.detail.endswith(".")


def test_the_longest_author_and_reason_are_taken_and_unknown_members_are_left() -> None:
    """A later version may say more in a control; this one reads what it knows."""
    read = controls.decode(wire(author="ä" * AUTHOR_MAX, reason="ö" * NOTE_MAX, more={"of": ["it"]}))

    assert (len(read.author), len(read.reason)) == (AUTHOR_MAX, NOTE_MAX)


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ({"if_last": None}, "if_last"),
        ({"if_last": 2**63}, "if_last"),
        ({"event": {"type": "order.lost"}}, "The mended event is no event"),
        ({"event": {}}, "The mended event is no event"),
        ({"event": "x"}, "The mended event is no event"),
        ({"event": []}, "The mended event is no event"),
        ({"event": {"type": "order.status_changed", "order_id": "a", "status": "lost"}}, "status"),
    ],
    ids=str,
)
def test_what_is_no_repair_is_refused(members: dict[str, Any], said: str) -> None:
    value = {name: member for name, member in (REPAIR | members).items() if member is not None}

    with pytest.raises(InvalidEvent, match=said) as refused:
        controls.decode(json.dumps(value).encode())

    assert refused.value.reason == SkipReason.INVALID_CONTROL


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, SkipReason.MALFORMED_JSON),
        (b"\xff", SkipReason.MALFORMED_JSON),
        (b'{"x":' + b"[" * 600 + b"]" * 600 + b"}", SkipReason.MALFORMED_JSON),
        (wire()[:-1], SkipReason.INVALID_CONTROL),
        (b"null", SkipReason.INVALID_CONTROL),
        (b"[]", SkipReason.INVALID_CONTROL),
        (changed("a", 1, "shipped"), SkipReason.INVALID_CONTROL),
    ],
)
def test_what_is_no_object_is_refused_too(value: bytes | None, reason: SkipReason) -> None:
    with pytest.raises(InvalidEvent) as refused:
        controls.decode(value)

    assert refused.value.reason == reason


wires = st.builds(
    lambda value, at, some: value[: at % len(value)] + some + value[at % len(value) + len(some) :],
    st.sampled_from([wire(), json.dumps(REPAIR).encode()]), st.integers(0, 10_000), st.binary(max_size=3),
)  # fmt: skip


@given(value=st.none() | st.binary(max_size=60) | wires)
@example(b'{"type": "message.\\ud800"}')
@example(b'{"type": "message.repaired", "x": "\xff"}')
@example(b'{"message.": ' + b"[" * 100_000)
@example(b'{"type": ["message.repaired"]}')
def test_bytes_of_any_kind_are_a_control_or_not_and_decode_or_not(value: bytes | None) -> None:
    """Nothing else is raised, whatever they are. What decodes as a control is known as one."""
    known = controls.is_control(value)
    try:
        controls.decode(value)
    except InvalidEvent as refused:
        assert refused.reason in {SkipReason.INVALID_CONTROL, SkipReason.MALFORMED_JSON}
    else:
        assert known


@pytest.mark.parametrize(
    ("value", "is_one"),
    [
        (wire(), True),
        (wire(author=None), True),
        (b'{"type": "message.repaired"}', True),
        (rb'{"type": "\u006dessage.discarded"}', True),
        (b'{"type": "message.lost"}', False),
        (b'{"note": "message.repaired"}', False),
        (b'"message.repaired"', False),
        (b"", False),
    ],
)
def test_a_control_is_known_by_its_type_valid_or_not(value: bytes, *, is_one: bool) -> None:
    """Also where the type is written with escapes; a plain event that only speaks of one is none."""
    assert controls.is_control(value) is is_one
    assert controls.is_control(changed("message.repaired", 1, "shipped")) is False


def test_two_copies_have_one_fingerprint_and_other_bytes_another() -> None:
    prints = {controls.fingerprint(value) for value in (wire(), wire(), wire(reason="x"), wire() + b" ", b"")}

    assert len(prints) == 4
    assert {len(one) for one in prints} == {16}


def test_the_same_wish_has_the_same_id_and_another_wish_another() -> None:
    """It is fixed for good: rows of the outbox of an earlier version are found by it. Parts do not run together."""
    assert controls.control_id("topic-1", 3, 7, 0, "discard", None) == "defdcb60-22bb-567b-bf95-5d0825fdd589"
    assert controls.control_id("a", "b") != controls.control_id("ab")
    assert controls.control_id("a", "b") != controls.control_id('a", "b')
    assert controls.control_id("a", 1) != controls.control_id("a", 2)


def test_a_time_is_kept_in_utc() -> None:
    read = controls.decode(wire(occurred_at="2026-01-02T03:04:05.006+01:00"))

    assert read.occurred_at == datetime(2026, 1, 2, 2, 4, 5, 6000, UTC)
