"""``orderflow stack``: make, start and stop whole stacks. `orderflow.stack` does the work."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from orderflow.stack import Stack

if TYPE_CHECKING:
    from orderflow.settings import Settings


class _NewByDefault(TyperGroup):
    """``orderflow stack DIR`` is short for ``orderflow stack new DIR``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and not args[0].startswith("-") and args[0] not in self.commands:
            args = ["new", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(cls=_NewByDefault, no_args_is_help=True, help="Make, start and stop whole stacks.")

Directory = Annotated[Path, typer.Argument(metavar="DIR", help="The stack's folder.")]


@app.command()
def new(directory: Directory) -> None:
    """Make a folder with an isolated stack on ports of its own. `orderflow stack DIR` is short for this."""
    stack = Stack.create(directory)
    typer.echo(f"made a stack in {stack.directory}; `orderflow stack up {directory}` starts it")
    _tell_urls(stack.settings)


@app.command()
def up(
    directory: Directory = Path(),
    timeout: Annotated[float, typer.Option(metavar="SECONDS", min=1, help="How long to wait.")] = 90,
) -> None:
    """Start a stack, or what is stopped in it, and wait until nothing is degraded."""
    begin = time.monotonic()
    stack = Stack.open(directory)
    stack.up(timeout, tell=typer.echo)
    typer.echo(f"ready in {time.monotonic() - begin:.1f} s")
    _tell_urls(stack.settings)
    _tell_commands(stack)


@app.command()
def down(directory: Directory = Path()) -> None:
    """Stop a stack, Kafka last, and wait until it is gone."""
    begin = time.monotonic()
    if Stack.open(directory).down():
        typer.echo(f"stopped in {time.monotonic() - begin:.1f} s")
    else:
        typer.echo("nothing runs here")


def _tell_urls(settings: Settings) -> None:
    typer.echo(f"""
  cart_service   {_url(settings.http_host, settings.cart_port)}
  order_service  {_url(settings.http_host, settings.order_port)}
  Kafka          {settings.kafka_bootstrap_servers}""")


def _tell_commands(stack: Stack) -> None:
    settings = stack.settings
    elsewhere = "" if stack.directory == Path.cwd() else f" --stack {stack.directory}"
    typer.echo(f"""
Try:
  curl -X POST {_url(settings.http_host, settings.cart_port)}/create-order \\
       -H 'Content-Type: application/json' -d '{{"orderId": "ord-1", "itemsNum": 2}}'
  curl '{_url(settings.http_host, settings.order_port)}/order-details?orderId=ord-1'
  {sys.argv[0]} status{elsewhere}""")


def _url(host: str, port: int) -> str:
    return f"http://{host}:{port}"
