"""The values of records: events and controls as they stand on the wire, whole or harmed, and what they decode to."""

from __future__ import annotations

import json
from typing import Any

from tests.support.healing.model import BEHIND_DECODER, IN_DECODER, Control, Event

#: In a value: decoding it, and applying it, raise an error that nobody foresaw.
UNDECODABLE, UNAPPLICABLE = "a bug in the decoder", "a bug behind the decoder"


def uuid(number: int) -> str:
    return f"00000000-0000-4000-8000-{number:012d}"


def encoded(value: object) -> bytes:
    return json.dumps(value).encode()


def wire(said: Event, event_id: str | None, **more: object) -> dict[str, Any]:
    """An event as it stands in a value. ``more`` does not belong to its content."""
    identity = {} if event_id is None else {"event_id": event_id}
    value: dict[str, Any] = {"order_id": said.order, **identity, **more}
    if said.says[0] == "changed":
        return value | {"type": "order.status_changed", "status": said.says[1]}
    _, customer, cents = said.says
    amount = int(cents) / 100
    order = {
        "orderId": said.order, "customerId": customer, "orderDate": said.date, "currency": "EUR",
        "items": [{"itemId": "i", "quantity": 1, "price": amount}], "totalAmount": amount,
    }  # fmt: skip
    return value | {"type": "order.created", "order": order}


def harmed(said: Event, value: dict[str, Any], harm: str) -> tuple[Event | str, bytes | None, str | None, str]:
    """Harm an event's value. Give what it decodes to, the value, the id that is known, and where an error is raised."""
    known = value.get("event_id")
    bug = BEHIND_DECODER if harm.endswith("unapplicable") else ""
    if bug:
        value |= {"note": UNAPPLICABLE}
    harms: dict[str, tuple[Event | str, bytes | None, str | None, str]] = {
        "undecodable": (said, encoded(value | {"note": UNDECODABLE}), known, IN_DECODER),
        "wrong value": ("invalid_event", encoded(value | {"status": "LOST", "order": 5}), known, ""),
        "bad id": ("invalid_event", encoded(value | {"event_id": f"{known}A"}), None, ""),
        "unknown type": ("unknown_type", encoded(value | {"type": "order.lost"}), known, ""),
        "null": ("invalid_event", b"null", None, ""),
        "list": ("invalid_event", b"[]", None, ""),
        "malformed": ("malformed_json", encoded(value)[:-1], None, ""),
        "no value": ("malformed_json", None, None, ""),
        "unreadable": ("unreadable_record", encoded(value), None, ""),
        "unreadable, unapplicable": ("unreadable_record", encoded(value), None, bug),
        "lost": ("unreadable_record", None, None, ""),
    }
    return harms.get(harm, (said, encoded(value), known, bug))


def control_value(
    control: Control, fault: str, note: str, mended_id: str, successor: str | None
) -> tuple[Control | str, bytes, str]:
    """Write a control, with a fault. Give what its value decodes to, the value, and where an error is raised.

    ``mended_id`` is in the mended event, where it means nothing.
    """
    value: dict[str, Any] = {
        "type": "message.discarded" if control.event is None else "message.repaired",
        "event_id": control.id, "topic_id": control.topic_id, "partition": control.partition, "offset": control.offset,
        "if_last": control.if_last, "operation": control.operation, "successor": successor,
        "author": " " if fault == "no author" else "mira", "reason": note,
    }  # fmt: skip
    bug = BEHIND_DECODER if fault == "unapplicable" else ""
    if bug:
        value["note"] = UNAPPLICABLE
    if control.event is not None:
        value["event"] = mended = wire(control.event, mended_id)
        if fault == "no event":
            mended["type"] = "order.lost"
        if fault == "undecodable":
            mended["note"] = UNDECODABLE
            bug = IN_DECODER if control.if_last is not None else ""  # Without it the event is not looked at.
    raw = encoded({name: said for name, said in value.items() if said is not None})
    return _decodes_to(control, fault), raw, bug


def _decodes_to(control: Control, fault: str) -> Control | str:
    if fault == "unreadable":
        return "unreadable_record"
    if fault == "no author" or (control.event is not None and (fault == "no event" or control.if_last is None)):
        return "invalid_control"
    return control
