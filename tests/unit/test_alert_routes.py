"""``/alerts`` and the gauge of order_service, and the command ``orderflow alerts``: the same rows for three readers."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from typer.testing import CliRunner

from order_service.app import make_app
from orderflow.alerts import AlertBook, Cause
from orderflow.cli.main import app as cli
from orderflow.settings import Settings
from orderflow.store.alerts import Alerts, Opening
from tests.unit.test_service import Answer

if TYPE_CHECKING:
    from pathlib import Path

    from orderflow.wsgi.service import Service

TOKEN = "s3cret"  # noqa: S105 (a test's)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(var_dir=str(tmp_path / "var"), outbox_busy_timeout_s=0.05)


@pytest.fixture
def service(settings: Settings) -> Service:
    return make_app(settings)


@pytest.fixture
def three(settings: Settings) -> list[Cause]:
    """Three open alerts, with the ids 1 to 3."""
    causes = [Cause.KAFKA_UNREACHABLE, Cause.EVENT_REJECTED, Cause.EVENT_HELD]
    for number, cause in enumerate(causes, start=1):
        Alerts(settings).open(Opening(cause, cause.facts.severity, "test", f"why {number}", number, 1_000 * number))
    return causes


def acknowledge(service: Service, alert_id: object, body: object, **environ: Any) -> Answer:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    given = {"CONTENT_TYPE": "application/json", "CONTENT_LENGTH": str(len(raw)), "wsgi.input": io.BytesIO(raw)}
    return Answer(service, f"/alerts/{alert_id}/acknowledge", "POST", **(given | environ))


def gauge(service: Service) -> dict[tuple[str, str], float]:
    families = text_string_to_metric_families(Answer(service, "/metrics").raw.decode())
    return {
        (sample.labels["cause"], sample.labels["severity"]): sample.value
        for family in families
        if family.name == "orderflow_alerts_open"
        for sample in family.samples
    }


# HTTP.


def test_there_are_no_alerts_at_first(service: Service) -> None:
    answer = Answer(service, "/alerts")

    assert (answer.status, answer.json) == (200, {"alerts": []})


def test_an_alert_is_shown_with_what_to_do(service: Service, three: list[Cause]) -> None:
    alerts = Answer(service, "/alerts").json["alerts"]

    assert [alert["id"] for alert in alerts] == [3, 2, 1]
    assert alerts[0] == {
        "id": 3, "cause": "event_held", "severity": "critical", "title": three[2].facts.title, "detail": "why 3",
        "program": "test", "affected": 3, "openedAt": "1970-01-01T00:00:03.000Z",
        "updatedAt": "1970-01-01T00:00:03.000Z", "acknowledgedAt": None, "acknowledgedBy": None, "note": None,
        "resolvedAt": None, "resolution": None, "durationS": None, "runbook": list(three[2].facts.runbook(3)),
    }  # fmt: skip


@pytest.mark.usefixtures("three")
def test_alerts_come_in_pages_and_by_state(settings: Settings, service: Service) -> None:
    """``Link`` leads from page to page, newest first; resolved ones are there when asked for."""
    Alerts(settings).resolve(Cause.EVENT_HELD, "none is held")

    found, path, query = [], "/alerts", "state=all&limit=2"
    while query:
        answer = Answer(service, path, QUERY_STRING=query)
        found.append([alert["id"] for alert in answer.json["alerts"]])
        link = re.fullmatch(r'</alerts\?(.*)>; rel="next"', answer.headers.get("link", ""))
        query = link[1] if link else ""

    assert found == [[3, 2], [1]]
    assert [alert["id"] for alert in Answer(service, "/alerts").json["alerts"]] == [2, 1]


@pytest.mark.parametrize("query", ["state=closed", "limit=0", "limit=1001", "cursor=x", "cursor=0"])
def test_wrong_parameters_are_refused(service: Service, query: str) -> None:
    answer = Answer(service, "/alerts", QUERY_STRING=query)

    assert (answer.status, answer.json["type"]) == (400, "/problems/invalid-parameter")
    assert answer.json["fields"].keys() == {query.partition("=")[0]}


@pytest.mark.usefixtures("three")
def test_a_person_looks_after_an_alert(service: Service) -> None:
    """A condition stays open, an occurrence is closed by it."""
    lasting = acknowledge(service, 1, {"author": "kim", "note": "disk ordered"})
    closed = acknowledge(service, 2, {"author": "kim"})

    assert (lasting.status, closed.status) == (200, 200)
    assert lasting.json["alert"]["acknowledgedBy"] == "kim"
    assert lasting.json["alert"]["note"] == "disk ordered"
    assert lasting.json["alert"]["resolvedAt"] is None
    assert closed.json["alert"]["resolution"] == "Closed by kim."
    assert closed.json["alert"]["durationS"] > 0
    assert [alert["id"] for alert in Answer(service, "/alerts").json["alerts"]] == [3, 1]


@pytest.mark.usefixtures("three")
def test_what_cannot_be_acknowledged_says_why(service: Service) -> None:
    """An id that no row can have is an unknown one, not a crash."""
    acknowledge(service, 2, {"author": "kim"})
    again = acknowledge(service, 2, {"author": "lee"})

    assert (again.status, again.json["type"]) == (409, "/problems/alert-resolved")
    assert "Closed by kim." in again.json["error"]
    for alert_id in (4, 0, -1, "x", "Â²", 2**63, "9" * 5_000):
        answer = acknowledge(service, alert_id, {"author": "kim"})
        assert (answer.status, answer.json["type"]) == (404, "/problems/unknown-alert"), alert_id


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ({}, {"author"}),
        ({"author": ""}, {"author"}),
        ({"author": " "}, {"author"}),
        ({"author": "kim\n"}, {"author"}),
        ({"author": "k" * 129, "note": 1, "more": 1}, {"author", "note", "more"}),
        (b"{", None),
        (b'{"author": "\\udcff"}', None),
    ],
)
@pytest.mark.usefixtures("three")
def test_a_wrong_body_is_refused(service: Service, body: object, fields: set[str] | None) -> None:
    answer = acknowledge(service, 1, body)

    assert answer.status == 400
    assert (set(answer.json["fields"]) if "fields" in answer.json else None) == fields


def test_the_operators_token_is_asked_for_first(settings: Settings) -> None:
    """Whoever has none learns neither whether the body is right nor whether there is such an alert."""
    Alerts(settings).open(Opening(Cause.EVENT_HELD, "critical", "test", "why", 1, 1_000))
    service = make_app(Settings(var_dir=settings.var_dir, token=TOKEN))

    for alert_id, body in ((1, b"{"), (7, {"author": "kim"})):
        refused = acknowledge(service, alert_id, body, HTTP_AUTHORIZATION="Bearer wrong")
        assert (refused.status, refused.json["type"]) == (401, "/problems/token-required")
        assert "www-authenticate" in refused.headers
    assert acknowledge(service, 1, {"author": "kim"}, HTTP_AUTHORIZATION=f"Bearer {TOKEN}").status == 200
    assert Answer(service, "/alerts").status == 200


def test_without_a_store_the_answer_is_503_and_the_scrape_works(settings: Settings, service: Service) -> None:
    """The gauge is missing then: nobody knows, which is not 0."""
    settings.outbox_db.mkdir(parents=True)

    assert Answer(service, "/alerts").json["type"] == "/problems/store-unavailable"
    assert Answer(service, "/metrics").status == 200
    assert gauge(service) == {}


def test_the_gauge_has_every_cause(settings: Settings, service: Service) -> None:
    """0 where none is open, so that a rule can be written before the first outage; unknown ones are there, too."""
    assert gauge(service) == {(cause.value, cause.facts.severity): 0 for cause in Cause}

    book = AlertBook(settings, "test")
    book.open(Cause.KAFKA_UNREACHABLE, "no answer")
    book.close()
    Alerts(settings).open(Opening("sun_exploded", "fatal", "test", "why", 1, 1_000))

    figures = gauge(service)
    assert {key for key, value in figures.items() if value} == {
        ("kafka_unreachable", "critical"),
        ("sun_exploded", "fatal"),
    }


# The command line.


def orderflow(settings: Settings, *arguments: object) -> Any:
    environ = {"ORDERFLOW_VAR_DIR": settings.var_dir, "TERM": "dumb", "COLUMNS": "200"}
    return CliRunner().invoke(cli, ["alerts", *map(str, arguments)], env=environ)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a folder without a stack the environment's settings hold."""
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("three")
def test_the_command_works_without_any_service(settings: Settings) -> None:
    """List, show with the runbook, acknowledge; all three for machines, too."""
    listed = orderflow(settings, "list")
    shown = orderflow(settings, "show", 1)
    lasting = orderflow(settings, "ack", 1, "--author", "kim", "--note", "disk ordered")
    closed = orderflow(settings, "ack", 2, "--author", "kim")
    machine = json.loads(orderflow(settings, "list", "--all", "--json").stdout)

    assert [line.split()[:3] for line in listed.stdout.splitlines()[1:]] == [
        ["3", "critical", "event_held"],
        ["2", "warning", "event_rejected"],
        ["1", "critical", "kafka_unreachable"],
    ]
    assert " 2. Tell the others that you are at it: `orderflow alerts ack 1`." in shown.stdout
    assert lasting.stdout == "alert 1 (kafka_unreachable) is acknowledged by kim\n"
    assert closed.stdout.startswith("alert 2 (event_rejected) is resolved after ")
    assert [(alert["id"], alert["acknowledgedBy"]) for alert in machine["alerts"]] == [
        (3, None),
        (2, "kim"),
        (1, "kim"),
    ]
    assert json.loads(orderflow(settings, "show", 1, "--json").stdout)["alert"] == machine["alerts"][2]
    assert "event_rejected" not in orderflow(settings, "list").stdout


@pytest.mark.usefixtures("three")
def test_whoever_is_logged_in_acknowledges(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """And in a container whose user has no name, the number."""
    monkeypatch.setattr("getpass.getuser", lambda: "kim")
    named = json.loads(orderflow(settings, "ack", 1, "--json").stdout)
    monkeypatch.setattr("getpass.getuser", lambda: {}["no name"])
    unnamed = json.loads(orderflow(settings, "ack", 1, "--json", "--note", "not UTF-8: \udce9").stdout)

    assert named["alert"]["acknowledgedBy"] == "kim"
    assert unnamed["alert"]["acknowledgedBy"].startswith("user ")
    assert unnamed["alert"]["note"] == "not UTF-8: \\xe9"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("show", 9), "there is no alert 9; `orderflow alerts list --all`"),
        (("ack", 9), "there is no alert 9; `orderflow alerts list --all`"),
        (("ack", 2), "alert 2 is resolved already: Closed by kim."),
        (("ack", 1, "--author", " "), "give --author NAME"),
    ],
)
@pytest.mark.usefixtures("three")
def test_the_command_says_what_is_wrong(settings: Settings, arguments: tuple[object, ...], said: str) -> None:
    orderflow(settings, "ack", 2, "--author", "kim")
    done = orderflow(settings, *arguments)

    assert done.exit_code == 1
    assert done.stderr.startswith("orderflow: ")
    assert said in done.stderr


def test_in_the_wrong_folder_nothing_is_made(settings: Settings, tmp_path: Path) -> None:
    """A process of its own: one line on stderr, exit code 1, and no new outbox.db."""
    command = [sys.executable, "-m", "orderflow.cli.main", "alerts", "list"]
    env = {"ORDERFLOW_VAR_DIR": settings.var_dir}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, env=env)

    assert done.returncode == 1
    assert done.stderr.startswith(f"orderflow: there is no {settings.outbox_db}")
    assert "--stack DIR" in done.stderr
    assert not settings.outbox_db.exists()
