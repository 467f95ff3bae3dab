"""Reads that wait for their own writes while the consumer stands still: none is stale, and nobody else is held up."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Self

import pytest

from orderflow.client import Client
from tests.support.waiting import frozen, until

if TYPE_CHECKING:
    from orderflow.stack import Stack
    from tests.conftest import Figures, MakeStack

pytestmark = [pytest.mark.faults, pytest.mark.timeout(180)]

CALLERS = 200

#: Each updates its order so often, and reads it after each.
STATUSES = ("pending", "confirmed", "shipped")

#: How long the consumer stands still.
FROZEN_S = 1.0

#: A read that waits for nothing is answered within this time, whatever else waits.
OTHER_READS_MS = 100.0

#: Reads one order again and again, until its input ends; then says how long each took, in ms. A process of its own:
#: among 200 threads a client would measure itself.
PROBE = """
import http.client, json, select, sys, time
connection = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]), timeout=30)
took = []
while not select.select([sys.stdin], [], [], 0.005)[0]:
    before = time.perf_counter()
    connection.request("GET", "/order-details?orderId=" + sys.argv[2])
    response = connection.getresponse()
    body = response.read()
    took.append([time.time(), (time.perf_counter() - before) * 1000])
    assert response.status == 200, (response.status, body)
print(json.dumps(took))
"""


def test_no_read_is_stale_while_the_consumer_stands_still(make_stack: MakeStack, figures: Figures) -> None:
    stack = make_stack()
    stack.up()
    consumer = stack.supervisor.program("order-consumer").pid
    assert consumer is not None
    with Client.from_settings(stack.settings, retries=20) as client:
        client.create("bystander", 1)
        client.order("bystander", wait_s=10)
        with Probe(stack) as probe, ThreadPoolExecutor(CALLERS) as pool:
            begin = threading.Barrier(CALLERS + 1)
            reads = [pool.submit(write_and_read, client, f"ord-{number}", begin) for number in range(CALLERS)]
            begin.wait()
            until(lambda: waited(client), "a read has waited", within_s=20)
            with frozen(consumer):
                until(lambda: waiting(client) == stack.settings.order_threads // 2, "half of the threads wait", 10)
                settled_at = time.time()
                time.sleep(FROZEN_S)
            found = [read.result(60) for read in reads]
            took = probe.stop()
        had_waited = waited(client)

    others = [ms for at, ms in took if settled_at <= at <= settled_at + FROZEN_S]
    figures(
        "reads that waited",
        waited=int(had_waited),
        other_reads=len(others),
        other_reads_median_ms=statistics.median(others),
        other_reads_max_ms=max(others),
        other_reads_max_ms_of_all=max(ms for _, ms in took),
    )
    assert found == [list(STATUSES)] * CALLERS
    assert had_waited >= 50
    assert len(others) >= 20
    assert max(others) <= OTHER_READS_MS


def write_and_read(client: Client, order_id: str, begin: threading.Barrier) -> list[str]:
    begin.wait()
    client.create(order_id, 2)
    read = []
    for status in STATUSES:
        client.update(order_id, status)
        read.append(client.order(order_id, wait_s=30).status)
    return read


def waited(client: Client) -> float:
    """How many reads had to wait, and got what they waited for."""
    return sum(s.value for s in client.metrics("order") if s.labels.get("outcome") == "applied" and "waited" in s.name)


def waiting(client: Client) -> float:
    return sum(s.value for s in client.metrics("order") if s.name == "orderflow_reads_waiting")


class Probe:
    """Somebody else's reads, all the time."""

    def __init__(self, stack: Stack) -> None:
        self._command = [sys.executable, "-c", PROBE, str(stack.settings.order_port), "bystander"]

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        return self

    def stop(self) -> list[tuple[float, float]]:
        said, _ = self._process.communicate("\n", timeout=60)
        assert self._process.returncode == 0
        found: list[tuple[float, float]] = json.loads(said)
        return found

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()
