"""The loop: read what waits, send it, take note of what Kafka acknowledged. It waits for Kafka inside.

Of each lane (an order's events, the controls about it) one is on its way at a time, of many lanes at once. It counts as
delivered only when Kafka has acknowledged it; killed between the two, the relay sends it again, and its id removes the
second copy.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import structlog

from orderflow.alerts import Cause
from orderflow.delays import growing_delays
from orderflow.errors import BrokerError, Rejected, StoreUnavailable, StoreUncertain, Unacknowledged, Unsent
from orderflow.messages import Published
from orderflow.process import RELAY
from orderflow.topic_wait import wait_for_topic

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orderflow.broker import Producer
    from orderflow.broker.requests import Result
    from orderflow.process import State
    from orderflow.store.outbox import Outbox
    from orderflow.store.outbox_rows import Entry
    from orderflow.worker import Worker
    from outbox_relay.dead_letters import Copier

PROGRAM = RELAY

#: Acknowledgements are taken note of at least this often: a commit costs as much as sending dozens of events.
NOTE_EVERY_S = 0.2

#: Pause between two times of keeping house.
KEEP_HOUSE_EVERY_S = 1.0

#: An event that raises an error by itself, so often in a row, is held.
RAISES_MAX = 3

log = structlog.get_logger(PROGRAM)


@dataclass
class Notes:
    """What came of some events, to be written into the outbox."""

    delivered: list[tuple[Entry, Published]] = field(default_factory=list)
    held: list[tuple[Entry, str]] = field(default_factory=list)  # with the reason
    sent: list[int] = field(default_factory=list)  # their numbers; without an acknowledgement
    error: BrokerError | None = None


class OutboxRelay:
    """Delivers the outbox until asked to stop, and in between has what was skipped copied."""

    def __init__(self, worker: Worker, outbox: Outbox, producer: Producer, copier: Copier) -> None:
        self._settings, self._alerts, self._stop, self._heartbeat = worker
        self._outbox = outbox
        self._producer = producer
        self._copier = copier
        self._counts: Counter[str] = Counter()
        self._raised: Counter[int] = Counter()
        self._kept_house_at = 0.0

    def run(self) -> None:
        """Wait for the topic, then deliver."""
        try:
            if wait_for_topic(self._settings, PROGRAM, self._stop, self._beat) is None:
                return
            self._alerts.resolve(Cause.TOPIC_MISCONFIGURED, "The topic was verified.")
            while not self._stop:
                self._turn()
                self._copier.turn()
                self._counts["dead_letters"] = self._copier.copied
        finally:
            self._heartbeat.beat("draining")
            self._copier.close()
            self._producer.drop()
            self._outbox.close()

    def _turn(self) -> None:
        """Deliver some of what waits, or rest; after a failure longer each time."""
        for delay_s in growing_delays(self._settings):
            if self._stop:
                return
            try:
                failed = self._deliver_some()
            except (StoreUnavailable, StoreUncertain) as error:
                log.error("store.retry_scheduled", delay_s=delay_s, error=str(error))  # noqa: TRY400 (no bug: no trace)
                self._beat("waiting", f"the outbox: {error}")
            else:
                if failed is None:
                    return
                log.warning("relay.retry_scheduled", delay_s=delay_s, error=str(failed))
                self._beat("waiting", f"Kafka at {self._settings.kafka_bootstrap_servers}: {failed}")
            self._stop.wait(delay_s)

    def _deliver_some(self) -> BrokerError | None:
        """Send what waits longest; rest when nothing does. Tell why Kafka did not take all."""
        self._keep_house()
        entries = self._outbox.deliverable(self._settings.relay_batch_max)
        if not entries:
            self._beat("running")
            self._stop.wait(self._settings.relay_poll_s)
            return None
        notes = Notes()
        try:
            self._send(entries, notes)
        finally:
            self._write(notes)
        return notes.error

    def _keep_house(self) -> None:
        """Once in a while: remove what was delivered long ago, and say how much there is."""
        if time.monotonic() - self._kept_house_at < KEEP_HOUSE_EVERY_S:
            return
        self._kept_house_at = time.monotonic()
        totals = self._outbox.totals()
        self._counts["waiting"], self._counts["held"] = totals.waiting, totals.held
        if not totals.held:
            self._alerts.resolve(Cause.EVENT_HELD, "No event is held any more.")
        self._counts["pruned"] += self._outbox.prune(self._settings.outbox_keep_delivered_s)

    # Sending.

    def _send(self, entries: Sequence[Entry], notes: Notes) -> None:
        """Send round after round, in each the first of every lane; a lane that fails is left alone."""
        until = time.monotonic() + NOTE_EVERY_S
        left = list(entries)
        while left and not self._stop and time.monotonic() < until:
            group, left = _first_of_each(left)
            failed = set()
            for entry, result in zip(group, self._results(group), strict=True):
                if isinstance(result, Published):
                    notes.delivered.append((entry, result))
                    continue
                failed.add(entry.lane)
                if isinstance(result, Unacknowledged) and not entry.sent:
                    notes.sent.append(entry.seq)
                if isinstance(result, Rejected):
                    notes.held.append((entry, str(result)))
                else:
                    notes.error = result
            left = [entry for entry in left if entry.lane not in failed]

    def _results(self, group: Sequence[Entry]) -> list[Result]:
        """Send a group; where that raises an error that nobody foresaw, each event alone."""
        try:
            results = self._producer.deliver([entry.message() for entry in group])
        except Exception:
            log.exception("relay.failed", events=len(group))
            return [self._result_alone(entry) for entry in group]
        self._raised.clear()
        return results

    def _result_alone(self, entry: Entry) -> Result:
        """Send one event. An error of the machine passes; any other, again and again, is the event's own."""
        if self._stop:
            return Unsent("The relay was asked to stop.")
        self._beat("running")
        try:
            (result,) = self._producer.deliver([entry.message()])
        except OSError as error:
            return Unacknowledged(f"Sending it failed: {error}")
        except Exception as error:  # noqa: BLE001 (here the loop decides)
            self._raised[entry.seq] += 1
            why = f"Sending it raised an error that nobody foresaw: {error!r}"
            return Rejected(why) if self._raised[entry.seq] >= RAISES_MAX else Unacknowledged(why)
        return result

    def _write(self, notes: Notes) -> None:
        """Take note of what came of the events. What is not written down would be sent again: try until it is."""
        delivered = [(entry.seq, place.partition, place.offset) for entry, place in notes.delivered]
        held = [(entry.seq, reason) for entry, reason in notes.held]
        for delay_s in growing_delays(self._settings):
            try:
                self._outbox.settle(delivered=delivered, held=held, sent=notes.sent)
                break
            except (StoreUnavailable, StoreUncertain) as error:
                log.error("store.retry_scheduled", delay_s=delay_s, error=str(error))  # noqa: TRY400 (no bug: no trace)
                self._beat("waiting", f"the outbox: {error}")
                if self._stop.wait(delay_s):
                    log.warning("relay.left", events=len(notes.delivered), detail="not noted, so they are sent again")
                    return
        self._report(notes)

    # What is told.

    def _report(self, notes: Notes) -> None:
        self._counts["delivered"] += len(notes.delivered)
        if notes.error is None:
            self._beat("running")
        if len(notes.delivered) > self._settings.log_events_max:
            log.info("outbox.delivered", events=len(notes.delivered))
        else:
            for entry, place in notes.delivered:
                log.info("outbox.event_delivered", **_names(entry), partition=place.partition, offset=place.offset)
        for entry, reason in notes.held:
            log.error("outbox.held", **_names(entry), reason=reason)
        if notes.held:
            entry, reason = notes.held[0]
            self._alerts.open(Cause.EVENT_HELD, f"Number {entry.seq} of the outbox: {reason}", len(notes.held))

    def _beat(self, state: State, waits_for: str | None = None) -> None:
        self._heartbeat.counters = dict(self._counts)
        self._heartbeat.beat(state, waits_for)


def _names(entry: Entry) -> dict[str, object]:
    """Name a row in a log line."""
    return {
        "seq": entry.seq,
        "kind": entry.kind,
        "order_id": entry.order_id or None,
        "event_id": entry.event_id,
        "trace_id": entry.trace_id or None,
    }


def _first_of_each(entries: Sequence[Entry]) -> tuple[list[Entry], list[Entry]]:
    """Part the first of each lane from the others."""
    first: dict[str, Entry] = {}
    later = []
    for entry in entries:
        if entry.lane in first:
            later.append(entry)
        else:
            first[entry.lane] = entry
    return list(first.values()), later
