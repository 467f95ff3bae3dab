"""``after=``: a read that is no older than an event, which its caller has mostly written itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from order_service.waiting import Stopping, TooManyWait, WaitingRoom
from orderflow.broker import partition_of
from orderflow.errors import StoreError
from orderflow.process import CONSUMER, fresh_heartbeat
from orderflow.timeline.fate import APPLIED, Fates
from orderflow.wsgi.problems import RETRY_AFTER, Kind, Problem

if TYPE_CHECKING:
    from collections.abc import Mapping

    from orderflow.settings import Settings
    from orderflow.store.reader import Reader
    from orderflow.timeline.desk import Timeline
    from orderflow.timeline.shown import EventShown

log = structlog.get_logger(__name__)

#: What `wait_for` may raise.
PROBLEMS = (Kind.EVENT_SKIPPED, Kind.NOT_APPLIED_YET, Kind.TOO_MANY_WAITING, Kind.STOPPING, Kind.STORE_UNAVAILABLE)


class OwnWrites:
    """Waits for events, and says what is true of those that do not come."""

    def __init__(self, settings: Settings, reader: Reader, timeline: Timeline) -> None:
        self._settings = settings
        self._timeline = timeline
        self._fates = Fates(reader)
        #: Half of the threads may wait; the others go on answering.
        self.room = WaitingRoom(settings, reader, self._fates, settings.order_threads // 2)

    def waiting(self) -> Mapping[tuple[str, ...], float]:
        """Tell for ``/metrics`` how many reads wait."""
        return {(): self.room.waiting}

    def waited(self) -> Mapping[tuple[str, ...], float]:
        """Tell for ``/metrics`` what came of those that had to wait."""
        return {(outcome,): count for outcome, count in self.room.outcomes.items()}

    def wait_for(self, order_id: str, event_id: str, wait_s: float) -> None:
        """Wait until an event is applied.

        Raises:
            Problem: 409, it was skipped; 504, it is not applied in time; 503, too many wait, or the service stops.

        """
        name = (order_id, event_id)
        try:
            fate = self.room.wait(name, wait_s)
        except TooManyWait:
            raise Problem(Kind.TOO_MANY_WAITING, "Too many reads wait already; ask again.", RETRY_AFTER) from None
        except Stopping:
            detail = "The service stops, so it keeps nobody waiting; ask again."
            raise Problem(Kind.STOPPING, detail, RETRY_AFTER) from None
        if fate == APPLIED:
            return
        event = self._told(event_id, order_id)
        fate = self._fates.of([name]).get(name)  # What was told is no older than this, or it is told by this.
        if fate is None:
            raise self._not_applied(order_id, event_id, wait_s, event)
        if fate != APPLIED:
            detail = f"Event {event_id} was skipped as {fate.reason}: {fate.detail}"
            raise Problem(Kind.EVENT_SKIPPED, detail, reason=fate.reason, event=event)

    def _told(self, event_id: str, order_id: str) -> EventShown | None:
        """Tell of an event; None, too, while the outbox cannot be read: what became of it is known without that."""
        try:
            return self._timeline.of_event(event_id, order_id)
        except StoreError as error:
            log.warning("outbox.unread", error=str(error))
            return None

    def _not_applied(self, order_id: str, event_id: str, wait_s: float, event: EventShown | None) -> Problem:
        said = f"Event {event_id} was not applied within {wait_s:g} s."
        if event is not None and event["state"] == "given_up":
            late = "A copy that was sent before may still be." if event["maybeOnTopic"] else "It never will be."
            return Problem(Kind.NOT_APPLIED_YET, f"{said} It was given up in the outbox. {late}", event=event, lag=None)
        if event is not None and event["state"] in _IN_OUTBOX:
            return Problem(
                Kind.NOT_APPLIED_YET, f"{said} {_IN_OUTBOX[event['state']]}", RETRY_AFTER, event=event, lag=None
            )
        lag = self._lag(order_id)
        where = "It is on the topic." if event is not None else "Nothing is known of it here: it may be on the topic."
        return Problem(Kind.NOT_APPLIED_YET, f"{said} {where} {_behind(lag)}", RETRY_AFTER, event=event, lag=lag)

    def _lag(self, order_id: str) -> int | None:
        """Give how many records of the order's partition are not applied yet; None where nobody knows."""
        beat = fresh_heartbeat(self._settings, CONSUMER)
        if beat is None:
            return None
        lag = beat.lags.get(partition_of(order_id.encode()))
        return None if lag is None else lag.records


_IN_OUTBOX = {
    "spooled": "It waits in the outbox for Kafka, or behind an earlier event of its order.",
    "held": "It is held in the outbox: Kafka refuses it.",
}


def _behind(lag: int | None) -> str:
    if lag is None:
        return f"How far the {CONSUMER} is behind is not known: it does not say."
    return f"Of its partition {lag} records were not applied yet when the {CONSUMER} last said so."
