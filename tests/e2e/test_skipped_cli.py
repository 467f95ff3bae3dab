"""``orderflow skipped`` and ``orderflow rebuild`` on a stack, as a person uses them; then without one."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from orderflow.cli.main import app as cli
from orderflow.errors import SupervisorRefused
from orderflow.store.outbox_desk import OutboxDesk
from tests.support import store
from tests.support.command import asked, orderflow, run
from tests.support.damage import damage
from tests.support.messages import produce
from tests.support.processes import ended_at_last
from tests.support.stacks import running
from tests.support.waiting import until
from tests.unit.test_projection import changed, created

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from orderflow.stack import Stack


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with running(tmp_path_factory.mktemp("skipped")) as stack:
        yield stack


def skipped(stack: Stack, *records: tuple[bytes | None, bytes]) -> list[str]:
    """Put records on the topic, and give the names of the skips when all of them are skipped."""
    sent = [{"key": key, "value": value} | ({"partition": 0} if key is None else {}) for key, value in records]
    names = [f"1-{partition}-{offset}" for partition, offset in produce(stack.settings, sent)]
    until(lambda: {*names} <= {*states(stack)}, f"{names} are skipped", within_s=10)
    return names


def states(stack: Stack) -> dict[str, str]:
    place = "epoch || '-' || partition || '-' || offset"
    return dict(store.query(stack.settings, f"SELECT {place}, state FROM skipped_messages"))


def in_outbox(stack: Stack, name: str) -> list[str]:
    """The ids of the controls that wait."""
    return [entry.event_id for entry in OutboxDesk(stack.settings).entries(("waiting",)) if entry.named == name]


def test_a_person_lists_shows_mends_and_gives_up(stack: Stack, tmp_path: Path) -> None:
    """By file, from stdin, at the end; a preview first, which changes nothing."""
    create, update, stray = skipped(
        stack, (b"a", created("a", 1)[:30]), (b"a", changed("a", 2, "shipped")), (None, created("b", 1))
    )
    mended = tmp_path / "mended.json"
    mended.write_bytes(created("a", None))

    listed = orderflow(stack, "skipped", "list")
    only = asked(stack, "skipped", "list", "--order", "a", "--reason", "unknown_order", "--since", "2020-01-01")
    shown = orderflow(stack, "skipped", "show", create)
    preview = orderflow(stack, "skipped", "redrive", create, "--event", str(mended), "--simulate")
    unchanged = states(stack)
    done = orderflow(stack, "skipped", "redrive", create, "--event", "-", stdin=mended.read_text(encoding="utf-8"))
    at_end = asked(stack, "skipped", "redrive", stray, "--at-end", "--author", "kim", "--because", "no key")

    lines = listed.splitlines()
    in_list = [line.split()[0] for line in lines[1:4]]
    assert [name for name in in_list if name != stray] == [update, create], "newest first, of one partition"
    assert stray in in_list
    assert lines[-1].startswith("3 skipped messages: 1 malformed_json, 1 missing_key, 1 unknown_order")
    assert [one["id"] for one in only["skippedMessages"]] == [update]
    assert re.search(r'^payload +\{"type": "order\.created"', shown, re.MULTILINE)
    assert "after    shipped, customer c-1, total 10.25 EUR" in preview
    assert f"heals    {update}" in preview
    assert set(unchanged.values()) == {"open"}
    assert "1 took effect, 0 did not, 0 are under way" in done
    (result,) = at_end["results"]
    assert (result["verdict"], result["state"]) == ("accepted", "discarded")
    assert states(stack) == {create: "repaired", update: "healed", stray: "discarded"}
    after = orderflow(stack, "skipped", "show", stray)
    assert "message.discarded by kim" in after
    assert store.query(stack.settings, "SELECT order_id, status FROM orders ORDER BY 1") == [
        ("a", "shipped"), ("b", "new"),
    ]  # fmt: skip


def test_many_are_settled_at_once_and_what_cannot_be_is_told(stack: Stack) -> None:
    """Exit code 1 says that not all took effect: as they were, they are skipped again."""
    names = skipped(stack, *[(b"many", changed("many", number, "shipped")) for number in range(1, 6)])
    (stray,) = skipped(stack, (None, changed("many", 9, "shipped")))

    mixed = run(stack, "skipped", "redrive", "--order", "many")
    done = orderflow(
        stack, "skipped", "discard", "--reason", "unknown_order", "--because", "of no order", "--wait", "20"
    )
    none_left = orderflow(stack, "skipped", "discard", "--reason", "unknown_order", "--because", "again")

    assert mixed.returncode == 1
    assert f"left out {stray} (no-place)" in mixed.stderr
    assert "0 took effect, 5 did not, 0 are under way" in mixed.stdout
    assert "5 took effect, 0 did not, 0 are under way" in done
    assert {states(stack)[name] for name in names} == {"discarded"}
    assert "no open skipped message is meant" in none_left


@pytest.fixture(scope="module")
def damaged(stack: Stack) -> str:
    return skipped(stack, (b"c", b"{"))[0]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("show", "1-0-99999"), "there is no skipped message '1-0-99999'"),
        (("redrive", "nonsense"), "there is no skipped message 'nonsense'"),
        (("discard", "1-0-99999", "--because", "x"), "`orderflow skipped list --state all`"),
        (("redrive",), "say which are meant, in one way"),
        (("redrive", "--all", "--reason", "unknown_order"), "say which are meant, in one way"),
        (("list", "--state", "lost"), "'lost' is no state"),
        (("list", "--reason", "lost"), "'lost' is no reason"),
        (("redrive", "NAME", "--event", "/nowhere.json"), "the mended event cannot be read"),
        (("redrive", "NAME", "--author", " "), "author"),
        (("discard", "NAME", "--because", ""), "reason"),
        (("redrive", "NAME"), "(no-event)"),
    ],
)
def test_what_cannot_be_done_is_said_on_stderr(
    stack: Stack, damaged: str, arguments: tuple[str, ...], said: str
) -> None:
    command = [damaged if one == "NAME" else one for one in arguments]
    done = CliRunner().invoke(cli, ["skipped", *command, "--stack", str(stack.directory)])

    assert done.exit_code == (2 if said.startswith("'lost'") else 1), "wrong words are another thing"
    assert isinstance(done.exception, SystemExit), "no error that nobody foresaw"
    assert said in done.stderr


def test_whoever_stops_waiting_loses_nothing(stack: Stack) -> None:
    """Ctrl-C, with Kafka's relay away: the wish is in the outbox, asking again is the same, and it is applied later."""
    stack.stop("outbox-relay")
    (name,) = skipped(stack, (b"late", changed("late", 1, "shipped")))
    command = [sys.executable, "-m", "orderflow.cli.main", "skipped", "discard", name, "--because", "late"]

    started = subprocess.Popen(command, cwd=stack.directory, env=stack.env, stderr=subprocess.PIPE, text=True)
    with ended_at_last(started) as process:
        until(lambda: in_outbox(stack, name), "it is asked for", within_s=10, every_s=0.1)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=10)
    again = run(stack, "skipped", "discard", name, "--because", "late", "--wait", "0", "--json")
    other = run(stack, "skipped", "redrive", name, "--force", "--wait", "0")
    waiting = in_outbox(stack, name)
    under_way = asked(stack, "skipped", "show", name)["skippedMessage"]["underWay"]
    stack.start("outbox-relay")

    until(lambda: states(stack)[name] == "discarded", "it is applied", within_s=15)
    assert process.returncode == 130
    assert "Traceback" not in said
    assert again.returncode == 1
    assert json.loads(again.stdout)["results"][0]["verdict"] is None
    assert len(waiting) == 1
    assert under_way["eventId"] == waiting[0]
    assert "(under-way)" in other.stderr


@pytest.mark.faults
def test_a_rebuild_stops_the_consumer_and_starts_it_again(stack: Stack) -> None:
    """Also one that gave up because of a damaged file; one that a person has stopped stays so."""
    pid = stack.pid("order-consumer")
    said = run(stack, "rebuild", "--yes")
    second = stack.pid("order-consumer")
    before = states(stack)
    stack.stop("order-consumer")
    orderflow(stack, "rebuild", "--dry-run")
    stays_stopped = stack.pid("order-consumer")
    damage(stack.settings.orders_db, "all")
    with pytest.raises(SupervisorRefused):
        stack.start("order-consumer")
    built = orderflow(stack, "rebuild", "--from-scratch")

    assert (said.returncode, "stopping order-consumer" in said.stderr, "started" in said.stderr) == (0, True, True)
    assert second not in {None, pid}
    assert stays_stopped is None
    assert "the old file is kept as" in built
    assert stack.pid("order-consumer") is not None
    assert states(stack) == before
    (name,) = skipped(stack, (b"more", b"{"))
    assert name in orderflow(stack, "skipped", "list")


def test_without_a_stack_it_says_where_to_look(tmp_path: Path) -> None:
    for command in (["skipped", "list"], ["skipped", "redrive", "--all"], ["rebuild"]):
        done = subprocess.run(
            [sys.executable, "-m", "orderflow.cli.main", *command],
            cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

        assert done.returncode == 1
        assert re.match(r"orderflow: .*orders\.db is not there|orderflow: There is no .*orders\.db", done.stderr)
    assert [path.name for path in tmp_path.iterdir() if path.name != "var"] == []
