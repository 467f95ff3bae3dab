"""A create that was destroyed on its way, and all that hangs on it: mended in its place, on the whole stack."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from orderflow.client import Client
from tests.support import store
from tests.support.command import asked, orderflow
from tests.support.messages import produce
from tests.support.stacks import running
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from orderflow.stack import Stack

STATUSES = ("pending", "confirmed", "shipped", "new", "delivered")

DUMP = {
    "orders": "order_id, customer_id, order_date, currency, items, total_minor, shipping_minor, status,"
    " last_epoch, last_partition, last_offset, updated_at",
    "history": "*",
    "skipped_messages": "epoch, partition, offset, reason, key, value, order_id, placed, event_id, opened_by, state,"
    " repairs",
    "controls": "*",
}


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with running(tmp_path_factory.mktemp("healing")) as stack:
        yield stack


def created(order_id: str, event_id: str | None = None, customer: str = "c-1") -> bytes:
    order = {
        "orderId": order_id, "customerId": customer, "orderDate": "2026-01-02T03:04:05Z",
        "items": [{"itemId": "tea", "quantity": 2, "price": 4.25}], "totalAmount": 8.5, "currency": "EUR",
    }  # fmt: skip
    identity = {} if event_id is None else {"event_id": event_id}
    return json.dumps({"type": "order.created", "order_id": order_id, **identity, "order": order}).encode()


def destroyed(stack: Stack, order_id: str, value: bytes) -> str:
    """Put a record on the topic that was damaged on its way; give the id of its skip."""
    ((partition, offset),) = produce(stack.settings, [{"key": order_id.encode(), "value": value}])
    name = f"1-{partition}-{offset}"
    until(lambda: name in _open(stack), f"{name} is skipped", within_s=10)
    return name


def _open(stack: Stack) -> list[str]:
    return [one["id"] for one in asked(stack, "skipped", "list", "--limit", "10000")["skippedMessages"]]


def _dump(stack: Stack) -> dict[str, list[Any]]:
    return {
        table: sorted(store.query(stack.settings, f"SELECT {of} FROM {table}"), key=repr) for table, of in DUMP.items()
    }


def test_one_redrive_heals_a_destroyed_create_and_the_five_updates_behind_it(stack: Stack, tmp_path: Path) -> None:
    """The preview says what then happens; the audit finds nothing; built anew, the projection is the same."""
    name = destroyed(stack, "ord-five", created("ord-five")[:60])
    mended = tmp_path / "mended.json"
    mended.write_bytes(created("ord-five"))
    with Client.from_settings(stack.settings) as client:
        for status in STATUSES:
            assert client.update_order("ord-five", status).outcome == "published"
        until(lambda: len(_open(stack)) == 6, "five updates are skipped", within_s=10)
        assert client.order_details("ord-five").status == 404
        reasons = asked(stack, "skipped", "list", "--order", "ord-five")["counts"]

        redrive = ("skipped", "redrive", name, "--event", str(mended))
        (change,) = asked(stack, *redrive, "--simulate")["changes"]
        assert client.order_details("ord-five").status == 404, "a preview changes nothing"
        (result,) = asked(stack, *redrive, "--because", "destroyed by the shop's proxy", "--author", "mira")["results"]

        order = client.order_details("ord-five").body["order"]

    assert reasons == {"unknown_order": 5, "malformed_json": 1}
    assert (result["verdict"], result["state"]) == ("accepted", "repaired")
    assert order["status"] == "delivered"
    assert change["before"] is None
    assert change["after"] == order
    assert (change["repaired"], len(change["heals"]), change["remains"]) == ([name], 5, [])
    assert _open(stack) == []
    shown = asked(stack, "skipped", "show", name)["skippedMessage"]
    assert [(one["author"], one["reason"]) for one in shown["controls"]] == [("mira", "destroyed by the shop's proxy")]
    before = _dump(stack)
    assert len(before["skipped_messages"]) == 6
    orderflow(stack, "audit")
    assert asked(stack, "rebuild", "--yes")["differences"] == 0
    assert _dump(stack) == before


def test_the_preview_warns_where_the_client_created_the_order_again_meanwhile(stack: Stack) -> None:
    """The healed create makes the later one a second create: that skip is shown beforehand, and kept."""
    name = destroyed(stack, "ord-again", created("ord-again", customer="c-early")[:60])
    with Client.from_settings(stack.settings) as client:
        again = client.create_order("ord-again", 1)
        client.wait_for_order("ord-again")
        later = f"1-{again.body['partition']}-{again.body['offset']}"
        url = f"/skipped-messages/{name}/redrive"
        wish = json.dumps({"author": "kim", "event": json.loads(created("ord-again", customer="c-early"))}).encode()
        json_body = {"Content-Type": "application/json"}

        preview = client.request("order", "POST", f"{url}?simulate=true", wish, json_body)
        assert client.wait_for_order("ord-again")["customerId"] == again.order["customerId"]
        answer = client.request("order", "POST", url, wish, json_body)
        until(lambda: _open(stack) == [later], "the later create is a skip", within_s=10)

        change = preview.body["change"]
        assert (preview.status, answer.status, answer.body["outcome"]) == (200, 202, "spooled")
        assert change["before"]["customerId"] == again.order["customerId"]
        assert change["after"]["customerId"] == "c-early"
        assert [(one["id"], one["reason"]) for one in change["becomesSkipped"]] == [(later, "duplicate_create")]
        assert client.wait_for_order("ord-again") == change["after"]
        kept = asked(stack, "skipped", "show", later)["skippedMessage"]
        assert json.loads(kept["payload"])["event_id"] == again.body["eventId"]
        assert "since the repair at offset" in kept["detail"]
    orderflow(stack, "skipped", "discard", later, "--because", "the first one stays")
    assert _open(stack) == []


@pytest.mark.faults
def test_a_redrive_of_an_order_that_moved_on_is_refused(stack: Stack) -> None:
    """At the desk, when the caller quotes an older state; and by the consumer, when the order moves on after it."""
    name = destroyed(
        stack, "ord-moved", b'{"type": "order.status_changed", "order_id": "ord-moved", "status": "SHIPPED"}'
    )
    mended = b'{"type": "order.status_changed", "order_id": "ord-moved", "status": "shipped"}'
    seen = int(name.rpartition("-")[2])
    with Client.from_settings(stack.settings) as client:
        client.create_order("ord-moved", 1)
        client.wait_for_order("ord-moved")
        wish = {"author": "kim", "event": json.loads(mended), "ifLast": seen}
        refused = client.request(
            "order", "POST", f"/skipped-messages/{name}/redrive", json.dumps(wish).encode(),
            {"Content-Type": "application/json"},
        )  # fmt: skip
        assert (refused.status, refused.body["type"]) == (409, "/problems/order-moved-on")

        stack.stop("outbox-relay")
        orderflow(stack, "skipped", "redrive", name, "--event", "-", "--wait", "0", code=1, stdin=mended.decode())
        client.update_order("ord-moved", "confirmed")
        client.wait_for_order("ord-moved", until="confirmed")
        stack.start("outbox-relay")
        shown = until(lambda: _controls(stack, name), "the control is judged", within_s=15)

        assert [one["verdict"] for one in shown] == ["stale"]
        assert client.wait_for_order("ord-moved")["status"] == "confirmed"
        assert name in _open(stack)
        at_end = asked(stack, "skipped", "redrive", name, "--event", _file(stack, mended), "--at-end")["results"]
        assert client.wait_for_order("ord-moved", until="shipped")
        assert [one["state"] for one in at_end] == ["discarded"]
    orderflow(stack, "audit")
    assert asked(stack, "rebuild", "--dry-run")["differences"] == 0


def _controls(stack: Stack, name: str) -> list[dict[str, Any]]:
    controls: list[dict[str, Any]] = asked(stack, "skipped", "show", name)["skippedMessage"]["controls"]
    return controls


def _file(stack: Stack, value: bytes) -> str:
    path = stack.directory / "mended.json"
    path.write_bytes(value)
    return str(path)
