"""Schemathesis on both services of a stack: every check, all phases, 200 examples of each operation, with a token.

With Kafka and without: what is described holds in an outage, too.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from orderflow.broker.raw import RawProducer, RawRecord
from tests.support.openapi.runs import run
from tests.support.outage import ask
from tests.support.waiting import until

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

#: So many orders have an update of nothing, and a record that is no event.
SKIPPED_ORDERS = 30


def lay_skips(stack: Stack) -> None:
    """Skipped messages to heal, of both sorts: those with an event, and those without."""
    update = b'{"type":"order.status_changed","order_id":"skipped-%d","status":"shipped"}'
    with RawProducer(stack.settings) as producer:
        producer.send(
            RawRecord(value, b"skipped-%d" % number)
            for number in range(SKIPPED_ORDERS)
            for value in (update % number, b"{")
        )
    port = stack.settings.order_port
    until(
        lambda: sum(ask(port, "/skipped-messages")["counts"].values()) == 2 * SKIPPED_ORDERS,
        "what cannot be applied is skipped",
        within_s=20,
    )


@pytest.mark.parametrize("kafka", ["up", "stopped"])
def test_both_services_answer_as_they_describe(
    make_stack: MakeStack, tmp_path: Path, figures: Figures, kafka: str
) -> None:
    stack = make_stack(token=TOKEN, **QUICK)
    stack.up()
    lay_skips(stack)
    if kafka == "stopped":
        stack.stop("kafka")

    ports = {"cart": stack.settings.cart_port, "order": stack.settings.order_port}
    with ThreadPoolExecutor() as pool:
        runs = dict(
            zip(
                ports,
                pool.map(
                    lambda port: run(tmp_path, port, examples=EXAMPLES, within_s=300, token=TOKEN), ports.values()
                ),
                strict=True,
            )
        )

    for name, done in runs.items():
        figures(f"described answers of the {name} service, Kafka {kafka}", cases=done.cases, seed=done.report["seed"])
    assert {name: done.findings for name, done in runs.items()} == {"cart": [], "order": []}
    for done in runs.values():
        done.check_complete(operations=6, examples=EXAMPLES)
