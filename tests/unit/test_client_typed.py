"""The client's typed calls: what they give, which error says what, and that it reads its own writes."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from orderflow.client import Client, Item
from orderflow.errors import (
    ClientError,
    EventSkipped,
    EventSpooled,
    NotAppliedYet,
    NotFound,
    OutcomeUnknown,
    RequestRefused,
    ServiceUnavailable,
    UnexpectedAnswer,
)
from tests.support.scripted import scripted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.scripted import Script

ORDER = (
    b'{"orderId":"ord-1","customerId":"c","orderDate":"2026-11-22T22:27:33.593000Z",'
    b'"items":[{"itemId":"tea","quantity":3,"price":4.50}],"totalAmount":13.50,"shippingCost":0.27,'
    b'"currency":"EUR","status":"new","toCome":1}'
)
DETAILS = b'{"order":' + ORDER + b"}"
EVENT = {
    "eventId": "e-1",
    "orderId": "ord-1",
    "kind": "event",
    "type": "order.created",
    "state": "applied",
    "steps": [],
}
SKIPPED = {
    "type": "/problems/event-skipped",
    "error": "The event updates an order that was not created before it.",
    "reason": "unknown_order",
    "event": EVENT | {"state": "skipped"},
}
BUSY = {"type": "/problems/too-many-waiting", "error": "Too many wait."}


def not_applied(state: str | None, lag: int | None = None) -> dict[str, Any]:
    event = EVENT | {"state": state, "reason": "RecordTooLarge" if state == "held" else None}
    return {"type": "/problems/not-applied-yet", "error": "Not yet.", "event": event if state else None, "lag": lag}


def written(event_id: str = "e-1", outcome: str = "published") -> dict[str, Any]:
    where = {"partition": 3, "offset": 14} if outcome == "published" else {"ahead": 2}
    return {"order": {"orderId": "ord-1", "status": "new"}, "eventId": event_id, "outcome": outcome, **where}


@pytest.fixture
def server() -> Iterator[Script]:
    with scripted() as script:
        yield script


@pytest.fixture
def client(server: Script) -> Iterator[Client]:
    with Client(server.url, server.url, timeout_s=5.0, retries=1) as made:
        yield made


def paths(server: Script) -> list[str]:
    return [asked[1] for asked in server.asked]


# What they give.


def test_an_order_is_typed_and_its_money_exact(server: Script, client: Client) -> None:
    """And a member that this client does not know is no error."""
    server.will_answer(200, DETAILS)

    order = client.order("ord-1")

    assert (str(order.total_amount), order.shipping_cost) == ("13.50", Decimal("0.27"))
    assert order.items == (Item("tea", 3, Decimal("4.50")),)
    assert order.order_date == datetime(2026, 11, 22, 22, 27, 33, 593000, tzinfo=UTC)


def test_a_write_tells_where_it_is(server: Script, client: Client) -> None:
    server.will_answer(201, written() | {"order": None} | {"order": {"orderId": "ord-1", "status": "new"}})
    server.will_answer(202, written("e-2", "spooled"))

    published, spooled = client.update("ord-1", "new", idempotency_key="k"), client.update("ord-1", "new")

    assert (published.order_id, published.event_id, published.idempotency_key) == ("ord-1", "e-1", "k")
    assert (published.outcome, published.partition, published.offset, published.ahead) == ("published", 3, 14, None)
    assert (spooled.outcome, spooled.partition, spooled.ahead) == ("spooled", None, 2)
    assert [asked[2]["idempotency-key"] for asked in server.asked] == ["k", spooled.idempotency_key]


def test_a_create_tells_the_cart_that_was_made_up(server: Script, client: Client) -> None:
    server.will_answer(201, b'{"order":' + ORDER + b',"eventId":"e-1","outcome":"spooled","ahead":0}')

    order = client.create("ord-1", 1).order

    assert order is not None
    assert order.total_amount == Decimal("13.50")


def test_orders_are_walked_page_by_page(server: Script, client: Client) -> None:
    server.will_answer(200, b'{"orders":[' + ORDER + b"]}", Link='</orders?status=new&limit=1&cursor=7>; rel="next"')
    server.will_answer(200, b'{"orders":[]}')

    assert [order.order_id for order in client.orders(status="new", page=1)] == ["ord-1"]
    assert paths(server) == ["/orders?status=new&limit=1", "/orders?status=new&limit=1&cursor=7"]


def test_a_timeline_is_put_together_from_its_pages(server: Script, client: Client) -> None:
    step = {"step": "skipped", "at": "2026-11-22T22:27:33Z", "reason": "unknown_order"}
    first = {"orderId": "ord-1", "order": None, "events": [EVENT | {"steps": [step]}]}
    server.will_answer(200, first, Link='</order-timeline?orderId=ord-1&limit=1&cursor=1>; rel="next"')
    server.will_answer(200, b'{"orderId":"ord-1","order":' + ORDER + b',"events":[]}')

    timeline = client.timeline("ord-1", page=1)

    assert [event.state for event in timeline.events] == ["applied"]
    assert timeline.events[0].steps[0].at == datetime(2026, 11, 22, 22, 27, 33, tzinfo=UTC)
    assert timeline.order is not None


def test_an_event_is_asked_for_by_its_id_and_its_order_s(server: Script, client: Client) -> None:
    server.will_answer(200, {"event": EVENT})

    assert client.event("e/1", "a b").event_id == "e-1"
    assert paths(server) == ["/events/e%2F1?orderId=a%20b"]


def test_metrics_are_samples_and_the_description_a_document(server: Script, client: Client) -> None:
    server.will_answer(200, b'# TYPE x_total counter\nx_total{outcome="published"} 3.0\n')
    server.will_answer(200, {"openapi": "3.1.0"})

    (sample,) = client.metrics("cart")

    assert (sample.name, sample.labels, sample.value) == ("x_total", {"outcome": "published"}, 3.0)
    assert client.openapi("order")["openapi"] == "3.1.0"


# Which error says what.


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, RequestRefused), (404, NotFound), (409, RequestRefused), (500, UnexpectedAnswer), (503, ServiceUnavailable)],
)
def test_an_answer_that_is_an_error_is_raised_with_its_kind(
    server: Script, client: Client, status: int, kind: type[ClientError]
) -> None:
    server.will_answer(status, {"type": "/problems/some-kind", "error": "It is so."})

    with pytest.raises(kind, match=r"event 'e-1'.*It is so\.") as raised:
        client.event("e-1")

    assert (type(raised.value), raised.value.status, raised.value.problem) == (kind, status, "some-kind")


def test_a_service_that_is_not_there_is_named_with_the_way_out() -> None:
    with (
        Client("http://127.0.0.1:1", "http://127.0.0.1:1", retries=0) as client,
        pytest.raises(ServiceUnavailable, match=r"http://127\.0\.0\.1:1 could not be reached.*`orderflow status`"),
    ):
        client.timeline("ord-1")


def test_what_is_no_answer_of_these_services_is_told(server: Script, client: Client) -> None:
    for body in (b"<html>", b'{"order": {"orderId": 7}}', b"{}"):
        server.will_answer(200, body)

        with pytest.raises(UnexpectedAnswer, match="is not one that this client understands"):
            client.order("ord-1")


def test_reads_are_repeated_and_writes_keep_their_key(server: Script, client: Client) -> None:
    server.will_break()
    server.will_answer(200, {"event": EVENT})
    server.will_answer(503, {"error": "later", "outcome": "refused"}, Retry_After="0")
    server.will_answer(200, written())

    client.event("e-1")
    client.update("ord-1", "shipped")

    keys = [asked[2].get("idempotency-key") for asked in server.asked]
    assert keys[:2] == [None, None]
    assert keys[2] == keys[3] is not None


def test_a_write_of_which_nobody_knows_names_the_key_to_repeat_it_with(server: Script, client: Client) -> None:
    server.will_break()
    server.will_answer(503, {"error": "later", "outcome": "refused"})

    with pytest.raises(OutcomeUnknown, match="nobody knows") as raised:
        client.create("ord-1", 2)

    assert raised.value.idempotency_key == server.asked[0][2]["idempotency-key"]


# Reading one's own writes.


@pytest.mark.parametrize("outcome", ["published", "spooled"])
def test_a_read_waits_for_the_client_s_own_last_write(server: Script, client: Client, outcome: str) -> None:
    server.will_answer(200, written("e-1"))
    server.will_answer(200, written("e-2", outcome))
    server.will_answer(200, DETAILS)
    client.update("ord-1", "pending")
    client.update("ord-1", "shipped")

    client.order("ord-1", wait_s=1.0)

    (path,) = paths(server)[2:]
    assert path.startswith("/order-details?orderId=ord-1&after=e-2&wait=")
    assert 0.5 < float(path.rpartition("=")[2]) <= 1.0


def test_a_read_of_what_others_wrote_waits_for_nothing(server: Script, client: Client) -> None:
    server.will_answer(400, {"error": "no"})
    for _ in range(2):
        server.will_answer(200, DETAILS)
    with pytest.raises(RequestRefused):
        client.update("ord-1", "shiped")

    client.order("ord-1")
    client._own.note("ord-1", "e-1", time.monotonic())
    client.order("ord-1", own_writes=False)

    assert paths(server)[1:] == ["/order-details?orderId=ord-1"] * 2


def test_an_event_of_somebody_else_is_awaited_beside_one_s_own(server: Script, client: Client) -> None:
    client._own.note("ord-1", "e-1", time.monotonic())
    for _ in range(2):
        server.will_answer(200, DETAILS)

    client.order("ord-1", after="e-9")

    assert ["after=e-1" in paths(server)[0], "after=e-9" in paths(server)[1]] == [True, True]


def test_a_write_that_was_skipped_is_told_by_the_read(server: Script, client: Client) -> None:
    server.will_answer(409, SKIPPED)

    with pytest.raises(EventSkipped, match=r"event e-1 of order 'ord-1' was skipped \(unknown_order\)") as raised:
        client.order("ord-1", after="e-1")

    assert (raised.value.event_id, raised.value.reason) == ("e-1", "unknown_order")
    assert raised.value.event is not None
    assert raised.value.event.state == "skipped"


@pytest.mark.parametrize(
    ("state", "kind", "said"),
    [
        ("spooled", EventSpooled, "is spooled: it waits on disk for Kafka"),
        ("held", EventSpooled, r"is held \(RecordTooLarge\): Kafka refuses it for good; see it with"),
        ("given_up", EventSpooled, "is given_up: an operator gave it up"),
        ("published", NotAppliedYet, "is published, 7 records of its partition are to be applied first"),
        (None, NotAppliedYet, "is not known yet, 7 records"),
    ],
)
def test_a_write_that_is_not_applied_in_time_is_told_with_its_state(
    server: Script, client: Client, state: str | None, kind: type[NotAppliedYet], said: str
) -> None:
    server.will_answer(504, not_applied(state, 7))

    with pytest.raises(NotAppliedYet, match=f"event e-1 of order 'ord-1' {said}") as raised:
        client.order("ord-1", after="e-1", wait_s=0)

    assert (type(raised.value), raised.value.lag) == (kind, 7)


def test_a_longer_wait_than_the_service_grants_is_asked_for_again(server: Script, client: Client) -> None:
    server.will_answer(504, not_applied("published"))
    server.will_answer(200, DETAILS)

    client.order("ord-1", after="e-1", wait_s=100)

    assert [path.rpartition("=")[2] for path in paths(server)] == ["30.000", "30.000"]


def test_a_read_that_finds_too_many_waiting_asks_again_until_its_time_is_over(server: Script, client: Client) -> None:
    """As often as the time allows, though it retries once only; and then it says so."""
    server.answers = [(503, BUSY, {"Retry-After": "0"})] * 100
    begin = time.monotonic()

    with pytest.raises(ServiceUnavailable, match="Too many wait"):
        client.order("ord-1", after="e-1", wait_s=0.5)

    assert 0.5 <= time.monotonic() - begin < 2
    assert len(server.asked) >= 3


def test_a_read_that_waits_is_not_cut_short_by_the_usual_timeout(server: Script) -> None:
    release = threading.Event()
    server.will_answer_when(release, 200, DETAILS)
    timer = threading.Timer(0.6, release.set)
    timer.start()

    with Client(server.url, server.url, timeout_s=0.2, retries=0) as client:
        assert client.order("ord-1", after="e-1", wait_s=5).order_id == "ord-1"
    timer.join()
