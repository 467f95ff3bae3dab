"""What is known of the places of an order's history: the questions that judging and applying a control asks.

They run on the writer's connection, and on a copy for a preview.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from orderflow.records import Anchor, Position
from orderflow.store.rows import ControlRow, HistoryRow, SkippedRow

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orderflow.store.rows import Place
    from orderflow.store.sqlite import Connection

_HISTORY = f"SELECT {', '.join(HistoryRow._fields)} FROM history"  # noqa: S608 (no outside text)
_SKIPPED = f"SELECT {', '.join(SkippedRow._fields)} FROM skipped_messages"  # noqa: S608 (no outside text)
_CONTROLS = f"SELECT {', '.join(ControlRow._fields)} FROM controls"  # noqa: S608 (no outside text)

_AT = " WHERE epoch = ? AND partition = ? AND offset = ?"


#: Runs a statement on the tables that are meant, and gives its rows.
Ask = Callable[[str], Iterable[Any]]


def current_epoch(ask: Ask) -> tuple[int, str] | None:
    """Give the current epoch and its topic id; None before the first."""
    rows = list(ask("SELECT epoch, topic_id FROM log_epochs ORDER BY epoch DESC LIMIT 1"))
    return (rows[0][0], rows[0][1]) if rows else None


def positions(ask: Ask) -> dict[int, Position]:
    """Give where reading goes on, by partition."""
    return {
        partition: Position(next_offset, None if last is None else Anchor(last, checksum))
        for partition, next_offset, last, checksum in ask(
            "SELECT partition, next_offset, last_offset, last_checksum FROM positions"
        )
    }


class Places:
    """Questions to one connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def skip_at(self, place: Place) -> SkippedRow | None:
        """Give the skip at a place, whatever its state."""
        rows = self._all(_SKIPPED + _AT, place)
        return SkippedRow(*rows[0]) if rows else None

    def history_at(self, place: Place) -> HistoryRow | None:
        """Give what stands at a place."""
        rows = self._all(_HISTORY + _AT, place)
        return HistoryRow(*rows[0]) if rows else None

    def control_at(self, place: Place) -> ControlRow | None:
        """Give the control at a place."""
        rows = self._all(_CONTROLS + _AT, place)
        return ControlRow(*rows[0]) if rows else None

    def first_control(self, epoch: int, partition: int, key: bytes | None, event_id: str) -> ControlRow | None:
        """Give the first control of that key with that id."""
        rows = self._all(
            f"{_CONTROLS} WHERE event_id = ? AND epoch = ? AND partition = ? AND key IS ? ORDER BY offset LIMIT 1",
            (event_id, epoch, partition, key),
        )
        return ControlRow(*rows[0]) if rows else None

    def last_offset(self, epoch: int, order_id: str, operation: str | None) -> int | None:
        """Tell where the order's last record is; controls of that operation are left out."""
        ((offset,),) = self._all(_LAST, {"epoch": epoch, "order_id": order_id, "operation": operation})
        return None if offset is None else int(offset)

    def order_exists(self, order_id: str) -> bool:
        """Tell whether there is such an order."""
        return bool(self._all("SELECT 1 FROM orders WHERE order_id = ?", (order_id,)))

    def history_of(self, order_id: str) -> list[HistoryRow]:
        """Give an order's history, in the sequence of places."""
        rows = self._all(_HISTORY + " WHERE order_id = ? ORDER BY epoch, offset", (order_id,))
        return [HistoryRow(*row) for row in rows]

    def skips_of(self, order_id: str) -> dict[Place, SkippedRow]:
        """Give the skips that lie, or would lie, in an order's history."""
        rows = [SkippedRow(*row) for row in self._all(_SKIPPED + " WHERE order_id = ? AND placed = 1", (order_id,))]
        return {row.place: row for row in rows}

    def taken_by(self, order_id: str) -> list[tuple[Place, str]]:
        """Give the event ids that discards took, and their places."""
        sql = "SELECT epoch, partition, offset, taken_event_id FROM controls WHERE order_id = ?"
        rows = self._all(sql + " AND taken_event_id IS NOT NULL", (order_id,))
        return [((epoch, partition, offset), event_id) for epoch, partition, offset, event_id in rows]

    def _all(self, sql: str, parameters: Sequence[object] | dict[str, object]) -> list[Any]:
        return self._connection.execute(sql, parameters).fetchall()


_LAST = """
SELECT max(offset) FROM (
    SELECT max(offset) AS offset FROM history WHERE order_id = :order_id AND epoch = :epoch
    UNION ALL
    SELECT max(offset) FROM skipped_messages WHERE order_id = :order_id AND placed = 1 AND epoch = :epoch
    UNION ALL
    SELECT max(offset) FROM controls
    WHERE order_id = :order_id AND epoch = :epoch AND verdict = 'accepted'
        AND (:operation IS NULL OR operation IS NOT :operation)
)
"""
