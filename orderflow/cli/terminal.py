"""What the commands share: the option ``--stack``, and how results are shown to people and to machines."""

from __future__ import annotations

import getpass
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import msgspec
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from orderflow.settings import Settings
from orderflow.stack import CONF, Stack

if TYPE_CHECKING:
    from collections.abc import Sequence

#: A command that needs a stack takes ``stack: StackOption = Path()``.
StackOption = Annotated[Path, typer.Option("--stack", metavar="DIR", help="The stack's folder.", show_default="here")]

JsonOption = Annotated[bool, typer.Option("--json", help="One JSON document on stdout, for machines.")]


AuthorOption = Annotated[
    str, typer.Option("--author", metavar="NAME", help="Who does it.", show_default="your login name")
]


def settings_of(directory: Path) -> Settings:
    """The settings of the stack in a folder, or the environment's where there is none."""
    if (directory / CONF).exists():
        return Stack.open(directory).settings
    return Settings.from_env()


def outbox_settings_of(directory: Path) -> Settings:
    """The settings of a stack that has an outbox; opening it would make one, in whichever folder this is."""
    settings = settings_of(directory)
    if not settings.outbox_db.exists():
        fail(
            f"there is no {settings.outbox_db}, the services make it when they start; run this in the stack's folder, "
            "or name that with --stack DIR"
        )
    return settings


def login_name() -> str:
    """Name whoever runs this."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user without a name, as in some containers
        return f"user {os.getuid()}"


def text_of(argument: str) -> str:
    """Make text of an argument whatever its bytes are: a store takes no lone surrogates."""
    return argument.encode(errors="surrogateescape").decode(errors="backslashreplace")


def fail(problem: str) -> NoReturn:
    """End with exit code 1, and say why."""
    typer.echo(f"orderflow: {problem}", err=True)
    raise typer.Exit(1)


def show_json(value: object) -> None:
    """One document, indented."""
    typer.echo(msgspec.json.format(msgspec.json.encode(value), indent=2))


def printable(value: object) -> str:
    """Text without a terminal's control characters: what came from outside may hold some."""
    return _CONTROL_CHARACTERS.sub(lambda found: ascii(found[0])[1:-1], str(value))


_CONTROL_CHARACTERS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def show_fields(fields: Sequence[tuple[str, object]]) -> None:
    """One line for each field that has a value."""
    width = max(len(name) for name, _ in fields)
    for name, value in fields:
        if value is not None:
            typer.echo(f"{name.ljust(width)}  {printable(value)}")


def show_table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """A table: drawn on a terminal, plain aligned columns elsewhere."""
    cells = [[printable(cell) for cell in row] for row in rows]
    if sys.stdout.isatty():
        table = Table(*columns)
        for row in cells:
            table.add_row(*map(Text, row))  # Text: what is shown may hold rich's own markup signs
        Console().print(table)
        return
    lines = [list(columns), *cells]
    widths = [max(len(line[column]) for line in lines) for column in range(len(columns))]
    for line in lines:
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
