"""The HTTP contract of both services, on a running stack."""

from __future__ import annotations

import http.client
import json
import socket
from contextlib import closing
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest

from tests.support import store
from tests.support.calls import Caller
from tests.support.topic import read_topic
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orderflow.stack import Stack

JSON = {"Content-Type": "application/json"}
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACEPARENT = f"00-{TRACE}-00f067aa0ba902b7-01"


@pytest.fixture
def cart(stack: Stack) -> Iterator[Caller]:
    with closing(Caller(stack.settings.cart_port)) as caller:
        yield caller


@pytest.fixture
def orders(stack: Stack) -> Iterator[Caller]:
    with closing(Caller(stack.settings.order_port)) as caller:
        yield caller


def details(orders: Caller, order_id: str, status: str) -> dict[str, Any]:
    def read() -> dict[str, Any] | None:
        answer = orders.call("GET", f"/order-details?orderId={quote(order_id, safe='')}")
        return answer.body["order"] if answer.status == 200 and answer.body["order"]["status"] == status else None

    found = until(read, f"order {order_id!r} is {status}", within_s=10)
    assert found is not None
    return found


def raw_call(port: int, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Any:
    """Call with anything, and give the response and its decoded body."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    with closing(connection):
        connection.request(method, path, body, headers or {}, encode_chunked=isinstance(body, list))
        response = connection.getresponse()
        return response, json.loads(response.read() or b"null")


def test_an_order_with_items_comes_back_with_its_shipping_cost(cart: Caller, orders: Caller) -> None:
    """The create's answer, and what order-details adds."""
    items = [{"itemId": "i-1", "quantity": 3, "price": 19.99}, {"itemId": "i-2", "quantity": 1, "price": 0.5}]
    body = {"orderId": "http-items", "items": items, "customerId": "c-9", "currency": "ILS"}

    answer = cart.call("POST", "/create-order", body)

    assert answer.status == 201
    assert answer.body["outcome"] == "published"
    assert {"eventId", "partition", "offset"} <= set(answer.body)
    order = answer.body["order"]
    assert order | {"orderDate": ""} == {
        "orderId": "http-items", "customerId": "c-9", "orderDate": "", "items": items,
        "totalAmount": 60.47, "currency": "ILS", "status": "new",
    }  # fmt: skip
    assert details(orders, "http-items", "new") == order | {"shippingCost": 1.21}


def test_a_made_up_cart_is_within_its_bounds(cart: Caller) -> None:
    """itemsNum alone: that many items, quantities 1-10, prices 1.00-100.00, and the right sum."""
    order = cart.call("POST", "/create-order", {"orderId": "http-made-up", "itemsNum": 100}).body["order"]

    assert len(order["items"]) == 100
    assert all(1 <= item["quantity"] <= 10 and 1 <= item["price"] <= 100 for item in order["items"])
    assert round(sum(item["quantity"] * item["price"] for item in order["items"]), 2) == order["totalAmount"]


@pytest.mark.parametrize("status", ["new", "pending", "confirmed", "shipped", "delivered", "cancelled"])
def test_an_update_sets_the_status(cart: Caller, orders: Caller, status: str) -> None:
    """All six."""
    cart.call("POST", "/create-order", {"orderId": f"http-{status}", "itemsNum": 1})

    answer = cart.call("PUT", "/update-order", {"orderId": f"http-{status}", "status": status})

    assert (answer.status, answer.body["outcome"]) == (200, "published")
    assert answer.body["order"] == {"orderId": f"http-{status}", "status": status}
    details(orders, f"http-{status}", status)


@pytest.mark.parametrize("order_id", ["ä/ö?&=%", "日本", "a" * 128, " spaced ", "😀", '"><script>'])
def test_any_printable_id_goes_through(cart: Caller, orders: Caller, order_id: str) -> None:
    """What is outside of ASCII or special in a URL is an id like any other."""
    assert cart.call("POST", "/create-order", {"orderId": order_id, "itemsNum": 1}).status == 201
    assert details(orders, order_id, "new")["orderId"] == order_id


CREATE = {"orderId": "http-bad", "itemsNum": 1}
ITEM = {"itemId": "i", "quantity": 1, "price": 1}


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "orderId"),
        ({"orderId": ""}, "orderId"),
        (CREATE | {"orderId": " "}, "orderId"),
        (CREATE | {"orderId": "a\n"}, "orderId"),
        (CREATE | {"orderId": "a" * 129}, "orderId"),
        (CREATE | {"orderId": 5}, "orderId"),
        (CREATE | {"itemsNum": 0}, "itemsNum"),
        (CREATE | {"itemsNum": 101}, "itemsNum"),
        (CREATE | {"itemsNum": "2"}, "itemsNum"),
        (CREATE | {"itemsNum": 2.5}, "itemsNum"),
        (CREATE | {"itemsNum": True}, "itemsNum"),
        ({"orderId": "http-bad"}, "itemsNum"),
        (CREATE | {"items": [ITEM]}, "itemsNum"),
        ({"orderId": "http-bad", "items": []}, "items"),
        ({"orderId": "http-bad", "items": [ITEM] * 101}, "items"),
        ({"orderId": "http-bad", "items": [ITEM | {"quantity": 0}]}, "items[0].quantity"),
        ({"orderId": "http-bad", "items": [ITEM, ITEM | {"price": "1"}]}, "items[1].price"),
        ({"orderId": "http-bad", "items": [ITEM | {"price": 0.001}]}, "items[0].price"),
        ({"orderId": "http-bad", "items": [ITEM | {"price": 0}]}, "items[0]"),
        ({"orderId": "http-bad", "items": [ITEM | {"colour": "red"}]}, "items[0]"),
        (CREATE | {"currency": "XXX"}, "currency"),
        (CREATE | {"colour": "red"}, "colour"),
    ],
)
def test_an_invalid_create_is_a_400_that_names_the_field(cart: Caller, body: object, field: str) -> None:
    """And nothing of it is published."""
    answer = cart.call("POST", "/create-order", body)

    assert answer.status == 400
    assert answer.body["type"] == "/problems/invalid-body"
    assert field in answer.body["fields"]
    assert field in answer.body["error"]


def test_every_wrong_field_is_named_at_once(cart: Caller) -> None:
    """A caller mends all of them in one go."""
    answer = cart.call("POST", "/create-order", {"orderId": 1, "itemsNum": 0, "currency": "X", "more": 1})

    assert set(answer.body["fields"]) == {"orderId", "itemsNum", "currency", "more"}


def test_a_bad_status_names_the_six(cart: Caller) -> None:
    """The way out is in the message."""
    answer = cart.call("PUT", "/update-order", {"orderId": "http-bad", "status": "lost"})

    assert answer.status == 400
    assert "new, pending, confirmed, shipped, delivered, cancelled" in answer.body["fields"]["status"]


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"nonsense", b"\xff", b'{"orderId":"\xff","itemsNum":1}', b'{"orderId":"\\ud800","itemsNum":1}',
     b'{"orderId":"http-bad","itemsNum":NaN}', b"[" * 50_000, b'{"orderId":' + b"[" * 50_000, b"[]", b"null", b'"x"'],
)  # fmt: skip
def test_what_is_no_json_object_is_a_400(stack: Stack, body: bytes) -> None:
    """Malformed, too deep, not an object: an error in JSON, and the service lives."""
    response, problem = raw_call(stack.settings.cart_port, "POST", "/create-order", body, JSON)

    assert response.status == 400
    assert response.getheader("Content-Type") == "application/problem+json"
    assert problem["error"] == problem["detail"]
    assert problem["status"] == 400


def test_a_body_over_64_kib_is_a_413_also_when_chunked(stack: Stack) -> None:
    """With the length said, and without."""
    port = stack.settings.cart_port
    large = b'{"orderId":"' + b"a" * 65_536 + b'"}'

    response, problem = raw_call(port, "POST", "/create-order", large, JSON)
    assert (response.status, problem["type"]) == (413, "/problems/body-too-large")
    response, problem = raw_call(
        port, "POST", "/create-order", [large[i : i + 1_000] for i in range(0, len(large), 1_000)],
        JSON | {"Transfer-Encoding": "chunked"},
    )  # fmt: skip
    assert (response.status, problem["type"]) == (413, "/problems/body-too-large")


@pytest.mark.parametrize(
    ("method", "path", "headers", "status", "kind"),
    [
        ("GET", "/nowhere", {}, 404, "no-such-route"),
        ("GET", "/%ff%00", {}, 400, "bad-request"),
        ("GET", "/c%C3%A4rt", {}, 404, "no-such-route"),
        ("GET", "/create-order", {}, 405, "method-not-allowed"),
        ("DELETE", "/update-order", {}, 405, "method-not-allowed"),
        ("POST", "/create-order", {"Content-Type": "text/plain"}, 415, "json-required"),
        ("POST", "/create-order", {}, 415, "json-required"),
        ("GET", "/healthz", {"Host": "evil.example"}, 403, "foreign-host"),
        ("GET", "/healthz", {"Host": "127.0.0.1.evil.example"}, 403, "foreign-host"),
        ("POST", "/create-order", {"Origin": "http://evil.example"}, 403, "foreign-origin"),
        ("GET", "/outbox", {"Origin": "http://127.0.0.1:1"}, 403, "foreign-origin"),
        ("OPTIONS", "/create-order", {"Origin": "null"}, 403, "foreign-origin"),
        ("POST", "/create-order", JSON | {"Idempotency-Key": ""}, 400, "malformed-json"),
    ],
)
def test_every_error_is_a_problem(
    stack: Stack, method: str, path: str, headers: dict[str, str], status: int, kind: str
) -> None:
    """Also those that the framework finds."""
    response, problem = raw_call(stack.settings.cart_port, method, path, b"{" if method == "POST" else None, headers)

    assert (response.status, problem["type"]) == (status, f"/problems/{kind}")
    assert response.getheader("Content-Type") == "application/problem+json"
    assert {"title", "status", "detail", "error"} <= set(problem)
    assert (response.getheader("Allow") is not None) == (status == 405)


@pytest.mark.parametrize("host", ["localhost", "localhost:1", "127.0.0.1", "[::1]", "[::1]:5000", "LOCALHOST"])
def test_loopbacks_names_are_known_hosts(stack: Stack, host: str) -> None:
    """With and without a port."""
    assert raw_call(stack.settings.cart_port, "GET", "/healthz", None, {"Host": host})[0].status == 200


def test_the_same_key_and_body_are_the_same_event(cart: Caller, stack: Stack) -> None:
    """A retried create has the same event id and cart, and is applied once; another body is another event."""
    body, key = {"orderId": "http-idem", "itemsNum": 3}, {"Idempotency-Key": "k-1"}
    first = cart.call("POST", "/create-order", body, key).body
    again = cart.call("POST", "/create-order", {"itemsNum": 3, "orderId": "http-idem"}, key).body
    other = cart.call("POST", "/create-order", body | {"itemsNum": 4}, key).body

    assert first["eventId"] == again["eventId"] != other["eventId"]
    assert first["order"] | {"orderDate": ""} == again["order"] | {"orderDate": ""}
    places = [(answer["partition"], answer["offset"]) for answer in (first, again, other)]
    until(lambda: set(places) <= set(store.history(stack.settings)), "all three are in the history", within_s=10)
    history = store.history(stack.settings)
    assert [history[place].outcome for place in places] == ["applied", "duplicate", "skipped"]


@pytest.mark.parametrize("key", ["a" * 256, "two words", "ümlaut"])
def test_a_wrong_idempotency_key_is_a_400(stack: Stack, key: str) -> None:
    """It is never cut or ignored."""
    headers = JSON | {"Idempotency-Key": key.encode().decode("latin-1")}
    response, problem = raw_call(stack.settings.cart_port, "POST", "/create-order", json.dumps(CREATE), headers)

    assert (response.status, problem["type"]) == (400, "/problems/invalid-idempotency-key")


def test_a_trace_goes_from_the_request_to_the_record_and_every_log(stack: Stack) -> None:
    """traceparent in, out, in the record's headers, in the timeline, and in the logs of three processes."""
    body = json.dumps({"orderId": "http-trace", "itemsNum": 1})
    headers = JSON | {"traceparent": TRACEPARENT}
    response, answer = raw_call(stack.settings.cart_port, "POST", "/create-order", body, headers)
    place = (answer["partition"], answer["offset"])
    after = f"/order-details?orderId=http-trace&after={answer['eventId']}&wait=10"
    read, _ = raw_call(stack.settings.order_port, "GET", after, headers={"traceparent": TRACEPARENT})

    assert read.status == 200
    assert response.getheader("traceparent").split("-")[1] == TRACE
    (record,) = [record for record in read_topic(stack.settings) if record.place == place]
    sent = dict(record.headers)
    assert sent["traceparent"].decode().split("-")[1] == TRACE
    assert {name: sent[name] for name in ("ce_id", "ce_type", "ce_subject", "content-type")} == {
        "ce_id": answer["eventId"].encode(), "ce_type": b"order.created",
        "ce_subject": b"http-trace", "content-type": b"application/json",
    }  # fmt: skip
    _, timeline = raw_call(stack.settings.order_port, "GET", "/order-timeline?orderId=http-trace")
    (told,) = timeline["events"]
    assert told["eventId"] == answer["eventId"]
    assert (told["partition"], told["offset"]) == place
    assert [(step["step"], step["traceId"]) for step in told["steps"]] == [
        ("accepted", TRACE), ("published", TRACE), ("applied", TRACE)
    ]  # fmt: skip
    said = {
        "cart-service": "request.handled", "order-consumer": "order.event_applied", "order-service": "request.handled"
    }  # fmt: skip
    for program, event in said.items():
        until(lambda: TRACE in _log_of(stack, program, event), f"the trace is in {program}'s {event}", within_s=5)  # noqa: B023 (asked at once)


def test_the_sender_of_an_update_of_an_unknown_order_learns_it(cart: Caller, orders: Caller) -> None:
    """The answer was 200, and stays true: the event is on the topic. That it came to nothing is told after it."""
    sent = cart.call("PUT", "/update-order", {"orderId": "http-nobody", "status": "shipped"})
    event_id = sent.body["eventId"]

    read = orders.call("GET", f"/order-details?orderId=http-nobody&after={event_id}&wait=10")
    event = orders.call("GET", f"/events/{event_id}").body["event"]

    assert sent.status == 200
    assert (read.status, read.body["type"], read.body["reason"]) == (409, "/problems/event-skipped", "unknown_order")
    assert read.body["event"] == event
    assert (event["state"], event["orderId"], event["reason"]) == ("skipped", "http-nobody", "unknown_order")
    assert (event["partition"], event["offset"]) == (sent.body["partition"], sent.body["offset"])
    timeline = orders.call("GET", "/order-timeline?orderId=http-nobody").body
    assert (timeline["order"], timeline["events"]) == (None, [event])


def _log_of(stack: Stack, program: str, event: str) -> set[str]:
    text = (stack.settings.log_dir / f"{program}.log").read_text(encoding="utf-8")
    lines = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    return {line.get("trace_id", "") for line in lines if line["event"] == event}


def test_unknown_orders_topics_and_parameters(orders: Caller) -> None:
    """404 for what is not there, 400 for what was not said."""
    assert orders.call("GET", "/order-details?orderId=nobody").body["type"] == "/problems/unknown-order"
    assert orders.call("GET", "/order-details").body["type"] == "/problems/missing-parameter"
    assert orders.call("GET", "/getAllOrderIdsFromTopic?topic=nothing").status == 404
    assert orders.call("GET", "/getAllOrderIdsFromTopic").status == 400
    for query in ("limit=0", "limit=x", "cursor=-1", "cursor=" + "9" * 30, "limit=10001"):
        answer = orders.call("GET", f"/getAllOrderIdsFromTopic?topic=order_events&{query}")
        assert (answer.status, answer.body["type"]) == (400, "/problems/invalid-parameter")


def test_ids_are_a_bare_list_and_pages_of_it_are_the_same(cart: Caller, orders: Caller, stack: Stack) -> None:
    """Unique, in order of arrival; following the Link header gives all of it."""
    for number in range(7):
        cart.call("POST", "/create-order", {"orderId": f"http-page-{number}", "itemsNum": 1})
        details(orders, f"http-page-{number}", "new")
    whole = orders.call("GET", "/getAllOrderIdsFromTopic?topic=order_events").body

    paged: list[str] = []
    path = "/getAllOrderIdsFromTopic?topic=order_events&limit=3"
    while path:
        response, page = raw_call(stack.settings.order_port, "GET", path)
        paged += page
        link = response.getheader("Link", "")
        path = link[1 : link.index(">")] if link else ""

    assert len(set(whole)) == len(whole)
    assert [i for i in whole if i.startswith("http-page-")] == [f"http-page-{n}" for n in range(7)]
    assert paged == whole


@pytest.mark.parametrize("service", ["cart_port", "order_port"])
def test_probes(stack: Stack, service: str) -> None:
    """Alive, ready, and metrics that name routes, never ids."""
    port = getattr(stack.settings, service)
    assert raw_call(port, "GET", "/healthz")[1] == {"status": "alive"}
    response, ready = raw_call(port, "GET", "/readyz")
    assert (response.status, ready["status"]) == (200, "ready")
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    with closing(connection):
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
    assert "orderflow_http_request_duration_seconds_count" in text
    assert "http-items" not in text


def test_half_a_request_head_does_not_hold_the_service(stack: Stack, cart: Caller) -> None:
    """A client that stops in the middle of a header line."""
    with socket.create_connection(("127.0.0.1", stack.settings.cart_port)) as idle:
        idle.sendall(b"POST /create-order HTTP/1.1\r\nHo")

        assert cart.call("POST", "/create-order", {"orderId": "http-beside", "itemsNum": 1}).status == 201
