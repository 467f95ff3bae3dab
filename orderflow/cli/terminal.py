"""What the commands share: the option ``--stack``, and how results are shown to people and to machines."""

from __future__ import annotations

import getpass
import io
import os
import re
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import msgspec
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from orderflow.client import Client
from orderflow.settings import Settings
from orderflow.stack import CONF, Stack

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from rich.console import RenderableType

#: How long a service may take to answer; a write may take the 16 s that docs/http.md allows it.
CLIENT_TIMEOUT_S = 20.0

#: A command that needs a stack takes ``stack: StackOption = None``.
StackOption = Annotated[
    Path | None, typer.Option("--stack", metavar="DIR", help="The stack's folder.", show_default="here")
]

JsonOption = Annotated[bool, typer.Option("--json", help="One JSON document on stdout, for machines.")]


AuthorOption = Annotated[
    str, typer.Option("--author", metavar="NAME", help="Who does it.", show_default="your login name")
]


def settings_of(directory: Path | None) -> Settings:
    """The settings of the stack in a folder that was named; else of the one here, or the environment's.

    Raises:
        StackError: there is no stack in the folder that was named.

    """
    if directory is None and not Path(CONF).exists():
        return Settings.from_env()
    return stack_of(directory).settings


def stack_of(directory: Path | None) -> Stack:
    """The stack in a folder that was named, else the one here; `StackError` where there is none."""
    return Stack.open(directory or Path())


def client_of(directory: Path | None) -> Client:
    """A client of the services of a stack, as `settings_of` finds it."""
    return Client.from_settings(settings_of(directory), timeout_s=CLIENT_TIMEOUT_S, retries=1)


def outbox_settings_of(directory: Path | None) -> Settings:
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
    complain(problem)
    raise typer.Exit(1)


def complain(problem: object) -> None:
    """Say on stderr what went wrong."""
    typer.echo(f"orderflow: {printable(problem)}", err=True)


def tidy_up_when_ended() -> None:
    """Take SIGTERM as Ctrl-C, and a terminal that goes away, too: what was begun is put in order first."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:  # as under nohup
            signal.signal(number, signal.default_int_handler)


#: Columns of what is drawn into a file or a pipe: nothing is wrapped.
PLAIN_WIDTH = 10_000

_encoder = msgspec.json.Encoder(decimal_format="number")


def show_json(value: object, *, one_line: bool = False) -> None:
    """One document, indented, or in one line."""
    document = _encoder.encode(value).decode()
    typer.echo(document if one_line else msgspec.json.format(document, indent=2))


def printable(value: object) -> str:
    """Text without a terminal's control characters: what came from outside may hold some."""
    return _CONTROL_CHARACTERS.sub(lambda found: ascii(found[0])[1:-1], str(value))


def in_one_line(value: object) -> str:
    """The same, where it must not break the line either."""
    return printable(value).replace("\n", "\\n").replace("\t", "\\t")


#: Those of ASCII and Latin-1 but for tab and line feed; separators of lines, and what turns the direction of writing.
_CONTROL_CHARACTERS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def draw(drawing: RenderableType) -> None:
    """Something drawn: as wide as the terminal, with colours; elsewhere as wide as it is, and plain."""
    if sys.stdout.isatty():
        Console().print(drawing)
        return
    console = Console(file=io.StringIO(), width=PLAIN_WIDTH)
    with console.capture() as captured:
        console.print(drawing)
    for line in captured.get().splitlines():
        typer.echo(line.rstrip())


def clock(seconds: int) -> str:
    """Say how long something runs: hours, minutes, seconds."""
    minutes, s = divmod(seconds, _MINUTE)
    hours, m = divmod(minutes, _MINUTE)
    return f"{hours}:{m:02}:{s:02}"


def duration(seconds: float) -> str:
    """Say how long something took, in its two largest units; clocks that differ make it negative."""
    if seconds < 0:
        return "-" + duration(-seconds)
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < _MINUTE:
        return f"{seconds:.1f} s"
    minutes, s = divmod(round(seconds), _MINUTE)
    hours, m = divmod(minutes, _MINUTE)
    days, h = divmod(hours, 24)
    units = [(days, "d"), (h, "h"), (m, "min"), (s, "s")]
    first = next(number for number, (count, _) in enumerate(units) if count)
    return " ".join(f"{count} {unit}" for count, unit in units[first : first + 2])


_MINUTE = 60


def show_fields(fields: Sequence[tuple[str, object]]) -> None:
    """One line for each field that has a value."""
    width = max(len(name) for name, _ in fields)
    for name, value in fields:
        if value is not None:
            typer.echo(f"{name.ljust(width)}  {printable(value)}")


def show_table(columns: Sequence[str], rows: Sequence[Sequence[Any]], *, rigid: Collection[str] = ()) -> None:
    """A table: drawn on a terminal, plain aligned columns elsewhere.

    On a terminal that is too narrow cells go on in the next line, the longest ones first; none of a ``rigid`` column.
    """
    cells = [[printable(cell) for cell in row] for row in rows]
    if sys.stdout.isatty():
        table = Table(box=None, pad_edge=False)
        for name in columns:
            table.add_column(name, no_wrap=name in rigid, overflow="fold")
        for row in cells:
            table.add_row(*map(Text, row))  # Text: what is shown may hold rich's own markup signs
        Console().print(table)
        return
    lines = [list(columns), *cells]
    widths = [max(len(line[column]) for line in lines) for column in range(len(columns))]
    for line in lines:
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
