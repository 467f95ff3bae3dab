"""The command ``orderflow``. Errors become one line on stderr and an exit code."""

from __future__ import annotations

import importlib.metadata
import os
import sys
from typing import Annotated

import typer

from orderflow.cli import alerts, outbox, skipped, stack
from orderflow.cli.audit import audit
from orderflow.cli.config import config
from orderflow.cli.demo import demo
from orderflow.cli.load import load
from orderflow.cli.rebuild import rebuild
from orderflow.cli.republish import republish
from orderflow.cli.status import status
from orderflow.errors import OrderflowError, SettingsError

app = typer.Typer(no_args_is_help=True, pretty_exceptions_show_locals=False)
app.command()(status)
app.command()(config)
app.command()(demo)
app.command()(load)
app.command()(rebuild)
app.command()(republish)
app.command()(audit)
app.add_typer(stack.app, name="stack")
app.add_typer(outbox.app, name="outbox")
app.add_typer(skipped.app, name="skipped")
app.add_typer(alerts.app, name="alerts")


def main() -> None:
    """Run the command line: exit code 78 for a wrong setting, 1 for what else went wrong, 130 for Ctrl-C."""
    try:
        app()
    except OrderflowError as error:
        typer.echo(f"orderflow: {error}", err=True)
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
    """Operate orderflow: orders through Apache Kafka, whose HTTP answer is the truth."""
    del version  # the callback has done it


if __name__ == "__main__":
    main()
