"""Events and their steps, drawn as a tree: 80 columns are enough, and a pipe gets the same without colours."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from orderflow.cli.terminal import duration, in_one_line

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from orderflow.client import Event, EventState, Order, Step, StepWord, Timeline

#: How an event's state is marked: it took effect, it waits, somebody should look, it has no effect of its own.
DONE, WAITS, WRONG, NOTHING = ("●", "green"), ("○", "yellow"), ("✗", "red"), ("·", "dim")

MARKS: dict[EventState, tuple[str, str]] = {
    "spooled": WAITS,
    "published": WAITS,
    "held": WRONG,
    "given_up": WRONG,
    "applied": DONE,
    "duplicate": NOTHING,
    "skipped": WRONG,
    "repaired": DONE,
    "healed": DONE,
    "discarded": NOTHING,
    "accepted": DONE,
    "superseded": NOTHING,
    "stale": WRONG,
    "invalid_control": WRONG,
}

#: Steps that somebody should look at.
WRONG_STEPS: frozenset[StepWord] = frozenset({"held", "given_up", "skipped", "refused"})


def timeline_drawn(timeline: Timeline) -> Tree:
    """Draw an order and its events, in the sequence in which they take effect."""
    tree = Tree(order_line(timeline.order_id, timeline.order), guide_style="dim")
    for event in timeline.events:
        tree.add(event_drawn(event))
    return tree


def event_drawn(event: Event, *, whole: bool = False) -> Group:
    """Draw an event and its steps; ``whole`` with its order, its trace and why it stands so."""
    lines = [_title(event), Text(_names(event), style="dim")]
    if whole:
        why = None if event.detail in [step.detail for step in event.steps] else event.detail
        told = (("order", event.order_id), ("trace", event.trace_id), ("because", why))
        lines += [Text(f"{name} {in_one_line(value)}", style="dim") for name, value in told if value]
    return Group(*lines, _steps_drawn(event.steps))


def order_line(order_id: str, order: Order | None) -> Text:
    """Say what an order is now. Times below it are UTC."""
    name = f"order {in_one_line(order_id)}"
    if order is None:
        return Text(f"{name} does not exist")
    shipping = "" if order.shipping_cost is None else f" + {order.shipping_cost} shipping"
    said = f", {order.total_amount} {order.currency}{shipping}, customer {in_one_line(order.customer_id)}"
    return Text.assemble(f"{name}: ", (in_one_line(order.status), "bold"), said)


def _title(event: Event) -> Text:
    mark, style = MARKS[event.state]
    sets = f" ({in_one_line(event.status)})" if event.status else ""
    reason = f", {in_one_line(event.reason)}" if event.reason else ""
    return Text.assemble((f"{mark} ", style), f"{in_one_line(event.type or event.kind)}{sets}: ",
                         (f"{event.state}{reason}", f"bold {style}"))  # fmt: skip


def _names(event: Event) -> str:
    name = in_one_line(event.event_id or "without an id")
    if event.partition is None:
        return f"{name}, a copy may be on the topic" if event.maybe_on_topic else name
    return f"{name}, partition {event.partition}, offset {event.offset}"


def _steps_drawn(steps: tuple[Step, ...]) -> Table:
    table = Table.grid(padding=(0, 2))
    for justify in ("right", "left", "right", "left"):
        table.add_column(justify=justify, no_wrap=justify == "right")
    before: datetime | None = None
    for step in steps:
        style = "red" if step.step in WRONG_STEPS else ""
        since = duration((step.at - before).total_seconds()) if step.at and before else ""
        table.add_row(_clock(step.at, before), Text(step.step, style=style), _signed(since), Text(_said(step)))
        before = step.at or before
    return table


def _signed(told: str) -> str:
    """Write a duration as a difference: the clocks of two machines may disagree."""
    return told if not told or told.startswith("-") else f"+{told}"


def _clock(at: datetime | None, before: datetime | None) -> str:
    if at is None:
        return "-"
    time = at.strftime("%H:%M:%S.") + f"{at.microsecond // 1000:03d}"
    return time if before and before.date() == at.date() else f"{at:%Y-%m-%d} {time}"


def _said(step: Step) -> str:
    return ", ".join(in_one_line(part) for part in _parts(step))


def _parts(step: Step) -> Iterator[str]:
    if step.partition is not None and step.step in ("published", "delivered"):
        yield f"partition {step.partition}, offset {step.offset}"
    if step.author:
        yield f"by {step.author}"
    if step.reason or step.detail:
        yield ": ".join(part for part in (step.reason, step.detail) if part)
    if step.event_id:
        yield f"control {step.event_id}"
