"""Records -> rows: the state depends on the log alone, not on how it was cut into batches or interleaved."""

import json
import sqlite3
from collections import defaultdict
from pathlib import Path

import msgspec
import pytest
import structlog.testing
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from order_consumer.consumer import OrderConsumer
from orderflow import events
from orderflow.alerts import AlertBook, Cause
from orderflow.broker import Topic, partition_of
from orderflow.headers import NO_HEADERS
from orderflow.process import Heartbeat, StopFlag
from orderflow.projection import Projection
from orderflow.records import Anchor, Position, Record, UnreadableRecord
from orderflow.settings import Settings
from orderflow.store.alerts import Alerts
from orderflow.store.rows import Batch, OrderRow
from orderflow.store.writer import ROWS_AT_ONCE, Writer

TOPIC = Topic("order_events", "topic-id", 6)
ORDERS = ("a", "b", "c")
STATUSES = ("pending", "shipped")


def uuid(number: int) -> str:
    return f"00000000-0000-4000-8000-{number:012d}"


def created(order_id: str, event_id: int | None, customer: str = "c-1") -> bytes:
    order = {
        "orderId": order_id, "customerId": customer, "orderDate": "2026-01-02T03:04:05Z",
        "items": [{"itemId": "i", "quantity": 1, "price": 10.25}], "totalAmount": 10.25, "currency": "EUR",
    }  # fmt: skip
    return event("order.created", order_id, event_id, order=order)


def changed(order_id: str, event_id: int | None, status: str) -> bytes:
    return event("order.status_changed", order_id, event_id, status=status)


def event(kind: str, order_id: str, event_id: int | None, **more: object) -> bytes:
    identity = {} if event_id is None else {"event_id": uuid(event_id)}
    return json.dumps({"type": kind, "order_id": order_id, **identity, **more}).encode()


def open_writer(folder: Path) -> Writer:
    writer = Writer(Settings(var_dir=str(folder)))
    if writer.epoch() is None:
        writer.open_epoch(TOPIC, "test")
    return writer


def apply(writer: Writer, batches: list[list[Record]]) -> None:
    for batch in batches:
        projected = Projection(writer, TOPIC.topic_id, 1).project(batch)
        writer.write(projected.batch)


def dump(writer: Writer) -> dict[str, list[tuple[object, ...]]]:
    """Everything but the order of arrival."""
    columns = {"history": "*", "skipped_messages": "*", "positions": "*", "orders": ", ".join(OrderRow._fields)}
    query = writer._connection.execute
    return {table: sorted(query(f"SELECT {c} FROM {table}").fetchall(), key=repr) for table, c in columns.items()}


def orders(writer: Writer) -> list[OrderRow]:
    return [OrderRow._make(row) for row in dump(writer)["orders"]]


def told(row: OrderRow) -> tuple[object, ...]:
    whose = (row.order_id, row.customer_id, row.total_minor, row.shipping_minor)
    return (*whose, row.status, row.last_offset, row.updated_at)


def log_of(values: list[tuple[bytes, bytes | None]]) -> list[Record]:
    """Lay (key, value) pairs on their partitions, as a broker would."""
    ends: dict[int, int] = defaultdict(int)
    records = []
    for key, value in values:
        partition = partition_of(key)
        records.append(Record(partition, ends[partition], key, value, NO_HEADERS, 1_700_000_000_000 + len(records)))
        ends[partition] += 1
    return records


def one(order_id: str) -> st.SearchStrategy[tuple[bytes, bytes | None]]:
    numbers = st.none() | st.integers(1, 6)
    good = st.one_of(
        st.builds(created, st.just(order_id), numbers, st.sampled_from(["c-1", "c-2"])),
        st.builds(changed, st.just(order_id), numbers, st.sampled_from(STATUSES)),
    )
    bad = st.sampled_from([None, b"{", b"[]", b'{"type":"x"}', changed("other", 1, "shipped")])
    return st.tuples(st.just(order_id.encode()), st.one_of(good, good, good, bad))


logs = st.lists(st.sampled_from(ORDERS).flatmap(one), max_size=25).map(log_of)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(records=logs, data=st.data())
def test_the_state_does_not_depend_on_cuts_or_interleaving(
    tmp_path_factory: pytest.TempPathFactory, records: list[Record], data: st.DataObject
) -> None:
    """One batch of everything, against any cuts and any order of partitions that keeps each one's own."""
    whole = open_writer(tmp_path_factory.mktemp("whole"))
    apply(whole, [records])

    turns = data.draw(st.permutations([record.partition for record in records]))
    queues = {p: iter([r for r in records if r.partition == p]) for p in set(turns)}
    mixed = [next(queues[partition]) for partition in turns]
    cut = open_writer(tmp_path_factory.mktemp("cut"))
    rest = list(mixed)
    while rest:
        size = data.draw(st.integers(1, len(rest)))
        apply(cut, [rest[:size]])
        rest = rest[size:]

    assert dump(cut) == dump(whole)
    whole.close()
    cut.close()


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(records=logs)
def test_the_orders_are_the_fold_of_their_first_events(
    tmp_path_factory: pytest.TempPathFactory, records: list[Record]
) -> None:
    """Compared with a model of ten lines that shares no code with the projection."""
    writer = open_writer(tmp_path_factory.mktemp("store"))
    apply(writer, [records])

    expected: dict[str, tuple[str, str]] = {}
    seen: set[tuple[str, str]] = set()
    for record in records:
        try:
            value = json.loads(record.value or b"")
        except ValueError:
            continue
        if not isinstance(value, dict) or value.get("order_id") != (record.key or b"").decode():
            continue
        order_id = value["order_id"]
        if "event_id" in value:
            if (order_id, value["event_id"]) in seen:
                continue
            seen.add((order_id, value["event_id"]))
        if value["type"] == "order.created":
            expected.setdefault(order_id, (value["order"]["customerId"], "new"))
        elif order_id in expected:
            expected[order_id] = (expected[order_id][0], value["status"])

    assert {row.order_id: (row.customer_id, row.status) for row in orders(writer)} == expected
    writer.close()


@pytest.fixture
def writer(tmp_path: Path) -> Writer:
    return open_writer(tmp_path)


def outcomes(writer: Writer) -> list[tuple[object, ...]]:
    rows = writer._connection.execute("SELECT order_id, outcome, reason FROM history ORDER BY epoch, partition, offset")
    return rows.fetchall()


def test_a_create_and_an_update_make_an_order(writer: Writer) -> None:
    """Amounts are minor units, shipping is 2 %, halves up."""
    apply(writer, [log_of([(b"a", created("a", 1)), (b"a", changed("a", 2, "shipped"))])])

    assert [told(row) for row in orders(writer)] == [("a", "c-1", 1025, 21, "shipped", 1, 1_700_000_000_001)]


def test_each_business_error_is_skipped_with_its_reason(writer: Writer) -> None:
    """And what the caller sent is kept as it was."""
    raw = changed("a", 1, "shipped")
    apply(writer, [log_of([(b"a", raw), (b"a", created("a", 2)), (b"a", created("a", 3)),
                           (b"a", created("a", 2)), (b"a", changed("a", 2, "pending"))])])  # fmt: skip

    assert outcomes(writer) == [
        ("a", "skipped", "unknown_order"),
        ("a", "applied", None),
        ("a", "skipped", "duplicate_create"),
        ("a", "duplicate", None),
        ("a", "skipped", "event_id_conflict"),
    ]
    kept = writer._connection.execute("SELECT key, value, state FROM skipped_messages WHERE offset = 0").fetchone()
    assert kept == (b"a", raw, "open")


@pytest.mark.parametrize("reason", ["missing_key", "key_mismatch", "wrong_partition"])
def test_what_is_misplaced_is_in_no_orders_history(writer: Writer, reason: str) -> None:
    """It neither makes the order nor owns its event id."""
    own = partition_of(b"a")
    key = {"missing_key": None, "key_mismatch": b"b", "wrong_partition": b"a"}[reason]
    partition = {"missing_key": own, "key_mismatch": partition_of(b"b"), "wrong_partition": (own + 1) % 6}[reason]
    apply(writer, [[Record(partition, 0, key, created("a", 1), NO_HEADERS, 0)]])
    apply(writer, [[Record(own, 1, b"a", created("a", 1), NO_HEADERS, 0)]])

    assert sorted(outcomes(writer), key=repr) == sorted([(None, "skipped", reason), ("a", "applied", None)], key=repr)


def test_what_does_not_decode_is_kept_raw(writer: Writer) -> None:
    """With key, value and headers; it is no history."""
    apply(writer, [[Record(0, 0, b"k\xff", b"{", b"\x04\x02h\x02\x00\x02n\x01", 5)]])

    row = writer._connection.execute("SELECT reason, key, value, headers, logged_at FROM skipped_messages").fetchone()
    assert row == ("malformed_json", b"k\xff", b"{", '[["h","AA=="],["n",null]]', 5)
    assert outcomes(writer) == []


def test_a_record_with_damaged_headers_is_skipped_with_all_that_can_be_read(writer: Writer) -> None:
    """Its key, its value, and headers with what is no UTF-8 escaped; the one behind it is applied."""
    partition = partition_of(b"a")
    headers = b"\x02\x04x\xff\x02y"
    damaged = Record(partition, 0, b"a", created("a", 1), headers, 5, "A header's name is not UTF-8.")
    apply(writer, [[damaged, Record(partition, 1, b"a", created("a", 2), NO_HEADERS, 5)]])

    row = writer._connection.execute("SELECT reason, detail, key, value, headers FROM skipped_messages").fetchone()
    reason, detail = "unreadable_record", "A header's name is not UTF-8."
    assert row == (reason, detail, b"a", created("a", 1), '[["x\\\\xff","eQ=="]]')
    assert outcomes(writer) == [("a", "applied", None)]


def test_many_rows_go_in_as_few_do(writer: Writer) -> None:
    """More than one statement takes, and some that are left over."""
    count = 2 * ROWS_AT_ONCE + 3
    apply(writer, [log_of([(b"o%d" % n, created(f"o{n}", n)) for n in range(count)])])

    rows = writer._connection.execute("SELECT order_id, customer_id FROM orders ORDER BY arrival").fetchall()
    assert sorted(rows) == sorted((f"o{n}", "c-1") for n in range(count))
    assert writer._connection.execute("SELECT count(DISTINCT event_id) FROM history").fetchone() == (count,)


def test_one_bad_row_among_many_undoes_the_batch(writer: Writer) -> None:
    """Also within a statement of many rows: all of it, or nothing."""
    apply(writer, [log_of([(b"a", created("a", 1))])])
    before = dump(writer)
    many = [(b"o%d" % n, created(f"o{n}", n)) for n in range(2, 3 * ROWS_AT_ONCE)]
    broken = Projection(writer, TOPIC.topic_id, 1).project(log_of([*many, (b"a", created("a", 1))]))

    with pytest.raises(sqlite3.IntegrityError):
        writer.write(broken.batch)

    assert dump(writer) == before


def test_an_unreadable_record_leaves_its_place_and_no_anchor(writer: Writer) -> None:
    """Reading goes on behind it, and nothing is compared there: nobody knows what it holds."""
    skipped = Projection(writer, TOPIC.topic_id, 1).skip_unreadable([UnreadableRecord(2, 7, "CorruptRecordError")], 3)
    writer.write(skipped.batch)

    assert writer.positions() == {2: Position(8, None)}


def test_positions_move_with_the_effects_or_not_at_all(writer: Writer) -> None:
    """A batch that fails leaves neither rows nor positions."""
    records = log_of([(b"a", created("a", 1))])
    apply(writer, [records])
    before = dump(writer)
    broken = Projection(writer, TOPIC.topic_id, 1).project(log_of([(b"a", created("a", 1)), (b"a", created("a", 9))]))

    with pytest.raises(Exception, match="UNIQUE"):
        writer.write(broken.batch)

    assert dump(writer) == before
    (record,) = records
    assert writer.positions() == {record.partition: Position(1, Anchor(0, record.checksum()))}


def test_a_new_epoch_reads_from_the_start_and_applies_nothing_twice(writer: Writer) -> None:
    """The old epoch's history stays; the replay finds its ids owned."""
    records = log_of([(b"a", created("a", 1)), (b"a", changed("a", 2, "shipped"))])
    apply(writer, [records])
    epoch = writer.open_epoch(TOPIC, "lost")

    assert writer.positions() == {}
    writer.write(Projection(writer, "another-id", epoch).project(records).batch)

    assert [outcome for _, outcome, _ in outcomes(writer)] == ["applied", "applied", "duplicate", "duplicate"]
    assert [told(row) for row in orders(writer)] == [("a", "c-1", 1025, 21, "shipped", 1, 1_700_000_000_001)]


def test_an_unforeseen_error_keeps_its_trace(writer: Writer) -> None:
    """The one record is skipped as internal_error; the trace is in the row."""
    (record,) = log_of([(b"a", created("a", 1))])
    try:
        raise ZeroDivisionError("bug")
    except ZeroDivisionError as error:
        writer.write(Projection(writer, TOPIC.topic_id, 1).skip_unforeseen(record, error).batch)

    reason, trace = writer._connection.execute("SELECT reason, trace FROM skipped_messages").fetchone()
    assert reason == "internal_error"
    assert "ZeroDivisionError: bug" in trace


def test_a_checkpoint_that_fails_does_not_undo_the_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk behind the commit: the batch is in, once, and nothing is told of it as skipped."""
    writer = open_writer(tmp_path)
    monkeypatch.setattr(writer, "_wal_limit", 0)
    with sqlite3.connect(tmp_path / "orders.db") as reader:
        reader.execute("BEGIN").execute("SELECT * FROM orders").fetchall()  # holds the WAL
        writer._connection.execute("PRAGMA busy_timeout = 10")

        apply(writer, [log_of([(b"a", created("a", 1))])])

    assert [outcome for _, outcome, _ in outcomes(writer)] == ["applied"]


class CommitsThenFails(Writer):
    """Writes, and then says that the disk is full, as a commit can that took effect."""

    failures = 1

    def write(self, batch: Batch) -> None:
        super().write(batch)
        if self.failures:
            self.failures -= 1
            error = sqlite3.OperationalError("database or disk is full")
            error.sqlite_errorcode = sqlite3.SQLITE_FULL
            raise error


def test_a_commit_that_failed_after_it_took_effect_is_not_made_twice(tmp_path: Path) -> None:
    """Before each further attempt what is stored is left out: no row twice, no skip, no alert."""
    settings = Settings(var_dir=str(tmp_path), wait_first_delay_s=0.01)
    writer = CommitsThenFails(settings)
    epoch = writer.open_epoch(TOPIC, "test")
    consumer = OrderConsumer(settings, writer, AlertBook(settings, "x"), StopFlag(), Heartbeat(settings, "x"))
    records = log_of([(b"a", created("a", 1)), (b"a", changed("a", 2, "shipped")), (b"b", b"{")])

    with structlog.testing.capture_logs() as lines:
        consumer._applier.apply(Projection(writer, TOPIC.topic_id, epoch), records)

    assert [line["event"] for line in lines if line["log_level"] == "error"] == ["store.retry_scheduled"]
    assert outcomes(writer) == [("a", "applied", None), ("a", "applied", None)]
    assert [row[3] for row in dump(writer)["skipped_messages"]] == ["malformed_json"]


def test_one_record_that_nobody_foresaw_costs_only_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch of three with a bug in the middle: two applied, one kept with its trace and its id, and an alert."""
    settings = Settings(var_dir=str(tmp_path))
    writer = Writer(settings)
    epoch = writer.open_epoch(TOPIC, "test")
    projection = Projection(writer, TOPIC.topic_id, epoch)
    good = projection._apply

    def buggy(batch: Batch, record: Record, event: events.Event) -> None:
        if event.order_id == "b":
            raise ZeroDivisionError("bug")
        good(batch, record, event)

    monkeypatch.setattr(projection, "_apply", buggy)
    alerts = AlertBook(settings, "x")
    consumer = OrderConsumer(settings, writer, alerts, StopFlag(), Heartbeat(settings, "x"))

    consumer._applier.apply(projection, log_of([(name.encode(), created(name, 1)) for name in ORDERS]))
    alerts.close()

    assert sorted(outcomes(writer)) == [
        ("a", "applied", None),
        ("b", "skipped", "internal_error"),
        ("c", "applied", None),
    ]
    ((reason, trace, event_id),) = writer._connection.execute("SELECT reason, trace, event_id FROM skipped_messages")
    assert (reason, event_id) == ("internal_error", uuid(1))
    assert "ZeroDivisionError: bug" in trace
    (alert,) = Alerts(settings).rows()
    assert (alert.cause, alert.affected) == (Cause.INTERNAL_ERROR, 1)
    assert alert.detail.endswith("offset 0: ZeroDivisionError: bug")


@pytest.mark.parametrize(("offset", "alerts"), [(0, 0), (7, 1)])
def test_a_partition_that_begins_late_is_an_alert(tmp_path: Path, offset: int, alerts: int) -> None:
    """When it is read for the first time, and only then."""
    settings = Settings(var_dir=str(tmp_path))
    book = AlertBook(settings, "x")
    consumer = OrderConsumer(settings, Writer(settings), book, StopFlag(), Heartbeat(settings, "x"))
    consumer._positions[1] = Position(3, None)
    (record,) = log_of([(b"a", created("a", 1))])
    records = [msgspec.structs.replace(record, partition=p, offset=offset + n) for p in (0, 1) for n in (0, 1)]

    consumer._look_at_starts(records)
    book.close()

    assert [alert.detail for alert in Alerts(settings).rows()] == [f"Partition 0 begins at offset {offset}."] * alerts


@pytest.mark.parametrize(
    ("records", "lag", "waits_s"),
    [(1, 0, 0.0), (5, 0, 0.002), (100, 0, 0.01), (100, 40, 0.01), (100, 100, 0.0), (2_000, 50_000, 0.0)],
)
def test_the_fuller_the_stream_the_longer_records_gather(
    tmp_path: Path, records: int, lag: int, waits_s: float
) -> None:
    """A record that comes alone is not held up, nor is a backlog."""
    settings = Settings(var_dir=str(tmp_path))
    consumer = OrderConsumer(settings, Writer(settings), AlertBook(settings, "x"), StopFlag(), Heartbeat(settings, "x"))

    assert consumer._gathering_s(records, lag) == pytest.approx(waits_s)
