"""What the order service answers: lists and single ones of orders, skipped messages and alerts."""

from __future__ import annotations

from typing import Annotated, Literal, NotRequired, TypedDict

from msgspec import Meta

from orderflow.alerts.shown import AlertShown
from orderflow.healing.shown import ChangeShown, SkippedMessage, SkipShown
from orderflow.order_shown import OrderShown
from orderflow.timeline.shown import EventShown

#: A bare list of ids.
OrderIds = Annotated[list[str], Meta(description="The ids, each once, in the sequence in which the orders came.")]


class OrderDetails(TypedDict):
    """One order."""

    order: OrderShown


class OrderList(TypedDict):
    """A page of orders, newest first."""

    orders: list[OrderShown]


class OrderTimeline(TypedDict):
    """The events of an order in the sequence in which they take effect; what waits in the outbox comes last."""

    orderId: str
    order: OrderShown | None
    events: list[EventShown]


class OneEvent(TypedDict):
    """The state of one event."""

    event: EventShown


class SkippedList(TypedDict):
    """A page of skipped messages; `counts` has the number for each reason, whatever the page shows."""

    counts: dict[str, int]
    skippedMessages: list[SkipShown]


class SkippedOne(TypedDict):
    """One skipped message."""

    skippedMessage: SkippedMessage


class Asked(TypedDict):
    """A repair or a discard is in the outbox under `eventId`, and with `atEnd` the new event as `successor`."""

    skippedMessage: SkipShown
    eventId: str
    successor: NotRequired[str]
    outcome: Literal["spooled"]


class Simulated(TypedDict):
    """What would come of it; nothing was asked for."""

    skippedMessage: SkipShown
    eventId: str
    successor: NotRequired[str]
    outcome: Literal["simulated"]
    change: ChangeShown


class AlertList(TypedDict):
    """A page of alerts, newest first."""

    alerts: list[AlertShown]


class OneAlert(TypedDict):
    """One alert."""

    alert: AlertShown
