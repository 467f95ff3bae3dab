"""What Schemathesis is to find: data of every state in a stack, offered to it as examples of the parameters and bodies.

The examples of one operation are tried in turn, those at the same position together.
"""

from __future__ import annotations

import json
import uuid
from contextlib import closing, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from orderflow.alerts import Cause
from orderflow.broker.raw import RawProducer, RawRecord
from orderflow.store.alerts import Alerts, Opening
from tests.support.messages import changed, created
from tests.support.outage import ask
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orderflow.stack import Stack

#: The problems that the examples bring about, whatever else is tried.
PROBLEMS = {
    "GET /order-details": {"409 event-skipped", "504 not-applied-yet"},
    "GET /getAllOrderIdsFromTopic": {"404 unknown-topic"},
    "GET /order-timeline": {"404 unknown-order"},
    "GET /events/{eventId}": {"404 unknown-event", "409 ambiguous-event"},
    "GET /skipped-messages/{id}": {"404 unknown-skip"},
    "POST /skipped-messages/{id}/redrive": {
        "404 unknown-skip", "409 no-event", "409 no-effect", "409 order-moved-on", "409 wrong-order"
    },
    "POST /skipped-messages/{id}/discard": {"404 unknown-skip", "409 order-moved-on"},
    "POST /alerts/{id}/acknowledge": {"404 unknown-alert", "409 alert-resolved"},
}  # fmt: skip

#: operationId -> the name of a parameter, or `BODY` -> the examples.
Examples = dict[str, dict[str, list[Any]]]

BODY = "(body)"

#: So many orders have an update of nothing, and a record that is no event; too few for a flood of skips.
SKIPPED_ORDERS = 15

#: No program of this version opens or resolves it: it stays open however often it is acknowledged.
ANOTHER_VERSIONS = "of_another_version"


def described_with(document: dict[str, Any], examples: Examples) -> dict[str, Any]:
    """Put the examples of its operations into a description, in place of its own."""
    operations = {
        operation["operationId"]: operation for path in document["paths"].values() for operation in path.values()
    }
    for name in examples.keys() & operations.keys():
        places = {parameter["name"]: parameter for parameter in operations[name]["parameters"]}
        for content in operations[name].get("requestBody", {}).get("content", {}).values():
            places[BODY] = content
        for where, values in examples[name].items():
            places[where]["examples"] = {f"laid{number}": {"value": value} for number, value in enumerate(values)}
    return document


@contextmanager
def laid(stack: Stack) -> Iterator[Examples]:
    """Lay the data, and give the examples for the order service; the alerts are closed in the end."""
    run = uuid.uuid4().hex[:8]
    order, twins = f"laid-{run}", [f"twin-{run}-{number}" for number in range(2)]
    nothings = [f"nothing-{run}-{number}" for number in range(SKIPPED_ORDERS)]
    records = [
        _record(_create(order)),
        *(_record(created(twin, event_id=_id("twins", run))) for twin in twins),
        *(_record(changed(nothing, event_id=_id(nothing))) for nothing in nothings),
        *(RawRecord(b"{", nothing.encode()) for nothing in nothings),
    ]
    with RawProducer(stack.settings) as producer:
        producer.send(records)
    port = stack.settings.order_port
    skips = until(lambda: _skips(port, nothings), "what cannot be applied is skipped", within_s=20, every_s=0.05)
    for one in (order, *twins):
        applied = partial(ask, port, f"/order-details?orderId={one}")
        until(lambda applied=applied: "order" in applied(), f"{one} is applied", within_s=20)
    with closing(Alerts(stack.settings)) as alerts:
        opened = _alerts(alerts)
        try:
            yield _examples(stack, run, skips) | {"acknowledgeAlert": {"id": opened}}
        finally:
            for alert_id in opened:
                alerts.acknowledge(int(alert_id), "a-test", None, resolves=True)


def _examples(stack: Stack, run: str, skips: dict[str, tuple[str, str]]) -> Examples:
    """Name what is laid; ``skips`` is what `_skips` gives. A skip that is to be healed is used once."""
    order, unknown = f"laid-{run}", f"nobody-{run}"
    (first, (skip, _)), *others = skips.items()
    wishes = iter(others)
    return {
        "orderDetails": {
            "orderId": [order, first, order],
            "after": [_id(order), _id(first), _id("never sent")],
        },
        "orderIds": {"topic": [stack.settings.topic, "of-another-system"]},
        "orderTimeline": {"orderId": [order, first, unknown]},
        "event": {"eventId": [_id(order), _id(first), _id("twins", run), _id("never sent")]},
        "skippedMessage": {"id": [skip, "9-9-9"]},
        "redrive": _turned(_redrives(wishes)),
        "discard": _turned(_discards(wishes)),
    }


def _redrives(skips: Iterator[tuple[str, tuple[str, str]]]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Give what is to be simulated, accepted, and refused: the skip, whether it is a simulation, and the body."""
    said = {"author": "kim", "reason": "a test"}
    for simulate in ("true", "false"):
        nothing, (update, broken) = next(skips)
        yield broken, simulate, {**said, "event": _create(nothing)}
        yield next(skips)[1][0], simulate, {**said, "atEnd": True, "force": True}
        yield next(skips)[1][0], simulate, {**said, "force": True}
        yield update, simulate, {**said, "ifLast": 0, "force": True}
    _, (update, broken) = next(skips)
    yield update, "false", said
    yield broken, "false", said
    yield broken, "false", {**said, "event": _create("another")}
    yield "9-9-9", "true", said


def _discards(skips: Iterator[tuple[str, tuple[str, str]]]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    said = {"author": "kim", "reason": "a test"}
    _, (update, broken) = next(skips)
    yield update, "true", said
    yield update, "false", said
    yield broken, "false", {**said, "ifLast": 0}
    yield "9-9-9", "true", said


def _turned(wishes: Iterator[tuple[str, str, dict[str, Any]]]) -> dict[str, list[Any]]:
    return dict(zip(("id", "simulate", BODY), map(list, zip(*wishes, strict=True)), strict=True))


def _alerts(alerts: Alerts) -> list[str]:
    """Alerts: one that stays open, one that is closed by who looks after it, one that is closed, and one of nobody."""
    causes = (ANOTHER_VERSIONS, Cause.INTERNAL_ERROR, Cause.LOG_STARTS_LATE)
    openings = [Opening(cause, "critical", "a-test", "Nothing happened.", 1, 1_700_000_000_000) for cause in causes]
    ids = [str(alerts.open(opening)[0]) for opening in openings]
    alerts.resolve(Cause.LOG_STARTS_LATE, "It did not.")
    return [*ids, "999999999"]


def _skips(port: int, orders: list[str]) -> dict[str, tuple[str, str]] | None:
    """Give the ids of each order's skips, the update of nothing first; None while some are missing."""
    found: dict[str, dict[str, str]] = {order: {} for order in orders}
    for skip in ask(port, "/skipped-messages?limit=1000")["skippedMessages"]:
        if skip["orderId"] in found:
            found[skip["orderId"]][skip["reason"]] = skip["id"]
    if any(len(ids) < 2 for ids in found.values()):
        return None
    return {order: (ids["unknown_order"], ids["malformed_json"]) for order, ids in found.items()}


def _id(*of: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_URL, "/".join(of)))


def _create(order_id: str) -> dict[str, Any]:
    return created(order_id, event_id=_id(order_id))


def _record(event: dict[str, Any]) -> RawRecord:
    return RawRecord(json.dumps(event).encode(), event["order_id"].encode())
