"""``orderflow status``: what runs, and who waits for what."""

from __future__ import annotations

import time
from enum import IntEnum
from typing import TYPE_CHECKING, Annotated

import typer

from orderflow.cli.terminal import JsonOption, StackOption, clock, show_json, show_table, stack_of
from orderflow.errors import NoSupervisor
from orderflow.stack import POLL_S

if TYPE_CHECKING:
    from orderflow.stack import Stack
    from orderflow.status import Row


class ExitCode(IntEnum):
    """As ``supervisorctl status`` has them, except that a program on demand need not run."""

    WELL = 0
    DEGRADED = 3
    NO_SUPERVISOR = 4


def status(
    *,
    stack: StackOption = None,
    wait: Annotated[float, typer.Option(metavar="SECONDS", min=0, help="Wait so long for all to be well.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Show what runs. Exit code 0: all is well, 3: something does not run or is degraded, 4: no supervisord.

    For example:
    $ orderflow status
    $ orderflow status --wait 30 --json
    """
    opened = stack_of(stack)
    deadline = time.monotonic() + wait
    code, rows, problem = _look(opened)
    while code is not ExitCode.WELL and time.monotonic() < deadline:
        time.sleep(POLL_S)
        code, rows, problem = _look(opened)

    if as_json:
        show_json({"ok": code is ExitCode.WELL, "programs": rows, "problem": problem})
    elif problem:
        typer.echo(problem, err=True)
    else:
        show_table(("program", "state", "pid", "uptime", "", "says"), [_cells(row) for row in rows])
    raise typer.Exit(code)


def _look(stack: Stack) -> tuple[ExitCode, list[Row], str | None]:
    try:
        rows = stack.status()
    except NoSupervisor as error:
        return ExitCode.NO_SUPERVISOR, [], str(error)
    return ExitCode.WELL if all(row.ok for row in rows) else ExitCode.DEGRADED, rows, None


def _cells(row: Row) -> tuple[str, ...]:
    pid = "-" if row.pid is None else str(row.pid)
    uptime = "-" if row.uptime_s is None else clock(row.uptime_s)
    return row.program, row.state, pid, uptime, "ok" if row.ok else "LOOK", row.says
