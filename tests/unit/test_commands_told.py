"""Commands against services that are told what to say: what they refuse, wait for and show, and the ways out."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from orderflow.stack import Stack
from tests.support.command import on_terminal, run_here
from tests.support.scripted import scripted
from tests.support.skips import put, skip
from tests.support.waiting import interrupted_when
from tests.unit.test_client_typed import DETAILS, EVENT, written

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.scripted import Script


@pytest.fixture
def server() -> Iterator[Script]:
    with scripted() as script:
        yield script


@pytest.fixture
def stack(server: Script, tmp_path: Path) -> Stack:
    """One whose services answer as they are told."""
    return Stack.create(tmp_path / "stack", cart_port=server.server_port, order_port=server.server_port)


@pytest.mark.parametrize(
    "words",
    [
        ("create", ""), ("create", "a\nb"), ("create", "a" * 129), ("update", " ", "shipped"), ("show", ""),
        ("create", "kk", "--key", ""), ("create", "kk", "--key", "\N{EURO SIGN}"),
        ("update", "kk", "shipped", "--key", "k\n1"),
    ],
)  # fmt: skip
def test_an_id_or_key_that_is_none_ends_with_2_and_nothing_is_sent(
    server: Script, stack: Stack, words: tuple[str, ...]
) -> None:
    done = run_here(stack, "orders", *words)

    assert (done.returncode, done.stdout) == (2, "")
    assert "Invalid value for" in done.stderr
    assert server.asked == []


def test_a_write_of_which_nobody_knows_names_the_option_to_repeat_it_with(server: Script, stack: Stack) -> None:
    for _ in range(2):
        server.will_break()

    done = run_here(stack, "orders", "create", "ord-1")

    key = server.asked[0][2]["idempotency-key"]
    assert done.returncode == 1
    assert "create of order 'ord-1': nobody knows whether it takes effect" in done.stderr
    assert f"; repeat it with --key {key} until it is published or spooled" in done.stderr
    assert "idempotency_key" not in done.stderr


def test_ctrl_c_in_a_write_names_its_key(server: Script, stack: Stack) -> None:
    server.will_answer_when(release := threading.Event(), 200, written())

    with interrupted_when(lambda: len(server.asked) == 1):
        done = run_here(stack, "orders", "update", "ord-1", "shipped")
    release.set()

    assert (done.returncode, done.stdout) == (130, "")
    assert f"repeated with --key {server.asked[0][2]['idempotency-key']} it is the same event" in done.stderr


@pytest.mark.parametrize(("wait", "code", "asked"), [((), 1, 1), (("--wait", "5"), 0, 3), (("--wait", "0.05"), 1, 2)])
def test_an_order_that_is_not_there_yet_is_waited_for_where_that_is_asked(
    server: Script, stack: Stack, wait: tuple[str, ...], code: int, asked: int
) -> None:
    for _ in range(2):
        server.will_answer(404, {"error": "There is no order 'ord-1'."})
    server.will_answer(200, DETAILS)

    done = run_here(stack, "orders", "show", "ord-1", *wait)

    assert (done.returncode, len(server.asked)) == (code, asked), done


def test_an_event_id_may_be_in_upper_case(server: Script, stack: Stack) -> None:
    server.will_answer(200, {"event": EVENT})
    server.will_answer(200, DETAILS)

    assert run_here(stack, "event", "6E620890-21FD-4FD8-A3DE-A3B3B8ABB8A2").returncode == 0
    assert run_here(stack, "orders", "show", "ord-1", "--after", "6E620890-21FD").returncode == 0

    assert server.asked[0][1] == "/events/6e620890-21fd-4fd8-a3de-a3b3b8abb8a2"
    assert "after=6e620890-21fd" in server.asked[1][1]


def test_eighty_columns_are_enough_for_a_list_of_orders(server: Script, stack: Stack) -> None:
    """A line each, and nothing cut off."""
    order = {
        "orderId": "ord-20261123-0001", "customerId": "customer-1234", "orderDate": "2026-11-23T09:12:33.593Z",
        "items": [], "totalAmount": 1234.5, "currency": "EUR", "status": "confirmed",
    }  # fmt: skip
    server.will_answer(200, {"orders": [order, order]})

    _, *lines = on_terminal(stack, "orders", "list")

    assert [line.split() for line in lines] == [
        ["ord-20261123-0001", "confirmed", "customer-1234", "1234.5", "EUR", "2026-11-23", "09:12:33Z"]
    ] * 2


def test_eighty_columns_are_enough_for_a_list_of_skipped_messages(stack: Stack) -> None:
    """Its id, reason and time are whole; order and detail go on in the next lines."""
    detail = "An order of this id was created before it, by another event."
    put(stack.settings, [skip(1234567, 15, reason="duplicate_create", order_id="ord-20261123-0001", detail=detail)])

    header, *lines, count = on_terminal(stack, "skipped", "list")
    every = on_terminal(stack, "skipped", "list", "--state", "all")

    assert header.split() == ["id", "reason", "came", "order", "detail"]
    assert lines[0].startswith("1-15-1234567  duplicate_create  2023-11-14T22:33:54Z  ord-2")
    assert max(map(len, lines)) <= 80
    assert "…" not in "".join(lines)
    assert " ".join(line[67:].strip() for line in lines) == detail
    assert count == "1 skipped messages: 1 duplicate_create"
    assert every[1].startswith("1-15-1234567  open   duplicate_create  2023-11-14T22:33:54Z ")


def test_who_has_read_enough_of_top_ends_it_in_good_order(tmp_path: Path) -> None:
    """As `head -1` does."""
    stack = Stack.create(tmp_path / "stack")
    command = [sys.executable, "-m", "orderflow.cli.main", "top", "--json", "--interval", "0.1"]

    with subprocess.Popen(
        command, cwd=stack.directory, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        look = json.loads(process.stdout.readline())
        process.stdout.close()
        said = process.stderr.read()

    assert "order-consumer" in look["problems"]
    assert (process.returncode, said) == (0, "")
