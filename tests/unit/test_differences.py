"""What a rebuild shows: every row of the dump that is gone, new or other is named, and nothing else is."""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from orderflow.healing.desk import HealingDesk
from orderflow.healing.wishes import Discard
from orderflow.settings import Settings
from orderflow.store.differences import DUMP, Difference, compare
from orderflow.store.rows import ControlRow, HistoryRow, OrderRow, PositionRow, SkippedRow
from orderflow.store.second_set import PREFIX, TABLES, SecondSet
from orderflow.store.skips import Wanted
from tests.support.applied_log import AppliedLog
from tests.unit.test_projection import changed, created

if TYPE_CHECKING:
    from collections.abc import Iterator

#: HYPOTHESIS_EXAMPLES=20000 makes a long run.
EXAMPLES = int(os.environ.get("HYPOTHESIS_EXAMPLES", "150"))

KEYS = {"orders": ("order_id",), "positions": ("partition",)} | dict.fromkeys(
    ("history", "skipped_messages", "controls"), ("epoch", "partition", "offset")
)

#: Columns that depend on when or by which code a record was applied.
NOT_COMPARED = {
    "orders": {"arrival"},
    "history": set(),
    "skipped_messages": {"trace", "exception", "attempts", "detail"},
    "controls": {"detail"},
    "positions": {"last_event_id"},
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A projection with some rows of each kind, in two epochs."""
    settings = Settings(var_dir=str(tmp_path_factory.mktemp("base")))
    log, desk = AppliedLog(settings), HealingDesk(settings)
    for topic_id in ("topic-1", "topic-2"):
        if topic_id != log.topic_id:
            log.begin(topic_id)
        for order in ("a", "c", "ü"):
            log.lay(order.encode(), created(order, 1))
            log.lay(order.encode(), changed(order, 2, "shipped"))
            log.lay(order.encode(), changed(order, 2, "pending"))
            log.lay(order.encode(), b"{\xff")
        log.lay(None, created("e", 1), partition=0)
        log.lay_unreadable(0)
        skips = [skip for skip in desk.skips.walk(Wanted()) if skip.epoch == log.epoch]
        desk.ask(desk.prepare(skips[::2], Discard(author="kim", reason="a test")).remedies)
        log.relay()
    whole = settings.var / "whole.db"  # without a WAL beside it
    log.writer._connection.execute("VACUUM INTO ?", (str(whole),))
    log.writer.close()
    return whole


@pytest.fixture
def tables(base: Path) -> Iterator[SecondSet]:
    """Two sets that are equal."""
    with tempfile.TemporaryDirectory(prefix="differences") as folder:
        path = Path(folder) / "orders.db"
        shutil.copy(base, path)
        with closing(second_set(path)) as tables:
            yield tables


def second_set(path: Path) -> SecondSet:
    """The file with its second set, a copy of the first; nothing checks what is planted in them."""
    tables = SecondSet.open(path, 5)
    tables.first("PRAGMA ignore_check_constraints = ON")
    for table in TABLES:
        tables.first(f"INSERT INTO {PREFIX}{table} SELECT * FROM {table}")
    return tables


class Planted(NamedTuple):
    """A difference to make: in one of the sets, at a row by its number, in a column by its number."""

    table: str
    in_second: bool
    row: int
    what: str
    column: int


planted = st.builds(
    Planted,
    st.sampled_from(sorted(KEYS)), st.booleans(), st.integers(0, 100),
    st.sampled_from(("delete", "add", "change", "change", "change", "to null")), st.integers(0, 100),
)  # fmt: skip


def rows(tables: SecondSet, table: str) -> dict[tuple[Any, ...], dict[str, Any]]:
    cursor = tables.first(f"SELECT * FROM {table}")
    columns = [name for name, *_ in cursor.description]
    found = [dict(zip(columns, row, strict=True)) for row in cursor.fetchall()]
    key = KEYS[table.removeprefix(PREFIX)]
    return {tuple(row[name] for name in key): row for row in found}


def plant(tables: SecondSet, one: Planted) -> None:
    table = f"{PREFIX}{one.table}" if one.in_second else one.table
    there = rows(tables, table)
    if not there:
        return
    key, row = sorted(there.items(), key=repr)[one.row % len(there)]
    where = " AND ".join(f"{name} = ?" for name in KEYS[one.table])
    if one.what == "delete":
        tables.first(f"DELETE FROM {table} WHERE {where}", key)
    elif one.what == "add":
        number = 1_000 + one.column
        new = row | {"orders": {"order_id": f"new-{number}"}, "positions": {"partition": number}}.get(
            one.table, {"offset": number}
        )
        new.pop("arrival", None)
        marks = ", ".join("?" * len(new))
        tables.first(f"INSERT OR IGNORE INTO {table} ({', '.join(new)}) VALUES ({marks})", tuple(new.values()))
    else:
        nullable = {name: not not_null for _, name, _, not_null, *_ in tables.first(f"PRAGMA table_info({table})")}
        columns = [name for name in row if name not in (*KEYS[one.table], "arrival")]
        name = columns[one.column % len(columns)]
        value = None if one.what == "to null" else other(row[name], one.column)
        if value is not None or nullable[name]:
            tables.first(f"UPDATE {table} SET {name} = ? WHERE {where}", (value, *key))


def other(value: Any, number: int) -> Any:
    """Another value of the same type; of those that are easily taken for the same one."""
    if isinstance(value, int):
        return value + number % 3 - 1
    if isinstance(value, bytes):
        return (value + b"\0", b"", value.upper())[number % 3]
    return ((value or "") + " ", "", (value or "").upper())[number % 3] if isinstance(value, str) else None


def expected(tables: SecondSet) -> set[tuple[Any, ...]]:
    """Compare both sets row by row."""
    found: set[tuple[Any, ...]] = set()
    for table in KEYS:
        old, new = rows(tables, table), rows(tables, PREFIX + table)
        found |= {(table, "gone", key, None) for key in old.keys() - new.keys()}
        found |= {(table, "new", key, None) for key in new.keys() - old.keys()}
        for key in old.keys() & new.keys():
            columns = sorted(
                name for name in old[key] if old[key][name] != new[key][name] and name not in NOT_COMPARED[table]
            )
            if columns:
                found.add((table, "other", key, tuple(columns)))
    return found


def told(one: Difference) -> tuple[Any, ...]:
    columns = tuple(sorted(one.before or ())) if one.kind == "other" else None
    return one.table, one.kind, one.key, columns


@examples(deadline=None, max_examples=EXAMPLES)
@given(plants=st.lists(planted, max_size=12))
def test_each_planted_difference_is_named_and_nothing_else(base: Path, plants: list[Planted]) -> None:
    """However few examples are asked for, all are counted."""
    with tempfile.TemporaryDirectory(prefix="differences") as folder:
        path = Path(folder) / "orders.db"
        shutil.copy(base, path)
        with closing(second_set(path)) as tables:
            for one in plants:
                plant(tables, one)

            found, short = compare(tables, 10_000), compare(tables, 1)

            assert {told(one) for one in found.examples} == expected(tables)
            assert found.total == len(found.examples) == short.total
            assert short.counts == found.counts
            assert {(one.table, one.kind) for one in short.examples} == short.counts.keys()
            assert len(short.examples) == len(short.counts)


def test_nothing_is_left_out_of_the_dump_but_what_depends_on_arrival() -> None:
    """A column that comes to be later is compared, unless it is named here."""
    kinds = {"orders": OrderRow, "history": HistoryRow, "skipped_messages": SkippedRow, "controls": ControlRow,
             "positions": PositionRow}  # fmt: skip
    left_out = {table: set(kinds[table]._fields) - set(dumped.columns) for table, dumped in DUMP.items()}

    assert left_out == NOT_COMPARED | {"orders": set()}


def test_what_another_process_changes_meanwhile_is_seen(tables: SecondSet) -> None:
    """Rows that were removed by hand after the second set was begun; no old state of the file is read."""
    before = compare(tables, 100)
    (path,) = (file for _, name, file in tables.first("PRAGMA database_list") if name == "main")
    with closing(sqlite3.connect(path)) as other_process:
        (count,) = other_process.execute("SELECT count(*) FROM skipped_messages").fetchone()
        other_process.execute("DELETE FROM skipped_messages")
        uncommitted = compare(tables, 100)
        other_process.commit()

    after = compare(tables, 100)

    assert (before.total, uncommitted.total) == (0, 0)
    assert after.counts == {("skipped_messages", "new"): count}
    assert {one.kind for one in after.examples} == {"new"}


def test_a_difference_says_what_was_and_what_would_be(tables: SecondSet) -> None:
    tables.first("UPDATE orders SET status = 'delivered', total_minor = total_minor + 1 WHERE order_id = 'a'")
    tables.first("DELETE FROM history WHERE epoch = 1")
    tables.first(f"DELETE FROM {PREFIX}controls")

    found = compare(tables, 2)

    (order,) = (one for one in found.examples if one.table == "orders")
    assert order == Difference(
        "orders", "other", ("a",), {"total_minor": 1026, "status": "delivered"},
        {"total_minor": 1025, "status": "shipped"},
    )  # fmt: skip
    new = [one for one in found.examples if one.table == "history"]
    assert [(one.kind, one.before, one.after and one.after["epoch"]) for one in new] == [("new", None, 1)] * 2
    gone = [one for one in found.examples if one.table == "controls"]
    assert [(one.kind, one.before and one.before["author"], one.after) for one in gone] == [("gone", "kim", None)] * 2
