"""The projection of one log epoch: batches of records, in the sequence they were read in, into rows."""

from __future__ import annotations

import traceback
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from orderflow import controls, events
from orderflow.controls import Verdict
from orderflow.errors import InvalidEvent
from orderflow.events import Event, OrderCreated, SkipReason
from orderflow.projection.fold import settle
from orderflow.projection.healing import heal
from orderflow.projection.reads import Cause, Read, history_row, read, skipped_row, told
from orderflow.records import bare
from orderflow.store.rows import Batch, OrderRow, PositionRow, SkippedRow, StatusRow

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from orderflow.projection.fold import Owners
    from orderflow.records import Record, UnreadableRecord
    from orderflow.store.writer import Writer


@dataclass
class Projected:
    """A batch of rows, and the counts that go with it."""

    batch: Batch = field(default_factory=Batch)
    counts: Counter[str] = field(default_factory=Counter)

    def skip(self, read: Read, epoch: int, cause: Cause) -> None:
        """Add the row of a record that is not applied."""
        self.batch.skipped.append(skipped_row(read, epoch, cause))
        self.counts[f"skipped.{cause.reason}"] += 1


def runs(records: Sequence[Record]) -> Iterator[Sequence[Record]]:
    """Part records into runs that can be projected at once: a control record stands alone.

    What it does depends on what was written before it.
    """
    start = 0
    for at, record in enumerate(records):
        if _stands_alone(record):
            if at > start:
                yield records[start:at]
            yield records[at : at + 1]
            start = at + 1
    if start < len(records):
        yield records[start:]


def _is_control(record: Record) -> bool:
    return record.damage is None and controls.is_control(record.value)


def _stands_alone(record: Record) -> bool:
    try:
        return _is_control(record)
    except Exception:  # noqa: BLE001 (an error that nobody foresaw may cost this record, and no other)
        return True


class Projection:
    """Projects the records of one log epoch. What it gives is written before it is asked again."""

    def __init__(self, writer: Writer, topic_id: str, epoch: int) -> None:
        self._writer = writer
        self._topic_id = topic_id
        self.epoch = epoch

    def project(self, records: Sequence[Record]) -> Projected:
        """Turn one run of records into the rows they come to."""
        if len(records) == 1 and _is_control(records[0]):
            return self._control(records[0])
        return self._plain(records)

    def skip_unforeseen(self, record: Record, error: Exception) -> Projected:
        """Skip a record whose projection raised an error that nobody foresaw, with its trace.

        Where it decodes it still has a place in history, and its event id is taken.
        """
        projected = Projected()
        reason = SkipReason.INTERNAL_ERROR
        detail = f"{type(error).__name__}: {error}"
        try:
            found = read(record, self._topic_id)
        except Exception:  # noqa: BLE001 (decoding may be what raised)
            found = Read(record, InvalidEvent(reason, detail))
        if not isinstance(found.event, InvalidEvent):
            fingerprint = events.fingerprint(found.event)
            row = history_row(found, found.event, self.epoch, fingerprint, ("skipped", reason))
            projected.batch.history.append(row)
        trace = "".join(traceback.format_exception(error))
        projected.skip(found, self.epoch, Cause(reason, detail, type(error).__name__, attempts=2, trace=trace))
        self._move(projected.batch, record, found.event_id)
        return projected

    def skip_bare(self, record: Record, error: Exception) -> Projected:
        """Skip a record of which not even the row could be written: its place is kept, and the error."""
        projected = Projected()
        found = Read(bare(record), InvalidEvent(SkipReason.INTERNAL_ERROR, ""))
        detail = f"Nothing of it could be kept: {type(error).__name__}: {error}"
        projected.skip(found, self.epoch, Cause(SkipReason.INTERNAL_ERROR, detail, type(error).__name__, attempts=3))
        self._move(projected.batch, record, "")
        return projected

    def skip_unreadable(self, unreadable: Iterable[UnreadableRecord], attempts: int) -> Projected:
        """Skip records of a batch that cannot be read, which was tried so often: there is a place, and no value."""
        projected = Projected()
        for one in unreadable:
            what = one.error.partition(":")[0]
            row = SkippedRow(
                self.epoch, one.partition, one.offset, SkipReason.UNREADABLE_RECORD, told(one.error), None, None,
                "[]", None, None, 0, None, what, attempts, None, None, opened_by=one.offset,
            )  # fmt: skip
            projected.batch.skipped.append(row)
            projected.counts[f"skipped.{SkipReason.UNREADABLE_RECORD}"] += 1
            position = PositionRow(one.partition, self.epoch, one.offset + 1, None, None, None)
            projected.batch.positions[one.partition] = position
        return projected

    # Plain records.

    def _plain(self, records: Sequence[Record]) -> Projected:
        reads = [read(record, self._topic_id) for record in records]
        placed = [
            (r.event.order_id, r.event_id) for r in reads if not isinstance(r.event, InvalidEvent) and not r.misplaced
        ]
        known = self._writer.known_orders({order_id for order_id, _ in placed})
        owners = self._writer.owners(set(placed))
        projected = Projected()
        for found in reads:
            self._one(found, known, owners, projected)
        for last in {found.record.partition: found for found in reads}.values():
            self._move(projected.batch, last.record, last.event_id)
        return projected

    def _one(self, found: Read, known: set[str], owners: Owners, projected: Projected) -> None:
        event = found.event
        if isinstance(event, InvalidEvent):
            projected.skip(found, self.epoch, Cause(SkipReason(event.reason), event.detail, type(event).__name__))
            return
        fingerprint = events.fingerprint(event)
        outcome, reason = (
            settle(event, found.event_id, fingerprint, known, owners)
            if found.misplaced is None
            else ("skipped", found.misplaced)
        )
        projected.batch.history.append(history_row(found, event, self.epoch, fingerprint, (outcome, reason)))
        if outcome == "applied":
            self._apply(projected.batch, found.record, event)
        if reason is not None:
            projected.skip(found, self.epoch, Cause(reason, reason.sentence))
        else:
            projected.counts[outcome] += 1

    def _apply(self, batch: Batch, record: Record, event: Event) -> None:
        place, logged_at = (self.epoch, record.partition, record.offset), record.logged_at
        if isinstance(event, OrderCreated):
            batch.created[event.order_id] = OrderRow.created(event.order, place, logged_at)
        elif (created := batch.created.get(event.order_id)) is not None:  # One row says both.
            batch.created[event.order_id] = created.with_status(event.status, place, logged_at)
        else:
            batch.statuses[event.order_id] = StatusRow(event.status, *place, logged_at, event.order_id)

    def _move(self, batch: Batch, record: Record, event_id: str) -> None:
        batch.positions[record.partition] = PositionRow(
            record.partition, self.epoch, record.offset + 1, record.offset, record.checksum(), event_id or None
        )

    # Controls.

    def _control(self, record: Record) -> Projected:
        projected = Projected()
        try:
            control = controls.decode(record.value)
        except InvalidEvent as error:
            self._skip_control(projected, record, error)
            self._move(projected.batch, record, "")
            return projected
        projected.batch = heal(control, record, self._writer.places, self._topic_id, self.epoch)
        (row,) = projected.batch.controls
        if row.verdict == Verdict.INVALID_CONTROL:
            self._skip_control(projected, record, InvalidEvent(SkipReason.INVALID_CONTROL, row.detail))
        else:
            projected.counts[f"control.{row.verdict}"] += 1
        self._move(projected.batch, record, control.event_id)
        return projected

    def _skip_control(self, projected: Projected, record: Record, error: InvalidEvent) -> None:
        cause = Cause(SkipReason(error.reason), error.detail, type(error).__name__)
        projected.skip(Read(record, error), self.epoch, cause)
