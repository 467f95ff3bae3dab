"""The order service itself, some of whose answers are changed on their way out: faults for Schemathesis to find."""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager
from io import BytesIO
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs
from wsgiref.simple_server import WSGIRequestHandler, make_server

from order_service.app import make_app

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orderflow.settings import Settings

ACCEPTED = "202 Accepted"

#: What coverage tries of a limit: the ends, what is next to them, and the default.
LIMITS_OF_COVERAGE = {1, 2, 100, 999, 1000}

#: The faults that any request to their operation meets, as Schemathesis reports them.
PLAIN = {
    "Undocumented status code: ['GET /orders']",
    "Response violates schema: ['GET /order-details']",
    "API accepts requests without authentication: ['POST /skipped-messages/{id}/discard']",
    "Missing required header accepted: ['POST /skipped-messages/{id}/discard']",
}
#: The one that only limits show which nobody tries on purpose.
RARE = {
    "fuzzing": "Undocumented status code: ['GET /alerts']",
    "stateful": "Undocumented status code: ['Stateful tests']",
}


class Faulty:
    """The order service as a WSGI application, with the plain faults or the rare one."""

    def __init__(self, settings: Settings, *, rare: bool) -> None:
        self._app = make_app(settings)
        self._token = settings.token
        self._change = self._rare if rare else self._plain
        self._rarely = rare

    def __call__(self, environ: dict[str, Any], start_response: Any) -> list[bytes]:
        told: list[tuple[str, list[tuple[str, str]]]] = []
        # This server does not end a body where the body ends.
        environ["wsgi.input"] = BytesIO(environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0)))
        if not self._rarely and environ["PATH_INFO"].endswith("/discard"):
            environ["HTTP_AUTHORIZATION"] = f"Bearer {self._token}"
        body = b"".join(self._app(environ, lambda status, headers, _=None: told.append((status, headers))))
        status, headers = told[0]
        status, body = self._change(environ, status, body)
        others = [(name, value) for name, value in headers if name.lower() != "content-length"]
        start_response(status, [*others, ("Content-Length", str(len(body)))])
        return [body]

    def _plain(self, environ: dict[str, Any], status: str, body: bytes) -> tuple[str, bytes]:
        if environ["PATH_INFO"] == "/orders" and status.startswith("200"):
            return ACCEPTED, body
        if environ["PATH_INFO"] == "/order-details" and status.startswith("409"):
            told = json.loads(body)
            told["event"]["more"] = 1
            return status, json.dumps(told).encode()
        return status, body

    def _rare(self, environ: dict[str, Any], status: str, body: bytes) -> tuple[str, bytes]:
        limit = parse_qs(environ["QUERY_STRING"]).get("limit", ["100"])[0]
        if environ["PATH_INFO"] == "/alerts" and status.startswith("200") and int(limit) not in LIMITS_OF_COVERAGE:
            return ACCEPTED, body
        return status, body


class _Quiet(WSGIRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def faulty_service(settings: Settings, *, rare: bool) -> Iterator[int]:
    """Serve it, on what a stack has in its files; gives the port."""
    with make_server("127.0.0.1", 0, Faulty(settings, rare=rare), handler_class=_Quiet) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()
