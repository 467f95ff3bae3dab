"""The client: what it says of an answer, and of one that never came."""

from __future__ import annotations

import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from orderflow.client import NO_ANSWER, Answer, Client
from orderflow.settings import Settings
from tests.support.scripted import scripted
from tests.support.waiting import interrupted_when, until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.scripted import Script

ORDER = {"orderId": "ord-1", "status": "new"}
PUBLISHED = {"order": ORDER, "eventId": "e-1", "outcome": "published", "partition": 3, "offset": 14}
UNAVAILABLE = {"status": 503, "error": "later", "outcome": "refused", "eventId": "e-1"}


@pytest.fixture
def server() -> Iterator[Script]:
    with scripted() as script:
        yield script


@pytest.fixture
def client(server: Script) -> Iterator[Client]:
    with Client(server.url, server.url, timeout_s=5.0) as made:
        yield made


def _closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
    return port


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_a_create_says_what_came_of_it(server: Script, client: Client) -> None:
    server.will_answer(201, PUBLISHED)

    answer = client.create_order("ord-1", 2, customer_id="c-1", currency="EUR", idempotency_key="k-1")

    assert (answer.status, answer.outcome, answer.event_id) == (201, "published", "e-1")
    assert (answer.partition, answer.offset, answer.order, answer.error) == (3, 14, ORDER, None)
    ((method, path, headers, body),) = server.asked
    assert (method, path) == ("POST", "/create-order")
    assert (headers["idempotency-key"], headers["content-type"]) == ("k-1", "application/json")
    assert body == {"orderId": "ord-1", "itemsNum": 2, "customerId": "c-1", "currency": "EUR"}


def test_an_update_and_the_caller_s_own_items_are_sent_as_they_are(server: Script, client: Client) -> None:
    server.will_answer(200, PUBLISHED)
    server.will_answer(201, PUBLISHED)
    items = [{"itemId": "i", "quantity": 1, "price": 2.5}]

    client.update_order("ord-1", "shipped")
    client.create_order("ord-1", items=items)

    assert [asked[3] for asked in server.asked] == [
        {"orderId": "ord-1", "status": "shipped"},
        {"orderId": "ord-1", "items": items},
    ]
    assert "idempotency-key" not in server.asked[0][2]


def test_requests_that_follow_one_another_share_a_connection(server: Script, client: Client) -> None:
    """Those of threads that come and go, too: none of them keeps a descriptor for itself."""
    server.answers = [(200, {"order": ORDER}, {})] * 8
    before = descriptors()

    for _ in range(8):
        thread = threading.Thread(target=client.order_details, args=("ord-1",))
        thread.start()
        thread.join()

    assert server.connections == 1
    assert descriptors() <= before + 2, "both ends of one connection"


def test_requests_at_a_time_have_a_connection_each(server: Script, client: Client) -> None:
    release = threading.Event()
    for _ in range(3):
        server.will_answer_when(release, 200, {"order": ORDER})

    with ThreadPoolExecutor(3) as pool:
        answers = [pool.submit(client.order_details, "ord-1") for _ in range(3)]
        until(lambda: len(server.asked) == 3, "all are sent", within_s=5)
        release.set()

    assert [answer.result().status for answer in answers] == [200] * 3
    assert server.connections == 3


def test_a_connection_that_is_in_use_while_the_client_is_closed_is_closed_after_it(
    server: Script, client: Client
) -> None:
    release = threading.Event()
    server.will_answer_when(release, 200, {"order": ORDER})
    server.will_answer(200, {"order": ORDER})

    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(client.order_details, "ord-1")
        until(lambda: len(server.asked) == 1, "it is sent", within_s=5)
        client.close()
        release.set()
    client.order_details("ord-1")

    assert answer.result().status == 200
    assert server.connections == 2


def test_a_request_that_failed_leaves_nothing_in_front_of_the_next(server: Script, client: Client) -> None:
    """Not half a request, nor an answer that nobody awaits any more, as after a Ctrl-C."""
    release = threading.Event()
    server.will_answer(200, {"order": ORDER})
    server.will_answer_when(release, 200, {"order": ORDER | {"orderId": "late"}})
    server.will_answer(201, PUBLISHED)

    with pytest.raises(ValueError, match="Invalid header value"):
        client.request("cart", "GET", "/readyz", headers={"X-Name": "a\nb"})
    assert client.order_details("ord-1").order == ORDER
    with pytest.raises(KeyboardInterrupt), interrupted_when(lambda: len(server.asked) == 2):
        client.order_details("late")
    release.set()

    assert client.create_order("ord-1", 2).outcome == "published"


@pytest.mark.parametrize(("status", "outcome"), [(400, "refused"), (413, "refused"), (500, "unknown")])
def test_an_error_without_an_outcome_gets_the_one_that_follows(
    server: Script, client: Client, status: int, outcome: str
) -> None:
    server.will_answer(status, {"error": "no"})

    answer = client.update_order("ord-1", "shipped")

    assert (answer.status, answer.outcome, answer.error) == (status, outcome, "no")


def test_a_write_whose_connection_breaks_is_unknown_and_not_sent_again(server: Script, client: Client) -> None:
    server.will_break()

    answer = client.create_order("ord-1", 2, idempotency_key="k-1")

    assert (answer.status, answer.outcome, len(server.asked)) == (NO_ANSWER, "unknown", 1)
    assert answer.error is not None
    assert "did not answer" in answer.error


def test_a_write_to_nobody_is_refused() -> None:
    with Client(f"http://127.0.0.1:{_closed_port()}", "http://127.0.0.1:1") as client:
        answer = client.create_order("ord-1", 2)

    assert (answer.status, answer.outcome) == (NO_ANSWER, "refused")


def test_a_silent_service_is_unknown() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with Client(url, url, timeout_s=0.1) as client:
            answer = client.update_order("ord-1", "shipped")

    assert (answer.status, answer.outcome) == (NO_ANSWER, "unknown")


def test_retries_are_the_same_request_and_end_with_the_first_answer(server: Script, client: Client) -> None:
    server.will_break()
    server.will_answer(503, UNAVAILABLE, Retry_After="0")
    server.will_answer(201, PUBLISHED)

    answer = client.create_order("ord-1", 2, idempotency_key="k-1", retries=5)

    assert answer.outcome == "published"
    assert [asked[2]["idempotency-key"] for asked in server.asked] == ["k-1"] * 3


def test_a_later_refusal_does_not_undo_an_unknown(server: Script, client: Client) -> None:
    """Given a first attempt that may have arrived, when the last one is refused, then nobody knows."""
    server.will_break()
    server.will_answer(503, UNAVAILABLE)

    answer = client.create_order("ord-1", 2, idempotency_key="k-1", retries=1)

    assert (answer.status, answer.outcome) == (503, "unknown")


def test_retries_without_a_key_get_one(server: Script, client: Client) -> None:
    """Without, each attempt would be another event."""
    server.will_break()
    server.will_answer(200, PUBLISHED)

    assert client.update_order("ord-1", "shipped", retries=1).outcome == "published"
    first, second = (asked[2]["idempotency-key"] for asked in server.asked)
    assert first == second != ""


def test_a_retry_waits_as_long_as_the_service_asks(server: Script, client: Client) -> None:
    server.will_answer(503, UNAVAILABLE, Retry_After="0.3")
    server.will_answer(200, PUBLISHED)
    begin = time.monotonic()

    client.update_order("ord-1", "shipped", retries=1)

    assert time.monotonic() - begin >= 0.3


def test_a_refusal_that_waiting_does_not_mend_is_not_repeated(server: Script, client: Client) -> None:
    """A 503 without ``Retry-After``: Kafka refuses this very event. A 4xx, of course, neither."""
    for status in (503, 400):
        server.will_answer(status, UNAVAILABLE)
        assert client.update_order("ord-1", "shipped", retries=5).status == status

    assert len(server.asked) == 2


def test_a_crash_is_unknown_and_worth_another_attempt(server: Script, client: Client) -> None:
    server.will_answer(500, {"error": "crashed"})
    server.will_answer(200, PUBLISHED)

    assert client.update_order("ord-1", "shipped", retries=1).outcome == "published"


def test_a_connection_that_was_closed_while_idle_is_replaced(server: Script, client: Client) -> None:
    server.will_answer(200, {"order": ORDER}, Connection="close")
    server.will_answer(201, PUBLISHED)
    client.order_details("ord-1")

    assert client.create_order("ord-1", 2).outcome == "published"


def test_order_ids_are_escaped(server: Script, client: Client) -> None:
    server.will_answer(404, {"error": "no such order"})

    client.order_details("a b&c=ü/1")

    assert server.asked[0][1] == "/order-details?orderId=a%20b%26c%3D%C3%BC%2F1"


def test_pages_of_ids_follow_the_link(server: Script, client: Client) -> None:
    server.will_answer(200, ["a", "b"], Link='</getAllOrderIdsFromTopic?topic=t&limit=2&cursor=7>; rel="next"')
    server.will_answer(200, ["c"])

    assert list(client.order_ids_pages("t", 2)) == [["a", "b"], ["c"]]
    assert [asked[1] for asked in server.asked] == [
        "/getAllOrderIdsFromTopic?topic=t&limit=2",
        "/getAllOrderIdsFromTopic?topic=t&limit=2&cursor=7",
    ]


def test_a_page_that_is_an_error_is_raised(server: Script, client: Client) -> None:
    server.will_answer(404, {"error": "There is no topic 't' here."})

    with pytest.raises(ConnectionError, match="404: There is no topic 't' here"):
        list(client.order_ids_pages("t"))


def test_waiting_ends_with_the_wanted_status(server: Script, client: Client) -> None:
    server.will_answer(404, {"error": "no such order"})
    server.will_answer(200, {"order": ORDER})
    server.will_answer(200, {"order": ORDER | {"status": "shipped"}})

    assert client.wait_for_order("ord-1", until="shipped")["status"] == "shipped"


def test_waiting_lets_the_service_wait_for_one_s_own_write_first(server: Script, client: Client) -> None:
    """Then it looks as ever: a write that was skipped does not end the wait."""
    server.will_answer(200, PUBLISHED)
    server.will_answer(409, {"type": "/problems/event-skipped"})
    server.will_answer(200, {"order": ORDER})

    client.update_order("ord-1", "shipped")

    assert client.wait_for_order("ord-1") == ORDER
    assert server.asked[1][1] == "/order-details?orderId=ord-1&after=e-1&wait=10.000"
    assert server.asked[2][1] == "/order-details?orderId=ord-1"


def test_waiting_in_vain_says_what_was_answered_last(server: Script, client: Client) -> None:
    server.answers = [(404, {"error": "no such order"}, {})] * 100

    with pytest.raises(TimeoutError, match=r"'ord-1' has not become an order in 0\.05 s; last: 404"):
        client.wait_for_order("ord-1", timeout_s=0.05)


def test_a_body_that_is_no_json_is_text(server: Script, client: Client) -> None:
    server.will_answer(200, b"<html>")

    answer = client.readyz("cart")

    assert (answer.body, answer.event_id) == ("<html>", None)


@pytest.mark.parametrize(("host", "url"), [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "127.0.0.1"), ("::1", "[::1]")])  # noqa: S104 (nothing is bound)
def test_it_finds_the_services_by_the_settings(host: str, url: str) -> None:
    client = Client.from_settings(Settings(http_host=host, cart_port=5010, order_port=5011))

    assert client.urls == {"cart": f"http://{url}:5010", "order": f"http://{url}:5011"}


def test_an_answer_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        Answer(200, {}).status = 500  # type: ignore[misc]  # that is the point
