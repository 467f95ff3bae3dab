"""The client's connections, and what came of a request over one of them."""

from __future__ import annotations

import http.client
import itertools
import select
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

import msgspec

if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping

Which = Literal["cart", "order"]

#: The status of an answer that never came.
NO_ANSWER = 0

#: Pause before the first retry, in seconds; it doubles with each, up to the second figure.
RETRY_S = 0.1
RETRY_MAX_S = 2.0

#: A service that asks for more patience than this, in ``Retry-After``, is asked again earlier.
RETRY_AFTER_MAX_S = 30.0

#: A request is given so long at least, in seconds, though its connection has taken all of the time.
LEFT_MIN_S = 0.001

#: What stands before the name of a kind of error.
PROBLEMS = "/problems/"


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of a request.

    ``body`` is decoded JSON, or text where it is none; ``raw`` are its bytes; ``headers`` have lower-case names.
    ``outcome`` is what is true of a write: ``published``, ``spooled``, ``refused``, ``unknown``.
    """

    status: int
    body: Any
    headers: Mapping[str, str] = field(default_factory=dict)
    outcome: str | None = None
    raw: bytes = field(default=b"", repr=False, compare=False)

    @property
    def order(self) -> dict[str, Any]:
        """The order in the answer."""
        order: dict[str, Any] = self.body["order"]
        return order

    @property
    def event_id(self) -> str | None:
        """The event that a write became."""
        event_id: str | None = self.member("eventId")
        return event_id

    @property
    def partition(self) -> int | None:
        """Where Kafka put the event, once it is published."""
        partition: int | None = self.member("partition")
        return partition

    @property
    def offset(self) -> int | None:
        """Its offset there."""
        offset: int | None = self.member("offset")
        return offset

    @property
    def error(self) -> str | None:
        """The sentence that says what went wrong."""
        error: str | None = self.member("error")
        return error

    @property
    def problem(self) -> str | None:
        """The kind of error, such as ``unknown-order``; docs/http.md lists them."""
        kind = self.member("type")
        return kind.removeprefix(PROBLEMS) if isinstance(kind, str) and kind.startswith(PROBLEMS) else None

    @property
    def next_page(self) -> str | None:
        """The path of the page behind this one, where the service names one."""
        target, _, relation = self.headers.get("link", "").partition(">;")
        return target.lstrip("<") if 'rel="next"' in relation else None

    @property
    def may_be_repeated(self) -> bool:
        """Whether a later attempt may end otherwise: nobody answered, or nobody knows, or the service asks for it."""
        return self.status == NO_ANSWER or self.outcome == "unknown" or "retry-after" in self.headers

    def member(self, name: str) -> Any:
        """Give a member of the body, or None."""
        return self.body.get(name) if isinstance(self.body, dict) else None


def pause_s(answer: Answer, number: int) -> float:
    """Say how long to wait before retry ``number``, the first being 0: as long as the service asks, at least."""
    asked_s = 0.0
    with suppress(ValueError):
        asked_s = float(answer.headers.get("retry-after", "0"))
    return max(min(RETRY_S * 2.0**number, RETRY_MAX_S), min(asked_s, RETRY_AFTER_MAX_S))


class Connections:
    """Connections that are kept: as many for each service as requests were in flight at a time. Thread-safe."""

    def __init__(self, urls: dict[Which, str], timeout_s: float) -> None:
        self.urls = urls
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._idle: dict[Which, list[http.client.HTTPConnection]] = {which: [] for which in urls}

    def close(self) -> None:
        """Close them, those in use once they are not; a later request opens new ones."""
        with self._lock:
            before, self._idle = self._idle, {which: [] for which in self.urls}
        for connection in itertools.chain(*before.values()):
            connection.close()

    def request(
        self,
        which: Which,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        wait_s: float = 0.0,
    ) -> Answer:
        """Send once, and read the whole answer. ``wait_s`` is how much longer than usual that may take."""
        begin = time.monotonic()
        idle = self._idle[which]
        try:
            connection = self._connected(which, idle)
        except OSError as error:
            return _no_answer("refused", f"{self.urls[which]} could not be reached: {error}")
        try:
            left_s = self._timeout_s + wait_s - (time.monotonic() - begin)
            connection.sock.settimeout(max(left_s, LEFT_MIN_S))
            connection.request(method, path, body, dict(headers or {}))
            response = connection.getresponse()
            raw = response.read()
        except BaseException as error:  # Whatever it was, half a request may be in it, or the answer come to the next.
            connection.close()
            if not isinstance(error, OSError | http.client.HTTPException):
                raise
            why = f"{type(error).__name__}: {error}"
            return _no_answer("unknown", f"{self.urls[which]} did not answer, the connection is closed ({why})")
        self._give_back(which, idle, connection)
        names = {name.lower(): value for name, value in response.getheaders()}
        decoded = _decoded(raw)
        outcome = decoded.get("outcome") if isinstance(decoded, dict) else None
        return Answer(response.status, decoded, names, outcome, raw)

    def _connected(self, which: Which, idle: list[http.client.HTTPConnection]) -> http.client.HTTPConnection:
        """Take a connection that is connected: what fails later fails after something was sent."""
        while True:
            with self._lock:
                connection = idle.pop() if idle else None
            if connection is None:
                break
            if connection.sock is not None and not _is_dropped(connection.sock):
                return connection
            connection.close()
        url = urlsplit(self.urls[which])
        connection = http.client.HTTPConnection(url.hostname or "", url.port, timeout=self._timeout_s)
        connection.connect()
        return connection

    def _give_back(
        self, which: Which, idle: list[http.client.HTTPConnection], connection: http.client.HTTPConnection
    ) -> None:
        """Keep a connection for the next request, unless `close` was called since it was taken."""
        with self._lock:
            if idle is self._idle[which]:
                idle.append(connection)
                return
        connection.close()


def _is_dropped(sock: socket.socket) -> bool:
    """Tell whether the service closed an idle connection. Nothing else makes one readable between two requests."""
    poll = select.poll()  # select() takes no descriptor above 1,023
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(0))


def _no_answer(outcome: str, sentence: str) -> Answer:
    return Answer(NO_ANSWER, {"error": sentence}, outcome=outcome)


def _decoded(raw: bytes) -> Any:
    try:
        return msgspec.json.decode(raw)
    except msgspec.DecodeError:
        return raw.decode(errors="replace")
