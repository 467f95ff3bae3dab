"""Logs made at random: events of few orders and few ids, damaged, misplaced, repaired and given up, rightly or not.

`applied` has the real projection write what they come to; what that must be is for others to say.
"""

from __future__ import annotations

import json
from contextlib import closing
from typing import TYPE_CHECKING, Any, NamedTuple

from orderflow.broker import PARTITIONS, Topic, partition_of
from orderflow.broker.log_reader import Span
from orderflow.headers import NO_HEADERS
from orderflow.projection import Projection, runs
from orderflow.records import Record, UnreadableRecord
from orderflow.store.writer import Writer

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator, Sequence

    from orderflow.settings import Settings

TOPIC_ID = "topic-1"
ORDERS = ("a", "b", "c")

#: One header, whose name is not UTF-8.
ODD_HEADERS = b"\x02\x04x\xff\x02y"

Logged = Record | UnreadableRecord


def uuid(number: int) -> str:
    return f"00000000-0000-4000-8000-{number:012d}"


class Log(NamedTuple):
    """What `orderflow.broker.log_reader.LogReader` reads of a topic."""

    records: Sequence[Logged]

    def spans(self) -> dict[int, Span]:
        return {
            number: Span(min(offsets, default=0), max(offsets, default=-1) + 1)
            for number, offsets in (
                (n, [r.offset for r in self.records if r.partition == n]) for n in range(PARTITIONS)
            )
        }

    def read(self, number: int, begin: int, end: int) -> Iterator[Logged]:
        return (r for r in self.records if r.partition == number and begin <= r.offset < end)


class RandomLog:
    """Lays records, one after the other."""

    def __init__(self, rng: random.Random, size: int) -> None:
        self.records: list[Logged] = []
        self._rng = rng
        self._ids = max(6, size // 4)
        self._ends = [0] * PARTITIONS
        self._at_ms = 1_700_000_000_000
        for number in range(size):
            self._lay(10_000 + rng.randrange(size), rng.choices("edmuc", (50, 14, 6, 2, 28))[0], number)

    def _lay(self, control_id: int, kind: str, number: int) -> None:
        rng, order = self._rng, self._rng.choice(ORDERS)
        key, home = order.encode(), partition_of(order.encode())
        if kind == "e":
            self._put(home, key, self._event(order))
        elif kind == "d":
            self._put(home, key, self._damaged(order), odd=rng.random() < 0.1)
        elif kind == "m":
            other = rng.choice(ORDERS)
            at, name, said = rng.choice([(home, None, order), (number % PARTITIONS, key, order), (home, key, other)])
            self._put(at, name, self._event(said))
            self._put(number % PARTITIONS, rng.choice((b"", b"\x00", b"k\xff", key)), b"{")
        elif kind == "u":
            for _ in range(rng.randint(1, 3)):
                self.records.append(UnreadableRecord(home, self._ends[home], "CorruptRecordError: a checksum"))
                self._ends[home] += 1
        else:
            self._control(home, key, control_id)

    def _put(self, partition: int, key: bytes | None, value: bytes | None, *, odd: bool = False) -> None:
        rng = self._rng
        self._at_ms += rng.randint(0, 3)
        self._ends[partition] += rng.random() < 0.03  # a gap, as transactions leave them
        headers, damage = (ODD_HEADERS, "a header's name") if odd else (NO_HEADERS, None)
        record = Record(partition, self._ends[partition], key, value, headers, self._at_ms, damage)
        self.records.append(record)
        self._ends[partition] += 1

    def _event(self, order: str) -> bytes:
        rng = self._rng
        event_id = rng.choice((None, uuid(rng.randint(1, self._ids)), uuid(rng.randint(1, self._ids))))
        said: dict[str, Any] = {"order_id": order} | ({} if event_id is None else {"event_id": event_id})
        if rng.random() < 0.7:
            status = rng.choice(("pending", "shipped"))
            return json.dumps(said | {"type": "order.status_changed", "status": status}).encode()
        quantity = rng.randint(1, 3)
        cart = {
            "orderId": order, "customerId": rng.choice(("c-1", "c-2")), "currency": "EUR",
            "orderDate": rng.choice(("2026-01-02T03:04:05Z", "2026-01-02T03:04:05.5+02:00")),
            "items": [{"itemId": "i", "quantity": quantity, "price": 10.25}], "totalAmount": 10.25 * quantity,
        }  # fmt: skip
        return json.dumps(said | {"type": "order.created", "order": cart}).encode()

    def _damaged(self, order: str) -> bytes | None:
        named = {"event_id": uuid(self._rng.randint(1, self._ids)), "order_id": order}
        return self._rng.choice(
            (
                None, b"{", b"[]", b"\xff", b'{"type":"x"}', b'{"type":"message.repaired"}',
                json.dumps(named).encode(),
                json.dumps(named | {"type": "x"}).encode(),
                json.dumps(named | {"type": "order.status_changed", "status": "lost"}).encode(),
                json.dumps(named | {"type": "message.discarded"}).encode(),
            )
        )  # fmt: skip

    def _control(self, home: int, key: bytes, number: int) -> None:
        rng = self._rng
        mine = [r for r in self.records if r.partition == home]
        named = rng.choice(mine) if mine and rng.random() < 0.95 else None
        key_ = named.key if isinstance(named, Record) and rng.random() < 0.95 else key
        last = max((r.offset for r in mine if isinstance(r, Record) and r.key == key_), default=0)
        offset = named.offset if named else rng.randint(0, self._ends[home] + 1)
        said: dict[str, Any] = {
            "type": "message.discarded", "event_id": uuid(number), "partition": home, "offset": offset, "author": "x",
            "topic_id": rng.choices((TOPIC_ID, "other"), (97, 3))[0],
        }  # fmt: skip
        if rng.random() < 0.4:
            said["operation"] = uuid(rng.randint(20_000, 20_002))
        if rng.random() < 0.6:
            order = key_.decode() if key_ and key_.isascii() and rng.random() < 0.9 else rng.choice(ORDERS)
            said |= {"type": "message.repaired", "event": json.loads(self._event(order))}
        if said["type"] == "message.repaired" or rng.random() < 0.4:
            said["if_last"] = last if rng.random() < 0.8 else rng.randint(0, self._ends[home])
        value = json.dumps(said).encode()
        self._put(home, key_, value, odd=rng.random() < 0.02)
        if rng.random() < 0.15:
            self._put(home, key_, value + b" " * rng.randint(0, 1))


def applied(settings: Settings, lives: Sequence[Sequence[Logged]], rng: random.Random, failing: float = 0.0) -> None:
    """Have the projection write what records come to, life by life; so many of them meet an error in the last one."""
    with closing(Writer(settings)) as writer:
        for number, records in enumerate(lives, start=1):
            epoch = writer.open_epoch(Topic(settings.topic, TOPIC_ID, PARTITIONS), "random")
            projection = Projection(writer, TOPIC_ID, epoch)
            _apply(writer, projection, records, rng, failing if number == len(lives) else 0.0)


def _apply(
    writer: Writer, projection: Projection, records: Sequence[Logged], rng: random.Random, failing: float
) -> None:
    batch: list[Record] = []

    def flush() -> None:
        for run in runs(batch):
            writer.write(projection.project(run).batch)
        batch.clear()

    for record in records:
        if isinstance(record, UnreadableRecord):
            flush()
            writer.write(projection.skip_unreadable([record], 3).batch)
        elif rng.random() < failing:
            flush()
            bare = rng.random() < 0.2
            skip = projection.skip_bare if bare else projection.skip_unforeseen
            writer.write(skip(record, ZeroDivisionError("a bug")).batch)
        else:
            batch.append(record)
            if rng.random() < 0.1:
                flush()
    flush()
