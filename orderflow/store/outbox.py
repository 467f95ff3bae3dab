"""The outbox: events that Kafka did not acknowledge, until it does, and operators' commands. In order of arrival.

cart_service adds events and operators add commands, the relay settles them; `orderflow.store.outbox_desk` is for
looking, and for settling what is held. A commit costs several syncs of the disk, so rows are written in groups.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from orderflow.clock import now_ms
from orderflow.errors import HealingRefused, OutboxFull
from orderflow.store.outbox_adding import Room, add
from orderflow.store.outbox_file import OutboxFile
from orderflow.store.outbox_rows import SELECT, Addition, Command, Entry, Totals

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from orderflow.messages import Message
    from orderflow.settings import Settings
    from orderflow.store.sqlite import Connection

#: What is written to find out whether the disk has room again: a page or two are free even on a full one.
TRIAL_BYTES = 128 * 1024

#: How long operators' commands are kept once they are delivered: longer than anybody holds the stream.
KEEP_COMMANDS_MS = 30 * 24 * 60 * 60 * 1000

#: Rows that one transaction removes: others want to write, too.
PRUNE_ROWS = 1_000


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
            room = self._room(connection)
            additions = (add(connection, room, Command(message, "event"), sent=sent) for message, sent in events)
            return [addition or OutboxFull(f"The outbox is full: {room}") for addition in additions]

    def add_all(self, commands: Sequence[Command]) -> list[Addition]:
        """Add what operators ask for in one transaction, all of it or nothing; say of each what became of it.

        What is there already, and was not discarded, is not added again; what was delivered is delivered again.

        Raises:
            HealingRefused: something else waits for one of the skipped messages; none was added.
            OutboxFull: there is no room for all.
            StoreUnavailable: none of them was added.
            StoreUncertain: all of them may be there; adding them again is safe.

        """
        with self._file.transaction() as connection:
            before, room = self._room(connection), self._room(connection)
            additions = []
            for command in commands:
                _refuse_second(connection, command)
                addition = add(connection, room, command, sent=False)
                if addition is None:
                    raise OutboxFull(f"The outbox has no room for all {len(commands)}, so none was added: {before}")
                additions.append(addition)
            return additions

    def _room(self, connection: Connection) -> Room:
        return Room(_as_totals(connection.execute(_TOTALS).fetchall()), self._events_max, self._bytes_max)

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
        """Give the orders that have an undelivered event. Controls hold up no event."""
        ((ids,),) = self._file.query(  # as one value: fetching rows lets go of Python's lock for each
            "SELECT json_group_array(DISTINCT order_id) FROM outbox "
            "WHERE state IN ('waiting', 'held') AND kind = 'event'"
        )
        return msgspec.json.decode(ids, type=set[str])

    # Delivering.

    def held_orders(self) -> set[str]:
        """Give the orders that a held event holds, or a held discard behind one."""
        sql = "SELECT order_id FROM outbox WHERE state = 'held' AND (kind = 'event' OR successor IS NOT NULL)"
        rows = self._file.query(sql)
        return {order_id for (order_id,) in rows}

    def deliverable(self, limit: int) -> list[Entry]:
        """Give what waits longest, in order of arrival, but those of lanes that are held.

        Where a few lanes fill them, the first of each other lane comes behind them.
        """
        oldest = [Entry(*row) for row in self._file.query(_DELIVERABLE, (limit,))]
        lanes = {entry.lane for entry in oldest}
        if len(oldest) < limit or len(lanes) > limit // 2:
            return oldest
        names = msgspec.json.encode(sorted(lanes)).decode()
        firsts = self._file.query(_FIRST_OF_OTHERS, (oldest[-1].seq, names, limit - len(lanes)))
        return [*oldest, *(Entry(*row[:-1]) for row in firsts)]

    def settle(
        self,
        *,
        delivered: Iterable[tuple[int, int, int]] = (),
        held: Iterable[tuple[int, str]] = (),
        sent: Iterable[int] = (),
    ) -> None:
        """Take note of what came of them.

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
        oldest = self._file.query(_OLDEST_DELIVERED, (now_ms() - KEEP_COMMANDS_MS, PRUNE_ROWS))
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
        """Tell whether all events up to that number are delivered that no held event holds up."""
        ((some,),) = self._file.query(
            "SELECT EXISTS (SELECT 1 FROM outbox WHERE state = 'waiting' AND seq <= ? AND kind = 'event' "
            "AND lane NOT IN (SELECT lane FROM outbox WHERE state = 'held'))",
            (seq,),
        )
        return not some


def _refuse_second(connection: Connection, command: Command) -> None:
    """Refuse a control beside another one for the same skipped message: somebody was faster."""
    if command.kind != "control":
        return
    row = connection.execute(_ANOTHER, (command.named, command.message.event_id)).fetchone()
    if row is not None:
        raise HealingRefused(
            "under-way",
            f"Something else was asked for skip {command.named} meanwhile (number {row[0]} of the outbox), and nothing "
            f"of this is asked for; look at it: `orderflow skipped show {command.named}`.",
        )


_ANOTHER = """
SELECT seq FROM outbox
WHERE named = ? AND kind = 'control' AND state IN ('waiting', 'held') AND event_id != ? LIMIT 1
"""

_DELIVERABLE = f"""
{SELECT} WHERE state = 'waiting' AND lane NOT IN (SELECT lane FROM outbox WHERE state = 'held')
ORDER BY seq LIMIT ?
"""  # noqa: S608 (no outside text)

#: SQLite takes the other columns from the row that has the least seq, which comes last.
_FIRST_OF_OTHERS = f"""
SELECT {", ".join(Entry._fields)}, min(seq) FROM outbox
WHERE state = 'waiting' AND seq > ? AND lane NOT IN (SELECT value FROM json_each(?))
    AND lane NOT IN (SELECT lane FROM outbox WHERE state = 'held')
GROUP BY lane ORDER BY min(seq) LIMIT ?
"""  # noqa: S608 (no outside text)

#: Not what operators asked for: as long as it is there, it is known what is under way, and the same again is the same.
_OLDEST_DELIVERED = """
SELECT seq, settled_at FROM outbox
WHERE state = 'delivered' AND (named IS NULL OR settled_at < ?) ORDER BY seq LIMIT ?
"""

_TOTALS = "SELECT state, events, bytes, ever FROM outbox_totals"


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
