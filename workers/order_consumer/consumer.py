"""The loop: poll, project, write, move on. It waits for Kafka inside, and never ends for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from order_consumer.applying import Applier, Stopped
from order_consumer.lag import LagWatch
from orderflow.alerts import AlertBook, Cause
from orderflow.broker import PARTITIONS, Subscription, locate_unreadable, reachable
from orderflow.errors import BrokerError, LogInDoubt, LogReplaced, Unreadable
from orderflow.process import CONSUMER
from orderflow.projection import Projection
from orderflow.store.rows import PositionRow
from orderflow.store.sqlite import DatabaseError, is_transient
from orderflow.topic_wait import wait_for_topic

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from orderflow.broker import End, Topic
    from orderflow.process import Heartbeat, State, StopFlag
    from orderflow.records import Record
    from orderflow.settings import Settings
    from orderflow.store.writer import Writer

PROGRAM = CONSUMER

#: So much longer records are let gather for each record of the batch before: 20 lead to the default's maximum.
GATHER_S_PER_RECORD = 0.0005

log = structlog.get_logger(PROGRAM)


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
        self._applier = Applier(settings, writer, alerts, stop, self._beat_applying)
        self._positions = self._applier.positions
        self._counts = self._applier.counts
        self._lag = LagWatch()
        self._subscription: Subscription | None = None
        self._polled: Sequence[Record] = ()
        heartbeat.distributions = self._applier.distributions
        self._replaced: str | None = None
        self._seen: dict[int, End] = {}

    def run(self) -> None:
        """Consume; after a lost log or an unreadable record, open the subscription anew."""
        try:
            while not self._stop:
                topic = wait_for_topic(self._settings, PROGRAM, self._stop, self._beat)
                if topic is not None:
                    self._alerts.resolve(Cause.TOPIC_MISCONFIGURED, "The topic was verified.")
                    self._consume_or_wait(topic)
        except Stopped as stopped:
            log.warning("batch.left", detail=f"asked to stop while {stopped}; what is not written is read again")
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
        except DatabaseError as error:  # Between two subscriptions: a batch that cannot be written waits by itself.
            if not is_transient(error):
                raise
            delay_s = self._settings.wait_max_delay_s
            log.error("store.retry_scheduled", delay_s=delay_s, error=str(error))  # noqa: TRY400 (no bug: no trace)
            self._beat("waiting", f"the store: {error}")
            self._stop.wait(delay_s)

    def _consume(self, topic: Topic) -> None:
        """Read one life of the topic, until asked to stop or something makes the subscription useless."""
        epoch = self._epoch_of(topic)
        self._positions.clear()
        self._positions.update(self._writer.positions())
        projection = Projection(self._writer, topic.topic_id, epoch)
        subscription = Subscription(self._settings, topic, self._positions, self._on_assigned, self._seen)
        self._subscription = subscription
        try:
            while not self._stop:
                records = self._polled = subscription.poll()
                if records:
                    self._look_at_starts(records)
                    self._applier.apply(projection, records)
                    subscription.tell_kafka()
                lag = self._counts["lag"] = self._lag.note(subscription.left(), subscription.polled_up_to)
                self._beat_polling(subscription)
                self._stop.wait(self._gathering_s(len(records), lag))
        except LogInDoubt as error:
            log.info("log.doubted", detail=str(error))
            self._stop.wait(self._settings.wait_first_delay_s)
        except LogReplaced as error:
            self._replaced = str(error)  # The topic is asked for again: it may be another one by now.
        except Unreadable as error:
            log.warning("message.unreadable", error=str(error))
            self._subscription = None
            subscription.close()
            self._pass_unreadable(projection, topic, error)
        finally:
            self._seen = subscription.ends() or self._seen  # What was seen counts, however reading ended.
            self._subscription = None
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
        if topic_id != topic.topic_id:
            self._replaced = f"The topic {topic.name!r} has id {topic.topic_id}, and {topic_id} was applied."
        return epoch if self._replaced is None else self._open_epoch(topic, self._replaced)

    def _open_epoch(self, topic: Topic, reason: str) -> int:
        """Begin a new life of the topic. Killed before it is written, the worker finds the same out again."""
        self._alerts.open(Cause.LOG_REPLACED, f"The topic {topic.name!r} is read again from its start. {reason}")
        epoch = self._writer.open_epoch(topic, reason)
        self._replaced, self._seen = None, {}
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
        projected = projection.skip_unreadable(
            [one for one in found if one.offset >= self._next_offset(one.partition)],
            1 + self._settings.unreadable_retries,
        )
        for partition in {one.partition for one in found} - projected.batch.positions.keys():
            # The last record that was applied has become unreadable since: reading goes on behind it, uncompared.
            row = PositionRow(partition, projection.epoch, self._next_offset(partition), None, None, None)
            projected.batch.positions[partition] = row
            detail = f"Partition {partition}, offset {row.next_offset - 1}, was applied, and cannot be read any more."
            self._alerts.open(Cause.UNREADABLE_RECORD, detail)
        self._applier.write(projected)

    def _next_offset(self, partition: int) -> int:
        position = self._positions.get(partition)
        return 0 if position is None else position.next_offset

    def _beat_polling(self, subscription: Subscription) -> None:
        """Beat; an empty poll says nothing of an outage, so a quiet topic's broker is asked for."""
        if subscription.quiet_s() > self._settings.kafka_request_timeout_s and not reachable(self._settings):
            self._beat("waiting", f"Kafka at {self._settings.kafka_bootstrap_servers}")
        else:
            self._beat("running")

    def _beat_applying(self, state: State, waits_for: str | None = None) -> None:
        """Beat in the midst of a batch: what is polled and not applied yet waits, too."""
        if self._subscription is not None:
            polled = {record.partition: record.logged_at for record in reversed(self._polled)}
            self._counts["lag"] = self._lag.note_within(self._subscription.left(), polled)
        self._beat(state, waits_for)

    def _beat(self, state: State, waits_for: str | None = None) -> None:
        self._heartbeat.counters = dict(self._counts)
        self._heartbeat.lags = self._lag.lags
        self._heartbeat.beat(state, waits_for)
