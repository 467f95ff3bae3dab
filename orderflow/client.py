"""A client of both services, for tests, the command line and notebooks.

Every call gives an `Answer`, also where none came: then ``status`` is `NO_ANSWER`, and the outcome of a write is
``unknown``, because nobody knows how far it got. Only a service that could not be reached makes it ``refused``.
Such a write is sent again only when the caller asks for it and names it, with ``retries`` and an ``idempotency_key``.
"""

from __future__ import annotations

import http.client
import select
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Literal, Self
from urllib.parse import quote, urlencode, urlsplit

import msgspec

from orderflow.status import WILDCARDS

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator, Mapping, Sequence

    from orderflow.settings import Settings

Which = Literal["cart", "order"]

#: The status of an answer that never came.
NO_ANSWER = 0

#: A service that is stopped or overloaded may be back after this long; a retry waits at least as long.
RETRY_S = 0.1
RETRY_MAX_S = 2.0

#: Pause between two looks while waiting for an order.
LOOK_S = 0.005


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of a request.

    ``body`` is decoded JSON, or text where it is none; ``headers`` have lower-case names. ``outcome`` is what is true
    of a write: ``published``, ``spooled``, ``refused``, ``unknown``.
    """

    status: int
    body: Any
    headers: Mapping[str, str] = field(default_factory=dict)
    outcome: str | None = None

    @property
    def order(self) -> dict[str, Any]:
        """The order in the answer."""
        order: dict[str, Any] = self.body["order"]
        return order

    @property
    def event_id(self) -> str | None:
        """The event that a write became."""
        event_id: str | None = self._member("eventId")
        return event_id

    @property
    def partition(self) -> int | None:
        """Where Kafka put the event, once it is published."""
        partition: int | None = self._member("partition")
        return partition

    @property
    def offset(self) -> int | None:
        """Its offset there."""
        offset: int | None = self._member("offset")
        return offset

    @property
    def error(self) -> str | None:
        """The sentence that says what went wrong."""
        error: str | None = self._member("error")
        return error

    def _member(self, name: str) -> Any:
        return self.body.get(name) if isinstance(self.body, dict) else None


class Client:
    """Talks to both services over connections that are kept: one for each thread and service. Thread-safe."""

    def __init__(self, cart_url: str, order_url: str, *, timeout_s: float = 30.0) -> None:
        self._urls: dict[Which, str] = {"cart": cart_url, "order": order_url}
        self._timeout_s = timeout_s
        self._local = threading.local()
        self._lock = threading.Lock()
        self._connections: list[http.client.HTTPConnection] = []

    @classmethod
    def from_settings(cls, settings: Settings, *, timeout_s: float = 30.0) -> Self:
        """Make the client of the services that run with these settings."""
        host = WILDCARDS.get(settings.http_host, settings.http_host)
        host = f"[{host}]" if ":" in host else host
        return cls(f"http://{host}:{settings.cart_port}", f"http://{host}:{settings.order_port}", timeout_s=timeout_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections of all threads; a later call opens new ones."""
        with self._lock:
            for connection in self._connections:
                connection.close()
            self._connections.clear()
            self._local = threading.local()

    # Writes.

    def create_order(  # noqa: PLR0913 (the request's fields)
        self,
        order_id: str,
        items_num: int | None = None,
        *,
        items: Sequence[Mapping[str, Any]] | None = None,
        customer_id: str | None = None,
        currency: str | None = None,
        idempotency_key: str | None = None,
        retries: int = 0,
    ) -> Answer:
        """Create an order: of so many made-up items, or of these ``items``."""
        fields = {"itemsNum": items_num, "items": items, "customerId": customer_id, "currency": currency}
        body = {"orderId": order_id} | {name: value for name, value in fields.items() if value is not None}
        return self.write("POST", "/create-order", body, idempotency_key, retries)

    def update_order(
        self, order_id: str, status: str, *, idempotency_key: str | None = None, retries: int = 0
    ) -> Answer:
        """Set an order's status."""
        body = {"orderId": order_id, "status": status}
        return self.write("PUT", "/update-order", body, idempotency_key, retries)

    def write(
        self, method: str, path: str, body: object, idempotency_key: str | None = None, retries: int = 0
    ) -> Answer:
        """Send any body to the cart service; ``bytes`` go out as they are.

        With ``retries`` it is sent again while no final answer comes. The outcome is that of all attempts together:
        when one is ``unknown``, a later ``refused`` does not make it undone.
        """
        if retries and idempotency_key is None:
            raise ValueError("retries need an idempotency_key: without one each attempt is another event")
        headers = {"Content-Type": "application/json"}
        if idempotency_key is not None:
            headers["Idempotency-Key"] = idempotency_key
        raw = body if isinstance(body, bytes) else msgspec.json.encode(body)
        answer = self._attempt(method, path, raw, headers)
        for number in range(retries):
            if answer.status not in (NO_ANSWER, HTTPStatus.SERVICE_UNAVAILABLE):
                break
            time.sleep(_pause_s(answer, number))
            before, answer = answer, self._attempt(method, path, raw, headers)
            if before.outcome == "unknown" and answer.outcome == "refused":
                answer = replace(answer, outcome="unknown")
        return answer

    def _attempt(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> Answer:
        answer = self.request("cart", method, path, body, headers)
        return replace(answer, outcome=answer.outcome or _outcome_of(answer))

    # Reads.

    def order_details(self, order_id: str) -> Answer:
        """Ask for one order."""
        return self.request("order", "GET", f"/order-details?orderId={quote(order_id, safe='')}")

    def order_ids(self, topic: str) -> Answer:
        """Ask for the ids of all orders; the body is a list."""
        return self.request("order", "GET", f"/getAllOrderIdsFromTopic?{urlencode({'topic': topic})}")

    def order_ids_pages(self, topic: str, limit: int = 1_000) -> Iterator[list[str]]:
        """Walk over all order ids in pages, as the ``Link`` headers lead.

        Raises:
            ConnectionError: a page was not answered with a list; the message says with what.

        """
        path: str | None = f"/getAllOrderIdsFromTopic?{urlencode({'topic': topic, 'limit': limit})}"
        while path:
            answer = self.request("order", "GET", path)
            if answer.status != HTTPStatus.OK:
                raise ConnectionError(f"GET {path} was answered with {answer.status}: {answer.error}")
            yield answer.body
            path = _next_page(answer)

    def wait_for_order(self, order_id: str, *, until: str | None = None, timeout_s: float = 10.0) -> dict[str, Any]:
        """Wait until an order can be read, and has the status ``until`` if one is given; give the order.

        Raises:
            TimeoutError: it does not come to that in time; the message has the last answer.

        """
        deadline = time.monotonic() + timeout_s
        while True:
            answer = self.order_details(order_id)
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

    # The wire.

    def request(
        self, which: Which, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Send one request, once, and read the whole answer. Never raises for what happens on the network."""
        try:
            connection = self._connection(which)
        except OSError as error:
            return _no_answer("refused", f"{self._urls[which]} could not be reached: {error}")
        try:
            connection.request(method, path, body, dict(headers or {}))
            response = connection.getresponse()
            raw = response.read()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            why = f"{type(error).__name__}: {error}"
            return _no_answer("unknown", f"{self._urls[which]} did not answer, the connection is closed ({why})")
        names = {name.lower(): value for name, value in response.getheaders()}
        decoded = _decoded(raw)
        return Answer(response.status, decoded, names, decoded.get("outcome") if isinstance(decoded, dict) else None)

    def _connection(self, which: Which) -> http.client.HTTPConnection:
        """Give this thread's connection, connected: what fails later fails after something was sent."""
        kept: dict[str, http.client.HTTPConnection] = self._local.__dict__
        connection = kept.get(which)
        if connection is None:
            url = urlsplit(self._urls[which])
            connection = kept[which] = http.client.HTTPConnection(url.hostname or "", url.port, timeout=self._timeout_s)
            with self._lock:
                self._connections.append(connection)
        if connection.sock is not None and _is_dropped(connection.sock):
            connection.close()
        if connection.sock is None:
            connection.connect()
        return connection


def _is_dropped(sock: socket.socket) -> bool:
    """Tell whether the service closed an idle connection. Nothing else makes one readable between two requests."""
    readable, _, _ = select.select([sock], [], [], 0)
    return bool(readable)


def _no_answer(outcome: str, sentence: str) -> Answer:
    return Answer(NO_ANSWER, {"error": sentence}, outcome=outcome)


def _outcome_of(answer: Answer) -> str:
    """Say what is true of a write whose answer does not: a 4xx never takes effect, of a crash nobody knows."""
    if HTTPStatus.BAD_REQUEST <= answer.status < HTTPStatus.INTERNAL_SERVER_ERROR:
        return "refused"
    return "unknown"


def _pause_s(answer: Answer, number: int) -> float:
    asked_s = 0.0
    with suppress(ValueError):
        asked_s = float(answer.headers.get("retry-after", "0"))
    return min(max(RETRY_S * 2.0**number, asked_s), RETRY_MAX_S)


def _next_page(answer: Answer) -> str | None:
    target, _, relation = answer.headers.get("link", "").partition(">;")
    return target.lstrip("<") if 'rel="next"' in relation else None


def _decoded(raw: bytes) -> Any:
    try:
        return msgspec.json.decode(raw)
    except msgspec.DecodeError:
        return raw.decode(errors="replace")
