"""The timeline of an order, and of one event: everything that is known of it, wherever that is kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, cast

from orderflow.errors import AmbiguousEvent
from orderflow.store.outbox_desk import OutboxDesk
from orderflow.store.rows import place_id
from orderflow.timeline.gathering import (
    controls_of_event,
    gather,
    known_ids,
    places_of_event,
    places_of_order,
    when_read,
)
from orderflow.timeline.shown import in_time
from orderflow.timeline.telling import asked_step, tell_control, tell_entry, tell_place

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from orderflow.settings import Settings
    from orderflow.store.outbox_rows import Entry
    from orderflow.store.reader import Reader
    from orderflow.store.rows import Place
    from orderflow.timeline.gathering import Gathered
    from orderflow.timeline.shown import EventShown, Step

#: In front of all places.
START: Place = (0, -1, -1)


#: Of the copies of one event, the lightest says how it stands; a copy of another never does.
WEIGHT = {"applied": 0, "skipped": 1, "duplicate": 2}


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
            told = self._tell(gather(snapshot, places), entries)
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
            found = gather(snapshot, places_of_event(snapshot, event_id, order_id))
            told = self._tell(found, entries)
            controls = controls_of_event(snapshot, event_id, order_id)
            if controls and not told:
                at = when_read(snapshot, [controls[0][:3]]).get(controls[0][:3])
                return tell_control(controls[0], at, entries)
        if not told:
            return tell_entry(entries[-1]) if entries else None
        _refuse_many(event_id, told)
        return _as_one(found, told)

    def _tell(self, found: Gathered, entries: Sequence[Entry]) -> list[EventShown]:
        """Tell of places; with each event go the rows of the outbox that it had, with the first copy of it."""
        left = {entry.seq: entry for entry in entries if entry.kind == "event"}
        told = []
        for place in found.places:
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


def _as_one(found: Gathered, told: Sequence[EventShown]) -> EventShown:
    """Make one of an event's copies: how it stands is told by the one that is applied, else by the first.

    The steps of the others go among its own, in the sequence of time, with their places.
    """
    outcomes = [row.outcome if (row := found.history.get(place)) else "skipped" for place in found.places]
    main = told[min(range(len(told)), key=lambda at: WEIGHT[outcomes[at]])]
    others = [
        cast("Step", step | {"partition": other["partition"], "offset": other["offset"]})
        for other in told
        for step in other["steps"]
        if other is not main and step["step"] in ("published", "applied", "duplicate", "skipped")
    ]
    main["steps"] = in_time([*main["steps"], *others]) if others else main["steps"]
    return main
