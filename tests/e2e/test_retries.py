"""Retries on a running stack: the service's own, while Kafka hangs, and those of clients whose answers are lost."""

from __future__ import annotations

import itertools
import json
import random
import socket
import socketserver
import struct
import threading
import time
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import TYPE_CHECKING, Any

import pytest

from tests.support import store
from tests.support.calls import Answer, Caller, Ending
from tests.support.ledger import Entry, Ledger
from tests.support.load import Writer
from tests.support.outage import log_lines
from tests.support.topic import read_topic
from tests.support.truth import check_truth
from tests.support.waiting import frozen, until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import Figures, MakeStack

# The service's own retries.

FIRST_S, FACTOR, CAP_S, JITTER_S = 0.06, 2.5, 0.5, 0.04

#: The third of these delays, 0.375 s and the jitter, is below the cap; the fourth would be 0.94 s.
RETRIES, CAPPED_FROM = 5, 4

ATTEMPT_S = 0.3

#: What an attempt, a pause or an answer may take beyond its time on a busy machine.
LATE_S = 0.25


def test_delays_grow_by_the_factor_within_the_jitter_to_the_cap(make_stack: MakeStack, figures: Figures) -> None:
    """Kafka hangs: each delay of the log has really passed, there are as many as allowed, then one ERROR says so."""
    stack = make_stack(
        publish_retry_first_delay_s=FIRST_S,
        publish_retry_factor=FACTOR,
        publish_retry_max_delay_s=CAP_S,
        publish_retry_jitter_s=JITTER_S,
        publish_retry_max=RETRIES,
        publish_attempt_timeout_s=ATTEMPT_S,
        publish_deadline_s=6.0,
    )
    stack.up()
    pid = stack.pid("kafka")
    assert pid is not None
    ledger = Ledger()

    with closing(Writer(0, stack.settings, ledger)) as writer:
        before = writer.create("retry-before")
        with frozen(pid):
            entry = writer.create("retry-hung")
    verdict = check_truth(ledger, stack.settings)
    lines = log_lines(stack, "cart-service", "publish.retry_scheduled")
    (gave_up,) = log_lines(stack, "cart-service", "publish.gave_up")

    delays_s = [line["delay_s"] for line in lines]
    passed_s = _seconds_between([*lines, gave_up])
    took_s = entry.ended - entry.sent
    figures("retries while Kafka hangs", delays_s=delays_s, between_lines_s=passed_s, took_s=took_s)
    assert before.published
    assert (entry.answer.status, entry.outcome) == (202, "spooled")
    assert sum(delays_s) + (1 + RETRIES) * ATTEMPT_S < took_s + 0.02 < stack.settings.publish_deadline_s

    assert [line["attempt"] for line in lines] == list(range(1, RETRIES + 1))
    for number, delay_s in enumerate(delays_s):
        exact_s = FIRST_S * FACTOR**number
        # stamina adds the jitter first and caps the sum.
        assert min(exact_s, CAP_S) <= delay_s <= min(exact_s + JITTER_S, CAP_S)
    assert delays_s.index(CAP_S) == CAPPED_FROM - 1
    jitters_s = [delay_s - FIRST_S * FACTOR**number for number, delay_s in enumerate(delays_s[: CAPPED_FROM - 1])]
    assert max(jitters_s) > 0.0005, "no jitter was added"  # three that are rounded to 0: one run in 500 000
    # From one line to the next: the delay, and the next attempt until its end.
    for seconds, delay_s in zip(passed_s, delays_s, strict=True):
        assert delay_s + ATTEMPT_S <= seconds + 0.002 < delay_s + ATTEMPT_S + LATE_S

    assert gave_up["level"] == "error"
    assert gave_up["sent"] == 1, "the first attempt found a connection"
    assert {line["level"] for line in lines} == {"warning"}
    for line in [*lines, gave_up]:
        assert (line["events"], line["order_ids"]) == (1, ["retry-hung"])
        assert line["event_ids"] == [entry.event_id]
        assert line["trace_id"] == lines[0]["trace_id"]
        assert len(line["trace_id"]) == 32
    assert verdict.outcomes == {"published": 1, "spooled": 1}


def _seconds_between(lines: list[dict[str, Any]]) -> list[float]:
    at = [datetime.fromisoformat(line["at"]) for line in lines]
    return [round((later - earlier).total_seconds(), 3) for earlier, later in itertools.pairwise(at)]


# Clients' retries.

ORDERS, CLIENTS = 100, 8
STATUSES = ("pending", "shipped")

#: At most so many answers to each key are dropped; which, and how, is the same in each run.
DROPS_MAX = 2
SEED = 20_26

#: Spooled answers after which the hanging Kafka goes on.
SPOOLED_ENOUGH = 60

#: So that clients see the hanging Kafka as spooled answers soon.
SHORT_WAITS = {
    "publish_attempt_timeout_s": 0.3,
    "publish_retry_max": 1,
    "publish_retry_first_delay_s": 0.05,
    "breaker_probe_interval_s": 0.1,
    "breaker_probe_timeout_s": 0.3,
}


@pytest.mark.parametrize(
    "hangs",
    [pytest.param(False, id="Kafka runs"), pytest.param(True, id="Kafka hangs for a while", marks=pytest.mark.faults)],
)
def test_a_client_whose_answers_are_lost_retries_with_its_key(
    make_stack: MakeStack, figures: Figures, *, hangs: bool
) -> None:
    """A retry is another record, never another order: each answer to a key, lost or not, names the same event."""
    stack = make_stack(**SHORT_WAITS if hangs else {})
    stack.up()
    settings = stack.settings
    ledger = Ledger()

    with Proxy.before(settings.cart_port) as proxy, ThreadPoolExecutor(CLIENTS) as pool:
        clients = [pool.submit(Client(proxy, ledger, index).write_all) for index in range(CLIENTS)]
        if hangs:
            pid = stack.pid("kafka")
            assert pid is not None
            until(lambda: len(ledger) > ORDERS, "a good part is written", within_s=20)
            with frozen(pid):
                until(lambda: ledger.outcomes().get("spooled", 0) >= SPOOLED_ENOUGH, "some are spooled", within_s=20)
        for client in clients:
            client.result(timeout=60)
    verdict = check_truth(ledger, settings)  # of lost answers, too
    records = read_topic(settings)

    keys = len(proxy.answers)
    on_topic = {record.event_id for record in records}
    applied = Counter(row.order_id for row in store.history(settings).values() if row.outcome == "applied")
    figures(
        f"clients' retries, Kafka {'hangs for a while' if hangs else 'runs'}",
        keys=keys,
        answers=len(ledger),
        lost=dict(proxy.lost),
        **verdict.outcomes,
        records=len(records),
        duplicates_on_topic=verdict.duplicates,
    )
    assert keys == ORDERS * (1 + len(STATUSES))
    assert sum(proxy.lost.values()) == len(ledger) - keys
    assert min(proxy.lost.values()) > 20
    assert {entry.accepted for entry in ledger} == {True}
    for key, answers in proxy.answers.items():
        assert len({answer.body["eventId"] for answer in answers}) == 1, key
        assert all(answer.body["order"] == answers[0].body["order"] for answer in answers), answers
    assert len(on_topic) == keys
    assert len(records) > keys > ORDERS == verdict.orders
    assert applied == {f"lossy-{number}": 1 + len(STATUSES) for number in range(ORDERS)}
    if hangs:
        assert verdict.outcomes["spooled"] >= SPOOLED_ENOUGH
    else:
        assert len(records) == len(ledger), "a retry was not published"


@dataclass
class Client:
    """Writes its share of the orders, and sends each write again, with its key, until an answer comes."""

    proxy: Proxy
    ledger: Ledger
    index: int
    number: int = 0

    def write_all(self) -> None:
        with closing(Caller(self.proxy.port, keep=False)) as caller:
            for order in range(self.index, ORDERS, CLIENTS):
                order_id = f"lossy-{order}"
                self._write(caller, order_id, None, {"orderId": order_id, "itemsNum": 3})
                for status in STATUSES:
                    self._write(caller, order_id, status, {"orderId": order_id, "status": status})

    def _write(self, caller: Caller, order_id: str, status: str | None, body: object) -> None:
        route = ("POST", "/create-order") if status is None else ("PUT", "/update-order")
        key = f"{order_id}/{status}"
        for attempt in range(1 + DROPS_MAX):
            sent = time.monotonic()
            answer = caller.call(*route, body, {"Idempotency-Key": key})
            told = self.proxy.answers[key][attempt]
            entry = Entry(self.index, self.number, order_id, status, sent, time.monotonic(), told)
            self.ledger.entries.append(entry)
            self.number += 1
            if answer.ending is Ending.ANSWERED:
                assert (answer.status, answer.body) == (told.status, told.body)
                return
            assert answer.ending is Ending.CUT, answer
        raise AssertionError(f"no answer to {key!r} came through")


class Loss(Enum):
    """What a client sees in place of an answer."""

    CLOSED = "closed"  # the connection ends in good order
    RESET = "reset"
    HALF = "half"  # it ends in the middle of the answer


@dataclass
class Proxy:
    """Passes requests on to a service, and loses the first answers to some keys."""

    port: int
    #: All answers to a key in their sequence, those that were lost, too.
    answers: dict[str, list[Answer]] = field(default_factory=lambda: defaultdict(list))
    lost: Counter[str] = field(default_factory=Counter)

    @classmethod
    @contextmanager
    def before(cls, service_port: int) -> Iterator[Proxy]:
        with _Server(("127.0.0.1", 0), _Connection) as server:
            server.service_port = service_port
            server.proxy = proxy = cls(server.server_address[1])
            thread = threading.Thread(target=server.serve_forever, args=[0.05], daemon=True)
            thread.start()
            try:
                yield proxy
            finally:
                server.shutdown()
                thread.join(timeout=10)

    def take(self, key: str, raw: bytes) -> Loss | None:
        """Write an answer down, and tell how it is lost, if it is. A key is used by one client at a time."""
        head, _, body = raw.partition(b"\r\n\r\n")
        self.answers[key].append(Answer(Ending.ANSWERED, int(head.split()[1]), json.loads(body)))
        chance = random.Random(f"{SEED} {key}")  # noqa: S311 (no secret)
        losses = [chance.choice(list(Loss)) for _ in range(chance.randint(0, DROPS_MAX))]
        attempt = len(self.answers[key])
        if attempt > len(losses):
            return None
        self.lost[losses[attempt - 1].value] += 1
        return losses[attempt - 1]


class _Server(socketserver.ThreadingTCPServer):
    request_queue_size = CLIENTS
    service_port: int
    proxy: Proxy


class _Connection(socketserver.StreamRequestHandler):
    """One request of a client that wants its connection closed then."""

    server: _Server

    def handle(self) -> None:
        lines = list(iter(self.rfile.readline, b"\r\n"))
        fields = {name.lower(): value.strip() for name, _, value in (line.partition(b":") for line in lines[1:])}
        request = b"".join([*lines, b"\r\n", self.rfile.read(int(fields[b"content-length"]))])
        with socket.create_connection(("127.0.0.1", self.server.service_port), timeout=60) as service:
            service.sendall(request)
            raw = b"".join(iter(lambda: service.recv(65_536), b""))
        loss = self.server.proxy.take(fields[b"idempotency-key"].decode(), raw)
        if loss is Loss.RESET:
            self.request.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.request.close()  # The server would end it in good order.
        elif loss is not Loss.CLOSED:
            self.wfile.write(raw if loss is None else raw[: len(raw) - 20])
