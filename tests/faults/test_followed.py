"""One event, followed by its trace through an outage: in the logs of every process it passes, and in its timeline."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from tests.faults.test_outage import SHORT_WAITS
from tests.support.calls import Caller
from tests.support.outage import log_lines
from tests.support.waiting import until

if TYPE_CHECKING:
    from tests.conftest import MakeStack

pytestmark = [pytest.mark.faults, pytest.mark.timeout(120)]

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACED = {"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}

#: Who says what of an event that was spooled.
LINES = {
    "cart-service": "request.handled",
    "outbox-relay": "outbox.event_delivered",
    "order-consumer": "order.event_applied",
    "order-service": "request.handled",
}


def test_a_spooled_event_is_followed_to_its_end(make_stack: MakeStack) -> None:
    stack = make_stack(**SHORT_WAITS)
    stack.up()
    stack.stop("kafka")
    with closing(Caller(stack.settings.cart_port)) as cart, closing(Caller(stack.settings.order_port)) as orders:
        sent = cart.call("POST", "/create-order", {"orderId": "ord-1", "itemsNum": 1}, TRACED)
        event_id = sent.body["eventId"]
        after = f"/order-details?orderId=ord-1&after={event_id}"
        too_early = orders.call("GET", f"{after}&wait=0.2", headers=TRACED)
        waits = orders.call("GET", "/order-timeline?orderId=ord-1").body

        stack.start("kafka")

        def read() -> bool:
            return orders.call("GET", f"{after}&wait=5", headers=TRACED).status == 200

        until(read, "the event is applied", within_s=30)
        timeline = orders.call("GET", "/order-timeline?orderId=ord-1").body
        found = orders.call("GET", f"/events/{event_id}").body["event"]

    assert (sent.status, sent.body["outcome"]) == (202, "spooled")
    assert (too_early.status, too_early.body["event"]["state"]) == (504, "spooled")
    assert (waits["order"], [event["state"] for event in waits["events"]]) == (None, ["spooled"])
    assert timeline["events"] == [found]
    assert [(step["step"], step["traceId"]) for step in found["steps"]] == [
        ("accepted", TRACE), ("spooled", TRACE), ("published", TRACE), ("applied", TRACE)
    ]  # fmt: skip
    times = [step["at"] for step in found["steps"]]
    assert times == sorted(times)
    for program, event in LINES.items():
        lines = until(lambda: log_lines(stack, program, event), f"{program} tells of it", within_s=5)  # noqa: B023 (asked at once)
        traced = [line for line in lines if line["trace_id"] == TRACE]
        assert traced, program
        assert program == "order-service" or [line["event_id"] for line in traced] == [event_id]
