"""One HTTP service: a Bottle application inside guards, with JSON errors on every path, probes, metrics, a log line.

Bottle finds the route and calls the handler. Everything around that is done here, once for both services.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, TypedDict

import bottle
import msgspec
import structlog

from orderflow import tracing
from orderflow.logs import begin_trace
from orderflow.wsgi import openapi, problems
from orderflow.wsgi.calling import Call
from orderflow.wsgi.draining import is_draining
from orderflow.wsgi.guards import BodyReader, HostGuard, check_path
from orderflow.wsgi.metrics import Metrics
from orderflow.wsgi.problems import Problem
from orderflow.wsgi.routes import Route

if TYPE_CHECKING:
    from collections.abc import Iterable

    from orderflow.settings import Settings

log = structlog.get_logger(__name__)

UNMATCHED = "(none)"

#: Asked again and again by machines: without a log line each.
PROBES = frozenset({"/healthz", "/readyz", "/metrics"})


class NotReady(Exception):
    """What a readiness check raises when the service cannot do its work."""


#: A check tells whether something is as it should be, and says so in a sentence; or raises `NotReady`.
Check = Callable[[], tuple[bool, str]]


class Alive(TypedDict):
    """The process answers."""

    status: Literal["alive"]


class Readiness(TypedDict):
    """Whether the service can do its work, and what each of its checks says."""

    status: Literal["ready", "degraded", "unready", "draining"]
    checks: dict[str, str]


class Service:
    """A WSGI application."""

    def __init__(self, name: str, settings: Settings, checks: dict[str, Check], *, bodies_at_once: int = 1) -> None:
        self.name = name
        self.settings = settings
        self.metrics = Metrics()
        self.router = bottle.Bottle()
        self.routes: list[Route] = []
        self._checks = checks
        self._hosts = HostGuard(settings)
        # A caller that sends its body slowly holds a thread: some are left for those at work, and for probes.
        self._bodies = BodyReader(settings.http_body_limit_bytes, max(1, bodies_at_once))
        self.router.default_error_handler = self._error_of_bottle
        for route in self._probes():
            self.add(route)

    def add(self, route: Route) -> None:
        """Take requests for a route."""
        self.routes.append(route)
        self.router.route(route.path, route.method, Call(route, self.settings, self._bodies))

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
            self._hosts.check(environ.get("HTTP_HOST", ""), environ.get("HTTP_ORIGIN"))
            check_path(environ["PATH_INFO"])
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

    def _probes(self) -> tuple[Route, ...]:
        return (
            Route(
                path="/healthz",
                handler=self._healthz,
                name="healthz",
                tag="probes",
                summary="Whether the process answers",
                answers={200: Alive},
            ),
            Route(
                path="/readyz",
                handler=self._readyz,
                name="readyz",
                tag="probes",
                summary="Whether the service can do its work",
                answers={200: Readiness, 503: Readiness},
            ),
            Route(
                path="/metrics",
                handler=self._metrics,
                name="metrics",
                tag="probes",
                summary="Metrics for Prometheus",
                answers={200: self.metrics.content_type},
            ),
            Route(
                path="/openapi.json",
                handler=self._openapi,
                name="openapi",
                tag="probes",
                summary="This description",
                answers={200: dict[str, Any]},
            ),
        )

    def _healthz(self) -> bytes:
        return b'{"status":"alive"}'

    def _readyz(self) -> bytes:
        answer: Readiness = {"status": "ready", "checks": {}}
        for name, check in self._checks.items():
            try:
                well, answer["checks"][name] = check()
                if not well and answer["status"] == "ready":
                    answer["status"] = "degraded"
            except NotReady as reason:
                answer["status"], answer["checks"][name] = "unready", str(reason)
        if is_draining():
            answer["status"] = "draining"
        bottle.response.status = 200 if answer["status"] in ("ready", "degraded") else 503
        return msgspec.json.encode(answer)

    @cache  # noqa: B019 (a service lives as long as its process)
    def _openapi(self) -> bytes:
        return openapi.document(f"orderflow {self.name}", self.routes, token=bool(self.settings.token))

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
