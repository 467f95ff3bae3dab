"""500 mixed skips mended in bulk, the relay and the worker killed with -9 in the middle: each takes effect once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from tests.support import store
from tests.support.command import asked, orderflow
from tests.support.messages import produce
from tests.support.topic import read_topic
from tests.support.waiting import until

if TYPE_CHECKING:
    from orderflow.stack import Stack
    from tests.conftest import Figures, MakeStack

pytestmark = [pytest.mark.faults, pytest.mark.timeout(240)]

#: So many skips of each of two kinds.
ORDERS = 250


def test_a_bulk_of_500_is_applied_once_each(make_stack: MakeStack, figures: Figures) -> None:
    stack = make_stack(relay_batch_max=4, poll_max_records=4)
    stack.up()
    _fill(stack)
    until(lambda: _counts(stack) == {"key_mismatch": ORDERS, "missing_key": ORDERS}, "500 are skipped", within_s=30)
    stack.stop("outbox-relay")
    bulk = ("skipped", "redrive", "--all", "--at-end", "--wait", "90", "--json")
    asked_for = subprocess.Popen(
        [sys.executable, "-m", "orderflow.cli.main", *bulk],
        cwd=stack.directory, env=stack.env, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    until(lambda: store.undelivered(stack.settings) == 4 * ORDERS, "all are in the outbox at once", within_s=30)
    stack.start("outbox-relay")
    kills = _kill_in_the_middle(stack)

    said, _ = asked_for.communicate(timeout=100)
    results = json.loads(said)["results"]
    until(lambda: store.undelivered(stack.settings) == 0, "the outbox is drained", within_s=30)

    on_topic = Counter(one.event_id for one in read_topic(stack.settings) if b"event_id" in (one.value or b""))
    copies = sum(count - 1 for count in on_topic.values())
    outcomes = Counter(
        dict(
            store.query(
                stack.settings, "SELECT outcome || coalesce('.' || reason, ''), count(*) FROM history GROUP BY 1"
            )
        )
    )
    figures("bulk of 500, relay and worker killed", kills=kills, second_copies=copies, **outcomes)
    assert kills >= 4
    assert [one["verdict"] for one in results] == ["accepted"] * 2 * ORDERS
    assert _counts(stack) == {}
    verdicts = dict(store.query(stack.settings, "SELECT verdict, count(*) FROM controls GROUP BY verdict"))
    assert verdicts.pop("accepted") == 2 * ORDERS
    assert set(verdicts) <= {"duplicate"}
    statuses = dict(store.query(stack.settings, "SELECT status, count(*) FROM orders GROUP BY status"))
    assert statuses == {"shipped": ORDERS, "new": ORDERS}
    applied = store.query(stack.settings, "SELECT event_id FROM history WHERE outcome = 'applied'")
    assert len(applied) == len(set(applied))
    orderflow(stack, "audit")
    assert asked(stack, "rebuild", "--dry-run")["differences"] == 0


def _fill(stack: Stack) -> None:
    """Create half of the orders; then their updates come under a wrong key, and the other creates without any."""
    with_key = {f"q-{number}": _create(f"q-{number}") for number in range(ORDERS)}
    produce(stack.settings, [{"key": name.encode(), "value": value} for name, value in with_key.items()])
    records: list[dict[str, bytes]] = []
    for number in range(ORDERS):
        update = {"type": "order.status_changed", "order_id": f"q-{number}", "status": "shipped"}
        records += [
            {"key": b"wrong", "value": json.dumps(update).encode()},
            {"value": _create(f"p-{number}")},
        ]
    produce(stack.settings, records)


def _create(order_id: str) -> bytes:
    order = {
        "orderId": order_id, "customerId": "c", "orderDate": "2026-01-02T03:04:05Z", "currency": "EUR",
        "items": [{"itemId": "tea", "quantity": 1, "price": 1.5}], "totalAmount": 1.5,
    }  # fmt: skip
    return json.dumps({"type": "order.created", "order_id": order_id, "order": order}).encode()


def _counts(stack: Stack) -> dict[str, int]:
    return dict(
        store.query(
            stack.settings, "SELECT reason, count(*) FROM skipped_messages WHERE state = 'open' GROUP BY reason"
        )
    )


def _kill_in_the_middle(stack: Stack) -> int:
    """Kill the relay and the worker in turn while some of it is applied, and some is not."""
    kills = 0
    for share in (0.05, 0.2, 0.4, 0.6):
        until(lambda: _discarded(stack) >= share * 2 * ORDERS, f"{share:.0%} is applied", within_s=60)  # noqa: B023
        program = "outbox-relay" if kills % 2 == 0 else "order-consumer"
        pid = until(lambda: stack.pid(program), f"{program} runs", within_s=20)  # noqa: B023
        left = 2 * ORDERS - _discarded(stack)
        os.kill(pid, signal.SIGKILL)
        until(lambda: stack.pid(program) not in {None, pid}, f"a new {program}", within_s=20)  # noqa: B023
        kills += left > 0
    return kills


def _discarded(stack: Stack) -> int:
    ((count,),) = store.query(stack.settings, "SELECT count(*) FROM skipped_messages WHERE state = 'discarded'")
    return int(count)
