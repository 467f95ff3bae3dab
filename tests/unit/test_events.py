"""The decoder trusts nothing, and what it takes it gives back."""

import json
import math
import time
import uuid
from collections.abc import Callable
from decimal import Decimal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orderflow import controls, events
from orderflow.errors import InvalidEvent
from orderflow.events import OrderCreated, SkipReason, StatusChanged, decode, encode, fingerprint
from orderflow.orders import Currency, Item, Money, Order, Status, total

EVENT_ID = "0b5ad8b2-3f63-4bd1-9b2e-7a1f2e9e0a11"

CREATED = {
    "type": "order.created",
    "order_id": "ord-1",
    "event_id": EVENT_ID,
    "occurred_at": "2026-01-02T03:04:05Z",
    "order": {
        "orderId": "ord-1",
        "customerId": "c-1",
        "orderDate": "2026-01-02T03:04:05Z",
        "items": [{"itemId": "i-1", "quantity": 2, "price": 10.1}, {"itemId": "i-2", "quantity": 1, "price": 3}],
        "totalAmount": 23.2,
        "currency": "USD",
        "status": "new",
    },
}
CHANGED = {"type": "order.status_changed", "order_id": "ord-1", "event_id": EVENT_ID, "status": "shipped"}

ids = st.text(min_size=1, max_size=128).filter(
    lambda text: text.strip() and not any(ord(c) < 32 or 127 <= ord(c) < 160 for c in text)
    and not any(0xD800 <= ord(c) < 0xE000 for c in text)
)  # fmt: skip
moments = st.datetimes(timezones=st.just(events.UTC))
prices = st.integers(1, 100_000_000).map(lambda minor: Money(Decimal(minor).scaleb(-2)))
items = st.builds(Item, item_id=ids, quantity=st.integers(1, 10_000), price=prices)


@st.composite
def created(draw: st.DrawFn) -> OrderCreated:
    chosen = tuple(draw(st.lists(items, min_size=1, max_size=5)))
    order_id = draw(ids)
    order = Order(order_id, draw(ids), draw(moments), chosen, total(chosen), draw(st.sampled_from(Currency)))
    return OrderCreated(order_id=order_id, order=order, event_id=EVENT_ID, occurred_at=draw(st.none() | moments))


changed = st.builds(StatusChanged, order_id=ids, status=st.sampled_from(Status), event_id=st.none() | st.just(EVENT_ID))


def changed_by(change: dict[str, object]) -> bytes:
    return json.dumps({**CHANGED, **change}).encode()


def priced(price: str) -> bytes:
    return json.dumps(CREATED).encode().replace(b"10.1", price.encode(), 1)


@given(created() | changed)
def test_an_event_comes_back_as_it_was(event: events.Event) -> None:
    """Encoding and decoding lose nothing, whatever is in an id, whatever the amounts."""
    assert decode(encode(event)) == event


@given(st.binary(max_size=400))
def test_any_bytes_decode_or_are_refused_with_a_reason(raw: bytes) -> None:
    """Nothing but InvalidEvent comes out of the decoder."""
    try:
        decode(raw)
    except InvalidEvent as error:
        assert SkipReason(error.reason)
        assert error.detail


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just("order.created"),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from([*CREATED, "status", "x"]), inner),
    max_leaves=12,
)


@given(json_values, st.sampled_from([CREATED, CHANGED]), st.sampled_from([*CREATED, "status"]))
def test_any_json_in_any_field_decodes_or_is_refused(value: object, event: dict[str, object], field: str) -> None:
    """A valid event with one field exchanged for anything, also NaN and lone surrogates."""
    raw = json.dumps({**event, field: value}).encode("utf-8", "surrogatepass")

    try:
        found = decode(raw)
    except InvalidEvent as error:
        assert SkipReason(error.reason)
    else:
        assert encode(found)


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (None, "malformed_json"),
        (b"", "malformed_json"),
        (b"{", "malformed_json"),
        (b"\xff", "malformed_json"),
        (b"\xef\xbb\xbf{}", "malformed_json"),
        (b"[]", "invalid_event"),
        (b"{}", "invalid_event"),
        (b'{"type": 1}', "invalid_event"),
        (b'{"type": 1,,, "order_id": "a"}', "malformed_json"),
        (b'{"type": {"a": 1, "order_id": "x"}', "malformed_json"),
        (b'"order.status_changed", "order_id": "x"}', "malformed_json"),
        (b"[1, 2", "malformed_json"),
        (b'{"type": "order.deleted"}', "unknown_type"),
        (b"[" * 100_000, "malformed_json"),
        (b'{"type": "order.created", "order": ' + b"[" * 100_000, "malformed_json"),
        (b'{"x": "[' + b"[" * 600 + b'", "type": "x"}', "unknown_type"),
        (b'{"x": ' * 100_000, "malformed_json"),
        (changed_by({"order_id": ""}), "invalid_event"),
        (changed_by({"order_id": "   "}), "invalid_event"),
        (changed_by({"order_id": "a\n"}), "invalid_event"),
        (changed_by({"order_id": "a\u0085"}), "invalid_event"),
        (changed_by({"order_id": "a" * 129}), "invalid_event"),
        (changed_by({"order_id": "\ud800"}), "malformed_json"),
        (changed_by({"note": "\udfff"}), "malformed_json"),
        (b'{"note":"\xff",' + changed_by({})[1:], "malformed_json"),
        (changed_by({"status": "lost"}), "invalid_event"),
        (changed_by({"order_id": [math.inf]}), "malformed_json"),
        (changed_by({"event_id": EVENT_ID.upper()}), "invalid_event"),
        (changed_by({"event_id": EVENT_ID + "\n"}), "invalid_event"),
        (changed_by({"occurred_at": "2026-01-02T03:04:05"}), "invalid_event"),
        (priced("NaN"), "malformed_json"),
        (priced("Infinity"), "malformed_json"),
        (priced("1e400"), "invalid_event"),
        (priced("-1e400"), "invalid_event"),
        (priced('"NaN"'), "invalid_event"),
        (priced('"10.1"'), "invalid_event"),
        (priced("9" * 5_000), "invalid_event"),
        (priced("1e-400"), "invalid_event"),
        (priced("0"), "invalid_event"),
        (priced("-10.1"), "invalid_event"),
        (priced("10.101"), "invalid_event"),
        (priced("true"), "invalid_event"),
        (priced("1000000.01"), "invalid_event"),
        (json.dumps({**CREATED, "order_id": "ord-2"}).encode(), "invalid_event"),
        (json.dumps(CREATED).encode().replace(b"23.2", b"23.21"), "invalid_event"),
        (json.dumps(CREATED).encode().replace(b'"new"', b'"shipped"'), "invalid_event"),
    ],
)
def test_what_is_no_event_is_refused_with_its_reason(raw: bytes | None, reason: str) -> None:
    """One row for each way to be wrong that was thought of."""
    with pytest.raises(InvalidEvent) as refused:
        decode(raw)

    assert refused.value.reason == reason
    assert refused.value.detail.endswith(".")


@pytest.mark.parametrize("ask", [events.type_of, events.claimed_event_id, controls.is_control])
@pytest.mark.parametrize(
    "value", [b'{"type":"message.\xff"}', b'{"event_id":"\xff\\"}', b'{"type":"message.' + b"[" * 100_000]
)
def test_a_look_at_a_damaged_value_raises_nothing(ask: Callable[[bytes], object], value: bytes) -> None:
    """What only wants to know a type or an id gets none from bytes that are no UTF-8, or no JSON."""
    assert not ask(value)


@pytest.mark.parametrize("tail", [b'"' + b'\\"' * 500_000, b'"' * 1_000_000, b"[" * 1_000_000])
def test_the_time_to_refuse_grows_with_the_length_alone(tail: bytes) -> None:
    """A megabyte of brackets and quotes, closed or not, holds nobody up."""
    began = time.process_time()

    with pytest.raises(InvalidEvent) as refused:
        decode(b"[" * 501 + tail)

    assert refused.value.reason == "malformed_json"
    assert time.process_time() - began < 2


def test_an_event_without_id_and_time_is_one() -> None:
    """A plain producer's record is accepted: type, order id and what it says."""
    assert decode(b'{"type":"order.status_changed","order_id":"a","status":"new"}') == StatusChanged(
        order_id="a", status=Status.NEW
    )


def test_unknown_fields_are_let_through() -> None:
    """A newer producer may say more."""
    assert decode(changed_by({"more": [1, {"x": 1e300}]})) == decode(changed_by({}))


def test_amounts_are_numbers_with_two_places_on_the_wire() -> None:
    """10.1 goes out as 10.10, and never as a string."""
    raw = encode(decode(json.dumps(CREATED).encode()))

    assert b'"price":10.10}' in raw
    assert b'"totalAmount":23.20' in raw
    assert math.isclose(msgspec.json.decode(raw)["order"]["totalAmount"], 23.2)


def test_the_fingerprint_is_of_the_content_times_and_id_apart() -> None:
    """Two copies of one fact are equal, another fact is not."""
    first = decode(json.dumps(CREATED).encode())
    later = decode(json.dumps(CREATED).replace("2026-01-02", "2027-01-02").replace(EVENT_ID[:8], "ffffffff").encode())
    other = decode(json.dumps(CREATED).replace("c-1", "c-2").encode())

    assert fingerprint(first) == fingerprint(later)
    assert fingerprint(first) != fingerprint(other)


def test_a_derived_id_names_the_place_and_the_content() -> None:
    """The same record has the same id whenever it is read; key and value cannot be shifted into each other."""
    first = events.derived_event_id("topic", 1, 2, b"key", b"value")

    assert first == events.derived_event_id("topic", 1, 2, b"key", b"value")
    assert len({first, events.derived_event_id("topic", 1, 3, b"key", b"value"),
                events.derived_event_id("topic", 1, 2, b"keyv", b"alue"),
                events.derived_event_id("other", 1, 2, b"key", b"value")}) == 4  # fmt: skip


def test_every_reason_has_a_sentence() -> None:
    """People read the sentence, machines the word."""
    assert {reason: reason.sentence for reason in SkipReason}.keys() == set(SkipReason)


def test_event_ids_drawn_at_random_are_uuids_of_version_4() -> None:
    """As others expect of an id, and as the decoder does; no two the same."""
    drawn = [events.random_event_id() for _ in range(2_000)]

    assert {(uuid.UUID(one).version, uuid.UUID(one).variant) for one in drawn} == {(4, uuid.RFC_4122)}
    assert len(set(drawn)) == len(drawn)
    assert all(str(uuid.UUID(one)) == one for one in drawn)
