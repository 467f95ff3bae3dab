"""The parts of a rebuild without a broker: reading a log into a projection, and the second set of tables."""

from __future__ import annotations

import os
import signal
import sqlite3
import threading
import time
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import pytest
from typer.testing import CliRunner

from orderflow import events
from orderflow.cli import rebuild as command
from orderflow.cli.main import app as cli
from orderflow.cli.terminal import tidy_up_when_ended
from orderflow.process import Beat, Heartbeat, read_heartbeat
from orderflow.projection import Projection, runs
from orderflow.rebuild.reading import RECORDS_AT_ONCE, _parts, read_into
from orderflow.records import Record, UnreadableRecord
from orderflow.settings import Settings
from orderflow.store.numbering import number_by_time
from orderflow.store.places import Places
from orderflow.store.reader import Reader
from orderflow.store.second_set import PREFIX, TABLES, SecondSet
from orderflow.store.writer import Writer
from tests.support import random_log, store
from tests.support.rebuilding import applied, control, of_a, on_topic
from tests.support.waiting import until
from tests.unit.test_projection import TOPIC, changed, created, log_of, open_writer, uuid

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


A_BUG = b"a bug"


def test_while_it_rebuilds_it_beats_in_the_consumers_stead(tmp_path: Path) -> None:
    """From the first moment to the last, and takes back nothing that the consumer has counted."""
    settings = Settings(var_dir=str(tmp_path), heartbeat_interval_s=0.02)
    consumer = Heartbeat(settings, command.CONSUMER)
    consumer.counters = {"applied": 7}
    consumer.beat("draining")
    begun = time.time()

    def beating() -> Beat | None:
        beat = read_heartbeat(settings, command.CONSUMER)
        return beat if beat and beat.state == "waiting" and beat.at > begun + 0.1 else None

    with command._writers_lock(settings):
        beat = until(beating, "it beats again and again", within_s=5)
    last = read_heartbeat(settings, command.CONSUMER)

    assert beat.waits_for == f"orderflow rebuild, process {os.getpid()}"
    assert (beat.counters, beat.started_at) == ({"applied": 7}, consumer._started_at)
    assert last is not None
    assert read_heartbeat(settings, command.CONSUMER) == last, "it is over"


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
    log, told = random_log.Log(records), list[int]()
    with closing(open_writer(folder)) as writer:
        read_into(writer, Projection(writer, TOPIC.topic_id, 1), log, log.spans(), told.append)  # type: ignore[arg-type]
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


def test_a_part_is_bounded_by_its_bytes_too() -> None:
    """Records of a megabyte: 2,000 of them at once would be more than a machine has."""
    records = [Record(0, number, b"a", b"x" * 1_000_000, b"\0", 1) for number in range(40)]

    parts = list(_parts(records))

    assert [record for part in parts for record in part] == records
    assert max(len(part) for part in parts) == 17


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


def test_what_a_killed_rebuild_left_is_removed_when_the_consumer_opens_the_file(settings: Settings) -> None:
    """It is as large as the file, and nobody knows its name."""
    SecondSet.open(settings.orders_db, 5).close()
    assert store.query(settings, f"SELECT count(*) FROM sqlite_schema WHERE name LIKE '{PREFIX}%'") != [(0,)]

    Writer(settings).close()

    assert store.query(settings, f"SELECT name FROM sqlite_schema WHERE name LIKE '{PREFIX}%'") == []
    assert len(store.history(settings)) == 1


#: What the projection asks for, whatever it is called.
QUESTIONS: dict[str, Callable[[Writer], object]] = {
    "positions": Writer.positions,
    "order_exists": lambda writer: writer.places.order_exists("a"),
    "known_orders": lambda writer: writer.known_orders(["a"]),
    "owners": lambda writer: writer.owners({("a", uuid(7)), ("a", uuid(8))}),
    "write_orders": lambda writer: writer.write_orders({"a": None}),
    "skip_at": lambda writer: writer.places.skip_at((1, 0, 0)),
    "history_at": lambda writer: writer.places.history_at((1, 0, 0)),
    "control_at": lambda writer: writer.places.control_at((1, 0, 0)),
    "first_control": lambda writer: writer.places.first_control(1, 0, b"a", uuid(7)),
    "last_offset": lambda writer: writer.places.last_offset(1, "a", None),
    "history_of": lambda writer: writer.places.history_of("a"),
    "skips_of": lambda writer: writer.places.skips_of("a"),
    "taken_by": lambda writer: writer.places.taken_by("a"),
}

#: They mean the file, or what both sets share.
OF_THE_FILE = {"epoch", "open_epoch", "damage", "close"}


def test_no_statement_of_the_projection_means_the_first_set(settings: Settings) -> None:
    """SQLite itself tells which tables a statement is about, when it is prepared."""
    touched = set[str]()

    def note(action: int, table: str | None, *_: object) -> int:
        if action in (sqlite3.SQLITE_READ, sqlite3.SQLITE_INSERT, sqlite3.SQLITE_UPDATE, sqlite3.SQLITE_DELETE):
            touched.add(table or "")
        return sqlite3.SQLITE_OK

    records = log_of([
        *of_a(created("a", 1), changed("a", 7, "shiped"), b"{"), control(50, 1, None, None),
        control(51, 2, 3, changed("a", None, "shipped")), *of_a(changed("a", 8, "shipped")),
        *[(b"%d" % number, created(str(number), 1)) for number in range(200)],
    ])  # fmt: skip
    with closing(SecondSet.open(settings.orders_db, 5)) as tables:
        tables.set_authorizer(note)
        writer = Writer(settings, tables)
        for run in runs(records):
            writer.write(Projection(writer, TOPIC.topic_id, 1).project(run).batch)
        number_by_time(tables)
        ((taken,),) = tables.execute("SELECT count(*) FROM controls WHERE taken_event_id IS NOT NULL").fetchall()
        for ask in QUESTIONS.values():
            ask(writer)

    assert taken == 1
    assert {f"{PREFIX}{table}" for table in TABLES} <= touched
    assert touched & set(TABLES) == set()
    known = {name for kind in (Writer, Places) for name, one in vars(kind).items() if callable(one) and name[0] != "_"}
    assert known == QUESTIONS.keys() | OF_THE_FILE | {"write"}


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


def test_a_new_file_has_nothing_to_compare() -> None:
    done = CliRunner().invoke(cli, ["rebuild", "--from-scratch", "--dry-run"])

    assert done.exit_code == 1
    assert "--from-scratch does not go with --dry-run" in done.stderr


def test_a_full_disk_is_told_in_a_sentence_and_nothing_is_changed(tmp_path: Path) -> None:
    """Also where tidying up meets the same error."""
    records = log_of([(b"%d" % number, created(str(number), 1)) for number in range(300)])
    settings = applied(tmp_path, records)
    before = store.history(settings)
    create = SecondSet.create

    def with_little_room(tables: SecondSet) -> None:
        create(tables)
        ((pages,),) = tables.first("PRAGMA page_count").fetchall()
        tables.first(f"PRAGMA max_page_count = {pages + 3}")

    worse = sqlite3.OperationalError("nor can it be tidied up")
    with (
        on_topic(records),
        patch.object(SecondSet, "create", with_little_room),
        patch.object(command, "settings_of", lambda _: settings),
        patch("orderflow.rebuild.rebuild.SecondSet.drop", side_effect=[None, worse]),
    ):
        done = CliRunner().invoke(cli, ["rebuild", "--yes"])

    assert done.exit_code == 1
    assert isinstance(done.exception, SystemExit)
    assert "cannot be built (database or disk is full), and nothing was changed" in done.stderr
    assert store.history(settings) == before


def test_a_terminal_that_goes_away_is_as_ctrl_c_unless_it_is_not_to_matter() -> None:
    kept = {number: signal.getsignal(number) for number in (signal.SIGHUP, signal.SIGTERM)}
    try:
        for how, expected in ((signal.SIG_DFL, signal.default_int_handler), (signal.SIG_IGN, signal.SIG_IGN)):
            signal.signal(signal.SIGHUP, how)
            tidy_up_when_ended()
            assert signal.getsignal(signal.SIGHUP) == expected
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)
