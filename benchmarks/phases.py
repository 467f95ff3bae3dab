"""What is measured of a whole stack, one function a figure."""

from __future__ import annotations

import threading
import time
from http import HTTPStatus
from typing import TYPE_CHECKING

import psutil
from filling import order_id
from wire import Load, Sample, get, measure, post

from orderflow.broker import reachable
from orderflow.client import Client
from orderflow.errors import StoreUnavailable
from orderflow.process import read_heartbeat
from orderflow.store import sqlite
from orderflow.store.outbox import Outbox

if TYPE_CHECKING:
    from orderflow.stack import Stack

CONSUMER = "order-consumer"
RELAY = "outbox-relay"
WORKERS = (CONSUMER, RELAY)
PYTHON = (*WORKERS, "cart-service", "order-service")
LOOK_S = 0.005
PATIENCE_S = 60.0

#: Order ids of the creates: ten digits, a new range for each run of the load.
_ids = iter(range(1_000_000_000, 9_000_000_000, 10_000_000))


def creates(stack: Stack, seconds: float = 4.0) -> Sample:
    """Send creates from 32 connections."""
    template = post("/create-order", '{"orderId":"ord-%d","itemsNum":2}', number_length=10)
    sample = measure(Load(stack.settings.cart_port, template, first=next(_ids), seconds=seconds))
    _expect_only(sample, HTTPStatus.CREATED)
    _wait_until_applied(stack)
    return sample


def reads(stack: Stack, orders: int, seconds: float = 3.0) -> Sample:
    """Ask for the details of many orders from 32 connections."""
    request = get(f"/order-details?orderId={order_id(0)[:-10]}%010d")
    sample = measure(Load(stack.settings.order_port, request, repeat=orders, seconds=seconds))
    _expect_only(sample, HTTPStatus.OK)
    return sample


def healthz(port: int) -> Sample:
    """Ask for what costs nothing: how fast the client and the server are by themselves."""
    return measure(Load(port, get("/healthz"), seconds=2.0))


def readable(stack: Stack, samples: int = 500) -> list[float]:
    """Measure the time from a create's answer until the order can be read, one after the other, in seconds."""
    found = []
    with Client.from_settings(stack.settings) as client:
        for number in range(samples):
            name = f"readable-{time.time_ns():x}-{number}"
            client.create_order(name, 2)
            begin = time.perf_counter()
            while client.order_details(name).status != HTTPStatus.OK:
                pass
            found.append(time.perf_counter() - begin)
    return found


def applied(stack: Stack, events: int) -> float:
    """Start the consumer on the filled topic with an empty store: events a second, from the first apply to the last."""
    stack.stop(CONSUMER)
    for path in stack.settings.var.glob("orders.db*"):
        path.unlink()
    starting = threading.Thread(target=stack.start, args=(CONSUMER,))
    starting.start()
    first = last = 0
    begin = end = time.monotonic()
    deadline = begin + PATIENCE_S
    while last < events:
        if time.monotonic() > deadline:
            raise TimeoutError(f"The consumer applied {last} of {events} events in {PATIENCE_S:g} s.")
        now = _applied_so_far(stack)
        if now > last:
            last, end = now, time.monotonic()
            if not first:
                first, begin = last, end
        time.sleep(LOOK_S)
    starting.join()
    return (last - first) / (end - begin)


def spooled(stack: Stack, seconds: float = 4.0) -> Sample:
    """Send creates from 32 connections while Kafka is away, once the breaker is open. The relay is left stopped."""
    stack.stop(RELAY)
    stack.stop("kafka")
    with Client.from_settings(stack.settings) as client:
        client.create_order(f"first-{time.time_ns()}", 2)  # It waits for its retries.
    template = post("/create-order", '{"orderId":"ord-%d","itemsNum":2}', number_length=10)
    sample = measure(Load(stack.settings.cart_port, template, first=next(_ids), seconds=seconds))
    _expect_only(sample, HTTPStatus.ACCEPTED)
    return sample


def drained(stack: Stack) -> float:
    """Start Kafka, then the relay: events a second, from its first delivery until nothing waits."""
    outbox = Outbox(stack.settings)
    stack.start("kafka")
    deadline = time.monotonic() + PATIENCE_S
    while not reachable(stack.settings) and time.monotonic() < deadline:
        time.sleep(LOOK_S)
    before = outbox.totals().waiting
    starting = threading.Thread(target=stack.start, args=(RELAY,))
    starting.start()
    first, begin = before, time.monotonic()
    while (now := outbox.totals().waiting) and time.monotonic() < deadline:
        if first == before and now < before:
            first, begin = now, time.monotonic()
        time.sleep(LOOK_S)
    took_s = time.monotonic() - begin
    starting.join()
    _wait_until_applied(stack)
    return first / took_s


def memory_mb(stack: Stack) -> dict[str, float]:
    """Give the resident memory of each program's largest process, in MB."""
    found = {}
    for program in (*PYTHON, "kafka"):
        process = psutil.Process(stack.pid(program))
        family = [process, *process.children(recursive=True)]
        found[program] = max(one.memory_info().rss for one in family) / 1e6
    return found


def start_up_s(stack: Stack, program: str) -> float:
    """Restart one program beside the others, and give the time from its process's birth until it is ready."""
    stack.stop(program)
    starting = threading.Thread(target=stack.start, args=(program,))
    starting.start()
    deadline = time.monotonic() + PATIENCE_S
    while not _is_ready(stack, program):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{program} is not ready after {PATIENCE_S:g} s.")
        time.sleep(LOOK_S)
    ready_at = time.time()
    starting.join()
    born_at: float = psutil.Process(stack.pid(program)).create_time()
    return ready_at - born_at


def _is_ready(stack: Stack, program: str) -> bool:
    if program in WORKERS:
        beat = read_heartbeat(stack.settings, program)
        return beat is not None and beat.state == "running" and psutil.pid_exists(beat.pid)
    with Client.from_settings(stack.settings, timeout_s=1.0) as client:
        answer = client.readyz("cart" if program == "cart-service" else "order")
        return answer.status == HTTPStatus.OK and answer.body["status"] == "ready"


def _applied_so_far(stack: Stack) -> int:
    try:
        reader = sqlite.open_reader(stack.settings.orders_db, busy_timeout_s=5)
    except StoreUnavailable:
        return 0
    try:
        (total,) = reader.execute("SELECT coalesce(sum(next_offset), 0) FROM positions").fetchone()
        return int(total)
    finally:
        reader.close()


def _wait_until_applied(stack: Stack) -> None:
    """Wait until the consumer has caught up, so that the next measurement is not slowed by it."""
    before = -1
    while (now := _applied_so_far(stack)) != before:
        before = now
        time.sleep(1.0)


def _expect_only(sample: Sample, status: HTTPStatus) -> None:
    if set(sample.statuses) != {status}:
        raise ValueError(f"Every answer should be {status}, and they were {dict(sample.statuses)}")
