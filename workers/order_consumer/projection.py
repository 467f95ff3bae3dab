"""Records -> rows: decodes, folds, and says of each record what came of it. Writes nothing itself.

The rules are those of an order's history: docs/events.md. A record belongs to an order's history when it decodes, has
the order's id as its key and lies on the partition of that key; the first place with an event id owns it; what an event
does is `orderflow.orders.step`.
"""

from __future__ import annotations

import base64
import traceback
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec

from orderflow import events
from orderflow.broker import partition_of
from orderflow.errors import InvalidEvent
from orderflow.events import Event, OrderCreated, SkipReason
from orderflow.orders import JSON_ENCODER, Effect, Money, step
from orderflow.store.rows import Batch, HistoryRow, OrderRow, PositionRow, SkippedRow, StatusRow
from orderflow.tracing import trace_id_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from orderflow.records import Record, UnreadableRecord
    from orderflow.store.writer import Writer


@dataclass(slots=True)
class Read:
    """A record and what it decodes to; the id it goes by."""

    record: Record
    event: Event | InvalidEvent
    text: str = ""
    event_id: str = ""
    misplaced: SkipReason | None = None


@dataclass
class Projected:
    """A batch of rows, and the counts that go with it."""

    batch: Batch = field(default_factory=Batch)
    counts: Counter[str] = field(default_factory=Counter)


class Projection:
    """Projects the records of one log epoch."""

    def __init__(self, writer: Writer, topic_id: str, epoch: int) -> None:
        self._writer = writer
        self._topic_id = topic_id
        self._epoch = epoch

    def project(self, records: Sequence[Record]) -> Projected:
        """Turn records, in the sequence they were read in, into the rows they come to."""
        reads = [self._read(record) for record in records]
        placed = [
            (r.event.order_id, r.event_id) for r in reads if not isinstance(r.event, InvalidEvent) and not r.misplaced
        ]
        known = self._writer.known_orders({order_id for order_id, _ in placed})
        owners = self._writer.owners(set(placed))
        projected = Projected()
        for read in reads:
            self._one(read, known, owners, projected)
        for last in {read.record.partition: read for read in reads}.values():
            self._move(projected.batch, last)
        return projected

    def skip_unforeseen(self, record: Record, error: Exception) -> Projected:
        """Skip a record whose projection raised an error that nobody foresaw, with its trace.

        Where it decodes it still has a place in history, and its event id is taken.
        """
        projected = Projected()
        reason = SkipReason.INTERNAL_ERROR
        detail = f"{type(error).__name__}: {error}"
        try:
            read = self._read(record)
        except Exception:  # noqa: BLE001 (decoding may be what raised)
            read = Read(record, InvalidEvent(reason, detail))
        if not isinstance(read.event, InvalidEvent):
            projected.batch.history.append(self._history(read, read.event, events.fingerprint(read.event), reason))
        self._skip(projected, read, reason, detail, "".join(traceback.format_exception(error)))
        self._move(projected.batch, read)
        return projected

    def skip_unreadable(self, unreadable: Iterable[UnreadableRecord]) -> Projected:
        """Skip records of a batch that cannot be read: there is a place, and no value."""
        projected = Projected()
        for one in unreadable:
            projected.batch.skipped.append(
                SkippedRow(
                    self._epoch, one.partition, one.offset, SkipReason.UNREADABLE_RECORD, one.error,
                    None, None, "[]", None, None, None, None, None,
                )
            )  # fmt: skip
            projected.counts[f"skipped.{SkipReason.UNREADABLE_RECORD}"] += 1
            position = PositionRow(one.partition, self._epoch, one.offset + 1, None, None, None)
            projected.batch.positions[one.partition] = position
        return projected

    # One record.

    def _read(self, record: Record) -> Read:
        if record.damage is not None:
            return Read(record, InvalidEvent(SkipReason.UNREADABLE_RECORD, record.damage))
        try:
            text = events.text_of(record.value)
            event = events.decode_text(text)
        except InvalidEvent as error:
            return Read(record, error)
        event_id = event.event_id or events.derived_event_id(
            self._topic_id, record.partition, record.offset, record.key or b"", record.value or b""
        )
        return Read(record, event, text, event_id, _misplaced(record, event))

    def _one(self, read: Read, known: set[str], owners: dict[tuple[str, str], bytes], projected: Projected) -> None:
        record, event = read.record, read.event
        if isinstance(event, InvalidEvent):
            self._skip(projected, read, SkipReason(event.reason), event.detail)
            return
        fingerprint = events.fingerprint(event)
        outcome, reason = self._outcome(read, event, fingerprint, known, owners)
        projected.batch.history.append(self._history(read, event, fingerprint, reason, outcome))
        if outcome == "applied":
            self._apply(projected.batch, record, event)
        if reason is not None:
            self._skip(projected, read, reason, reason.sentence)
        else:
            projected.counts[outcome] += 1

    def _outcome(
        self, read: Read, event: Event, fingerprint: bytes, known: set[str], owners: dict[tuple[str, str], bytes]
    ) -> tuple[str, SkipReason | None]:
        if read.misplaced is not None:
            return "skipped", read.misplaced
        owner = owners.setdefault((event.order_id, read.event_id), fingerprint)
        if owner is not fingerprint:
            return ("duplicate", None) if owner == fingerprint else ("skipped", SkipReason.EVENT_ID_CONFLICT)
        effect = step(event.order_id in known, creates=isinstance(event, OrderCreated))
        if effect is Effect.CREATED:
            known.add(event.order_id)
        if effect in (Effect.CREATED, Effect.STATUS_SET):
            return "applied", None
        return "skipped", SkipReason(effect.value)

    # Rows.

    def _history(
        self, read: Read, event: Event, fingerprint: bytes, reason: SkipReason | None, outcome: str = "skipped"
    ) -> HistoryRow:
        record = read.record
        return HistoryRow(
            self._epoch, record.partition, record.offset, None if read.misplaced else event.order_id, read.event_id,
            events.TYPES[type(event)], read.text, fingerprint, record.logged_at,
            trace_id_of(record.traceparent), outcome, reason,
        )  # fmt: skip

    def _apply(self, batch: Batch, record: Record, event: Event) -> None:
        place = (self._epoch, record.partition, record.offset, record.logged_at)
        if isinstance(event, OrderCreated):
            order = event.order
            batch.created[order.order_id] = OrderRow(
                order.order_id, order.customer_id, events.wire_time(order.order_date).decode(),
                order.currency, JSON_ENCODER.encode(order.items).decode(), _minor(order.total_amount),
                _minor(order.shipping_cost), order.status, *place,
            )  # fmt: skip
        elif (created := batch.created.get(event.order_id)) is not None:  # One row says both.
            batch.created[event.order_id] = created.with_status(event.status, *place)
        else:
            batch.statuses[event.order_id] = StatusRow(event.status, *place, event.order_id)

    def _skip(
        self, projected: Projected, read: Read, reason: SkipReason, detail: str, trace: str | None = None
    ) -> None:
        record = read.record
        order_id = None if isinstance(read.event, InvalidEvent) else read.event.order_id
        projected.batch.skipped.append(
            SkippedRow(
                self._epoch, record.partition, record.offset, reason, detail, record.key, record.value,
                _headers_json(record), record.logged_at, order_id, read.event_id or None, trace,
                trace_id_of(record.traceparent),
            )
        )  # fmt: skip
        projected.counts[f"skipped.{reason}"] += 1

    def _move(self, batch: Batch, last: Read) -> None:
        record = last.record
        batch.positions[record.partition] = PositionRow(
            record.partition, self._epoch, record.offset + 1, record.offset, record.checksum(), last.event_id or None
        )


def _misplaced(record: Record, event: Event) -> SkipReason | None:
    if record.key is None:
        return SkipReason.MISSING_KEY
    if record.key != event.order_id.encode():
        return SkipReason.KEY_MISMATCH
    if partition_of(record.key) != record.partition:
        return SkipReason.WRONG_PARTITION
    return None


def _headers_json(record: Record) -> str:
    """Keep headers as they were: ``[[name, base64 or null], …]``."""
    pairs = [(name, None if value is None else base64.b64encode(value).decode()) for name, value in record.headers]
    return msgspec.json.encode(pairs).decode()


def _minor(amount: Money) -> int:
    return int(amount * 100)
