"""The facts on the wire: bytes -> event, event -> bytes. One decoder for Kafka, and its parts for HTTP.

`decode` trusts nothing. What it refuses it refuses with a `SkipReason` and a sentence. See docs/events.md.
"""

from __future__ import annotations

import hashlib
import random
import re
import uuid
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from orderflow.errors import InvalidEvent
from orderflow.orders import JSON_ENCODER, Order, OrderId, Status, from_json

#: UUIDv5 namespace of the ids given to records that came without one.
DERIVED_IDS = uuid.UUID("6f1f9d7e-52b1-5c0e-9b60-0a4c3a5d7e11")

#: Levels of nesting that are read.
NESTING_MAX = 500

#: A string, closed or not. It gives nothing back (`++`, `*+`): a text full of quotes costs what any other does.
_STRINGS = re.compile(r'"(?:[^"\\]++|\\.?)*+"?', re.DOTALL)
_BRACKETS = re.compile(r"[\[\]{}]")

EventId = Annotated[str, Meta(pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}(?![\s\S])")]
Moment = Annotated[datetime, Meta(tz=True)]


class SkipReason(StrEnum):
    """Why a record was not applied: the closed set of words that logs, tables and answers use."""

    MALFORMED_JSON = "malformed_json"
    INVALID_EVENT = "invalid_event"
    UNKNOWN_TYPE = "unknown_type"
    MISSING_KEY = "missing_key"
    KEY_MISMATCH = "key_mismatch"
    WRONG_PARTITION = "wrong_partition"
    UNREADABLE_RECORD = "unreadable_record"
    UNKNOWN_ORDER = "unknown_order"
    DUPLICATE_CREATE = "duplicate_create"
    EVENT_ID_CONFLICT = "event_id_conflict"
    INTERNAL_ERROR = "internal_error"
    INVALID_CONTROL = "invalid_control"

    @property
    def sentence(self) -> str:
        """What the reason means, for people."""
        return _SENTENCES[self]


_SENTENCES = {
    SkipReason.MALFORMED_JSON: "The value is not JSON.",
    SkipReason.INVALID_EVENT: "The value is JSON, but no valid event.",
    SkipReason.UNKNOWN_TYPE: "The event has a type that this system does not know.",
    SkipReason.MISSING_KEY: "The record has no key, so it is in no order's history.",
    SkipReason.KEY_MISMATCH: "The record's key is not the id of the order in its value.",
    SkipReason.WRONG_PARTITION: "The record is not on the partition of its key.",
    SkipReason.UNREADABLE_RECORD: "The record cannot be read.",
    SkipReason.UNKNOWN_ORDER: "The event updates an order that was not created before it.",
    SkipReason.DUPLICATE_CREATE: "The event creates an order that exists; the first one stays.",
    SkipReason.EVENT_ID_CONFLICT: "An earlier event of the order has the same id and other content.",
    SkipReason.INTERNAL_ERROR: "Applying the record raised an error that nobody foresaw.",
    SkipReason.INVALID_CONTROL: "The record is a repair or a discard that names nothing it could act on.",
}

#: Skips whose record does not decode, and yet has a place in the history of the order its key names.
DAMAGED = frozenset(
    {SkipReason.MALFORMED_JSON, SkipReason.INVALID_EVENT, SkipReason.UNKNOWN_TYPE, SkipReason.INTERNAL_ERROR}
)


class _Event(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False, tag_field="type"):
    """What every event has."""

    order_id: OrderId
    event_id: EventId | None = None
    occurred_at: Moment | None = None


class OrderCreated(_Event, frozen=True, kw_only=True, tag="order.created"):
    """An order came to be."""

    order: Order

    def __post_init__(self) -> None:
        if self.order.order_id != self.order_id:
            raise ValueError(
                f"Expected `order.orderId` to be `order_id` {self.order_id!r}, got {self.order.order_id!r}"
            )


class StatusChanged(_Event, frozen=True, kw_only=True, tag="order.status_changed"):
    """An order's status was set."""

    status: Status


Event = OrderCreated | StatusChanged
TYPES = {kind: str(kind.__struct_config__.tag) for kind in (OrderCreated, StatusChanged)}


class _Typed(msgspec.Struct):
    type: str


class _Named(msgspec.Struct):
    event_id: EventId


_decoder: msgspec.json.Decoder[Event] = msgspec.json.Decoder(Event, dec_hook=from_json)
_type_decoder = msgspec.json.Decoder(_Typed)
_name_decoder = msgspec.json.Decoder(_Named)
_json_decoder = msgspec.json.Decoder(msgspec.Raw)


def text_of(raw: bytes | None) -> str:
    """Decode UTF-8.

    Raises:
        InvalidEvent: there is no value, its bytes are no UTF-8, wherever in it they stand, or it is nested too deeply.

    """
    if raw is None:
        raise InvalidEvent(SkipReason.MALFORMED_JSON, "The record has no value.")
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        raise InvalidEvent(SkipReason.MALFORMED_JSON, f"The value is not UTF-8: {error}.") from None
    if text.count("[") + text.count("{") > NESTING_MAX and _depth(text) > NESTING_MAX:
        raise InvalidEvent(SkipReason.MALFORMED_JSON, f"The JSON is nested more than {NESTING_MAX} levels deep.")
    return text


def _depth(text: str) -> int:
    """Tell how deep JSON is nested. How deep the decoder gets depends on the stack that it is called with."""
    depth = deepest = 0
    for bracket in _BRACKETS.findall(_STRINGS.sub("", text)):
        depth += 1 if bracket in "[{" else -1
        deepest = max(deepest, depth)
    return deepest


def decode(raw: bytes | None) -> Event:
    """Read one record's value.

    Raises:
        InvalidEvent: it is no event; the error has the reason and a sentence.

    """
    return decode_text(text_of(raw))


def decode_text(text: str) -> Event:
    """Read one record's value, as `decode` does."""
    try:
        return _decoder.decode(text)
    except msgspec.ValidationError as error:
        raise _invalid(text, str(error)) from None
    except msgspec.DecodeError as error:
        raise InvalidEvent(SkipReason.MALFORMED_JSON, f"{error}.") from None
    except RecursionError:
        raise InvalidEvent(SkipReason.MALFORMED_JSON, "The JSON is nested too deeply.") from None


def type_of(raw: bytes | str) -> str | None:
    """Give the type that a JSON object names, whatever else it holds; None where that is not to be had."""
    try:
        return _type_decoder.decode(raw).type
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def claimed_event_id(raw: bytes) -> str | None:
    """Give the valid event id that a JSON object names, whatever else it holds; None where there is none."""
    try:
        return _name_decoder.decode(raw).event_id
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _invalid(text: str, problem: str) -> InvalidEvent:
    try:
        _json_decoder.decode(text)
    except (msgspec.DecodeError, RecursionError) as error:  # behind the field that was wrong, it is no JSON
        return InvalidEvent(SkipReason.MALFORMED_JSON, f"{error}.")
    kind = type_of(text)
    if kind is not None and kind not in TYPES.values():
        return InvalidEvent(
            SkipReason.UNKNOWN_TYPE, f"The type {kind[:80]!r} is not one of {', '.join(TYPES.values())}."
        )
    return InvalidEvent(SkipReason.INVALID_EVENT, f"{problem}.")


def encode(event: Event) -> bytes:
    """Write an event as one record's value. An id or time that is not known is left out."""
    return JSON_ENCODER.encode(event)


def fingerprint(event: Event) -> bytes:
    """Hash an event's content, times and its own id apart: equal for two copies of one fact. 16 bytes."""
    if isinstance(event, OrderCreated):
        order = event.order
        content: tuple[Any, ...] = (
            "order.created", event.order_id, order.customer_id, order.items, order.total_amount, order.currency,
        )  # fmt: skip
    else:
        content = ("order.status_changed", event.order_id, event.status)
    return hashlib.blake2b(JSON_ENCODER.encode(content), digest_size=16).digest()


def derived_event_id(topic_id: str, partition: int, offset: int, key: bytes, value: bytes) -> str:
    """Give a record that came without an event id one of its own: UUIDv5 of where and what it is."""
    place = f"{topic_id}/{partition}/{offset}/".encode()
    digest = hashlib.blake2b(place + len(key).to_bytes(4, "big") + key + value, digest_size=32).hexdigest()
    return str(uuid.uuid5(DERIVED_IDS, digest))


def random_event_id() -> str:
    """Name an event at random: UUIDv4, drawn without asking the kernel, which would let go of Python's lock."""
    drawn = f"{random.getrandbits(128):032x}"
    return f"{drawn[:8]}-{drawn[8:12]}-4{drawn[13:16]}-{'89ab'[int(drawn[16], 16) & 3]}{drawn[17:20]}-{drawn[20:]}"


def wire_time(moment: datetime) -> bytes:
    """Write a moment as it stands on the wire: RFC 3339."""
    return JSON_ENCODER.encode(moment)[1:-1]


def now() -> datetime:
    """Tell the time, in UTC, to the millisecond."""
    moment = datetime.now(UTC)
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)
