"""The rows that tell of some places of the log: what stands there, what was skipped, what was asked for it, when."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from orderflow.store import reader
from orderflow.store.bounded import within
from orderflow.store.rows import ControlRow, HistoryRow, SkippedRow

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from orderflow.store.rows import Place
    from orderflow.store.sqlite import Connection


#: Copies of one event that are looked at.
COPIES_MAX = 100


@dataclass
class Gathered:
    """The rows of some places; by the place that they name or made a skip, the controls.

    ``read_at`` is when the consumer had read each, in ms since 1970.
    """

    places: list[Place]
    history: dict[Place, HistoryRow] = field(default_factory=dict)
    skips: dict[Place, SkippedRow] = field(default_factory=dict)
    controls: dict[Place, list[ControlRow]] = field(default_factory=dict)
    openers: dict[Place, ControlRow] = field(default_factory=dict)
    read_at: dict[Place, int] = field(default_factory=dict)


def places_of_order(connection: Connection, order_id: str, after: Place, limit: int) -> list[Place]:
    """Give the places of an order's events in sequence, behind ``after``; of the skips, too, that are about it."""
    parameters = {"order_id": order_id, "epoch": after[0], "partition": after[1], "offset": after[2], "limit": limit}
    return connection.execute(_PLACES_OF_ORDER, parameters).fetchall()


def places_of_event(connection: Connection, event_id: str, order_id: str | None) -> list[Place]:
    """Give the places of an event's copies. Where no order is given, an index is searched from end to end.

    Raises:
        SearchTooLong: that takes more than `reader.SEARCH_S`.

    """
    parameters = {"event_id": event_id, "order_id": order_id, "limit": COPIES_MAX}
    if order_id is not None:
        return connection.execute(_PLACES_OF_ORDERS_EVENT, parameters).fetchall()
    what = f"To look for event {event_id} in all orders"
    return within(reader.SEARCH_S, connection, _PLACES_OF_EVENT, parameters, what)


def controls_of_event(connection: Connection, event_id: str, order_id: str | None) -> list[ControlRow]:
    """Give the controls of an id, the first one first; their order is the one that what they name is about."""
    rows = connection.execute(_CONTROLS_OF_EVENT, {"event_id": event_id, "order_id": order_id}).fetchall()
    return [ControlRow(*row)._replace(order_id=about) for *row, about in rows]


def known_ids(connection: Connection, order_id: str, event_ids: Sequence[str]) -> set[str]:
    """Tell which of these events of an order were read."""
    rows = connection.execute(_KNOWN_IDS, {"order_id": order_id, "ids": _json(event_ids)}).fetchall()
    return {event_id for (event_id,) in rows}


def gather(connection: Connection, places: Sequence[Place]) -> Gathered:
    """Find the rows of places."""
    found = Gathered(list(places))
    for row in map(HistoryRow._make, _at(connection, HistoryRow, "history", places)):
        found.history[row.place] = row
    for skip in map(SkippedRow._make, _at(connection, SkippedRow, "skipped_messages", places)):
        found.skips[skip.place] = skip
    for control in map(ControlRow._make, connection.execute(_CONTROLS_FOR, (_json(places),)).fetchall()):
        found.controls.setdefault((*control[:2], control.named_offset), []).append(control)
    opened_by = {skip.place: (*skip.place[:2], skip.opened_by) for skip in found.skips.values()}
    others = [opener for place, opener in opened_by.items() if opener != place]
    openers = {row[:3]: row for row in map(ControlRow._make, _at(connection, ControlRow, "controls", others))}
    found.openers = {place: openers[opener] for place, opener in opened_by.items() if opener in openers}
    controls = [control[:3] for named in found.controls.values() for control in named]
    found.read_at = when_read(connection, [*places, *controls, *openers])
    return found


def when_read(connection: Connection, places: Iterable[Place]) -> dict[Place, int]:
    """Tell when the consumer had read each of some places, in ms since 1970."""
    rows = connection.execute(_READ_AT, (_json(list(places)),)).fetchall()
    return {(epoch, partition, offset): at for epoch, partition, offset, at in rows if at is not None}


def _at(
    connection: Connection, kind: type[HistoryRow | SkippedRow | ControlRow], table: str, places: Sequence[Place]
) -> list[Any]:
    columns = ", ".join(f"t.{name}" for name in kind._fields)
    sql = f"SELECT {columns} FROM json_each(?) AS p JOIN {table} AS t ON {_SAME_PLACE}"  # noqa: S608 (no outside text)
    return connection.execute(sql, (_json(places),)).fetchall()


def _json(values: Sequence[object]) -> str:
    return msgspec.json.encode(values).decode()


_SAME_PLACE = """
    t.epoch = json_extract(p.value, '$[0]') AND t.partition = json_extract(p.value, '$[1]')
    AND t.offset = json_extract(p.value, '$[2]')
"""

_CONTROLS = f"SELECT {', '.join(f'c.{name}' for name in ControlRow._fields)}"

_CONTROLS_FOR = f"""
{_CONTROLS} FROM json_each(?) AS p JOIN controls AS c
ON c.epoch = json_extract(p.value, '$[0]') AND c.partition = json_extract(p.value, '$[1]')
    AND c.named_offset = json_extract(p.value, '$[2]')
ORDER BY c.offset
"""

_CONTROLS_OF_EVENT = f"""
{_CONTROLS}, coalesce(c.order_id, s.order_id) AS about
FROM controls AS c
LEFT JOIN skipped_messages AS s ON (s.epoch, s.partition, s.offset) = (c.epoch, c.partition, c.named_offset)
WHERE c.event_id = :event_id AND (:order_id IS NULL OR about = :order_id)
ORDER BY c.epoch, c.offset LIMIT {COPIES_MAX}
"""

_READ_AT = """
SELECT json_extract(p.value, '$[0]') AS epoch, json_extract(p.value, '$[1]') AS number,
    json_extract(p.value, '$[2]') AS at_offset, (
        SELECT g.read_at FROM progress AS g
        WHERE g.epoch = json_extract(p.value, '$[0]') AND g.partition = json_extract(p.value, '$[1]')
            AND g.next_offset > json_extract(p.value, '$[2]')
        ORDER BY g.next_offset LIMIT 1
    )
FROM json_each(?) AS p
"""

_KNOWN_IDS = """
SELECT event_id FROM history WHERE order_id = :order_id AND event_id IN (SELECT value FROM json_each(:ids))
UNION
SELECT event_id FROM skipped_messages
WHERE order_id = :order_id AND event_id IN (SELECT value FROM json_each(:ids))
"""

_PLACES_OF_ORDER = """
SELECT epoch, partition, offset FROM history WHERE order_id = :order_id
    AND (epoch, offset, partition) > (:epoch, :offset, :partition)
UNION
SELECT epoch, partition, offset FROM skipped_messages WHERE order_id = :order_id
    AND (epoch, offset, partition) > (:epoch, :offset, :partition)
ORDER BY epoch, offset, partition LIMIT :limit
"""

#: A skip that decodes is in history, too; what is in no order's history there may be about an order all the same.
_PLACES_OF_ORDERS_EVENT = """
SELECT epoch, partition, offset FROM history WHERE order_id = :order_id AND event_id = :event_id
UNION
SELECT epoch, partition, offset FROM skipped_messages WHERE event_id = :event_id AND order_id = :order_id
ORDER BY epoch, offset, partition LIMIT :limit
"""

_PLACES_OF_EVENT = """
SELECT epoch, partition, offset FROM history WHERE rowid IN (SELECT rowid FROM history WHERE event_id = :event_id)
UNION
SELECT epoch, partition, offset FROM skipped_messages WHERE event_id = :event_id
ORDER BY epoch, offset, partition LIMIT :limit
"""
