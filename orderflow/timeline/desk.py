"""The timeline of an order, and of one event: everything that is known of it, wherever that is kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from orderflow.errors import AmbiguousEvent, SearchTooLong
from orderflow.store.outbox_desk import OutboxDesk
from orderflow.store.rows import place_id
from orderflow.store.sqlite import DatabaseError, interrupted_after, is_interrupt
from orderflow.timeline.gathering import (
    controls_of_event,
    gather,
    known_ids,
    places_of_event,
    places_of_order,
    when_read,
)
from orderflow.timeline.telling import asked_step, tell_control, tell_entry, tell_place

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from orderflow.settings import Settings
    from orderflow.store.outbox_rows import Entry
    from orderflow.store.reader import Reader
    from orderflow.store.rows import Place
    from orderflow.store.sqlite import Connection
    from orderflow.timeline.shown import EventShown

#: In front of all places.
START: Place = (0, -1, -1)

#: So long an event is looked for whose order is not named; a million events take a tenth of a second.
SEARCH_S = 2.0

#: Of the copies of one event, the one whose state is the event's.
FIRST = ("applied", "healed", "repaired", "skipped", "discarded")


class Page(NamedTuple):
    """Some of an order's events in the sequence in which they take effect; ``last`` is the place of the last."""

    events: list[EventShown]
    last: Place | None
    full: bool


class Timeline:
    """The desk. Thread-safe."""

    def __init__(self, settings: Settings, reader: Reader) -> None:
        self._reader = reader
        self._outbox = OutboxDesk(settings)

    def of_order(self, order_id: str, after: Place = START, limit: int = 200) -> Page:
        """Tell of an order's events behind a place. Behind the last one comes what waits in the outbox.

        Raises:
            StoreError: the projection or the outbox cannot be read.

        """
        entries = self._outbox.of_order(order_id)
        with self._reader.snapshot() as snapshot:
            places = places_of_order(snapshot, order_id, after, limit)
            told = self._tell(snapshot, places, entries)
            full = len(places) == limit
            if not full:
                known = known_ids(snapshot, order_id, [entry.event_id for entry in entries])
                told += [tell_entry(one) for one in entries if one.kind == "event" and one.event_id not in known]
        return Page(told, places[-1] if places else None, full)

    def of_event(self, event_id: str, order_id: str | None = None) -> EventShown | None:
        """Tell of one event or control; None when nothing is known of it: it may be published, and not read yet.

        Raises:
            AmbiguousEvent: several orders have one of that id, and none is named.
            SearchTooLong: no order is named, and the search through all of them takes too long.
            StoreError: the projection or the outbox cannot be read.

        """
        entries = [one for one in self._outbox.find(event_id) if order_id in (None, one.order_id)]
        with self._reader.snapshot() as snapshot:
            told = self._tell(snapshot, _places(snapshot, event_id, order_id), entries)
            controls = [one for one in controls_of_event(snapshot, event_id) if order_id in (None, one.order_id)]
            if controls and not told:
                at = when_read(snapshot, [controls[0][:3]]).get(controls[0][:3])
                return tell_control(controls[0], at, entries)
        told = told or [tell_entry(one) for one in entries[-1:]]
        _refuse_many(event_id, told)
        return _as_one(told) if told else None

    def _tell(self, snapshot: Connection, places: Sequence[Place], entries: Sequence[Entry]) -> list[EventShown]:
        """Tell of places; with each event go the rows of the outbox that it had, with the first copy of it."""
        found = gather(snapshot, places)
        left = {entry.seq: entry for entry in entries if entry.kind == "event"}
        told = []
        for place in places:
            row = found.history.get(place)
            event_id = None if row is None else row.event_id
            own = [entry for entry in left.values() if entry.event_id == event_id and _may_be_at(entry, place)]
            for entry in own:
                del left[entry.seq]
            told.append(tell_place(found, place, own))
        self._add_asked(told)
        return told

    def _add_asked(self, told: Sequence[EventShown]) -> None:
        """Add what was asked for skips, and not read by the consumer yet."""
        skipped = {_place_id(one): one for one in told if one["state"] == "skipped"}
        asked = self._outbox.under_way(list(skipped)) if skipped else {}
        for named, entry in asked.items():
            steps = skipped[named]["steps"]
            if all(one.get("eventId") != entry.event_id for one in steps):
                steps.append(asked_step(entry))


def _places(snapshot: Connection, event_id: str, order_id: str | None) -> list[Place]:
    """Find the places of an event: at once where its order is named, else by a search through all of them."""
    if order_id is not None:
        return places_of_event(snapshot, event_id, order_id)
    try:
        with interrupted_after(snapshot, SEARCH_S):
            return places_of_event(snapshot, event_id, None)
    except DatabaseError as error:
        if not is_interrupt(error):
            raise
        raise SearchTooLong(
            f"To look for event {event_id} in all orders takes more than {SEARCH_S:g} s; name its order with orderId."
        ) from error


def _place_id(told: EventShown) -> str:
    return place_id((told["epoch"] or 0, told["partition"] or 0, told["offset"] or 0))


def _may_be_at(entry: Entry, place: Place) -> bool:
    """Tell whether a row of the outbox came to a place: where it was not delivered, an earlier copy of it may have."""
    return entry.partition is None or (entry.partition, entry.offset) == place[1:]


def _refuse_many(event_id: str, told: Iterable[EventShown]) -> None:
    order_ids = sorted({one["orderId"] for one in told if one["orderId"] is not None})
    if len(order_ids) > 1:
        shown = ", ".join(repr(order_id[:100]) for order_id in order_ids[:5])
        raise AmbiguousEvent(f"{len(order_ids)} orders have an event {event_id}: {shown}; say which with orderId.")


def _as_one(told: Sequence[EventShown]) -> EventShown:
    """Make one of an event's copies: how the event stands is told by the one that takes effect."""
    main = min(told, key=lambda one: FIRST.index(one["state"]) if one["state"] in FIRST else len(FIRST))
    for other in told:
        if other is not main:
            main["steps"] += [one for one in other["steps"] if one["step"] in ("published", "duplicate", "skipped")]
    return main
