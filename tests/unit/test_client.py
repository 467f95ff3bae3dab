"""The client: what it says of an answer, and of one that never came."""

from __future__ import annotations

import json
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest

from orderflow.client import NO_ANSWER, Answer, Client
from orderflow.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

ORDER = {"orderId": "ord-1", "status": "new"}
PUBLISHED = {"order": ORDER, "eventId": "e-1", "outcome": "published", "partition": 3, "offset": 14}
UNAVAILABLE = {"status": 503, "error": "later", "outcome": "refused", "eventId": "e-1"}

#: A scripted answer that breaks the connection instead.
BREAK = None


class Script(ThreadingHTTPServer):
    """A real HTTP server that gives the answers of a script, and keeps what it was asked."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers: list[tuple[int, Any, dict[str, str]] | None] = []
        self.asked: list[tuple[str, str, dict[str, str], Any]] = []
        self.connections = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def will_answer(self, status: int, body: object, **headers: str) -> None:
        self.answers.append((status, body, headers))

    def will_break(self) -> None:
        self.answers.append(BREAK)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Script

    def setup(self) -> None:
        super().setup()
        self.server.connections += 1

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.asked.append((self.command, self.path, headers, json.loads(body) if body else None))
        answer = self.server.answers.pop(0)
        if answer is BREAK:
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
            return
        status, given, extra = answer
        raw = given if isinstance(given, bytes) else json.dumps(given).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(raw)))
        for name, value in extra.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(raw)

    do_POST = do_PUT = do_GET  # noqa: N815 (named by the standard library)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Script]:
    with Script() as script:
        threading.Thread(target=script.serve_forever, args=(0.01,)).start()
        yield script
        script.shutdown()


@pytest.fixture
def client(server: Script) -> Iterator[Client]:
    with Client(server.url, server.url, timeout_s=5.0) as made:
        yield made


def _closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
    return port


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


def test_a_thread_keeps_its_connection(server: Script, client: Client) -> None:
    for _ in range(3):
        server.will_answer(200, {"order": ORDER})

    for _ in range(3):
        client.order_details("ord-1")

    assert server.connections == 1


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


def test_retries_without_a_key_are_an_error(client: Client) -> None:
    with pytest.raises(ValueError, match="retries need an idempotency_key"):
        client.update_order("ord-1", "shipped", retries=1)


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

    assert client._urls == {"cart": f"http://{url}:5010", "order": f"http://{url}:5011"}


def test_an_answer_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        Answer(200, {}).status = 500  # type: ignore[misc]  # that is the point
