"""The shell around the handlers: a JSON error on every path, guards, probes, metrics, one log line a request."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any

import pytest
import structlog.testing
from prometheus_client.parser import text_string_to_metric_families

from orderflow.logs import add_trace
from orderflow.settings import Settings
from orderflow.wsgi import draining
from orderflow.wsgi.guards import require_token
from orderflow.wsgi.problems import Problem
from orderflow.wsgi.service import NotReady, Service

if TYPE_CHECKING:
    from collections.abc import Iterator

TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


class Answer:
    def __init__(self, service: Service, path: str, method: str = "GET", **environ: Any) -> None:
        given = {
            "REQUEST_METHOD": method, "PATH_INFO": path, "QUERY_STRING": "", "HTTP_HOST": "localhost:5000",
            "SERVER_NAME": "localhost", "SERVER_PORT": "5000", "wsgi.url_scheme": "http",
            "wsgi.input": io.BytesIO(), "wsgi.errors": io.StringIO(),
        }  # fmt: skip
        self.raw = b"".join(service(given | environ, self._start))

    def _start(self, status: str, headers: list[tuple[str, str]], _: object = None) -> None:
        self.status = int(status[:3])
        self.headers = {name.lower(): value for name, value in headers}

    @property
    def json(self) -> Any:
        return json.loads(self.raw)


def crash() -> bytes:
    raise ZeroDivisionError("a bug")


def refuse() -> bytes:
    raise Problem(503, "kafka-unavailable", "Not now.", {"Retry-After": "1"}, outcome="refused")


def pieces() -> Iterator[bytes]:
    yield b"[1"
    yield b",2]"


@pytest.fixture
def service() -> Service:
    service = Service("test", Settings(), {"one": lambda: (True, "Well.")})
    service.router.get("/crash", callback=service.handler(crash))
    service.router.get("/refuse", callback=service.handler(refuse))
    service.router.get("/pieces", callback=service.handler(pieces))
    return service


def test_a_crash_is_a_json_500_and_a_log_line_with_its_trace(service: Service) -> None:
    """The caller learns nothing of the inside; the log has all of it."""
    with structlog.testing.capture_logs() as lines:
        answer = Answer(service, "/crash")

    assert (answer.status, answer.headers["content-type"]) == (500, "application/problem+json")
    assert answer.json["type"] == "/problems/internal-error"
    assert "bug" not in answer.raw.decode()
    (crashed,) = [line for line in lines if line["event"] == "request.crashed"]
    assert "ZeroDivisionError: a bug" in crashed["trace"]


def test_a_problem_keeps_its_headers_and_members(service: Service) -> None:
    """Retry-After, outcome, and the sentence twice: for those who look for ``error``."""
    answer = Answer(service, "/refuse")

    assert (answer.status, answer.headers["retry-after"]) == (503, "1")
    assert answer.json["outcome"] == "refused"
    assert answer.json["error"] == answer.json["detail"] == "Not now."


def test_a_body_can_go_out_in_pieces(service: Service) -> None:
    """As a list of a million ids does."""
    assert Answer(service, "/pieces").json == [1, 2]


def test_one_line_a_request_with_its_trace_and_none_for_probes(service: Service) -> None:
    """Probes come every second; their lines would hide the others."""
    with structlog.testing.capture_logs(processors=[add_trace]) as lines:
        answer = Answer(service, "/pieces", HTTP_TRACEPARENT=TRACEPARENT)
        for probe in ("/healthz", "/readyz", "/metrics"):
            Answer(service, probe)

    (line,) = lines
    assert (line["event"], line["route"], line["status"]) == ("request.handled", "/pieces", 200)
    assert line["trace_id"] == TRACEPARENT.split("-")[1] == answer.headers["traceparent"].split("-")[1]


@pytest.mark.parametrize("traceparent", ["", "garbage", "00-" + "0" * 32 + "-00f067aa0ba902b7-01", TRACEPARENT.upper()])
def test_without_a_valid_trace_one_begins(service: Service, traceparent: str) -> None:
    """Nothing of an invalid header goes on."""
    given = Answer(service, "/healthz", HTTP_TRACEPARENT=traceparent).headers["traceparent"]

    assert len(given.split("-")[1]) == 32
    assert given.split("-")[1] not in traceparent.lower()


def test_metrics_count_routes_and_never_paths(service: Service) -> None:
    """What matches no route is counted under one name: callers cannot make series."""
    for path in ("/pieces", "/pieces", "/a", "/b", "/crash"):
        Answer(service, path)

    families = text_string_to_metric_families(Answer(service, "/metrics").raw.decode())
    counts = {
        (sample.labels["route"], sample.labels["status"]): sample.value
        for family in families if family.name == "orderflow_http_requests"
        for sample in family.samples if sample.name.endswith("_total")
    }  # fmt: skip
    assert counts == {("/pieces", "200"): 2, ("(none)", "404"): 2, ("/crash", "500"): 1}


def not_ready() -> tuple[bool, str]:
    raise NotReady("No store.")


@pytest.mark.parametrize(
    ("checks", "status", "word"),
    [
        ({}, 200, "ready"),
        ({"a": lambda: (True, "Well.")}, 200, "ready"),
        ({"a": lambda: (False, "Away.")}, 200, "degraded"),
        ({"a": lambda: (False, "Away."), "b": not_ready}, 503, "unready"),
        ({"a": not_ready, "b": lambda: (False, "Away.")}, 503, "unready"),
    ],
)
def test_readiness_is_the_worst_of_its_checks(checks: Any, status: int, word: str) -> None:
    """Degraded still takes requests; unready does not."""
    answer = Answer(Service("test", Settings(), checks), "/readyz")

    assert (answer.status, answer.json["status"]) == (status, word)
    assert set(answer.json["checks"]) == set(checks)


def test_a_stopping_service_says_so(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """Told by the server's main process."""
    monkeypatch.setattr(draining, "_draining", draining.RawValue("b", 0))
    draining.begin_draining()

    assert Answer(service, "/readyz").json["status"] == "draining"


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "", "[::2]", "127.0.0.2"])
def test_a_foreign_host_is_refused_before_anything_else(service: Service, host: str) -> None:
    """A page on another site cannot reach the service under its own name."""
    answer = Answer(service, "/crash", HTTP_HOST=host)

    assert (answer.status, answer.json["type"]) == (403, "/problems/foreign-host")


def test_hosts_can_be_allowed() -> None:
    """By name, whatever the port."""
    service = Service("test", Settings(allowed_hosts="orders.example, other"), {})

    assert Answer(service, "/healthz", HTTP_HOST="Orders.Example:8080").status == 200


def test_the_token_is_asked_for_where_one_is_set() -> None:
    """Without a token set, nothing is asked; with one, only that one passes."""
    require_token(Settings(), None)
    require_token(Settings(token="s3cret"), "Bearer s3cret")  # noqa: S106 (a test's)
    for given in (None, "", "Bearer", "Bearer wrong", "s3cret", "Basic s3cret", "Bearer s3cret\u00e9"):
        with pytest.raises(Problem) as refused:
            require_token(Settings(token="s3cret"), given)  # noqa: S106 (a test's)
        assert refused.value.status == 401
        assert "WWW-Authenticate" in refused.value.headers
