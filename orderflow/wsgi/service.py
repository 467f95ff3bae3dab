"""One HTTP service: a Bottle application inside guards, with JSON errors on every path, probes, metrics, a log line.

Bottle finds the route and calls the handler. Everything around that is done here, once for both services.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import bottle
import msgspec
import structlog

from orderflow import tracing
from orderflow.errors import InvalidBody, StoreError
from orderflow.logs import begin_trace
from orderflow.wsgi import problems
from orderflow.wsgi.draining import is_draining
from orderflow.wsgi.guards import HostGuard
from orderflow.wsgi.metrics import Metrics
from orderflow.wsgi.problems import Problem

if TYPE_CHECKING:
    from collections.abc import Iterable

    from orderflow.settings import Settings

log = structlog.get_logger(__name__)

JSON = "application/json"
UNMATCHED = "(none)"

#: How long a client should wait before it asks again.
RETRY_AFTER = {"Retry-After": "1"}

PROBES = frozenset({"/healthz", "/readyz", "/metrics"})


class NotReady(Exception):
    """What a readiness check raises when the service cannot do its work."""


#: What a handler gives: the body at once, or piece by piece.
Body = bytes | Iterator[bytes]

#: A check tells whether something is as it should be, and says so in a sentence; or raises `NotReady`.
Check = Callable[[], tuple[bool, str]]


class Service:
    """A WSGI application."""

    def __init__(self, name: str, settings: Settings, checks: dict[str, Check]) -> None:
        self.name = name
        self.settings = settings
        self.metrics = Metrics()
        self.router = bottle.Bottle()
        self._checks = checks
        self._hosts = HostGuard(settings)
        self.router.default_error_handler = self._error_of_bottle
        self.router.get("/healthz", callback=self._healthz)
        self.router.get("/readyz", callback=self._readyz)
        self.router.get("/metrics", callback=self._metrics)

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        """Answer one request."""
        started = time.perf_counter()
        trace = tracing.join(environ.get("HTTP_TRACEPARENT"))
        environ["orderflow.trace"] = trace
        answer = _Answer(start_response, trace.traceparent)
        begin_trace(trace.trace_id)
        body = self._answer(environ, answer)
        self._tell(environ, answer.status, time.perf_counter() - started)
        return body

    def _answer(self, environ: dict[str, Any], answer: _Answer) -> Iterable[bytes]:
        try:
            self._hosts.check(environ.get("HTTP_HOST", ""))
        except Problem as problem:
            body = problem.body()
            phrase = f"{problem.status} {bottle.HTTP_CODES[problem.status]}"
            answer(phrase, [("Content-Type", problems.MEDIA_TYPE), ("Content-Length", str(len(body)))])
            return [body]
        return self.router(environ, answer)  # type: ignore[no-any-return]

    def _tell(self, environ: dict[str, Any], status: int, seconds: float) -> None:
        matched = environ.get("bottle.route")
        route = matched.rule if matched is not None else UNMATCHED
        method = environ["REQUEST_METHOD"] if matched is not None else UNMATCHED
        self.metrics.answered(method, route, status, seconds)
        if route not in PROBES:
            log.info(
                "request.handled",
                method=environ["REQUEST_METHOD"],
                route=route,
                status=status,
                duration_ms=round(seconds * 1000, 2),
                **environ.get("orderflow.log", {}),
            )

    # Handlers.

    def handler(self, call: Callable[[], Body]) -> Callable[[], Body | bottle.HTTPResponse]:
        """Make a route's callback of a function that returns the body or raises."""

        def callback(**_: str) -> Body | bottle.HTTPResponse:  # a handler takes the path's parts from the request
            bottle.response.content_type = JSON
            try:
                return call()
            except Problem as found:
                problem = found
            except InvalidBody as error:
                problem = Problem(400, error.reason, error.detail, fields=error.fields or None)
            except StoreError as error:
                problem = Problem(503, "store-unavailable", f"{error}.", RETRY_AFTER)
            bottle.request.environ.setdefault("orderflow.log", {})["problem"] = problem.kind
            headers = {"Content-Type": problems.MEDIA_TYPE, **problem.headers}
            return bottle.HTTPResponse(problem.body(), problem.status, headers)

        return callback

    def _error_of_bottle(self, error: bottle.HTTPError) -> bytes:
        """Answer what Bottle itself found: no such route or method, a path it cannot decode, a handler that crashed."""
        status = error.status_code
        if error.exception is not None:
            log.error("request.crashed", error=repr(error.exception), trace=error.traceback)
            detail = "The service failed on this request; its log has the trace."
        else:
            path = bottle.request.path[:200]
            detail = {404: f"There is no route {path!r}.", 405: f"{path!r} does not take {bottle.request.method}."}.get(
                status, str(error.body)
            )
        bottle.response.content_type = problems.MEDIA_TYPE
        return problems.for_status(status, detail).body()

    # Probes: they build nothing and wait for nothing.

    def _healthz(self) -> bytes:
        bottle.response.content_type = JSON
        return b'{"status":"alive"}'

    def _readyz(self) -> bytes:
        status, says = "ready", {}
        for name, check in self._checks.items():
            try:
                well, says[name] = check()
                status = status if well or status == "unready" else "degraded"
            except NotReady as reason:
                status, says[name] = "unready", str(reason)
        if is_draining():
            status = "draining"
        bottle.response.content_type = JSON
        bottle.response.status = 200 if status in ("ready", "degraded") else 503
        return msgspec.json.encode({"status": status, "checks": says})

    def _metrics(self) -> bytes:
        bottle.response.content_type = self.metrics.content_type
        return self.metrics.render()


class _Answer:
    """A ``start_response`` that remembers the status and adds the trace."""

    __slots__ = ("_start", "_traceparent", "status")

    def __init__(self, start_response: Any, traceparent: str) -> None:
        self._start = start_response
        self._traceparent = traceparent
        self.status = 500

    def __call__(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        self.status = int(status[:3])
        headers.append(("traceparent", self._traceparent))
        if is_draining():
            headers.append(("Connection", "close"))
        return self._start(status, headers, exc_info)
