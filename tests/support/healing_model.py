"""What the topic means: docs/adr/0013-repairs-on-the-topic.md once more, with nothing of ours in it.

Slow and plain: each record is kept, and after each one the whole history of its order is folded from its first place on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

#: Epoch, partition, offset.
Place = tuple[int, int, int]

#: As on the wire, or a derived one: the whole of what it is derived from.
Id = str | tuple[object, ...] | None

#: Reasons of skips that did not decode, and yet have a place.
DAMAGED = ("malformed_json", "invalid_event", "unknown_type", "internal_error")


class Event(NamedTuple):
    """``says`` is what two copies share: ("created", customer, cents) or ("changed", status)."""

    order: str
    says: tuple[str | int, ...]
    date: str = ""


class Control(NamedTuple):
    """A discard has no event."""

    id: str
    topic_id: str
    partition: int
    offset: int
    if_last: int | None = None
    event: Event | None = None
    operation: str | None = None


class Logged(NamedTuple):
    """A record, and what it decodes to: an event, a control, or the reason why it does not.

    ``home`` is the partition of its key, None when that is no order's. ``id`` is the event's, or one that a damaged
    event claims. ``bug``: applying it raises an error that nobody foresaw.
    """

    partition: int
    offset: int
    key: bytes | None
    home: int | None
    value: bytes | None
    logged_at: int
    what: Event | Control | str
    id: str | None = None
    bug: bool = False


@dataclass
class Spot:
    """A record's place, and what became of it. ``order`` is the one whose history it is in; of an accepted control, the
    one whose history it changed. ``outcome`` is that of what ``stands`` here; ``skipped_as`` the last reason of the skip.
    """

    place: Place
    record: Logged
    order: str | None = None
    id: Id = None
    stands: Event | None = None
    stands_as: Id = None
    outcome: str = ""
    reason: str | None = None
    state: str = ""
    skipped_as: str = ""
    opened_by: int = -1
    repairs: int = 0
    takes: Id = None
    verdict: str = ""
    because: str = ""

    @property
    def frozen(self) -> bool:
        return self.state == "discarded" or (self.reason == "internal_error" and not self.repairs)

    def skip(self, reason: str, by: int) -> None:
        if self.state != "open":
            self.state, self.opened_by = "open", by
        self.outcome, self.reason, self.skipped_as = "skipped", reason, reason


class Made(NamedTuple):
    """An order: the create that made it, its status, and the last place that was applied with its time."""

    create: Event
    status: str
    place: Place
    updated_at: int


class Oracle:
    """Reads records; ``spots``, ``orders`` are what has become of them."""

    def __init__(self) -> None:
        self.epoch, self.topic_id = 0, ""
        self.spots: dict[Place, Spot] = {}
        self.orders: dict[str, Made] = {}

    def open_epoch(self, topic_id: str) -> None:
        self.epoch, self.topic_id = self.epoch + 1, topic_id

    def read(self, record: Logged) -> Spot:
        spot = Spot((self.epoch, record.partition, record.offset), record)
        what, reason = record.what, "internal_error" if record.bug else ""
        if isinstance(what, Event):
            place = (self.topic_id, record.partition, record.offset, record.key, record.value)
            spot.stands, spot.id, spot.stands_as = what, record.id or place, record.id or place
            misplaced = self._misplaced(record, what)
            reason = reason or misplaced
            spot.order = None if misplaced else what.order
        elif isinstance(what, Control):
            reason = reason or self._control(spot, what)
        else:
            spot.id = None if reason else record.id
            reason = reason or what
            if what in DAMAGED and record.home == record.partition and record.key is not None:
                spot.order = record.key.decode()
        self.spots[spot.place] = spot
        if reason:
            spot.skip(reason, record.offset)
        elif spot.stands:
            self._fold(spot.order, record.offset)
        return spot

    def last(self, order: str | None, operation: str | None) -> int | None:
        here = [spot for spot in self.spots.values() if spot.order == order and spot.place[0] == self.epoch]
        asked = [s for s in here if not (operation and s.verdict and s.record.what.operation == operation)]  # type: ignore[union-attr]
        return max((spot.place[2] for spot in asked), default=None)

    def _misplaced(self, record: Logged, event: Event) -> str:
        if record.key is None:
            return "missing_key"
        if record.key != event.order.encode():
            return "key_mismatch"
        return "" if record.home == record.partition else "wrong_partition"

    def _control(self, spot: Spot, control: Control) -> str:
        """Judge and apply; give the reason why it is a skip."""
        named = self.spots.get((self.epoch, control.partition, control.offset))
        spot.verdict, spot.because = self._judge(spot.record, control, named)
        if spot.verdict == "accepted" and named is not None:
            spot.order = named.order
            if control.event is not None:
                named.stands, named.stands_as, named.repairs = control.event, named.id or control.id, named.repairs + 1
                self._fold(named.order, spot.place[2])
            else:
                named.state = "discarded"
                spot.takes = named.id if named.order and named.stands is None else None
        return "invalid_control" if spot.verdict == "invalid_control" else ""

    def _judge(self, record: Logged, control: Control, named: Spot | None) -> tuple[str, str]:
        for other in self.spots.values():
            same = other.place[:2] == (self.epoch, record.partition) and other.record.key == record.key
            if same and other.verdict and other.record.what.id == control.id:  # type: ignore[union-attr]
                same = other.record.value == record.value
                return ("duplicate", "copy") if same else ("invalid_control", "other content")
        if control.topic_id != self.topic_id:
            return "invalid_control", "topic"
        if control.partition != record.partition:
            return "invalid_control", "partition"
        if control.offset >= record.offset:
            return "invalid_control", "ahead"
        if named is None:
            return "invalid_control", "none"
        if named.record.key != record.key:
            return "invalid_control", "key"
        if control.event and control.event.order.encode() != record.key:
            return "invalid_control", "other order"
        if named.state != "open":
            return "superseded", named.state or "no skip"
        if control.event and not named.order:
            return "invalid_control", "no place"
        if control.if_last is not None and named.order and control.if_last != self.last(named.order, control.operation):
            return "stale", ""
        return "accepted", ""

    def _fold(self, order: str | None, by: int) -> None:
        owners: dict[Id, tuple[Place, Event | None]] = {}
        made: Made | None = None
        for spot in sorted(
            (s for s in self.spots.values() if s.order == order), key=lambda s: (s.place[0], s.place[2])
        ):
            if spot.takes:
                owners.setdefault(spot.takes, (spot.place, None))
            if (event := spot.stands) is None:
                continue
            place, owner = owners.setdefault(spot.stands_as, (spot.place, event))
            if spot.frozen:
                continue
            if place != spot.place:
                same = owner is not None and owner.says == event.says
                outcome, reason = ("duplicate", "") if same else ("skipped", "event_id_conflict")
            elif event.says[0] == "created":
                outcome, reason = ("skipped", "duplicate_create") if made else ("applied", "")
                made = made or Made(event, "new", spot.place, spot.record.logged_at)
            elif made is None:
                outcome, reason = "skipped", "unknown_order"
            else:
                outcome, reason = "applied", ""
                made = made._replace(status=str(event.says[1]), place=spot.place, updated_at=spot.record.logged_at)
            if reason:
                spot.skip(reason, by)
            else:
                spot.state = spot.state and ("repaired" if spot.repairs else "healed")
                spot.outcome, spot.reason = outcome, None
        if order is not None:
            self.orders.pop(order, None)
            if made:
                self.orders[order] = made
