"""What JSON Schema cannot say, said to Schemathesis; it loads this module itself. And what was seen, written down.

Data that is to be refused is left as it was made, but for long waits; so is every header.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import schemathesis
from schemathesis.openapi.checks import RejectedPositiveData

#: Where to write what was seen: a list of [operation, phase, answer], one for each case.
SEEN = "ORDERFLOW_TEST_SEEN"

#: A read that waits for an event which nobody has sent takes all of its time: up to 30 s, and 2 s by default. A wait
#: that is longer than the first is made as long as the second.
WAIT_MAX_S, WAIT_S = 0.2, 0.05


@schemathesis.hook
def before_call(_: Any, case: Any, __: Any) -> None:
    if case.query and "after" in case.query:
        shorten(case.query)
    if case.meta is not None and case.meta.generation.mode.is_negative:
        return
    case.body = exact(case.body)
    if isinstance(case.body, dict) and isinstance(case.body.get("event"), dict):
        case.body["event"] = added_up(case.body["event"])


@schemathesis.hook
def filter_failure(_: Any, failure: Any, case: Any, __: Any) -> bool:
    """Let null be refused: taken from an answer (an event without an id has it), it is no valid id to ask for."""
    taken = case.path_parameters.get("eventId", "") in (None, "null")
    return not (taken and isinstance(failure, RejectedPositiveData))


def shorten(query: dict[str, Any]) -> None:
    with suppress(TypeError, ValueError):  # what is no number is refused at once
        if WAIT_MAX_S < float(query.get("wait", 2)) <= 30:
            query["wait"] = WAIT_S


@schemathesis.check
class Seen:
    """Finds nothing: it keeps which answers the other checks were given."""

    def __init__(self) -> None:
        self._cases: dict[str, tuple[str, str, str]] = {}

    def after_response(self, _: Any, response: Any, case: Any) -> None:
        """Keep an answer; a request with another method than the operation's is none of its cases."""
        if case.method.upper() == case.operation.method.upper():
            self._cases[case.id] = (case.operation.label, case.meta.phase.name.value, answer(response))

    def after_run(self, _: Any) -> None:
        Path(os.environ[SEEN]).write_text(json.dumps(list(self._cases.values())), encoding="utf-8")


def answer(response: Any) -> str:
    """Name an answer: its status, and of a problem the kind: ``409 event-skipped``."""
    if response.headers.get("content-type", [""])[0] != "application/problem+json":
        return str(response.status_code)
    return f"{response.status_code} {response.json()['type'].rpartition('/')[2]}"


def exact(value: Any) -> Any:
    """Amounts have two decimal places, which binary floats miss; and 5.0 is an integer to JSON Schema, but not here."""
    if isinstance(value, dict):
        return {name: exact(one) for name, one in value.items()}
    if isinstance(value, list):
        return [exact(one) for one in value]
    if isinstance(value, float):
        return int(value) if value.is_integer() else round(value, 2)
    return value


def added_up(event: dict[str, Any]) -> dict[str, Any]:
    """An order's total is the sum of its items, and the order is the event's."""
    if not isinstance(order := event.get("order"), dict):
        return event
    cents = sum(round(item["price"] * 100) * item["quantity"] for item in order["items"])
    return event | {"order": order | {"orderId": event["order_id"], "totalAmount": exact(cents / 100)}}


@schemathesis.hook
def before_load_schema(_: Any, schema: dict[str, Any]) -> None:
    """Close the answers: a member that is not described is a finding. Clients are told to take further ones."""
    named = schema["components"]["schemas"]
    asked, answered = set[str](), set[str]()
    for path in schema["paths"].values():
        for operation in path.values():
            reach(operation.get("requestBody", {}), named, asked)
            reach(operation["responses"], named, answered)
    for name in answered - asked:
        if "properties" in named[name]:
            named[name].setdefault("additionalProperties", False)


def reach(schema: Any, named: dict[str, Any], found: set[str]) -> None:
    """Add the names that a schema refers to, and those that these refer to."""
    if isinstance(schema, list):
        for one in schema:
            reach(one, named, found)
    elif isinstance(schema, dict):
        for name, value in schema.items():
            target = str(value).removeprefix("#/components/schemas/")
            if name == "$ref" and target in named and target not in found:
                found.add(target)
                reach(named[target], named, found)
            else:
                reach(value, named, found)
