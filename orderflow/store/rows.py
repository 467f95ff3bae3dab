"""The rows of the projection, a type for each table: the columns, in the words of orders.sql."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple, get_args

from orderflow.events import wire_time
from orderflow.orders import JSON_ENCODER, Money

if TYPE_CHECKING:
    from orderflow.orders import Order

#: Where a record is: epoch, partition, offset.
Place = tuple[int, int, int]


def place_id(place: Place) -> str:
    """Name a place in one word: what people and routes call a skip by."""
    return "-".join(map(str, place))


def parse_place_id(text: str) -> Place | None:
    """Read the name of a place; None when it is none."""
    parts = text.split("-")
    if len(parts) != 3 or not all(part.isascii() and part.isdigit() and len(part) < 19 for part in parts):  # noqa: PLR2004
        return None
    epoch, partition, offset = map(int, parts)
    return epoch, partition, offset


SkipState = Literal["open", "repaired", "healed", "discarded"]
SKIP_STATES: tuple[SkipState, ...] = get_args(SkipState)


class HistoryRow(NamedTuple):
    """What stands at a place: a record that decoded, or a mended event; the columns of the table."""

    epoch: int
    partition: int
    offset: int
    order_id: str | None
    event_id: str
    type: str
    payload: str
    fingerprint: bytes
    logged_at: int
    trace_id: str | None
    outcome: str
    reason: str | None

    @property
    def place(self) -> Place:
        """Where it is."""
        return self[:3]


class SkippedRow(NamedTuple):
    """A record that was not applied, as it came; the columns of the table."""

    epoch: int
    partition: int
    offset: int
    reason: str
    detail: str
    key: bytes | None
    value: bytes | None
    headers: str
    logged_at: int | None
    order_id: str | None
    placed: int
    event_id: str | None
    exception: str | None
    attempts: int
    trace: str | None
    trace_id: str | None
    opened_by: int
    state: SkipState = "open"
    repairs: int = 0

    @property
    def place(self) -> Place:
        """Where it is."""
        return self[:3]


class ControlRow(NamedTuple):
    """A control record, and what came of it; the columns of the table."""

    epoch: int
    partition: int
    offset: int
    key: bytes | None
    order_id: str | None
    event_id: str
    fingerprint: bytes
    type: str
    named_offset: int
    if_last: int | None
    operation: str | None
    author: str
    note: str
    successor: str | None
    payload: str | None
    logged_at: int
    trace_id: str | None
    verdict: str
    detail: str
    taken_event_id: str | None


class OrderRow(NamedTuple):
    """An order; the columns of the table but ``arrival``."""

    order_id: str
    customer_id: str
    order_date: str
    currency: str
    items: str
    total_minor: int
    shipping_minor: int
    status: str
    last_epoch: int
    last_partition: int
    last_offset: int
    updated_at: int

    @classmethod
    def created(cls, order: Order, place: Place, logged_at: int) -> OrderRow:
        """Make the row of an order that the event at a place creates."""
        return cls(
            order.order_id, order.customer_id, wire_time(order.order_date).decode(), order.currency,
            JSON_ENCODER.encode(order.items).decode(), _minor(order.total_amount), _minor(order.shipping_cost),
            order.status, *place, logged_at,
        )  # fmt: skip

    def with_status(self, status: str, place: Place, logged_at: int) -> OrderRow:
        """Give the order with the status that the event at a place sets."""
        return OrderRow(*self[:-5], status, *place, logged_at)


class StatusRow(NamedTuple):
    """A status that was set, the event that set it, and the order, which an earlier batch created."""

    status: str
    last_epoch: int
    last_partition: int
    last_offset: int
    updated_at: int
    order_id: str


class PositionRow(NamedTuple):
    """How far a partition was read; the columns of the table."""

    partition: int
    epoch: int
    next_offset: int
    last_offset: int | None
    last_checksum: int | None
    last_event_id: str | None


@dataclass
class Batch:
    """What one batch of records comes to.

    ``stands``, ``restated`` and ``refolded`` are what a control changes: rows of history that are new or other, skips
    that are new or other, and orders that are other or gone (None).
    """

    history: list[HistoryRow] = field(default_factory=list)
    skipped: list[SkippedRow] = field(default_factory=list)
    created: dict[str, OrderRow] = field(default_factory=dict)
    statuses: dict[str, StatusRow] = field(default_factory=dict)
    positions: dict[int, PositionRow] = field(default_factory=dict)
    controls: list[ControlRow] = field(default_factory=list)
    stands: list[HistoryRow] = field(default_factory=list)
    restated: list[SkippedRow] = field(default_factory=list)
    refolded: dict[str, OrderRow | None] = field(default_factory=dict)


def _minor(amount: Money) -> int:
    return int(amount * 100)
