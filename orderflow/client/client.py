"""The client for people and programs: typed values, or a `ClientError` that says what to do."""

from __future__ import annotations

import itertools
import time
import uuid
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar

import msgspec
from prometheus_client.parser import text_string_to_metric_families

from orderflow.client.calls import WAIT_MAX_S, Calls, urls_of
from orderflow.client.failures import NOT_APPLIED, TOO_MANY_WAITING, failure, is_settled, read_failure, write_failure
from orderflow.client.requests import create_body, target, update_body
from orderflow.client.shapes import Event, Order, Timeline, Written
from orderflow.client.wire import NO_ANSWER, pause_s
from orderflow.errors import UnexpectedAnswer

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from prometheus_client.samples import Sample

    from orderflow.client.shapes import Item
    from orderflow.client.wire import Answer, Which
    from orderflow.settings import Settings

#: How often a typed call is sent again while no final answer comes.
RETRIES = 3

T = TypeVar("T")


class Client(Calls):
    """A client of both services. Thread-safe.

    The calls of this class retry, up to ``retries`` times: a write under one Idempotency-Key, so it takes effect once.
    Those that give an `Answer` do not, unless they are told to: each is one attempt, for who counts them.

    It reads its own writes: see `order`. It remembers the last writes of 10,000 orders.

    Each raises a `ClientError`: `RequestRefused` (a 4xx: mend the request), `NotFound`, `ServiceUnavailable` (later),
    `OutcomeUnknown` (a write: send it again with its key), `UnexpectedAnswer`.
    """

    def __init__(self, cart_url: str, order_url: str, *, timeout_s: float = 30.0, retries: int = RETRIES) -> None:
        super().__init__(cart_url, order_url, timeout_s=timeout_s)
        self._retries = retries

    @classmethod
    def from_settings(cls, settings: Settings, *, timeout_s: float = 30.0, retries: int = RETRIES) -> Self:
        """Make the client of the services that run with these settings."""
        return cls(*urls_of(settings), timeout_s=timeout_s, retries=retries)

    # Writes.

    def create(
        self,
        order_id: str,
        items_num: int | None = None,
        *,
        items: Sequence[Item | Mapping[str, Any]] | None = None,
        customer_id: str | None = None,
        currency: str | None = None,
        idempotency_key: str | None = None,
    ) -> Written:
        """Create an order: of so many made-up items, or of these ``items``. Published or spooled, it is kept."""
        body = create_body(order_id, items_num, items, customer_id, currency)
        answer, key = self._write_under_key("POST", "/create-order", body, idempotency_key)
        return _written(answer, f"create of order {order_id!r}", key, creates=True)

    def update(self, order_id: str, status: str, *, idempotency_key: str | None = None) -> Written:
        """Set an order's status. Published or spooled, it is kept; whether the order exists shows when it is read."""
        body = update_body(order_id, status)
        answer, key = self._write_under_key("PUT", "/update-order", body, idempotency_key)
        return _written(answer, f"update of order {order_id!r}", key, creates=False)

    def _write_under_key(self, method: str, path: str, body: object, given: str | None) -> tuple[Answer, str]:
        """Write under the key that is given, or one that is made."""
        key = str(uuid.uuid4()) if given is None else given
        return self._write(method, path, body, key, self._retries, is_new=given is None), key

    # Reads.

    def order(self, order_id: str, *, after: str | None = None, wait_s: float = 2.0, own_writes: bool = True) -> Order:
        """Read an order, never older than this client's own last write to it, nor than the event ``after``.

        It waits up to ``wait_s`` for them to be applied, and ends after that and ``timeout_s`` together, whatever the
        service does. ``own_writes=False`` reads what there is, also where the last write was skipped, which every other
        read is told until the next write.

        Raises:
            EventSkipped: the write had no effect; ``reason`` says why.
            EventSpooled: it waits for Kafka, is held, or was given up: ``event.state``.
            NotAppliedYet: it is on its way; ``lag`` records are to be applied first.

        """
        deadline = time.monotonic() + wait_s
        own = self._own.awaited(order_id) if own_writes else ()
        for event_id, last in own:
            answer = self._order_after(order_id, event_id, deadline)
            if answer.status != HTTPStatus.OK and (last or not is_settled(answer)):
                raise read_failure(answer, order_id, event_id)
            self._own.settled(order_id, event_id)
        if after is not None or not own:
            answer = self._order_after(order_id, after, deadline)
            if answer.status != HTTPStatus.OK:
                raise read_failure(answer, order_id, after)
        return _decoded(answer, Order, "order")

    def orders(self, *, status: str | None = None, page: int = 100) -> Iterator[Order]:
        """Walk over the orders, newest first, all or those of one status; ``page`` are fetched at a time."""
        for answer in self._pages(target("orders", status=status, limit=page), "the orders"):
            yield from _decoded(answer, tuple[Order, ...], "orders")

    def timeline(self, order_id: str, *, page: int = 200) -> Timeline:
        """Read all that is known of an order; ``page`` events are fetched at a time. `NotFound`: nothing is."""
        path = target("order-timeline", orderId=order_id, limit=page)
        pages = [_decoded(answer, Timeline) for answer in self._pages(path, f"the timeline of order {order_id!r}")]
        return msgspec.structs.replace(pages[-1], events=tuple(event for one in pages for event in one.events))

    def event(self, event_id: str, order_id: str | None = None) -> Event:
        """Read the state of one event. Ids are unique within an order: where several have it, name the order."""
        path = target("events", event_id, orderId=order_id)
        return _decoded(self._read("order", path, f"event {event_id!r}"), Event, "event")

    def openapi(self, which: Which) -> dict[str, Any]:
        """Read a service's own description, an OpenAPI document."""
        return _decoded(self._read(which, "/openapi.json", f"the description of {which}-service"), dict[str, Any])

    def metrics(self, which: Which) -> list[Sample]:
        """Read a service's metrics: ``name``, ``labels``, ``value`` of each."""
        answer = self._read(which, "/metrics", f"the metrics of {which}-service")
        families = text_string_to_metric_families(answer.raw.decode())
        return [sample for family in families for sample in family.samples]

    def _order_after(self, order_id: str, event_id: str | None, deadline: float) -> Answer:
        """Ask until the event is applied or the time is over; while too many wait, too."""
        for number in itertools.count():
            left_s = max(0.0, deadline - time.monotonic())
            answer = self.order_details(order_id, after=event_id, wait_s=min(left_s, WAIT_MAX_S))
            busy = answer.problem == TOO_MANY_WAITING or (answer.may_be_repeated and number < self._retries)
            in_vain = answer.status == NO_ANSWER and time.monotonic() >= deadline
            if left_s == 0.0 or in_vain or not (busy or answer.problem == NOT_APPLIED):
                break
            if busy:
                time.sleep(min(pause_s(answer, number), left_s))
        return answer

    def _pages(self, path: str | None, what: str) -> Iterator[Answer]:
        while path:
            answer = self._read("order", path, what)
            yield answer
            path = answer.next_page

    def _read(self, which: Which, path: str, what: str) -> Answer:
        for number in itertools.count():
            answer = self.request(which, "GET", path)
            if not answer.may_be_repeated or number == self._retries:
                break
            time.sleep(pause_s(answer, number))
        if answer.status != HTTPStatus.OK:
            raise failure(answer, what)
        return answer


class _Taken(msgspec.Struct, rename="camel"):
    """The body of a write's answer."""

    order: msgspec.Raw
    event_id: str
    outcome: Literal["published", "spooled"]
    partition: int | None = None
    offset: int | None = None
    ahead: int | None = None


def _written(answer: Answer, what: str, key: str, *, creates: bool) -> Written:
    if answer.outcome not in ("published", "spooled"):
        raise write_failure(answer, what, key)
    taken = _decoded(answer, _Taken)
    return Written(
        order_id=answer.order["orderId"],
        event_id=taken.event_id,
        outcome=taken.outcome,
        idempotency_key=key,
        partition=taken.partition,
        offset=taken.offset,
        ahead=taken.ahead,
        order=msgspec.json.decode(taken.order, type=Order) if creates else None,
    )


def _decoded(answer: Answer, kind: type[T], member: str | None = None) -> T:
    """Decode a body, or one member of it, from its bytes: amounts stay exact."""
    try:
        raw = answer.raw if member is None else msgspec.json.decode(answer.raw, type=dict[str, msgspec.Raw])[member]
        return msgspec.json.decode(raw, type=kind)
    except (msgspec.MsgspecError, KeyError) as error:
        said = f"the answer is not one that this client understands: {error}; is the service of another version?"
        raise UnexpectedAnswer(said, answer.status, None) from None
