"""Schemathesis on both services of the shared stack, with few examples; and faults planted for it to find.

With many examples, with a token, and without Kafka: tests/faults/test_openapi.py.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, TypedDict
from wsgiref.simple_server import WSGIRequestHandler, make_server

import bottle

from orderflow.settings import Settings
from orderflow.wsgi.calling import Call
from orderflow.wsgi.guards import BodyReader
from orderflow.wsgi.routes import Route
from orderflow.wsgi.service import Service
from tests.support.openapi.runs import run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import pytest

    from orderflow.stack import Stack

TOKEN = "s3cret"  # noqa: S105 (a test's)


def test_both_services_answer_as_they_describe(stack: Stack, tmp_path: Path) -> None:
    ports = [stack.settings.cart_port, stack.settings.order_port]
    with ThreadPoolExecutor() as pool:
        done = list(pool.map(lambda port: run(tmp_path, port, examples=2, within_s=60), ports))

    assert [one.findings for one in done] == [[], []]
    for one in done:
        one.check_complete(operations=6, examples=2)


class Pong(TypedDict):
    """What the routes below say that they answer."""

    ping: str


def well() -> bytes:
    return b'{"ping":"pong"}'


def wrong_status() -> bytes:
    bottle.response.status = 202
    return well()


def undescribed_member() -> bytes:
    return b'{"ping":"pong","more":1}'


def unguarded() -> bytes:
    return well()


class _Quiet(WSGIRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def faulty_service() -> Iterator[int]:
    """A service with a route for each fault, and one that is well. It is not strict: callers see the faults."""
    settings = Settings(token=TOKEN)
    service = Service("planted", settings, {})
    for handler in (well, wrong_status, undescribed_member, unguarded):
        route = Route(
            path=f"/ping/{handler.__name__}",
            handler=handler,
            name=handler.__name__,
            tag="test",
            summary="A test's",
            answers={200: Pong},
            operator=True,
        )
        service.routes.append(route)
        answered = replace(route, operator=False) if handler is unguarded else route
        service.router.get(route.path, callback=Call(answered, settings, BodyReader(1, 1)))
    with make_server("127.0.0.1", 0, service, handler_class=_Quiet) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


def test_planted_faults_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Schemathesis, as it is run here, sees what it is run for."""
    monkeypatch.setattr(Call, "strict", False)

    with faulty_service() as port:
        done = run(tmp_path, port, examples=1, within_s=60, token=TOKEN, coverage_of="^/ping/")

    assert set(done.findings) == {
        "Undocumented status code: ['GET /ping/wrong_status']",
        "Response violates schema: ['GET /ping/undescribed_member']",
        "API accepts requests without authentication: ['GET /ping/unguarded']",
        "Missing required header accepted: ['GET /ping/unguarded']",
    }
