"""A load generator: threads that create and update orders, and send what is wrong on purpose, by a plan.

Every write carries an Idempotency-Key. An order belongs to one thread, which awaits each answer: its updates go out in
the sequence of the ledger.
"""

from __future__ import annotations

import random
import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING

import msgspec

from orderflow.broker.raw import RawProducer, RawRecord
from orderflow.client import NO_ANSWER, Answer, Client
from orderflow.errors import BrokerError
from orderflow.ledger import Entry, Kind, Outcome
from orderflow.orders import Status

if TYPE_CHECKING:
    from collections.abc import Callable

    from orderflow.ledger import Ledger
    from orderflow.settings import Settings

#: Made-up items of each order.
ITEMS_NUM = 2

#: Requests that must be answered with 400.
INVALID_BODIES = (
    b'{"orderId": "',
    b'{"itemsNum": 2}',
    b'{"orderId": "bad", "itemsNum": "two"}',
    b'{"orderId": "bad", "items": [{"itemId": "i", "quantity": 1, "price": NaN}]}',
)

#: Values that the consumer must skip.
MALFORMED_VALUES = (
    b'{"type": "order.created", "order_id"',
    b'{"type": "order.exploded"}',
    b'{"type": "order.status_changed", "order_id": "bad", "status": 7}',
    b"\xff\xfe",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How much of what is sent. ``updates`` and ``bad`` are shares of all requests; ``rate`` is requests a second."""

    orders: int | None = None
    duration_s: float | None = None
    rate: float | None = None
    connections: int = 8
    updates: float = 0.0
    bad: float = 0.0

    def __post_init__(self) -> None:
        if (self.orders is None) == (self.duration_s is None):
            raise ValueError("give either a number of orders or a duration")
        if self.updates + self.bad >= 1:
            raise ValueError(f"updates {self.updates:g} and bad {self.bad:g} leave no share for creates")


class Pace:
    """Says when the next request is due, and when the plan is fulfilled. Thread-safe."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._started_at = time.monotonic()
        self._run = f"{time.time_ns():x}"
        self._requests = 0
        self.creates = 0

    def stop(self) -> None:
        """Let no further request begin."""
        self._stopped.set()

    @property
    def seconds(self) -> float:
        """How long it goes on by now."""
        return time.monotonic() - self._started_at

    @property
    def done(self) -> float:
        """The share of the plan that is fulfilled."""
        if self._plan.orders is not None:
            return self.creates / self._plan.orders
        return min(1.0, self.seconds / (self._plan.duration_s or 1.0))

    def take(self, kind: Kind) -> str | None:
        """Wait until a request is due, and give it a name of its own; None when there are no more."""
        with self._lock:
            if self._stopped.is_set() or self.done >= 1:
                return None
            self._requests += 1
            number = self._requests
            self.creates += kind == "create"
        due_s = (number - 1) / self._plan.rate if self._plan.rate else 0.0
        if due_s > self.seconds and self._stopped.wait(due_s - self.seconds):
            return None
        return f"{self._run}-{number}"


class Generator:
    """Carries out a plan. `run` returns when it is fulfilled, or soon after `stop`: requests in flight are awaited."""

    def __init__(self, settings: Settings, plan: Plan, ledger: Ledger, *, timeout_s: float = 15.0) -> None:
        self.pace = Pace(plan)
        self._settings = settings
        self._plan = plan
        self._ledger = ledger
        self._timeout_s = timeout_s

    def stop(self) -> None:
        """Begin no further request."""
        self.pace.stop()

    def run(self, tell: Callable[[], None] = lambda: None, every_s: float = 0.1) -> None:
        """Send until the plan is fulfilled, calling ``tell`` again and again."""
        with ExitStack() as opened:
            client = opened.enter_context(Client.from_settings(self._settings, timeout_s=self._timeout_s))
            producer = opened.enter_context(RawProducer(self._settings, "load")) if self._plan.bad else None
            threads = [
                threading.Thread(target=_Sender(self._plan, self.pace, self._ledger, client, producer).run)
                for _ in range(self._plan.connections)
            ]
            for thread in threads:
                thread.start()
            try:
                while any(thread.is_alive() for thread in threads):
                    tell()
                    time.sleep(every_s)
            finally:
                self.stop()
                for thread in threads:
                    thread.join()
            tell()


class _Sender:
    """One thread of a generator, and the orders that it created."""

    def __init__(self, plan: Plan, pace: Pace, ledger: Ledger, client: Client, producer: RawProducer | None) -> None:
        self._plan = plan
        self._pace = pace
        self._ledger = ledger
        self._client = client
        self._producer = producer
        self._orders: list[str] = []

    def run(self) -> None:
        """Send one request after the other."""
        send = {"create": self._create, "update": self._update, "invalid": self._invalid, "malformed": self._malformed}
        while (name := self._pace.take(kind := self._choose())) is not None:
            self._ledger.add(send[kind](name))

    def _choose(self) -> Kind:
        drawn = random.random()  # noqa: S311 (no secret)
        if drawn < self._plan.bad:
            return "malformed" if drawn < self._plan.bad / 2 else "invalid"
        if drawn < self._plan.bad + self._plan.updates and self._orders:
            return "update"
        return "create"

    def _create(self, name: str) -> Entry:
        order_id = f"load-{name}"
        sent_at = time.time()
        answer = self._client.create_order(order_id, ITEMS_NUM, idempotency_key=name)
        if answer.outcome in ("published", "spooled"):
            self._orders.append(order_id)
        return _entry("create", order_id, Status.NEW, sent_at, answer, name)

    def _update(self, name: str) -> Entry:
        order_id, status = random.choice(self._orders), random.choice(list(Status))  # noqa: S311 (no secret)
        sent_at = time.time()
        answer = self._client.update_order(order_id, status, idempotency_key=name)
        return _entry("update", order_id, status, sent_at, answer, name)

    def _invalid(self, name: str) -> Entry:
        body = random.choice(INVALID_BODIES)  # noqa: S311 (no secret)
        sent_at = time.time()
        answer = self._client.write("POST", "/create-order", body, name)
        return _entry("invalid", None, None, sent_at, answer, name)

    def _malformed(self, name: str) -> Entry:
        assert self._producer is not None  # noqa: S101 (a plan with bad messages has one)
        record = RawRecord(random.choice(MALFORMED_VALUES), key=f"load-{name}".encode())  # noqa: S311 (no secret)
        sent_at = time.time()
        try:
            ((partition, offset),) = self._producer.send([record])
            answer = Answer(HTTPStatus.OK, {"partition": partition, "offset": offset}, outcome="published")
        except BrokerError as error:
            answer = Answer(NO_ANSWER, {"error": str(error)}, outcome="unknown")
        return msgspec.structs.replace(_entry("malformed", None, None, sent_at, answer, None), status=None)


def _entry(
    kind: Kind, order_id: str | None, sets: str | None, sent_at: float, answer: Answer, name: str | None
) -> Entry:
    return Entry(
        kind=kind,
        order_id=order_id,
        event_id=answer.event_id,
        sets=sets,
        outcome=_outcome(answer),
        status=answer.status or None,
        partition=answer.partition,
        offset=answer.offset,
        sent_at=sent_at,
        answered_at=time.time(),
        idempotency_key=name,
        error=answer.error,
    )


def _outcome(answer: Answer) -> Outcome:
    """Tell apart what the service said from what nobody said."""
    if HTTPStatus.BAD_REQUEST <= answer.status < HTTPStatus.INTERNAL_SERVER_ERROR:
        return "invalid"
    if answer.status == NO_ANSWER and answer.outcome == "unknown":
        return "no_answer"
    outcome: Outcome = msgspec.convert(answer.outcome, Outcome)
    return outcome
