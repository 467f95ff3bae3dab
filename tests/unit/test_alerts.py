"""Alerts: one open row a cause, told once, whatever the store does meanwhile; a process's book, and its webhook."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import structlog.testing
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from orderflow.alerts import AlertBook, Cause, webhook
from orderflow.alerts.shown import Acknowledgement, acknowledge, shown
from orderflow.errors import StoreUnavailable
from orderflow.settings import Settings
from orderflow.store.alerts import AlertRow, Alerts, Opening
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    Lines = list[Any]

KIM = Acknowledgement("kim", "disk ordered")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(var_dir=str(tmp_path), outbox_busy_timeout_s=0.05, wait_max_delay_s=0.1)


@pytest.fixture
def lines() -> Iterator[Lines]:
    with structlog.testing.capture_logs() as captured:
        yield captured


@pytest.fixture
def book(settings: Settings) -> Iterator[AlertBook]:
    book = AlertBook(settings, "test")
    yield book
    book.close()


def opening(cause: str = Cause.EVENT_HELD, affected: int = 1, detail: str = "why") -> Opening:
    return Opening(cause, "critical", "test", detail, affected, 1_000)


def rows_of(settings: Settings) -> list[AlertRow]:
    """All alerts, oldest first. Whoever writes just now is waited for."""
    return Alerts(msgspec.structs.replace(settings, outbox_busy_timeout_s=5)).rows(open_only=False)[::-1]


def named(lines: Lines, event: str) -> Lines:
    return [line for line in lines if line["event"] == event]


@contextmanager
def locked(settings: Settings) -> Iterator[None]:
    """Nobody else can read or write the file."""
    Alerts(settings).open_counts()
    connection = sqlite3.connect(settings.outbox_db, isolation_level=None)
    connection.execute("BEGIN EXCLUSIVE")
    yield
    connection.close()


# The store.


def test_of_a_cause_one_alert_is_open(settings: Settings) -> None:
    """Opened again, only the affected are added; the first detail stays."""
    alerts = Alerts(settings)
    first = alerts.open(opening(affected=2, detail="the first"))
    again = alerts.open(opening(affected=3, detail="another"))
    other = alerts.open(opening(Cause.LOG_REPLACED))

    assert (first, again, other) == ((1, True), (1, False), (2, True))
    assert [(row.cause, row.affected, row.detail) for row in alerts.rows()] == [
        ("log_replaced", 1, "why"),
        ("event_held", 5, "the first"),
    ]


def test_a_resolved_alert_is_over_and_the_next_is_another(settings: Settings) -> None:
    alerts = Alerts(settings)
    alerts.open(opening())
    resolved = alerts.resolve(Cause.EVENT_HELD, "none is held", 3_500)

    assert resolved is not None
    assert (resolved.duration_s, resolved.resolution) == (2.5, "none is held")
    assert alerts.resolve(Cause.EVENT_HELD, "again") is None
    assert not alerts.add(Cause.EVENT_HELD, 1)
    assert alerts.open(opening()) == (2, True)
    assert [row.id for row in alerts.rows()] == [2]
    assert [row.id for row in alerts.rows(open_only=False, before_id=2)] == [1]


def test_a_condition_is_acknowledged_and_stays_open(settings: Settings) -> None:
    """Its owner measures when it is over. The last acknowledgement counts."""
    alerts = Alerts(settings)
    alerts.open(opening(Cause.KAFKA_UNREACHABLE))
    acknowledge(alerts, 1, Acknowledgement("lee"))
    row, taken = acknowledge(alerts, 1, KIM)

    assert taken
    assert row is not None
    assert (row.acknowledged_by, row.note, row.resolved_at) == ("kim", "disk ordered", None)
    assert alerts.open_counts() == {("kafka_unreachable", "critical"): 1}


def test_an_occurrence_is_closed_by_a_person(settings: Settings) -> None:
    """There is nothing to measure; and what is resolved cannot be acknowledged."""
    alerts = Alerts(settings)
    alerts.open(opening(Cause.INTERNAL_ERROR))
    row, taken = acknowledge(alerts, 1, KIM)

    assert taken
    assert row is not None
    assert row.resolution == "Closed by kim."
    assert alerts.open_counts() == {}
    assert acknowledge(alerts, 1, KIM) == (row, False)
    assert acknowledge(alerts, 7, KIM) == (None, False)


def test_a_cause_of_a_newer_version_can_be_read(settings: Settings) -> None:
    """It is shown as it is, and a person may acknowledge it; nobody here knows whether that closes it."""
    alerts = Alerts(settings)
    alerts.open(opening("sun_exploded")._replace(severity="fatal"))
    row, taken = acknowledge(alerts, 1, KIM)

    assert taken
    assert row is not None
    assert row.resolved_at is None
    assert (shown(row)["cause"], shown(row)["severity"]) == ("sun_exploded", "fatal")
    assert alerts.open_counts() == {("sun_exploded", "fatal"): 1}


def test_every_cause_says_what_to_do() -> None:
    """Each has a title, steps with commands, and the command that acknowledges this very alert."""
    for cause in Cause:
        facts = cause.facts
        assert facts.title.endswith("."), cause
        assert any("`orderflow alerts ack 7`" in step for step in facts.runbook(7)), cause
        assert sum("`" in step for step in facts.steps) >= 1, cause


# The book.


def test_an_alert_is_told_once_and_resolved_with_its_duration(
    settings: Settings, book: AlertBook, lines: Lines
) -> None:
    """One ERROR line and one row for an outage, however often it is noticed."""
    for _ in range(50):
        book.open(Cause.KAFKA_UNREACHABLE, "no answer")
    book.open(Cause.KAFKA_UNREACHABLE, "no answer", 3)
    book.add(Cause.KAFKA_UNREACHABLE, 4)
    until(lambda: rows_of(settings), "the row is there", within_s=5)
    time.sleep(0.02)
    book.resolve(Cause.KAFKA_UNREACHABLE, "Kafka is back")
    book.close()

    (row,) = rows_of(settings)
    assert (row.affected, row.program, row.detail, row.resolution) == (7, "test", "no answer", "Kafka is back")
    opened, resolved = lines
    assert opened == {
        "event": "alert.opened", "log_level": "error", "cause": "kafka_unreachable", "severity": "critical",
        "detail": "no answer", "affected": opened["affected"], "alert_id": 1,
    }  # fmt: skip
    assert resolved == {
        "event": "alert.resolved", "log_level": "info", "cause": "kafka_unreachable", "duration_s": row.duration_s,
        "resolution": "Kafka is back", "alert_id": 1,
    }  # fmt: skip
    assert 0.02 <= resolved["duration_s"] < 5


def test_where_the_row_cannot_be_written_it_is_told_and_tried_again(
    settings: Settings, book: AlertBook, lines: Lines
) -> None:
    """The line at once and once; the row, with all that was counted meanwhile, when the store takes it."""
    with locked(settings):
        book.open(Cause.OUTBOX_UNWRITABLE, "locked", 1)
        book.add(Cause.OUTBOX_UNWRITABLE, 2)
        until(lambda: named(lines, "alert.opened"), "the line is there", within_s=5)
        time.sleep(0.4)  # some further attempts
        book.add(Cause.OUTBOX_UNWRITABLE, 4)
    until(lambda: [row.affected for row in rows_of(settings)] == [7], "the row is there", within_s=5)

    (line,) = lines
    assert (line["event"], line["alert_id"], line["cause"]) == ("alert.opened", None, "outbox_unwritable")


def test_no_call_waits_for_the_store(settings: Settings) -> None:
    """The request path opens alerts, too."""
    book = AlertBook(Settings(var_dir=settings.var_dir, outbox_busy_timeout_s=2), "test")
    with locked(settings):
        began = time.monotonic()
        for _ in range(100):
            book.open(Cause.INTERNAL_ERROR, "a bug", 1)
            book.open(Cause.KAFKA_UNREACHABLE, "no answer", 1)
            book.resolve(Cause.KAFKA_UNREACHABLE, "Kafka is back")
        assert time.monotonic() - began < 1
    book.close(10)

    assert rows_of(settings)[0].affected == 100


def test_what_was_over_before_it_could_be_written_is_kept_with_its_duration(
    settings: Settings, book: AlertBook, lines: Lines
) -> None:
    with locked(settings):
        book.open(Cause.KAFKA_UNREACHABLE, "no answer", 1)
        until(lambda: named(lines, "alert.opened"), "the line is there", within_s=5)
        book.resolve(Cause.KAFKA_UNREACHABLE, "Kafka is back")
        over = time.monotonic()
        time.sleep(0.3)
    until(lambda: named(lines, "alert.resolved"), "it is resolved", within_s=5)

    assert [line["event"] for line in lines] == ["alert.opened", "alert.resolved"]
    (row,) = rows_of(settings)
    assert row.duration_s is not None
    assert row.duration_s < time.monotonic() - over


def test_after_a_restart_a_recovery_resolves_what_was_open(settings: Settings, lines: Lines) -> None:
    """The first resolve looks into the store; the next ones know, and cost nothing: they do not even start a thread."""
    before, after = AlertBook(settings, "before"), AlertBook(settings, "after")
    before.open(Cause.KAFKA_UNREACHABLE, "no answer")
    before.close()
    after.resolve(Cause.KAFKA_UNREACHABLE, "Kafka is back")
    after.close()

    assert named(lines, "alert.resolved")[0]["alert_id"] == 1
    for _ in range(1_000):
        after.resolve(Cause.KAFKA_UNREACHABLE, "Kafka is back")
    assert after._thread is None
    after.open(Cause.KAFKA_UNREACHABLE, "away again")
    after.close()
    assert [row.resolved_at is None for row in rows_of(settings)] == [False, True]


def test_counting_is_paced(settings: Settings, book: AlertBook) -> None:
    """A thousand events a second are a write now and then, not a thousand syncs of the disk."""
    book.open(Cause.KAFKA_UNREACHABLE, "no answer")
    until(lambda: rows_of(settings), "the row is there", within_s=5)
    writes = []
    add = book._alerts.add
    book._alerts.add = lambda cause, affected: writes.append(affected) or add(cause, affected)  # type: ignore[method-assign, func-returns-value]
    began = time.monotonic()
    while time.monotonic() - began < 0.35:
        book.add(Cause.KAFKA_UNREACHABLE, 1)
        time.sleep(0.001)
    book.close()

    assert len(writes) <= 5
    assert rows_of(settings)[0].affected == sum(writes) > 10


def test_an_occurrence_after_an_acknowledged_one_is_a_new_alert(settings: Settings, book: AlertBook) -> None:
    """Though this process took the first for open: a person has closed it."""
    book.open(Cause.EVENT_REJECTED, "too large", 1)
    book.close()
    book.open(Cause.EVENT_REJECTED, "too large", 1)
    book.close()
    acknowledge(Alerts(settings), 1, KIM)
    book.open(Cause.EVENT_REJECTED, "another", 1)
    book.close()

    assert [(row.id, row.affected, row.detail) for row in rows_of(settings)] == [(1, 2, "too large"), (2, 1, "another")]


def test_whatever_an_error_says_can_be_a_detail(settings: Settings, book: AlertBook, lines: Lines) -> None:
    book.open(Cause.INTERNAL_ERROR, "two\nlines, a lone \udcff, " + "long " * 1_000)
    book.close()

    assert rows_of(settings)[0].detail.startswith("two lines, a lone \\udcff, long long")
    assert len(rows_of(settings)[0].detail) < 2_100
    assert len(lines) == 1


OPEN_ONE = """
import sys
from orderflow import logs
from orderflow.alerts import AlertBook, Cause
from orderflow.settings import Settings

settings = Settings(var_dir=sys.argv[1], log_format="json")
logs.set_up(settings, "test")
book = AlertBook(settings, "test")
sys.stdin.read()
book.open(Cause.TOPIC_MISCONFIGURED, "wrong", 1)
book.close(10)
"""


def test_several_processes_open_one_alert(settings: Settings) -> None:
    """Whichever is first tells of it; all are counted."""
    command = [sys.executable, "-c", OPEN_ONE, settings.var_dir]
    processes = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(4)]
    for process in processes:
        assert process.stdin is not None
        process.stdin.close()
        process.stdin = None
    said = b"".join(process.communicate(timeout=30)[0] for process in processes)

    assert [json.loads(line)["alert_id"] for line in said.splitlines()] == [1]
    (row,) = rows_of(settings)
    assert row.affected == 4


class MemoryAlerts:
    """Keeps alerts of one cause; its calls fail as the test says."""

    def __init__(self, failures: list[bool]) -> None:
        self.failures = failures
        self.affected: list[int] = []
        self.is_open = False

    def _fail(self) -> None:
        if self.failures and self.failures.pop():
            raise StoreUnavailable("it is said to fail")

    def open(self, opening: Opening) -> tuple[int, bool]:
        self._fail()
        new, self.is_open = not self.is_open, True
        if new:
            self.affected.append(0)
        self.affected[-1] += opening.affected
        return len(self.affected), new

    def add(self, _: str, affected: int) -> bool:
        self._fail()
        self.affected[-1] += affected
        return True

    def resolve(self, *_: object) -> None:
        self._fail()
        self.is_open = False

    def close(self) -> None:
        pass


@given(st.lists(st.sampled_from(["open", "add", "resolve", "wait"])), st.lists(st.booleans()))
@hypothesis_settings(max_examples=50, deadline=None)
def test_in_the_end_the_store_says_what_the_last_call_said(calls: list[str], failures: list[bool]) -> None:
    """Whatever the sequence, and whenever the store fails: it is open if it was opened last, and all are counted."""
    book = AlertBook(Settings(wait_max_delay_s=0.001), "test")
    store = book._alerts = MemoryAlerts(list(failures))  # type: ignore[assignment]
    is_open, counted = False, 0
    for call in calls:
        if call == "wait":
            time.sleep(0.002)
        elif call == "resolve":
            book.resolve(Cause.EVENT_HELD, "over")
            is_open = False
        elif call == "open":
            book.open(Cause.EVENT_HELD, "held", 1)
            is_open, counted = True, counted + 1
        else:
            book.add(Cause.EVENT_HELD, 10)
            counted += 10 * is_open
    store.failures.clear()
    book.close()

    assert (store.is_open, sum(store.affected)) == (is_open, counted)


# The webhook.


class Receiver:
    """An HTTP server on the loopback that answers each POST as the script says, and then with 204."""

    def __init__(self, *script: float) -> None:
        self.script = list(script)  # a status, or so many seconds of silence
        self.posts: list[tuple[str, Any]] = []
        self.released = threading.Event()
        handler = type("Handler", (_Handler,), {"receiver": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.server.handle_error = lambda *_: None  # type: ignore[method-assign]  # a caller that went away
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook?key=s3cret"
        threading.Thread(target=partial(self.server.serve_forever, 0.01), daemon=True).start()

    def close(self) -> None:
        self.released.set()
        self.server.shutdown()
        self.server.server_close()


class _Handler(BaseHTTPRequestHandler):
    receiver: Receiver

    def do_POST(self) -> None:  # the name is the library's
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.receiver.posts.append((self.path, json.loads(body)))
        step = self.receiver.script.pop(0) if self.receiver.script else 204
        if isinstance(step, float):
            self._drip(step)
            return
        self.send_response(step)
        self.send_header("Location", "/elsewhere")
        self.end_headers()
        self.wfile.write(b"x" * 1_000_000)  # nobody reads this

    def _drip(self, seconds: float) -> None:
        """Keep the connection busy without an answer: no single read waits long."""
        deadline = time.monotonic() + seconds
        self.wfile.write(b"HTTP/1.1 200 OK\r\nx: ")
        while time.monotonic() < deadline and not self.receiver.released.wait(0.05):
            self.wfile.write(b"x")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def receivers() -> Iterator[Any]:
    made = []

    def make(*script: float) -> Receiver:
        made.append(Receiver(*script))
        return made[-1]

    yield make
    for receiver in made:
        receiver.close()


@pytest.fixture(autouse=True)
def short_delays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook, "FIRST_DELAY_S", 0.02)
    monkeypatch.setattr(webhook, "JITTER_S", 0.01)


def hooked(settings: Settings, url: str, retries: int = 4, timeout_s: float = 0.3) -> AlertBook:
    return AlertBook(
        Settings(
            var_dir=settings.var_dir,
            outbox_busy_timeout_s=0.05,
            wait_max_delay_s=0.1,
            alert_webhook=url,
            alert_webhook_timeout_s=timeout_s,
            alert_webhook_retry_max=retries,
        ),
        "test",
    )


def test_each_alert_is_one_post(settings: Settings, receivers: Any, lines: Lines) -> None:
    """Only its opening, not what is counted or resolved later."""
    receiver = receivers()
    book = hooked(settings, receiver.url)
    book.open(Cause.EVENT_HELD, "too large", 2)
    book.close()
    book.open(Cause.EVENT_HELD, "too large", 1)
    book.resolve(Cause.EVENT_HELD, "none is held")
    book.close()

    ((path, body),) = receiver.posts
    assert path == "/hook?key=s3cret"
    opened_at, runbook, title = body.pop("openedAt"), body.pop("runbook"), body.pop("title")
    assert body == {
        "id": 1, "cause": "event_held", "severity": "critical", "detail": "too large", "affected": 2, "program": "test",
    }  # fmt: skip
    assert opened_at.endswith("Z")
    assert title == Cause.EVENT_HELD.facts.title
    assert runbook == list(Cause.EVENT_HELD.facts.runbook(1))
    assert named(lines, "alert.webhook_sent") == [
        {"event": "alert.webhook_sent", "log_level": "info", "cause": "event_held", "alert_id": 1}
    ]


def test_a_post_is_tried_again_until_it_is_taken(settings: Settings, receivers: Any, lines: Lines) -> None:
    receiver = receivers(500, 429, 5.0, 503)
    book = hooked(settings, receiver.url)
    book.open(Cause.EVENT_HELD, "too large")
    book.close(10)

    assert len(receiver.posts) == 5
    assert named(lines, "alert.webhook_sent")
    assert not named(lines, "alert.webhook_failed")


@pytest.mark.parametrize(
    ("script", "posts", "error"),
    [
        ([500] * 9, 3, "HTTP 500"),
        ([302] * 9, 1, "HTTP 302"),
        ([404] * 9, 1, "HTTP 404"),
        ([5.0] * 9, 3, "TimeoutError"),
    ],
)
def test_a_post_is_given_up_in_the_end(
    settings: Settings, receivers: Any, lines: Lines, script: list[Any], posts: int, error: str
) -> None:
    """After so many retries, or at once where none helps. A redirect is not followed: it could lead anywhere."""
    receiver = receivers(*script)
    book = hooked(settings, receiver.url, retries=2)
    book.open(Cause.EVENT_HELD, "too large")
    book.close(10)

    assert [path for path, _ in receiver.posts] == ["/hook?key=s3cret"] * posts
    assert named(lines, "alert.webhook_failed") == [
        {
            "event": "alert.webhook_failed", "log_level": "warning", "cause": "event_held", "alert_id": 1,
            "error": error,
        }
    ]  # fmt: skip


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:1/s3cret?s3cret=s3cret",
        "https://127.0.0.1:1/s3cret",
        "http://[s3cret/",
        "http://127.0.0.1:s3cret/",
        "http://s3cret.invalid/",
        "http://127.0.0.1:1/s3cret\u00e9",
        "http://127.0.0.1:1/s3cret\x00",
        "http://\ud7ff" + "s3cret" * 40,
        "http://",
    ],
)
def test_the_url_is_never_logged(settings: Settings, lines: Lines, url: str) -> None:
    """Whatever is wrong with it, and though libraries put it into their messages."""
    book = hooked(settings, url, retries=1)
    book.open(Cause.EVENT_HELD, "too large")
    book.close(10)

    assert len(named(lines, "alert.webhook_failed")) == 1
    assert "s3cret" not in repr(lines)


def test_a_webhook_that_hangs_holds_up_no_row(
    settings: Settings, receivers: Any, lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does memory fill: beyond the bound a POST is given up."""
    monkeypatch.setattr(webhook, "QUEUE_MAX", 1)
    receiver = receivers(60.0)
    book = hooked(settings, receiver.url, timeout_s=30)
    book.open(Cause.EVENT_HELD, "one")
    until(lambda: receiver.posts, "the first is on its way", within_s=5)
    book.open(Cause.LOG_REPLACED, "two")
    book.open(Cause.INTERNAL_ERROR, "three")
    until(lambda: len(rows_of(settings)) == 3, "all rows are there", within_s=5)

    until(lambda: named(lines, "alert.webhook_failed"), "the third is given up", within_s=5)
    assert named(lines, "alert.webhook_failed")[0]["error"] == "1 others wait already"
    receiver.released.set()
    book.close(10)
    assert [line["alert_id"] for line in named(lines, "alert.webhook_sent")] == [1, 2]


def test_an_alert_whose_row_cannot_be_written_is_posted_all_the_same(settings: Settings, receivers: Any) -> None:
    """Once, without an id: that the outbox cannot be written must reach somebody, too."""
    receiver = receivers()
    book = hooked(settings, receiver.url)
    with locked(settings):
        book.open(Cause.OUTBOX_UNWRITABLE, "locked")
        until(lambda: receiver.posts, "the POST is there", within_s=5)
    until(lambda: rows_of(settings), "the row is there", within_s=5)
    book.close()

    ((_, body),) = receiver.posts
    assert body["id"] is None
