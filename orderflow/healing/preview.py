"""What remedies would do: the projection itself, on a copy of their orders, with the remedies behind it."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any, NamedTuple

from orderflow import headers
from orderflow.broker import partition_of
from orderflow.clock import now_ms
from orderflow.projection import Projection, runs
from orderflow.records import Record
from orderflow.store.places import current_epoch
from orderflow.store.rows import ControlRow, HistoryRow, OrderRow, SkippedRow
from orderflow.store.sqlite import open_memory
from orderflow.store.writer import Writer, insert_sql

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from orderflow.healing.remedy import Remedy
    from orderflow.messages import Message
    from orderflow.settings import Settings
    from orderflow.store.rows import Place
    from orderflow.store.sqlite import Connection


class Change(NamedTuple):
    """What remedies would do to one order; None is no order at all.

    ``last`` is the offset of its last record, to hold on to by `if_last`. ``healed`` would apply by another's repair,
    ``turned`` are applied now and would be skips, ``duplicates`` would come to be copies of an earlier event.
    """

    order_id: str | None
    before: OrderRow | None
    after: OrderRow | None
    last: int | None
    controls: list[ControlRow]
    repaired: list[SkippedRow]
    healed: list[SkippedRow]
    discarded: list[SkippedRow]
    remaining: list[SkippedRow]
    turned: list[SkippedRow]
    duplicates: list[HistoryRow]


def preview(settings: Settings, snapshot: Connection, remedies: Sequence[Remedy]) -> list[Change]:
    """Say what remedies would do, order by order."""
    by_order: dict[str | None, list[Remedy]] = {}
    for one in remedies:
        by_order.setdefault(_order_of(one), []).append(one)
    with closing(open_memory()) as copy:
        writer = Writer(settings, copy)
        return [_change(writer, copy, snapshot, order_id, some) for order_id, some in by_order.items()]


def _order_of(remedy: Remedy) -> str | None:
    return remedy.event.order_id if remedy.event else remedy.skip.order_id


class _State(NamedTuple):
    order: OrderRow | None
    history: dict[Place, HistoryRow]
    skips: dict[Place, SkippedRow]


def _change(
    writer: Writer, copy: Connection, snapshot: Connection, order_id: str | None, remedies: Sequence[Remedy]
) -> Change:
    epoch, topic_id = _copy(snapshot, copy, order_id, [remedy.skip for remedy in remedies])
    before = _state(copy)
    ends = {partition: position.next_offset for partition, position in writer.positions().items()}
    projection = Projection(writer, topic_id, epoch)
    for record in _records(remedies, ends):
        for run in runs([record]):
            writer.write(projection.project(run).batch)
    controls = [ControlRow(*row) for row in _rows(copy, ControlRow, "controls")]
    ours = [row for row in controls if row.event_id in {remedy.control.event_id for remedy in remedies}]
    return _compare(order_id, remedies[0].last, before, _state(copy), ours)


def _compare(
    order_id: str | None, last: int | None, before: _State, after: _State, controls: list[ControlRow]
) -> Change:
    changed = [skip for place, skip in after.skips.items() if before.skips.get(place) != skip]

    def now(state: str) -> list[SkippedRow]:
        return [skip for skip in changed if skip.state == state]

    new = {skip.place for skip in now("open") if _was_applied(before, skip.place)}
    return Change(
        order_id,
        before.order,
        after.order,
        last,
        controls,
        now("repaired"),
        now("healed"),
        now("discarded"),
        sorted(
            (skip for skip in after.skips.values() if skip.state == "open" and skip.place not in new),
            key=lambda skip: skip.place,
        ),
        [skip for skip in changed if skip.place in new],
        [
            row
            for place, row in after.history.items()
            if row.outcome == "duplicate" and place in before.history and before.history[place].outcome != "duplicate"
        ],
    )


def _was_applied(before: _State, place: Place) -> bool:
    row = before.history.get(place)
    return row is not None and row.outcome != "skipped"


def _copy(snapshot: Connection, copy: Connection, order_id: str | None, skips: Sequence[SkippedRow]) -> tuple[int, str]:
    """Copy what concerns the order, in place of what is there, and give the epoch and its topic id."""
    key = None if order_id is None else order_id.encode()
    parts: Iterable[tuple[str, str, Sequence[object]]] = (
        ("log_epochs", "1", ()),
        ("positions", "1", ()),
        ("history", "order_id = ?", (order_id,)),
        ("skipped_messages", "order_id = ?", (order_id,)),
        ("controls", "order_id = ? OR key IS ?", (order_id, key)),
        ("orders", "order_id = ?", (order_id,)),
    )
    for table, condition, parameters in parts:
        copy.execute(f"DELETE FROM {table}")  # noqa: S608 (no outside text)
        cursor = snapshot.execute(f"SELECT * FROM {table} WHERE {condition}", parameters)  # noqa: S608 (no outside text)
        columns = tuple(column[0] for column in cursor.description)
        copy.executemany(insert_sql(table, columns), cursor.fetchall())
    copy.executemany(insert_sql("skipped_messages", SkippedRow._fields, verb="INSERT OR IGNORE"), skips)
    return current_epoch(snapshot.execute) or (0, "")


def _records(remedies: Sequence[Remedy], ends: dict[int, int]) -> Iterable[Record]:
    """Lay the messages behind what was read, as Kafka would."""
    for remedy in remedies:
        for message in (remedy.event, remedy.control):
            if message is not None:
                yield _record(message, ends)


def _record(message: Message, ends: dict[int, int]) -> Record:
    partition = partition_of(message.key or b"") if message.partition is None else message.partition
    offset = ends.get(partition, 0)
    ends[partition] = offset + 1
    return Record(partition, offset, message.key, message.value, headers.NO_HEADERS, now_ms())


def _state(copy: Connection) -> _State:
    orders = [OrderRow(*row) for row in _rows(copy, OrderRow, "orders")]
    history = [HistoryRow(*row) for row in _rows(copy, HistoryRow, "history")]
    skips = [SkippedRow(*row) for row in _rows(copy, SkippedRow, "skipped_messages")]
    return _State(orders[0] if orders else None, {row.place: row for row in history}, {row.place: row for row in skips})


def _rows(copy: Connection, kind: Any, table: str) -> list[Any]:
    return copy.execute(f"SELECT {', '.join(kind._fields)} FROM {table}").fetchall()  # noqa: S608 (no outside text)
