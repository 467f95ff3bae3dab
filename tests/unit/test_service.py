"""The shell around the handlers: a JSON error on every path, guards, probes, metrics, one log line a request."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Annotated, Any, Literal

import bottle
import msgspec
import pytest
import structlog.testing
from msgspec import Meta
from prometheus_client.parser import text_string_to_metric_families

from orderflow.events import EventId  # noqa: TC001 (msgspec reads the annotations at run time)
from orderflow.logs import add_trace
from orderflow.settings import Settings
from orderflow.wsgi import draining
from orderflow.wsgi.calling import Call
from orderflow.wsgi.guards import require_token
from orderflow.wsgi.problems import Kind, Problem
from orderflow.wsgi.routes import Route
from orderflow.wsgi.service import NotReady, Service

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

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
    raise Problem(Kind.KAFKA_UNAVAILABLE, "Not now.", {"Retry-After": "1"}, outcome="refused")


def pieces() -> Iterator[bytes]:
    yield b"[1"
    yield b",2]"


def route(path: str, handler: Callable[..., Any], **declared: Any) -> Route:
    given: dict[str, Any] = {"tag": "test", "summary": "A test's", "answers": {200: list[int]}}
    return Route(path=path, handler=handler, name=handler.__name__, **(given | declared))


@pytest.fixture
def service() -> Service:
    service = Service("test", Settings(), {"one": lambda: (True, "Well.")})
    service.add(route("/crash", crash))
    service.add(route("/refuse", refuse, problems=(Kind.KAFKA_UNAVAILABLE,)))
    service.add(route("/pieces", pieces))
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


def accept() -> bytes:
    bottle.response.status = 202
    return b"[]"


@pytest.mark.parametrize(("handler", "status"), [(refuse, 503), (accept, 202)])
def test_an_answer_that_is_not_declared_fails_in_tests(
    service: Service, monkeypatch: pytest.MonkeyPatch, handler: Callable[..., Any], status: int
) -> None:
    """Callers are told the truth all the same."""
    service.add(route("/undeclared", handler))

    with structlog.testing.capture_logs() as lines:
        assert Answer(service, "/undeclared").status == 500
    assert "Undeclared" in lines[0]["error"]
    monkeypatch.setattr(Call, "strict", False)
    assert Answer(service, "/undeclared").status == status


class Wanted(msgspec.Struct, frozen=True, rename="camel"):
    order_id: Annotated[str, Meta(min_length=1)]
    limit: Annotated[int, Meta(ge=1, le=9)] = 5
    event_id: EventId | msgspec.UnsetType = msgspec.UNSET
    wait: Annotated[float, Meta(ge=0, le=30)] = 2.0
    state: Literal["open", "all"] = "open"


def echo(wanted: Wanted) -> bytes:
    return msgspec.json.encode(wanted)


def asked(service: Service, query: str) -> Answer:
    service.add(route("/echo/<orderId>", echo, parameters=Wanted))
    return Answer(service, "/echo/\xc3\xa4", QUERY_STRING=query)


def test_parameters_come_from_the_path_and_the_query(service: Service) -> None:
    given = asked(service, "limit=7&wait=0.5&state=all").json

    assert given == {"orderId": "ä", "limit": 7, "wait": 0.5, "state": "all"}


@pytest.mark.parametrize(
    ("query", "problem", "fields"),
    [
        ("limit=0", "The parameter limit must be a whole number from 1 to 9, not '0'.", {"limit"}),
        ("limit=", "The parameter limit must be a whole number from 1 to 9, not ''.", {"limit"}),
        ("limit=null", "not 'null'.", {"limit"}),
        ("limit=" + "9" * 99, f"not {'9' * 50!r}.", {"limit"}),
        ("wait=nan", "The parameter wait must be a number from 0 to 30, not 'nan'.", {"wait"}),
        ("state=shut", "The parameter state must be one of open, all, not 'shut'.", {"state"}),
        ("eventId=null", "The parameter eventId must be a UUID in lower case, not 'null'.", {"eventId"}),
        ("limits=5", "The parameter 'limits' is not a parameter of this route.", {"limits"}),
        ("limit=5&limit=5", "The parameter 'limit' is given more than once.", {"limit"}),
        ("orderId=b", "The parameter 'orderId' is given more than once.", {"orderId"}),
        ("x" * 99 + "=1&state=2&limit=3&limit=x", "is given more than once.", {"x" * 50, "state", "limit"}),
        ("limit=%ff", "The query is not text in UTF-8.", set()),
        ("limit=\xff", "The query is not text in UTF-8.", set()),
    ],
)
def test_a_wrong_parameter_is_named_with_what_is_allowed(
    service: Service, query: str, problem: str, fields: set[str]
) -> None:
    """A typo is never ignored silently."""
    answer = asked(service, query)

    assert (answer.status, answer.json["type"]) == (400, "/problems/invalid-parameter")
    assert answer.json["error"].endswith(problem)
    assert set(answer.json.get("fields", ())) == fields


def test_a_required_parameter_that_is_empty_is_missing(service: Service) -> None:
    service.add(route("/echo", echo, parameters=Wanted))

    for query in ("", "orderId=", "orderid=a"):
        answer = Answer(service, "/echo", QUERY_STRING=query)
        assert (answer.status, answer.json["type"]) == (400, "/problems/missing-parameter")
        assert answer.json["fields"]["orderId"] == "is required"


@pytest.mark.parametrize("path", ["/pieces", "/healthz", "/metrics"])
def test_a_route_without_parameters_takes_none(service: Service, path: str) -> None:
    answer = Answer(service, path, QUERY_STRING="verbose=1")

    assert (answer.status, answer.json["fields"]) == (400, {"verbose": "is not a parameter of this route"})


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


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("http://localhost:5000", 200),
        ("https://LOCALHOST:5000", 200),
        ("http://localhost:5001", 403),
        ("http://localhost", 403),
        ("http://evil.example", 403),
        ("http://evil.example?localhost:5000", 403),
        ("null", 403),
        ("", 403),
    ],
)
def test_only_pages_of_its_own_may_ask(service: Service, origin: str, status: int) -> None:
    """Whatever the method: a page elsewhere reads nothing, and writes nothing."""
    answer = Answer(service, "/healthz", HTTP_ORIGIN=origin)

    assert answer.status == status
    assert status == 200 or answer.json["type"] == "/problems/foreign-origin"
    assert "access-control-allow-origin" not in answer.headers


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
