"""The audit's reading of values beside the decoder's: both say the same of events and controls spoiled at random."""

from __future__ import annotations

import json
import os
import random
import secrets
from collections import Counter
from typing import Any

from orderflow import controls, events
from orderflow.audit import wire
from orderflow.errors import InvalidEvent

VALUES = 15_000

ID = "00000000-0000-4000-8000-000000000001"

CREATED = {
    "type": "order.created", "order_id": "a", "event_id": ID, "occurred_at": "2026-01-02T03:04:05Z",
    "order": {
        "orderId": "a", "customerId": "c", "orderDate": "2026-01-02T03:04:05Z", "currency": "EUR", "status": "new",
        "items": [{"itemId": "i", "quantity": 2, "price": 10.25}], "totalAmount": 20.5,
    },
}  # fmt: skip
CHANGED = {"type": "order.status_changed", "order_id": "a", "event_id": ID, "status": "shipped"}
DISCARDED = {
    "type": "message.discarded", "event_id": ID, "topic_id": "t", "partition": 1, "offset": 4, "if_last": 5,
    "author": "x", "successor": ID, "occurred_at": "2026-01-02T03:04:05Z",
}  # fmt: skip
REPAIRED = {
    "type": "message.repaired", "event_id": ID, "topic_id": "t", "partition": 1, "offset": 4, "if_last": 5,
    "author": "x", "reason": "r", "operation": ID, "event": CHANGED,
}  # fmt: skip

#: What is put in the place of a member's value, as text.
SPOILED = (
    "null", "true", "1", "-1", "0", "-0.0", "2.0", "1.", "01", "10.10", "10.101", "0.001", "1e-3", "1e400", "0.1e1",
    "10000", "10001", "1000000.00", "1000000.01", "1e12", "9007199254740993", "99999999999999999999", "NaN", "Infinity",
    '""', '" "', '"\\u00a0"', '"\\u200b"', '"\\ud800"', '"a\\u0000"', '"a\\u0085"', f'"{ID}"', f'"{ID}\\n"',
    f'"{ID.replace("0", "A")}"', '"new"', '"shipped"', '"order.created"', '"order.status_changed"',
    '"message.repaired"', '"message.other"', '"2026-01-02T03:04:05"', '"2026-01-02T03:04:05+02:00"',
    '"2026-01-02T03:04:05.123456789Z"', '"9999-12-31T23:59:59Z"', '"0001-01-01T00:00:00+05:00"', f'"{"a" * 128}"',
    f'"{"a" * 129}"', f'"{"é" * 128}"', "[]", "{}", "[1]", f"{'[' * 497}{']' * 497}", f"{'[' * 501}{']' * 501}",
    '"[[[["', '"\\"["',
)  # fmt: skip


class Spoiled(str):
    """Text that stands in a value as it is."""

    __slots__ = ()


def value(rng: random.Random) -> bytes:
    """A valid event or control, with up to two members spoiled, some twice, and sometimes torn."""
    whole: Any = json.loads(json.dumps(rng.choice((CREATED, CREATED, CHANGED, REPAIRED, REPAIRED, DISCARDED))))
    for _ in range(rng.choice((0, 1, 1, 1, 2))):
        _spoil(whole, rng)
    raw = _text(whole, rng, twice=rng.random() < 0.4).encode("utf-8", "surrogatepass")
    match rng.randrange(14):
        case 0:
            return raw[: rng.randint(0, len(raw))]
        case 1:
            at = rng.randint(0, len(raw))
            return raw[:at] + bytes([rng.choice(b'\x00"\\\xff\xc3{[ \n')]) + raw[at:]
        case 2:
            return rng.choice((b"\xef\xbb\xbf" + raw, raw + b" ", raw + b"x", raw + b"{}", raw + b"\x00"))
        case 3:
            return rng.choice(SPOILED).encode()
    return raw


def _spoil(whole: Any, rng: random.Random) -> None:
    while isinstance(whole, dict | list) and whole:
        key = rng.choice(list(whole) if isinstance(whole, dict) else range(len(whole)))
        if not isinstance(whole[key], dict | list) or rng.random() < 0.3:
            if rng.random() < 0.25:
                del whole[key]
            else:
                whole[key] = Spoiled(rng.choice(SPOILED))
            return
        whole = whole[key]


def _text(part: Any, rng: random.Random, *, twice: bool) -> str:
    if isinstance(part, Spoiled):
        return part
    if isinstance(part, list):
        return f"[{','.join(_text(one, rng, twice=twice) for one in part)}]"
    if not isinstance(part, dict):
        return json.dumps(part, ensure_ascii=rng.random() < 0.5)
    members = [f"{json.dumps(name)}:{_text(one, rng, twice=twice)}" for name, one in part.items()]
    if twice:
        members += rng.choices(members, k=rng.randint(0, 1)) if members else []
        members += [f'"{rng.choice([*part, "x"])}":{rng.choice(SPOILED)}'] * (rng.random() < 0.3)
        rng.shuffle(members)
    return f"{{{','.join(members)}}}"


def decoded(raw: bytes) -> tuple[object, ...]:
    """What the decoder says, in plain values."""
    try:
        if controls.is_control(raw):
            said = controls.decode(raw)
            return _of_control(said)
        event = events.decode(raw)
    except InvalidEvent as error:
        claims = error.reason in ("invalid_event", "unknown_type", "invalid_control")
        return str(error.reason), events.claimed_event_id(raw) if claims else None
    if not isinstance(event, events.OrderCreated):
        return "changed", event.order_id, event.event_id, str(event.status)
    order = event.order
    items = [(item.item_id, item.quantity, int(item.price * 100)) for item in order.items]
    amounts = int(order.total_amount * 100), int(order.shipping_cost * 100)
    date = events.wire_time(order.order_date).decode()
    return "created", event.order_id, event.event_id, order.customer_id, date, items, amounts, str(order.currency)


def audited(raw: bytes) -> tuple[object, ...]:
    """What the audit says, in plain values."""
    said = wire.read(raw)
    if isinstance(said, wire.Damaged):
        return said.reason, said.event_id
    if isinstance(said, wire.Changed):
        return "changed", said.order_id, said.event_id, said.status
    if not isinstance(said, wire.Created):
        return _of_control(said)
    cart = said.order
    items = [(item.item_id, item.quantity, int(item.price)) for item in cart.items]
    amounts = int(cart.total_amount), wire.shipping_of(cart.total_amount)
    return "created", said.order_id, said.event_id, cart.customer_id, cart.date, items, amounts, cart.currency


def _of_control(said: Any) -> tuple[object, ...]:
    named = said.topic_id, said.partition, said.offset
    carried = getattr(said, "successor", None), bytes(getattr(said, "event", b""))
    return "control", said.event_id, named, said.if_last, said.operation, said.author, said.reason, carried


def test_the_audit_reads_a_value_as_the_decoder_does() -> None:
    """AUDIT_SEED repeats a run."""
    seed = int(os.environ.get("AUDIT_SEED") or secrets.randbits(32))
    seen: Counter[object] = Counter()
    for number in range(VALUES):
        raw = value(random.Random(seed + number))  # noqa: S311 (to be repeated, not to keep a secret)
        said = decoded(raw)

        assert audited(raw) == said, f"AUDIT_SEED={seed + number}: {raw!r}"

        seen[said[0]] += 1
    assert set(seen) == {
        "created", "changed", "control", "malformed_json", "invalid_event", "unknown_type", "invalid_control",
    }  # fmt: skip
    assert min(seen.values()) > VALUES // 100
