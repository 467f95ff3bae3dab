"""``orderflow event``: the state of one event, and how it came to it."""

from __future__ import annotations

from typing import Annotated

import typer

from orderflow.cli.completing import order_ids
from orderflow.cli.drawing import event_drawn
from orderflow.cli.terminal import JsonOption, StackOption, client_of, draw, show_json, text_of


def event(
    event_id: Annotated[str, typer.Argument(metavar="EVENT_ID", help="The id, as the answer to a write gives it.")],
    *,
    order: Annotated[
        str | None,
        typer.Option(metavar="ORDER_ID", autocompletion=order_ids, help="Its order, where several have that id."),
    ] = None,
    stack: StackOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show how one event stands, in the outbox, too: its steps, its place, its trace, and why.

    For example:
    $ orderflow event 6e620890-21fd-4fd8-a3de-a3b3b8abb8a2
    $ orderflow event 6e620890-21fd-4fd8-a3de-a3b3b8abb8a2 --order ord-1 --json
    """
    with client_of(stack) as client:
        found = client.event(text_of(event_id).lower(), None if order is None else text_of(order))
    if as_json:
        show_json({"event": found})
    else:
        draw(event_drawn(found, whole=True))
