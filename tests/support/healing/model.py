"""What the topic means: docs/adr/0013-repairs-on-the-topic.md once more, with nothing of ours in it.

Slow and plain: every record is kept, and each one has the whole history of its order folded from its first place on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

#: Epoch, partition, offset.
Place = tuple[int, int, int]

#: As on the wire, or a derived one: the whole of what it is derived from.
Id = str | tuple[object, ...] | None

#: Where an error that nobody foresaw is raised.
IN_DECODER, BEHIND_DECODER = "in the decoder", "behind the decoder"

#: What a record did not decode for, and has a place all the same.
DAMAGED = ("malformed_json", "invalid_event", "unknown_type")


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
    event claims. ``bug``: where it raises an error.
    """

    partition: int
    offset: int
    key: bytes | None
    home: int | None
    value: bytes | None
    logged_at: int
    what: Event | Control | str
    id: str | None = None
    bug: str = ""


@dataclass(eq=False)
class Spot:
    """A record's place, and what became of it.

    ``order`` is the one whose history it is in, or the one that an accepted control changed. ``came_to`` is what came
    of the event that ``stands`` here: applied, duplicate, or the reason why it is skipped. ``takes``: the id that a
    discard takes from here on.
    """

    place: Place
    record: Logged
    order: str | None = None
    id: Id = None
    stands: Event | None = None
    stands_as: Id = None
    came_to: str = ""
    state: str = ""
    skipped_as: str = ""
    opened_by: int = -1
    repairs: int = 0
    takes: Id = None
    verdict: str = ""
    because: str = ""

    @property
    def frozen(self) -> bool:
        return self.state == "discarded" or (self.came_to == "internal_error" and not self.repairs)

    @property
    def control(self) -> Control | None:
        """The control that was judged here."""
        return self.record.what if self.verdict and isinstance(self.record.what, Control) else None

    def settle(self, came_to: str, by: int) -> None:
        self.came_to = came_to
        if came_to in ("applied", "duplicate"):
            self.state = self.state and ("repaired" if self.repairs else "healed")
            return
        self.skipped_as = came_to
        if self.state != "open":
            self.state, self.opened_by = "open", by


class Made(NamedTuple):
    """An order: the create that made it, its status, and the last place that was applied with its time."""

    create: Event
    status: str
    place: Place
    updated_at: int


class Oracle:
    """Reads records; ``spots`` and ``orders`` are what has become of them."""

    def __init__(self) -> None:
        self.epoch, self.topic_id = 0, ""
        self.spots: dict[Place, Spot] = {}
        self.orders: dict[str, Made] = {}

    def open_epoch(self, topic_id: str) -> None:
        self.epoch, self.topic_id = self.epoch + 1, topic_id

    def read(self, record: Logged) -> Spot:
        spot = Spot((self.epoch, record.partition, record.offset), record)
        self.spots[spot.place] = spot
        if isinstance(record.what, Event) and record.bug != IN_DECODER:
            self._event(spot, record.what)
        elif isinstance(record.what, Control) and not record.bug:
            self._control(spot, record.what)
        else:
            self._damaged(spot)
        return spot

    def last(self, order: str | None, operation: str | None) -> int | None:
        """The offset of the order's last record."""
        here = [spot for spot in self.spots.values() if spot.order == order and spot.place[0] == self.epoch]
        asked = [s for s in here if operation is None or s.control is None or s.control.operation != operation]
        return max((spot.place[2] for spot in asked), default=None)

    def _damaged(self, spot: Spot) -> None:
        record, what = spot.record, spot.record.what
        if (isinstance(what, Event) or what in DAMAGED) and record.key is not None and record.home == record.partition:
            spot.order = record.key.decode()
        spot.id = None if record.bug else record.id
        spot.settle("internal_error" if record.bug else str(what), record.offset)

    def _event(self, spot: Spot, event: Event) -> None:
        record = spot.record
        spot.stands = event
        derived = (self.topic_id, record.partition, record.offset, record.key, record.value)
        spot.id = spot.stands_as = record.id or derived
        misplaced = _misplaced(record, event)
        spot.order = None if misplaced else event.order
        if record.bug or misplaced:
            spot.settle("internal_error" if record.bug else misplaced, record.offset)
        else:
            self._fold(event.order, record.offset)

    def _control(self, spot: Spot, control: Control) -> None:
        named = self.spots.get((self.epoch, control.partition, control.offset))
        verdict, spot.because = self._judge(spot.record, control, named)
        spot.verdict = verdict
        if verdict == "invalid_control":
            spot.settle(verdict, spot.place[2])
        if verdict != "accepted" or named is None:
            return
        spot.order = named.order
        if control.event is None:
            named.state = "discarded"
            spot.takes = named.id if named.order and named.stands is None else None
        elif named.order is not None:
            named.stands, named.stands_as, named.repairs = control.event, named.id or control.id, named.repairs + 1
            self._fold(named.order, spot.place[2])

    def _judge(self, record: Logged, control: Control, named: Spot | None) -> tuple[str, str]:
        """Give the verdict of the first rule that holds, by its number there; the first one is judged before."""
        before = [s for s in self.spots.values() if s.place[:2] == (self.epoch, record.partition) and s.control]
        copies = [s.record.value for s in before if s.record.key == record.key and s.record.what.id == control.id]  # type: ignore[union-attr]
        key, order, state = (named.record.key, named.order, named.state) if named else (None, None, "")
        last = self.last(order, control.operation)
        rules: tuple[tuple[object, str, str], ...] = (
            (copies and copies[0] == record.value, "duplicate", ""),  # 2
            (copies, "invalid_control", "its id is another's"),  # 2
            (control.topic_id != self.topic_id, "invalid_control", "another topic"),  # 3
            (control.partition != record.partition, "invalid_control", "another partition"),  # 3
            (control.offset >= record.offset, "invalid_control", "not before it"),  # 3
            (named is None, "invalid_control", "nothing there"),  # 3
            (key != record.key, "invalid_control", "another key"),  # 3
            (control.event and control.event.order.encode() != record.key, "invalid_control", "another order"),  # 4
            (state != "open", "superseded", state or "no skip"),  # 5
            (control.event and order is None, "invalid_control", "no place"),  # 6
            (order is not None and control.if_last not in (None, last), "stale", ""),  # 7
            (True, "accepted", ""),  # 8
        )
        return next((verdict, because) for holds, verdict, because in rules if holds)

    def _fold(self, order: str, by: int) -> None:
        """Fold the order anew; ``by`` is the offset of the record that asks for it."""
        owners: dict[Id, Spot] = {}
        made: Made | None = None
        history = [spot for spot in self.spots.values() if spot.order == order and (spot.stands or spot.takes)]
        for spot in sorted(history, key=lambda spot: spot.place):
            owner = owners.setdefault(spot.takes or spot.stands_as, spot)
            if (event := spot.stands) is None or spot.frozen:
                continue
            if owner is not spot:
                came_to = "duplicate" if owner.stands and owner.stands.says == event.says else "event_id_conflict"
            elif event.says[0] == "created":
                came_to = "duplicate_create" if made else "applied"
            else:
                came_to = "applied" if made else "unknown_order"
            spot.settle(came_to, by)
            if came_to == "applied":
                status = "new" if made is None else str(event.says[1])
                made = Made(made.create if made else event, status, spot.place, spot.record.logged_at)
        self.orders.pop(order, None)
        if made is not None:
            self.orders[order] = made


def _misplaced(record: Logged, event: Event) -> str:
    """Say why an event is in no order's history; '' when it is in one."""
    if record.key is None:
        return "missing_key"
    if record.key != event.order.encode():
        return "key_mismatch"
    return "" if record.home == record.partition else "wrong_partition"
