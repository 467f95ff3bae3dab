"""Lays down what was wished for: each record is read by the model at once, so that a control can say what was seen."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from orderflow.broker import partition_of
from orderflow.headers import NO_HEADERS
from orderflow.records import Record, UnreadableRecord
from tests.support.healing.labels import Sight
from tests.support.healing.model import Control, Event, Logged, Oracle
from tests.support.healing.wire import control_value, harmed, uuid, wire
from tests.support.healing.wishes import Act, Again, Bulk, Life, Resend, Say, SendAgain, Wish

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tests.support.healing.model import Spot

    Log = list[Record | UnreadableRecord]

#: Two orders on each of two partitions; the third is nobody's home.
ORDERS = ("a", "c", "e", "o2")
STRANGE_PARTITION = 0

#: Keys that no order can have.
ODD_KEYS = (b"", b"\xff", b"a\x07")

#: What events say. A first create is told from another by its customer.
SAYINGS: tuple[tuple[str | int, ...], ...] = (
    ("changed", "shipped"), ("changed", "pending"), ("created", "c-1", 1025), ("created", "c-2", 1025),
)  # fmt: skip

START_MS, FIRST_OFFSET = 1_700_000_000_000, 2


class Author:
    """The lives of a log, and the model that has read them. ``seen`` counts what came about."""

    def __init__(self, wishes: Sequence[Wish], lives: Sequence[Life] = ()) -> None:
        self.oracle = Oracle()
        self.lives: list[tuple[str, Log]] = []
        self.seen: Counter[str] = Counter()
        self._number = 100
        self._begin("topic-1")
        self._fulfil(wishes)
        for number, life in enumerate(lives, 2):
            self._begin(self.oracle.topic_id if life.same_topic else f"topic-{number}")
            self._replay(life.replayed, where_they_were=life.where_they_were)
            self._fulfil(life.wishes)

    @property
    def has_bugs(self) -> bool:
        return any(spot.record.bug for spot in self.oracle.spots.values())

    def without_bugs(self) -> Oracle:
        """Read all again: nothing of the last life raises an error."""
        oracle = Oracle()
        for epoch, (topic_id, _) in enumerate(self.lives, 1):
            oracle.open_epoch(topic_id)
            for record in self._read_in(epoch):
                oracle.read(record if epoch < len(self.lives) else record._replace(bug=""))
        return oracle

    def _begin(self, topic_id: str) -> None:
        """Begin a new life of the topic."""
        self.oracle.open_epoch(topic_id)
        self.lives.append((topic_id, []))
        self._ends = dict.fromkeys(range(6), FIRST_OFFSET)
        self._laid: list[Spot] = []

    def _replay(self, count: int, *, where_they_were: bool) -> None:
        """Lay the first records of the life before this one down again, with the gaps between them or without."""
        for record in self._read_in(self.oracle.epoch - 1)[:count]:
            if where_they_were:
                self._ends[record.partition] = record.offset
            self._put(record)

    def _read_in(self, epoch: int) -> list[Logged]:
        return [spot.record for spot in self.oracle.spots.values() if spot.place[0] == epoch]

    def _fulfil(self, wishes: Sequence[Wish]) -> None:
        for wish in wishes:
            getattr(self, f"_{type(wish).__name__.lower()}")(wish)

    def _put(self, record: Logged) -> Spot:
        """Lay a record down at the end of its partition."""
        now = START_MS + sum(len(log) for _, log in self.lives)
        record = record._replace(offset=self._ends[record.partition], logged_at=now)
        self._ends[record.partition] += 1
        damage = "A header's name is not UTF-8." if record.what == "unreadable_record" else None
        self.lives[-1][1].append(
            UnreadableRecord(record.partition, record.offset, "CorruptRecordError: a checksum")
            if damage and record.value is None
            else Record(record.partition, record.offset, record.key, record.value, NO_HEADERS, now, damage)
        )
        before = Sight(self.oracle)
        spot = self.oracle.read(record)
        self.seen.update(set(before.labels(spot)))
        self._laid.append(spot)
        return spot

    # Events.

    def _say(self, wish: Say) -> None:
        self._ends[partition_of(ORDERS[wish.order].encode())] += wish.gap
        self._event(ORDERS[wish.order], wish, None if wish.id is None else uuid(wish.id))

    def _event(self, order: str, wish: Say, event_id: str | None) -> Spot:
        second = self._next() % 60
        said = Event(order, SAYINGS[wish.saying], f"2026-01-02T03:04:{second:02d}Z")
        value = wire(said, event_id, occurred_at=f"2026-01-01T00:00:{second:02d}Z")
        what, raw, known, bug = harmed(said, value, wish.harm)
        key, partition = self._address(order, wish.address)
        key = None if wish.harm == "lost" else key
        return self._put(Logged(partition, -1, key, home_of(key), raw, -1, what, known, bug))

    def _address(self, order: str, address: str) -> tuple[bytes | None, int]:
        key = order.encode()
        if address == "other key":
            key = ORDERS[(ORDERS.index(order) + 1) % len(ORDERS)].encode()
        if address == "odd key":
            key = ODD_KEYS[self._number % len(ODD_KEYS)]
        partition = STRANGE_PARTITION if address == "elsewhere" else partition_of(key)
        return None if address == "no key" else key, partition

    def _again(self, wish: Again) -> None:
        if self._laid:
            self._put(self._laid[-1 - wish.back % len(self._laid)].record)

    def _resend(self, wish: Resend) -> None:
        spot = self._target("claiming", wish.back)
        if spot is not None:
            self._event(_order_of(spot), Say(0, None, wish.saying), str(spot.id))

    # Controls.

    def _sendagain(self, wish: SendAgain) -> None:
        if (spot := self._target("open", wish.back)) is None:
            return
        sent = self._event(_order_of(spot), Say(0, None, wish.saying), uuid(self._next()))
        self._control(Act(repair=False, sight="not said"), spot, successor=str(sent.id))

    def _bulk(self, wish: Bulk) -> None:
        operation = uuid(self._next())
        for spot in [s for s in self._laid if s.state == "open" and s.order == ORDERS[wish.order]][:4]:
            self._control(Act(wish.repair, saying=wish.saying), spot, operation=operation)

    def _act(self, wish: Act) -> None:
        if (spot := self._target(wish.among, wish.back)) is not None:
            for _ in range(wish.times):
                self._control(wish, spot, operation=None if wish.operation is None else uuid(90 + wish.operation))

    def _target(self, among: str, back: int) -> Spot | None:
        meant: dict[str, Callable[[Spot], object]] = {
            "all": lambda _: True,
            "open": lambda spot: spot.state == "open",
            "skips": lambda spot: spot.state,
            "discarded": lambda spot: spot.state == "discarded",
            "healing": lambda spot: spot.repairs,
            "claiming": lambda spot: spot.state and isinstance(spot.id, str),
        }
        spots = [spot for spot in self._laid if meant[among](spot)]
        return spots[-1 - back % len(spots)] if spots else None

    def _control(self, wish: Act, spot: Spot, operation: str | None = None, successor: str | None = None) -> None:
        """Name the record of a spot, as well as the wish allows."""
        key, (_, partition, offset) = spot.record.key, spot.place
        last = (self.oracle.last(spot.order, operation) or 0) if spot.order else offset
        seen = max(0, last + {"old": -1, "ahead": 1}.get(wish.sight, 0))
        end = self._ends[partition]
        named = {"itself": end, "ahead": end + 1, "none": self._gap(partition)}
        control = Control(
            id=self._control_id(wish.id, partition, key),
            topic_id="another" if wish.fault == "topic" else self.oracle.topic_id,
            partition=partition + (wish.fault == "partition"),
            offset=named.get(wish.fault, offset),
            if_last=None if wish.sight == "not said" else seen,
            event=self._mended(wish, spot) if wish.repair else None,
            operation=operation,
        )
        if wish.fault == "key":
            key = b"zz" if key is None else None
        note, mended_id = str(self._next()), uuid(1 + self._number % 5)
        what, value, bug = control_value(control, wish.fault, note, mended_id, successor)
        self._put(Logged(partition, -1, key, home_of(key), value, -1, what, bug=bug))

    def _mended(self, wish: Act, spot: Spot) -> Event:
        order = _order_of(spot)
        if wish.fault == "other order":
            order = ORDERS[(ORDERS.index(order) + 1) % len(ORDERS)]
        return Event(order, SAYINGS[wish.saying], "2026-02-02T00:00:00Z")

    def _control_id(self, whose: str, partition: int, key: bytes | None) -> str:
        if whose == "the last":
            controls = [s.record.what for s in self._laid if s.place[1] == partition and s.record.key == key]
            ids = [what.id for what in controls if isinstance(what, Control)]
            return ids[-1] if ids else uuid(self._next())
        return uuid(self._next() % 3 + 1 if whose == "an event's" else self._next())

    def _gap(self, partition: int) -> int:
        there = {spot.place[2] for spot in self._laid if spot.place[1] == partition}
        return max(set(range(self._ends[partition])) - there)

    def _next(self) -> int:
        self._number += 1
        return self._number


def home_of(key: bytes | None) -> int | None:
    """The partition of an order's key; None when no order can have it."""
    return None if key is None or key in ODD_KEYS else partition_of(key)


def _order_of(spot: Spot) -> str:
    """The order that a record's key names, or one of them all."""
    order = (spot.record.key or b"").decode(errors="replace")
    return order if order in ORDERS else ORDERS[0]
