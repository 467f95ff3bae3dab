"""What differs between the projection and a second set of it: the canonical dump of both, row by row.

The dump is all that the log determines: nothing that depends on when a record was applied, no traces. What a position
says of its record depends on the decoder, and is not compared.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from orderflow.store.rows import ControlRow, HistoryRow, OrderRow, PositionRow, SkippedRow
from orderflow.store.second_set import PREFIX

if TYPE_CHECKING:
    from orderflow.store.second_set import SecondSet

_PLACE = ("epoch", "partition", "offset")


class _Dumped(NamedTuple):
    key: tuple[str, ...]
    columns: tuple[str, ...]


#: Of each table: what names a row, and what is compared.
DUMP = {
    "orders": _Dumped(("order_id",), OrderRow._fields),
    "history": _Dumped(_PLACE, HistoryRow._fields),
    "skipped_messages": _Dumped(
        _PLACE, tuple(name for name in SkippedRow._fields if name not in ("trace", "exception", "attempts", "detail"))
    ),
    "controls": _Dumped(_PLACE, tuple(name for name in ControlRow._fields if name != "detail")),
    "positions": _Dumped(("partition",), tuple(name for name in PositionRow._fields if name != "last_event_id")),
}


class Difference(NamedTuple):
    """One row that differs; ``before`` and ``after`` have the columns that do, None where there is no row."""

    table: str
    kind: Literal["gone", "new", "other"]
    key: tuple[Any, ...]
    before: dict[str, Any] | None
    after: dict[str, Any] | None


class Differences(NamedTuple):
    """How many rows differ, by table and kind, and the first of each."""

    counts: dict[tuple[str, str], int]
    examples: list[Difference]

    @property
    def total(self) -> int:
        """How many rows differ."""
        return sum(self.counts.values())


def compare(tables: SecondSet, examples_max: int) -> Differences:
    """Compare both sets; give at most so many examples of each kind."""
    found = Differences({}, [])
    for table, dumped in DUMP.items():
        for kind, sql in _questions(table, dumped).items():
            ((count,),) = tables.first(f"SELECT count(*) {sql}").fetchall()
            if count:
                found.counts[table, kind] = count
                found.examples.extend(_examples(tables, table, dumped, kind, sql, examples_max))
    return found


def _questions(table: str, dumped: _Dumped) -> dict[str, str]:
    old, new = f"{table} AS old", f"{PREFIX}{table} AS new"
    same = " AND ".join(f"old.{name} = new.{name}" for name in dumped.key)
    other = " OR ".join(f"old.{name} IS NOT new.{name}" for name in dumped.columns)
    return {
        "gone": f"FROM {old} LEFT JOIN {new} ON {same} WHERE new.{dumped.key[0]} IS NULL",
        "new": f"FROM {new} LEFT JOIN {old} ON {same} WHERE old.{dumped.key[0]} IS NULL",
        "other": f"FROM {old} JOIN {new} ON {same} WHERE {other}",
    }


def _examples(tables: SecondSet, table: str, dumped: _Dumped, kind: Any, sql: str, at_most: int) -> list[Difference]:
    columns = [f"{side}.{name}" for side in ("old", "new") for name in dumped.columns]
    rows = tables.first(f"SELECT {', '.join(columns)} {sql} LIMIT ?", (at_most,)).fetchall()
    return [_difference(table, dumped, kind, row) for row in rows]


def _difference(table: str, dumped: _Dumped, kind: Any, row: tuple[Any, ...]) -> Difference:
    count = len(dumped.columns)
    before = dict(zip(dumped.columns, row[:count], strict=True))
    after = dict(zip(dumped.columns, row[count:], strict=True))
    named = after if kind == "new" else before
    key = tuple(named[name] for name in dumped.key)
    if kind == "other":
        differing = [name for name in dumped.columns if before[name] != after[name]]
        before, after = {name: before[name] for name in differing}, {name: after[name] for name in differing}
    return Difference(table, kind, key, None if kind == "new" else before, None if kind == "gone" else after)
