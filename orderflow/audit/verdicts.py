"""Skips, and what controls do to them: docs/adr/0013-repairs-on-the-topic.md, told once more."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from orderflow.audit.fold import Place
from orderflow.audit.wire import Repaired

if TYPE_CHECKING:
    from orderflow.audit.fold import History
    from orderflow.audit.wire import Control
    from orderflow.records import Record

OPEN, REPAIRED, HEALED, GIVEN_UP = "open", "repaired", "healed", "discarded"
ACCEPTED, INVALID = "accepted", "invalid_control"


class Log(NamedTuple):
    """The part of a log that a model is of."""

    topic_id: str
    epoch: int
    partition: int


class Skip:
    """A record that is, or was, no part of what was applied. ``event_id``: as far as the record itself tells it.

    ``about`` is the order that it names; ``order`` and ``place`` are set where it lies, or would lie, in one's history.
    """

    __slots__ = ("about", "event_id", "key", "offset", "opened_by", "order", "place", "reason", "repairs", "state")

    def __init__(self, offset: int, reason: str, key: bytes | None, event_id: str | None) -> None:
        self.offset = offset
        self.reason = reason
        self.key = key
        self.event_id = event_id
        self.opened_by = offset
        self.state = OPEN
        self.repairs = 0
        self.about: str | None = None
        self.order: History | None = None
        self.place: Place | None = None


class Judged(NamedTuple):
    """A control and its verdict. ``order`` is set where what it names lies in an order's history."""

    control: Control
    verdict: str
    key: bytes | None
    logged_at: int
    order: History | None = None
    taken_event_id: str | None = None


class Judge:
    """Keeps the skips of a partition, and judges its controls."""

    def __init__(self, log: Log, orders: dict[bytes, History], absent: dict[tuple[str, str], bool]) -> None:
        self._log = log
        self._orders = orders
        self._absent = absent
        self.skips: dict[int, Skip] = {}
        #: Where an accepted control gave up or repaired something that lies in no order's history.
        self.named: set[int] = set()
        #: The first control of each key and id: its value.
        self._first: dict[tuple[bytes | None, str], bytes | None] = {}
        self._controls: dict[int, bytes | None] = {}
        self.verdicts: Counter[str] = Counter()

    def skip(
        self,
        record: Record,
        reason: str,
        event_id: str | None = None,
        order: History | None = None,
        place: Place | None = None,
    ) -> Skip:
        """Note that a record is skipped."""
        skip = self.skips[record.offset] = Skip(record.offset, reason, record.key, event_id)
        if order is not None:
            skip.order, skip.place, skip.about = order, place, order.order_id
        return skip

    def judge(self, record: Record, control: Control) -> tuple[Judged, Skip | None]:
        """Judge a control and carry it out; give the skip that an invalid one is."""
        verdict = self._verdict(record, control)
        self._controls[record.offset] = record.key
        self.verdicts[verdict] += 1
        named = self.skips.get(control.offset)
        if verdict == INVALID:
            return Judged(control, verdict, record.key, record.logged_at), self.skip(record, INVALID, control.event_id)
        order = named.order if named else None
        taken = None
        if verdict == ACCEPTED and named is not None:
            taken = self._carry_out(record.offset, control, named)
        return Judged(control, verdict, record.key, record.logged_at, order, taken), None

    def _verdict(self, record: Record, control: Control) -> str:
        """Go through the rules; the first that holds decides."""
        name = (record.key, control.event_id)
        if name in self._first:
            return "duplicate" if self._first[name] == record.value else INVALID
        self._first[name] = record.value
        if not (self._well_addressed(record, control) and _is_of_its_key(record, control)):
            return INVALID
        skip = self.skips.get(control.offset)
        if skip is None or skip.state != OPEN:
            return "superseded"
        if skip.order is None and isinstance(control, Repaired):
            return INVALID
        if control.if_last is not None and skip.order is not None:
            return ACCEPTED if skip.order.last_record(control.operation) == control.if_last else "stale"
        return ACCEPTED

    def _well_addressed(self, record: Record, control: Control) -> bool:
        """Tell whether it names an earlier record of this partition that has its key."""
        log, offset = self._log, control.offset
        if (control.topic_id, control.partition) != (log.topic_id, log.partition) or offset >= record.offset:
            return False
        if (skip := self.skips.get(offset)) is not None:
            return skip.key == record.key
        if offset in self._controls:
            return self._controls[offset] == record.key
        history = self._orders.get(record.key) if record.key is not None else None
        return history is not None and history.at(log.epoch, offset) is not None

    def _carry_out(self, at: int, control: Control, skip: Skip) -> str | None:
        """Carry out an accepted control that lies at an offset; give the event id that it takes, where it does."""
        order, place = skip.order, skip.place
        if order is None or place is None:
            skip.state = GIVEN_UP
            self.named.add(skip.offset)
            return None
        order.accepted.append((at, control.operation))
        order.touched = True
        if isinstance(control, Repaired):
            self._repair(at, control, skip)
            return None
        skip.state = GIVEN_UP
        if place.owns:
            place.takes_part = False
            return None
        if skip.event_id is not None:
            order.add(taken_place(place.epoch, at, skip.event_id))
        return skip.event_id

    def _repair(self, at: int, control: Repaired, skip: Skip) -> None:
        order, place, event = skip.order, skip.place, control.mended
        if order is None or place is None or event is None:  # what was accepted has all three
            return
        skip.repairs += 1
        place.event_id = skip.event_id or control.event_id
        place.put(event)
        order.fold(self._log.epoch)
        self._absent.pop((order.order_id, place.event_id), None)
        for one in order.places:
            if one.epoch == self._log.epoch and one.outcome:
                self._restate(order, one, at)

    def _restate(self, order: History, place: Place, at: int) -> None:
        """Bring the skip at a place up to what it came to by a repair at an offset."""
        skip = self.skips.get(place.offset)
        if place.outcome in ("applied", "duplicate"):
            if skip is not None and skip.state != GIVEN_UP:
                skip.state = REPAIRED if skip.repairs else HEALED
            return
        if skip is None:
            skip = self.skips[place.offset] = Skip(place.offset, "", order.order_id.encode(), place.event_id)
            skip.order, skip.place, skip.about, skip.opened_by = order, place, order.order_id, at
        elif skip.state == GIVEN_UP:
            return
        elif skip.state != OPEN:
            skip.state, skip.opened_by = OPEN, at
        skip.reason = place.outcome


def taken_place(epoch: int, offset: int, event_id: str) -> Place:
    """Make the place from which on a discard owns an event id that no event stands for."""
    place = Place(epoch, offset, 0, event_id)
    place.owns = True
    return place


def _is_of_its_key(record: Record, control: Control) -> bool:
    """Tell whether the event that a repair carries is of the order that its key names."""
    if not isinstance(control, Repaired):
        return True
    event = control.mended
    return event is not None and event.order_id.encode() == record.key
