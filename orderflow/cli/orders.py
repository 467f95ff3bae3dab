"""``orderflow orders``: reading and writing orders over HTTP, as any client does."""

from __future__ import annotations

import time
import uuid
from itertools import islice
from typing import TYPE_CHECKING, Annotated

import typer

from orderflow.cli.drawing import order_line
from orderflow.cli.terminal import (
    JsonOption,
    StackOption,
    client_of,
    complain,
    draw,
    show_fields,
    show_json,
    show_table,
    text_of,
)
from orderflow.cli.writing import KeyOption, NewId, OrderId, WaitOption, key_told
from orderflow.client.calls import WAIT_S
from orderflow.errors import EventSkipped, NotAppliedYet, NotFound
from orderflow.orders import Currency, Status  # noqa: TC001 (typer reads the annotations)

if TYPE_CHECKING:
    from typing import NoReturn

    from orderflow.client import Client, Order, Written

app = typer.Typer(
    no_args_is_help=True,
    help="""List, read, create and update orders, over HTTP.

    For example:
    $ orderflow orders create ord-1 --items-num 2 --wait 5
    $ orderflow orders list --status shipped
    """,
)

#: The event has no effect; it is taken, and not applied yet: wait, and ask again.
EX_SKIPPED, EX_NOT_YET = 1, 3

#: Orders of one page of the list.
PAGE = 1_000

#: Pause between two looks for an order that is not there yet.
LOOK_S = 0.1


@app.command(name="list")
def list_(
    *,
    status: Annotated[Status | None, typer.Option(help="Only those that stand so.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1_000_000, help="So many at most.")] = 100,
    all_: Annotated[bool, typer.Option("--all", help="All of them, without a limit.")] = False,
    stack: StackOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the orders, newest first.

    For example:
    $ orderflow orders list
    $ orderflow orders list --status shipped --limit 20
    $ orderflow orders list --all --json
    """
    with client_of(stack) as client:
        walk = client.orders(status=status, page=PAGE if all_ else min(limit, PAGE))
        orders = list(walk if all_ else islice(walk, limit))
    if as_json:
        show_json({"orders": orders})
    elif orders:
        columns = ("order", "status", "customer", "total", "created")
        show_table(columns, [_cells(order) for order in orders], rigid=("status", "total", "created"))
    else:
        typer.echo("no orders" if status is None else f"no order is {status}")


@app.command()
def show(
    order_id: OrderId,
    *,
    after: Annotated[
        str | None, typer.Option(metavar="EVENT_ID", help="As it is once this event of it has been applied.")
    ] = None,
    wait: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            min=0,
            help=f"How long to wait for that; without --after, for the order.  [default: {WAIT_S:g} with --after]",
        ),
    ] = None,
    stack: StackOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show one order. Exit code 1: there is none, or the event was skipped; 3: it was not applied in time.

    For example:
    $ orderflow orders show ord-1
    $ orderflow orders show ord-1 --wait 10
    $ orderflow orders show ord-1 --after 6e620890-21fd-4fd8-a3de-a3b3b8abb8a2 --wait 10
    """
    with client_of(stack) as client:
        try:
            order = _shown_order(client, order_id, after and text_of(after).lower(), wait)
        except (EventSkipped, NotAppliedYet) as error:
            _end(error)
    if as_json:
        show_json({"order": order})
        return
    amounts = (("total", order.total_amount), ("shipping", order.shipping_cost))
    show_fields(
        [("order", order.order_id), ("status", order.status), ("customer", order.customer_id)]
        + [("created", _moment(order))]
        + [(name, amount and f"{amount} {order.currency}") for name, amount in amounts]
    )
    typer.echo()
    show_table(("item", "quantity", "price"), [(item.item_id, item.quantity, item.price) for item in order.items])


def _shown_order(client: Client, order_id: str, after: str | None, wait_s: float | None) -> Order:
    """Read an order: once an event of it has been applied, or once there is one."""
    if after is not None:
        return client.order(order_id, after=after, wait_s=WAIT_S if wait_s is None else wait_s)
    deadline = time.monotonic() + (wait_s or 0.0)
    while True:
        try:
            return client.order(order_id)
        except NotFound:
            if time.monotonic() >= deadline:
                raise
        time.sleep(LOOK_S)


@app.command()
def create(  # noqa: PLR0913 (a command's options)
    order_id: NewId,
    *,
    items_num: Annotated[int, typer.Option(min=1, max=100, help="So many items, which the service makes up.")] = 1,
    customer: Annotated[str | None, typer.Option(metavar="ID", help="Whose it is; else one is made up.")] = None,
    currency: Annotated[Currency | None, typer.Option(help="Else one is chosen.")] = None,
    key: KeyOption = None,
    wait: WaitOption = 0.0,
    stack: StackOption = None,
    as_json: JsonOption = False,
) -> None:
    """Create an order with made-up items, and tell what came of it: published or spooled, and with --wait, applied.

    Exit code 1: it was not taken, nobody knows, or it was skipped; 3: it is taken, and not applied in time.

    For example:
    $ orderflow orders create ord-1 --items-num 2
    $ orderflow orders create ord-1 --customer kim --currency EUR --wait 5 --json
    """
    key = key or str(uuid.uuid4())
    with client_of(stack) as client, key_told(key):
        written = client.create(
            order_id, items_num, customer_id=customer and text_of(customer), currency=currency, idempotency_key=key
        )
        _tell(client, written, wait, as_json=as_json)


@app.command()
def update(
    order_id: OrderId,
    status: Annotated[Status, typer.Argument(metavar="STATUS", help="Where it is to stand.")],
    *,
    key: KeyOption = None,
    wait: WaitOption = 0.0,
    stack: StackOption = None,
    as_json: JsonOption = False,
) -> None:
    """Set an order's status, and tell what came of it: published or spooled, and with --wait, applied or skipped.

    Exit code 1: it was not taken, nobody knows, or it was skipped; 3: it is taken, and not applied in time.

    For example:
    $ orderflow orders update ord-1 shipped
    $ orderflow orders update ord-1 shipped --wait 5
    """
    key = key or str(uuid.uuid4())
    with client_of(stack) as client, key_told(key):
        written = client.update(order_id, status, idempotency_key=key)
        _tell(client, written, wait, as_json=as_json)


def _tell(client: Client, written: Written, wait_s: float, *, as_json: bool) -> None:
    """Tell what came of a write, at once; then what became of it. As JSON both are one document."""
    if not as_json:
        typer.echo(f"{written.outcome}: event {written.event_id}{_where(written)}")
    order, error = written.order, None
    if wait_s:
        try:
            order = client.order(written.order_id, wait_s=wait_s)
        except (EventSkipped, NotAppliedYet) as caught:
            order, error = None, caught
    if as_json:
        show_json(_shown(written) | {"applied": error is None if wait_s else None, "order": order})
    elif wait_s and order is not None:
        draw(order_line(order.order_id, order))
    if error is not None:
        _end(error)


def _end(error: EventSkipped | NotAppliedYet) -> NoReturn:
    complain(error)
    raise typer.Exit(EX_NOT_YET if isinstance(error, NotAppliedYet) else EX_SKIPPED)


def _shown(written: Written) -> dict[str, object]:
    return {
        "orderId": written.order_id,
        "eventId": written.event_id,
        "outcome": written.outcome,
        "partition": written.partition,
        "offset": written.offset,
        "ahead": written.ahead,
        "idempotencyKey": written.idempotency_key,
    }


def _where(written: Written) -> str:
    if written.outcome == "published":
        return f" at partition {written.partition}, offset {written.offset}"
    return f" is kept on disk, {written.ahead} go before it; it is sent by itself"


def _cells(order: Order) -> tuple[object, ...]:
    total = f"{order.total_amount} {order.currency}"
    return order.order_id, order.status, order.customer_id, total, _moment(order)


def _moment(order: Order) -> str:
    return f"{order.order_date:%Y-%m-%d %H:%M:%S}Z"
