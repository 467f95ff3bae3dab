"""Timelines as terminals and pipes get them."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import get_args

import pytest
from rich.console import Console, RenderableType
from rich.text import Text

from orderflow.cli.drawing import MARKS, event_drawn, order_line, timeline_drawn
from orderflow.cli.terminal import draw, duration, in_one_line
from orderflow.client import Event, EventState, Item, Order, Step, Timeline

AT = datetime(2026, 11, 23, 23, 59, 59, 900_000, tzinfo=UTC)

#: What somebody may put into a text that ends on an operator's screen.
EVIL = "a\x1b[2Jb\x9b31mc\rd\ne\tf\u202eg\u2028h[red]i[/]"

ORDER = Order(
    order_id="ord-1",
    customer_id="c-1",
    order_date=AT,
    items=(Item("tea", 3, Decimal("4.50")),),
    total_amount=Decimal("13.50"),
    shipping_cost=Decimal("0.27"),
    currency="EUR",
    status="shipped",
)


def event(state: EventState = "applied", **more: object) -> Event:
    steps = (
        Step(step="accepted", at=AT),
        Step(step="published", at=AT + timedelta(milliseconds=18), partition=3, offset=14),
        Step(step="skipped", at=AT + timedelta(seconds=125), reason="unknown_order", detail="No such order. " * 8),
        Step(step="repaired", at=None, author="kim", event_id="c-1"),
    )
    given = {"event_id": "e-1", "type": "order.created", "status": "new", "partition": 3, "offset": 14, "steps": steps}
    return Event(kind="event", state=state, **(given | more))  # type: ignore[arg-type]  # the test's own members


def rendered(drawing: RenderableType, width: int) -> str:
    # Whatever the terminal that the tests run on: of a dumb one the width counts for nothing.
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None, _environ={})
    with console.capture() as captured:
        console.print(drawing)
    return captured.get()


def test_a_timeline_tells_times_places_and_durations() -> None:
    text = rendered(timeline_drawn(Timeline(order_id="ord-1", order=ORDER, events=(event(), event("spooled")))), 200)

    assert text.startswith("order ord-1: shipped, 13.50 EUR + 0.27 shipping, customer c-1\n├── ● order.created (new): ")
    assert "2026-11-23 23:59:59.900  accepted" in text
    assert "published      +18 ms  partition 3, offset 14" in text
    assert "2026-11-24 00:02:04.900  skipped    +2 min 5 s  unknown_order: No such order." in text, "another day"
    assert "by kim, control c-1" in text
    assert "└── ○ order.created (new): spooled" in text


def test_eighty_columns_are_enough() -> None:
    """Nothing is cut off: what is longer is wrapped within its column."""
    text = rendered(timeline_drawn(Timeline(order_id="ord-1", order=ORDER, events=(event(), event()))), 80)

    assert max(map(len, text.splitlines())) <= 80
    assert text.count("No such order.") == 16 or text.replace("\n", " ").count("such") == 16
    assert "…" not in text


def test_what_came_from_outside_controls_no_terminal() -> None:
    """No control character, no line of its own, no markup, no text that runs backwards."""
    evil = event(event_id=EVIL, type=EVIL, status=EVIL, reason=EVIL, detail=EVIL, order_id=EVIL, trace_id=EVIL,
                 steps=(Step(step="discarded", author=EVIL, reason=EVIL, detail=EVIL, event_id=EVIL),))  # fmt: skip
    order = Order(
        order_id=EVIL, customer_id=EVIL, order_date=AT, items=(), total_amount=Decimal(0), currency="EUR", status=EVIL
    )

    for drawing in (event_drawn(evil, whole=True), order_line(EVIL, order), order_line(EVIL, None)):
        text = rendered(drawing, 10_000)
        assert not set(text) & set("\x1b\x9b\r\t\u202e\u2028")
        assert "[red]i[/]" in text
        assert len(text.splitlines()) <= 6


def test_a_pipe_gets_plain_lines(capsys: pytest.CaptureFixture[str]) -> None:
    draw(timeline_drawn(Timeline(order_id="ord-1", order=None, events=(event("skipped", reason="unknown_order"),))))

    out = capsys.readouterr().out
    assert out.startswith("order ord-1 does not exist\n└── ✗ order.created (new): skipped, unknown_order\n")
    assert all(line == line.rstrip() for line in out.splitlines())


@pytest.mark.parametrize("state", ["spooled", "held", "given_up"])
def test_what_may_be_on_the_topic_is_told(state: EventState) -> None:
    waits = {"partition": None, "offset": None}

    assert "e-1, a copy may be on the topic" in rendered(event_drawn(event(state, **waits, maybe_on_topic=True)), 80)
    assert "a copy may" not in rendered(event_drawn(event(state, **waits)), 80)


def test_why_an_event_stands_so_is_told_once() -> None:
    """With its step; beside the steps only where none of them has it."""
    found = event("skipped", reason="unknown_order", detail="No such order. " * 8)

    assert "because" not in rendered(event_drawn(found, whole=True), 10_000)
    assert "because of it" in rendered(event_drawn(event("held", detail="of it"), whole=True), 10_000)


def test_every_state_has_a_mark() -> None:
    assert set(MARKS) == set(get_args(EventState))


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.0184, "18 ms"), (-0.002, "-2 ms"), (1.25, "1.2 s"), (125, "2 min 5 s"), (3_600, "1 h 0 min"),
     (93_784, "1 d 2 h")],
)  # fmt: skip
def test_a_duration_is_told_in_its_two_largest_units(seconds: float, said: str) -> None:
    assert duration(seconds) == said


def test_text_in_one_line_is_otherwise_as_it_is() -> None:
    assert in_one_line("Käse 漢字 [x] → \\n") == "Käse 漢字 [x] → \\n"
    assert Text(in_one_line(EVIL)).plain == in_one_line(EVIL)
