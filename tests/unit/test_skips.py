"""Skipped messages as people ask for them stay quick, however many there are: what is asked for comes by an index."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from orderflow.healing import preview
from orderflow.healing.desk import HealingDesk
from orderflow.healing.wishes import Discard
from orderflow.store.reader import Reader
from orderflow.store.skips import Skips, Wanted
from orderflow.store.sqlite import Connection
from tests.support.applied_log import AppliedLog
from tests.support.skips import put, skip

if TYPE_CHECKING:
    from collections.abc import Callable

    from orderflow.settings import Settings


class Planned(Reader):
    """Keeps SQLite's plan of each query."""

    plans: list[str]

    def query(self, sql: str, parameters: Any = ()) -> list[Any]:
        self.plans += [row[3] for row in super().query(f"EXPLAIN QUERY PLAN {sql}", parameters)]
        return super().query(sql, parameters)


def plans_of(settings: Settings, ask: Callable[[Skips], object]) -> list[str]:
    reader = Planned(settings)
    reader.plans = []
    ask(Skips(reader))
    return reader.plans


FILTERS = [Wanted(), Wanted(reason="unknown_order"), Wanted(since=1), Wanted(state="healed")]


@pytest.mark.parametrize("wanted", FILTERS)
def test_a_page_of_a_list_or_of_a_walk_sorts_nothing(settings: Settings, wanted: Wanted) -> None:
    """A page that sorted all of a flood would make a walk over it take the square of its number."""
    put(settings, [skip(1)])

    plans = plans_of(settings, lambda skips: (skips.newest(wanted, 10), list(skips.walk(wanted)), skips.at((1, 0, 1))))

    assert len(plans) == 3
    assert all(plan.startswith("SEARCH") for plan in plans), plans


def test_the_skips_of_one_order_are_found_by_the_order(settings: Settings) -> None:
    """They are few, whatever else is open; to sort them is nothing."""
    put(settings, [skip(1)])
    wanted = Wanted(order_id="a")

    plans = plans_of(settings, lambda skips: (skips.newest(wanted, 10), list(skips.walk(wanted)), skips.counts(wanted)))

    assert {plan for plan in plans if "skipped_messages" in plan} == {
        "SEARCH skipped_messages USING INDEX skipped_by_order (order_id=? AND rowid<?)",
        "SEARCH skipped_messages USING INDEX skipped_by_order (order_id=?)",
    }


def test_a_preview_of_many_orders_makes_one_database_and_reads_each_order_by_an_index(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And nothing of one order is left in the copy when it is the next one's turn."""
    log, desk, copies = AppliedLog(settings), HealingDesk(settings), list[Connection]()
    names = [log.lay(key, b"{") for key in (b"a", b"a", b"b", b"c")]
    prepared = desk.prepare(list(desk.skips.walk(Wanted())), Discard(author="m", reason="r"))
    make = preview.open_memory

    def counted() -> Connection:
        copies.append(make())
        return copies[-1]

    monkeypatch.setattr(preview, "open_memory", counted)
    asked: list[str] = []
    with Reader(settings).snapshot() as snapshot:
        snapshot.set_trace_callback(asked.append)
        changes = preview.preview(settings, snapshot, prepared.remedies)
        snapshot.set_trace_callback(None)
        plans = [row[3] for sql in asked for row in snapshot.execute(f"EXPLAIN QUERY PLAN {sql}").fetchall()]

    assert len(copies) == 1
    assert {change.order_id: len(change.discarded) for change in changes} == {"a": 2, "b": 1, "c": 1}
    assert sum(len(change.controls) for change in changes) == len(names)
    assert {plan for plan in plans if plan.startswith("SCAN")} <= {"SCAN log_epochs", "SCAN positions"}
    log.writer.close()
