"""The outbox: events that Kafka did not acknowledge, until it does. One row an event, in order of arrival.

cart_service adds them, the relay settles them; `orderflow.store.outbox_desk` is for operators. A commit costs several
syncs of the disk, so events are added and settled in groups.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from orderflow import headers
from orderflow.clock import now_ms
from orderflow.errors import OutboxFull
from orderflow.store.outbox_file import OutboxFile
from orderflow.store.outbox_rows import SELECT, Addition, Entry, Totals

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from orderflow.messages import Message
    from orderflow.settings import Settings
    from orderflow.store.sqlite import Connection

#: What a row takes beside its key, value and headers, more or less: ids, numbers, its share of the indexes.
ROW_BYTES = 400

#: What is written to find out whether the disk has room again: a page or two are free even on a full one.
TRIAL_BYTES = 128 * 1024

#: Rows that one transaction removes: others want to write, too.
PRUNE_ROWS = 1_000


class _Room:
    """How much room is left while events are added; from the first that finds none on there is none."""

    def __init__(self, totals: Totals, events_max: int, bytes_max: int) -> None:
        self.events, self.bytes, self.ahead = totals.undelivered, totals.bytes_undelivered, totals.waiting
        self.events_max, self.bytes_max = events_max, bytes_max
        self._full = False

    def take(self, size: int) -> bool:
        """Take the room for one more event, where there is some."""
        self._full = self._full or self.events >= self.events_max or self.bytes + size > self.bytes_max
        if not self._full:
            self.events, self.bytes = self.events + 1, self.bytes + size
        return not self._full


class Outbox:
    """The table. Thread-safe."""

    def __init__(self, settings: Settings) -> None:
        self._file = OutboxFile(settings)
        self._events_max = settings.outbox_max_events
        self._bytes_max = settings.outbox_max_bytes

    def close(self) -> None:
        """Close the file; the next use opens it again."""
        self._file.close()

    # Adding.

    def add(self, events: Sequence[tuple[Message, bool]]) -> list[Addition | OutboxFull]:
        """Add events, and whether each was sent, in one transaction; say of each what became of it.

        An event that is there already is not added again. From the first that finds no room none is added.

        Raises:
            StoreUnavailable: none of them was added.

        """
        with self._file.transaction() as connection:
            room = _Room(_totals(connection), self._events_max, self._bytes_max)
            return [self._add(connection, room, message, sent=sent) for message, sent in events]

    def _add(self, connection: Connection, room: _Room, message: Message, *, sent: bool) -> Addition | OutboxFull:
        found = _find(connection, message, sent=sent)
        if found is not None:
            return found
        size, row = _row(message, sent=sent)
        if not room.take(size):
            return OutboxFull(
                f"The outbox is full: {room.events} events of at most {room.events_max} wait in it, "
                f"{room.bytes / 2**20:.1f} MiB of at most {room.bytes_max / 2**20:.0f} MiB."
            )
        connection.execute(_ADD, row)
        room.ahead += 1
        return Addition("waiting", room.ahead - 1)

    def try_to_write(self) -> None:
        """Write as much as some events take, and remove it again; the file keeps the room for them.

        Raises:
            StoreError: the outbox cannot be written.

        """
        with self._file.transaction() as connection:
            connection.execute("DELETE FROM outbox_trial")
            connection.execute("INSERT INTO outbox_trial (value) VALUES (zeroblob(?))", (TRIAL_BYTES,))
        with self._file.transaction() as connection:
            connection.execute("DELETE FROM outbox_trial")

    def waiting_orders(self) -> set[str]:
        """Give the orders that have an undelivered event."""
        ((ids,),) = self._file.query(  # as one value: fetching rows lets go of Python's lock for each
            "SELECT json_group_array(DISTINCT order_id) FROM outbox WHERE state IN ('waiting', 'held')"
        )
        return msgspec.json.decode(ids, type=set[str])

    # Delivering.

    def held_orders(self) -> set[str]:
        """Give the orders that a held event holds."""
        return {order_id for (order_id,) in self._file.query("SELECT order_id FROM outbox WHERE state = 'held'")}

    def deliverable(self, limit: int) -> list[Entry]:
        """Give the events that wait longest, in order of arrival, but those of orders that are held.

        Where a few orders fill them, the first event of each other order comes behind them.
        """
        oldest = [Entry(*row) for row in self._file.query(_DELIVERABLE, (limit,))]
        orders = {entry.order_id for entry in oldest}
        if len(oldest) < limit or len(orders) > limit // 2:
            return oldest
        ids = msgspec.json.encode(sorted(orders)).decode()
        firsts = self._file.query(_FIRST_OF_OTHERS, (oldest[-1].seq, ids, limit - len(orders)))
        return [*oldest, *(Entry(*row[:-1]) for row in firsts)]

    def settle(
        self,
        *,
        delivered: Iterable[tuple[int, int, int]] = (),
        held: Iterable[tuple[int, str]] = (),
        sent: Iterable[int] = (),
    ) -> None:
        """Take note of what came of events.

        ``delivered`` was acknowledged (seq, partition, offset), ``held`` is refused for good (seq, reason), ``sent``
        was handed to the network without an acknowledgement (seq).
        """
        now = now_ms()
        with self._file.transaction() as connection:
            connection.executemany(
                "UPDATE outbox SET state = 'delivered', partition = ?2, offset = ?3, settled_at = ?4, reason = NULL "
                "WHERE seq = ?1 AND state = 'waiting'",
                [(*place, now) for place in delivered],
            )
            connection.executemany(
                "UPDATE outbox SET state = 'held', reason = ?2 WHERE seq = ?1 AND state = 'waiting'", held
            )
            connection.executemany("UPDATE outbox SET sent = 1 WHERE seq = ?", [(seq,) for seq in sent])

    def prune(self, keep_s: float) -> int:
        """Remove some of what was delivered longer ago than that, or is beyond the bound; tell how many."""
        totals = self.totals()
        if not totals.delivered:
            return 0
        too_many = max(0, totals.delivered - self._events_max)
        if totals.bytes_delivered > self._bytes_max:
            too_many = max(too_many, PRUNE_ROWS)
        before = now_ms() - round(keep_s * 1000)
        oldest = self._file.query(_OLDEST_DELIVERED, (PRUNE_ROWS,))
        gone = [(seq,) for index, (seq, at) in enumerate(oldest) if index < too_many or at < before]
        if gone:
            with self._file.transaction() as connection:
                connection.executemany("DELETE FROM outbox WHERE seq = ?", gone)
        return len(gone)

    # Looking.

    def totals(self) -> Totals:
        """Tell how much there is."""
        return _as_totals(self._file.query(_TOTALS))

    def last_seq(self) -> int:
        """Tell the number of the event that was added last."""
        ((seq,),) = self._file.query("SELECT coalesce(max(seq), 0) FROM outbox")
        return int(seq)

    def drained_up_to(self, seq: int) -> bool:
        """Tell whether all up to that one is delivered that no held event holds up."""
        ((some,),) = self._file.query(
            "SELECT EXISTS (SELECT 1 FROM outbox WHERE state = 'waiting' AND seq <= ? "
            "AND order_id NOT IN (SELECT order_id FROM outbox WHERE state = 'held'))",
            (seq,),
        )
        return not some


_ADD = """
INSERT INTO outbox (order_id, event_id, key, value, headers, bytes, trace_id, sent, spooled_at)
VALUES (:order_id, :event_id, :key, :value, :headers, :bytes, :trace_id, :sent, :spooled_at)
"""

_DELIVERABLE = f"""
{SELECT} WHERE state = 'waiting' AND order_id NOT IN (SELECT order_id FROM outbox WHERE state = 'held')
ORDER BY seq LIMIT ?
"""  # noqa: S608 (no outside text)

#: SQLite takes the other columns from the row that has the least seq, which comes last.
_FIRST_OF_OTHERS = f"""
SELECT {", ".join(Entry._fields)}, min(seq) FROM outbox
WHERE state = 'waiting' AND seq > ? AND order_id NOT IN (SELECT value FROM json_each(?))
    AND order_id NOT IN (SELECT order_id FROM outbox WHERE state = 'held')
GROUP BY order_id ORDER BY min(seq) LIMIT ?
"""  # noqa: S608 (no outside text)

_OLDEST_DELIVERED = "SELECT seq, settled_at FROM outbox WHERE state = 'delivered' ORDER BY seq LIMIT ?"

_TOTALS = "SELECT state, events, bytes, ever FROM outbox_totals"


def _totals(connection: Connection) -> Totals:
    return _as_totals(connection.execute(_TOTALS).fetchall())


def _as_totals(rows: Sequence[tuple[str, int, int, int]]) -> Totals:
    events = {state: count for state, count, _, _ in rows}
    size = {state: count for state, _, count, _ in rows}
    (delivered_ever,) = (ever for state, _, _, ever in rows if state == "delivered")
    return Totals(
        events["waiting"],
        events["held"],
        events["delivered"],
        events["discarded"],
        size["waiting"] + size["held"],
        size["delivered"],
        delivered_ever,
    )


def _row(message: Message, *, sent: bool) -> tuple[int, dict[str, object]]:
    """Give what the row takes, and its values."""
    packed = headers.to_bytes(message.headers)
    size = len(message.key) + len(message.value) + len(packed) + ROW_BYTES
    return size, {
        "order_id": message.order_id,
        "event_id": message.event_id,
        "key": message.key,
        "value": message.value,
        "headers": packed,
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
