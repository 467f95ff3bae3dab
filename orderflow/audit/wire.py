"""What a record's value says: an event, a control, or why it is neither. The audit's own reading of docs/events.md.

The rules of members are their types', so that each copy of a member that stands twice must keep them. Amounts are whole
cents here, so sums are exact without decimals.
"""

from __future__ import annotations

import hashlib
import re
import uuid
from datetime import datetime
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

#: The namespace of the ids of records that came without one. It must be the projection's: both name the same record.
_DERIVED = uuid.UUID("6f1f9d7e-52b1-5c0e-9b60-0a4c3a5d7e11")

_QUOTE, _BACKSLASH = b'"\\'

#: Something that can be seen, and nothing that controls a terminal.
_NAME = r"\A[^\x00-\x1f\x7f-\x9f]*[^\s\x00-\x1f\x7f-\x9f][^\x00-\x1f\x7f-\x9f]*\Z"
_visible = re.compile(_NAME)

#: Levels of nesting that are read.
DEPTH_MAX = 500

NAME_MAX = 128
PRICE_MAX, TOTAL_MAX = 1_000_000, 1_000_000 * 10_000 * 100

Reason = Literal["malformed_json", "invalid_event", "unknown_type", "invalid_control"]
Status = Literal["new", "pending", "confirmed", "shipped", "delivered", "cancelled"]
Name = Annotated[str, Meta(min_length=1, max_length=NAME_MAX, pattern=_NAME)]
Id = Annotated[str, Meta(pattern=r"\A[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z")]
Moment = Annotated[datetime, Meta(tz=True)]
Offset = Annotated[int, Meta(ge=0, le=2**63 - 1)]


class Cents(int):
    """An amount."""


def _cents(kind: type, number: object) -> Cents:
    """Read a JSON number as an amount: the float must be the one that is nearest to a number of cents."""
    if kind is Cents and type(number) in (int, float) and -TOTAL_MAX <= number <= TOTAL_MAX:  # type: ignore[operator]
        cents = round(number * 100)  # type: ignore[operator]  # it is a number
        if cents / 100 == number:
            return Cents(cents)
    raise ValueError("no amount")


class Item(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """One line of a cart."""

    item_id: Name
    quantity: Annotated[int, Meta(ge=1, le=10_000)]
    price: Cents

    def __post_init__(self) -> None:
        if not 0 < self.price <= PRICE_MAX * 100:
            raise ValueError("no price")


class Cart(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """An order as its create says it."""

    order_id: Name
    customer_id: Name
    order_date: Moment
    items: Annotated[tuple[Item, ...], Meta(min_length=1, max_length=100)]
    total_amount: Cents
    currency: Literal["USD", "EUR", "GBP", "AUD", "CAD", "ILS"]
    status: Literal["new"] = "new"

    def __post_init__(self) -> None:
        if sum([item.price * item.quantity for item in self.items]) != self.total_amount:
            raise ValueError("another total")

    @property
    def date(self) -> str:
        """When it was ordered, RFC 3339."""
        return msgspec.json.encode(self.order_date)[1:-1].decode()


def shipping_of(total_cents: int) -> int:
    """Take 2 % of a total, halves up."""
    return (total_cents * 2 + 50) // 100


class Created(msgspec.Struct, frozen=True, gc=False, tag_field="type", tag="order.created"):
    """An order came to be."""

    order_id: Name
    order: Cart
    event_id: Id | None = None
    occurred_at: Moment | None = None

    def __post_init__(self) -> None:
        if self.order.order_id != self.order_id:
            raise ValueError("another order")


class Changed(msgspec.Struct, frozen=True, gc=False, tag_field="type", tag="order.status_changed"):
    """An order's status was set."""

    order_id: Name
    status: Status
    event_id: Id | None = None
    occurred_at: Moment | None = None


class _Control(msgspec.Struct, frozen=True, kw_only=True, tag_field="type"):
    event_id: Id
    topic_id: Annotated[str, Meta(min_length=1, max_length=100)]
    partition: Annotated[int, Meta(ge=0, le=2**31 - 1)]
    offset: Offset
    author: Annotated[str, Meta(min_length=1, max_length=200, pattern=r"\S")]
    reason: Annotated[str, Meta(max_length=2_000)] = ""
    operation: Id | None = None
    occurred_at: Moment | None = None


class Repaired(_Control, frozen=True, kw_only=True, tag="message.repaired"):
    """A mended event is to stand at the place of the named record."""

    if_last: Offset
    event: msgspec.Raw

    @property
    def mended(self) -> Event | None:
        """The event; None where there is none in it."""
        event = read(bytes(self.event))
        return event if isinstance(event, Created | Changed) else None


class Discarded(_Control, frozen=True, kw_only=True, tag="message.discarded"):
    """The named record is given up."""

    if_last: Offset | None = None
    successor: Id | None = None


class Damaged(msgspec.Struct, frozen=True, gc=False):
    """A value that says nothing, why, and the event id that stands in it all the same."""

    reason: Reason
    event_id: str | None = None


class _Typed(msgspec.Struct):
    type: str


class _Identified(msgspec.Struct):
    event_id: Id


Event = Created | Changed
Control = Repaired | Discarded
Said = Created | Changed | Repaired | Discarded | Damaged

EVENT_TYPES = ("order.created", "order.status_changed")
CONTROL_TYPES = ("message.repaired", "message.discarded")

_values: msgspec.json.Decoder[Event | Control] = msgspec.json.Decoder(Event | Control, dec_hook=_cents)
_whole = msgspec.json.Decoder(msgspec.Raw)
_types = msgspec.json.Decoder(_Typed)
_ids = msgspec.json.Decoder(_Identified)

#: Reads the items of an order's row.
items = msgspec.json.Decoder(tuple[Item, ...], dec_hook=_cents)

MALFORMED = Damaged("malformed_json")


def read(value: bytes | None) -> Said:
    """Read a record's value."""
    if value is None:
        return MALFORMED
    try:
        if not value.isascii():
            value.decode()  # msgspec looks at what it needs only, and bytes that are no UTF-8 may stand anywhere
        if value.count(b"[") + value.count(b"{") > DEPTH_MAX and _depth(value) > DEPTH_MAX:
            return MALFORMED
        said = _values.decode(value)
    except msgspec.ValidationError:
        return _refused(value)
    except (UnicodeDecodeError, msgspec.DecodeError, RecursionError):
        return MALFORMED
    if type(said) is Repaired and said.mended is None:
        return Damaged("invalid_control", said.event_id)
    return said


def _depth(value: bytes) -> int:
    """Tell how deep brackets are nested, but for those in strings."""
    depth = deepest = 0
    in_string = escaped = False
    for byte in value:
        if in_string:
            in_string, escaped = byte != _QUOTE or escaped, byte == _BACKSLASH and not escaped
        elif byte == _QUOTE:
            in_string = True
        else:
            depth += (byte in b"[{") - (byte in b"]}")
            deepest = max(deepest, depth)
    return deepest


def _refused(value: bytes) -> Damaged:
    """Say why a value is no valid event: what is JSON to its end breaks a rule."""
    try:
        _whole.decode(value)
    except (msgspec.DecodeError, RecursionError):
        return MALFORMED
    try:
        kind = _types.decode(value).type
    except msgspec.DecodeError:
        kind = None
    try:
        event_id = _ids.decode(value).event_id
    except msgspec.DecodeError:
        event_id = None
    if kind in CONTROL_TYPES:
        return Damaged("invalid_control", event_id)
    return Damaged("invalid_event" if kind is None or kind in EVENT_TYPES else "unknown_type", event_id)


def is_name(text: str) -> bool:
    """Tell whether an order may have that id."""
    return len(text) <= NAME_MAX and _visible.search(text) is not None


def derived_id(topic_id: str, partition: int, offset: int, key: bytes, value: bytes) -> str:
    """Name a record that came without an event id, by where and what it is."""
    whole = b"%s/%d/%d/%s%s%s" % (topic_id.encode(), partition, offset, len(key).to_bytes(4, "big"), key, value)
    return str(uuid.uuid5(_DERIVED, hashlib.blake2b(whole, digest_size=32).hexdigest()))
