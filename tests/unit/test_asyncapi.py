"""docs/asyncapi.yaml is held to the code: its schemas, its examples, its topics and its headers."""

from __future__ import annotations

import re
from copy import deepcopy
from typing import Any

import msgspec
import pytest
from jsonschema_rs import Draft202012Validator

from orderflow import controls, events
from orderflow.broker import PARTITIONS
from orderflow.broker.topic import CONFIG, dead_letter_config
from orderflow.errors import InvalidEvent
from orderflow.orders import OrderId
from orderflow.settings import Settings
from orderflow.shapes import Schemas
from tests.support.asyncapi import document, made_schemas

TYPES = {*events.TYPES.values(), *controls.TYPES.values()}


@pytest.fixture(scope="module")
def described() -> dict[str, Any]:
    return document()


def drift(described: dict[str, Any]) -> list[str]:
    """Schemas that are not what the types have now. `python -m tests.support.asyncapi` writes them."""
    made, told = made_schemas(), described["components"]["schemas"]
    return sorted(name for name in made.keys() | told.keys() if made.get(name) != told.get(name))


def test_the_schemas_are_those_of_the_types_that_decode(described: dict[str, Any]) -> None:
    assert drift(described) == []


def test_a_drift_of_the_schemas_is_found(described: dict[str, Any]) -> None:
    changed = deepcopy(described)
    changed["components"]["schemas"]["StatusChanged"]["required"].remove("status")
    del changed["components"]["schemas"]["Item"]

    assert drift(changed) == ["Item", "StatusChanged"]


def example_problems(described: dict[str, Any]) -> list[str]:
    """Examples that our decoder does not take for what they are to be, or that their schema does not."""
    problems = []
    for name, message in described["components"]["messages"].items():
        assert message["examples"], name
        if name in TYPES:
            schema = message["payload"] | {"components": described["components"]}
            for example in message["examples"]:
                value = msgspec.json.encode(example["payload"])
                where = f"{name}, {example['name']}"
                problems += [f"{where}: {problem}" for problem in refusals(value, name)]
                if not Draft202012Validator(schema).is_valid(example["payload"]):
                    problems.append(f"{where}: is not valid to its schema")
    return problems


def refusals(value: bytes, name: str) -> list[str]:
    try:
        if name in controls.TYPES.values():
            found = controls.TYPES[type(controls.decode(value))]
        else:
            found = events.TYPES[type(events.decode(value))]
    except InvalidEvent as error:
        return [error.detail]
    return [] if found == name else [f"is {found}"]


def test_every_example_is_accepted_by_the_decoder(described: dict[str, Any]) -> None:
    assert set(described["components"]["messages"]) == {*TYPES, "deadLetter"}
    assert example_problems(described) == []


def broken_total(payloads: dict[str, Any]) -> None:
    payloads["order.created"]["order"]["totalAmount"] = 26.48


def other_type(payloads: dict[str, Any]) -> None:
    payloads["order.status_changed"]["type"] = "order.lost"


def no_event(payloads: dict[str, Any]) -> None:
    payloads["message.repaired"]["event"]["status"] = "lost"


def no_author(payloads: dict[str, Any]) -> None:
    del payloads["message.discarded"]["author"]


@pytest.mark.parametrize(
    ("breaks", "said"),
    [
        (broken_total, "order.created, from-cart-service: Expected `totalAmount` 26.49"),
        (other_type, "order.status_changed, from-cart-service: "),
        (no_event, "message.repaired, of-an-operator: The mended event is no event"),
        (no_author, "message.discarded, of-an-operator: Object missing required field `author`"),
    ],
)
def test_a_broken_example_is_found(described: dict[str, Any], breaks: Any, said: str) -> None:
    broken = deepcopy(described)
    breaks({name: one["examples"][0]["payload"] for name, one in broken["components"]["messages"].items()})

    assert any(problem.startswith(said) for problem in example_problems(broken))


def test_a_dead_letter_is_no_event(described: dict[str, Any]) -> None:
    """Its headers are those that the relay writes."""
    (example,) = described["components"]["messages"]["deadLetter"]["examples"]

    assert refusals(example["payload"].encode(), "order.created")
    assert set(example["headers"]) == set(described["components"]["schemas"]["DeadLetterHeaders"]["properties"])


def test_the_headers_of_an_example_are_those_of_an_event(described: dict[str, Any]) -> None:
    example = described["components"]["messages"]["order.created"]["examples"][0]

    assert set(example["headers"]) == set(described["components"]["schemas"]["Headers"]["properties"])
    assert example["headers"]["ce_id"] == example["payload"]["event_id"]


def test_the_key_of_an_event_is_described_as_what_an_orders_id_may_be(described: dict[str, Any]) -> None:
    messages = described["components"]["messages"]
    keys = [messages[name]["bindings"]["kafka"]["key"] for name in events.TYPES.values()]

    assert keys == [Schemas("").of(OrderId) | {"description": "The order's id."}] * 2


def written(config: dict[str, str]) -> dict[str, Any]:
    """A topic's configuration as the bindings have it."""
    numbers = {name: int(value) if re.fullmatch(r"-?\d+", value) else value for name, value in config.items()}
    return {name: [value] if name == "cleanup.policy" else value for name, value in numbers.items()}


def test_the_topics_are_described_as_they_are_made(described: dict[str, Any]) -> None:
    settings = Settings()
    config = {
        settings.topic: CONFIG,
        settings.dead_letter_topic_name: dead_letter_config(settings.dead_letter_retention_days),
    }

    told = {channel["address"]: channel["bindings"]["kafka"] for channel in described["channels"].values()}

    assert {name: one["topicConfiguration"] for name, one in told.items()} == {
        name: written(one) for name, one in config.items()
    }
    assert {(name, one["topic"], one["partitions"]) for name, one in told.items()} == {
        (name, name, PARTITIONS) for name in config
    }
    (group,) = described["operations"]["applyOrderEvents"]["bindings"]["kafka"]["groupId"]["enum"]
    assert group == settings.consumer_group
