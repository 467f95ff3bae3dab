"""The skipped messages, as people ask for them: lists by filter, counts, one with what was asked for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import msgspec

from orderflow.store.rows import ControlRow, SkippedRow

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from orderflow.store.reader import Reader
    from orderflow.store.rows import Place, SkipState

_COLUMNS = ", ".join(SkippedRow._fields)

#: Rows that one query of a walk over many fetches.
WALK_PAGE = 500

#: So many of a reason are counted where counting must be quick.
COUNT_MAX = 20_000

_OPEN_COUNTS = """
SELECT wanted.value, (
    SELECT count(*) FROM (
        SELECT 1 FROM skipped_messages AS s WHERE s.state = 'open' AND s.reason = wanted.value LIMIT ?
    )
) FROM json_each(?) AS wanted
"""


class Wanted(NamedTuple):
    """Which skips are meant; what is None does not matter. Times are log times, in ms since 1970."""

    state: SkipState | None = "open"
    reason: str | None = None
    order_id: str | None = None
    since: int | None = None
    until: int | None = None

    def where(self) -> tuple[str, dict[str, object]]:
        """Give the condition, and its parameters."""
        state = "state" if self.order_id is None else "+state"  # Those of one order are few: not by the state's index.
        named = {
            f"{state} = :state": self.state,
            "reason = :reason": self.reason,
            "order_id = :order_id": self.order_id,
            "logged_at >= :since": self.since,
            "logged_at < :until": self.until,
        }
        conditions = [condition for condition, value in named.items() if value is not None]
        return " AND ".join(["1", *conditions]), self._asdict()


class Numbered(NamedTuple):
    """A skip, and the number by which lists go on: those that became skips later have higher ones."""

    number: int
    skip: SkippedRow


class Skips:
    """The table, read-only. Thread-safe."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    def newest(self, wanted: Wanted, limit: int, before: int = 2**63 - 1) -> list[Numbered]:
        """Give those that are meant, newest first, in front of the number ``before``."""
        condition, parameters = wanted.where()
        sql = (
            f"SELECT rowid, {_COLUMNS} FROM skipped_messages WHERE {condition} AND rowid < :before "  # noqa: S608 (no outside text)
            "ORDER BY rowid DESC LIMIT :limit"
        )
        rows = self._reader.query(sql, parameters | {"before": before, "limit": limit})
        return [Numbered(number, SkippedRow(*row)) for number, *row in rows]

    def walk(self, wanted: Wanted) -> Iterator[SkippedRow]:
        """Give those that are meant in the sequence of places, in pages: between two pages nothing is held."""
        condition, parameters = wanted.where()
        sql = (
            f"SELECT {_COLUMNS} FROM skipped_messages WHERE {condition} "  # noqa: S608 (no outside text)
            "AND (epoch, partition, offset) > (:epoch, :partition, :offset) "
            "ORDER BY epoch, partition, offset LIMIT :page"
        )
        place: Place = (0, -1, -1)
        while True:
            after = dict(zip(("epoch", "partition", "offset"), place, strict=True))
            rows = self._reader.query(sql, parameters | after | {"page": WALK_PAGE})
            for row in rows:
                yield SkippedRow(*row)
            if len(rows) < WALK_PAGE:
                return
            place = SkippedRow(*rows[-1]).place

    def counts(self, wanted: Wanted) -> dict[str, int]:
        """Count those that are meant, by reason, the most frequent first."""
        condition, parameters = wanted.where()
        sql = f"SELECT reason, count(*) FROM skipped_messages WHERE {condition} GROUP BY reason ORDER BY 2 DESC, 1"  # noqa: S608 (no outside text)
        return dict(self._reader.query(sql, parameters))

    def open_counts(self, reasons: Iterable[str]) -> dict[str, int]:
        """Count the open ones of each of these reasons, but no further than `COUNT_MAX`: it is quick, however many."""
        named = msgspec.json.encode(list(reasons)).decode()
        return dict(self._reader.query(_OPEN_COUNTS, (COUNT_MAX, named)))

    def at(self, place: Place) -> SkippedRow | None:
        """Give the skip at a place."""
        sql = f"SELECT {_COLUMNS} FROM skipped_messages WHERE epoch = ? AND partition = ? AND offset = ?"  # noqa: S608 (no outside text)
        rows = self._reader.query(sql, place)
        return SkippedRow(*rows[0]) if rows else None

    def controls_of(self, place: Place) -> list[ControlRow]:
        """Give what was asked for the record at a place, in sequence."""
        rows = self._reader.query(
            f"SELECT {', '.join(ControlRow._fields)} FROM controls "  # noqa: S608 (no outside text)
            "WHERE epoch = ? AND partition = ? AND named_offset = ? ORDER BY offset",
            place,
        )
        return [ControlRow(*row) for row in rows]
