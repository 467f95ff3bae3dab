"""Processes killed with -9 in an outage and behind it: what was answered stays true."""

from __future__ import annotations

import os
import random
import signal
import time
from typing import TYPE_CHECKING

import pytest

from tests.support import store
from tests.support.load import Load
from tests.support.outage import Rounds, by_order
from tests.support.truth import check_truth
from tests.support.waiting import is_alive, until

if TYPE_CHECKING:
    from orderflow.stack import Stack
    from tests.conftest import Figures, MakeStack

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]

SHORT_WAITS = {"publish_attempt_timeout_s": 0.3, "publish_deadline_s": 2.0, "publish_retry_first_delay_s": 0.05}

CART_KILLS = 3
RELAY_KILLS = 10
BACKLOG = 5_000


def _kill(stack: Stack, program: str) -> None:
    """Kill its main process, and wait until another one runs, long enough for Supervisor to take it for started."""
    pid = stack.pid(program)
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    until(lambda: stack.pid(program) not in {None, pid}, f"a new {program}", within_s=20)
    until(lambda: stack.supervisor.program(program).state == "RUNNING", f"{program} has started", within_s=20)


def test_the_cart_services_main_killed_while_it_spools(make_stack: MakeStack, figures: Figures) -> None:
    """What was answered with 202 is on disk; the next process knows which orders wait, and lets none overtake."""
    stack = make_stack(**SHORT_WAITS)
    stack.up()

    with Load(stack.settings, work=Rounds(pause_s=0.005)) as load:
        until(lambda: len(by_order(load.ledger)) >= 320, "all orders are created", within_s=30)
        stack.stop("kafka")
        for _ in range(CART_KILLS):
            since = time.monotonic()
            until(lambda: _spooled_since(load, since) >= 200, "the load is spooled", within_s=30)  # noqa: B023
            _kill(stack, "cart-service")
        spooled_before_start = store.undelivered(stack.settings)
        stack.start("kafka")
        started = time.monotonic()
        until(lambda: load.ledger.first_published_after(started), "an event is published", within_s=30)
        time.sleep(2)
    verdict = check_truth(load.ledger, stack.settings)

    figures(
        f"cart-service killed {CART_KILLS} times while spooling",
        **verdict.outcomes,
        **load.ledger.endings(),
        unknown_on_topic=verdict.unknown_on_topic,
        waiting_at_kafkas_return=spooled_before_start,
    )
    assert spooled_before_start > 0
    assert verdict.outcomes["spooled"] >= CART_KILLS * 200


def _spooled_since(load: Load, moment: float) -> int:
    return sum(entry.outcome == "spooled" and entry.sent > moment for entry in load.ledger)


def test_the_relay_killed_ten_times_while_it_drains(make_stack: MakeStack, figures: Figures) -> None:
    """At most a second copy of what was on its way, which the event id removes; each order stays in order."""
    # Small groups: it must still be at work when the last kill comes.
    stack = make_stack(**SHORT_WAITS, relay_batch_max=4)
    stack.up()
    left = []

    with Load(stack.settings, work=Rounds(orders=40, pause_s=0)) as load:
        until(lambda: len(by_order(load.ledger)) >= 320, "orders are created", within_s=30)
        stack.stop("outbox-relay")
        stack.stop("kafka")
        until(lambda: store.undelivered(stack.settings) >= 3 * BACKLOG, "enough is spooled", within_s=120)
        load.stop()
    stack.start("kafka")
    stack.start("outbox-relay")
    for _ in range(RELAY_KILLS):
        before = store.undelivered(stack.settings)
        until(lambda: store.undelivered(stack.settings) < before, "it drains", within_s=30)  # noqa: B023
        time.sleep(random.random() * 0.02)  # noqa: S311 (any moment will do)
        pid = stack.pid("outbox-relay")
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        until(lambda: not is_alive(pid), "it is dead", within_s=5)  # noqa: B023
        left.append(store.undelivered(stack.settings))  # The next one takes longer than this to start.
        until(lambda: stack.supervisor.program("outbox-relay").state == "RUNNING", "a new relay", within_s=20)
    verdict = check_truth(load.ledger, stack.settings, catch_up_s=60)

    figures(
        f"relay killed {RELAY_KILLS} times",
        **verdict.outcomes,
        undelivered_at_kills=left,
        duplicates_on_topic=verdict.duplicates,
    )
    assert min(left) > 0, "it had nothing left to deliver at a kill"
    assert left[0] - left[-1] > 0
    assert verdict.outcomes["spooled"] >= BACKLOG
    assert verdict.duplicates <= RELAY_KILLS * stack.settings.relay_batch_max
