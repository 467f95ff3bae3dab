"""A topic's records, made at random from a seed, each with what must come of it.

Nothing here asks orderflow's decoder. Makers, functions that add one bad record each, are in the modules beside.
"""

from __future__ import annotations

import json
import random
import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from orderflow.broker import PARTITIONS, partition_of
from tests.support.raw_batches import Header, Raw

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from tests.support.topic import Place

ORDERS, EVENTS_EACH = 120, 20

STATUSES = ("new", "pending", "confirmed", "shipped", "delivered", "cancelled")
CURRENCIES = ("USD", "EUR", "GBP", "AUD", "CAD", "ILS")

MALFORMED, INVALID, UNKNOWN_TYPE = "malformed_json", "invalid_event", "unknown_type"
KEY_MISMATCH, UNKNOWN_ORDER, DUPLICATE_CREATE = "key_mismatch", "unknown_order", "duplicate_create"
INVALID_CONTROL, UNREADABLE = "invalid_control", "unreadable_record"

Json = dict[str, Any]

#: Adds one bad record, or one that only looks like it.
Maker = Callable[["Fuzz"], None]

#: Values that are no business of the decoder's.
IGNORED: tuple[Any, ...] = (
    json.loads("[" * 400 + '"message.repaired"' + "]" * 400), "back\\slash \\u0041 \u0000",
    10**4_000, 1e300, None, {"type": "message.discarded"}, "\x7f" * 50,
)  # fmt: skip


class Sent(NamedTuple):
    """A record and what must come of it: a skip for one of ``reasons``, or without any of these ``outcome``.

    That is one of history's, or the verdict on a control. Records with the same ``damage`` are one batch, damaged in
    that way; of those that are ``lost`` with it only the place is known.
    """

    raw: Raw
    reasons: frozenset[str]
    outcome: str = ""
    state: str = "open"
    damage: str = ""
    lost: bool = False


@dataclass
class Made:
    """An order, the values of its events that are still to be sent, and of those that were."""

    order_id: str
    cents: int
    coming: list[bytes]
    sent: list[bytes] = field(default_factory=list)
    status: str = "new"

    @property
    def key(self) -> bytes:
        return self.order_id.encode()

    @property
    def partition(self) -> int:
        return partition_of(self.key)

    def next(self) -> bytes:
        self.sent.append(self.coming.pop(0))
        self.status = json.loads(self.sent[-1]).get("status", "new")
        return self.sent[-1]


class Fuzz:
    """The records of a topic, partition by partition: what stands at an index is at that offset."""

    def __init__(self, seed: int, topic_id: str) -> None:
        self.rng = random.Random(seed)  # noqa: S311 (to be repeated, not to keep a secret)
        self.topic_id = topic_id
        self.logs: list[list[Sent]] = [[] for _ in range(PARTITIONS)]
        self.names = 0
        #: How often each maker was called.
        self.called: Counter[str] = Counter()
        self.orders = [self._order() for _ in range(ORDERS)]
        #: Orders that repairs have made.
        self.mended: list[Made] = []
        #: Skips that are open and lie in the history of an order that never comes to be.
        self.open: list[Place] = []
        #: Controls that decode, each the first with its id.
        self.controls: list[tuple[int, bytes | None, Json]] = []

    def fill(self, makers: Mapping[Maker, float], bad: int, damages: Collection[str] = ()) -> None:
        """Make all records: each order's events in their sequence, ``bad`` others and damaged batches between.

        ``makers`` have weights: how often each is called, beside the others. ``damages`` are those of the batches.
        """
        turns: list[Made | Maker | str] = [order for order in self.orders for _ in order.coming]
        turns += self.rng.choices(list(makers), list(makers.values()), k=bad)
        turns += damages
        self.rng.shuffle(turns)
        for turn in turns:
            if isinstance(turn, Made):
                self.put(turn.partition, turn.key, turn.next(), outcome="applied")
            elif isinstance(turn, str):
                self._damaged_batch(turn)
            else:
                turn(self)
                self.called[turn.__name__] += 1

    def put(
        self,
        partition: int,
        key: bytes | None,
        value: bytes | None,
        *reasons: str,
        headers: list[Header] | None = None,
        outcome: str = "",
    ) -> int:
        """Add a record; its offset."""
        raw = Raw(key, value, self.headers() if headers is None else headers, self.rng.randrange(256), self._later())
        self.logs[partition].append(Sent(raw, frozenset(reasons), outcome))
        return len(self.logs[partition]) - 1

    def bad(self, value: bytes | None, *reasons: str) -> None:
        """Add a record with a bad value where a good one could be."""
        order_id = self.order_id()
        offset = self.put(partition_of(order_id.encode()), order_id.encode(), value, *reasons)
        if reasons == (MALFORMED,) and order_id.startswith("never"):
            self.open.append((partition_of(order_id.encode()), offset))

    def settle(self, place: Place, state: str) -> None:
        """Take note of what a control made of a skip."""
        self.open.remove(place)
        partition, offset = place
        self.logs[partition][offset] = self.logs[partition][offset]._replace(state=state)

    def _damaged_batch(self, kind: str) -> None:
        partition = self.rng.randrange(PARTITIONS)
        log = self.logs[partition]
        count, first = self.rng.randint(1, 4), len(log)
        for number in range(count):
            raw = Raw(b"key-%d" % number, b"{" + self.blob(40))
            lost = number == count - 1 or kind != "last record"
            log.append(Sent(raw, frozenset({UNREADABLE if lost else MALFORMED}), "", "open", f"{kind} {first}", lost))

    # What records are made of.

    def blob(self, most: int) -> bytes:
        return self.rng.randbytes(self.rng.randint(0, most))

    def id(self) -> str:
        return str(uuid.UUID(int=self.rng.getrandbits(128), version=4))

    def name(self, prefix: str) -> str:
        """A new order's id; not all are ASCII."""
        self.names += 1
        return f"{prefix}-{self.names}" + self.rng.choice(("", "", "-größe", "-☃", "-😀", " spaced", " \\"))

    def order_id(self) -> str:
        """An order that may be there, or one that never comes to be."""
        return self.rng.choice(self.orders).order_id if self.rng.random() < 0.5 else self.name("never")

    def created(self) -> Made | None:
        """An order that has begun; None where one does not find any."""
        return next((order for order in self.rng.sample(self.orders, 20) if order.sent), None)

    def headers(self) -> list[Header]:
        """Headers whose names are UTF-8, however odd."""
        odd = (b"traceparent", b"ce_id", b"", "größe".encode(), "☃😀".encode(), b"a\x00b", b"\x7f\n", b"x" * 300)
        count = 200 if self.rng.random() < 0.002 else self.rng.choice((0, 0, 0, 1, 2, 3, 8))
        return [(self.rng.choice(odd), self.rng.choice((None, b"", self.blob(40)))) for _ in range(count)]

    def _later(self) -> int:
        return self.rng.choice((0, 0, 1, -5, 2**40, -(2**40), self.rng.randrange(10_000)))

    def _order(self) -> Made:
        order_id = self.name("good")
        create, cents = self.create(order_id)
        events = [create, *(self.change(order_id) for _ in range(EVENTS_EACH - 1))]
        for event in events:
            if self.rng.random() < 0.2:
                del event["event_id"]
            if self.rng.random() < 0.2:
                event["ignored"] = self.rng.choice(IGNORED)
        return Made(order_id, cents, [self.json(event) for event in events])

    def create(self, order_id: str) -> tuple[Json, int]:
        """A valid event that creates an order, and the total in cents."""
        items: list[dict[str, Any]] = [
            {"itemId": f"i-{number}", "quantity": self.rng.randint(1, 9), "price": self.rng.randint(1, 99_999) / 100}
            for number in range(self.rng.randint(1, 4))
        ]
        cents = sum(round(item["price"] * 100) * item["quantity"] for item in items)
        order = {
            "orderId": order_id, "customerId": self.rng.choice(("c", "größe", "c" * 128)),
            "orderDate": self.rng.choice(("2026-01-02T03:04:05Z", "2026-01-02T03:04:05.123456789+14:00")),
            "items": items, "totalAmount": cents / 100, "currency": self.rng.choice(CURRENCIES),
        }  # fmt: skip
        return {"type": "order.created", "order_id": order_id, "event_id": self.id(), "order": order}, cents

    def change(self, order_id: str) -> Json:
        """A valid event that sets an order's status."""
        status = self.rng.choice(STATUSES)
        return {"type": "order.status_changed", "order_id": order_id, "event_id": self.id(), "status": status}

    def event(self, order_id: str = "") -> Json:
        order_id = order_id or self.order_id()
        return self.change(order_id) if self.rng.random() < 0.5 else self.create(order_id)[0]

    def json(self, event: object) -> bytes:
        return json.dumps(event, ensure_ascii=self.rng.random() < 0.5).encode()

    def control(self, partition: int, offset: int, order_id: str, kind: str = "") -> Json:
        """A control whose form is right; the order is that of the event which a repair brings."""
        kind = kind or self.rng.choice(("message.repaired", "message.discarded"))
        said = {"type": kind, "event_id": self.id(), "topic_id": self.topic_id, "partition": partition}
        said |= {"offset": offset, "author": "fuzz", "reason": "größe", "operation": self.id()}
        return said | {"if_last": 0, "event": self.event(order_id)} if kind == "message.repaired" else said
