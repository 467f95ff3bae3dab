"""The webhook: one POST for each alert that opens, with retries of its own, in a thread of its own.

The URL can hold a secret, and so can an error's message that repeats it: neither is logged.
"""

from __future__ import annotations

import socket
import ssl
import threading
from contextlib import contextmanager, suppress
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from queue import SimpleQueue
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

import msgspec
import stamina
import structlog

from orderflow.alerts.causes import facts_of
from orderflow.clock import moment

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orderflow.settings import Settings
    from orderflow.store.alerts import Opening

log = structlog.get_logger(__name__)

#: POSTs that may wait; a further one is given up.
QUEUE_MAX = 100

#: The delays between attempts, in seconds: the first, the longest, and the random part of each.
FIRST_DELAY_S = 1.0
MAX_DELAY_S = 60.0
JITTER_S = 1.0

#: Answers other than 5xx after which the same POST may be taken later.
AGAIN = frozenset({408, 425, 429})

HEADERS = {"Content-Type": "application/json", "User-Agent": "orderflow", "Connection": "close"}


class Post(NamedTuple):
    """What is to be sent."""

    cause: str
    alert_id: int | None
    body: bytes


class NotTaken(Exception):
    """The other side did not take a POST. ``again``: it may take it later. The message holds nothing of the URL."""

    def __init__(self, error: str, *, again: bool) -> None:
        super().__init__(error)
        self.again = again


class Webhook:
    """Sends alerts to ORDERFLOW_ALERT_WEBHOOK, where one is set. Thread-safe; no call waits."""

    def __init__(self, settings: Settings) -> None:
        self._url = settings.alert_webhook
        self._timeout_s = settings.alert_webhook_timeout_s
        self._retries = settings.alert_webhook_retry_max
        self._lock = threading.Lock()
        self._posts: SimpleQueue[Post | None] = SimpleQueue()
        self._thread: threading.Thread | None = None

    def send(self, opening: Opening, alert_id: int | None) -> None:
        """Send an alert soon; without an id where its row could not be written."""
        if not self._url:
            return
        facts = facts_of(opening.cause)
        body = {
            "id": alert_id,
            "cause": opening.cause,
            "severity": opening.severity,
            "title": facts.title,
            "detail": opening.detail,
            "affected": opening.affected,
            "openedAt": moment(opening.opened_at),
            "program": opening.program,
            "runbook": facts.runbook(alert_id),
        }
        post = Post(opening.cause, alert_id, msgspec.json.encode(body))
        with self._lock:
            if self._posts.qsize() >= QUEUE_MAX:
                _give_up(post, f"{QUEUE_MAX} others wait already")
                return
            self._posts.put(post)
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, args=(self._posts,), name="alert-webhook", daemon=True
                )
                self._thread.start()

    def close(self, timeout_s: float) -> None:
        """Send what waits, at most so long. A later use begins anew."""
        with self._lock:
            thread, self._thread = self._thread, None
            posts, self._posts = self._posts, SimpleQueue()
            posts.put(None)
        if thread is not None:
            thread.join(timeout_s)

    def _run(self, posts: SimpleQueue[Post | None]) -> None:
        while (post := posts.get()) is not None:
            try:
                self._deliver(post.body)
            except Exception as error:  # noqa: BLE001 (whatever it is, the next alert shall be sent)
                _give_up(post, str(error) if isinstance(error, NotTaken) else type(error).__name__)
            else:
                log.info("alert.webhook_sent", cause=post.cause, alert_id=post.alert_id)

    def _deliver(self, body: bytes) -> None:
        """Send a POST, and try again where that may help."""
        for attempt in stamina.retry_context(
            on=lambda error: isinstance(error, NotTaken) and error.again,
            attempts=self._retries + 1,
            timeout=None,
            wait_initial=FIRST_DELAY_S,
            wait_max=MAX_DELAY_S,
            wait_jitter=JITTER_S,
        ):
            with attempt:
                self._attempt(body)

    def _attempt(self, body: bytes) -> None:
        try:
            status = self._exchange(body)
        except (OSError, HTTPException) as error:
            raise NotTaken(_words(error), again=True) from None
        if status // 100 != 2:  # noqa: PLR2004 (2xx)
            again = status >= HTTPStatus.INTERNAL_SERVER_ERROR or status in AGAIN
            raise NotTaken(f"HTTP {status}", again=again)

    def _exchange(self, body: bytes) -> int:
        """Send one POST and give the answer's status. A redirect is an answer: it is not followed."""
        url = urlsplit(self._url)
        kind = HTTPSConnection if url.scheme == "https" else HTTPConnection
        connection = kind(url.hostname or "", url.port, timeout=self._timeout_s)
        try:
            connection.connect()
            with _within(connection, self._timeout_s):
                connection.request(
                    "POST", url._replace(scheme="", netloc="", fragment="").geturl() or "/", body, HEADERS
                )
                return connection.getresponse().status  # its body is of no interest, and may have no end
        finally:
            connection.close()


@contextmanager
def _within(connection: HTTPConnection, seconds: float) -> Iterator[None]:
    """Cut an exchange off that takes longer in all: a socket's own timeout is that of a single read."""
    late = threading.Event()

    def cut() -> None:
        late.set()
        with suppress(OSError):
            socket.socket.shutdown(connection.sock, socket.SHUT_RDWR)

    timer = threading.Timer(seconds, cut)
    timer.start()
    try:
        yield
    except (OSError, HTTPException):
        if not late.is_set():
            raise
    finally:
        timer.cancel()
    if late.is_set():
        raise TimeoutError


def _words(error: Exception) -> str:
    """Name an error by its kind and the system's words: those of a library could repeat the URL."""
    says = error.reason if isinstance(error, ssl.SSLError) else getattr(error, "strerror", None)
    return f"{type(error).__name__}: {says}" if says else type(error).__name__


def _give_up(post: Post, error: str) -> None:
    log.warning("alert.webhook_failed", cause=post.cause, alert_id=post.alert_id, error=error)
