"""Repairs through the real store, against a model: whatever is sent, damaged, mended, cut, interleaved and killed.

The rules are docs/adr/0013-repairs-on-the-topic.md, the model tests/support/healing_model.py. What is drawn are acts, such
as "repair the last open skip, and be late": an author lays them down as records, and asks the model what an operator sees
at that moment. HYPOTHESIS_EXAMPLES=20000 makes a long run.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections import Counter, defaultdict
from contextlib import ExitStack, contextmanager
from itertools import cycle, groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from unittest.mock import patch

import pytest
from hypothesis import HealthCheck, event, given, note, settings
from hypothesis import strategies as st

from orderflow import controls, events
from orderflow.broker import Topic, partition_of
from orderflow.headers import NO_HEADERS
from orderflow.projection import Projection, runs
from orderflow.records import Record, UnreadableRecord
from orderflow.settings import Settings
from orderflow.store.rows import OrderRow
from orderflow.store.writer import Writer
from tests.support.healing_model import Control, Event, Logged, Oracle, Spot

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

#: Two orders on each of two partitions; the third is nobody's home.
ORDERS = ("a", "c", "e", "o2")
STRANGE_PARTITION = 0
PARTITIONS = sorted({partition_of(order.encode()) for order in ORDERS} | {STRANGE_PARTITION})

#: Keys that no order can have.
ODD_KEYS = (b"", b"\xff", b"a\x07")

#: What events say. A first create is told from another by its customer.
SAYINGS: tuple[tuple[str | int, ...], ...] = (
    ("changed", "shipped"), ("changed", "pending"), ("created", "c-1", 1025), ("created", "c-2", 1025),
)  # fmt: skip

#: In a value: decoding it, and applying it, raise an error that nobody foresaw.
UNDECODABLE, UNAPPLICABLE = "a bug in the decoder", "a bug behind the decoder"

START_MS, FIRST_OFFSET = 1_700_000_000_000, 2


# What is drawn. Numbers are taken modulo what there is.


class Say(NamedTuple):
    """An event of an order."""

    order: int
    id: int | None
    saying: int
    harm: str
    address: str
    gap: int


class Again(NamedTuple):
    """A record once more, byte for byte."""

    back: int


class Act(NamedTuple):
    """A control."""

    repair: bool
    among: str
    back: int
    saying: int
    sight: str
    id: str
    operation: int | None
    fault: str


class Bulk(NamedTuple):
    """Controls that were asked for together: for each open skip of an order."""

    order: int
    repair: bool
    saying: int


class SendAgain(NamedTuple):
    """A skip's event at the end, and a discard of the skip."""

    back: int
    saying: int


Wish = Say | Again | Act | Bulk | SendAgain

HARMS = ("",) * 30 + (
    "malformed", "null", "list", "no value", "wrong value", "wrong value", "bad id", "unknown type", "unknown type",
    "undecodable", "unapplicable", "unapplicable", "unreadable", "unreadable, unapplicable", "lost",
)  # fmt: skip
ADDRESSES = ("own",) * 36 + ("no key", "no key", "other key", "other key", "elsewhere", "elsewhere", "odd key")
FAULTS = ("",) * 30 + (
    "topic", "partition", "ahead", "itself", "none", "key", "other order", "no event", "no if_last", "no author",
    "unreadable", "undecodable", "unapplicable",
)  # fmt: skip

say = st.builds(
    Say,
    order=st.sampled_from((0, 0, 0, 0, 0, 1, 2, 3)),
    id=st.sampled_from((None, 1, 1, 2, 2, 3)),
    saying=st.sampled_from((0, 0, 1, 2, 3)),
    harm=st.sampled_from(HARMS),
    address=st.sampled_from(ADDRESSES),
    gap=st.sampled_from((0, 0, 0, 0, 0, 1)),
)
act = st.builds(
    Act,
    repair=st.sampled_from((True, True, False)),
    among=st.sampled_from(("open", "open", "open", "healing", "healing", "skips", "all")),
    back=st.sampled_from((0, 0, 0, 1, 1, 2, 3, 4)),
    saying=st.sampled_from((0, 1, 2, 2, 3)),
    sight=st.sampled_from(("now",) * 8 + ("old", "old", "ahead", "not said")),
    id=st.sampled_from(("own",) * 14 + ("the last", "the last", "an event's", "an event's")),
    operation=st.sampled_from((None, None, None, 0, 1)),
    fault=st.sampled_from(FAULTS),
)
again = st.builds(Again, back=st.sampled_from((0, 0, 1, 2, 3, 4, 5, 6)))
bulk = st.builds(
    Bulk, order=st.sampled_from((0, 0, 1, 2, 3)), repair=st.sampled_from((True, True, False)), saying=st.integers(0, 3)
)
send_again = st.builds(SendAgain, back=st.sampled_from((0, 1, 2, 3)), saying=st.integers(0, 3))
wish = st.one_of(say, say, say, say, say, act, act, act, act, again, bulk, send_again)
wishes = st.integers(1, 40).flatmap(lambda size: st.lists(wish, min_size=size, max_size=size))


# How they are laid down.


def uuid(number: int) -> str:
    return f"00000000-0000-4000-8000-{number:012d}"


def home_of(key: bytes | None) -> int | None:
    return None if key is None or key in ODD_KEYS else partition_of(key)


def wire(said: Event, event_id: str | None, **more: object) -> dict[str, Any]:
    """An event as it stands in a value. ``more`` does not belong to its content."""
    identity = {} if event_id is None else {"event_id": event_id}
    value: dict[str, Any] = {"type": f"order.{'status_' * (said.says[0] == 'changed')}{said.says[0]}"}
    value |= {"order_id": said.order, **identity, **more}
    if said.says[0] == "changed":
        return value | {"status": said.says[1]}
    _, customer, cents = said.says
    assert isinstance(cents, int)
    return value | {
        "order": {
            "orderId": said.order, "customerId": customer, "orderDate": said.date, "currency": "EUR",
            "items": [{"itemId": "i", "quantity": 1, "price": cents / 100}], "totalAmount": cents / 100,
        }
    }  # fmt: skip


class Sight:
    """What the model knew before a record, to name what the record brought about."""

    def __init__(self, oracle: Oracle) -> None:
        self._oracle = oracle
        self._orders = set(oracle.orders)
        self._were = {
            place: (spot.outcome, spot.state, spot.repairs, spot.stands) for place, spot in oracle.spots.items()
        }

    def labels(self, spot: Spot) -> Iterator[str]:
        if spot.verdict:
            yield from self._of_control(spot)
            return
        yield f"skipped: {spot.reason}" if spot.reason else spot.outcome
        if not spot.order:
            return
        others = [s for s in self._oracle.spots.values() if s.order == spot.order and s is not spot]
        if spot.stands and any(s.takes == spot.id for s in others):
            yield f"a copy of an id that was discarded while nothing stood there is {spot.reason or spot.outcome}"
        if spot.stands and any(s.state == "discarded" and s.stands and s.stands_as == spot.id for s in others):
            yield f"a copy of an id that was discarded with its event is {spot.reason or spot.outcome}"

    def _of_control(self, spot: Spot) -> Iterator[str]:
        control = spot.record.what
        assert isinstance(control, Control)
        kind = "repair" if control.event else "discard"
        verdict = f"{kind}: {spot.verdict}, {spot.because}" if spot.because else f"{kind}: {spot.verdict}"
        yield verdict
        named = self._oracle.spots.get((spot.place[0], control.partition, control.offset))
        if spot.verdict != "accepted" or named is None:
            return
        if control.operation and self._asked_together(control.operation) > 1:
            yield "controls that were asked for together are accepted"
        if not named.order:
            yield f"a discard of {named.skipped_as}"
        elif not control.event:
            yield f"a discard {'that quotes if_last' if control.if_last is not None else 'that quotes nothing'}"
            yield f"a discard {'where an event stands' if named.stands else 'where nothing stands'}"
        else:
            yield from self._of_repair(named, control.event)

    def _asked_together(self, operation: str) -> int:
        accepted = [s.record.what for s in self._oracle.spots.values() if s.verdict == "accepted"]
        return sum(isinstance(what, Control) and what.operation == operation for what in accepted)

    def _of_repair(self, named: Spot, mended: Event) -> Iterator[str]:
        outcome, _, repairs, stood = self._were[named.place]
        yield f"what was repaired is {named.reason or named.outcome}"
        if repairs:
            yield "a repair of a repair"
        if repairs > 2:
            yield "a fourth repair of one place"
        if not stood and named.id is None:
            yield "a mended event goes by the control's id"
        changed = [s for place, s in self._oracle.spots.items() if place in self._were and s is not named and s.outcome]
        for other in changed:
            outcome, state, *_ = self._were[other.place]
            if state == "open" and other.state == "healed":
                yield "healed by another's repair"
            if outcome != other.outcome == "skipped":
                yield f"{outcome} turned into {other.reason}"
                yield f"{state or 'never a skip'} is opened{' again' if state else ''}"
                if mended.says[0] == "created" and other.reason == "duplicate_create":
                    yield "a repaired create turns a later create into a duplicate"
            if state == other.state == "open" and outcome == other.outcome and other.repairs and other.reason:
                yield "a repair stays open at another's repair"
        if (named.order in self._orders) > (named.order in self._oracle.orders):
            yield "an order vanishes"
        if (named.order in self._orders) < (named.order in self._oracle.orders):
            yield "an order comes to be by a repair"


class Author:
    """Lays records down, each read by the model at once, so that a control can say what an operator sees."""

    def __init__(self, topic_id: str = "topic-1") -> None:
        self.oracle = Oracle()
        self.lives: list[tuple[str, list[Record | UnreadableRecord]]] = []
        self.laid: list[Spot] = []
        self.seen: Counter[str] = Counter()
        self._number = 100
        self.begin(topic_id)

    def begin(self, topic_id: str) -> None:
        """Begin a new life of the topic."""
        self.oracle.open_epoch(topic_id)
        self.lives.append((topic_id, []))
        self._ends = dict.fromkeys(range(6), FIRST_OFFSET)
        self.laid = []

    def replay(self, count: int, *, where_they_were: bool) -> None:
        """Lay the first records of the life before this one down again, with the gaps between them or without."""
        records = [spot.record for spot in self.oracle.spots.values() if spot.place[0] == self.oracle.epoch - 1]
        for record in records[:count]:
            if where_they_were:
                self._ends[record.partition] = record.offset
            self.put(record)

    def put(self, record: Logged) -> Spot:
        """Lay a record down at the end of its partition."""
        now = START_MS + sum(len(log) for _, log in self.lives)
        record = record._replace(offset=self._ends[record.partition], logged_at=now)
        self._ends[record.partition] += 1
        lost = record.what == "unreadable_record" and record.value is None
        damage = "A header's name is not UTF-8." if record.what == "unreadable_record" else None
        self.lives[-1][1].append(
            UnreadableRecord(record.partition, record.offset, "CorruptRecordError: a checksum")
            if lost
            else Record(record.partition, record.offset, record.key, record.value, NO_HEADERS, now, damage)
        )
        before = Sight(self.oracle)
        spot = self.oracle.read(record)
        self.seen.update(set(before.labels(spot)))
        self.laid.append(spot)
        return spot

    def do(self, wish: Wish) -> None:
        getattr(self, f"_{type(wish).__name__.lower()}")(wish)

    def _say(self, wish: Say) -> None:
        order = ORDERS[wish.order]
        self._ends[partition_of(order.encode())] += wish.gap
        self._event(order, wish, None if wish.id is None else uuid(wish.id))

    def _event(self, order: str, wish: Say, event_id: str | None) -> Spot:
        self._number += 1
        said = Event(order, SAYINGS[wish.saying], f"2026-01-02T03:04:{self._number % 60:02d}Z")
        what, value, known = self._harmed(
            wire(said, event_id, occurred_at=f"2026-01-01T00:00:{self._number % 60:02d}Z"), wish.harm
        )
        key, partition = self._address(order, wish.address)
        if wish.harm == "lost":
            key = None
        return self.put(
            Logged(
                partition, -1, key, home_of(key), value, -1, what or said, known,
                bug=value is not None and UNAPPLICABLE.encode() in value,
            )
        )  # fmt: skip

    def _harmed(self, value: dict[str, Any], harm: str) -> tuple[str, bytes | None, str | None]:
        """Give the reason why a value does not decode, '' when it does; the value; the id that is known."""
        known = value.get("event_id")
        if harm == "wrong value":
            return "invalid_event", _bytes(value | {"status": "LOST", "order": 5}), known
        if harm == "bad id":
            return "invalid_event", _bytes(value | {"event_id": str(known).upper() + "A"}), None
        if harm == "unknown type":
            return "unknown_type", _bytes(value | {"type": "order.lost"}), known
        if harm == "undecodable":
            return "internal_error", _bytes(value | {"note": UNDECODABLE}), None
        if "unapplicable" in harm:
            value |= {"note": UNAPPLICABLE}
        if "unreadable" in harm:
            return "unreadable_record", _bytes(value), None
        found = {
            "malformed": ("malformed_json", _bytes(value)[:-1]),
            "null": ("invalid_event", b"null"),
            "list": ("invalid_event", b"[]"),
            "no value": ("malformed_json", None),
            "lost": ("unreadable_record", None),
        }
        return (*found[harm], None) if harm in found else ("", _bytes(value), known)

    def _address(self, order: str, address: str) -> tuple[bytes | None, int]:
        key = order.encode()
        if address == "other key":
            key = ORDERS[(ORDERS.index(order) + 1) % len(ORDERS)].encode()
        if address == "odd key":
            key = ODD_KEYS[self._number % len(ODD_KEYS)]
        partition = STRANGE_PARTITION if address == "elsewhere" else partition_of(key)
        return None if address == "no key" else key, partition

    def _again(self, wish: Again) -> None:
        if self.laid:
            self.put(self.laid[-1 - wish.back % len(self.laid)].record)

    def _sendagain(self, wish: SendAgain) -> None:
        if (spot := self._target("open", wish.back)) is None:
            return
        order = (spot.record.key or b"").decode(errors="replace")
        order = order if order in ORDERS else ORDERS[0]
        sent = self._event(order, Say(0, None, wish.saying, "", "own", 0), uuid(self._next()))
        assert isinstance(sent.id, str)
        self._control(Act(False, "", 0, 0, "not said", "own", None, ""), spot, successor=sent.id)

    def _bulk(self, wish: Bulk) -> None:
        operation = uuid(self._next())
        order = ORDERS[wish.order]
        for spot in [s for s in self.laid if s.state == "open" and s.order == order][:4]:
            self._control(Act(wish.repair, "", 0, wish.saying, "now", "own", None, ""), spot, operation=operation)

    def _act(self, wish: Act) -> None:
        if (spot := self._target(wish.among, wish.back)) is not None:
            self._control(wish, spot, operation=None if wish.operation is None else uuid(90 + wish.operation))

    def _target(self, among: str, back: int) -> Spot | None:
        spots = [
            spot
            for spot in self.laid
            if among == "all" or (among == "open" and spot.state == "open") or (among == "skips" and spot.state)
            or (among == "healing" and spot.repairs)
        ]  # fmt: skip
        return spots[-1 - back % len(spots)] if spots else None

    def _control(self, wish: Act, spot: Spot, **more: str | None) -> None:
        """Name the record of a spot, as well as the wish allows."""
        key, (_, partition, offset) = spot.record.key, spot.place
        last = self.oracle.last(spot.order, more.get("operation")) if spot.order else offset
        order = (key or b"").decode(errors="replace")
        order = order if order in ORDERS else ORDERS[0]
        if wish.fault == "other order":
            order = ORDERS[(ORDERS.index(order) + 1) % len(ORDERS)]
        says = SAYINGS[wish.saying]
        control = Control(
            id=self._control_id(wish.id, partition, key),
            topic_id="another" if wish.fault == "topic" else self.oracle.topic_id,
            partition=partition + (wish.fault == "partition"),
            offset={
                "itself": self._ends[partition], "ahead": self._ends[partition] + 1,
                "none": self._gap(partition),
            }.get(wish.fault, offset),
            if_last=None if wish.sight == "not said" else max(0, (last or 0) + {"old": -1, "ahead": 1}.get(wish.sight, 0)),
            event=Event(order, says, "2026-02-02T00:00:00Z") if wish.repair else None,
            operation=more.get("operation"),
        )  # fmt: skip
        if wish.fault == "key":
            key = b"zz" if key is None else None
        what, value = self._spoilt(control, wish.fault, more.get("successor"))
        bug = UNAPPLICABLE.encode() in value or (UNDECODABLE.encode() in value and what is control)
        self.put(Logged(partition, -1, key, home_of(key), value, -1, what, bug=bug))

    def _spoilt(self, control: Control, fault: str, successor: str | None) -> tuple[Control | str, bytes]:
        """Give what a control decodes to, and its value."""
        value: dict[str, Any] = {
            name: said
            for name, said in control._asdict().items()
            if name in ("topic_id", "partition", "offset", "if_last", "operation") and said is not None
        }
        value |= {"type": "message.discarded", "event_id": control.id, "author": "mira", "reason": str(self._next())}
        what: Control | str = control
        if control.event is not None:
            mended = wire(control.event, uuid(1 + self._number % 5))
            if fault == "no event":
                mended["type"], what = "order.lost", "invalid_control"
            if fault == "undecodable":
                mended["note"] = UNDECODABLE
            value |= {"type": "message.repaired", "event": mended}
            if control.if_last is None:
                what = "invalid_control" if what is control else what
        elif successor is not None:
            value |= {"successor": successor}
        if fault == "no author":
            value["author"], what = " ", "invalid_control"
        if fault == "unapplicable":
            value["note"] = UNAPPLICABLE
        if fault == "unreadable":
            what = "unreadable_record"
        return what, _bytes(value)

    def _control_id(self, whose: str, partition: int, key: bytes | None) -> str:
        ids = [
            spot.record.what.id
            for spot in self.laid
            if spot.place[1] == partition and spot.record.key == key and isinstance(spot.record.what, Control)
        ]
        if whose == "the last" and ids:
            return ids[-1]
        return uuid(self._next() % 3 + 1 if whose == "an event's" else self._next())

    def _gap(self, partition: int) -> int:
        there = {spot.place[2] for spot in self.laid if spot.place[1] == partition}
        return max(set(range(self._ends[partition])) - there)

    def _next(self) -> int:
        self._number += 1
        return self._number


def _bytes(value: object) -> bytes:
    return json.dumps(value).encode()


def authored(wishes: Sequence[Wish]) -> Author:
    author = Author()
    for wish in wishes:
        author.do(wish)
    return author


# How they are applied.


class Turn(NamedTuple):
    """Which partition the next record is read from, and what happens then."""

    partition: int
    then: str


turns = st.lists(
    st.builds(
        Turn,
        partition=st.integers(0, 3),
        then=st.sampled_from(
            ("read on",) * 6 + ("write", "write", "write", "kill", "kill before writing", "project twice")
        ),
    ),
    min_size=1,
    max_size=12,
)

#: All at once, partition after partition.
AT_ONCE = [Turn(0, "read on")]

#: So that an example ends.
KILLS_MAX = 6


class UnforeseenError(Exception):
    """A bug."""


@contextmanager
def bugs() -> Iterator[None]:
    """Have the decoder raise where a value says so."""
    decode_text = events.decode_text

    def raising(text: str) -> events.Event:
        if UNDECODABLE in text:
            raise UnforeseenError(UNDECODABLE)
        return decode_text(text)

    with ExitStack() as stack:
        for module in (events, controls):
            stack.enter_context(patch.object(module, "decode_text", raising))
        yield


class Killed(Exception):
    """The process is gone."""


class Process:
    """What lives in memory between two kills: a writer, a projection."""

    def __init__(self, folder: Path) -> None:
        self.writer = Writer(Settings(var_dir=str(folder)))

    def apply(self, topic_id: str, log: Sequence[Record | UnreadableRecord], turns: Iterator[Turn]) -> None:
        """Read the log from the stored positions to its end."""
        current = self.writer.epoch()
        assert current is not None
        projection = Projection(self.writer, topic_id, current[0])
        for batch, then in self._batches(log, turns):
            parts = [list(part) for _, part in groupby(batch, key=type)]
            todo = [(part, run) for part in parts for run in (runs(part) if isinstance(part[0], Record) else [part])]
            for at, (_, run) in enumerate(todo):
                last = at == len(todo) - 1
                self._run(projection, run, then if last else "write")
            if then.startswith("kill"):
                raise Killed

    def _batches(
        self, log: Sequence[Record | UnreadableRecord], turns: Iterator[Turn]
    ) -> Iterator[tuple[list[Record | UnreadableRecord], str]]:
        starts = {partition: position.next_offset for partition, position in self.writer.positions().items()}
        left: dict[int, list[Record | UnreadableRecord]] = defaultdict(list)
        for record in reversed(log):
            if record.offset >= starts.get(record.partition, 0):
                left[record.partition].append(record)
        batch: list[Record | UnreadableRecord] = []
        while any(left.values()):
            turn = next(turns)
            queues = [queue for _, queue in sorted(left.items()) if queue]
            batch.append(queues[turn.partition % len(queues)].pop())
            if turn.then != "read on" or not any(left.values()):
                yield batch, turn.then
                batch = []

    def _run(self, projection: Projection, run: Sequence[Any], then: str) -> None:
        """Do with one run what the consumer does: where it raises, each record alone."""
        if isinstance(run[0], UnreadableRecord):
            done = projection.skip_unreadable(run, 3)
        else:
            try:
                if then == "project twice":
                    self._project(projection, run)
                done = self._project(projection, run)
            except UnforeseenError as error:
                if len(run) > 1:
                    for record in run:
                        self._run(projection, [record], "write" if record is not run[-1] else then)
                    return
                done = projection.skip_unforeseen(run[0], error)
        if then != "kill before writing":
            self.writer.write(done.batch)

    @staticmethod
    def _project(projection: Projection, run: Sequence[Record]) -> Any:
        if any(UNAPPLICABLE.encode() in (record.value or b"") for record in run):
            raise UnforeseenError(UNAPPLICABLE)
        return projection.project(run)


def applied(lives: Sequence[tuple[str, Sequence[Record | UnreadableRecord]]], turns: Sequence[Turn]) -> Dump:
    """Apply every life of the log through a file, and give all that is in it."""
    left, kills = cycle(turns), 0
    with tempfile.TemporaryDirectory(prefix="healing") as folder, bugs():
        process = Process(Path(folder))
        for topic_id, log in lives:
            process.writer.open_epoch(Topic("order_events", topic_id, 6), "test")
            while True:
                try:
                    process.apply(topic_id, log, left)
                    break
                except Killed:
                    process.writer.close()
                    process = Process(Path(folder))
                    kills += 1
                    event("killed")
                if kills == KILLS_MAX:
                    left = cycle([turn._replace(then="write") for turn in turns])
        dump = Dump(process.writer)
        process.writer.close()
    return dump


class Dump:
    """All tables, but for what depends on arrival: row numbers, the time at which an epoch was opened."""

    def __init__(self, writer: Writer) -> None:
        self.tables: dict[str, list[dict[str, Any]]] = {}
        for (table,) in writer._connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall():
            cursor = writer._connection.execute(f"SELECT * FROM {table}")
            columns = [name for (name, *_) in cursor.description]
            rows = [dict(zip(columns, row, strict=True)) for row in cursor.fetchall()]
            for row in rows:
                row.pop("arrival", None)
                row.pop("opened_at", None)
                row.pop("trace", None)
            self.tables[table] = sorted(rows, key=lambda row: [repr(row.get(c)) for c in (*KEY, "order_id")])

    def at(self, table: str, *columns: str) -> dict[tuple[int, int, int], tuple[Any, ...]]:
        return {
            tuple(row[column] for column in KEY): tuple(row[column] for column in columns) for row in self.tables[table]
        }  # type: ignore[misc]


KEY = ("epoch", "partition", "offset")


def expect(dump: Dump, oracle: Oracle) -> None:
    """Assert that the tables are the model's."""
    spots = oracle.spots
    history = dump.at("history", "order_id", "outcome", "reason")
    assert history == {p: (s.order, s.outcome, s.reason) for p, s in spots.items() if s.stands}
    ids = {place: event_id for place, (event_id,) in dump.at("history", "event_id").items()}
    known = {p: s.stands_as for p, s in spots.items() if s.stands and isinstance(s.stands_as, str)}
    assert {place: ids[place] for place in known} == known
    skips = dump.at("skipped_messages", "state", "reason", "repairs", "opened_by", "placed", "key", "value")
    assert skips == {
        p: (
            s.state,
            s.skipped_as,
            s.repairs,
            s.opened_by,
            int(s.order is not None and not s.verdict),
            s.record.key,
            s.record.value,
        )
        for p, s in spots.items()
        if s.state
    }
    placed = {
        place: order
        for place, (order, is_placed) in dump.at("skipped_messages", "order_id", "placed").items()
        if is_placed
    }
    assert placed == {p: s.order for p, s in spots.items() if s.state and s.order}
    assert dump.at("controls", "verdict") == {p: (s.verdict,) for p, s in spots.items() if s.verdict}
    orders = {row["order_id"]: OrderRow(**row) for row in dump.tables["orders"]}
    assert {order_id: told(row) for order_id, row in orders.items()} == {
        order_id: (
            made.create.says[1], made.create.date, made.create.says[2], (int(made.create.says[2]) * 2 + 50) // 100,
            made.status, made.place, made.updated_at,
        )
        for order_id, made in oracle.orders.items()
    }  # fmt: skip


def told(row: OrderRow) -> tuple[object, ...]:
    place = (row.last_epoch, row.last_partition, row.last_offset)
    return (row.customer_id, row.order_date, row.total_minor, row.shipping_minor, row.status, place, row.updated_at)


# The properties.

EXAMPLES = int(os.environ.get("HYPOTHESIS_EXAMPLES", "0"))


def examples(number: int) -> settings:
    return settings(
        deadline=None,
        max_examples=EXAMPLES or number,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )


def check(author: Author, turns: Sequence[Turn]) -> None:
    for label in author.seen:
        event(label)
    for life in author.lives:
        note(repr(life))
    built = applied(author.lives, AT_ONCE)
    expect(built, author.oracle)
    read = applied(author.lives, turns)
    assert read.tables == built.tables


@pytest.mark.timeout(0 if EXAMPLES else 120)
@examples(250)
@given(wishes=wishes, turns=turns)
def test_repairs_come_to_what_the_rules_say(wishes: list[Wish], turns: list[Turn]) -> None:
    """However it is cut, interleaved and killed, and when it is built anew at once."""
    check(authored(wishes), turns)


@pytest.mark.timeout(0 if EXAMPLES else 120)
@examples(120)
@given(
    lives=st.lists(st.tuples(wishes, st.integers(0, 40), st.booleans(), st.booleans()), min_size=2, max_size=3),
    turns=turns,
)
def test_repairs_in_several_lives_of_the_log(
    lives: list[tuple[list[Wish], int, bool, bool]], turns: list[Turn]
) -> None:
    """Each control is judged within its own, and an order is the fold of all."""
    author = authored(lives[0][0])
    for number, (wishes, replayed, same_topic, where_they_were) in enumerate(lives[1:], 2):
        author.begin(author.oracle.topic_id if same_topic else f"topic-{number}")
        author.replay(replayed, where_they_were=where_they_were)
        for wish in wishes:
            author.do(wish)
    check(author, turns)
