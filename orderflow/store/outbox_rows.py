"""The rows of the outbox: the columns, in the words of outbox.sql, and what is told of them."""

from __future__ import annotations

from typing import Literal, NamedTuple

from orderflow import headers
from orderflow.messages import Message

State = Literal["waiting", "held", "delivered", "discarded"]

#: An order's event, or an operator's command about a skipped message.
Kind = Literal["event", "control"]


class Command(NamedTuple):
    """What is to be added.

    ``named`` is the id of the skipped message that an operator's command is for; ``successor``, of a discard, the id of
    the event that is sent again in its stead.
    """

    message: Message
    kind: Kind
    named: str | None = None
    successor: str | None = None


class Addition(NamedTuple):
    """What became of an event that was to be added."""

    state: State  # delivered: it came to Kafka before, and the place says where
    ahead: int  # events that wait in front of it
    partition: int | None = None
    offset: int | None = None
    new: bool = True  # False: it was added before


class Entry(NamedTuple):
    """A row. Of each lane one is on its way at a time, in order of arrival."""

    seq: int
    kind: Kind
    named: str | None
    order_id: str
    event_id: str
    successor: str | None
    lane: str
    key: bytes | None
    value: bytes
    headers: bytes
    to_partition: int | None
    bytes: int
    trace_id: str
    sent: int
    spooled_at: int
    state: State
    reason: str | None
    author: str | None
    partition: int | None
    offset: int | None
    settled_at: int | None

    def message(self) -> Message:
        """Give the event as it is to be published."""
        pairs = tuple(headers.pairs(self.headers))
        return Message(self.key, self.value, pairs, self.order_id, self.event_id, self.trace_id, self.to_partition)


class Totals(NamedTuple):
    """How much there is, in events and controls, and in bytes; ``delivered_ever`` only grows."""

    waiting: int
    held: int
    delivered: int
    discarded: int
    bytes_undelivered: int
    bytes_delivered: int
    delivered_ever: int

    @property
    def undelivered(self) -> int:
        """What was accepted and did not come to Kafka yet."""
        return self.waiting + self.held


#: Reads rows as `Entry` has their columns.
SELECT = f"SELECT {', '.join(Entry._fields)} FROM outbox"  # noqa: S608 (no outside text)
