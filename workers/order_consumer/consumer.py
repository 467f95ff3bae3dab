"""The loop: poll, project, write, move on. It waits for Kafka inside, and never ends for it."""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING

import structlog

from order_consumer.flood import FloodWatch
from order_consumer.telling import tell_control, tell_skipped
from orderflow.alerts import AlertBook, Cause
from orderflow.broker import PARTITIONS, Subscription, locate_unreadable, reachable
from orderflow.delays import growing_delays
from orderflow.errors import BrokerError, LogReplaced, Unreadable
from orderflow.events import SkipReason
from orderflow.projection import Projection, runs
from orderflow.records import Anchor, Position
from orderflow.store.sqlite import DatabaseError, is_damage, is_transient
from orderflow.topic_wait import wait_for_topic

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from orderflow.broker import Topic
    from orderflow.process import Heartbeat, State, StopFlag
    from orderflow.projection import Projected
    from orderflow.records import Record
    from orderflow.settings import Settings
    from orderflow.store.writer import Writer

PROGRAM = "order-consumer"

#: So much longer records are let gather for each record of the batch before: 20 lead to the default's maximum.
GATHER_S_PER_RECORD = 0.0005

log = structlog.get_logger(PROGRAM)


class Stopped(BaseException):  # no error: what handles errors must not take it for one
    """Asked to stop while a batch could not be written. Its records are read again at the next start."""


class OrderConsumer:
    """Applies the topic to the store until asked to stop."""

    def __init__(
        self, settings: Settings, writer: Writer, alerts: AlertBook, stop: StopFlag, heartbeat: Heartbeat
    ) -> None:
        self._settings = settings
        self._writer = writer
        self._alerts = alerts
        self._stop = stop
        self._heartbeat = heartbeat
        self._flood = FloodWatch(settings, alerts)
        self._counts: Counter[str] = Counter()
        self._positions: dict[int, Position] = {}
        self._replaced: str | None = None

    def run(self) -> None:
        """Consume; after a lost log or an unreadable record, open the subscription anew."""
        try:
            while not self._stop:
                topic = wait_for_topic(self._settings, PROGRAM, self._stop, self._beat)
                if topic is not None:
                    self._alerts.resolve(Cause.TOPIC_MISCONFIGURED, "The topic was verified.")
                    self._consume_or_wait(topic)
        except Stopped:
            log.warning("batch.left", detail="asked to stop while the store took nothing; it is read again")
        finally:
            self._heartbeat.beat("draining")
            self._writer.close()

    def _consume_or_wait(self, topic: Topic) -> None:
        try:
            self._consume(topic)
        except BrokerError as error:
            delay_s = self._settings.wait_max_delay_s
            log.warning("kafka.wait_scheduled", delay_s=delay_s, error=str(error))
            self._beat("waiting", f"Kafka at {self._settings.kafka_bootstrap_servers}: {error}")
            self._stop.wait(delay_s)

    def _consume(self, topic: Topic) -> None:
        """Read one life of the topic, until asked to stop or something makes the subscription useless."""
        epoch = self._epoch_of(topic)
        self._positions.clear()
        self._positions.update(self._writer.positions())
        projection = Projection(self._writer, topic.topic_id, epoch)
        subscription = Subscription(self._settings, topic, self._positions, self._on_assigned)
        try:
            while not self._stop:
                records = subscription.poll()
                if records:
                    self._look_at_starts(records)
                    self._apply(projection, records)
                    subscription.tell_kafka()
                lag = self._counts["lag"] = subscription.lag()
                self._beat_polling(subscription)
                self._stop.wait(self._gathering_s(len(records), lag))
        except LogReplaced as error:
            self._replaced = str(error)  # The topic is asked for again: it may be another one by now.
        except Unreadable as error:
            log.warning("message.unreadable", error=str(error))
            subscription.close()
            self._pass_unreadable(projection, topic, error)
        finally:
            subscription.close()

    def _gathering_s(self, records: int, lag: int) -> float:
        """How long to let records gather after a batch: one of a dozen costs hardly less than one of a hundred.

        The fuller the stream, the longer; none where a record came alone, or where as many wait already.
        """
        if lag >= records:
            return 0.0
        return min((records - 1) * GATHER_S_PER_RECORD, self._settings.gather_max_s)

    def _on_assigned(self, partitions: Collection[int]) -> None:
        log.info("partitions.assigned", partitions=sorted(partitions))

    # The log's life.

    def _epoch_of(self, topic: Topic) -> int:
        current = self._writer.epoch()
        if current is None:
            return self._writer.open_epoch(topic, "the first start")
        epoch, topic_id = current
        replaced, self._replaced = self._replaced, None
        if topic_id != topic.topic_id:
            return self._open_epoch(
                topic, f"the topic {topic.name!r} has id {topic.topic_id}, and {topic_id} was applied"
            )
        return epoch if replaced is None else self._open_epoch(topic, replaced)

    def _open_epoch(self, topic: Topic, reason: str) -> int:
        epoch = self._writer.open_epoch(topic, reason)
        self._alerts.open(Cause.LOG_REPLACED, f"Epoch {epoch} of the topic {topic.name!r} was opened: {reason}")
        return epoch

    def _look_at_starts(self, records: Sequence[Record]) -> None:
        """Alert where a partition that is read for the first time does not begin at its offset 0."""
        if len(self._positions) == PARTITIONS:
            return
        starts = {r.partition: r.offset for r in reversed(records) if r.partition not in self._positions}
        for partition, offset in starts.items():
            if offset > 0:
                self._alerts.open(Cause.LOG_STARTS_LATE, f"Partition {partition} begins at offset {offset}.")

    def _pass_unreadable(self, projection: Projection, topic: Topic, error: Unreadable) -> None:
        """Find what cannot be read, keep its place as skipped, go on behind it."""

        def goes_on() -> bool:
            self._beat("running")
            return not self._stop

        found = locate_unreadable(self._settings, topic, error.at, goes_on)
        if not found:
            return  # It has passed: a fresh client reads on.
        projected = projection.skip_unreadable(found, 1 + self._settings.unreadable_retries)
        self._report(self._store(lambda _: projected, []))

    # A batch.

    def _apply(self, projection: Projection, records: Sequence[Record]) -> None:
        """Project and write one batch, run by run; a control is a run, and a transaction, of its own."""
        started = time.monotonic()
        for run in runs(records):
            self._apply_run(projection, run)
        self._counts["batches"] += 1
        self._counts["apply_ms"] += round((time.monotonic() - started) * 1000)

    def _apply_run(self, projection: Projection, records: Sequence[Record]) -> None:
        """Project and write one run; an error that nobody foresaw costs only the record that raises it."""
        try:
            done = [self._store(projection.project, records)]
        except Exception as error:
            if is_damage(error):
                raise
            log.exception("batch.failed", records=len(records))
            done = [self._apply_alone(projection, record) for record in self._not_stored(records)]
        for projected in done:
            self._report(projected)

    def _apply_alone(self, projection: Projection, record: Record) -> Projected:
        try:
            return self._store(projection.project, [record])
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
            skipped = projection.skip_unforeseen(record, error)
            return self._store(lambda _: skipped, [record])
        except Exception as worse:
            if is_damage(worse):
                raise
            log.exception("skip.failed", partition=record.partition, offset=record.offset)
            skipped = projection.skip_bare(record, worse)
            return self._store(lambda _: skipped, [record])

    def _store(self, project: Callable[[Sequence[Record]], Projected], records: Sequence[Record]) -> Projected:
        """Project and write; while the store is locked or the disk is full, wait and try again. Nothing is skipped."""
        for delay_s in growing_delays(self._settings):
            try:
                projected = project(records)
                self._writer.write(projected.batch)
                break
            except DatabaseError as error:
                if not is_transient(error):
                    raise
                log.error("store.retry_scheduled", delay_s=delay_s, error=str(error))  # noqa: TRY400 (no bug: no trace)
                self._beat("waiting", f"the store: {error}")
                if self._stop.wait(delay_s):
                    raise Stopped from error
                records = self._not_stored(records)
        for row in projected.batch.positions.values():
            anchor = None if row.last_offset is None else Anchor(row.last_offset, row.last_checksum or 0)
            self._positions[row.partition] = Position(row.next_offset, anchor)
        return projected

    def _not_stored(self, records: Sequence[Record]) -> list[Record]:
        """Leave out what is in the store: a commit may have failed after it took effect."""
        stored = self._writer.positions()
        return [r for r in records if r.partition not in stored or r.offset >= stored[r.partition].next_offset]

    # What is told.

    def _report(self, projected: Projected) -> None:
        topic = self._settings.topic
        records = projected.counts.total()
        self._counts.update(projected.counts)
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
            if entry.outcome != "skipped":
                log.info(
                    "order.event_applied" if entry.outcome == "applied" else "order.event_duplicate",
                    type=entry.type, topic=topic, partition=entry.partition, offset=entry.offset,
                    order_id=entry.order_id, event_id=entry.event_id, trace_id=entry.trace_id,
                )  # fmt: skip

    def _beat_polling(self, subscription: Subscription) -> None:
        """Beat; an empty poll says nothing of an outage, so a quiet topic's broker is asked for."""
        if subscription.quiet_s() > self._settings.kafka_request_timeout_s and not reachable(self._settings):
            self._beat("waiting", f"Kafka at {self._settings.kafka_bootstrap_servers}")
        else:
            self._beat("running")

    def _beat(self, state: State, waits_for: str | None = None) -> None:
        self._heartbeat.counters = dict(self._counts)
        self._heartbeat.beat(state, waits_for)
