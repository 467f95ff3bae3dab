"""``orderflow outbox``: what was taken and is not on the topic yet. It uses outbox.db itself, and needs no service."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from orderflow.cli.completing import one_of, order_ids
from orderflow.cli.terminal import (
    AuthorOption,
    JsonOption,
    StackOption,
    fail,
    login_name,
    outbox_settings_of,
    show_fields,
    show_json,
    show_table,
    text_of,
)
from orderflow.clock import moment
from orderflow.store.outbox import Outbox
from orderflow.store.outbox_desk import STATES, OutboxDesk
from orderflow.store.outbox_shown import shown, shown_with_payload

if TYPE_CHECKING:
    from orderflow.store.outbox_rows import Entry

app = typer.Typer(
    no_args_is_help=True,
    help="""See what waits for Kafka, and settle what Kafka refuses.

    For example:
    $ orderflow outbox list --state held
    $ orderflow outbox retry 17
    """,
)

Names = Annotated[list[str], typer.Argument(metavar="ID...", help="Numbers or event ids, as `list` shows them.")]


@app.command(name="list")
def list_(
    *,
    state: Annotated[
        str, typer.Option(metavar="STATE", autocompletion=one_of(STATES), help=f"One of {', '.join(STATES)}.")
    ] = "undelivered",
    order: Annotated[
        str | None, typer.Option(metavar="ORDER_ID", autocompletion=order_ids, help="Of this order only.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="So many at most.")] = 100,
    stack: StackOption = None,
    as_json: JsonOption = False,
) -> None:
    """List events in order of arrival, and how much waits.

    For example:
    $ orderflow outbox list
    $ orderflow outbox list --state held --json
    """
    if state not in STATES:
        raise typer.BadParameter(f"{state!r} is no state; give one of {', '.join(STATES)}")
    settings = outbox_settings_of(stack)
    entries = OutboxDesk(settings).entries(STATES[state], order_id=order, limit=limit)
    totals = Outbox(settings).totals()
    if as_json:
        events = [shown(entry) for entry in entries]
        show_json({"waiting": totals.waiting, "held": totals.held, "bytes": totals.bytes_undelivered, "events": events})
        return
    if entries:
        columns = ("id", "kind", "order", "type", "state", "spooled", "maybe on topic", "reason")
        show_table(columns, [_cells(entry) for entry in entries], rigid=("id", "state", "spooled"))
    typer.echo(f"{totals.waiting} wait, {totals.held} held, {totals.bytes_undelivered / 2**20:.1f} MiB")


@app.command()
def show(
    name: Annotated[str, typer.Argument(metavar="ID", help="A number or an event id.")],
    *,
    stack: StackOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show one event with its payload and headers.

    For example:
    $ orderflow outbox show 17
    """
    desk = OutboxDesk(outbox_settings_of(stack))
    found = [shown_with_payload(entry) for entry in _found(desk, name)]
    if as_json:
        show_json({"events": found})
        return
    for event in found:
        headers = [("header", f"{name}: {value}") for name, value in event["headers"].items()]
        show_fields([*((name, value) for name, value in event.items() if name != "headers"), *headers])


@app.command()
def retry(
    names: Annotated[list[str] | None, typer.Argument(metavar="ID...", help="Numbers or event ids.")] = None,
    *,
    all_: Annotated[bool, typer.Option("--all", help="All that are held.")] = False,
    stack: StackOption = None,
    as_json: JsonOption = False,
) -> None:
    """Let held events be sent again, once what Kafka refused them for is mended.

    For example:
    $ orderflow outbox retry 17
    $ orderflow outbox retry --all
    """
    if bool(names) == all_:
        fail("give the ids of held events, or --all")
    desk = OutboxDesk(outbox_settings_of(stack))
    seqs = desk.held() if all_ else _held(desk, names or [])
    count = desk.retry(seqs)
    _say(count, "to be sent again", as_json=as_json)


@app.command()
def discard(
    names: Names,
    *,
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why; it is kept with the event.")],
    author: AuthorOption = "",
    stack: StackOption = None,
    as_json: JsonOption = False,
) -> None:
    """Give held events up for good, so that the later ones of their orders go on. Their callers were told otherwise.

    For example:
    $ orderflow outbox discard 17 --reason "too large for the topic, sent again in two parts"
    """
    if not reason.strip():
        fail("the reason is blank; say why with --reason TEXT")
    desk = OutboxDesk(outbox_settings_of(stack))
    count = desk.discard(_held(desk, names), text_of(author or login_name()), text_of(reason))
    _say(count, "discarded", as_json=as_json)


def _found(desk: OutboxDesk, name: str) -> list[Entry]:
    return desk.find(name) or fail(f"there is no event {name!r} in the outbox; `orderflow outbox list` shows what is")


def _held(desk: OutboxDesk, names: list[str]) -> list[int]:
    """Give the numbers of events that are all held: what is asked for is done as a whole, or not at all."""
    seqs = []
    for name in names:
        entry = _found(desk, name)[-1]
        if entry.state != "held":
            fail(f"event {name} is not held, it is {entry.state}; nothing was changed")
        seqs.append(entry.seq)
    return seqs


def _cells(entry: Entry) -> tuple[object, ...]:
    event = shown(entry)
    sent = "yes" if entry.sent else "no"
    at = moment(entry.spooled_at)
    return entry.seq, entry.kind, entry.order_id, event["type"], entry.state, at, sent, entry.reason or ""


def _say(count: int, what: str, *, as_json: bool) -> None:
    if as_json:
        show_json({"events": count})
    else:
        typer.echo(f"{count} {'event' if count == 1 else 'events'}: {what}")
