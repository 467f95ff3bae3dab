"""Makers of values that are JSON, and no event."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tests.support.fuzz.log import INVALID, UNKNOWN_TYPE

if TYPE_CHECKING:
    from tests.support.fuzz.log import Fuzz, Json


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
    Bare("-" + "9" * 400 + ".5"), Bare("1" + "0" * 400 + "e-2"), "\x00", "\u0085", "", " ", "x" * 300, "q" * 5_000,
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


MAKERS = {no_object: 3, wrong_member: 12, missing_member: 5, member_twice: 3, wrong_sum: 2, other_type: 3}
