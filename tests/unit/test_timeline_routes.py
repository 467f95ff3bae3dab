"""``/order-timeline``, ``/events``, ``/orders`` and ``after=`` of order_service."""

from __future__ import annotations

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from order_service.app import make_app
from order_service.orders import Orders
from orderflow.broker import partition_of
from orderflow.measures import Lag
from orderflow.messages import Message
from orderflow.process import Heartbeat
from orderflow.settings import Settings
from orderflow.store import reader
from orderflow.store.outbox import Outbox
from orderflow.store.outbox_desk import OutboxDesk
from orderflow.timeline import gathering
from tests.support.waiting import until
from tests.unit.test_projection import changed, created, uuid
from tests.unit.test_service import Answer
from tests.unit.test_skipped_routes import STRANGE, problem

if TYPE_CHECKING:
    from pathlib import Path

    from orderflow.wsgi.service import Service
    from tests.support.applied_log import AppliedLog

LONG_S = 20


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(var_dir=str(tmp_path / "var"), outbox_busy_timeout_s=0.05, order_threads=8)


@pytest.fixture
def service(settings: Settings) -> Service:
    return make_app(settings)


def get(service: Service, target: str) -> Answer:
    path, _, query = target.partition("?")
    return Answer(service, path, QUERY_STRING=query)


def after(number: int, wait: float = 0, order_id: str = "a") -> str:
    return f"/order-details?orderId={order_id}&after={uuid(number)}&wait={wait}"


# Read your own writes.


def test_a_read_after_an_applied_event_answers_at_once(service: Service, log: AppliedLog) -> None:
    log.lay(b"a", created("a", 1))
    log.lay(b"a", changed("a", 2, "shipped"))

    answer = get(service, after(2, LONG_S))

    assert (answer.status, answer.json["order"]["status"]) == (200, "shipped")


def test_a_read_waits_for_its_event(service: Service, log: AppliedLog) -> None:
    log.lay(b"a", created("a", 1))
    with ThreadPoolExecutor(1) as pool:
        read = pool.submit(get, service, after(2, LONG_S))
        until(lambda: waiting(service) == 1, "the read waits", LONG_S)

        log.lay(b"a", changed("a", 2, "shipped"))

        answer = read.result(LONG_S)
    assert (answer.status, answer.json["order"]["status"]) == (200, "shipped")


def waiting(service: Service) -> float | None:
    return service.metrics.registry.get_sample_value("orderflow_reads_waiting")


def test_the_sender_of_a_skipped_event_learns_why(service: Service, log: AppliedLog) -> None:
    log.lay(b"a", changed("a", 1, "shipped"))

    answer = get(service, after(1))

    assert problem(answer) == (409, "event-skipped")
    body = answer.json
    assert body["reason"] == "unknown_order"
    assert "unknown_order" in body["error"]
    assert (body["event"]["state"], body["event"]["eventId"]) == ("skipped", uuid(1))


def test_what_is_not_applied_in_time_is_told_with_its_state_and_the_lag(
    settings: Settings, service: Service, log: AppliedLog
) -> None:
    log.lay(b"a", created("a", 1))
    Outbox(settings).add([(Message(b"a", changed("a", 2, "shipped"), (), "a", uuid(2)), False)])
    beat = Heartbeat(settings, "order-consumer")
    beat.lags = {partition_of(b"a"): Lag(17, 1.0)}
    beat.beat("running")

    spooled, unknown = get(service, after(2, 0.05)), get(service, after(3))

    assert problem(spooled) == problem(unknown) == (504, "not-applied-yet")
    assert (spooled.json["event"]["state"], spooled.json["lag"]) == ("spooled", None)
    assert "outbox" in spooled.json["error"]
    assert (unknown.json["event"], unknown.json["lag"]) == (None, 17)
    assert "17 records were not applied" in unknown.json["error"]


def test_nobody_knows_the_lag_of_a_worker_that_does_not_beat(service: Service, log: AppliedLog) -> None:
    log.lay(b"a", created("a", 1))

    assert get(service, after(2)).json["lag"] is None


def test_half_of_the_threads_may_wait_and_the_others_answer(service: Service, log: AppliedLog) -> None:
    log.lay(b"a", created("a", 1))
    with ThreadPoolExecutor(4) as pool:
        reads = [pool.submit(get, service, after(2, LONG_S)) for _ in range(4)]
        until(lambda: waiting(service) == 4, "four of eight wait", LONG_S)

        refused = get(service, after(2, LONG_S))
        other = get(service, "/order-details?orderId=a")

        log.lay(b"a", changed("a", 2, "shipped"))
        assert [read.result(LONG_S).status for read in reads] == [200] * 4
    assert problem(refused) == (503, "too-many-waiting")
    assert refused.headers["retry-after"] == "1"
    assert other.status == 200


@pytest.mark.parametrize("threads", [8, 9, 15, 16, 64, 512])
def test_what_may_hold_a_thread_for_long_leaves_some_to_what_is_quick(tmp_path: Path, threads: int) -> None:
    """All of it together: reads that wait, streams, searches, and bodies that come slowly."""
    service = make_app(Settings(var_dir=str(tmp_path), order_threads=threads))
    (orders,) = {one for route in service.routes if isinstance(one := getattr(route.handler, "__self__", None), Orders)}

    held = [
        orders._writes.room._seats, orders._walks_max, orders._searches._seats._initial_value,
        service._bodies._at_once,
    ]  # fmt: skip

    assert all(held)
    assert sum(held) < threads


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("after=1", "after"),
        ("after=0000000A-0000-4000-8000-000000000001", "after"),
        ("after=", "after"),
        ("wait=31", "wait"),
        ("wait=-1", "wait"),
        ("wait=nan", "wait"),
        ("wait=inf", "wait"),
        ("wait=soon", "wait"),
    ],
)
def test_what_cannot_be_waited_for_is_refused(service: Service, log: AppliedLog, query: str, field: str) -> None:
    log.lay(b"a", created("a", 1))

    answer = get(service, f"/order-details?orderId=a&{query}")

    assert problem(answer) == (400, "invalid-parameter")
    assert list(answer.json["fields"]) == [field]


# The timeline, and one event.


def test_a_timeline_has_the_order_and_its_events(service: Service, log: AppliedLog) -> None:
    log.lay(STRANGE.encode(), created(STRANGE, 1))
    log.lay(STRANGE.encode(), changed(STRANGE, 2, "shipped"))
    quoted = "ord%20%26%20%C3%BC%3E%3B%20%5C%20%252F%3F"

    first = get(service, f"/order-timeline?orderId={quoted}&limit=1")
    path, relation = first.headers["link"].split("; ")
    second = get(service, path.strip("<>"))

    assert relation == 'rel="next"'
    assert first.json["orderId"] == first.json["order"]["orderId"] == STRANGE
    events = [*first.json["events"], *second.json["events"]]
    assert [(one["eventId"], one["state"]) for one in events] == [(uuid(1), "applied"), (uuid(2), "applied")]


def test_an_order_of_which_only_skips_are_known_has_a_timeline(service: Service, log: AppliedLog) -> None:
    log.lay(b"a", changed("a", 1, "shipped"))

    answer = get(service, "/order-timeline?orderId=a")

    assert answer.json["order"] is None
    assert [one["state"] for one in answer.json["events"]] == ["skipped"]
    assert problem(get(service, "/order-timeline?orderId=b")) == (404, "unknown-order")


def test_an_event_is_found_with_its_order_and_without(service: Service, log: AppliedLog) -> None:
    log.lay(b"a", created("a", 1))

    alone, named = get(service, f"/events/{uuid(1)}"), get(service, f"/events/{uuid(1)}?orderId=a")

    assert alone.json == named.json
    assert (alone.json["event"]["state"], alone.json["event"]["orderId"]) == ("applied", "a")
    assert problem(get(service, f"/events/{uuid(2)}")) == (404, "unknown-event")
    assert problem(get(service, f"/events/{uuid(1)}?orderId=b")) == (404, "unknown-event")
    assert problem(get(service, "/events/1")) == (400, "invalid-parameter")


def test_an_event_that_two_orders_have_asks_which(service: Service, log: AppliedLog) -> None:
    log.lay(b"a", created("a", 1))
    log.lay(b"b", created("b", 1))

    assert problem(get(service, f"/events/{uuid(1)}")) == (409, "ambiguous-event")
    assert get(service, f"/events/{uuid(1)}?orderId=b").json["event"]["orderId"] == "b"


#: A query that looks through more than there is.
ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i), :event_id, 0 FROM n"


def test_a_search_through_all_orders_ends(service: Service, log: AppliedLog, monkeypatch: pytest.MonkeyPatch) -> None:
    """The way out that the answer names works."""
    log.lay(b"a", created("a", 1))
    monkeypatch.setattr(gathering, "_PLACES_OF_EVENT", ENDLESS)
    monkeypatch.setattr(reader, "SEARCH_S", 0.1)

    answer = get(service, f"/events/{uuid(1)}")

    assert problem(answer) == (503, "search-too-long")
    assert "orderId" in answer.json["error"]
    assert "retry-after" not in answer.headers
    assert get(service, f"/events/{uuid(1)}?orderId=a").status == 200


def test_a_cursor_of_another_shape_does_not_begin_again(service: Service, log: AppliedLog) -> None:
    log.lay(b"a", created("a", 1))

    for cursor in ("1", "1-0", "%D9%A1-%D9%A1-%D9%A1", "1-0-1%0A", "1-0-" + 19 * "1"):
        answer = get(service, f"/order-timeline?orderId=a&cursor={cursor}")
        assert problem(answer) == (400, "invalid-parameter"), cursor


def test_a_path_that_is_no_text_names_nothing(service: Service, log: AppliedLog) -> None:
    """Not what is left of it without the bytes that are none."""
    log.lay(b"a", created("a", 1))

    assert problem(Answer(service, f"/events/\xff{uuid(1)}")) == (400, "bad-request")


def test_what_waits_in_vain_for_what_was_given_up_is_told_so(
    settings: Settings, service: Service, log: AppliedLog
) -> None:
    log.lay(b"b", created("b", 9))
    sent, unsent = (Message(b"a", created("a", number), (), "a", uuid(number)) for number in (1, 2))
    Outbox(settings).add([(sent, True), (unsent, False)])
    Outbox(settings).settle(held=[(1, "too large"), (2, "too large")])
    OutboxDesk(settings).discard([1, 2], "kim", "too large")

    answers = [get(service, after(1)), get(service, after(2))]

    assert [problem(answer) for answer in answers] == [(504, "not-applied-yet")] * 2
    assert "A copy that was sent before may still be." in answers[0].json["error"]
    assert "It never will be." in answers[1].json["error"]
    assert all("retry-after" not in answer.headers for answer in answers)


def test_a_skipped_event_is_told_while_the_outbox_is_locked(
    settings: Settings, service: Service, log: AppliedLog
) -> None:
    """What became of it is known without the outbox."""
    log.lay(b"a", changed("a", 1, "shipped"))
    Outbox(settings).totals()
    with closing(sqlite3.connect(settings.outbox_db, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        answer = get(service, after(1))
        other.execute("ROLLBACK")

    assert problem(answer) == (409, "event-skipped")
    assert (answer.json["reason"], answer.json["event"]) == ("unknown_order", None)


# Lists.


def test_orders_come_newest_first_in_pages_and_by_status(service: Service, log: AppliedLog) -> None:
    for number in range(5):
        log.lay(b"%d" % number, created(str(number), number))
    log.lay(b"3", changed("3", 9, "shipped"))

    pages, target = [], "/orders?limit=2"
    while target:
        answer = get(service, target)
        pages.append([order["orderId"] for order in answer.json["orders"]])
        target = answer.headers.get("link", "").partition(">")[0].lstrip("<")

    assert pages == [["4", "3"], ["2", "1"], ["0"]]
    assert [order["orderId"] for order in get(service, "/orders?status=shipped").json["orders"]] == ["3"]
    assert problem(get(service, "/orders?status=sent")) == (400, "invalid-parameter")
