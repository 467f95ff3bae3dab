"""An event or a control as a message for Kafka.

The headers are for other tools: CloudEvents' binary attributes, and the trace.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from orderflow import controls, events
from orderflow.messages import Message

if TYPE_CHECKING:
    from datetime import datetime

    from orderflow.controls import Control
    from orderflow.events import Event
    from orderflow.tracing import Trace

#: Programs that write messages, as `ce_source` names them.
CART_SERVICE = b"/orderflow/cart-service"
OPERATOR = b"/orderflow/operator"


def event_message(event: Event, trace: Trace, source: bytes) -> Message:
    """Write an event that has an id."""
    event_id = event.event_id or ""
    key = event.order_id.encode()
    headers = _headers(event_id, events.TYPES[type(event)], key, source, event.occurred_at, trace)
    return Message(key, events.encode(event), headers, event.order_id, event_id, trace.trace_id)


def control_message(control: Control, key: bytes | None, order_id: str, trace: Trace) -> Message:
    """Write a control, addressed to the partition of the record that it names; ``order_id`` may be empty."""
    kind = controls.TYPES[type(control)]
    headers = _headers(control.event_id, kind, key or b"", OPERATOR, control.occurred_at, trace)
    value = controls.encode(control)
    return Message(key, value, headers, order_id, control.event_id, trace.trace_id, control.partition)


def _headers(
    event_id: str, kind: str, subject: bytes, source: bytes, occurred_at: datetime | None, trace: Trace
) -> tuple[tuple[str, bytes], ...]:
    return (  # the trace in front, where the consumer finds it without reading the others
        ("traceparent", trace.traceparent.encode()),
        ("ce_specversion", b"1.0"),
        ("ce_id", event_id.encode()),
        ("ce_source", source),
        ("ce_type", kind.encode()),
        ("ce_subject", subject),
        ("ce_time", events.wire_time(occurred_at) if occurred_at else b""),
        ("content-type", b"application/json"),
    )
