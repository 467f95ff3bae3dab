"""What was applied and the log does not hold any more: ``lost_from_log``. It is asked of the projection's history.

An event is lost when the place that it was applied at is gone (an earlier epoch's, or in front of where the log begins
now), and none of the places that the log has is of its order and id.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import msgspec

from orderflow.store.outbox_file import OutboxFile
from orderflow.store.rows import HistoryRow

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from orderflow.settings import Settings
    from orderflow.store.reader import Reader


_COLUMNS = ", ".join(f"h.{name}" for name in HistoryRow._fields)


class LostOrder(NamedTuple):
    """An order of which something was lost.

    ``overtaken``: the log has events of it that come behind lost ones, and stand in front of them once those are sent.
    """

    order_id: str
    events: int
    overtaken: bool


class LostEvents:
    """Questions to the projection. ``begins`` is where the log begins now, by partition."""

    def __init__(self, reader: Reader, epoch: int, begins: Mapping[int, int]) -> None:
        self._reader = reader
        listed = [begins.get(number, 0) for number in range(max(begins, default=-1) + 1)]
        self._parameters: dict[str, object] = {"epoch": epoch, "begins": msgspec.json.encode(listed).decode()}

    def count(self) -> int:
        """Count the events."""
        sql = f"SELECT count(*) FROM history AS h WHERE {_LOST}"  # noqa: S608 (no outside text)
        ((count,),) = self._reader.query(sql, self._parameters)
        return int(count)

    def orders(self) -> list[LostOrder]:
        """Give the orders, by id."""
        sql = (
            f"SELECT h.order_id, count(*), max({_OVERTAKEN}) FROM history AS h WHERE {_LOST} "  # noqa: S608 (no outside text)
            "GROUP BY h.order_id ORDER BY h.order_id"
        )
        rows = self._reader.query(sql, self._parameters)
        return [LostOrder(order_id, events, bool(overtaken)) for order_id, events, overtaken in rows]

    def of(self, order_ids: Sequence[str]) -> list[HistoryRow]:
        """Give the events of some orders, those of one order in the sequence of places."""
        sql = (
            f"SELECT {_COLUMNS} FROM json_each(:order_ids) AS wanted "  # noqa: S608 (no outside text)
            f"JOIN history AS h ON h.order_id = wanted.value WHERE {_LOST} ORDER BY wanted.key, h.epoch, h.offset"
        )
        wanted = {"order_ids": msgspec.json.encode(order_ids).decode()}
        return [HistoryRow(*row) for row in self._reader.query(sql, self._parameters | wanted)]


#: The log has the place that ``n`` is at. The plus keeps SQLite from walking over the whole epoch for each row.
_ON_LOG = "+n.epoch = :epoch AND n.offset >= ifnull(:begins ->> n.partition, 0)"

_LOST = f"""
h.outcome = 'applied' AND (h.epoch < :epoch OR h.offset < ifnull(:begins ->> h.partition, 0))
AND NOT EXISTS (SELECT 1 FROM history AS n WHERE n.order_id = h.order_id AND n.event_id = h.event_id AND {_ON_LOG})
"""  # noqa: S608 (no outside text)

#: What the log has of the order counts by the place at which it was applied, not by that of its copy.
_OVERTAKEN = f"""
EXISTS (
    SELECT 1 FROM history AS n
    JOIN history AS o ON o.order_id = n.order_id AND o.event_id = n.event_id AND o.outcome = 'applied'
    WHERE n.order_id = h.order_id AND {_ON_LOG} AND (o.epoch, o.offset) > (h.epoch, h.offset)
)
"""  # noqa: S608 (no outside text)


def forget_deliveries(settings: Settings, ids: Collection[tuple[str, str]], before: int) -> None:
    """Remove from the outbox that these (order id, event id) were delivered before a time: the log has lost them.

    The outbox has an event once, so it would not take them again.
    """
    rows = [(order_id, event_id, before) for order_id, event_id in ids]
    with OutboxFile(settings).transaction() as connection:
        connection.executemany(
            "DELETE FROM outbox WHERE order_id = ? AND event_id = ? AND state = 'delivered' AND settled_at < ?", rows
        )
