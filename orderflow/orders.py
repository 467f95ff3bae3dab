"""The pure domain: what an order is, and how an event changes it.

An order is the fold of its history: `step` says what one event does to it. Money is exact: a `Money` is a decimal with
two places, written as a JSON number.
"""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 (msgspec reads the annotations at run time)
from decimal import ROUND_HALF_UP, Decimal
from enum import StrEnum
from functools import lru_cache
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

CENT = Decimal("0.01")

#: What the consumer adds to an order: 2 % of its total.
SHIPPING_RATE = Decimal("0.02")

#: The largest price of one item. With 100 items of 10,000 pieces each a total stays exact in a JSON number.
PRICE_MAX = Decimal("1000000.00")
TOTAL_MAX = PRICE_MAX * 100 * 10_000


class Money(Decimal):
    """An exact amount with two places."""

    __slots__ = ()


def money(amount: Decimal) -> Money:
    """Round to two places, halves up."""
    return Money(amount.quantize(CENT, rounding=ROUND_HALF_UP))


@lru_cache(maxsize=16_384, typed=True)
def money_from_json(number: float) -> Money:
    """Turn a JSON number into money.

    Raises:
        ValueError: it has more than two places, or is out of range.

    """
    if not -TOTAL_MAX <= number <= TOTAL_MAX:
        raise ValueError(f"Expected an amount of at most {TOTAL_MAX}")
    exact = Decimal(repr(number))  # repr() of a float is the shortest decimal that means it: 10.1, never 10.0999…
    if exact != exact.quantize(CENT):
        raise ValueError(f"Expected at most two decimal places, got {number!r}")
    return Money(exact.quantize(CENT))


@lru_cache(maxsize=16_384)
def money_from_cents(cents: int) -> Money:
    """Turn minor units into money."""
    return Money(Decimal(cents).scaleb(-2))


def from_json(kind: type, value: Any) -> Any:
    """Decode what msgspec does not know by itself: `Money`, from JSON numbers only."""
    if kind is not Money:
        raise NotImplementedError(kind)
    if type(value) not in (int, float):
        raise ValueError(f"Expected `number`, got `{_json_type(value)}`")
    return money_from_json(value)


def to_json(value: Any) -> Any:
    """Encode what msgspec does not know by itself: `Money`, as a number."""
    if type(value) is Money:
        return Decimal(value)
    raise NotImplementedError(type(value))


#: Writes orders and events: amounts as numbers with two places.
JSON_ENCODER = msgspec.json.Encoder(decimal_format="number", enc_hook=to_json)


def _json_type(value: object) -> str:
    if isinstance(value, dict):
        return "object"
    return {str: "str", bool: "bool", list: "array", type(None): "null"}.get(type(value), type(value).__name__)


class Status(StrEnum):
    """Where an order stands. Any status may follow any other; a new order is ``new``."""

    NEW = "new"
    PENDING = "pending"
    CONFIRMED = "confirmed"
    SHIPPED = "shipped"
    DELIVERED = "delivered"
    CANCELLED = "cancelled"


class Currency(StrEnum):
    """The currencies an order can be in; each has two places."""

    USD = "USD"
    EUR = "EUR"
    GBP = "GBP"
    AUD = "AUD"
    CAD = "CAD"
    ILS = "ILS"


#: Not blank, no control characters. Lone surrogates do not get through the decoder.
PRINTABLE = r"^(?=[\s\S]*\S)[^\x00-\x1f\x7f-\x9f]+(?![\s\S])"
OrderId = Annotated[str, Meta(min_length=1, max_length=128, pattern=PRINTABLE)]
CustomerId = Annotated[str, Meta(min_length=1, max_length=128, pattern=PRINTABLE)]
ItemId = Annotated[str, Meta(min_length=1, max_length=128, pattern=PRINTABLE)]
Quantity = Annotated[int, Meta(ge=1, le=10_000)]
#: The range is checked where an item is made.
Price = Annotated[Money, Meta(extra_json_schema={"minimum": 0.01, "maximum": int(PRICE_MAX)})]


class Item(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """One line of a cart."""

    item_id: ItemId
    quantity: Quantity
    price: Price

    def __post_init__(self) -> None:
        if not 0 < self.price <= PRICE_MAX:
            raise ValueError(f"Expected a `price` from 0.01 to {PRICE_MAX}, got {self.price}")


def is_order_id(text: str) -> bool:
    """Tell whether an order may have that id."""
    try:
        msgspec.convert(text, OrderId)
    except msgspec.ValidationError:
        return False
    return True


Items = Annotated[tuple[Item, ...], Meta(min_length=1, max_length=100)]


def total(items: tuple[Item, ...]) -> Money:
    """Sum price × quantity."""
    return money(sum((item.price * item.quantity for item in items), Decimal(0)))


class Order(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """An order as it was created: what an ``order.created`` event carries."""

    order_id: OrderId
    customer_id: CustomerId
    order_date: Annotated[datetime, Meta(tz=True)]
    items: Items
    total_amount: Money
    currency: Currency
    status: Literal["new"] = "new"

    def __post_init__(self) -> None:
        expected = total(self.items)
        if self.total_amount != expected:
            raise ValueError(f"Expected `totalAmount` {expected}, the sum of price × quantity, got {self.total_amount}")

    @property
    def shipping_cost(self) -> Money:
        """2 % of the total, rounded after the sum."""
        return money(self.total_amount * SHIPPING_RATE)


class Effect(StrEnum):
    """What one event did to its order."""

    CREATED = "created"
    STATUS_SET = "status_set"
    DUPLICATE_CREATE = "duplicate_create"
    UNKNOWN_ORDER = "unknown_order"


def step(exists: bool, *, creates: bool) -> Effect:  # noqa: FBT001 (reads as a sentence at its callers)
    """Say what an event does to an order that exists or not: the whole fold, one event at a time."""
    if creates:
        return Effect.DUPLICATE_CREATE if exists else Effect.CREATED
    return Effect.STATUS_SET if exists else Effect.UNKNOWN_ORDER
