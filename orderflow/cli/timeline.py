"""``orderflow timeline``: everything that happened to one order, drawn."""

from __future__ import annotations

from typing import Annotated

import typer

from orderflow.cli.completing import order_ids
from orderflow.cli.drawing import timeline_drawn
from orderflow.cli.terminal import JsonOption, StackOption, client_of, draw, show_json, text_of


def timeline(
    order_id: Annotated[str, typer.Argument(metavar="ORDER_ID", autocompletion=order_ids, help="The order's id.")],
    *,
    stack: StackOption = None,
    as_json: JsonOption = False,
) -> None:
    """Draw every step of an order's events, with its time (UTC) and how long it took since the one before.

    The events stand in the sequence in which they take effect; what waits in the outbox comes last. A mark says how
    each stands: ● it took effect, ○ it waits, ✗ somebody should look, · it has no effect of its own.

    For example:
    $ orderflow timeline ord-1
    $ orderflow timeline ord-1 --json
    """
    with client_of(stack) as client:
        found = client.timeline(text_of(order_id))
    if as_json:
        show_json(found)
    else:
        draw(timeline_drawn(found))
