"""All that is in a projection's file, and whether it is the model's."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any, NamedTuple

from orderflow.store.rows import OrderRow

if TYPE_CHECKING:
    from orderflow.settings import Settings
    from tests.support.healing.model import Made, Oracle, Place, Spot

#: What depends on when a record was applied, and by which process.
NOT_DETERMINED = ("arrival", "opened_at", "trace")

#: When reading had come how far: that depends on the cuts of batches.
PROGRESS = "progress"

KEY = ("epoch", "partition", "offset")


class Tables:
    """All rows of all tables, but for what the log does not determine."""

    def __init__(self, settings: Settings) -> None:
        self.rows: dict[str, list[dict[str, Any]]] = {}
        with closing(sqlite3.connect(settings.orders_db)) as connection:
            connection.row_factory = sqlite3.Row
            tables = connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall()
            for table in (name for (name,) in tables if name != PROGRESS):
                rows = [
                    {name: row[name] for name in row.keys() if name not in NOT_DETERMINED}  # noqa: SIM118 (a row gives values)
                    for row in connection.execute(f"SELECT * FROM {table}")
                ]
                self.rows[table] = sorted(rows, key=lambda row: [repr(row.get(c)) for c in (*KEY, "order_id")])

    def at(self, table: str, *columns: str) -> dict[Place, tuple[Any, ...]]:
        """Some columns of a table, by place."""
        return {
            (row["epoch"], row["partition"], row["offset"]): tuple(row[column] for column in columns)
            for row in self.rows[table]
        }


def expect(tables: Tables, oracle: Oracle) -> None:
    """Assert that the tables are the model's."""
    spots = oracle.spots
    assert tables.at("controls", "verdict") == {p: (s.verdict,) for p, s in spots.items() if s.verdict}
    history = tables.at("history", "order_id", "outcome", "reason")
    assert history == {place: (s.order, *_outcome(s)) for place, s in spots.items() if s.stands}
    named = {p: s.stands_as for p, s in spots.items() if s.stands and isinstance(s.stands_as, str)}
    ids = tables.at("history", "event_id")
    assert {place: ids[place][0] for place in named} == named
    skips = tables.at("skipped_messages", *_Skip._fields)
    assert skips == {place: _skip(s) for place, s in spots.items() if s.state}
    placed = {place: s.order for place, s in spots.items() if s.state and _is_placed(s)}
    orders = tables.at("skipped_messages", "order_id")
    assert {place: orders[place][0] for place in placed} == placed
    rows = [OrderRow(**row) for row in tables.rows["orders"]]
    assert {row.order_id: _told(row) for row in rows} == {order: _made(made) for order, made in oracle.orders.items()}


class _Skip(NamedTuple):
    state: str
    reason: str
    repairs: int
    opened_by: int
    placed: bool
    key: bytes | None
    value: bytes | None


def _skip(spot: Spot) -> _Skip:
    record = spot.record
    return _Skip(
        spot.state, spot.skipped_as, spot.repairs, spot.opened_by, _is_placed(spot), record.key, record.value
    )  # fmt: skip


def _is_placed(spot: Spot) -> bool:
    return spot.order is not None and not spot.verdict


def _outcome(spot: Spot) -> tuple[str, str | None]:
    plain = spot.came_to in ("applied", "duplicate")
    return (spot.came_to, None) if plain else ("skipped", spot.came_to)


def _made(made: Made) -> tuple[object, ...]:
    _, customer, cents = made.create.says
    shipping = (int(cents) * 2 + 50) // 100
    return (customer, made.create.date, cents, shipping, made.status, made.place, made.updated_at)


def _told(row: OrderRow) -> tuple[object, ...]:
    place = (row.last_epoch, row.last_partition, row.last_offset)
    return (row.customer_id, row.order_date, row.total_minor, row.shipping_minor, row.status, place, row.updated_at)
