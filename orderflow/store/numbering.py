"""The numbers by which lists go on, of a projection that was read partition by partition.

The order consumer numbers rows as they come to be. A rebuild numbers them by log time, so that lists have the same
sequence afterwards: orders by that of their creation, skips by that of the record that made them skips.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from orderflow.store.sqlite import immediate

if TYPE_CHECKING:
    from orderflow.store.sqlite import Connection


def number_by_time(tables: Connection) -> None:
    """Number all rows from 1 on, as the consumer does."""
    with immediate(tables):
        for sql in (_ORDERS, _ORDERS_FROM_1, _SKIPS, _SKIPS_FROM_1):
            tables.execute(sql)


#: Below 0 at first: no two rows may have the same number, not even for a moment.
_ORDERS = """
UPDATE orders SET arrival = counted.number
FROM (
    SELECT o.arrival AS old, -row_number() OVER (ORDER BY h.epoch, h.logged_at, h.partition, h.offset) AS number
    FROM orders AS o
    LEFT JOIN history AS h ON h.order_id = o.order_id AND h.type = 'order.created' AND h.outcome = 'applied'
) AS counted
WHERE orders.arrival = counted.old
"""

_ORDERS_FROM_1 = "UPDATE orders SET arrival = -arrival WHERE arrival < 0"

#: What cannot be read has no log time: it has that of the record in front of it.
_SKIPS = """
UPDATE skipped_messages SET rowid = counted.number
FROM (
    SELECT s.rowid AS old, -row_number() OVER (
        ORDER BY s.epoch, coalesce(c.logged_at, s.logged_at, (
            SELECT h.logged_at FROM history AS h
            WHERE h.epoch = s.epoch AND h.partition = s.partition AND h.offset < s.offset
            ORDER BY h.offset DESC LIMIT 1
        ), 0), s.partition, s.opened_by, s.offset
    ) AS number
    FROM skipped_messages AS s
    LEFT JOIN controls AS c ON c.epoch = s.epoch AND c.partition = s.partition AND c.offset = s.opened_by
) AS counted
WHERE skipped_messages.rowid = counted.old
"""

_SKIPS_FROM_1 = "UPDATE skipped_messages SET rowid = -rowid WHERE rowid < 0"
