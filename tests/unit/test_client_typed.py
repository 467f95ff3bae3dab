"""The client's typed calls: what they give, which error says what, and that it reads its own writes."""

from __future__ import annotations

import re
import socket
import threading
import time
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

import cart_service.requests
from orderflow.client import Client, Item, requests
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
    from collections.abc import Callable, Iterator

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
    client._own.note("ord-1", "e-1", time.monotonic(), is_new=True)
    client.order("ord-1", own_writes=False)

    assert paths(server)[1:] == ["/order-details?orderId=ord-1"] * 2


def test_an_event_of_somebody_else_is_awaited_beside_one_s_own(server: Script, client: Client) -> None:
    client._own.note("ord-1", "e-1", time.monotonic(), is_new=True)
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
        ("given_up", EventSpooled, "is given_up: an operator gave it up, so it never takes effect"),
        ("published", NotAppliedYet, "is published, 7 records of its partition are to be applied first"),
        (None, NotAppliedYet, "is not known yet, 7 records .* are to be applied first; read again, or wait longer"),
    ],
)
def test_a_write_that_is_not_applied_in_time_is_told_with_its_state(
    server: Script, client: Client, state: str | None, kind: type[NotAppliedYet], said: str
) -> None:
    server.will_answer(504, not_applied(state, 7))

    with pytest.raises(NotAppliedYet, match=f"event e-1 of order 'ord-1' {said}") as raised:
        client.order("ord-1", after="e-1", wait_s=0)

    assert (type(raised.value), raised.value.lag) == (kind, 7)


def test_waiting_is_not_advised_where_nothing_is_left_to_be_applied(server: Script, client: Client) -> None:
    """Of an event that never existed, say."""
    server.will_answer(504, not_applied(None, 0))

    with pytest.raises(NotAppliedYet, match="and nothing is left to be applied; read again, or there is no such event"):
        client.order("ord-1", after="e-1", wait_s=0)


def test_what_was_given_up_after_it_was_sent_may_still_come(server: Script, client: Client) -> None:
    answer = not_applied("given_up")
    server.will_answer(504, answer | {"event": answer["event"] | {"maybeOnTopic": True}})

    with pytest.raises(EventSpooled, match="a copy that was sent before may still be applied") as raised:
        client.order("ord-1", after="e-1", wait_s=0)

    assert "never takes effect" not in str(raised.value)


def test_a_write_that_is_sent_again_hides_none_of_those_since(server: Script, client: Client) -> None:
    """However many they were; and a read waits for the older ones once only."""
    for number in range(12):
        server.will_answer(200, written(f"e-{number}"))
    server.will_answer(200, written("e-0"))
    server.answers += [(200, DETAILS, {})] * 3
    client.update("ord-1", "pending", idempotency_key="k-0")
    for _ in range(11):
        client.update("ord-1", "shipped")
    client.update("ord-1", "pending", idempotency_key="k-0")

    client.order("ord-1")
    client.order("ord-1")

    assert [re.findall(r"after=(e-\d+)", path) for path in paths(server)[13:]] == [["e-11"], ["e-0"], ["e-0"]]


@pytest.mark.parametrize("fate", [(409, SKIPPED), (504, not_applied("given_up"))])
def test_an_older_write_that_came_to_nothing_ends_no_read_though_its_key_was_the_caller_s(
    server: Script, client: Client, fate: tuple[int, Any]
) -> None:
    for number in range(2):
        server.will_answer(200, written(f"e-{number}"))
    server.will_answer(*fate)
    server.will_answer(200, DETAILS)
    for number in range(2):
        client.update("ord-1", "shipped", idempotency_key=f"k-{number}")

    assert client.order("ord-1", wait_s=0).order_id == "ord-1"


@pytest.mark.parametrize("key", ["", "€", "k\n1", "a b", "k" * 256])
def test_a_key_that_is_none_is_refused_and_nothing_is_sent(server: Script, client: Client, key: str) -> None:
    """Also the empty one: without a key each repetition would be another event."""
    for write in (client.create, client.create_order):
        with pytest.raises(RequestRefused, match="is not valid: give 1 to 255 visible ASCII characters") as raised:
            write("ord-1", 1, idempotency_key=key)
        assert (raised.value.status, raised.value.problem) == (0, "invalid-idempotency-key")

    assert server.asked == []


def test_the_rule_for_keys_is_that_of_the_service() -> None:
    assert requests.KEY.pattern == cart_service.requests.KEY.pattern


def test_what_is_no_text_is_refused_and_nothing_is_sent(server: Script, client: Client) -> None:
    half = "a\udc80"
    calls: list[Callable[[], object]] = [
        lambda: client.create(half, 1),
        lambda: client.update(half, "shipped"),
        lambda: client.order(half),
        lambda: client.order("ord-1", after=half),
        lambda: client.timeline(half),
        lambda: client.event(half),
        lambda: client.event("e-1", half),
        lambda: list(client.orders(status=half)),
    ]

    for call in calls:
        with pytest.raises(RequestRefused, match=r"'a\\udc80' cannot be sent"):
            call()
    assert server.asked == []


def test_what_was_read_can_be_written(server: Script, client: Client) -> None:
    """Amounts are numbers, as the service takes them."""
    server.will_answer(200, DETAILS)
    server.will_answer(201, b'{"order":' + ORDER + b',"eventId":"e-1","outcome":"spooled","ahead":0}')

    client.create("ord-1", items=client.order("ord-1").items)
    server.will_answer(201, b'{"order":' + ORDER + b',"eventId":"e-1","outcome":"spooled","ahead":0}')
    client.create("ord-1", items=[{"itemId": "tea", "quantity": 3, "price": Decimal("4.50")}])

    assert [asked[3]["items"] for asked in server.asked[1:]] == [[{"itemId": "tea", "quantity": 3, "price": 4.5}]] * 2


def test_a_service_that_says_nothing_does_not_hold_a_read_beyond_its_time() -> None:
    """The wait and the usual timeout together, though the service could wait for 30 s."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        begin = time.monotonic()
        with Client(url, url, timeout_s=0.3) as client, pytest.raises(ServiceUnavailable, match="did not answer"):
            client.order("ord-1", after="e-1", wait_s=0.2)

    assert 0.4 < time.monotonic() - begin < 0.8


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
