"""Adding a row to the outbox: whether there is room, whether it is there already, what it takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orderflow import headers
from orderflow.clock import now_ms
from orderflow.store.outbox_rows import Addition

if TYPE_CHECKING:
    from orderflow.messages import Message
    from orderflow.store.outbox_rows import Command, Totals
    from orderflow.store.sqlite import Connection

#: What a row takes beside its key, value and headers, more or less: ids, numbers, its share of the indexes.
ROW_BYTES = 400


class Room:
    """How much room is left while rows are added; from the first that finds none on there is none."""

    def __init__(self, totals: Totals, events_max: int, bytes_max: int) -> None:
        self.events, self.bytes, self.ahead = totals.undelivered, totals.bytes_undelivered, totals.waiting
        self.events_max, self.bytes_max = events_max, bytes_max
        self._full = False

    def __str__(self) -> str:
        return (
            f"{self.events} events of at most {self.events_max} wait in it, "
            f"{self.bytes / 2**20:.1f} MiB of at most {self.bytes_max / 2**20:.0f} MiB."
        )

    def take(self, size: int) -> bool:
        """Take the room for one more row, where there is some."""
        self._full = self._full or self.events >= self.events_max or self.bytes + size > self.bytes_max
        if not self._full:
            self.events, self.bytes = self.events + 1, self.bytes + size
        return not self._full


def add(connection: Connection, room: Room, command: Command, *, sent: bool) -> Addition | None:
    """Add a row that is not there yet, within a transaction; None where there is no room for it.

    What an operator asks for again is delivered again: the log may have lost it, and a copy changes nothing.
    """
    found = _find(connection, command.message, sent=sent)
    if found is not None and not (command.named and found.state == "delivered"):
        return found
    size, row = _row(command, sent=sent)
    if not room.take(size):
        return None
    connection.execute(_ADD if found is None else _DELIVER_AGAIN, row)
    room.ahead += 1
    return Addition("waiting", room.ahead - 1, new=found is None)


_ADD = """
INSERT INTO outbox (
    kind, named, order_id, event_id, successor, key, value, headers, to_partition, bytes, trace_id, sent, spooled_at
) VALUES (
    :kind, :named, :order_id, :event_id, :successor, :key, :value, :headers, :to_partition, :bytes, :trace_id, :sent,
    :spooled_at
)
"""

_DELIVER_AGAIN = """
UPDATE outbox SET state = 'waiting', partition = NULL, offset = NULL, settled_at = NULL, spooled_at = :spooled_at
WHERE order_id = :order_id AND event_id = :event_id AND state = 'delivered'
"""


def _row(command: Command, *, sent: bool) -> tuple[int, dict[str, object]]:
    """Give what the row takes, and its values."""
    message = command.message
    packed = headers.to_bytes(message.headers)
    size = len(message.key or b"") + len(message.value or b"") + len(packed) + ROW_BYTES
    return size, {
        "kind": command.kind,
        "named": command.named,
        "order_id": message.order_id,
        "event_id": message.event_id,
        "successor": command.successor,
        "key": message.key,
        "value": message.value,
        "headers": packed,
        "to_partition": message.partition,
        "bytes": size,
        "trace_id": message.trace_id,
        "sent": int(sent),
        "spooled_at": now_ms(),
    }


def _find(connection: Connection, message: Message, *, sent: bool) -> Addition | None:
    """Tell of an event that was added before, by an earlier attempt of its caller."""
    row = connection.execute(
        "SELECT seq, state, partition, offset FROM outbox WHERE order_id = ? AND event_id = ? AND state != 'discarded'",
        (message.order_id, message.event_id),
    ).fetchone()
    if row is None:
        return None
    seq, state, partition, offset = row
    if sent:
        connection.execute("UPDATE outbox SET sent = 1 WHERE seq = ?", (seq,))
    (ahead,) = connection.execute("SELECT count(*) FROM outbox WHERE state = 'waiting' AND seq < ?", (seq,)).fetchone()
    return Addition(state, ahead, partition, offset, new=False)
