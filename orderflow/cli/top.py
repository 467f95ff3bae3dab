"""``orderflow top``: how the stack is, again and again: programs, rates, lag, outbox, alerts."""

from __future__ import annotations

import os
import sys
import time
from contextlib import closing
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from orderflow.cli.figures import Figures, Watch
from orderflow.cli.terminal import (
    StackOption,
    clock,
    draw,
    duration,
    in_one_line,
    printable,
    show_json,
    stack_of,
    tidy_up_when_ended,
)
from orderflow.process import EX_INTERRUPTED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from orderflow.alerts.shown import AlertShown
    from orderflow.cli.figures import Lag, Waiting

#: Seconds between two looks. A worker beats once a second, so each look finds a new beat.
INTERVAL_S = 2.0

#: Alerts that are shown; all are counted.
ALERTS_SHOWN = 5

T = TypeVar("T")

#: The rates, a line for each program that counts them.
RATES = (("published", "spooled", "refused", "unknown"), ("applied", "duplicates", "skipped"), ("delivered",))


def top(
    *,
    interval: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", min=0.1, max=3600, help=f"Between two looks.  [default: {INTERVAL_S:g}]"),
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="Show it once, with the rates of one interval.")] = False,
    stack: StackOption = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON document; with --interval one a line, until Ctrl-C.")
    ] = False,
) -> None:
    """Show programs, events a second, lag by partition, outbox, breaker and open alerts, until Ctrl-C (exit code 130).

    Whatever does not answer is named; the rest is shown. Rates are those of the last 5 seconds. Into a pipe, or on a
    terminal that can place no text, it is shown once.

    For example:
    $ orderflow top
    $ orderflow top --once
    $ orderflow top --json --interval 10
    """
    tidy_up_when_ended()
    console = Console()
    lines = as_json and interval is not None and not once
    live = console.is_terminal and not console.is_dumb_terminal
    single = once or (as_json and not lines) or (not as_json and not live)
    try:
        with closing(Watch(stack_of(stack))) as watch:
            looks = _looks(watch, interval or INTERVAL_S)
            if single:
                next(looks)
                _show(next(looks), as_json=as_json)
            elif lines:
                for figures in looks:
                    show_json(figures, one_line=True)
            else:
                with Live(console=console, screen=True, auto_refresh=False) as view:
                    for figures in looks:
                        view.update(drawn(figures, whole=False), refresh=True)
    except KeyboardInterrupt:
        raise typer.Exit(EX_INTERRUPTED) from None
    except BrokenPipeError:  # Who read it has seen enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit from None


def _looks(watch: Watch, interval_s: float) -> Iterator[Figures]:
    while True:
        due_at = time.monotonic() + interval_s
        yield watch.look()
        time.sleep(max(0.0, due_at - time.monotonic()))


def _show(figures: Figures, *, as_json: bool) -> None:
    if as_json:
        show_json(figures)
    else:
        draw(drawn(figures))


def drawn(figures: Figures, *, whole: bool = True) -> Group:
    """Draw one look; not ``whole``, a program that says much says it in one line, so that a screen holds all."""
    facts = Table.grid(padding=(0, 2))
    facts.add_row("rates", _rates(figures))
    facts.add_row("breaker", _or_unknown(figures.breaker, _breaker))
    facts.add_row("lag", _or_unknown(figures.lag, _lag))
    facts.add_row("outbox", _or_unknown(figures.outbox, _outbox))
    facts.add_row("alerts", _or_unknown(figures.alerts, _alerts))
    for what, why in figures.problems.items():
        facts.add_row("problem", Text(f"{what}: {printable(why)}", "red"))
    at = datetime.fromtimestamp(figures.at, UTC)
    return Group(Text(f"orderflow, {at:%Y-%m-%d %H:%M:%S}Z", "bold"), "", *_programs(figures, whole=whole), facts)


def _programs(figures: Figures, *, whole: bool) -> list[Table | str]:
    if figures.programs is None:
        return []
    table = Table("program", "state", "uptime", "", box=None, pad_edge=False)
    table.add_column("says", no_wrap=not whole, overflow="fold" if whole else "ellipsis")
    for row in figures.programs:
        uptime = "-" if row.uptime_s is None else clock(row.uptime_s)
        look = Text("ok", "green") if row.ok else Text("LOOK", "bold red")
        table.add_row(row.program, row.state, uptime, look, Text(in_one_line(row.says)))
    return [table, ""]


def _or_unknown(value: T | None, draw_it: Callable[[T], Text]) -> Text:
    return Text("not known", "dim") if value is None else draw_it(value)


def _rates(figures: Figures) -> Text:
    groups = [
        "  ".join(f"{name} {figures.rates[name]:.1f}/s" for name in names if name in figures.rates) for names in RATES
    ]
    return Text("\n".join(filter(None, groups)) or "not known yet")


def _breaker(state: str) -> Text:
    return Text(state, "green" if state == "closed" else "bold red")


def _lag(lags: list[Lag]) -> Text:
    text = Text(f"{sum(one.records for one in lags)} records")
    for one in lags:
        if one.records:
            waits = "" if one.seconds is None else f" for {duration(one.seconds)}"
            text.append(f"\npartition {one.partition}: {one.records}{waits}", "yellow")
    return text


def _outbox(waiting: Waiting) -> Text:
    waits = waiting.oldest_seconds
    oldest = "" if waits is None else f", the oldest for {duration(waits)}"
    return Text.assemble(
        (f"{waiting.waiting} wait", "yellow" if waiting.waiting else ""),
        (f", {waiting.held} held", "bold red" if waiting.held else ""),
        f", {waiting.bytes / 2**20:.1f} MiB{oldest}",
    )


def _alerts(alerts: list[AlertShown]) -> Text:
    text = Text.assemble((f"{len(alerts)} open", "bold red") if alerts else ("none is open", "green"))
    for alert in alerts[:ALERTS_SHOWN]:
        text.append(f"\n{alert['id']} {alert['severity']} {alert['cause']}: {in_one_line(alert['detail'])}")
    if len(alerts) > ALERTS_SHOWN:
        text.append("\nsee the others with `orderflow alerts list`", "dim")
    return text
