"""Tens of thousands of bad records between good ones, as bytes that no client would write, read by a real worker.

Each bad record is made by a function that knows what must come of it; nothing here asks orderflow's decoder. A run
tells its seed, and is repeated with ``FUZZ_SEED=<seed>``.
"""

from __future__ import annotations

import base64
import json
import os
import random
import secrets
import struct
import time
import uuid
from collections import Counter
from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from orderflow.broker import PARTITIONS, partition_of
from orderflow.events import SkipReason
from tests.support import store
from tests.support.broker import answers
from tests.support.raw_batches import CODECS, FRONT, Header, Raw, RawSocket, Refused, Segment, batch, sealed
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orderflow.stack import Stack
    from tests.conftest import Figures, MakeStack
    from tests.support.topic import Place

pytestmark = [pytest.mark.faults, pytest.mark.timeout(240)]

WORKER = "order-consumer"
PROGRAMS = ("kafka", WORKER)

BAD, ORDERS, EVENTS_EACH = 22_000, 120, 20

#: What a batch of several records may hold; a broker takes 1 MiB.
BATCH_BYTES = 500_000

#: From the last record sent to the last one applied.
CATCH_UP_S = 60.0

STATUSES = ("new", "pending", "confirmed", "shipped", "delivered", "cancelled")
CURRENCIES = ("USD", "EUR", "GBP", "AUD", "CAD", "ILS")

MALFORMED, INVALID, UNKNOWN_TYPE = "malformed_json", "invalid_event", "unknown_type"
KEY_MISMATCH, UNKNOWN_ORDER, DUPLICATE_CREATE = "key_mismatch", "unknown_order", "duplicate_create"
INVALID_CONTROL, UNREADABLE = "invalid_control", "unreadable_record"

#: Levels of nesting that nobody reads.
DEEP = 100_000

#: Kafka's number of the error that a broker gives for partitions which it does not lead.
NOT_LEADER = 6

Json = dict[str, Any]


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
        self.orders = [self._order() for _ in range(ORDERS)]
        #: Orders that repairs have made.
        self.mended: list[Made] = []
        #: Skips that are open and lie in the history of an order that never comes to be.
        self.open: list[Place] = []
        #: Controls that decode, each the first with its id.
        self.controls: list[tuple[int, bytes | None, Json]] = []

    def fill(self, bad: int, damaged: int = 0) -> None:
        """Make all records: each order's events in their sequence, and ``bad`` ones and damaged batches between."""
        turns: list[Made | str] = [order for order in self.orders for _ in order.coming]
        turns += ["bad"] * bad + [kind for kind in DAMAGES for _ in range(damaged)]
        self.rng.shuffle(turns)
        makers = list(MAKERS)
        for turn in turns:
            if turn == "bad":
                (make,) = self.rng.choices(makers, MAKERS.values())
                make(self)
            elif isinstance(turn, str):
                self._damaged_batch(turn)
            else:
                self.put(turn.partition, turn.key, turn.next(), outcome="applied")

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
            raw = Raw(b"k%d" % number, b"{" + self.bytes(60), self.headers())
            lost = number == count - 1 or kind != "last record"
            log.append(Sent(raw, frozenset({UNREADABLE if lost else MALFORMED}), "", "open", f"{kind} {first}", lost))

    # What records are made of.

    def bytes(self, most: int) -> bytes:
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
        return [(self.rng.choice(odd), self.rng.choice((None, b"", self.bytes(40)))) for _ in range(count)]

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
        items = [
            {"itemId": f"i-{number}", "quantity": self.rng.randint(1, 9), "price": self.rng.randint(1, 99_999) / 100}
            for number in range(self.rng.randint(1, 4))
        ]
        cents = sum(round(item["price"] * 100) * int(item["quantity"]) for item in items)  # type: ignore[operator]
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


#: Values that are no business of the decoder's.
IGNORED: tuple[Any, ...] = (
    json.loads("[" * 400 + '"message.repaired"' + "]" * 400), "back\\slash \\u0041 \u0000",
    10**4_000, 1e300, None, {"type": "message.discarded"}, "\x7f" * 50,
)  # fmt: skip


def reasons_of(value: bytes, *otherwise: str) -> tuple[str, ...]:
    """Say by the standard library alone whether a value is JSON: malformed, or what it is otherwise."""

    def refuse(constant: str) -> None:
        raise ValueError(constant)

    try:
        found = json.loads(value.decode(), parse_int=len, parse_float=len, parse_constant=refuse)
        json.dumps(found, ensure_ascii=False).encode()  # a lone surrogate, wherever it stands, has no UTF-8
    except ValueError:
        return (MALFORMED,)
    return otherwise


# What is no JSON.


def truncated(fuzz: Fuzz) -> None:
    value = fuzz.json(fuzz.event())
    fuzz.bad(value[: fuzz.rng.randrange(len(value))], MALFORMED)


def noise(fuzz: Fuzz) -> None:
    value = fuzz.bytes(400)
    fuzz.bad(value, *reasons_of(value, INVALID))


def no_value(fuzz: Fuzz) -> None:
    fuzz.bad(fuzz.rng.choice((None, b"", b" \n")), MALFORMED)


def other_encoding(fuzz: Fuzz) -> None:
    """A byte order mark, UTF-16, UTF-32; Latin-1 in the type, in a member's name, and elsewhere."""
    event = fuzz.event("x") | {"note": "größe \\ \n"}
    event[fuzz.rng.choice(("type", "order_id", "note", "größe"))] = "message.größe"
    encoding = fuzz.rng.choice(("utf-8-sig", "utf-16", "utf-16-le", "utf-32", "latin-1", "latin-1", "latin-1"))
    fuzz.bad(json.dumps(event, ensure_ascii=False).encode(encoding, errors="replace"), MALFORMED)


#: What some decoders take for JSON.
ALMOST = (
    "NaN", "Infinity", "-Infinity", "01", "+1", ".5", "1.", "1e", "-", "0x10", "1_000", "nul", "True", "undefined", "",
    "'a'", '"a', '"\\x41"', '"\\u12"', '"\\v"', '"a\tb"', '"\\ud800"', '"\\udc00"', '"\\ud800\\u0041"',
    '"\\udc00\\ud800"', "[1,]", "[1 2]", "[1", '{"a":1,}', '{"a" 1}', "{1:2}", "{a:1}", '{"a":1', "1 /* one */",
    "1 // one", "\xa01", "\x0b1", '"a" "b"', "1,,", '{"\\ud800": 1}', "\ufeff1",
)  # fmt: skip


def almost_json(fuzz: Fuzz) -> None:
    """In the place of a member that counts, or of one that is ignored."""
    event = fuzz.event() | {"ignored": 0}
    event[fuzz.rng.choice(list(event))] = "@@"
    fuzz.bad(json.dumps(event).replace('"@@"', fuzz.rng.choice(ALMOST)).encode(), MALFORMED)


def trailing(fuzz: Fuzz) -> None:
    value = fuzz.json(fuzz.event())
    fuzz.bad(value + fuzz.rng.choice((b"{}", b"x", b",", b"}", b"\x00", b"\xff", value)), MALFORMED)


def deep(fuzz: Fuzz) -> None:
    """Nested a hundred thousand times, alone or in any member of an event or a control."""
    opening, inner, closing = fuzz.rng.choice(((b"[", b"", b"]"), (b'{"a":', b"1", b"}"), (b'[{"a":', b"1", b"}]")))
    value = opening * DEEP + fuzz.rng.choice((b"", inner + closing * DEEP, b'"' + b'\\"' * 60_000))
    if fuzz.rng.random() < 0.7:
        event = fuzz.rng.choice((fuzz.event(), fuzz.control(0, 0, "x"), {"type": "x"}))
        event[fuzz.rng.choice((*event, "ignored"))] = "@@"
        value = json.dumps(event).encode().replace(b'"@@"', value)
    fuzz.bad(value, MALFORMED)


# What is JSON and no event.


def no_object(fuzz: Fuzz) -> None:
    values = (None, True, 7, -1.5, "x", [], {}, [{"type": "order.created"}], "order.created", 10**400, {"a": {"b": 1}})
    fuzz.bad(fuzz.json(fuzz.rng.choice(values)), INVALID)


class Bare(str):
    """Text that is written into JSON without quotes."""

    __slots__ = ()


def dumped(event: Json, wrong: object) -> bytes:
    """Write an event in which a value may stand that Python has no number for."""
    text = json.dumps(event)
    return (text.replace(json.dumps(wrong), wrong) if isinstance(wrong, Bare) else text).encode()


#: Values that no member takes.
NEVER: tuple[Any, ...] = (
    [], {}, [1], True, Bare("1e400"), Bare("-1e400"), Bare("9" * 400), Bare("9" * 20_000), Bare("1e" + "9" * 400),
    Bare("-" + "9" * 400 + ".5"), Bare("1" + "0" * 400 + "e-2"), "\x00", "\u0085", "", " ", "x" * 300,
)  # fmt: skip

EVENT_WRONG: dict[str, tuple[Any, ...]] = {
    "order_id": (7, None),
    "event_id": (7, "x", "2f1f4f0f-6b52-4c0f-8d5e-3F2E9B1C6A77", "2f1f4f0f6b524c0f8d5e3f2e9b1c6a77"),
    "occurred_at": (7, "yesterday", "2026-01-02T03:04:05", "2026-02-30T00:00:00Z", "2026-01-02T24:00:00Z"),
}

#: Of each event: where its members stand, and what else is wrong there.
WRONG: dict[str, dict[str, tuple[Any, ...]]] = {
    "order.status_changed": EVENT_WRONG | {"status": (7, None, "lost", "NEW", "shipped ")},
    "order.created": EVENT_WRONG
    | {
        "order": (7, None, "x"),
        "order.orderId": (7, None, "other"),
        "order.customerId": (7, None),
        "order.orderDate": (7, None, "2026-01-02T03:04:05", "0000-01-01T00:00:00Z", "9999-12-31T23:59:60Z"),
        "order.items": (7, None, [None], [[]], [{}], ["x"], [{"itemId": "i", "quantity": 1, "price": 1}] * 101),
        "order.totalAmount": ("1.50", None, 0, -1, 0.001, Bare("1e12"), Bare("1234567890123456789012345")),
        "order.currency": (7, None, "EURO", "eur", "XXX"),
        "order.status": (7, None, "pending", "lost"),
        "order.items.0.itemId": (7, None),
        "order.items.0.quantity": ("2", None, 0, -1, 10_001, 1.5, Bare("2.0"), Bare("2e0"), 2**63, 2**64),
        "order.items.0.price": ("2.5", None, 0, -1, 0.001, 1_000_000.01, 2**64, Bare("1e-400"), Bare("0.010000001")),
    },
}


def wrong_member(fuzz: Fuzz) -> None:
    event = fuzz.event()
    members = WRONG[event["type"]]
    path = fuzz.rng.choice(list(members))
    *parents, last = path.split(".")
    at: Any = event
    for parent in parents:
        at = at[int(parent) if isinstance(at, list) else parent]
    at[last] = wrong = fuzz.rng.choice(NEVER + members[path])
    fuzz.bad(dumped(event, wrong), INVALID)


def missing_member(fuzz: Fuzz) -> None:
    event = fuzz.event()
    members = [(event, name) for name in event if name != "event_id"]
    if "order" in event:
        members += [(event["order"], name) for name in event["order"]]
        members += [(event["order"]["items"][0], name) for name in event["order"]["items"][0]]
    within, name = fuzz.rng.choice(members)
    del within[name]
    fuzz.bad(fuzz.json(event), INVALID)


def member_twice(fuzz: Fuzz) -> None:
    """The last one counts, and is wrong; or the type is there twice, and is another."""
    event = fuzz.event()
    other = {"order.created": "order.status_changed", "order.status_changed": "order.created"}[event["type"]]
    second = fuzz.rng.choice(('"order_id": 7', '"event_id": "x"', f'"type": "{other}"', '"occurred_at": []'))
    fuzz.bad(fuzz.json(event)[:-1] + b", " + second.encode() + b"}", INVALID)


def wrong_sum(fuzz: Fuzz) -> None:
    event, cents = fuzz.create(fuzz.order_id())
    event["order"]["totalAmount"] = (cents + fuzz.rng.choice((-1, 1, 100))) / 100
    fuzz.bad(fuzz.json(event), INVALID)


def other_type(fuzz: Fuzz) -> None:
    kinds = ("order.deleted", "", "ORDER.CREATED", "order.created ", "message.repaired2", "a\x00b", "☃", "u" * 50_000)
    event = fuzz.rng.choice((fuzz.event(), {"order_id": 7, "offset": {}}))
    fuzz.bad(fuzz.json(event | {"type": fuzz.rng.choice(kinds)}), UNKNOWN_TYPE)


# Valid events that cannot take effect. Some have the id of an event that is still to come, and must not take it.


def coming(fuzz: Fuzz) -> tuple[Made, bytes]:
    """An order and the value of its next event, or of one that nobody sends."""
    order = fuzz.rng.choice(fuzz.orders)
    return order, order.coming[0] if order.coming else fuzz.json(fuzz.event(order.order_id))


def no_key(fuzz: Fuzz) -> None:
    order, value = coming(fuzz)
    fuzz.put(fuzz.rng.choice((order.partition, 0)), None, value, "missing_key")


def other_key(fuzz: Fuzz) -> None:
    order, value = coming(fuzz)
    key = order.key
    keys = (b"", key + b" ", key.upper(), b"\xff" + key, key[:-1], b"k" * 10_000, fuzz.order_id().encode(), b"\x00")
    key = fuzz.rng.choice([one for one in keys if one != order.key])
    fuzz.put(fuzz.rng.choice((order.partition, partition_of(key))), key, value, KEY_MISMATCH)


def other_partition(fuzz: Fuzz) -> None:
    order, value = coming(fuzz)
    fuzz.put((order.partition + fuzz.rng.randint(1, 5)) % PARTITIONS, order.key, value, "wrong_partition")


def update_of_nothing(fuzz: Fuzz) -> None:
    order_id = fuzz.name("never")
    key = order_id.encode()
    fuzz.put(partition_of(key), key, fuzz.json(fuzz.change(order_id)), UNKNOWN_ORDER)


def second_create(fuzz: Fuzz) -> None:
    order = fuzz.created()
    if order is not None:
        fuzz.put(order.partition, order.key, fuzz.json(fuzz.create(order.order_id)[0]), DUPLICATE_CREATE)


def taken_id(fuzz: Fuzz) -> None:
    """The id of an event that was applied, and other content; or the same, which is no skip."""
    order = fuzz.created()
    first = order and json.loads(fuzz.rng.choice(order.sent))
    if order is None or "event_id" not in first:
        return
    if fuzz.rng.random() < 0.3:
        first["occurred_at"] = "2026-01-02T03:04:05Z"
        fuzz.put(order.partition, order.key, fuzz.json(first), outcome="duplicate")
        return
    other = fuzz.change(order.order_id) if "order" in first else fuzz.create(order.order_id)[0]
    fuzz.put(order.partition, order.key, fuzz.json(other | {"event_id": first["event_id"]}), "event_id_conflict")


def mutant(fuzz: Fuzz) -> None:
    """A damaged copy of an event that would be skipped also when the damage does not matter."""
    order = fuzz.created() if fuzz.rng.random() < 0.5 else None
    order_id = order.order_id if order else fuzz.name("never")
    value = fuzz.json(fuzz.create(order_id)[0] if order else fuzz.change(order_id))
    otherwise = DUPLICATE_CREATE if order else UNKNOWN_ORDER
    value = mutated(fuzz.rng, value)
    key = order_id.encode()
    fuzz.put(partition_of(key), key, value, *reasons_of(value, INVALID, UNKNOWN_TYPE, KEY_MISMATCH, otherwise))


def mutated(rng: random.Random, value: bytes) -> bytes:
    """Flip some bits; or leave out, say twice or overwrite some bytes."""
    data = bytearray(value)
    start = rng.randrange(len(data))
    end = min(len(data), start + rng.randint(1, 12))
    kind = rng.choice(("flip", "flip", "flip", "cut", "twice", "noise", "zeros"))
    if kind == "flip":
        for _ in range(rng.choice((1, 1, 1, 2, 5))):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    elif kind == "cut":
        del data[start:end]
    elif kind == "twice":
        data[end:end] = data[start:end]
    else:
        data[start:end] = rng.randbytes(end - start) if kind == "noise" else bytes(end - start)
    return bytes(data)


def bad_header(fuzz: Fuzz) -> None:
    """A header's name that is not UTF-8, on whatever there is: also on a good event, and on a good control."""
    rng = fuzz.rng
    name = rng.choice((b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xc0\x80", b"\xf5\x80\x80\x80", b"ce_id\xff"))
    headers = [*fuzz.headers(), (name + b"." + fuzz.bytes(8), fuzz.bytes(9)), *fuzz.headers()]
    order, value = coming(fuzz)
    values = (value, value, fuzz.json(fuzz.control(order.partition, 0, order.order_id)), None, fuzz.bytes(90))
    fuzz.put(order.partition, rng.choice((order.key, None, b"")), rng.choice(values), UNREADABLE, headers=headers)


# Controls.

CONTROL_WRONG: dict[str, tuple[Any, ...]] = {
    "event_id": (7, None, "x", "2F1F4F0F-6B52-4C0F-8D5E-3F2E9B1C6A77"),
    "topic_id": (7, None),
    "partition": (-1, 2**31, "1", 1.5, None, Bare("1.0")),
    "offset": (-1, 2**63, "1", 1.5, None, Bare("0.0")),
    "author": (7, None, "\n", "x" * 201),
    "reason": (7, None, "x" * 2_001),
    "operation": (7, "x"),
    "occurred_at": (7, "yesterday", "2026-01-02T03:04:05"),
}
REPAIR_WRONG = CONTROL_WRONG | {
    "if_last": (-1, 2**63, "1", None),
    "event": (7, None, "text", {"type": "order.created"}, {"type": "message.repaired"}, {"type": 7}),
}
DISCARD_WRONG = CONTROL_WRONG | {"if_last": (-1, 2**63, "1"), "successor": (7, "x")}

#: Of `NEVER`, what a text for people may be.
PLAIN_TEXT = ("\x00", "\u0085", "", " ", "x" * 300)


def somewhere(fuzz: Fuzz) -> tuple[int, int, bytes | None]:
    """A place with a record whose key is known, and the key."""
    partition = fuzz.rng.randrange(PARTITIONS)
    log = fuzz.logs[partition]
    while not log or log[offset := fuzz.rng.randrange(len(log))].lost:
        no_value(fuzz)
    return partition, offset, log[offset].raw.key


def no_control(fuzz: Fuzz) -> None:
    """It has the type of a control, and a member is missing or wrong."""
    partition, offset, key = somewhere(fuzz)
    said = fuzz.control(partition, offset, "x")
    members = REPAIR_WRONG if said["type"] == "message.repaired" else DISCARD_WRONG
    name, wrong = fuzz.rng.choice(list(members)), None
    if name in said and name not in ("reason", "operation") and fuzz.rng.random() < 0.3:
        del said[name]
    else:
        never = [one for one in NEVER if not (name in ("topic_id", "author", "reason") and one in PLAIN_TEXT)]
        said[name] = wrong = fuzz.rng.choice([*never, *members[name]])
    value = dumped(said, wrong)
    if fuzz.rng.random() < 0.2:
        value = value.replace(b"message.", b"\\u006dessage\\u002E")
    fuzz.put(partition, key, value, INVALID_CONTROL)


def nowhere(fuzz: Fuzz) -> None:
    """A control whose form is right, and that names nothing it could act on."""
    partition, offset, key = somewhere(fuzz)
    said = fuzz.control(partition, offset, "x")
    own = len(fuzz.logs[partition])
    nonsense: Json = fuzz.rng.choice(
        (
            {"topic_id": fuzz.id()}, {"topic_id": fuzz.topic_id.upper()}, {"topic_id": "x"}, {"topic_id": "\x00"},
            {"partition": (partition + 1) % PARTITIONS}, {"partition": 6}, {"partition": 2**31 - 1},
            {"offset": own}, {"offset": own + 1}, {"offset": 2**63 - 1}, "key", "key", "event",
        )
    )  # fmt: skip
    if nonsense == "key":
        key = fuzz.rng.choice([one for one in (b"", None, b"\xff", fuzz.name("never").encode()) if one != key])
    elif nonsense == "event":
        said = fuzz.control(partition, offset, "never the order of a key", "message.repaired")
    else:
        said |= nonsense
    _control(fuzz, partition, key, said, INVALID_CONTROL)


def _control(fuzz: Fuzz, partition: int, key: bytes | None, said: Json, *reasons: str, verdict: str = "") -> None:
    fuzz.controls.append((partition, key, said))
    fuzz.put(partition, key, json.dumps(said).encode(), *reasons, outcome=verdict)


def control_again(fuzz: Fuzz) -> None:
    """The id of an earlier control: byte for byte it is a duplicate, else it is none."""
    if not fuzz.controls:
        return
    partition, key, said = fuzz.rng.choice(fuzz.controls)
    if fuzz.rng.random() < 0.3:
        fuzz.put(partition, key, json.dumps(said).encode(), outcome="duplicate")
    else:
        again = fuzz.rng.choice((said | {"author": "another"}, said | {"more": 1}, said | {"offset": 0, "reason": ""}))
        fuzz.put(partition, key, json.dumps(again).encode(), INVALID_CONTROL)


def mutant_control(fuzz: Fuzz) -> None:
    """A damaged copy of a control that names another log, so that it does nothing whatever the damage."""
    partition, offset, key = somewhere(fuzz)
    value = mutated(fuzz.rng, fuzz.json(fuzz.control(partition, offset, "x") | {"topic_id": fuzz.id()}))
    fuzz.put(partition, key, value, *reasons_of(value, INVALID, UNKNOWN_TYPE, INVALID_CONTROL))


def harmless_control(fuzz: Fuzz) -> None:
    """It is right, and too late; or it discards. None of these is a skip."""
    if fuzz.rng.random() < 0.4:
        order = fuzz.rng.choice(fuzz.orders)
        log = fuzz.logs[order.partition]
        applied = [at for at in range(max(0, len(log) - 300), len(log)) if log[at].raw.key == order.key]
        applied = [at for at in applied if log[at].outcome == "applied"]
        if applied:
            said = fuzz.control(order.partition, fuzz.rng.choice(applied), order.order_id)
            _control(fuzz, order.partition, order.key, said, verdict="superseded")
    elif fuzz.open:
        partition, offset = place = fuzz.rng.choice(fuzz.open)
        key = fuzz.logs[partition][offset].raw.key or b""
        if fuzz.rng.random() < 0.5:
            said = fuzz.control(partition, offset, key.decode()) | {"if_last": 2**40}
            _control(fuzz, partition, key, said, verdict="stale")
        else:
            said = fuzz.control(partition, offset, key.decode(), "message.discarded")
            _control(fuzz, partition, key, said, verdict="accepted")
            fuzz.settle(place, "discarded")


def repair(fuzz: Fuzz) -> None:
    """A broken create, and the repair that makes an order of it."""
    order_id = fuzz.name("mended")
    key, (event, cents) = order_id.encode(), fuzz.create(order_id)
    partition = partition_of(key)
    offset = fuzz.put(partition, key, fuzz.json(event)[:-1], MALFORMED)
    fuzz.open.append((partition, offset))
    said = fuzz.control(partition, offset, order_id, "message.repaired") | {"if_last": offset, "event": event}
    _control(fuzz, partition, key, said, verdict="accepted")
    fuzz.settle((partition, offset), "repaired")
    fuzz.mended.append(Made(order_id, cents, []))


MAKERS = {
    truncated: 8, noise: 8, no_value: 4, other_encoding: 5, almost_json: 8, trailing: 3, deep: 0.15, no_object: 3,
    wrong_member: 12, missing_member: 5, member_twice: 3, wrong_sum: 2, other_type: 3, no_key: 5, other_key: 5,
    other_partition: 5, update_of_nothing: 5, second_create: 5, taken_id: 6, mutant: 20, bad_header: 6, no_control: 8,
    nowhere: 6, control_again: 3, mutant_control: 6, harmless_control: 4, repair: 1,
}  # fmt: skip


# Batches.

Portion = tuple[int, int, list[Sent]]


def portions(fuzz: Fuzz, partition: int) -> Iterator[Portion]:
    """Cut a partition's records into batches of any size; what is damaged together is one."""
    offset = 0
    for damage, group in groupby(fuzz.logs[partition], key=lambda sent: sent.damage):
        left = list(group)
        while left:
            count = len(left) if damage else _fitting(left, fuzz.rng.choice((1, 2, 5, 30, 100, 400)))
            yield partition, offset, left[:count]
            offset += count
            del left[:count]


def _fitting(records: list[Sent], most: int) -> int:
    size = 0
    for count, sent in enumerate(records[:most]):
        size += len(sent.raw.value or b"") + len(sent.raw.key or b"") + 350 * len(sent.raw.headers)
        if size > BATCH_BYTES:
            return max(1, count)
    return min(most, len(records))


def send(fuzz: Fuzz, socket: RawSocket) -> list[Portion]:
    """Send all records, each request with batches of any of the partitions; give what is to be damaged in the log."""
    waiting = {partition: list(portions(fuzz, partition))[::-1] for partition in range(PARTITIONS)}
    to_damage: list[Portion] = []
    while any(waiting.values()):
        filled = [partition for partition, left in waiting.items() if left]
        chosen = [waiting[one].pop() for one in fuzz.rng.sample(filled, fuzz.rng.randint(1, len(filled)))]
        offsets = socket.produce({partition: encoded(fuzz, records) for partition, _, records in chosen})
        assert offsets == {partition: offset for partition, offset, _ in chosen}
        to_damage += [one for one in chosen if one[2][0].damage.rpartition(" ")[0] in LOG_DAMAGES]
    return to_damage


def encoded(fuzz: Fuzz, records: list[Sent]) -> bytes:
    raws = [sent.raw for sent in records]
    kind = records[0].damage.rpartition(" ")[0]
    if kind in WIRE_DAMAGES:
        return WIRE_DAMAGES[kind](raws)
    codec = "none" if kind in ("last record", "codec") else fuzz.rng.choice(list(CODECS))
    return batch(raws, codec, fuzz.rng.randrange(2), fuzz.rng.choice((0, -1, 1_700_000_000_000, 2**50)))


#: Batches that the broker takes and Python's codecs do not: Java's look at less of what is behind the records.
WIRE_DAMAGES = {
    "behind gzip": lambda raws: sealed(batch(raws, "gzip") + b"garbage"),
    "behind snappy": lambda raws: sealed(batch(raws, "snappy") + b"g"),
    "sum of lz4": lambda raws: sealed(batch(raws, "lz4", 1)[:-4] + b"sum?"),
}


def _flipped(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


#: Batches that are damaged in the log.
LOG_DAMAGES = {
    "payload": _flipped,
    "checksum": lambda data: data[: FRONT.size - 4] + b"sum?" + data[FRONT.size :],
    "codec": lambda data: sealed(data[: FRONT.size] + struct.pack(">h", 13) + data[FRONT.size + 2 :]),
    "last record": lambda data: sealed(data[:-1] + b"\xff"),
}

DAMAGES = (*WIRE_DAMAGES, *LOG_DAMAGES)


# What must come of it.


@dataclass(frozen=True)
class Kept:
    """A row of skipped_messages."""

    reason: str
    state: str
    key: bytes | None
    value: bytes | None
    headers: str


def check(stack: Stack, fuzz: Fuzz) -> Counter[str]:
    """Assert that each record came to what it must; count the skips by reason."""
    wanted = {(p, offset): sent for p, log in enumerate(fuzz.logs) for offset, sent in enumerate(log)}
    assert store.epochs(stack.settings) == 1, "the log was taken for lost"
    assert store.positions(stack.settings) == {p: len(log) for p, log in enumerate(fuzz.logs) if log}
    kept = check_skips(stack, {place: sent for place, sent in wanted.items() if sent.reasons})
    check_effects(stack, {place: sent for place, sent in wanted.items() if not sent.reasons})
    check_orders(stack, fuzz)
    return Counter(row.reason for row in kept.values())


def check_skips(stack: Stack, wanted: dict[Place, Sent]) -> dict[Place, Kept]:
    rows = store.query(
        stack.settings, "SELECT partition, offset, reason, state, key, value, headers FROM skipped_messages"
    )
    kept = {(partition, offset): Kept(*row) for partition, offset, *row in rows}
    assert len(kept) == len(rows), "a record is kept twice"
    lost, strangers = wanted.keys() - kept.keys(), kept.keys() - wanted.keys()
    assert not lost, [(place, wanted[place]) for place in sorted(lost)[:3]]
    assert not strangers, [(place, kept[place]) for place in sorted(strangers)[:3]]
    for place, sent in wanted.items():
        row = kept[place]
        assert row.reason in sent.reasons, (place, row, sent)
        assert row.state == sent.state, (place, row, sent)
        bare = Raw(None, None) if sent.lost else sent.raw
        assert (row.key, row.value) == (bare.key, bare.value), (place, row, sent)
        assert json.loads(row.headers) == [list(shown(header)) for header in bare.headers], (place, row, sent)
    assert {row.reason for row in kept.values()} <= set(SkipReason) - {SkipReason.INTERNAL_ERROR}
    return kept


def shown(header: Header) -> tuple[str, str | None]:
    """A header as it is kept: what is no UTF-8 in its name is escaped."""
    name, value = header
    return name.decode(errors="backslashreplace"), None if value is None else base64.b64encode(value).decode()


def check_effects(stack: Stack, wanted: dict[Place, Sent]) -> None:
    """Assert that all good events were applied, and nothing else; and that each good control has its verdict."""
    history = {place: row.outcome for place, row in store.history(stack.settings).items()}
    verdicts = store.query(stack.settings, "SELECT partition, offset, verdict FROM controls")
    found = {place: outcome for place, outcome in history.items() if outcome != "skipped"}
    found |= {(partition, offset): one for partition, offset, one in verdicts if one != INVALID_CONTROL}
    mended = store.query(stack.settings, "SELECT partition, offset FROM skipped_messages WHERE state = 'repaired'")
    for place in mended:
        assert found.pop(place) == "applied"
    assert found == {place: sent.outcome for place, sent in wanted.items()}


def check_orders(stack: Stack, fuzz: Fuzz) -> None:
    rows = store.query(stack.settings, "SELECT order_id, status, total_minor, shipping_minor FROM orders")
    assert {order_id: row for order_id, *row in rows} == {
        order.order_id: [order.status, order.cents, (order.cents * 2 + 50) // 100]
        for order in (*fuzz.orders, *fuzz.mended)
    }


def log_lines(stack: Stack) -> list[Json]:
    """All that the worker has logged, older files first; a line that is no JSON is none of its own."""
    name = f"{WORKER}.log"
    files = sorted(stack.settings.log_dir.glob(f"{name}*"), key=lambda path: path.name, reverse=True)
    text = "".join(path.read_text(encoding="utf-8") for path in files)
    strangers = [line for line in text.splitlines() if not line.startswith("{")]
    assert not strangers, strangers[:20]
    return [json.loads(line) for line in text.splitlines()]


def check_log(stack: Stack, fuzz: Fuzz) -> None:
    """Assert that each skip was told once, and that no error was but alerts."""
    lines = log_lines(stack)
    errors = [
        line
        for line in lines
        if "exception" in line
        or (line["level"] == "error" and line["event"] != "alert.opened" and "logger" not in line)
    ]
    assert not errors, errors[:3]
    told = Counter((line["partition"], line["offset"]) for line in lines if line["event"] == "message.skipped")
    skipped = [(p, offset) for p, log in enumerate(fuzz.logs) for offset, sent in enumerate(log) if sent.reasons]
    assert told == Counter(skipped)


def applied_all(stack: Stack, fuzz: Fuzz) -> bool:
    positions = store.positions(stack.settings)
    return all(positions.get(partition, 0) >= len(log) for partition, log in enumerate(fuzz.logs))


def begun(stack: Stack, figures: Figures, name: str) -> Fuzz:
    """Begin with a seed, and tell it."""
    seed = int(os.environ.get("FUZZ_SEED") or secrets.randbits(32))
    print(f"\nFUZZ_SEED={seed}", flush=True)  # noqa: T201 (how to repeat it)
    figures(f"{name}, FUZZ_SEED={seed}")
    ((topic_id,),) = store.query(stack.settings, "SELECT topic_id FROM log_epochs")
    return Fuzz(seed, topic_id)


def test_every_bad_record_is_kept_and_every_good_one_applied(make_stack: MakeStack, figures: Figures) -> None:
    """Whatever stands between them, in whatever batches and codecs; the worker goes on, and says no error."""
    stack = make_stack(PROGRAMS)
    stack.up()
    pid = stack.pid(WORKER)
    fuzz = begun(stack, figures, "fuzz")
    fuzz.fill(BAD)

    with RawSocket.open(stack.settings.kafka_bootstrap_servers, stack.settings.topic) as socket:
        send(fuzz, socket)
    until(lambda: applied_all(stack, fuzz) or stack.pid(WORKER) != pid, "all is read", CATCH_UP_S, every_s=0.2)
    assert stack.pid(WORKER) == pid, "the worker was restarted"
    counts = check(stack, fuzz)
    stack.down()  # by which the last lines are written
    check_log(stack, fuzz)

    figures("fuzz", good=ORDERS * EVENTS_EACH, bad=counts.total(), repaired=len(fuzz.mended), **counts)
    assert counts.total() >= 20_000
    assert set(counts) == set(SkipReason) - {SkipReason.INTERNAL_ERROR}


# Batches that cannot be read.


def taken(socket: RawSocket, partition: int, data: bytes) -> int | None:
    """Send a batch; its offset, or None from a broker that has started and does not lead the partition yet."""
    try:
        return socket.produce({partition: data})[partition]
    except Refused as error:
        assert error.code == NOT_LEADER
        return None


def damage(stack: Stack, to_damage: list[Portion]) -> None:
    """Damage batches in the log, with the broker stopped."""
    for partition, offset, records in to_damage:
        segment = Segment(stack.settings.var / "kafka" / "data", stack.settings.topic, partition)
        segment.replace(offset, LOG_DAMAGES[records[0].damage.rpartition(" ")[0]](segment.read(offset)))


def test_batches_that_cannot_be_read_cost_only_themselves(make_stack: MakeStack, figures: Figures) -> None:
    """Some that the broker takes and nobody can unpack, some damaged in its log, on all partitions."""
    stack = make_stack(PROGRAMS, unreadable_retries=1)
    stack.up()
    fuzz = begun(stack, figures, "fuzz, unreadable batches")
    fuzz.fill(2_000, damaged=3)
    stack.stop(WORKER)
    with RawSocket.open(stack.settings.kafka_bootstrap_servers, stack.settings.topic) as socket:
        to_damage = send(fuzz, socket)
    stack.stop("kafka")
    damage(stack, to_damage)
    stack.start("kafka")
    stack.start(WORKER)
    pid = until(lambda: stack.pid(WORKER), "the worker runs", 20)

    began = time.monotonic()
    until(lambda: applied_all(stack, fuzz) or stack.pid(WORKER) != pid, "all is read", CATCH_UP_S, every_s=0.2)
    took_s = time.monotonic() - began
    assert stack.pid(WORKER) == pid, "the worker was restarted"
    counts = check(stack, fuzz)
    stack.down()
    check_log(stack, fuzz)

    lost = sum(sent.lost for log in fuzz.logs for sent in log)
    figures("fuzz, unreadable batches", lost=lost, read_s=took_s, **counts)
    assert lost >= len(DAMAGES) * 3


@pytest.mark.parametrize("last", ["applied", "skipped"])
def test_a_batch_that_goes_bad_behind_the_worker(make_stack: MakeStack, last: str) -> None:
    """It was applied, and cannot be read when the worker begins anew at its last record: nothing is told lost."""
    stack = make_stack(PROGRAMS)
    stack.up()
    ((topic_id,),) = store.query(stack.settings, "SELECT topic_id FROM log_epochs")
    fuzz = Fuzz(1, topic_id)
    made = [order for order in fuzz.orders if order.partition == 1]
    for order in made[:3]:
        fuzz.put(1, order.key, order.next(), outcome="applied")
    if last == "skipped":
        fuzz.put(1, made[0].key, b"broken", MALFORMED)
    with RawSocket.open(stack.settings.kafka_bootstrap_servers, stack.settings.topic) as socket:
        socket.produce({1: batch([sent.raw for sent in fuzz.logs[1]])})
    until(lambda: applied_all(stack, fuzz), "all is read", 20)
    stack.stop(WORKER)
    stack.stop("kafka")
    segment = Segment(stack.settings.var / "kafka" / "data", stack.settings.topic, 1)
    segment.replace(0, LOG_DAMAGES["payload"](segment.read(0)))
    stack.start("kafka")
    stack.start(WORKER)
    pid = until(lambda: stack.pid(WORKER), "the worker runs", 20)
    until(lambda: answers(stack.settings.kafka_port), "the broker answers", 30)

    later = [fuzz.put(1, made[0].key, made[0].next(), outcome="applied") for _ in range(2)]
    data = batch([fuzz.logs[1][offset].raw for offset in later])
    with RawSocket.open(stack.settings.kafka_bootstrap_servers, stack.settings.topic) as socket:
        until(lambda: taken(socket, 1, data) == later[0], "the broker leads the partition again", 30)
    until(lambda: applied_all(stack, fuzz) or stack.pid(WORKER) != pid, "all is read", 30)
    fuzz.orders = made[:3]
    check(stack, fuzz)
    assert stack.pid(WORKER) == pid, "the worker was restarted"
