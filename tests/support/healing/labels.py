"""Names for what a record brings about, so that it can be counted what the properties were tried on."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.healing.model import Control, Oracle, Spot

#: What an event comes to.
EVENTS = {
    "unknown_order": "early update",
    "duplicate_create": "second create",
    "key_mismatch": "wrong key",
    "missing_key": "null key",
    "duplicate": "duplicate id",
    "event_id_conflict": "id conflict",
}

#: The properties say little unless each of these comes about often.
COMMON = (
    *EVENTS.values(),
    "repair of a repair",
    "two repairs of one record",
    "stale repair",
    "discard",
    "repair after discard",
    "late copy of a discarded id",
)

#: Nor unless each of these does now and then.
RARE = (
    "late copy of a damaged record's discarded id",
    "copy of an id behind an internal error with it",
    "repair of an internal error",
    "repair by the control's id",
    "repairs asked for together",
    "fourth repair of one place",
    "healed by another's repair",
    "repair stays open at another's repair",
    "repaired create turns a create into a duplicate",
    "applied turned into event_id_conflict",
    "healed is opened again",
    "order comes to be by a repair",
    "order vanishes by a repair",
    "discarded update stays when its create is repaired",
    "copy of an id of an earlier life",
    "repair of an order of an earlier life",
)


class Sight:
    """What the model knew before a record."""

    def __init__(self, oracle: Oracle) -> None:
        self._oracle = oracle
        self._orders = set(oracle.orders)
        self._were = {place: (s.came_to, s.state, s.repairs, s.stands) for place, s in oracle.spots.items()}

    def labels(self, spot: Spot) -> Iterator[str]:
        """Name what a record brought about that was read since."""
        if spot.control is None:
            yield EVENTS.get(spot.came_to, spot.came_to)
            if spot.order is not None and spot.stands is not None:
                yield from self._of_copy(spot)
            return
        kind = "discard" if spot.control.event is None else "repair"
        yield f"{kind}: {spot.verdict} {spot.because}".rstrip()
        named = self._oracle.spots.get((spot.place[0], spot.control.partition, spot.control.offset))
        if named is not None:
            yield from self._of_verdict(spot, spot.control, named)

    def _of_copy(self, spot: Spot) -> Iterator[str]:
        before = [s for s in self._oracle.spots.values() if s.order == spot.order and s is not spot]
        copies = [s for s in before if s.stands_as == spot.id]
        if any(s.takes == spot.id for s in before) and not copies:
            yield "late copy of a damaged record's discarded id"
        if copies and copies[0].state == "discarded":
            yield "late copy of a discarded id"
        if len(copies) > 1 and copies[-1].came_to == "internal_error" != spot.came_to:
            yield "copy of an id behind an internal error with it"
        if copies and copies[0].place[0] < spot.place[0]:
            yield "copy of an id of an earlier life"

    def _of_verdict(self, spot: Spot, control: Control, named: Spot) -> Iterator[str]:
        if spot.verdict == "accepted" and control.event is None:
            yield "discard"
        elif spot.verdict == "accepted":
            yield from self._of_repair(named, control)
        elif control.event is not None and spot.verdict == "stale":
            yield "stale repair"
        elif control.event is not None and spot.verdict == "superseded":
            if named.state == "discarded":
                yield "repair after discard"
            elif named.repairs:
                yield "two repairs of one record"

    def _of_repair(self, named: Spot, control: Control) -> Iterator[str]:
        came_to, _, repairs, stood = self._were[named.place]
        came_to_be = named.order not in self._orders and named.order in self._oracle.orders
        spots = [s for s in self._oracle.spots.values() if s.order == named.order]
        discarded = any(s.state == "discarded" and s.came_to == "unknown_order" for s in spots if s.place > named.place)
        facts = {
            "repair of a repair": repairs,
            "fourth repair of one place": repairs > 2,
            "repair of an internal error": came_to == "internal_error",
            "repair by the control's id": stood is None and named.id is None,
            "repairs asked for together": control.operation and self._asked_together(control.operation) > 1,
            "repair of an order of an earlier life": any(s.place[0] < named.place[0] for s in spots),
            "order comes to be by a repair": came_to_be,
            "discarded update stays when its create is repaired": came_to_be and discarded,
            "order vanishes by a repair": named.order in self._orders and named.order not in self._oracle.orders,
        }
        yield from (label for label, holds in facts.items() if holds)
        for other in self._oracle.spots.values():
            if other.stands is not None and other is not named and other.place in self._were:
                yield from self._of_another(other, control)

    def _of_another(self, other: Spot, control: Control) -> Iterator[str]:
        came_to, state, *_ = self._were[other.place]
        if state == "open" and other.state == "healed":
            yield "healed by another's repair"
        if state != "open" and other.state == "open":
            yield f"{came_to} turned into {other.came_to}"
            yield f"{state or 'never a skip'} is opened{' again' if state else ''}"
            if control.event and control.event.says[0] == "created" and other.came_to == "duplicate_create":
                yield "repaired create turns a create into a duplicate"
        if state == other.state == "open" and other.repairs:
            yield "repair stays open at another's repair"

    def _asked_together(self, operation: str) -> int:
        accepted = [spot.control for spot in self._oracle.spots.values() if spot.verdict == "accepted"]
        return sum(control is not None and control.operation == operation for control in accepted)
