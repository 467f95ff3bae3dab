"""The command ``orderflow``. Errors become one line on stderr and an exit code."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import sys
from collections import UserDict
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from orderflow.cli.terminal import complain
from orderflow.errors import OrderflowError, SettingsError

#: In the sequence of the help. Each is a function of its name in a module of its name; a group is that module's `app`.
COMMANDS = (
    "status",
    "top",
    "orders",
    "timeline",
    "event",
    "outbox",
    "skipped",
    "alerts",
    "audit",
    "rebuild",
    "republish",
    "demo",
    "load",
    "stack",
    "config",
)


class _Commands(UserDict[str, Any]):
    """The commands by their names. A module is imported when its command is asked for: some import Kafka's client."""

    def __init__(self) -> None:
        super().__init__(dict.fromkeys(COMMANDS))

    def __getitem__(self, name: str) -> Any:
        if self.data[name] is None:
            self.data[name] = _load(name)
        return self.data[name]


def _load(name: str) -> Any:
    module = importlib.import_module(f"orderflow.cli.{name}")
    if hasattr(module, "app"):
        group = typer.main.get_group(module.app)
        group.name = name
        return group
    one = typer.Typer(add_completion=False)
    one.command(name)(getattr(module, name))
    return typer.main.get_command(one)


class Orderflow(TyperGroup):
    """The whole of it."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands = _Commands()


app = typer.Typer(cls=Orderflow, no_args_is_help=True, pretty_exceptions_show_locals=False)


def main() -> None:
    """Run the command line: exit code 78 for a wrong setting, 1 for what else went wrong, 130 for Ctrl-C."""
    try:
        app()
    except OrderflowError as error:
        complain(error)
        sys.exit(os.EX_CONFIG if isinstance(error, SettingsError) else 1)


def _version(*, wanted: bool) -> None:
    if wanted:
        typer.echo(f"orderflow {importlib.metadata.version('orderflow')}")
        raise typer.Exit


@app.callback()
def orderflow(
    *,
    version: Annotated[bool, typer.Option("--version", callback=_version, help="Show the version.")] = False,
) -> None:
    """Operate orderflow: orders through Apache Kafka, whose HTTP answer is the truth.

    For example:
    $ orderflow status --wait 30
    $ orderflow orders create ord-1 --items-num 2 --wait 5
    $ orderflow timeline ord-1
    """
    del version  # the callback has done it


if __name__ == "__main__":
    main()
