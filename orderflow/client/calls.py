"""The calls that give an `Answer`: one for every request, also where none came.

Then ``status`` is `NO_ANSWER`, and the outcome of a write is ``unknown``, because nobody knows how far it got. Only a
service that could not be reached makes it ``refused``.
"""

from __future__ import annotations

import time
import uuid
from dataclasses import replace
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Self

from orderflow.client.own_writes import OwnWrites
from orderflow.client.requests import body_of, create_body, headers_of, target, update_body
from orderflow.client.wire import Answer, Connections, Which, pause_s
from orderflow.status import WILDCARDS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from orderflow.client.shapes import Item
    from orderflow.settings import Settings

#: Pause between two looks while waiting for an order.
LOOK_S = 0.005

#: The longest time, in seconds, for which the order service lets a read wait, and the one where none is asked for.
WAIT_MAX_S = 30.0
WAIT_S = 2.0


class Calls:
    """Talks to both services over connections that are kept. Thread-safe.

    A call sends its request once. A write is sent again only when it is told to with ``retries``: who uses these calls
    counts attempts, or decides by the answer. What cannot be sent at all, such as a key with a line feed, is a
    `RequestRefused`.
    """

    def __init__(self, cart_url: str, order_url: str, *, timeout_s: float = 30.0) -> None:
        self._connections = Connections({"cart": cart_url, "order": order_url}, timeout_s)
        self._own = OwnWrites()

    @classmethod
    def from_settings(cls, settings: Settings, *, timeout_s: float = 30.0) -> Self:
        """Make the client of the services that run with these settings."""
        return cls(*urls_of(settings), timeout_s=timeout_s)

    @property
    def urls(self) -> dict[Which, str]:
        """Where the services are."""
        return self._connections.urls

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections of all threads; a later call opens new ones."""
        self._connections.close()

    # Writes.

    def create_order(  # noqa: PLR0913 (the request's fields)
        self,
        order_id: str,
        items_num: int | None = None,
        *,
        items: Sequence[Item | Mapping[str, Any]] | None = None,
        customer_id: str | None = None,
        currency: str | None = None,
        idempotency_key: str | None = None,
        retries: int = 0,
    ) -> Answer:
        """Create an order: of so many made-up items, or of these ``items``."""
        body = create_body(order_id, items_num, items, customer_id, currency)
        return self.write("POST", "/create-order", body, idempotency_key, retries)

    def update_order(
        self, order_id: str, status: str, *, idempotency_key: str | None = None, retries: int = 0
    ) -> Answer:
        """Set an order's status."""
        return self.write("PUT", "/update-order", update_body(order_id, status), idempotency_key, retries)

    def write(
        self, method: str, path: str, body: object, idempotency_key: str | None = None, retries: int = 0
    ) -> Answer:
        """Send any body to the cart service; ``bytes`` go out as they are.

        With ``retries`` it is sent again while no final answer comes, as often as that, with a pause that grows and is
        as long as the service's ``Retry-After`` at least. All attempts carry one key, which is made where none is
        given, so they are one event. The outcome is that of all attempts together: when one is ``unknown``, a later
        ``refused`` does not make it undone.
        """
        key = str(uuid.uuid4()) if retries and idempotency_key is None else idempotency_key
        return self._write(method, path, body, key, retries, is_new=idempotency_key is None)

    def _write(self, method: str, path: str, body: object, key: str | None, retries: int, *, is_new: bool) -> Answer:
        """Write; ``is_new``: nobody has sent anything under this key before."""
        headers, raw = headers_of(key), body_of(body)
        began_at = time.monotonic()
        answer = self._attempt(method, path, raw, headers)
        for number in range(retries):
            if not answer.may_be_repeated:
                break
            time.sleep(pause_s(answer, number))
            before, answer = answer, self._attempt(method, path, raw, headers)
            if before.outcome == "unknown" and answer.outcome == "refused":
                answer = replace(answer, outcome="unknown")
        if answer.outcome in ("published", "spooled") and answer.event_id is not None:
            self._own.note(answer.order["orderId"], answer.event_id, began_at, is_new=is_new)
        return answer

    def _attempt(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> Answer:
        answer = self.request("cart", method, path, body, headers)
        return replace(answer, outcome=answer.outcome or _outcome_of(answer))

    # Reads.

    def order_details(self, order_id: str, *, after: str | None = None, wait_s: float | None = None) -> Answer:
        """Ask for one order; with ``after``, an event's id, once that is applied: wait up to ``wait_s`` for it.

        No answer comes after ``timeout_s`` and ``wait_s`` together.
        """
        if after is None:
            return self.request("order", "GET", target("order-details", orderId=order_id))
        wait = None if wait_s is None else f"{wait_s:.3f}"
        path = target("order-details", orderId=order_id, after=after, wait=wait)
        return self._connections.request("order", "GET", path, wait_s=WAIT_S if wait_s is None else wait_s)

    def order_ids(self, topic: str) -> Answer:
        """Ask for the ids of all orders; the body is a list."""
        return self.request("order", "GET", target("getAllOrderIdsFromTopic", topic=topic))

    def order_ids_pages(self, topic: str, limit: int = 1_000) -> Iterator[list[str]]:
        """Walk over all order ids in pages, as the ``Link`` headers lead.

        Raises:
            ConnectionError: a page was not answered with a list; the message says with what.

        """
        path: str | None = target("getAllOrderIdsFromTopic", topic=topic, limit=limit)
        while path:
            answer = self.request("order", "GET", path)
            if answer.status != HTTPStatus.OK:
                raise ConnectionError(f"GET {path} was answered with {answer.status}: {answer.error}")
            yield answer.body
            path = answer.next_page

    def wait_for_order(self, order_id: str, *, until: str | None = None, timeout_s: float = 10.0) -> dict[str, Any]:
        """Wait until an order can be read, and has the status ``until`` if one is given; give the order.

        After a write of this client's own it lets the service wait for that first; then it looks again and again.

        Raises:
            TimeoutError: it does not come to that in time; the message has the last answer.

        """
        deadline = time.monotonic() + timeout_s
        own = list(self._own.awaited(order_id))
        while True:
            after = own.pop().event_id if own else None
            left_s = max(0.0, deadline - time.monotonic())
            answer = self.order_details(order_id, after=after, wait_s=min(left_s, WAIT_MAX_S))
            if answer.status == HTTPStatus.OK and until in (None, answer.order["status"]):
                return answer.order
            if time.monotonic() > deadline:
                wanted = f"status {until!r}" if until else "an order"
                raise TimeoutError(
                    f"{order_id!r} has not become {wanted} in {timeout_s:g} s; last: {answer.status} {answer.body}"
                )
            time.sleep(LOOK_S)

    def readyz(self, which: Which) -> Answer:
        """Ask a service whether it is ready."""
        return self.request(which, "GET", "/readyz")

    def request(
        self, which: Which, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Send one request, once, and read the whole answer. Never raises for what happens on the network."""
        return self._connections.request(which, method, path, body, headers)


def urls_of(settings: Settings) -> tuple[str, str]:
    """Tell where cart_service and order_service are with these settings."""
    host = WILDCARDS.get(settings.http_host, settings.http_host)
    host = f"[{host}]" if ":" in host else host
    return f"http://{host}:{settings.cart_port}", f"http://{host}:{settings.order_port}"


def _outcome_of(answer: Answer) -> str:
    """Say what is true of a write whose answer does not: a 4xx never takes effect, of a crash nobody knows."""
    if HTTPStatus.BAD_REQUEST <= answer.status < HTTPStatus.INTERNAL_SERVER_ERROR:
        return "refused"
    return "unknown"
