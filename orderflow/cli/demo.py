"""``orderflow demo``: send what is good and what is bad through the running stack, and show what came of each."""

from __future__ import annotations

import time
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import msgspec
import typer

from orderflow.broker.raw import RawProducer, RawRecord
from orderflow.cli.terminal import JsonOption, StackOption, settings_of, show_json, show_table
from orderflow.client import Client
from orderflow.orders import Status
from orderflow.store.reader import Reader
from orderflow.store.skips import Skips, Wanted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orderflow.client import Answer
    from orderflow.settings import Settings
    from orderflow.store.rows import SkippedRow

#: How long each thing may take to show.
TIMEOUT_S = 15.0
LOOK_S = 0.02

#: Skips that are looked through for the one that the demo made.
RECENT = 1_000

ITEMS = [{"itemId": "tea", "quantity": 3, "price": 4.50}, {"itemId": "pot", "quantity": 1, "price": 21.99}]
MALFORMED = b'{"type": "order.created", "order_id": "ord-'


class Step(msgspec.Struct, frozen=True):
    """One thing that was sent, the answer to it, and what shows afterwards."""

    sent: str
    answer: str
    then: str
    ok: bool


def demo(*, stack: StackOption = None, as_json: JsonOption = False) -> None:
    """Send orders, updates, an invalid request and a malformed message, and show what came of each.

    Exit code 0: all of it came out as it should; 1: something did not.

    For example:
    $ orderflow demo
    $ orderflow demo --json
    """
    settings = settings_of(stack)
    with Client.from_settings(settings, timeout_s=TIMEOUT_S) as client:
        steps = list(_steps(client, settings, f"demo-{int(time.time() * 1000):x}"))
    ok = all(step.ok for step in steps)

    if as_json:
        show_json({"ok": ok, "steps": steps})
    else:
        show_table(
            ("", "sent", "answer", "then"), [("ok" if s.ok else "NOT SO", s.sent, s.answer, s.then) for s in steps]
        )
    raise typer.Exit(0 if ok else 1)


def _steps(client: Client, settings: Settings, name: str) -> Iterator[Step]:
    yield _write(client, f"create {name}-1, 2 items", client.create_order(f"{name}-1", 2), f"{name}-1", Status.NEW)
    cart = client.create_order(f"{name}-2", items=ITEMS, customer_id="customer-1", currency="EUR")
    yield _write(client, f"create {name}-2 with a cart of its own", cart, f"{name}-2", Status.NEW)
    for status in (Status.CONFIRMED, Status.SHIPPED):
        answer = client.update_order(f"{name}-1", status)
        yield _write(client, f"update {name}-1 to {status}", answer, f"{name}-1", status)
    yield _invalid(client, name)
    yield _malformed(settings, name)


def _write(client: Client, sent: str, answer: Answer, order_id: str, status: str) -> Step:
    """Say what came of a create or an update, and what order-details says then."""
    taken = answer.outcome in {"published", "spooled"}
    try:
        order = client.wait_for_order(order_id, until=status, timeout_s=TIMEOUT_S)
    except TimeoutError as error:
        return Step(sent, _said(answer), str(error), ok=False)
    then = f"{order['status']}: {order['totalAmount']:.2f} {order['currency']} + {order['shippingCost']:.2f} shipping"
    return Step(sent, _said(answer), then, ok=taken)


def _invalid(client: Client, name: str) -> Step:
    """Send a request that is refused; nothing of it may show."""
    answer = client.create_order(f"{name}-3", 0)
    details = client.order_details(f"{name}-3")
    ok = (answer.status, details.status) == (HTTPStatus.BAD_REQUEST, HTTPStatus.NOT_FOUND)
    return Step(f"create {name}-3, 0 items", _said(answer), _said(details), ok=ok)


def _malformed(settings: Settings, name: str) -> Step:
    """Put something on the topic that is no JSON, past the service; it must be skipped and kept."""
    sent = f"to the topic: {MALFORMED.decode()}"
    with RawProducer(settings, "demo") as producer:
        ((partition, offset),) = producer.send([RawRecord(MALFORMED, key=f"{name}-4".encode())])
    place = f"partition {partition}, offset {offset}"
    row = _wait_for_skip(settings, partition, offset)
    if row is None:
        return Step(sent, place, f"not among the skipped messages in {TIMEOUT_S:g} s", ok=False)
    return Step(sent, place, f"skipped, {row.reason}: {row.detail}", ok=row.reason == "malformed_json")


def _wait_for_skip(settings: Settings, partition: int, offset: int) -> SkippedRow | None:
    skips = Skips(Reader(settings))
    deadline = time.monotonic() + TIMEOUT_S
    while time.monotonic() < deadline:
        for _, row in skips.newest(Wanted(), RECENT):
            if (row.partition, row.offset) == (partition, offset):
                return row
        time.sleep(LOOK_S)
    return None


def _said(answer: Answer) -> str:
    """Put an answer into a line."""
    body: Any = answer.body
    if answer.outcome == "published":
        return f"{answer.status} published, partition {answer.partition}, offset {answer.offset}"
    if answer.outcome == "spooled":
        return f"{answer.status} spooled, {body['ahead']} ahead"
    return f"{answer.status or 'no answer'} {body.get('detail') or answer.error}"
