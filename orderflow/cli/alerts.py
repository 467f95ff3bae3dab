"""``orderflow alerts``: what needs a person. It reads outbox.db itself, and so works when no service does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from orderflow.alerts.shown import Acknowledgement, acknowledge, shown
from orderflow.cli.completing import alert_ids
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
from orderflow.store.alerts import Alerts
from orderflow.wording import plain

if TYPE_CHECKING:
    from pathlib import Path
    from typing import NoReturn

    from orderflow.store.alerts import AlertRow

app = typer.Typer(
    no_args_is_help=True,
    help="""See what needs a person, what to do about it, and say who looks after it.

    For example:
    $ orderflow alerts list
    $ orderflow alerts ack 7 --author kim --note "disk ordered"
    """,
)

AlertId = Annotated[
    int, typer.Argument(metavar="ID", min=1, max=2**63 - 1, autocompletion=alert_ids, help="The alert's number.")
]


@app.command(name="list")
def list_(
    *,
    all_: Annotated[bool, typer.Option("--all", help="Resolved ones, too.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="So many at most.")] = 100,
    stack: StackOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the open alerts, newest first.

    For example:
    $ orderflow alerts list
    $ orderflow alerts list --all --json
    """
    rows = _open(stack).rows(open_only=not all_, limit=limit)
    if as_json:
        show_json({"alerts": [shown(row) for row in rows]})
    elif rows:
        columns = ("id", "severity", "cause", "since", "affected", "state", "detail")
        show_table(columns, [_cells(row) for row in rows], rigid=("id", "severity", "since"))
    else:
        typer.echo("no alerts" if all_ else "no alert is open")


@app.command()
def show(alert_id: AlertId, *, stack: StackOption = None, as_json: JsonOption = False) -> None:
    """Show one alert, and step by step what to do about it.

    For example:
    $ orderflow alerts show 7
    """
    row = _open(stack).get(alert_id)
    if row is None:
        _unknown(alert_id)
    alert = shown(row)
    if as_json:
        show_json({"alert": alert})
        return
    show_fields([(name, value) for name, value in alert.items() if name != "runbook"])
    typer.echo("\nWhat to do:")
    for number, step in enumerate(alert["runbook"], start=1):
        typer.echo(f"{number:>3}. {step}")


@app.command()
def ack(
    alert_id: AlertId,
    *,
    author: AuthorOption = "",
    note: Annotated[str | None, typer.Option(metavar="TEXT", help="What the others should know.")] = None,
    stack: StackOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say that you look after an alert. One of something that happened is closed by it.

    For example:
    $ orderflow alerts ack 7
    $ orderflow alerts ack 7 --author kim --note "disk ordered"
    """
    given = {"author": text_of(author or login_name()), "note": note and text_of(note)}
    try:
        said = msgspec.convert(given, Acknowledgement)
    except msgspec.ValidationError as error:
        fail(f"{given} is not valid: {plain(str(error))}; give --author NAME and --note TEXT in one line each")
    row, taken = acknowledge(_open(stack), alert_id, said)
    if row is None:
        _unknown(alert_id)
    if not taken:
        fail(f"alert {row.id} is resolved already: {row.resolution}")
    if as_json:
        show_json({"alert": shown(row)})
    else:
        typer.echo(f"alert {row.id} ({row.cause}) is {_state(row)}")


def _open(stack: Path | None) -> Alerts:
    return Alerts(outbox_settings_of(stack))


def _cells(row: AlertRow) -> tuple[object, ...]:
    alert = shown(row)
    return row.id, row.severity, row.cause, alert["openedAt"], row.affected, _state(row), row.detail


def _state(row: AlertRow) -> str:
    if row.resolved_at is not None:
        return f"resolved after {row.duration_s:.0f} s"
    return "open" if row.acknowledged_by is None else f"acknowledged by {row.acknowledged_by}"


def _unknown(alert_id: int) -> NoReturn:
    fail(f"there is no alert {alert_id}; `orderflow alerts list --all` lists those there are")
