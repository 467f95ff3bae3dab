"""Orders on the command line: written, read, followed, and watched; while Kafka is there, and while it is not."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from orderflow.stack import Stack, free_ports
from tests.support.command import asked, completed, run_here
from tests.support.processes import ended_at_last
from tests.support.waiting import until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import MakeStack


def here(stack: Stack, *words: str, code: int = 0) -> Any:
    """Run a command with ``--json``, and give what it says."""
    done = run_here(stack, *words, "--json")
    assert done.returncode == code, (words, done)
    return json.loads(done.stdout)


def said(stack: Stack, *words: str, code: int = 0) -> str:
    """Run a command, and give what it writes."""
    done = run_here(stack, *words)
    assert done.returncode == code, (words, done)
    return done.stdout + done.stderr


def test_a_write_is_followed_to_its_effect(stack: Stack) -> None:
    created = here(stack, "orders", "create", "cli-1", "--items-num", "2", "--currency", "EUR", "--wait", "10")
    updated = said(stack, "orders", "update", "cli-1", "shipped", "--wait", "10")

    assert (created["outcome"], created["applied"], created["order"]["status"]) == ("published", True, "new")
    assert updated.startswith("published: event ")
    assert "order cli-1: shipped, " in updated
    assert "status    shipped" in said(stack, "orders", "show", "cli-1")
    listed = said(stack, "orders", "list", "--status", "shipped", "--limit", "1000")
    assert [line.split()[:2] for line in listed.splitlines() if line.startswith("cli-1 ")] == [["cli-1", "shipped"]]
    timeline = said(stack, "timeline", "cli-1")
    assert timeline.index("order.created (new): applied") < timeline.index("order.status_changed (shipped): applied")
    event = here(stack, "event", created["eventId"])["event"]
    assert (event["state"], event["orderId"], event["offset"]) == ("applied", "cli-1", created["offset"])


def test_a_write_without_effect_ends_with_1_and_says_why(stack: Stack) -> None:
    words = ("orders", "update", "cli-nobody", "shipped", "--wait", "10")

    told = "was skipped (unknown_order), so it has no effect: The event updates an order that was not created"
    assert told in said(stack, *words, code=1)
    assert here(stack, *words, code=1)["applied"] is False
    assert "Nothing is known of an order 'cli-none'" in said(stack, "timeline", "cli-none", code=1)
    assert "There is no order 'cli-none'" in said(stack, "orders", "show", "cli-none", code=1)


#: `orderflow rebuild` has a test of its own, since it stops the consumer; so have those that show one of something.
READ_ONLY = (
    ("status",), ("config",), ("orders", "list"), ("orders", "show", "cli-json"), ("timeline", "cli-json"),
    ("outbox", "list"), ("skipped", "list"), ("alerts", "list"), ("republish", "--dry-run"),
)  # fmt: skip


def test_what_only_reads_gives_one_json_document(stack: Stack) -> None:
    """On stdout, and nothing beside it."""
    event = here(stack, "orders", "create", "cli-json", "--wait", "10")["eventId"]

    for words in (*READ_ONLY, ("event", event)):
        assert isinstance(here(stack, *words), dict), words


def test_a_shell_completes_the_ids_of_what_is_there(stack: Stack) -> None:
    here(stack, "orders", "create", "cli-complete", "--wait", "10")

    assert completed("timeline", "--stack", str(stack.directory), "cli-comp") == ["cli-complete"]


#: With a terminal that can place text, wherever the tests run.
TERMINAL = os.environ | {"TERM": "xterm"}


def test_top_is_a_live_view_that_ctrl_c_ends_in_good_order(stack: Stack) -> None:
    """On a terminal of its own, which is as it was afterwards."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "orderflow.cli.main", "top", "--interval", "0.2"]
    shown = b""
    with ended_at_last(
        subprocess.Popen(command, cwd=stack.directory, stdin=theirs, stdout=theirs, stderr=theirs, env=TERMINAL)
    ) as process:
        os.close(theirs)

        def looks() -> int:
            nonlocal shown
            shown += os.read(ours, 65_536)
            return shown.count(b"order-consumer")

        until(lambda: looks() >= 2 and b"applied" in shown, "rates are shown", within_s=30)
        process.send_signal(signal.SIGINT)
        with suppress(OSError):  # the terminal has gone
            while chunk := os.read(ours, 65_536):
                shown += chunk
        assert process.wait(timeout=10) == 130
    os.close(ours)
    assert shown.rindex(b"\x1b[?1049l") > shown.rindex(b"\x1b[?1049h"), "the screen is given back"
    assert b"Traceback" not in shown


def test_top_gives_a_json_document_a_line_until_it_is_interrupted(stack: Stack) -> None:
    command = [sys.executable, "-m", "orderflow.cli.main", "top", "--json", "--interval", "0.5"]
    with ended_at_last(subprocess.Popen(command, cwd=stack.directory, stdout=subprocess.PIPE, text=True)) as process:
        assert process.stdout is not None
        looks = [json.loads(process.stdout.readline()) for _ in range(3)]
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=10) == 130

    assert {program["program"] for program in looks[0]["programs"]} >= {"kafka", "order-consumer"}
    assert looks[-1]["problems"] == {}
    assert looks[-1]["breaker"] == "closed"
    assert looks[-1]["rates"]["published"] >= 0.0


def test_without_kafka_a_write_is_kept_and_all_of_it_is_told(make_stack: MakeStack) -> None:
    (nowhere,) = free_ports(1)
    programs = ("cart-service", "order-service", "order-consumer")
    stack = make_stack(programs, kafka_bootstrap_servers=f"127.0.0.1:{nowhere}")
    stack.launch()
    until(lambda: sum("degraded" in row.says for row in stack.status()) == 2, "both services answer", 30)

    created = said(stack, "orders", "create", "out-1", "--wait", "0.3", code=3)
    look = asked(stack, "top", "--interval", "0.1", "--once")
    event = here(stack, "outbox", "list")["events"][0]["eventId"]

    assert "spooled: event " in created
    assert "is kept on disk, 0 go before it" in created
    assert f"event {event} of order 'out-1' is spooled: it waits on disk for Kafka" in created
    assert "○ order.created (new): spooled" in said(stack, "timeline", "out-1")
    assert here(stack, "event", event)["event"]["state"] == "spooled"
    assert "is spooled" in said(stack, "orders", "show", "out-1", "--after", event, "--wait", "0", code=3)
    assert (look["breaker"], look["outbox"]["waiting"]) == ("open", 1)
    assert any("waits for Kafka" in program["says"] for program in look["programs"])


def test_a_service_that_is_not_there_is_one_line_with_the_way_out(tmp_path: Path) -> None:
    stack = Stack.create(tmp_path / "stack")

    for words in (("orders", "list"), ("timeline", "ord-1"), ("event", "e-1"), ("orders", "create", "ord-1")):
        done = run_here(stack, *words)
        assert (done.returncode, done.stdout) == (1, ""), words
        assert len(done.stderr.splitlines()) == 1
        assert "could not be reached" in done.stderr
        assert "`orderflow status`" in done.stderr
    look = asked(stack, "top", "--interval", "0.1", "--once")
    assert look["programs"] is None
    assert "no supervisord answers" in look["problems"]["programs"]
    assert not stack.settings.outbox_db.exists(), "looking made no file"
