"""The typed client on a whole stack: it reads what it wrote, and is told what became of it."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TYPE_CHECKING

import pytest

from orderflow.client import Client
from orderflow.errors import EventSkipped, NotFound, RequestRefused
from orderflow.orders import Status
from tests.support.documents import DOCS, planted, read

if TYPE_CHECKING:
    from orderflow.stack import Stack


def test_no_read_is_older_than_the_client_s_own_write(client: Client) -> None:
    """With nothing in between, by many threads at once; without the wait most of these reads would be stale."""

    def writes(number: int) -> None:
        order_id = f"own-{number}"
        client.create(order_id, 1)
        assert client.order(order_id, wait_s=20).status == "new"
        for status in (Status.CONFIRMED, Status.SHIPPED, Status.DELIVERED):
            client.update(order_id, status)
            assert client.order(order_id, wait_s=20).status == status

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(writes, range(24)))


def test_an_update_of_an_order_that_is_not_there_is_told_to_who_sent_it(client: Client) -> None:
    written = client.update("own-nobody", "shipped")

    with pytest.raises(EventSkipped, match="unknown_order") as raised:
        client.order("own-nobody", wait_s=10)

    event = client.event(written.event_id)
    assert (raised.value.event_id, raised.value.reason) == (written.event_id, "unknown_order")
    assert (event.state, event.order_id, event.reason) == ("skipped", "own-nobody", "unknown_order")
    with pytest.raises(NotFound):
        client.order("own-nobody", own_writes=False)


def test_a_timeline_has_the_write_where_the_answer_said(client: Client) -> None:
    written = client.create("own-timeline", items=[{"itemId": "tea", "quantity": 3, "price": 4.5}], currency="EUR")
    order = client.order("own-timeline", wait_s=10)

    timeline = client.timeline("own-timeline")
    (event,) = timeline.events

    assert timeline.order == order
    assert (str(order.total_amount), str(order.shipping_cost)) == ("13.50", "0.27")
    assert (event.event_id, event.partition, event.offset) == (written.event_id, written.partition, written.offset)
    assert [step.step for step in event.steps] == ["accepted", "published", "applied"]
    times = [step.at for step in event.steps if step.at is not None]
    assert len(times) == 3
    assert all(at.tzinfo is not None for at in times)


def test_orders_are_walked_newest_first_over_all_pages(client: Client) -> None:
    for number in range(5):
        client.create(f"own-page-{number}", 1)
        client.order(f"own-page-{number}", wait_s=10)

    first = [order.order_id for order in islice(client.orders(page=2), 5)]

    assert first == [f"own-page-{number}" for number in reversed(range(5))]
    assert all(order.status == "new" for order in islice(client.orders(status="new", page=2), 5))
    with pytest.raises(RequestRefused):
        list(client.orders(status="lost"))


def test_the_document_s_examples_do_what_they_say(stack: Stack) -> None:
    code, found = re.findall(r"```python\n(.*?)```", read(DOCS / "client.md"), re.DOTALL)
    with Client.from_settings(stack.settings) as client:
        for which, port in (("cart", 5000), ("order", 5001)):
            code = planted(code, f"http://127.0.0.1:{port}", client.urls[which])

    found = planted(found, "/var/tmp/second", str(stack.directory)) + "second.order('ord-9')"  # noqa: S108 (a name in the text)

    for one in (code, found):
        exec(compile(one, "docs/client.md", "exec"), {})  # noqa: S102 (our own document)


def test_both_services_tell_about_themselves(client: Client, stack: Stack) -> None:
    client.create("own-metrics", 1)

    published = [one for one in client.metrics("cart") if one.name == "orderflow_events_published_total"]

    assert sum(one.value for one in published) >= 1
    assert "/create-order" in client.openapi("cart")["paths"]
    assert "/order-details" in client.openapi("order")["paths"]
    assert client.urls["cart"] == f"http://127.0.0.1:{stack.settings.cart_port}"
