"""docs/asyncapi.yaml: its schemas are made of the types that decode. Run as a module it writes them there."""

from __future__ import annotations

from typing import Any

import yaml

from orderflow.broker import PARTITIONS
from orderflow.controls import Control
from orderflow.envelope import event_message
from orderflow.events import Event, SkipReason, StatusChanged, now, random_event_id
from orderflow.orders import Status
from orderflow.shapes import Schemas
from orderflow.store.dead_letters import DeadLetter, Stretch
from orderflow.tracing import join
from outbox_relay.dead_letters import copy_of
from tests.support.documents import DOCS, read
from tests.support.skips import TOPIC_ID, skip

PATH = DOCS / "asyncapi.yaml"
MARK = "\n  schemas:\n"


def made_schemas() -> dict[str, Any]:
    """The schemas of payloads and headers, by name."""
    schemas = Schemas("#/components/schemas/{name}")
    schemas.of(Event)
    schemas.of(Control)
    # AsyncAPI's discriminator finds schemas by their names, which are not our types.
    schemas.named["Repaired"]["properties"]["event"].pop("discriminator")
    return schemas.named | {
        "Headers": _texts(_event_headers()),
        "DeadLetterHeaders": _texts(_dead_letter_headers()),
    }


def _texts(names: list[str]) -> dict[str, Any]:
    return {"type": "object", "properties": {name: {"type": "string"} for name in names}}


def _event_headers() -> list[str]:
    event = StatusChanged(order_id="a", event_id=random_event_id(), occurred_at=now(), status=Status.NEW)
    return [name for name, _ in event_message(event, join(None), b"/test").headers]


def _dead_letter_headers() -> list[str]:
    row = skip(0, reason=str(SkipReason.INTERNAL_ERROR), exception="ZeroDivisionError")
    letter = DeadLetter("topic", Stretch(TOPIC_ID, row.epoch, row.partition), row)
    return [name for name, _ in copy_of(letter, "group", PARTITIONS).headers]


def document() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(read(PATH))
    return found


def write() -> None:
    """Write the schemas that the types have now."""
    head, _, _ = read(PATH).partition(MARK)
    dumped = yaml.safe_dump(made_schemas(), sort_keys=True, width=110, allow_unicode=True)
    body = "".join(f"    {line}" for line in dumped.splitlines(keepends=True))
    PATH.write_text(head + MARK + body, encoding="utf-8")


if __name__ == "__main__":
    write()
