"""Makers of valid events that cannot take effect, of copies with bits flipped, and of headers that are no text.

Some have the id of an event that is still to come, and must not take it.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from orderflow.broker import PARTITIONS, partition_of
from tests.support.fuzz.log import DUPLICATE_CREATE, INVALID, KEY_MISMATCH, UNKNOWN_ORDER, UNKNOWN_TYPE, UNREADABLE
from tests.support.fuzz.not_json import reasons_of

if TYPE_CHECKING:
    import random

    from tests.support.fuzz.log import Fuzz, Made


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
    headers = [*fuzz.headers(), (name + b"." + fuzz.blob(8), fuzz.blob(9)), *fuzz.headers()]
    order, value = coming(fuzz)
    values = (value, value, fuzz.json(fuzz.control(order.partition, 0, order.order_id)), None, fuzz.blob(90))
    fuzz.put(order.partition, rng.choice((order.key, None, b"")), rng.choice(values), UNREADABLE, headers=headers)


MAKERS = {
    no_key: 5, other_key: 5, other_partition: 5, update_of_nothing: 5, second_create: 5, taken_id: 6, mutant: 20,
    bad_header: 6,
}  # fmt: skip
