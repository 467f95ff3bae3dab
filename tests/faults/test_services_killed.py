"""Services and the worker killed or told to stop under load, and slow clients: nobody is left without an answer."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import socket
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from tests.support import store
from tests.support.broker import answers
from tests.support.calls import Answer, Caller, Ending
from tests.support.load import Load
from tests.support.processes import listeners
from tests.support.truth import check_truth
from tests.support.waiting import frozen, is_alive, until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orderflow.stack import Stack
    from tests.conftest import Figures, MakeStack

pytestmark = [pytest.mark.faults, pytest.mark.timeout(240)]

PROBES = 60

STOPS = 5

#: Idle connections on each of which one request is sent right after SIGTERM, one after the other in this time.
IDLE, IDLE_SPREAD_S = 100, 0.03
PROBE = b"GET /readyz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"

#: What a request that nobody disturbs may take on a busy machine.
UNDISTURBED_S = 1.0

SLOW_CLIENTS = 120
#: How many pieces a slow client's request has, and the pause between two.
PIECES, PIECE_PAUSE_S = 40, 0.12


def _call_anew(port: int, method: str, path: str, body: object = None) -> Answer:
    with closing(Caller(port, keep=False)) as caller:
        return caller.call(method, path, body)


# Killed.


CREATE, DETAILS = ("POST", "/create-order"), ("GET", "/order-details")


@pytest.mark.parametrize(
    ("program", "port", "route", "victim"),
    [
        ("cart-service", "cart_port", CREATE, "main"),
        ("cart-service", "cart_port", CREATE, "worker"),
        ("order-service", "order_port", DETAILS, "main"),
        ("order-service", "order_port", DETAILS, "worker"),
    ],
)
def test_one_process_answers_after_one_was_killed(
    make_stack: MakeStack, figures: Figures, program: str, port: str, route: tuple[str, str], victim: str
) -> None:
    stack = make_stack()
    stack.up()
    number = getattr(stack.settings, port)
    main, workers = _service_processes(stack, program)
    assert len(workers) == 1

    with Load(stack.settings, writers=8) as load:
        until(lambda: len(load.ledger.published()) > 100, "the load is under way", within_s=20)
        killed = time.monotonic()
        os.kill(main if victim == "main" else workers[0], signal.SIGKILL)
        until(lambda: stack.pid(program) not in {None, main}, f"a new {program}", within_s=15)
        until(lambda: _call_anew(number, "GET", "/readyz").status == 200, f"{program} answers", within_s=15)
        back_s = time.monotonic() - killed
        load.stop()

    assert not [pid for pid in (main, *workers) if is_alive(pid)], "a process of the killed service lives on"
    new_main, new_workers = _service_processes(stack, program)
    assert listeners(number) <= {new_main, *new_workers}
    _check_one_counts_all(number, route)
    verdict = check_truth(load.ledger, stack.settings)
    figures(f"{program}, its {victim} killed", **verdict.outcomes, **load.ledger.endings(), back_s=back_s)


def _service_processes(stack: Stack, program: str) -> tuple[int, list[int]]:
    """A service's main process, and those that it started to do the work."""
    main = stack.pid(program)
    assert main is not None
    children = psutil.Process(main).children(recursive=True)
    return main, [child.pid for child in children if "resource_tracker" not in " ".join(child.cmdline())]


def _check_one_counts_all(port: int, route: tuple[str, str]) -> None:
    """Two processes behind one port would share the requests, and each count its own."""
    before = _counted(port, route)
    for _ in range(PROBES):
        assert _call_anew(port, *route, {} if route == CREATE else None).status == 400
    counts = {_counted(port, route) for _ in range(PROBES)}
    assert counts == {before + PROBES}


def _counted(port: int, route: tuple[str, str]) -> int:
    """How many bad requests the process that answers has refused."""
    method, path = route
    text = _call_anew(port, "GET", "/metrics").body
    name = f'orderflow_http_requests_total{{method="{method}",route="{path}",status="400"}}'
    found = re.search(rf"^{re.escape(name)} ([0-9.]+)$", text, re.MULTILINE)
    return int(float(found[1])) if found else 0


# Told to stop.


@pytest.mark.parametrize("keep", [False, True], ids=["new connections", "kept connections"])
def test_every_request_is_answered_when_the_service_is_told_to_stop(
    make_stack: MakeStack, figures: Figures, *, keep: bool
) -> None:
    stack = make_stack()
    stack.up()
    stopped_s = []

    with Load(stack.settings, keep=keep) as load:
        for _ in range(STOPS):
            enough = len(load.ledger.published()) + 300
            until(lambda: len(load.ledger.published()) >= enough, "the load is under way", within_s=30)  # noqa: B023
            in_flight = load.in_flight
            began = time.monotonic()
            stack.stop("cart-service")
            stopped_s.append(time.monotonic() - began)
            assert in_flight > 0
            stack.start("cart-service")
        load.stop()
    verdict = check_truth(load.ledger, stack.settings)

    figures(
        f"cart-service stopped {STOPS} times, {'kept' if keep else 'new'} connections",
        **verdict.outcomes,
        **load.ledger.endings(),
        stopped_s=[round(seconds, 2) for seconds in stopped_s],
    )
    assert _handled(stack) == load.ledger.endings()["answered"], "a request was taken up and not answered"
    cut = [entry for entry in load.ledger if entry.answer.ending is Ending.CUT and not _was_queued(entry.answer)]
    assert not cut, f"{len(cut)} requests were sent and not answered, the first is {cut[0]}"
    assert max(stopped_s) < stack.settings.http_drain_timeout_s


@pytest.mark.parametrize(("program", "port"), [("cart-service", "cart_port"), ("order-service", "order_port")])
def test_who_keeps_a_connection_is_told_that_the_service_stops(
    make_stack: MakeStack, figures: Figures, program: str, port: str
) -> None:
    """Closed without a word, an idle connection takes with it the request that is just being sent on it."""
    stack = make_stack()
    stack.up()
    seen: Counter[str] = Counter()

    for _ in range(2):
        main = stack.pid(program)
        assert main is not None
        with ExitStack() as opened:
            address = ("127.0.0.1", getattr(stack.settings, port))
            kept = [opened.enter_context(socket.create_connection(address, timeout=30)) for _ in range(IDLE)]
            for connection in kept:
                connection.sendall(PROBE)
                assert b'"ready"' in _read_answer(connection)
            os.kill(main, signal.SIGTERM)
            asked = []
            for connection in kept:
                if not _readable(connection):  # else the service has closed it, and no client would use it
                    connection.sendall(PROBE)
                    asked.append(connection)
                time.sleep(IDLE_SPREAD_S / IDLE)
            seen += Counter(_meaning(_read_answer(connection)) for connection in asked)
        seen["closed before"] += IDLE - len(asked)
        until(lambda: stack.pid(program) not in {None, main}, f"a new {program}", within_s=20)  # noqa: B023
        stack.wait_ready()

    figures(f"{program} stopped twice, {IDLE} idle connections", **seen)
    assert seen["cut"] == 0
    assert seen["closed before"] == 0
    assert seen["told"] > 0


def _meaning(answer: bytes) -> str:
    """What an answer to a probe tells the owner of the connection."""
    head = answer.lower().partition(b"\r\n\r\n")[0]
    if b"\r\nconnection: close" in head and b'"draining"' in answer:
        return "told"
    return "untold" if answer else "cut"


def _readable(connection: socket.socket) -> bool:
    return bool(select.select([connection], [], [], 0)[0])


def _read_answer(connection: socket.socket) -> bytes:
    """Read one answer to `PROBE`, or nothing when the connection is closed or reset instead."""
    answer = b""
    try:
        while not answer.endswith(b"}") and (piece := connection.recv(65_536)):
            answer += piece
    except ConnectionError:
        return b""
    return answer


def _was_queued(answer: Answer) -> bool:
    """Whether a connection may have waited in the kernel's queue, never accepted, when the listener closed."""
    return answer.fresh and answer.error.startswith("ConnectionResetError")


def _handled(stack: Stack) -> int:
    """How many writes the cart service took up, by its log."""
    log = (stack.settings.log_dir / "cart-service.log").read_text(encoding="utf-8")
    entries = [json.loads(line) for line in log.splitlines()]
    return sum(entry["event"] == "request.handled" for entry in entries)


def test_requests_that_wait_for_a_frozen_broker_are_answered_when_the_service_is_told_to_stop(
    make_stack: MakeStack, figures: Figures
) -> None:
    stack = make_stack(publish_deadline_s=4.0, publish_attempt_timeout_s=1.0)
    stack.up()
    kafka = stack.pid("kafka")
    assert kafka is not None

    with Load(stack.settings) as load:
        until(lambda: len(load.ledger.published()) > 300, "the load is under way", within_s=30)
        with frozen(kafka):
            until(lambda: load.in_flight == 32, "all wait", within_s=10)
            began = time.monotonic()
            stack.stop("cart-service")
            stopped_s = time.monotonic() - began
            waited = [entry for entry in load.ledger if entry.sent < began < entry.ended]
        load.stop()
    stack.start("cart-service")
    verdict = check_truth(load.ledger, stack.settings)

    figures("cart-service stopped while Kafka is frozen", **verdict.outcomes, waited=len(waited), stopped_s=stopped_s)
    assert len(waited) == 32
    assert {entry.answer.ending for entry in waited} == {Ending.ANSWERED}
    assert stopped_s < stack.settings.http_drain_timeout_s


@pytest.mark.parametrize("meanwhile", ["kafka runs", "kafka is frozen", "kafka is away"])
def test_the_worker_finishes_its_batch_and_ends_well_when_told_to_stop(
    make_stack: MakeStack, figures: Figures, meanwhile: str
) -> None:
    stack = make_stack(poll_max_records=50)
    stack.up()
    program = "order-consumer"

    with Load(stack.settings, writers=16) as load:
        until(lambda: len(load.ledger.published()) > 300, "the load is under way", within_s=30)
        if meanwhile != "kafka runs":
            load.stop()
        with ExitStack() as disturbed:
            _disturb(stack, meanwhile, disturbed)
            began = time.monotonic()
            stack.stop(program)
            stopped_s = time.monotonic() - began
        log = (stack.settings.log_dir / f"{program}.log").read_text(encoding="utf-8")
        _check_whole(stack)
        load.stop()
    stack.up()
    verdict = check_truth(load.ledger, stack.settings)

    figures(f"{program} told to stop, {meanwhile}", **verdict.outcomes, stopped_s=stopped_s)
    supervisor_log = (stack.settings.log_dir / "supervisord.log").read_text(encoding="utf-8")
    assert re.findall(rf"stopped: {program} \((.*)\)", supervisor_log)[0] == "exit status 0"
    assert json.loads(log.splitlines()[-1])["event"] == "process.stopped"
    assert stopped_s < 5


def _disturb(stack: Stack, meanwhile: str, disturbed: ExitStack) -> None:
    if meanwhile == "kafka is frozen":
        pid = stack.pid("kafka")
        assert pid is not None
        disturbed.enter_context(frozen(pid))
    elif meanwhile == "kafka is away":
        stack.stop("kafka")
        assert not answers(stack.settings.kafka_port)


def _check_whole(stack: Stack) -> None:
    """What was read and what came of it are together: each partition's position is just behind its last history row."""
    rows = store.query(stack.settings, "SELECT partition, max(offset) + 1, count(*) FROM history GROUP BY partition")
    assert {partition: behind for partition, behind, _ in rows} == store.positions(stack.settings)
    assert all(count == behind for _, behind, count in rows)


# Slow clients.


@pytest.mark.parametrize("slow", ["head", "body"])
def test_slow_clients_block_nobody_and_are_answered(stack: Stack, figures: Figures, slow: str) -> None:
    port = stack.settings.cart_port
    requests = [_raw_request(f"slow-{slow}-{time.time_ns()}-{number}") for number in range(SLOW_CLIENTS)]
    took: dict[str, list[float]] = {"create": [], "healthz": []}

    with ExitStack() as connections, ThreadPoolExecutor(1) as pool:
        slowly = [
            (connections.enter_context(socket.create_connection(("127.0.0.1", port), timeout=30)), head + body, at)
            for head, body in requests
            for at in [0 if slow == "head" else len(head)]
        ]
        trickle = pool.submit(_trickle, slowly)
        while not trickle.done():
            began = time.monotonic()
            created = _call_anew(port, "POST", "/create-order", {"orderId": f"quick-{time.time_ns()}", "itemsNum": 1})
            took["create"].append(time.monotonic() - began)
            assert created.status == 201
            began = time.monotonic()
            assert _call_anew(port, "GET", "/healthz").status == 200
            took["healthz"].append(time.monotonic() - began)
        trickled_s = trickle.result()
        statuses = [_status(connection) for connection, _, _ in slowly]

    figures(
        f"{SLOW_CLIENTS} clients with a slow {slow}",
        quick_requests=len(took["create"]),
        create_max_s=max(took["create"]),
        healthz_max_s=max(took["healthz"]),
        trickled_s=trickled_s,
    )
    assert len(took["create"]) > 20
    assert max(*took["create"], *took["healthz"]) < UNDISTURBED_S
    assert statuses == [201] * SLOW_CLIENTS


def _raw_request(order_id: str) -> tuple[bytes, bytes]:
    body = json.dumps({"orderId": order_id, "itemsNum": 1}).encode()
    head = (
        "POST /create-order HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode(), body


def _trickle(slowly: list[tuple[socket.socket, bytes, int]]) -> float:
    """Send what comes before ``at`` at once, and the rest of all in small pieces."""
    began = time.monotonic()
    rest = []
    for connection, request, at in slowly:
        connection.sendall(request[:at])
        rest.append((connection, _pieces(request[at:])))
    for _ in range(PIECES):
        for connection, pieces in rest:
            connection.sendall(next(pieces, b""))
            time.sleep(PIECE_PAUSE_S / len(rest))  # side by side, yet never all at the same moment
    return time.monotonic() - began


def _pieces(data: bytes) -> Iterator[bytes]:
    size = -(-len(data) // PIECES)
    return (data[start : start + size] for start in range(0, len(data), size))


def _status(connection: socket.socket) -> int:
    answer: Any = b""
    while piece := connection.recv(65_536):
        answer += piece
    return int(answer.split(b" ", 2)[1]) if answer else 0
