"""``orderflow load``: put load on the stack, and keep a ledger of what came of every request."""

from __future__ import annotations

from collections import Counter
from pathlib import Path  # noqa: TC003 (typer reads the annotations)
from statistics import quantiles
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from orderflow.cli.terminal import JsonOption, StackOption, settings_of, show_json, show_table
from orderflow.ledger import Ledger
from orderflow.load import Generator, Plan
from orderflow.process import EX_INTERRUPTED

if TYPE_CHECKING:
    from orderflow.settings import Settings

DEFAULT_ORDERS = 1_000


def load(  # noqa: PLR0913 (a command's options)
    *,
    orders: Annotated[
        int | None, typer.Option(min=1, help=f"Stop after so many creates.  [default: {DEFAULT_ORDERS}]")
    ] = None,
    duration: Annotated[float | None, typer.Option(metavar="SECONDS", min=0.1, help="Stop after so long.")] = None,
    rate: Annotated[float | None, typer.Option(min=0.01, help="Requests a second, at most.")] = None,
    connections: Annotated[int, typer.Option(min=1, max=512, help="Requests in flight at a time, at most.")] = 8,
    updates: Annotated[
        float, typer.Option(metavar="SHARE", min=0, max=1, help="Share of updates of orders created before.")
    ] = 0.0,
    bad: Annotated[
        float,
        typer.Option(
            metavar="SHARE",
            min=0,
            max=1,
            help="Share of what is wrong on purpose: half invalid requests, half malformed messages on the topic.",
        ),
    ] = 0.0,
    ledger: Annotated[
        Path | None, typer.Option(metavar="FILE", dir_okay=False, help="Add a line for every request to this file.")
    ] = None,
    timeout: Annotated[float, typer.Option(metavar="SECONDS", min=0.1, help="How long to wait for an answer.")] = 15.0,
    stack: StackOption = None,
    as_json: JsonOption = False,
) -> None:
    """Create and update orders, and show what came of it. Ctrl-C ends it in good order, with exit code 130.

    Every request carries an Idempotency-Key. The ledger has one JSON object a line, with these members:

    kind: create, update, invalid (a request that is wrong on purpose) or malformed (a message that is) |
    order_id | event_id | sets: the status that the order then has |
    outcome: published, spooled, refused (it will never appear), unknown (it may be on the topic, the service says),
    invalid (answered with 4xx), no_answer (the connection broke or was silent: it may be on the topic) |
    status: of the HTTP answer | partition, offset: where it is on the topic |
    sent_at, answered_at: in seconds since 1970 | idempotency_key | error: the sentence that says what went wrong.

    What is not known is null.

    For example:
    $ orderflow load --orders 1000 --updates 0.3 --bad 0.05 --ledger load.jsonl
    $ orderflow load --duration 60 --rate 200 --json
    """
    if orders is None and duration is None:
        orders = DEFAULT_ORDERS
    try:
        plan = Plan(orders=orders, duration_s=duration, rate=rate, connections=connections, updates=updates, bad=bad)
    except ValueError as error:
        raise typer.BadParameter(f"{error}.") from None
    settings = settings_of(stack)
    with Ledger(ledger) as kept:
        interrupted, seconds = _run(settings, plan, kept, timeout)

    if as_json:
        show_json(summary(kept, seconds))
    else:
        _show(kept, seconds)
    if interrupted:
        raise typer.Exit(EX_INTERRUPTED)


def _run(settings: Settings, plan: Plan, ledger: Ledger, timeout_s: float) -> tuple[bool, float]:
    """Run the plan behind a progress bar. True: it was interrupted."""
    generator = Generator(settings, plan, ledger, timeout_s=timeout_s)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("load", total=1.0)

        def tell() -> None:
            rate = ledger.total / max(generator.pace.seconds, 0.001)
            progress.update(task, completed=generator.pace.done, description=f"{ledger.total} answers, {rate:.0f}/s")

        try:
            generator.run(tell)
        except KeyboardInterrupt:
            return True, generator.pace.seconds
    return False, generator.pace.seconds


def summary(ledger: Ledger, seconds: float) -> dict[str, Any]:
    """Sum a load up: counts by kind and outcome, requests a second, percentiles in ms."""
    counts: dict[str, Counter[str]] = {}
    for (kind, outcome), count in sorted(ledger.counts.items()):
        counts.setdefault(kind, Counter())[outcome] = count
    p50, p99 = _percentiles_ms(ledger.latencies_s)
    return {
        "requests": ledger.total,
        "seconds": round(seconds, 3),
        "per_second": round(ledger.total / seconds, 1) if seconds else 0.0,
        "p50_ms": p50,
        "p99_ms": p99,
        "counts": counts,
    }


def _percentiles_ms(latencies_s: list[float]) -> tuple[float | None, float | None]:
    if len(latencies_s) < 2:  # noqa: PLR2004 (what quantiles need)
        return None, None
    cuts = quantiles(latencies_s, n=100, method="inclusive")
    return round(cuts[49] * 1000, 2), round(cuts[98] * 1000, 2)


def _show(ledger: Ledger, seconds: float) -> None:
    summed = summary(ledger, seconds)
    show_table(("kind", "outcome", "count"), [(*key, count) for key, count in sorted(ledger.counts.items())])
    typer.echo(
        f"\n{summed['requests']} requests in {summed['seconds']} s: {summed['per_second']} a second, "
        f"p50 {summed['p50_ms']} ms, p99 {summed['p99_ms']} ms"
    )
