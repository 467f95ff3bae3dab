"""The rows of the projection, a type for each table: the columns, in the words of orders.sql."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple


class HistoryRow(NamedTuple):
    """A record that decoded; the columns of the table."""

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
    event_id: str | None
    trace: str | None
    trace_id: str | None


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

    def with_status(self, status: str, epoch: int, partition: int, offset: int, updated_at: int) -> OrderRow:
        """Give the order with the status that the event at a place sets."""
        return OrderRow(*self[:-5], status, epoch, partition, offset, updated_at)


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
    """What one batch of records comes to."""

    history: list[HistoryRow] = field(default_factory=list)
    skipped: list[SkippedRow] = field(default_factory=list)
    created: dict[str, OrderRow] = field(default_factory=dict)
    statuses: dict[str, StatusRow] = field(default_factory=dict)
    positions: dict[int, PositionRow] = field(default_factory=dict)
