"""Schemathesis on both services of a stack: every check, all phases, 200 examples of each operation, with a token.

With Kafka and without: what is described holds in an outage, too. And faults planted in a service for it to find.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from tests.support.openapi.faulty import PLAIN, RARE, faulty_service
from tests.support.openapi.laid import PROBLEMS, laid
from tests.support.openapi.runs import run

if TYPE_CHECKING:
    from pathlib import Path

    from orderflow.stack import Stack
    from tests.conftest import Figures, MakeStack

pytestmark = [pytest.mark.faults, pytest.mark.timeout(360)]

TOKEN = "s3cret"  # noqa: S105 (a test's)
EXAMPLES = 200

#: Waits are short, and the outbox takes all that is asked for.
QUICK: dict[str, Any] = {
    "publish_attempt_timeout_s": 0.5,
    "publish_retry_max": 1,
    "publish_retry_first_delay_s": 0.05,
    "publish_deadline_s": 2.0,
    "breaker_probe_interval_s": 0.5,
    "breaker_probe_timeout_s": 0.2,
    "outbox_pause_s": 0.2,
    "outbox_max_events": 1_000_000,
}

#: What is answered to a write, by whether Kafka takes it.
PUBLISHED = {"POST /create-order: 201", "PUT /update-order: 200"}
SPOOLED = {"POST /create-order: 202", "PUT /update-order: 202"}

REFUSED_BODIES = {"400 invalid-body", "415 json-required"}
WRITE = REFUSED_BODIES | {"400 invalid-idempotency-key"}
OPERATORS = REFUSED_BODIES | {"401 token-required"}

#: What of the problems is to be met, besides those that the laid data bring about.
REFUSALS = {
    "cart": {"POST /create-order": WRITE, "PUT /update-order": WRITE, "GET /outbox": {"400 invalid-parameter"}},
    "order": {
        "GET /order-details": {"400 missing-parameter", "400 invalid-parameter"},
        "POST /skipped-messages/{id}/redrive": OPERATORS,
        "POST /skipped-messages/{id}/discard": OPERATORS,
        "POST /alerts/{id}/acknowledge": OPERATORS,
    },
}


@pytest.mark.parametrize(("kafka", "never"), [("up", SPOOLED), ("stopped", PUBLISHED)])
def test_both_services_answer_as_they_describe(
    make_stack: MakeStack, tmp_path: Path, figures: Figures, kafka: str, never: set[str]
) -> None:
    """Each of at least 200 cases of each operation; each success that there is, and each problem that can be had."""
    stack = make_stack(token=TOKEN, **QUICK)
    stack.up()
    ports = {"cart": stack.settings.cart_port, "order": stack.settings.order_port}
    with laid(stack) as examples, ThreadPoolExecutor() as pool:
        if kafka == "stopped":
            stack.stop("kafka")
        running = {
            name: pool.submit(run, tmp_path, port, examples=EXAMPLES, within_s=300, laid=examples, token=TOKEN)
            for name, port in ports.items()
        }
        runs = {name: one.result() for name, one in running.items()}

    for name, done in runs.items():
        figures(f"described answers of the {name} service, Kafka {kafka}", cases=done.cases, seed=done.report["seed"])
    assert {name: done.findings for name, done in runs.items()} == {"cart": [], "order": []}
    for done in runs.values():
        done.check_complete(EXAMPLES)
    assert runs["cart"].unseen(REFUSALS["cart"], never) == []
    assert runs["order"].unseen(REFUSALS["order"]) == []
    assert runs["order"].unseen(PROBLEMS) == []


def test_planted_faults_are_found(stack: Stack, tmp_path: Path) -> None:
    """In the order service itself, by the same run; and one that shows by chance, by each phase that takes chances."""
    settings = msgspec.structs.replace(stack.settings, token=TOKEN)
    taking_none = ("examples", "coverage")
    with laid(stack) as examples, faulty_service(settings, rare=False) as port:
        plain = run(tmp_path, port, examples=1, within_s=60, laid=examples, token=TOKEN, phases=taking_none)
    with laid(stack) as examples, faulty_service(settings, rare=True) as port:
        rare = {
            phases: run(tmp_path, port, examples=30, within_s=60, laid=examples, token=TOKEN, phases=phases)
            for phases in (taking_none, ("fuzzing",), ("stateful",))
        }

    assert set(plain.findings) == PLAIN
    assert {phases: done.findings for phases, done in rare.items()} == {
        taking_none: [],
        ("fuzzing",): [RARE["fuzzing"]],
        ("stateful",): [RARE["stateful"]],
    }
