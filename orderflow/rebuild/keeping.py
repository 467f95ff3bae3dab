"""What a rebuild takes over as it is: what the topic does not have any more, and what was asked for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from orderflow.store.second_set import PREFIX
from orderflow.store.sqlite import immediate

if TYPE_CHECKING:
    from collections.abc import Mapping

    from orderflow.broker.log_reader import Span
    from orderflow.store.second_set import SecondSet

#: The tables whose rows have a place, and the key of a row.
KEYS = {"history": "CAST(order_id AS BLOB)", "skipped_messages": "key", "controls": "key"}


def keep(tables: SecondSet, epoch: int, spans: Mapping[int, Span]) -> dict[int, set[int]]:
    """Copy it into the second set; give, by partition, the offsets that the topic has and that must not be read again.

    A control behind the begin of the log that names a place in front of it finds the skip as it left it, so it cannot
    be judged anew. It is kept with the history of its order up to it, and so is each control that names a kept place.
    """
    behind = {number: _asked_for_lost(tables, epoch, number, span.begin) for number, span in spans.items()}
    with immediate(tables):
        for table in KEYS:
            into = f"INSERT INTO {PREFIX}{table} SELECT * FROM {table} WHERE"  # noqa: S608 (no outside text)
            tables.first(f"{into} epoch < ?", (epoch,))
            for number, span in spans.items():
                of = (epoch, number)
                tables.first(f"{into} epoch = ? AND partition = ? AND offset < ?", (*of, span.begin))
                offsets = msgspec.json.encode(sorted(behind[number])).decode()
                one_of = "offset IN (SELECT value FROM json_each(?))"
                tables.first(f"{into} epoch = ? AND partition = ? AND {one_of}", (*of, offsets))
    return behind


def _asked_for_lost(tables: SecondSet, epoch: int, number: int, begin: int) -> set[int]:
    """Name the controls of a partition that name a kept place, and all of their keys in front of them."""
    kept: set[int] = set()
    until: dict[bytes, int] = {}
    asked = tables.first(
        "SELECT offset, named_offset, key FROM controls WHERE epoch = ? AND partition = ? AND offset >= ? "
        "ORDER BY offset",
        (epoch, number, begin),
    ).fetchall()
    for offset, named, key in asked:
        if named < begin or named in kept or named <= until.get(key, -1):
            kept.add(offset)
            if key is not None:
                until[key] = offset
    if until:
        span = (epoch, number, begin, max(until.values()))
        for table, key in KEYS.items():
            sql = f"SELECT offset, {key} FROM {table} WHERE epoch = ? AND partition = ? AND offset BETWEEN ? AND ?"  # noqa: S608 (no outside text)
            kept |= {offset for offset, of in tables.first(sql, span).fetchall() if offset <= until.get(of, -1)}
    return kept
