"""Applying a batch: project and write it, wait for a store that is in trouble, and tell what came of each record."""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING

import structlog

from order_consumer.flood import FloodWatch
from order_consumer.telling import tell_control, tell_event, tell_skipped
from orderflow.alerts import AlertBook, Cause
from orderflow.delays import growing_delays
from orderflow.events import SkipReason
from orderflow.measures import APPLY_SECONDS, BATCH_RECORDS, Distribution
from orderflow.projection import runs
from orderflow.records import Anchor, Position
from orderflow.store.sqlite import DatabaseError, is_damage, is_transient

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from orderflow.process import State, StopFlag
    from orderflow.projection import Projected, Projection
    from orderflow.records import Record
    from orderflow.settings import Settings
    from orderflow.store.writer import Writer

#: Bounds of the distributions: seconds that a batch takes, and its records.
SECONDS = (0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
RECORDS = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1_000.0, 2_000.0, 5_000.0)

log = structlog.get_logger("order-consumer")


class Stopped(BaseException):  # no error: what handles errors must not take it for one
    """Asked to stop in the midst of a batch. What is written stays; the rest is read again at the next start."""


class Applier:
    """Writes what is read.

    ``positions`` says where reading goes on, ``counts`` what came of the records, ``distributions`` how long batches
    took and how large they were.
    """

    def __init__(
        self,
        settings: Settings,
        writer: Writer,
        alerts: AlertBook,
        stop: StopFlag,
        beat: Callable[[State, str | None], None],
    ) -> None:
        self._settings = settings
        self._writer = writer
        self._alerts = alerts
        self._stop = stop
        self._beat = beat
        self._flood = FloodWatch(settings, alerts)
        self.positions: dict[int, Position] = {}
        self.counts: Counter[str] = Counter()
        self.distributions = {
            APPLY_SECONDS: Distribution.over(*SECONDS),
            BATCH_RECORDS: Distribution.over(*RECORDS),
        }

    def apply(self, projection: Projection, records: Sequence[Record]) -> None:
        """Project and write one batch, run by run; a control is a run, and a transaction, of its own."""
        started = time.monotonic()
        for number, run in enumerate(runs(records)):
            if number:
                self._pause()
            self._apply_run(projection, run)
        took_s = time.monotonic() - started
        self.counts["batches"] += 1
        self.counts["apply_ms"] += round(took_s * 1000)
        self.distributions[APPLY_SECONDS].observe(took_s)
        self.distributions[BATCH_RECORDS].observe(len(records))

    def _pause(self) -> None:
        """Beat, and look whether to stop: a batch of repairs of long orders takes minutes."""
        if self._stop:
            raise Stopped("it takes long")
        self._beat("running", None)

    def _apply_run(self, projection: Projection, records: Sequence[Record]) -> None:
        """Project and write one run; an error that nobody foresaw costs only the record that raises it."""
        try:
            done = [self._store(lambda: projection.project(records))]
        except Exception as error:
            if is_damage(error):
                raise
            log.exception("batch.failed", records=len(records))
            done = [self._apply_alone(projection, record) for record in self._not_stored(records)]
        for projected in done:
            self._report(projected)

    def write(self, projected: Projected) -> None:
        """Write what is projected already, and tell it."""
        self._report(self._store(lambda: projected))

    def _apply_alone(self, projection: Projection, record: Record) -> Projected:
        try:
            return self._store(lambda: projection.project([record]))
        except Exception as error:
            if is_damage(error):
                raise
            projected = self._skip_unforeseen(projection, record, error)
            place = f"Partition {record.partition}, offset {record.offset}"
            self._alerts.open(Cause.INTERNAL_ERROR, f"{place}: {type(error).__name__}: {error}", 1)
            return projected

    def _skip_unforeseen(self, projection: Projection, record: Record, error: Exception) -> Projected:
        """Skip a record with its trace; where even that fails, keep its place alone."""
        try:
            return self._store(lambda: projection.skip_unforeseen(record, error))
        except Exception as worse:
            if is_damage(worse):
                raise
            log.exception("skip.failed", partition=record.partition, offset=record.offset)
            bare = projection.skip_bare(record, worse)
            return self._store(lambda: bare)

    def _store(self, project: Callable[[], Projected]) -> Projected:
        """Project and write; while the store is locked or the disk is full, wait and try again. Nothing is skipped."""
        projected: Projected | None = None
        for delay_s in growing_delays(self._settings):
            try:
                if projected is None:
                    projected = project()
                elif self._is_stored(projected):
                    break
                self._writer.write(projected.batch)
                break
            except (DatabaseError, MemoryError) as error:
                if not is_transient(error):
                    raise
                log.error("store.retry_scheduled", delay_s=delay_s, error=str(error))  # noqa: TRY400 (no bug: no trace)
                self._beat("waiting", f"the store: {error}")
                if self._stop.wait(delay_s):
                    raise Stopped("the store took nothing") from error
        assert projected is not None, "the delays never end"  # noqa: S101 (for the type)
        self.positions.update(_reached(projected))
        return projected

    def _is_stored(self, projected: Projected) -> bool:
        """Tell whether a commit that failed took effect: then all of it did, and a second one would be in its way."""
        return _reached(projected).items() <= self._writer.positions().items()

    def _not_stored(self, records: Sequence[Record]) -> list[Record]:
        """Leave out what is in the store."""
        stored = self._writer.positions()
        return [r for r in records if r.partition not in stored or r.offset >= stored[r.partition].next_offset]

    # What is told.

    def _report(self, projected: Projected) -> None:
        topic = self._settings.topic
        records = projected.counts.total()
        self.counts.update(projected.counts)
        self._flood.note(records, projected.batch.skipped)
        for row in projected.batch.skipped:
            tell_skipped(topic, row)
        for control in projected.batch.controls:
            tell_control(topic, control, projected.batch.restated)
        unreadable = [row for row in projected.batch.skipped if row.reason == SkipReason.UNREADABLE_RECORD]
        if unreadable:
            first = unreadable[0]
            place = f"Partition {first.partition}, offset {first.offset}"
            self._alerts.open(Cause.UNREADABLE_RECORD, f"{place}: {first.detail}", len(unreadable))
        if records > self._settings.log_events_max:
            log.info("batch.applied", records=records, **projected.counts)
            return
        for entry in projected.batch.history:
            tell_event(topic, entry)


def _reached(projected: Projected) -> dict[int, Position]:
    """Say where reading goes on behind a batch."""
    return {
        row.partition: Position(
            row.next_offset, None if row.last_offset is None else Anchor(row.last_offset, row.last_checksum or 0)
        )
        for row in projected.batch.positions.values()
    }
