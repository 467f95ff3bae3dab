"""What the log lost, asked of the projection's history: against a few lines that say what it is."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orderflow.settings import Settings
from orderflow.store import sqlite
from orderflow.store.lost import LostEvents, LostOrder
from orderflow.store.reader import Reader
from orderflow.store.rows import HistoryRow
from orderflow.store.writer import insert_sql

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


class Read(NamedTuple):
    """A record of the log: its order, on the partition of the same number, and its event id."""

    order: int
    event_id: int


def applied(lives: Sequence[Sequence[Read]]) -> list[HistoryRow]:
    """What a consumer makes of one life of the log after the other: an id is applied once."""
    rows, seen = [], set()
    for epoch, life in enumerate(lives, start=1):
        ends: dict[int, int] = {}
        for read in life:
            offset = ends[read.order] = ends.get(read.order, -1) + 1
            outcome = "duplicate" if read in seen else "applied"
            seen.add(read)
            rows.append(row(epoch, read, offset, outcome))
    return rows


def row(epoch: int, read: Read, offset: int, outcome: str) -> HistoryRow:
    order_id, event_id = f"order-{read.order}", f"event-{read.event_id}"
    return HistoryRow(epoch, read.order, offset, order_id, event_id, "t", "{}", b"", 0, None, outcome, None)


def put(settings: Settings, rows: Iterable[HistoryRow]) -> Reader:
    with closing(sqlite.open_writer(settings.orders_db, busy_timeout_s=5)) as connection, sqlite.immediate(connection):
        connection.execute("DELETE FROM history")
        connection.executemany(insert_sql("history", HistoryRow._fields), list(rows))
    return Reader(settings)


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return Settings(var_dir=str(tmp_path_factory.mktemp("lost")))


reads = st.builds(Read, st.integers(0, 2), st.integers(0, 4))
lives = st.lists(st.lists(reads, max_size=8), min_size=1, max_size=3)


@given(lives, st.lists(st.integers(0, 3), min_size=3, max_size=3))
def test_lost_is_what_was_applied_and_has_no_place_on_the_log(
    settings: Settings, lives: list[list[Read]], begins: list[int]
) -> None:
    rows = applied(lives)
    on_log = {one.place: one for one in rows if one.epoch == len(lives) and one.offset >= begins[one.partition]}
    left = {(one.order_id, one.event_id) for one in on_log.values()}
    lost = [one for one in rows if one.outcome == "applied" and (one.order_id, one.event_id) not in left]

    events = LostEvents(put(settings, rows), len(lives), dict(enumerate(begins)))

    assert events.count() == len(lost)
    orders = sorted({str(one.order_id) for one in lost})
    assert events.of(orders) == sorted(lost, key=lambda one: (one.order_id, one.epoch, one.offset))
    assert [(order.order_id, order.events) for order in events.orders()] == [
        (order_id, sum(one.order_id == order_id for one in lost)) for order_id in orders
    ]


def test_an_order_is_overtaken_when_the_log_has_what_comes_behind_what_is_lost(settings: Settings) -> None:
    """A copy of what came in front of it does no harm; a newer event does, and the rest of one whose start is gone."""
    first, second, third = (Read(0, number) for number in range(3))
    cut, cut_and_grown = [[first, second], [first]], [[first, second], [first, third]]
    begins_later = [[first, second]]

    def overtaken(lives: list[list[Read]], begin: int = 0) -> list[LostOrder]:
        return LostEvents(put(settings, applied(lives)), len(lives), {0: begin}).orders()

    assert overtaken(cut) == [LostOrder("order-0", 1, overtaken=False)]
    assert overtaken(cut_and_grown) == [LostOrder("order-0", 1, overtaken=True)]
    assert overtaken(begins_later, begin=1) == [LostOrder("order-0", 1, overtaken=True)]
