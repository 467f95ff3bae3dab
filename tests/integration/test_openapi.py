"""Schemathesis on both services of the shared stack, with few examples: those of the laid data, and some by chance.

With many examples, all phases, a token, and without Kafka, and with planted faults: tests/faults/test_openapi.py.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from tests.support.openapi.laid import PROBLEMS, laid
from tests.support.openapi.runs import run

if TYPE_CHECKING:
    from pathlib import Path

    from orderflow.stack import Stack

PHASES = ("examples", "fuzzing")


def test_both_services_answer_as_they_describe(stack: Stack, tmp_path: Path) -> None:
    ports = [stack.settings.cart_port, stack.settings.order_port]
    with laid(stack) as examples, ThreadPoolExecutor() as pool:
        cart, order = pool.map(
            lambda port: run(tmp_path, port, examples=2, within_s=60, laid=examples, phases=PHASES), ports
        )

    assert (cart.findings, order.findings) == ([], [])
    for done in (cart, order):
        done.check_complete(examples=2)
    assert cart.unseen({}, never={"POST /create-order: 202", "PUT /update-order: 202"}) == []
    assert order.unseen(PROBLEMS) == []
