"""``orderflow republish``: send what the log lost, under its ids."""

from __future__ import annotations

import sys
import time
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from orderflow.cli.terminal import JsonOption, StackOption, outbox_settings_of, show_json, show_table
from orderflow.republishing import LOOK_S, Republishing

#: Orders that are shown to people.
ORDERS_SHOWN = 20

OVERTAKEN = (
    "They will stand in front of what is sent. Here nothing changes by that; but whoever reads the log alone, as "
    "`orderflow rebuild --from-scratch` does, takes what is sent for newer, and skips an update that stands in front "
    "of its create. Then set the status of each of them once more (PUT /update-order), so that the log ends with it."
)


def republish(
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what is lost, and send nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    wait: Annotated[
        float, typer.Option("--wait", metavar="SECONDS", min=0, help="Stop waiting when so long nothing moves.")
    ] = 30.0,
    stack: StackOption = None,
    as_json: JsonOption = False,
) -> None:
    """Send what was applied and the log has lost, under the same event ids. No order changes: here they are duplicates.

    The events are put at the log's end, each order's in sequence. Do it before new events come: `supervisorctl stop
    cart-service`. Asked again while they are under way, or later, nothing is sent twice.

    For example:
    $ orderflow republish --dry-run
    $ orderflow republish --yes --wait 600
    """
    work = Republishing(outbox_settings_of(stack), wait)
    if not as_json:
        _tell_lost(work)
    if work.events and not dry_run:
        if not yes and not _confirmed(work, may_ask=not as_json):
            raise typer.Exit(1)
        left = _send(work, wait, quiet=as_json)
        if not as_json:
            _tell_sent(work, left)
    else:
        left = work.events
    if as_json:
        show_json(_shown(work, left))
    if left and not dry_run:
        raise typer.Exit(1)


def _send(work: Republishing, wait_s: float, *, quiet: bool) -> int:
    """Put them into the outbox, and wait until they are applied; tell how many are not."""
    left, moved_at = work.events, time.monotonic()
    columns = (TextColumn("on the log again"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=quiet) as progress:
        task = progress.add_task("on the log again", total=work.events)
        while True:
            all_added = work.add()
            looked_at = time.monotonic()
            found = work.lost.count()
            if found < left:
                left, moved_at = found, time.monotonic()
            progress.update(task, completed=work.events - left)
            if (all_added and left <= len(work.left_out)) or time.monotonic() - moved_at >= wait_s:
                return left
            time.sleep(max(LOOK_S, time.monotonic() - looked_at))


def _confirmed(work: Republishing, *, may_ask: bool) -> bool:
    if not (may_ask and sys.stdin.isatty()):
        typer.echo("nothing was sent; say --yes to send it", err=True)
        return False
    return typer.confirm(f"Send {work.events} events again?")


def _tell_lost(work: Republishing) -> None:
    if not work.events:
        typer.echo("nothing that was applied is lost from the log")
        return
    rows = [(order.order_id, order.events, "yes" if order.overtaken else "no") for order in work.orders[:ORDERS_SHOWN]]
    show_table(("order", "lost", "newer ones on the log"), rows)
    typer.echo(f"{work.events} events of {len(work.orders)} orders are lost from the log, and kept in orders.db")
    overtaken = sum(order.overtaken for order in work.orders)
    if overtaken:
        typer.echo(f"{overtaken} of these orders have newer events on the log. {OVERTAKEN}")


def _tell_sent(work: Republishing, left: int) -> None:
    for row in work.left_out:
        typer.echo(f"left out {row.event_id} of order {row.order_id}: it does not decode to the event it was", err=True)
    typer.echo(f"{work.events - left} of {work.events} events are on the log again")
    if left > len(work.left_out):
        typer.echo(
            "the others are under way: `orderflow outbox list`, `orderflow status`; this may be run again", err=True
        )


def _shown(work: Republishing, left: int) -> dict[str, Any]:
    return {
        "lost": work.events,
        "orders": [{"orderId": one.order_id, "lost": one.events, "overtaken": one.overtaken} for one in work.orders],
        "added": work.added,
        "underWay": work.under_way,
        "leftOut": [{"orderId": row.order_id, "eventId": row.event_id} for row in work.left_out],
        "left": left,
    }
