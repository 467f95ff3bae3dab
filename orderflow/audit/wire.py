"""What a record's value says: an event, a control, or why it is neither. The audit's own reading of docs/events.md.

Amounts are whole cents here, so sums are exact without decimals.
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

_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_CONTROL_CHARACTER = re.compile(r"[\x00-\x1f\x7f-\x9f]")

#: Levels of nesting that are read.
DEPTH_MAX = 500

NAME_MAX = 128
PRICE_MAX = 1_000_000
TOTAL_MAX = 1e12

Reason = Literal["malformed_json", "invalid_event", "unknown_type", "invalid_control"]
Status = Literal["new", "pending", "confirmed", "shipped", "delivered", "cancelled"]
Moment = Annotated[datetime, Meta(tz=True)]
Offset = Annotated[int, Meta(ge=0, le=2**63 - 1)]


class Item(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """One line of a cart."""

    item_id: str
    quantity: Annotated[int, Meta(ge=1, le=10_000)]
    price: float


class Cart(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """An order as its create says it."""

    order_id: str
    customer_id: str
    order_date: Moment
    items: Annotated[tuple[Item, ...], Meta(min_length=1, max_length=100)]
    total_amount: float
    currency: Literal["USD", "EUR", "GBP", "AUD", "CAD", "ILS"]
    status: Literal["new"] = "new"

    @property
    def total_cents(self) -> int:
        """The sum of the cart."""
        return round(self.total_amount * 100)

    @property
    def shipping_cents(self) -> int:
        """2 % of the total, halves up."""
        return (self.total_cents * 2 + 50) // 100

    @property
    def date(self) -> str:
        """When it was ordered, RFC 3339."""
        return msgspec.json.encode(self.order_date)[1:-1].decode()


class Created(msgspec.Struct, frozen=True, gc=False, tag_field="type", tag="order.created"):
    """An order came to be."""

    order_id: str
    order: Cart
    event_id: str | None = None
    occurred_at: Moment | None = None


class Changed(msgspec.Struct, frozen=True, gc=False, tag_field="type", tag="order.status_changed"):
    """An order's status was set."""

    order_id: str
    status: Status
    event_id: str | None = None
    occurred_at: Moment | None = None


class _Control(msgspec.Struct, frozen=True, kw_only=True, tag_field="type"):
    event_id: str
    topic_id: Annotated[str, Meta(min_length=1, max_length=100)]
    partition: Annotated[int, Meta(ge=0, le=2**31 - 1)]
    offset: Offset
    author: Annotated[str, Meta(min_length=1, max_length=200)]
    reason: Annotated[str, Meta(max_length=2_000)] = ""
    operation: str | None = None
    occurred_at: Moment | None = None


class Repaired(_Control, frozen=True, kw_only=True, tag="message.repaired"):
    """A mended event is to stand at the place of the named record."""

    if_last: Offset
    event: msgspec.Raw


class Discarded(_Control, frozen=True, kw_only=True, tag="message.discarded"):
    """The named record is given up."""

    if_last: Offset | None = None
    successor: str | None = None


class Damaged(msgspec.Struct, frozen=True, gc=False):
    """A value that says nothing, why, and the event id that stands in it all the same."""

    reason: Reason
    event_id: str | None = None


class _Outline(msgspec.Struct, gc=False):
    type: msgspec.Raw
    event_id: msgspec.Raw = msgspec.Raw(b"null")


Event = Created | Changed
Control = Repaired | Discarded
Said = Created | Changed | Repaired | Discarded | Damaged

EVENT_TYPES = ("order.created", "order.status_changed")
CONTROL_TYPES = ("message.repaired", "message.discarded")

_values: msgspec.json.Decoder[Event | Control] = msgspec.json.Decoder(Event | Control)
_outlines = msgspec.json.Decoder(_Outline)
_objects = msgspec.json.Decoder(dict[str, msgspec.Raw])
_texts = msgspec.json.Decoder(str)

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
    return said if _holds(said) else _refused(value)


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


def _holds(said: Event | Control) -> bool:
    """Check the rules that types alone cannot say."""
    kind = type(said)
    if kind is Changed:
        return is_name(said.order_id) and _is_id(said.event_id)
    if kind is Created:
        return is_name(said.order_id) and _is_id(said.event_id) and _cart_holds(said.order, said.order_id)  # type: ignore[union-attr]
    if not (_UUID.fullmatch(said.event_id or "") and _is_id(said.operation) and not said.author.isspace()):  # type: ignore[union-attr]
        return False
    if kind is Discarded:
        return _is_id(said.successor)  # type: ignore[union-attr]
    return mended(said) is not None  # type: ignore[arg-type]


def mended(control: Repaired) -> Event | None:
    """Give the event that a repair carries."""
    event = read(bytes(control.event))
    return event if isinstance(event, Created | Changed) else None


def _is_id(text: str | None) -> bool:
    return text is None or _UUID.fullmatch(text) is not None


def is_name(text: str) -> bool:
    """1 to 128 characters, not blank, no control characters."""
    if not 0 < len(text) <= NAME_MAX or text.isspace():
        return False
    return text.isprintable() or not _CONTROL_CHARACTER.search(text)


def _cart_holds(cart: Cart, order_id: str) -> bool:
    if cart.order_id != order_id or not is_name(cart.customer_id) or not 0 < cart.total_amount <= TOTAL_MAX:
        return False
    total = 0
    for item in cart.items:
        price = item.price
        if not 0 < price <= PRICE_MAX or not is_name(item.item_id):
            return False
        cents = round(price * 100)
        if cents / 100 != price:  # more than two places: no number of cents is this float
            return False
        total += cents * item.quantity
    return total / 100 == cart.total_amount


def _refused(value: bytes) -> Damaged:
    """Say why JSON, or what looks like it, is no valid event."""
    try:
        outline = _outlines.decode(value)
        kind = _texts.decode(outline.type)
    except (msgspec.ValidationError, RecursionError):
        return Damaged("invalid_event", _id_in(value))
    except msgspec.DecodeError:
        return MALFORMED
    if kind in CONTROL_TYPES:
        return Damaged("invalid_control", _known(outline.event_id))
    return Damaged("invalid_event" if kind in EVENT_TYPES else "unknown_type", _known(outline.event_id))


def _id_in(value: bytes) -> str | None:
    """Find the event id in an object whose type is none."""
    try:
        return _known(_objects.decode(value).get("event_id"))
    except (msgspec.DecodeError, RecursionError):
        return None


def _known(raw: msgspec.Raw | None) -> str | None:
    try:
        text = _texts.decode(raw or b"null")
    except msgspec.DecodeError:
        return None
    return text if _UUID.fullmatch(text) else None


def derived_id(topic_id: str, partition: int, offset: int, key: bytes, value: bytes) -> str:
    """Name a record that came without an event id, by where and what it is."""
    whole = b"%s/%d/%d/%s%s%s" % (topic_id.encode(), partition, offset, len(key).to_bytes(4, "big"), key, value)
    return str(uuid.uuid5(_DERIVED, hashlib.blake2b(whole, digest_size=32).hexdigest()))
