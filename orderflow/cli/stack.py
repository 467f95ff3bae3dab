"""``orderflow stack``: make, start and stop whole stacks. `orderflow.stack` does the work."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from orderflow.cli.terminal import JsonOption, show_json
from orderflow.client import urls_of
from orderflow.stack import Stack

if TYPE_CHECKING:
    from collections.abc import Callable


class _NewByDefault(TyperGroup):
    """``orderflow stack DIR`` is short for ``orderflow stack new DIR``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and not args[0].startswith("-") and args[0] not in self.commands:
            args = ["new", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_NewByDefault,
    no_args_is_help=True,
    help="""Make, start and stop whole stacks.

    For example:
    $ orderflow stack new /var/tmp/second
    $ orderflow stack up /var/tmp/second
    """,
)

Directory = Annotated[Path, typer.Argument(metavar="DIR", help="The stack's folder.")]


@app.command()
def new(directory: Directory, *, as_json: JsonOption = False) -> None:
    """Make a folder with an isolated stack on ports of its own. `orderflow stack DIR` is short for this.

    For example:
    $ orderflow stack new /var/tmp/second
    $ orderflow stack /var/tmp/second --json
    """
    stack = Stack.create(directory)
    if as_json:
        show_json(_shown(stack))
        return
    typer.echo(f"made a stack in {stack.directory}; `orderflow stack up {directory}` starts it")
    _tell_urls(stack)


@app.command()
def up(
    directory: Directory = Path(),
    timeout: Annotated[float, typer.Option(metavar="SECONDS", min=1, help="How long to wait.")] = 90,
    *,
    as_json: JsonOption = False,
) -> None:
    """Start a stack, or what is stopped in it, and wait until nothing is degraded.

    For example:
    $ orderflow stack up
    $ orderflow stack up /var/tmp/second --timeout 180 --json
    """
    begin = time.monotonic()
    stack = Stack.open(directory)
    stack.up(timeout, tell=_telling(quiet=as_json))
    seconds = time.monotonic() - begin
    if as_json:
        show_json(_shown(stack) | {"seconds": round(seconds, 1), "programs": stack.status()})
        return
    typer.echo(f"ready in {seconds:.1f} s")
    _tell_urls(stack)
    _tell_commands(stack)


@app.command()
def down(directory: Directory = Path(), *, as_json: JsonOption = False) -> None:
    """Stop a stack, Kafka last, and wait until it is gone.

    For example:
    $ orderflow stack down
    $ orderflow stack down /var/tmp/second --json
    """
    begin = time.monotonic()
    stack = Stack.open(directory)
    stopped = stack.down()
    seconds = time.monotonic() - begin
    if as_json:
        show_json({"directory": str(stack.directory), "stopped": stopped, "seconds": round(seconds, 1)})
    else:
        typer.echo(f"stopped in {seconds:.1f} s" if stopped else "nothing runs here")


def _telling(*, quiet: bool) -> Callable[[str], None]:
    """Tell what changes, on stderr where stdout is for machines."""
    return lambda line: typer.echo(line, err=quiet)


def _shown(stack: Stack) -> dict[str, Any]:
    cart, order = urls_of(stack.settings)
    return {
        "directory": str(stack.directory),
        "cartService": cart,
        "orderService": order,
        "kafka": stack.settings.kafka_bootstrap_servers,
    }


def _tell_urls(stack: Stack) -> None:
    cart, order = urls_of(stack.settings)
    typer.echo(f"""
  cart_service   {cart}
  order_service  {order}
  Kafka          {stack.settings.kafka_bootstrap_servers}""")


def _tell_commands(stack: Stack) -> None:
    cart, order = urls_of(stack.settings)
    elsewhere = "" if stack.directory == Path.cwd() else f" --stack {stack.directory}"
    typer.echo(f"""
Try:
  curl -X POST {cart}/create-order \\
       -H 'Content-Type: application/json' -d '{{"orderId": "ord-1", "itemsNum": 2}}'
  curl '{order}/order-details?orderId=ord-1'
  {sys.argv[0]} status{elsewhere}""")
