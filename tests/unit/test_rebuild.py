"""The parts of a rebuild without a broker: reading a log into a projection, and the second set of tables."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import pytest
from typer.testing import CliRunner

from orderflow import events
from orderflow.broker.log_reader import Span
from orderflow.cli.main import app as cli
from orderflow.projection import Projection
from orderflow.rebuild.reading import RECORDS_AT_ONCE, read_into
from orderflow.records import Record, UnreadableRecord
from orderflow.settings import Settings
from orderflow.store.reader import Reader
from orderflow.store.second_set import PREFIX, TABLES, SecondSet
from orderflow.store.writer import Writer
from tests.support import store
from tests.unit.test_projection import TOPIC, changed, created, log_of, open_writer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

A_BUG = b"a bug"


class Log:
    """Records, partition by partition, as a `LogReader` gives them."""

    def __init__(self, records: list[Record | UnreadableRecord]) -> None:
        self._records = records

    @property
    def spans(self) -> dict[int, Span]:
        ends = {record.partition: record.offset + 1 for record in self._records}
        return {partition: Span(0, end) for partition, end in ends.items()}

    def read(self, number: int, begin: int, end: int) -> Iterator[Record | UnreadableRecord]:
        return (one for one in self._records if one.partition == number and begin <= one.offset < end)


@contextmanager
def a_bug() -> Iterator[None]:
    """Have the decoder raise where a value says so."""
    decode_text = events.decode_text

    def raising(text: str) -> events.Event:
        if A_BUG.decode() in text:
            raise ZeroDivisionError(text)
        return decode_text(text)

    with patch.object(events, "decode_text", raising):
        yield


def read(folder: Path, records: list[Record | UnreadableRecord]) -> list[int]:
    """Read a log into a new projection; give what was told of the progress."""
    log, told = Log(records), list[int]()
    with closing(open_writer(folder)) as writer:
        read_into(writer, Projection(writer, TOPIC.topic_id, 1), log, log.spans, told.append)  # type: ignore[arg-type]
    return told


def test_a_log_is_read_in_parts_and_what_cannot_be_read_is_skipped(tmp_path: Path) -> None:
    """Also where such places lie between others, and where a part is full."""
    values = [(b"a", created("a", 1)), *[(b"a", changed("a", None, "shipped"))] * (RECORDS_AT_ONCE + 5)]
    records: list[Record | UnreadableRecord] = list(log_of(values))
    for at in (3, 4, 2_003):
        records[at] = UnreadableRecord(records[at].partition, at, "CorruptRecordError")

    told = read(tmp_path, records)

    settings = Settings(var_dir=str(tmp_path))
    assert told == sorted(set(told))
    assert told[-1] == len(records)
    assert store.positions(settings) == {records[0].partition: len(records)}
    assert store.query(settings, "SELECT offset, reason FROM skipped_messages ORDER BY offset") == [
        (at, "unreadable_record") for at in (3, 4, 2_003)
    ]
    assert len(store.history(settings)) == len(records) - 3


def test_an_error_that_nobody_foresaw_costs_the_record_that_raises_it(tmp_path: Path) -> None:
    """As in the worker: else a bug that one record meets could never be rebuilt away from."""
    records: list[Record | UnreadableRecord] = list(
        log_of([
            (b"a", created("a", 1)), (b"a", changed("a", 2, "shipped")[:-1] + b', "x": "%b"}' % A_BUG),
            (b"a", changed("a", 3, "pending")), (b"b", created("b", 1)),
        ])
    )  # fmt: skip

    with a_bug():
        read(tmp_path, records)

    settings = Settings(var_dir=str(tmp_path))
    ((place, reason, exception, trace),) = store.query(
        settings, "SELECT offset, reason, exception, trace FROM skipped_messages"
    )
    assert (place, reason, exception) == (1, "internal_error", "ZeroDivisionError")
    assert "ZeroDivisionError" in trace
    assert store.query(settings, "SELECT order_id, status FROM orders ORDER BY 1") == [("a", "pending"), ("b", "new")]


@pytest.mark.parametrize("code", [sqlite3.SQLITE_BUSY, sqlite3.SQLITE_FULL, sqlite3.SQLITE_CORRUPT])
def test_an_error_of_the_store_skips_nothing(tmp_path: Path, code: int) -> None:
    """A file that is locked, full or damaged ends the rebuild; the records are not to blame."""
    records: list[Record | UnreadableRecord] = list(log_of([(b"a", created("a", 1)), (b"b", b"{")]))
    error = sqlite3.OperationalError("planted")
    error.sqlite_errorcode = code

    with patch.object(Writer, "write", side_effect=error), pytest.raises(sqlite3.OperationalError, match="planted"):
        read(tmp_path, records)

    assert store.query(Settings(var_dir=str(tmp_path)), "SELECT * FROM skipped_messages") == []


def test_a_record_of_which_no_row_can_be_written_keeps_its_place(tmp_path: Path) -> None:
    records: list[Record | UnreadableRecord] = list(log_of([(b"a", created("a", 1)), (b"a", b"{"), (b"b", b"{")]))
    write = Writer.write

    def choosy(self: Writer, batch: Any) -> None:
        if any(row.value == b"{" and row.key == b"a" for row in batch.skipped):
            raise ValueError("no such row")
        write(self, batch)

    with patch.object(Writer, "write", choosy):
        read(tmp_path, records)

    found = store.query(
        Settings(var_dir=str(tmp_path)), "SELECT reason, key, value FROM skipped_messages ORDER BY partition DESC"
    )
    assert sorted(found, key=repr) == [("internal_error", None, None), ("malformed_json", b"b", b"{")]


# The second set.


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """With one order in the projection."""
    settings = Settings(var_dir=str(tmp_path))
    read(tmp_path, list(log_of([(b"a", created("a", 1))])))
    return settings


def indexes(settings: Settings, prefix: str = "") -> dict[str, list[tuple[Any, ...]]]:
    """The columns of each index of each table, and whether it is of a part, whatever it is called."""
    found: dict[str, list[tuple[Any, ...]]] = {}
    for table in TABLES:
        listed = store.query(settings, f"SELECT name, partial FROM pragma_index_list('{prefix}{table}')")
        columns = [
            (partial, *[name for (name,) in store.query(settings, f"SELECT name FROM pragma_index_info('{index}')")])
            for index, partial in listed
        ]
        found[table] = sorted(columns, key=repr)
    return found


def test_a_second_set_is_like_the_first_and_stays_so_however_often_it_takes_its_place(settings: Settings) -> None:
    """Its indexes, too: without one, reads would grow slow after a rebuild."""
    first = indexes(settings)
    for _ in range(3):
        with closing(SecondSet.open(settings.orders_db, 5)) as tables:
            second = indexes(settings, PREFIX)
            tables.swap()
        assert second == first == indexes(settings)
    assert all(first[table] for table in ("history", "skipped_messages", "controls", "orders"))
    assert store.query(settings, f"SELECT name FROM sqlite_schema WHERE name LIKE '{PREFIX}%'") == []


def test_what_is_written_to_the_second_set_leaves_the_first_alone(settings: Settings) -> None:
    """By the same writer, whatever the statement; until it takes its place, all at once."""
    with closing(SecondSet.open(settings.orders_db, 5)) as tables:
        writer = Writer(settings, tables)
        projection = Projection(writer, TOPIC.topic_id, 1)
        for record in log_of([(b"b", created("b", 1)), (b"c", b"{")]):
            writer.write(projection.project([record]).batch)
        before = store.query(settings, "SELECT order_id FROM orders")
        skips = store.query(settings, "SELECT count(*) FROM skipped_messages")
        tables.swap()

    assert (before, skips) == ([("a",)], [(0,)])
    assert store.query(settings, "SELECT order_id FROM orders") == [("b",)]
    assert store.query(settings, "SELECT count(*) FROM skipped_messages") == [(1,)]
    assert store.query(settings, "SELECT count(*) FROM log_epochs") == [(1,)]


def test_what_an_earlier_rebuild_left_is_removed(settings: Settings) -> None:
    SecondSet.open(settings.orders_db, 5).close()

    with closing(SecondSet.open(settings.orders_db, 5)) as tables:
        tables.first(f"INSERT INTO {PREFIX}positions (partition, epoch, next_offset) VALUES (1, 1, 1)")
    with closing(SecondSet.open(settings.orders_db, 5)) as tables:
        assert tables.execute("SELECT count(*) FROM positions").fetchall() == [(0,)]
        assert tables.first("SELECT count(*) FROM positions").fetchall() == [(1,)]


def test_a_swap_that_fails_in_the_middle_changes_nothing(settings: Settings) -> None:
    with closing(SecondSet.open(settings.orders_db, 5)) as tables:
        tables.first(f"DROP TABLE {PREFIX}orders")
        with pytest.raises(sqlite3.OperationalError):
            tables.swap()

    assert store.query(settings, "SELECT order_id FROM orders") == [("a",)]
    assert len(store.history(settings)) == 1


def test_whoever_reads_meanwhile_sees_one_set_or_the_other(settings: Settings) -> None:
    """A reader whose connection and statements are older than the swap, too; never a half, never an error."""
    reader = Reader(settings)
    assert reader.order("a")
    seen: set[tuple[bool, int]] = set()
    stop = threading.Event()
    failed: list[Exception] = []

    def read_on() -> None:
        try:
            while not stop.is_set():
                with reader.snapshot() as snapshot:
                    orders = snapshot.execute("SELECT count(*) FROM orders").fetchone()[0]
                    history = snapshot.execute("SELECT count(*) FROM history").fetchone()[0]
                seen.add((orders == history, orders))
        except Exception as error:  # noqa: BLE001 (told by the test)
            failed.append(error)

    thread = threading.Thread(target=read_on)
    with reader.snapshot() as old:
        before = old.execute("SELECT order_id FROM orders").fetchall()
        thread.start()
        for number in range(2, 12):
            with closing(SecondSet.open(settings.orders_db, 5)) as tables:
                writer = Writer(settings, tables)
                records = log_of([(b"%d" % one, created(str(one), 1)) for one in range(number)])
                writer.write(Projection(writer, TOPIC.topic_id, 1).project(records).batch)
                tables.swap()
        still = old.execute("SELECT order_id FROM orders").fetchall()
    stop.set()
    thread.join(10)

    assert failed == []
    assert still == before == [("a",)]
    assert {whole for whole, _ in seen} == {True}
    assert reader.order("10")


# The command.


@pytest.mark.parametrize("option", ["--dry-run", "--drop-lost"])
def test_a_new_file_has_nothing_to_compare_and_nothing_to_keep(option: str) -> None:
    done = CliRunner().invoke(cli, ["rebuild", "--from-scratch", option])

    assert done.exit_code == 1
    assert "--from-scratch goes with neither" in done.stderr
