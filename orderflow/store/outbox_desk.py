"""The outbox as an operator sees it: looking at what waits, or is under way, and settling what is held."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from orderflow.clock import now_ms
from orderflow.store.outbox_file import OutboxFile
from orderflow.store.outbox_rows import SELECT, Entry, State

if TYPE_CHECKING:
    from collections.abc import Collection

    from orderflow.settings import Settings


#: What may be asked for, and the states that it means.
STATES: dict[str, tuple[State, ...]] = {
    "undelivered": ("waiting", "held"),
    "waiting": ("waiting",),
    "held": ("held",),
    "delivered": ("delivered",),
    "discarded": ("discarded",),
}


#: More rows of one order are not told of at once.
OF_ORDER_MAX = 1_000


class OutboxDesk:
    """The table, for people. Thread-safe."""

    def __init__(self, settings: Settings) -> None:
        self._file = OutboxFile(settings)

    def oldest_waiting_at(self) -> int | None:
        """Tell since when the oldest undelivered event waits; None when none does."""
        return min(self.oldest_of_each().values(), default=None)

    def oldest_of_each(self) -> dict[str, int]:
        """Tell since when the oldest that the relay may deliver is ``waiting``, and since when one is ``held``.

        What waits behind one that is held is neither. A state of which there is none is missing.
        """
        return dict(self._file.query(_OLDEST_OF_EACH))

    def entries(
        self, states: Collection[State], *, order_id: str | None = None, after: int = 0, limit: int = 100
    ) -> list[Entry]:
        """Give rows in these states, of one order or of all, in order of arrival, behind the number ``after``."""
        marks = ", ".join("?" * len(states))
        of_order = "" if order_id is None else "AND order_id = ? "
        parameters = [*states, after, *([] if order_id is None else [order_id]), limit]
        sql = f"{SELECT} WHERE state IN ({marks}) AND seq > ? {of_order}ORDER BY seq LIMIT ?"  # no outside text
        return [Entry(*row) for row in self._file.query(sql, parameters)]

    def of_order(self, order_id: str) -> list[Entry]:
        """Give an order's rows, in order of arrival; the first `OF_ORDER_MAX`."""
        return [Entry(*row) for row in self._file.query(_OF_ORDER, (order_id,))]

    def find(self, name: str) -> list[Entry]:
        """Give the rows of one number or event id."""
        column = "seq" if name.isascii() and name.isdigit() and len(name) < 19 else "event_id"  # noqa: PLR2004
        value = int(name) if column == "seq" else name
        return [Entry(*row) for row in self._file.query(f"{SELECT} WHERE {column} = ? ORDER BY seq", (value,))]

    def under_way(self, named: Collection[str]) -> dict[str, Entry]:
        """Give the last control for each of these skipped messages, where there is one that was not discarded.

        It waits, is held, or was delivered: then its place says behind which offset the consumer has read it. One that
        was delivered is forgotten after `Settings.outbox_keep_delivered_s`.
        """
        found = self._file.query(_UNDER_WAY, (msgspec.json.encode(list(named)).decode(),))
        return {str(entry.named): entry for entry in (Entry(*row) for row in found)}

    def held(self) -> list[int]:
        """Give the numbers of all that are held."""
        return [seq for (seq,) in self._file.query("SELECT seq FROM outbox WHERE state = 'held' ORDER BY seq")]

    def retry(self, seqs: Collection[int]) -> int:
        """Let held events wait for their delivery again; tell how many were held."""
        with self._file.transaction() as connection:
            return sum(connection.execute(_RETRY, (seq,)).rowcount for seq in seqs)

    def discard(self, seqs: Collection[int], author: str, reason: str) -> int:
        """Give held events up for good, so that the later ones of their orders go on; tell how many were held.

        With an event that was sent again for a skipped message goes what would have closed that message.
        """
        said = (author, reason, now_ms())
        with self._file.transaction() as connection:
            given_up = 0
            for seq in seqs:
                given_up += connection.execute(_DISCARD + "WHERE seq = ?4 AND state = 'held'", (*said, seq)).rowcount
                connection.execute(_DISCARD + _ITS_FOLLOWER, (*said, seq))
            return given_up


_OLDEST_OF_EACH = """
SELECT state, spooled_at FROM outbox WHERE seq IN (
    SELECT min(seq) FROM outbox
    WHERE state = 'waiting' AND lane NOT IN (SELECT lane FROM outbox WHERE state = 'held')
    UNION ALL SELECT min(seq) FROM outbox WHERE state = 'held'
)
"""

#: In two parts, each of which an index answers.
_OF_ORDER = f"""
{SELECT} WHERE order_id = ?1 AND state != 'discarded'
UNION ALL {SELECT} WHERE order_id = ?1 AND state = 'discarded'
ORDER BY seq LIMIT {OF_ORDER_MAX}
"""

#: In order of arrival, so that of each message the last comes last.
_UNDER_WAY = f"""
{SELECT} WHERE named IN (SELECT value FROM json_each(?)) AND kind = 'control' AND state != 'discarded' ORDER BY seq
"""  # noqa: S608 (no outside text)

_RETRY = "UPDATE outbox SET state = 'waiting' WHERE seq = ? AND state = 'held'"

_DISCARD = "UPDATE outbox SET state = 'discarded', author = ?1, reason = ?2, settled_at = ?3 "

_ITS_FOLLOWER = """
WHERE successor = (SELECT event_id FROM outbox WHERE seq = ?4 AND kind = 'event' AND state = 'discarded')
    AND state IN ('waiting', 'held')
"""
