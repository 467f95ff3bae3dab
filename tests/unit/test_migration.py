"""A file of an earlier version is brought to the present one, and nothing that it held is lost or counted twice."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from orderflow.errors import OutboxFull, StoreIncompatible
from orderflow.messages import Message
from orderflow.settings import Settings
from orderflow.store import sqlite
from orderflow.store.alerts import Alerts
from orderflow.store.migration import rebuild
from orderflow.store.outbox import Outbox
from orderflow.store.outbox_desk import OutboxDesk
from orderflow.store.outbox_rows import Addition
from orderflow.store.reader import Reader
from orderflow.store.writer import Writer
from orderflow.timeline.desk import Timeline
from tests.support.applied_log import AppliedLog
from tests.unit.test_projection import created

if TYPE_CHECKING:
    from collections.abc import Iterator

#: outbox.sql as it was in version 1.
VERSION_1 = (Path(__file__).parents[1] / "support/outbox_version_1.sql").read_text(encoding="utf-8")

STATES = ("waiting", "held", "delivered", "discarded")
COLUMNS = (
    "seq, order_id, event_id, key, value, headers, bytes, trace_id, sent, spooled_at, state, reason, author, "
    "partition, offset, settled_at"
)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Of a stack whose outbox.db has version 1, and something of all that can be in it."""
    settings = Settings(var_dir=str(tmp_path))
    with opened(settings) as old:
        old.executescript(VERSION_1)
        for number in range(40):
            add(old, f"o-{number % 7}", f"e-{number}", value=b"v" * (number * 1_000))
        old.executemany("UPDATE outbox SET state = 'delivered', partition = 1, offset = seq, settled_at = 5 "
                        "WHERE seq = ?", [(seq,) for seq in range(1, 11)])  # fmt: skip
        old.execute("UPDATE outbox SET state = 'held', reason = 'too large', sent = 1 WHERE seq = 11")
        old.execute("UPDATE outbox SET state = 'discarded', author = 'kim', reason = 'no' WHERE seq IN (12, 13)")
        old.execute("DELETE FROM outbox WHERE seq IN (1, 2, 40)")  # as they are after a while; 40 was the last
        old.execute("INSERT INTO alerts (cause, severity, program, detail, affected, opened_at, updated_at) "
                    "VALUES ('event_held', 'warning', 'p', 'd', 3, 7, 8)")  # fmt: skip
        old.execute("INSERT INTO alerts (cause, severity, program, detail, affected, opened_at, updated_at, "
                    "resolved_at, resolution) VALUES ('event_held', 'warning', 'p', 'd', 0, 1, 2, 3, 'r')")  # fmt: skip
        old.execute("DELETE FROM alerts WHERE id = 2")
        old.execute("PRAGMA user_version = 1")
    return settings


def opened(settings: Settings) -> Any:
    """The file, as any SQLite client sees it."""
    return closing(sqlite3.connect(settings.outbox_db, isolation_level=None))


def add(connection: sqlite3.Connection, order: str, event: str, value: bytes = b"v") -> None:
    connection.execute(
        "INSERT INTO outbox (order_id, event_id, key, value, headers, bytes, trace_id, sent, spooled_at) "
        "VALUES (?, ?, ?, ?, ?, ?, 't', 0, 9)",
        (order, event, order.encode(), value, b"\x00", len(value) + 400),
    )


def held(settings: Settings) -> dict[str, list[Any]]:
    """Everything that version 1 knows of, and by which number each table goes on."""
    queries = {
        "outbox": f"SELECT {COLUMNS} FROM outbox ORDER BY seq",
        "totals": "SELECT * FROM outbox_totals ORDER BY state",
        "alerts": "SELECT * FROM alerts",
        "sequences": "SELECT name, seq FROM sqlite_sequence ORDER BY name",
    }
    with opened(settings) as connection:
        return {name: connection.execute(sql).fetchall() for name, sql in queries.items()}


def made(settings: Settings) -> set[tuple[str, str, str]]:
    """What is in a file's schema, spaces apart."""
    with opened(settings) as connection:
        things = connection.execute("SELECT type, name, sql FROM sqlite_schema WHERE sql IS NOT NULL").fetchall()
    return {(kind, name, " ".join(sql.replace('"', "").split())) for kind, name, sql in things}


def version(settings: Settings) -> int:
    with opened(settings) as connection:
        return int(connection.execute("PRAGMA user_version").fetchone()[0])


def message(order: str, event: str) -> Message:
    return Message(order.encode(), b"v", (), order, event)


def test_a_file_of_version_1_keeps_all_that_it_holds(settings: Settings, tmp_path: Path) -> None:
    before = held(settings)
    fresh = Settings(var_dir=str(tmp_path / "fresh"))
    Outbox(fresh).totals()

    Outbox(settings).totals()

    assert held(settings) == before
    assert [row[0] for row in before["sequences"]] == ["alerts", "outbox"]
    assert dict(before["sequences"])["outbox"] == 40, "the numbers of rows that are gone are not given again"
    assert version(settings) == sqlite.OUTBOX.version
    assert made(settings) == made(fresh), "nothing of the old file's tables, indexes and triggers is left"


def test_what_was_there_goes_on_as_before(settings: Settings) -> None:
    """Waiting rows are events of their lanes, what is held holds, and the totals go on counting."""
    outbox, desk, alerts = Outbox(settings), OutboxDesk(settings), Alerts(settings)
    totals = outbox.totals()

    entries = outbox.deliverable(100)
    (again,) = outbox.add([(message("o-0", "e-14"), False)])
    (gone,) = outbox.add([(message("o-2", "e-2"), False)])
    (new,) = outbox.add([(message("o-x", "e-x"), False)])
    outbox.settle(delivered=[(entries[0].seq, 0, 0)])

    assert {(entry.kind, entry.named, entry.to_partition) for entry in entries} == {("event", None, None)}
    assert "o-3" not in {entry.order_id for entry in entries}, "number 11 holds it"
    assert "o-3" in outbox.waiting_orders()
    assert outbox.held_orders() == {"o-3"}
    assert [again.new, gone.state] == [False, "delivered"]
    assert (new.new, desk.find("e-x")[0].seq) == (True, 41)
    after = outbox.totals()
    assert (after.waiting, after.held, after.delivered) == (totals.waiting, totals.held, totals.delivered + 1)
    assert after.delivered_ever == totals.delivered_ever + 1 == 11, "also those that were removed"
    assert [(row.id, row.cause) for row in alerts.rows()] == [(1, "event_held")]


def test_a_file_that_holds_nothing_is_migrated(tmp_path: Path) -> None:
    settings = Settings(var_dir=str(tmp_path))
    with opened(settings) as old:
        old.executescript(VERSION_1)
        old.execute("PRAGMA user_version = 1")

    assert Outbox(settings).add([(message("a", "a-1"), False)]) == [Addition("waiting", 0)]
    assert OutboxDesk(settings).find("a-1")[0].seq == 1


def test_a_bound_holds_behind_a_migration(settings: Settings) -> None:
    """It is by the totals that room is found."""
    with opened(settings) as old:
        ((undelivered,),) = old.execute("SELECT count(*) FROM outbox WHERE state IN ('waiting', 'held')").fetchall()
    full = Settings(var_dir=settings.var_dir, outbox_max_events=undelivered)

    assert isinstance(Outbox(full).add([(message("a", "a-1"), False)])[0], OutboxFull)


#: Migrates, and is killed with -9 behind so many statements. Each has gone through the connection by then.
KILLED = """
import os, signal, sys
from orderflow.settings import Settings
from orderflow.store import migration, sqlite
from orderflow.store.outbox import Outbox

count = 0
def die(statement):
    global count
    count += 1
    if count > int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)

def rebuild(connection, script):
    connection.execute("PRAGMA cache_size = 10")  # so that changed pages are in the file, as with a large one
    connection.set_trace_callback(die)
    migration.rebuild(connection, script)

sqlite.rebuild = rebuild
Outbox(Settings(var_dir=sys.argv[1])).totals()
"""


def migrate_elsewhere(settings: Settings, statements: int) -> int:
    command = [sys.executable, "-c", KILLED, settings.var_dir, str(statements)]
    return subprocess.run(command, check=False, timeout=60).returncode


def test_a_migration_that_is_killed_leaves_the_file_as_it_was(settings: Settings) -> None:
    """At any moment; the next one who opens it migrates it."""
    before = held(settings)
    schema = made(settings)
    changed = 0

    for statements in range(0, 100, 3):
        content = settings.outbox_db.read_bytes()
        code = migrate_elsewhere(settings, statements)
        if code == 0:
            break
        assert code == -signal.SIGKILL
        changed += settings.outbox_db.read_bytes() != content
        assert held(settings) == before
        assert (made(settings), version(settings)) == (schema, 1)

    assert changed > 5, "it was half changed when it was killed, and SQLite undid it"
    assert code == 0
    assert (held(settings), version(settings)) == (before, sqlite.OUTBOX.version)


def test_many_that_open_it_at_once_migrate_it_once(settings: Settings) -> None:
    before = held(settings)
    results: list[int] = []

    def look() -> None:
        results.append(Outbox(settings).totals().held)

    threads = [threading.Thread(target=look) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)

    assert results == [1] * 8
    assert held(settings) == before


def test_a_later_version_is_refused_and_left_alone(settings: Settings) -> None:
    with opened(settings) as old:
        old.execute(f"PRAGMA user_version = {sqlite.OUTBOX.version + 1}")
    before = held(settings)

    with pytest.raises(StoreIncompatible, match="events wait in it"):
        Outbox(settings).totals()

    assert held(settings) == before


def test_a_projection_of_another_version_is_not_migrated(tmp_path: Path) -> None:
    """It is built anew from the topic."""
    path = tmp_path / "orders.db"
    with closing(sqlite3.connect(path)) as old:
        old.execute("PRAGMA user_version = 1")

    for open_it in (sqlite.open_writer, sqlite.open_reader):
        with pytest.raises(StoreIncompatible, match="rebuild --from-scratch"):
            open_it(path, busy_timeout_s=1)


def test_a_projection_that_lacks_what_a_version_added_is_given_it(tmp_path: Path) -> None:
    """Events of an earlier log are nowhere else: to build it anew would lose them."""
    settings = Settings(var_dir=str(tmp_path))
    log = AppliedLog(settings)
    place = log.lay(b"a", created("a", 1))
    skipped = log.lay(b"a", b"{")
    log.writer.close()
    with closing(sqlite3.connect(settings.orders_db)) as old:
        fresh = set(old.execute("SELECT name, sql FROM sqlite_schema").fetchall())
        old.executescript("DROP TABLE progress; DROP INDEX skipped_by_event; PRAGMA user_version = 2")
    with pytest.raises(StoreIncompatible, match="version 2"):
        sqlite.open_reader(settings.orders_db, busy_timeout_s=1)

    Writer(settings).close()

    timeline = Timeline(settings, Reader(settings)).of_order("a").events
    assert [f"{one['epoch']}-{one['partition']}-{one['offset']}" for one in timeline] == [place, skipped]
    assert timeline[0]["steps"][-1] == {"step": "applied", "at": None}
    with closing(sqlite3.connect(settings.orders_db)) as new:
        assert set(new.execute("SELECT name, sql FROM sqlite_schema").fetchall()) == fresh
        assert new.execute("PRAGMA user_version").fetchone() == (sqlite.ORDERS.version,)


@pytest.fixture
def memory() -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        yield connection


def test_what_a_script_adds_keeps_its_default_and_what_it_drops_is_gone(memory: sqlite3.Connection) -> None:
    memory.executescript(
        "CREATE TABLE a (x INTEGER PRIMARY KEY, old TEXT); INSERT INTO a VALUES (1, 'o'), (2, 'p');"
        "CREATE TABLE gone (x); CREATE TABLE seeded (word TEXT PRIMARY KEY, number); INSERT INTO seeded VALUES ('w', 7)"
    )

    rebuild(
        memory,
        [
            "CREATE TABLE a (x INTEGER PRIMARY KEY, new TEXT NOT NULL DEFAULT 'n', twice AS (2 * x))",
            "CREATE TABLE seeded (word TEXT PRIMARY KEY, number)",
            "INSERT OR IGNORE INTO seeded VALUES ('w', 0), ('v', 0)",
            "CREATE TRIGGER t AFTER INSERT ON a BEGIN UPDATE seeded SET number = number + 1; END",
        ],
    )

    assert memory.execute("SELECT * FROM a").fetchall() == [(1, "n", 2), (2, "n", 4)]
    assert memory.execute("SELECT * FROM seeded ORDER BY word").fetchall() == [("v", 0), ("w", 7)]
    assert {name for (name,) in memory.execute("SELECT name FROM sqlite_schema WHERE sql IS NOT NULL")} == {
        "a", "seeded", "t",
    }  # fmt: skip


def test_rows_that_a_new_rule_does_not_take_are_an_error_and_not_lost(memory: sqlite3.Connection) -> None:
    memory.executescript("CREATE TABLE a (x); INSERT INTO a VALUES (1), (1)")
    memory.execute("BEGIN")

    with pytest.raises(sqlite3.IntegrityError):
        rebuild(memory, ["CREATE TABLE a (x)", "CREATE UNIQUE INDEX once ON a (x)"])
    memory.execute("ROLLBACK")

    assert memory.execute("SELECT * FROM a").fetchall() == [(1,), (1,)]
