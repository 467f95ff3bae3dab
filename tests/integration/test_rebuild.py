"""``orderflow rebuild`` against a real log: what it finds, what it changes, and what it leaves when it is killed."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Any, Literal

import msgspec
import pytest

from orderflow import controls
from orderflow.broker import ensure_topic, partition_of
from orderflow.controls import Discarded, Repaired
from orderflow.store.reader import Reader
from orderflow.store.rows import ControlRow, HistoryRow, OrderRow, SkippedRow
from tests.support import store
from tests.support.command import asked, orderflow, run
from tests.support.damage import damage
from tests.support.lost_log import SHORT, Life, beside
from tests.support.messages import NotUtf8, produce
from tests.support.waiting import until
from tests.unit.test_projection import changed, created, uuid

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.broker import Broker

#: All that the log determines, as the sum of the tables says.
COLUMNS = {
    "orders": OrderRow._fields,
    "history": HistoryRow._fields,
    "skipped_messages": SkippedRow._fields,
    "controls": ControlRow._fields,
}

#: Enough that a rebuild can be met in the middle.
MANY = 6_000


def dump(life: Life) -> dict[str, list[Any]]:
    return {
        table: sorted(store.query(life.settings, f"SELECT {', '.join(columns)} FROM {table}"), key=repr)
        for table, columns in COLUMNS.items()
    }


def change(life: Life, *statements: str) -> None:
    """Change the projection by hand."""
    with closing(sqlite3.connect(life.settings.orders_db)) as connection, connection:
        for statement in statements:
            assert connection.execute(statement).rowcount > 0, statement


def leftovers(life: Life) -> list[Any]:
    return store.query(life.settings, "SELECT name FROM sqlite_schema WHERE name LIKE 'rebuilt%'")


def control(life: Life, number: int, offset: int, order: str, if_last: int | None, mended: bytes | None) -> None:
    """Write a control to the partition of an order."""
    partition = partition_of(order.encode())
    topic_id = ensure_topic(life.settings, "test").topic_id
    says: dict[str, Any] = {
        "event_id": uuid(number), "topic_id": topic_id, "partition": partition, "offset": offset, "author": "kim",
        "if_last": if_last,
    }  # fmt: skip
    made = Discarded(**says) if mended is None else Repaired(**says, event=msgspec.Raw(mended))
    produce(life.settings, [{"key": order.encode(), "value": controls.encode(made), "partition": partition}])


def fill(life: Life) -> None:
    """Good records, skips of every kind, and controls of every verdict."""
    a, c = b"a", next(name for name in ("c", "d", "e") if partition_of(name.encode()) != partition_of(b"a")).encode()
    other = c.decode()
    produce(life.settings, [
        {"key": a, "value": created("a", 1)[:30]}, {"key": a, "value": changed("a", 2, "pending")},
        {"key": a, "value": changed("a", 3, "shipped")}, {"key": a, "value": b'{"type": "order.lost"}'},
        {"key": c, "value": created(other, 1)}, {"key": c, "value": created(other, 2, "c-2")},
        {"key": c, "value": changed(other, 1, "shipped")}, {"key": c, "value": changed(other, 4, "pending")},
        {"value": created("e", 1), "partition": 0}, {"key": b"wrong", "value": created("f", 1)},
        {"key": a, "value": created("a", 9), "headers": [(NotUtf8("x"), b"")]},
    ])  # fmt: skip
    control(life, 101, 0, "a", 3, created("a", None))
    control(life, 101, 0, "a", 3, created("a", None))
    control(life, 102, 3, "a", 3, changed("a", None, "new"))
    control(life, 103, 0, "a", None, None)
    control(life, 104, 1, other, None, None)
    control(life, 105, 77, other, None, None)
    control(life, 106, 3, "a", 5, changed("a", None, "delivered"))


@pytest.fixture(scope="module")
def life(broker: Broker) -> Iterator[Life]:
    """A consumer that has applied all of it; it is stopped while a rebuild has the file."""
    with Life.of(broker.settings(**SHORT)) as life:
        fill(life)
        life.wait_until_applied()
        yield life


def test_built_anew_it_is_what_the_consumer_made_of_it(life: Life) -> None:
    before = dump(life)
    verdicts = store.query(life.settings, "SELECT verdict FROM controls ORDER BY partition, offset")
    with life.stopped():
        said = asked(life, "rebuild", "--yes")
        again = orderflow(life, "rebuild", "--dry-run")

    assert len(before["skipped_messages"]) >= 8
    assert {verdict for (verdict,) in verdicts} >= {"accepted", "duplicate", "stale", "superseded", "invalid_control"}
    assert (said["differences"], said["swapped"], said["examples"]) == (0, True, [])
    assert dump(life) == before
    assert leftovers(life) == []
    assert "nothing differs" in again
    assert "nothing was changed" in again


def test_what_was_changed_by_hand_is_shown_and_mended_when_that_is_wanted(life: Life) -> None:
    """A row that is other, one that is gone, one that never was: of each table."""
    before = dump(life)
    with life.stopped():
        change(
            life,
            "UPDATE orders SET status = 'cancelled' WHERE order_id = 'a'",
            "DELETE FROM skipped_messages WHERE reason = 'missing_key'",
            "UPDATE history SET outcome = 'skipped', reason = 'unknown_order' WHERE order_id = 'a' AND offset = 1",
            "INSERT INTO controls SELECT epoch, partition, 900, key, order_id, event_id, fingerprint, type,"
            " named_offset, if_last, operation, author, note, successor, payload, logged_at, trace_id, verdict,"
            " detail, taken_event_id FROM controls LIMIT 1",
        )
        damaged = dump(life)
        dry = asked(life, "rebuild", "--dry-run")
        unconfirmed = run(life, "rebuild")
        unasked = dump(life)
        done = asked(life, "rebuild", "--yes")

    counts = {"orders.other": 1, "skipped_messages.new": 1, "history.other": 1, "controls.gone": 1}
    assert (dry["swapped"], dry["differences"], dry["counts"]) == (False, 4, counts)
    (order,) = (one for one in dry["examples"] if one["table"] == "orders")
    assert (order["before"], order["after"]) == ({"status": "cancelled"}, {"status": "delivered"})
    assert unconfirmed.returncode == 1
    assert "skipped_messages: 1 would be new" in unconfirmed.stdout
    assert "reason 'missing_key'" in unconfirmed.stdout
    assert "a: status 'cancelled' -> 'delivered'" in unconfirmed.stdout
    assert "say --yes" in unconfirmed.stderr
    assert unasked == damaged
    assert (done["swapped"], done["counts"]) == (True, counts)
    assert dump(life) == before


def test_the_files_writer_is_named_and_nothing_is_begun(life: Life) -> None:
    """No Supervisor runs this consumer, so it is not for the command to stop it."""
    for options in (("--dry-run",), ("--from-scratch",)):
        done = run(life, "rebuild", *options)

        assert done.returncode == 1
        assert f"process {life.pid} writes {life.settings.orders_db}; stop it first" in done.stderr
    assert leftovers(life) == []


def test_what_the_log_has_lost_is_kept_unless_it_is_to_be_dropped(broker: Broker) -> None:
    """It is nowhere else. What was changed by hand there cannot be told from what was there: nothing says it anew."""
    first, second = "a", beside("a", 1)[0]
    with Life.of(broker.settings(**SHORT)) as life:
        life.write((first, None), (first, "shipped"), (second, None), (first, "pending"))
        produce(life.settings, [{"key": b"a", "value": b"{"}])
        life.wait_until_applied()
        with life.stopped():
            life.delete_records("a", before=2)
            before = dump(life)
            kept = asked(life, "rebuild", "--yes")
            after = dump(life)
            drop = asked(life, "rebuild", "--dry-run", "--drop-lost")

    assert (kept["differences"], after) == (0, before)
    assert drop["counts"] == {
        "orders.gone": 1, "history.gone": 2, "history.other": 1, "skipped_messages.new": 1,
    }  # fmt: skip


def test_killed_in_the_middle_it_leaves_the_old_tables_and_reads_go_on(broker: Broker) -> None:
    """Killed with -9, asked to stop, left by its terminal, and let through; readers find every order all the time."""
    with Life.of(broker.settings(**SHORT)) as life:
        life.write_many(*((f"o{number % 500}", None if number < 500 else "shipped") for number in range(MANY)))
        life.wait_until_applied()
        before = dump(life)
        reader = Reader(life.settings)
        with life.stopped():
            assert killed(life, signal.SIGKILL, reader) == -signal.SIGKILL
            left_by_kill = leftovers(life)
            assert dump(life) == before
            assert killed(life, signal.SIGTERM, reader) == 130
            left_by_stop = leftovers(life)
            assert dump(life) == before
            assert killed(life, signal.SIGHUP, reader) == 130
            assert (leftovers(life), dump(life)) == ([], before)
            assert killed(life, None, reader) == 0

        assert left_by_kill != []
        assert left_by_stop == leftovers(life) == []
        assert dump(life) == before
        life.write(("o1", "delivered"))
        life.wait_until_applied()


def killed(life: Life, how: signal.Signals | None, reader: Reader) -> int:
    """Begin a rebuild, and end it that way when some of it is done; read meanwhile; give the exit code."""
    begun_before = _begun(life)
    command = [sys.executable, "-m", "orderflow.cli.main", "rebuild", "--yes"]
    with subprocess.Popen(command, cwd=life.directory, env=life.env, stderr=subprocess.DEVNULL) as process:
        until(lambda: _begun(life) not in {None, begun_before}, "some of it is folded", within_s=20, every_s=0.005)
        if how is not None:
            process.send_signal(how)
        while process.poll() is None:
            assert reader.order("o1") is not None
            assert len(reader.order_ids(0, 1_000)) == 500
            with suppress(subprocess.TimeoutExpired):
                process.wait(0.02)
        return process.returncode


def _begun(life: Life) -> str | None:
    """What names a second set that has some rows, and no other; None where there is none."""
    try:  # One statement, since it is dropped and made by another process.
        rows = store.query(life.settings, f"SELECT ({_NAME}) FROM rebuilt_history LIMIT 1")
    except sqlite3.OperationalError:  # There is no such table.
        return None
    return str(rows[0][0]) if rows else None


_NAME = "SELECT name FROM pragma_index_list('rebuilt_history') ORDER BY seq LIMIT 1"


@pytest.mark.parametrize("how", ["pages", "missing"])
def test_a_file_that_is_lost_is_made_anew_and_kept(life: Life, how: Literal["pages", "missing"]) -> None:
    before = dump(life)
    path = life.settings.orders_db
    with life.stopped():
        damage(path, how)
        unscratched = run(life, "rebuild", "--yes")
        said = asked(life, "rebuild", "--from-scratch")

    assert unscratched.returncode == 1
    assert "`orderflow rebuild --from-scratch`" in unscratched.stderr
    assert said["built"] == str(path)
    kept = sorted(path.parent.glob("orders.db.set-aside-*"))
    assert (said["kept"] is None) == (how == "missing")
    assert [str(one) for one in kept[:1]] == [said["kept"]][: len(kept)]
    for one in kept:
        one.unlink()
    assert dump(life) == before
    assert not path.with_name("orders.db.building").exists()


def test_without_anything_to_rebuild_it_says_what_to_do(broker: Broker) -> None:
    nothing = broker.settings(**SHORT)
    nothing.var.mkdir(parents=True)
    none_yet = Life(nothing)

    no_file = run(none_yet, "rebuild", "--dry-run")
    no_topic = run(none_yet, "rebuild", "--from-scratch")

    assert (no_file.returncode, no_topic.returncode) == (1, 1)
    assert "There is no" in no_file.stderr
    assert "--from-scratch" in no_file.stderr
    assert f"There is no topic {nothing.topic!r}" in no_topic.stderr
    assert not nothing.orders_db.exists()
