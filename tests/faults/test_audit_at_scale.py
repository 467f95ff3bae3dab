"""No false alarm: 100,000 records of all kinds, repaired and given up, and the audit has nothing to say."""

from __future__ import annotations

import json
import os
import random
import secrets
from collections import defaultdict
from typing import TYPE_CHECKING

import pytest

from orderflow.broker import PARTITIONS, partition_of
from orderflow.broker.raw import RawRecord
from tests.support.audited import Audited, control, event
from tests.support.messages import NotUtf8
from tests.support.random_log import uuid

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import Figures
    from tests.support.broker import Broker
    from tests.support.topic import Place

RECORDS, ORDERS = 100_000, 21_500

#: One in so many orders has its create destroyed, so that all its updates are skipped.
DESTROYED = 20

#: The share of the damaged orders that somebody looks at, each of two times.
ASKED_FOR = 0.15

REASONS = {
    "malformed_json", "invalid_event", "unknown_type", "missing_key", "key_mismatch", "wrong_partition",
    "unreadable_record", "unknown_order", "duplicate_create", "event_id_conflict", "invalid_control",
}  # fmt: skip


class Shop:
    """Sends what happens to many orders, and remembers where it went."""

    def __init__(self, audited: Audited, rng: random.Random) -> None:
        self.audited = audited
        self.rng = rng
        self.sent = 0
        #: Of each order the places of what could not be applied, with what mends it, and its last record.
        self.damaged: dict[str, list[tuple[Place, bytes]]] = defaultdict(list)
        self.last: dict[str, int] = {}
        self._ids = 0

    def next_id(self) -> str:
        self._ids += 1
        return uuid(self._ids)

    def send(self, records: list[tuple[RawRecord, str, bytes | None]]) -> None:
        """Send records, each with its order and, where it will be skipped, what would mend it."""
        for start in range(0, len(records), 10_000):
            chunk = records[start : start + 10_000]
            places = self.audited.send([record for record, _, _ in chunk])
            for place, (record, order, mended) in zip(places, chunk, strict=True):
                if mended is not None:
                    self.damaged[order].append((place, mended))
                if record.key == order.encode() and place[0] == partition_of(record.key) and not record.headers:
                    self.last[order] = place[1]
            self.sent += len(chunk)

    def happenings(self, order: str) -> Iterator[tuple[RawRecord, str, bytes | None]]:
        """What comes of one order: a create, and updates, some of which are as they should not be."""
        key, first = order.encode(), event(order, None, self.next_id())
        if self.rng.randrange(DESTROYED) == 0:
            yield RawRecord(first[:40], key), order, first
        else:
            yield RawRecord(first, key), order, None
        for status in ("pending", "confirmed", "shipped"):
            whole = event(order, status, self.next_id())
            yield RawRecord(whole, key), order, None
            if self.rng.random() < 0.04:
                yield RawRecord(whole, key), order, None
            if self.rng.random() < 0.16:
                yield self._mishap(order, key, whole)

    def _mishap(self, order: str, key: bytes, whole: bytes) -> tuple[RawRecord, str, bytes | None]:
        """A record that will not be applied, and what would mend it where it has a place."""
        home, number = partition_of(key), self.next_id()
        other = json.loads(whole) | {"status": "cancelled"}
        record = self.rng.choice(
            (
                RawRecord(whole.replace(b"e", b"\xff"), key),
                RawRecord(event(order, "lost", number), key),
                RawRecord(json.dumps({"type": "order.moved", "event_id": number}).encode(), key),
                RawRecord(event(order, None, number), key),
                RawRecord(json.dumps(other).encode(), key),
                RawRecord(whole, None, (), home),
                RawRecord(whole, b"x"),
                RawRecord(whole, key, (), (home + 1) % PARTITIONS),
                RawRecord(whole, key, ((NotUtf8("x"), b""),)),
            )
        )
        return record, order, event(order, "delivered")

    def controls(self) -> Iterator[tuple[RawRecord, str, bytes | None]]:
        """A repair or a discard of what was damaged, in some orders; some are too late, or name nothing."""
        for order, found in self.damaged.items():
            if self.rng.random() > ASKED_FOR:
                continue
            (partition, offset), mended = self.rng.choice(found)
            key = None if self.rng.random() < 0.02 else order.encode()
            more = {"if_last": self.last.get(order, 0) + (self.rng.random() < 0.05)}
            topic_id = self.audited.topic.topic_id
            if self.rng.random() < 0.6:
                value = control(topic_id, (partition, offset), self.next_id(), mended, **more)
            else:
                value = control(topic_id, (partition, offset), self.next_id())
            yield RawRecord(value, key, (), partition), order, None
            if self.rng.random() < 0.05:
                yield RawRecord(value, key, (), partition), order, None


@pytest.mark.faults
@pytest.mark.timeout(180)
def test_a_hundred_thousand_records_of_all_kinds_have_no_difference(broker: Broker, figures: Figures) -> None:
    """AUDIT_SEED repeats a run."""
    seed = int(os.environ.get("AUDIT_SEED") or secrets.randbits(32))
    shop = Shop(Audited(broker.settings()), random.Random(seed))  # noqa: S311 (to be repeated, not to keep a secret)
    orders = [f"order-{number}" for number in range(ORDERS)]
    shop.send([(RawRecord(event(order, "pending"), order.encode()), order, None) for order in orders[::50]])
    shop.send([one for order in orders for one in shop.happenings(order)])
    shop.send(list(shop.controls()))
    shop.send([(RawRecord(event(order, "shipped"), order.encode()), order, None) for order in orders[::7]])
    shop.send(list(shop.controls()))
    assert shop.sent >= RECORDS
    shop.audited.apply()

    findings, tally = shop.audited.audit()

    figures("audit at scale", seed=seed, records=tally.records, per_second=tally.per_second, **tally.skips)
    assert findings.total == 0, f"AUDIT_SEED={seed}: {findings.kept[:3]}"
    assert tally.records == shop.sent
    assert set(tally.skipped) >= REASONS
    assert {*tally.skips, *tally.controls} >= {
        "open", "repaired", "healed", "discarded", "accepted", "stale", "superseded", "duplicate", "invalid_control",
    }  # fmt: skip
    assert min(tally.skips.values()) >= 100
    assert tally.duplicates >= 100
