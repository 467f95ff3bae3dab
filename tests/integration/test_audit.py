"""``orderflow audit`` on a real topic and a real store: what is planted is named, and what mends it does so."""

from __future__ import annotations

import fcntl
import json
import os
import uuid
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from kafka import TopicPartition

from orderflow import events
from orderflow.audit import auditor, processes
from orderflow.broker.raw import RawRecord
from orderflow.errors import InvalidEvent, OrderflowError
from orderflow.store.outbox import Outbox
from tests.support.audited import Audited, control, event, killed, shown
from tests.support.messages import admin, message, produce

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.broker import Broker
    from tests.support.topic import Place

CREATE_ID, UPDATE_ID = "00000000-0000-4000-8000-000000000001", "00000000-0000-4000-8000-000000000002"


class Story(NamedTuple):
    """Two orders whose topic has something of everything, and where the records are."""

    audited: Audited
    places: dict[str, Place]

    def id(self, name: str) -> str:
        partition, offset = self.places[name]
        return f"1-{partition}-{offset}"


@pytest.fixture(scope="module")
def story(broker: Broker) -> Story:
    audited = Audited(broker.settings())
    update = event("ord-1", "shipped", UPDATE_ID)
    records = {
        "created": RawRecord(event("ord-1", None, CREATE_ID), b"ord-1"),
        "updated": RawRecord(update, b"ord-1"),
        "copied": RawRecord(update, b"ord-1"),
        "damaged": RawRecord(b"{", b"ord-1", (("traceparent", b"none"), ("odd", b"\xff"))),
        "given up": RawRecord(b"[]", b"ord-1"),
        "early": RawRecord(event("ord-2", "pending"), b"ord-2"),
        "nobody's": RawRecord(event("ord-1"), None, (), 0),
        "other": RawRecord(event("ord-3"), b"ord-3"),
    }
    places = dict(zip(records, audited.send(records.values()), strict=True))
    audited.apply()
    topic_id, last = audited.topic.topic_id, places["given up"][1]
    repair = control(
        topic_id, places["damaged"], str(uuid.uuid4()), event("ord-1", "confirmed"), if_last=last, reason="by hand"
    )
    discard = control(topic_id, places["given up"], str(uuid.uuid4()))
    controls = [RawRecord(value, b"ord-1", (), places["damaged"][0]) for value in (repair, discard)]
    places |= dict(zip(("repair", "discard"), audited.send(controls), strict=True))
    audited.apply()
    return Story(audited, places)


@pytest.fixture
def audited(story: Story, tmp_path: Path) -> Audited:
    """The story, with a store of this test's own."""
    return story.audited.beside(tmp_path)


def test_what_is_as_it_must_be_has_no_difference(audited: Audited, story: Story) -> None:
    said = json.loads(audited.run("audit", "--json"))

    assert (said["differences"], said["shown"]) == (0, [])
    compared = said["compared"]
    assert compared["records"] == len(story.places)
    assert (compared["applied"], compared["duplicates"], compared["orders"]) == (4, 1, 2)
    assert compared["skips"] == {"discarded": 1, "open": 2, "repaired": 1}
    assert compared["skipped"] == {"invalid_event": 1, "missing_key": 1, "unknown_order": 1}
    assert compared["controls"] == {"accepted": 2}


AT = "epoch = 1 AND partition = {0[0]} AND offset = {0[1]}"

#: What is planted: the statement, {0} for the place of a record of the story; that record; what must be named, of which
#: order.
PLANTED = {
    "an order is missing": ("DELETE FROM orders WHERE order_id = 'ord-1'", "damaged", "order_missing", "ord-1"),
    "an order's status is other": (
        "UPDATE orders SET status = 'cancelled' WHERE order_id = 'ord-3'", "other", "order_changed", "ord-3",
    ),
    "an order's cart is other": (
        """UPDATE orders SET items = '[{{"itemId":"gin","quantity":2,"price":4.25}}]' WHERE order_id = 'ord-3'""",
        "other", "order_changed", "ord-3",
    ),
    "an order is made up": (
        """
        INSERT INTO orders SELECT 99, 'ord-9', customer_id, order_date, currency, items, total_minor, shipping_minor,
            status, last_epoch, last_partition, last_offset, updated_at FROM orders WHERE order_id = 'ord-3'
        """,
        "other", "order_invented", "ord-9",
    ),
    "an event is applied twice": (
        f"UPDATE history SET outcome = 'applied' WHERE {AT}", "copied", "applied_twice", "ord-1",
    ),
    "a record is passed over": (f"DELETE FROM history WHERE {AT}", "copied", "record_passed_over", "ord-1"),
    "what happened is other": (
        f"UPDATE history SET payload = replace(payload, '4.25', '4.26') WHERE {AT}", "created", "history_changed",
        "ord-1",
    ),
    "a skip is deleted": (f"DELETE FROM skipped_messages WHERE {AT}", "early", "skip_missing", "ord-2"),
    "a skip without a place is deleted": (
        f"DELETE FROM skipped_messages WHERE {AT}", "nobody's", "skip_missing", "ord-1",
    ),
    "a repaired skip is deleted": (f"DELETE FROM skipped_messages WHERE {AT}", "damaged", "skip_missing", "ord-1"),
    "a skip's state is other": (
        f"UPDATE skipped_messages SET state = 'open' WHERE {AT}", "given up", "skip_changed", "ord-1",
    ),
    "a skip's value is other": (
        f"UPDATE skipped_messages SET value = CAST('[1]' AS BLOB) WHERE {AT}", "given up", "skip_changed", "ord-1",
    ),
    "a skip's headers are other": (
        f"UPDATE skipped_messages SET headers = '[]' WHERE {AT}", "damaged", "skip_changed", "ord-1",
    ),
    "a control is deleted": (f"DELETE FROM controls WHERE {AT}", "repair", "control_missing", "ord-1"),
    "a control's verdict is other": (
        f"UPDATE controls SET verdict = 'stale' WHERE {AT}", "discard", "control_changed", "ord-1",
    ),
    "a control's author is other": (
        f"UPDATE controls SET author = 'kim' WHERE {AT}", "repair", "control_changed", "ord-1",
    ),
}  # fmt: skip


@pytest.mark.parametrize("planted", PLANTED)
def test_a_row_that_was_changed_is_named_and_a_rebuild_mends_it(audited: Audited, story: Story, planted: str) -> None:
    sql, name, kind, order_id = PLANTED[planted]
    audited.change(sql.format(story.places[name]))

    findings, _ = audited.audit()

    assert shown(findings) == [(kind, order_id, story.id(name))]
    assert findings.kept[0].mend == "orderflow rebuild"
    audited.rebuild()
    assert audited.audit()[0].total == 0


def test_rows_of_places_at_which_nothing_is_are_named_and_a_rebuild_removes_them(audited: Audited) -> None:
    """On a partition that is none, in a life that has not begun, and behind the last record."""
    for epoch, partition, offset in ((1, 7, 3), (2, 0, 3), (1, 5, 999)):
        audited.change(
            "INSERT INTO skipped_messages (epoch, partition, offset, reason, detail, headers, placed, opened_by)"
            f" VALUES ({epoch}, {partition}, {offset}, 'malformed_json', '', '[]', 0, {offset})"
        )

    findings, _ = audited.audit()

    assert set(shown(findings)) == {("row_without_record", None, place) for place in ("1-7-3", "2-0-3", "1-5-999")}
    audited.rebuild()
    assert audited.audit()[0].total == 0


@pytest.mark.parametrize(
    ("moved", "kind", "said"),
    [
        ("UPDATE positions SET next_offset = next_offset - 1", "position_too_low", "and rows up to offset"),
        ("UPDATE positions SET last_checksum = last_checksum + 1", "position_changed", "last_checksum"),
        ("UPDATE positions SET last_event_id = 'x'", "position_changed", "last_event_id 'x'"),
        (
            "UPDATE positions SET next_offset = 0, last_offset = NULL, last_checksum = NULL",
            "position_too_low",
            "next_offset 0",
        ),
        ("DELETE FROM positions", "position_too_low", "next_offset 0"),
    ],
)
def test_a_wrong_offset_is_named_and_a_rebuild_mends_it(
    audited: Audited, story: Story, moved: str, kind: str, said: str
) -> None:
    partition, _ = story.places["repair"]
    audited.change(f"{moved} WHERE partition = {partition}")

    findings, _ = audited.audit()

    (one,) = findings.kept
    assert (str(one.kind), one.mend) == (kind, "orderflow rebuild")
    assert one.place is not None
    assert one.place.startswith(f"1-{partition}-")
    assert said in one.found
    audited.rebuild()
    assert audited.audit()[0].total == 0


def test_an_offset_behind_records_that_nobody_applied_is_named_with_their_number(broker: Broker) -> None:
    audited = Audited(broker.settings())
    audited.send([RawRecord(event("ord-1"), b"ord-1")])
    audited.apply()
    ((partition, offset), *_) = audited.send(
        [RawRecord(event("ord-1", status), b"ord-1") for status in ("pending", "shipped", "delivered")]
    )
    audited.change("UPDATE positions SET next_offset = next_offset + 2")

    findings, _ = audited.audit()

    (one, order) = findings.kept
    assert (str(one.kind), one.place) == ("position_too_far", f"1-{partition}-{offset + 2}")
    assert "nothing is written of 2 records" in one.found
    assert (order.kind, order.order_id) == ("order_changed", "ord-1")
    audited.rebuild()
    assert audited.audit()[0].total == 0


def test_an_offset_behind_the_end_of_the_log_is_named(audited: Audited, story: Story) -> None:
    partition, _ = story.places["repair"]
    audited.change(f"UPDATE positions SET next_offset = next_offset + 100 WHERE partition = {partition}")

    findings, _ = audited.audit()

    (one,) = findings.kept
    assert str(one.kind) == "position_too_far"
    assert "orderflow republish" in one.mend


def test_a_consumer_that_skips_what_is_good_is_found_out(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    audited = Audited(broker.settings())
    decode = events.decode_text

    def skips_what_is_good(text: str) -> events.Event:
        if "shipped" in text:
            raise InvalidEvent(events.SkipReason.INVALID_EVENT, "planted")
        return decode(text)

    _, (partition, offset), _ = audited.send(
        [RawRecord(event("ord-1", status), b"ord-1") for status in (None, "shipped", "pending")]
    )
    with monkeypatch.context() as planted:
        planted.setattr(events, "decode_text", skips_what_is_good)
        audited.apply()

    findings, _ = audited.audit()

    assert shown(findings) == [("wrongly_skipped", "ord-1", f"1-{partition}-{offset}")]
    assert "skips what is good" in findings.kept[0].cause
    audited.rebuild()
    assert audited.audit()[0].total == 0


def test_a_consumer_that_applies_a_second_copy_is_found_out(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    audited = Audited(broker.settings())
    values = (
        event("ord-1"),
        event("ord-1", "shipped", UPDATE_ID),
        event("ord-1", "pending"),
        event("ord-1", "shipped", UPDATE_ID),
    )
    *_, (partition, offset) = audited.send([RawRecord(value, b"ord-1") for value in values])
    with monkeypatch.context() as planted:
        planted.setattr("orderflow.store.writer.Writer.owners", lambda *_: {})
        planted.setattr("orderflow.rebuild.reading.RECORDS_AT_ONCE", 1)
        audited.apply()

    findings, _ = audited.audit()

    place = f"1-{partition}-{offset}"
    assert set(shown(findings)) == {
        ("applied_twice", "ord-1", place), ("order_changed", "ord-1", f"1-{partition}-{offset - 1}"),
    }  # fmt: skip
    audited.rebuild()
    assert audited.audit()[0].total == 0


# What callers were told.


def entry(outcome: str, order_id: str | None, event_id: str | None, place: Place | None = None) -> dict[str, Any]:
    partition, offset = place or (None, None)
    return {
        "kind": "update", "order_id": order_id, "event_id": event_id, "sets": "shipped", "outcome": outcome,
        "status": 200, "partition": partition, "offset": offset, "sent_at": 1.0, "answered_at": 2.0,
        "idempotency_key": None, "error": None,
    }  # fmt: skip


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Any]:
    path = tmp_path / "ledger.jsonl"

    def write(*entries: dict[str, Any]) -> Path:
        path.write_text("".join(json.dumps(one) + "\n" for one in entries) + '{"cut sh', encoding="utf-8")
        return path

    return write


def test_what_callers_were_told_and_is_true_is_no_difference(audited: Audited, story: Story, ledger: Any) -> None:
    outbox = Outbox(audited.settings)
    waiting = message("ord-1")
    outbox.add([(waiting, False)])
    outbox.close()
    told = ledger(
        entry("published", "ord-1", UPDATE_ID, story.places["updated"]),
        entry("published", None, None, story.places["damaged"]),
        entry("spooled", "ord-1", waiting.event_id),
        entry("refused", "ord-1", str(uuid.uuid4())),
        entry("unknown", "ord-1", str(uuid.uuid4())),
        entry("no_answer", "ord-1", None),
        entry("invalid", None, None),
    )

    findings, tally = audited.audit(told)

    assert findings.total == 0
    assert tally.ledger == {"lines": 7, "waits in the outbox": 1}


def test_a_2xx_that_is_not_there_and_a_refused_that_is_are_named(audited: Audited, story: Story, ledger: Any) -> None:
    partition, offset = story.places["discard"]
    lost, spooled = str(uuid.uuid4()), str(uuid.uuid4())
    told = ledger(
        entry("published", "ord-1", lost, (partition, offset)),
        entry("published", "ord-1", lost, (partition, offset + 1)),
        entry("published", "ord-1", UPDATE_ID, story.places["created"]),
        entry("spooled", "ord-1", spooled),
        entry("refused", "ord-1", CREATE_ID),
    )

    findings, _ = audited.audit(told)

    found = {(str(one.kind), one.place): one for one in findings.kept}
    assert findings.total == len(found) == 5
    assert {one.order_id for one in findings.kept} == {"ord-1"}
    at_the_end = found["told_lost", f"1-{partition}-{offset + 1}"]
    assert "the log ends before it" in at_the_end.found
    assert "Idempotency-Key" in at_the_end.mend
    assert lost in found["told_lost", f"1-{partition}-{offset}"].expected
    assert spooled in found["told_lost", None].expected
    assert UPDATE_ID in found["told_elsewhere", story.id("created")].expected
    assert CREATE_ID in found["refused_appeared", None].expected


def test_what_the_outbox_says_it_delivered_must_be_there(audited: Audited, story: Story) -> None:
    """One is where another record is, one behind the end of the log, one is still on its way."""
    partition, offset = story.places["updated"]
    outbox = Outbox(audited.settings)
    outbox.add([(message("ord-1"), False), (message("ord-3"), False), (message("ord-1"), False)])
    first, second, _ = (entry.seq for entry in outbox.deliverable(3))
    outbox.settle(delivered=[(first, partition, offset), (second, partition, offset + 1_000)])
    outbox.close()

    findings, tally = audited.audit()

    assert shown(findings) == [
        ("delivered_in_vain", "ord-1", story.id("updated")),
        ("delivered_in_vain", "ord-3", f"1-{partition}-{offset + 1_000}"),
    ]
    assert [one.found for one in findings.kept] == ["another record", "nothing"]
    assert "orderflow outbox show" in findings.kept[0].mend
    assert tally.outbox["waiting"] == 1


# The log itself, and what goes on meanwhile.


def test_the_store_moves_on_while_the_audit_reads(
    audited: Audited, monkeypatch: pytest.MonkeyPatch, broker: Broker
) -> None:
    """It compares with its copy, and the topic up to the offsets of that."""
    audited = Audited(broker.settings())
    audited.send([RawRecord(event("ord-1"), b"ord-1")])
    audited.apply()
    find = auditor.find_topic

    def find_later(*arguments: Any) -> Any:
        audited.send([RawRecord(event("ord-1", "shipped"), b"ord-1")])
        audited.apply()
        return find(*arguments)

    monkeypatch.setattr(auditor, "find_topic", find_later)

    findings, tally = audited.audit()

    assert (findings.total, tally.records) == (0, 1)


def test_a_topic_that_was_made_anew_is_named(broker: Broker) -> None:
    audited = Audited(broker.settings())
    audited.send([RawRecord(event("ord-1"), b"ord-1")])
    audited.apply()
    with admin(audited.settings) as client:
        client.delete_topics([audited.settings.topic])

    gone = audited.audit()[0]

    assert [(str(one.kind), one.found) for one in gone.kept] == [("log_replaced", "no topic")]
    assert "orderflow republish" in gone.kept[0].mend


def test_what_the_log_lost_at_its_beginning_is_named(broker: Broker) -> None:
    audited = Audited(broker.settings())
    ((partition, _), _) = audited.send([RawRecord(event("ord-1", status), b"ord-1") for status in (None, "shipped")])
    audited.apply()
    with admin(audited.settings) as client:
        client.delete_records({TopicPartition(audited.settings.topic, partition): 1})

    findings, _ = audited.audit()

    assert shown(findings) == [("log_starts_late", None, f"1-{partition}-1")]
    assert findings.kept[0].mend == "orderflow republish"


def without_lz4(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine where the codec is not installed: batches that need it cannot be read."""
    monkeypatch.setattr("kafka.codec.has_lz4", lambda: False)


@pytest.fixture
def half_compressed(broker: Broker) -> tuple[Audited, list[Place]]:
    """An order with four events, of which the second and the third came in compressed batches."""
    audited, places = Audited(broker.settings()), []
    for status, codec in ((None, None), ("pending", "lz4"), ("shipped", "lz4"), ("delivered", None)):
        value = event("ord-1", status) + b" " * 500
        places += produce(audited.settings, [{"key": b"ord-1", "value": value}], compression_type=codec)
    return audited, places


def test_what_could_not_be_read_is_no_difference_while_it_cannot(
    half_compressed: tuple[Audited, list[Place]], monkeypatch: pytest.MonkeyPatch
) -> None:
    audited, places = half_compressed
    with monkeypatch.context() as planted:
        without_lz4(planted)
        audited.apply()
        findings, tally = audited.audit()
        assert (findings.total, tally.skipped, tally.records) == (0, {"unreadable_record": 2}, 4)

    findings, _ = audited.audit()

    assert shown(findings) == [
        ("wrongly_skipped", "ord-1", f"1-{partition}-{offset}") for partition, offset in places[1:3]
    ]
    assert "a version that understood less" in findings.kept[0].cause
    audited.rebuild()
    assert audited.audit()[0].total == 0


def test_what_was_applied_and_cannot_be_read_any_more_must_not_be_rebuilt(
    half_compressed: tuple[Audited, list[Place]], monkeypatch: pytest.MonkeyPatch
) -> None:
    audited, places = half_compressed
    audited.apply()
    without_lz4(monkeypatch)

    findings, _ = audited.audit()

    assert shown(findings) == [
        ("record_unreadable", None, f"1-{partition}-{offset}") for partition, offset in places[1:3]
    ]
    assert "no orderflow rebuild" in findings.kept[0].mend


# The command.


def test_the_command_tells_of_differences_and_ends_with_1(audited: Audited) -> None:
    audited.change("DELETE FROM orders")
    audited.change("DELETE FROM skipped_messages")

    said = audited.run("audit", "--limit", "1", code=1)

    assert "skip_missing: A record was not applied, and is not kept as a skipped message." in said
    assert "  mend      orderflow rebuild" in said
    assert "5 more differences are not shown" in said
    assert ["order_missing", "2"] in [line.split() for line in said.splitlines()]
    assert "6 differences: 10 records" in said
    audited.run("rebuild", "--yes")
    assert "no difference: 10 records" in audited.run("audit")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1"}, "Kafka at 127.0.0.1:1 did not answer"),
        ({"ORDERFLOW_VAR_DIR": "nowhere"}, "/nowhere/orders.db; run this in the stack's folder"),
    ],
)
def test_what_cannot_be_carried_out_says_why_and_ends_with_2(
    audited: Audited, settings: dict[str, str], said: str
) -> None:
    output = audited.run("audit", code=2, **settings)

    assert output.startswith("orderflow: the audit was not carried out: ")
    assert said in output
    assert "Traceback" not in output
    assert [path.name for path in audited.settings.var.glob(".orderflow-audit-*")] == []


def test_a_ledger_that_is_none_is_refused(audited: Audited) -> None:
    with pytest.raises(OrderflowError, match=r"the ledger .*nowhere cannot be read: No such file"):
        audited.audit(audited.settings.var / "nowhere")
    with pytest.raises(OrderflowError, match=r"line 1 of .*orders.db is no entry of a ledger"):
        audited.audit(audited.settings.orders_db)


# In several processes, which is worth it for large topics.


@pytest.fixture
def in_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "WORTH_IT", 1)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1, 2})


@pytest.mark.usefixtures("in_processes")
def test_several_processes_find_what_one_finds(
    audited: Audited, story: Story, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also an order whose row names another partition, which only all of them together can tell."""
    audited.change("DELETE FROM skipped_messages WHERE reason = 'unknown_order'")
    audited.change("UPDATE orders SET status = 'cancelled' WHERE order_id = 'ord-3'")
    audited.change("UPDATE orders SET last_partition = (last_partition + 1) % 6 WHERE order_id = 'ord-1'")
    ledger = tmp_path / "ledger.jsonl"
    ledger.write_text(json.dumps({"outcome": "published", "partition": 0, "offset": 77}) + "\n", encoding="utf-8")

    findings, tally = audited.audit(ledger)
    monkeypatch.setattr(processes, "WORTH_IT", 1_000)
    in_one, of_one = audited.audit(ledger)

    assert len(shown(findings)) == 4
    assert shown(findings) == shown(in_one)
    assert findings.counts == in_one.counts
    assert tally.shown() | {"seconds": 0, "perSecond": 0} == of_one.shown() | {"seconds": 0, "perSecond": 0}
    assert tally.records == len(story.places)


@pytest.mark.usefixtures("in_processes")
def test_a_process_that_is_killed_ends_the_audit_with_a_reason(
    audited: Audited, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "_compare", killed)

    with pytest.raises(OrderflowError, match=r"a process of the audit was killed"):
        audited.audit()
    assert list(audited.settings.var.glob(".orderflow-audit-*")) == []


def test_what_a_killed_audit_has_left_is_removed_and_no_other(audited: Audited) -> None:
    left, used = audited.settings.var / ".orderflow-audit-left", audited.settings.var / ".orderflow-audit-used"
    for folder in (left, used):
        folder.mkdir()
    (left / "orders.db").write_bytes(b"x")
    descriptor = os.open(used, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        audited.audit()
        assert [path.name for path in audited.settings.var.glob(".orderflow-audit-*")] == [".orderflow-audit-used"]
    finally:
        os.close(descriptor)
