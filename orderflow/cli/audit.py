"""``orderflow audit``: whether the database is what the topic says, and whether callers were told the truth.

It changes nothing and needs no service, only Kafka and the two databases.
"""

from __future__ import annotations

import gc
from contextlib import contextmanager
from pathlib import Path  # noqa: TC003 (typer reads the annotations)
from typing import TYPE_CHECKING, Annotated, NoReturn, Self

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from orderflow.audit.auditor import audit as carry_out
from orderflow.audit.differences import Findings
from orderflow.audit.processes import SELDOM
from orderflow.cli.terminal import JsonOption, StackOption, settings_of, show_fields, show_json, show_table, text_of
from orderflow.errors import OrderflowError, SettingsError
from orderflow.process import EX_INTERRUPTED

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.progress import TaskID

    from orderflow.audit.tally import Tally

#: There are differences; it could not be carried out.
EX_DIFFERENT, EX_NOT_DONE = 1, 2


def audit(
    *,
    ledger: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Also what callers were told, as `orderflow load --ledger FILE` keeps it."),
    ] = None,
    limit: Annotated[int, typer.Option(min=0, max=1_000_000, help="Show so many differences; all are counted.")] = 100,
    stack: StackOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check with a second model of all rules that nothing acknowledged is lost or counted twice.

    It copies the databases, reads the topic as far as they have come, and names each difference with its probable
    cause and the command that mends it. Exit code 0: there is none, 1: there are some, 2: it could not be carried out.

    For example:
    $ orderflow audit
    $ orderflow audit --ledger load.jsonl --json
    """
    findings = Findings(limit)
    try:
        with _Bar() as bar, _little_garbage():
            tally = carry_out(settings_of(stack), findings, bar, ledger)
    except SettingsError:
        raise
    except (OrderflowError, OSError) as error:
        _fail(str(error))
    except KeyboardInterrupt:
        raise typer.Exit(EX_INTERRUPTED) from None
    if as_json:
        show_json(summary(findings, tally))
    else:
        _show(findings, tally)
    if findings.total:
        raise typer.Exit(EX_DIFFERENT)


def summary(findings: Findings, tally: Tally) -> dict[str, object]:
    """Give what was found as one document."""
    return {
        "differences": findings.total,
        "kinds": dict(sorted(findings.counts.items())),
        "shown": [one.shown() for one in findings.kept],
        "compared": tally.shown(),
    }


@contextmanager
def _little_garbage() -> Iterator[None]:
    usual = gc.get_threshold()
    gc.set_threshold(*SELDOM)
    try:
        yield
    finally:
        gc.set_threshold(*usual)


class _Bar:
    """A progress bar, on a terminal."""

    def __init__(self) -> None:
        console = Console(stderr=True)
        columns = (
            TextColumn("audit"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("records"),
            TimeElapsedColumn(),
        )
        self._progress = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._task: TaskID = self._progress.add_task("audit", total=None)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def expect(self, records: int) -> None:
        self._progress.update(self._task, total=records)

    def note(self, records: int) -> None:
        self._progress.advance(self._task, records)


def _fail(problem: str) -> NoReturn:
    typer.echo(f"orderflow: the audit was not carried out: {problem}", err=True)
    raise typer.Exit(EX_NOT_DONE)


def _show(findings: Findings, tally: Tally) -> None:
    for one in findings.kept:
        typer.echo(f"{one.kind}: {one.kind.facts.sentence}")
        fields = (("order", one.order_id), ("place", one.place), ("expected", one.expected), ("found", one.found))
        show_fields([(f"  {name}", value and text_of(value)) for name, value in fields])
        show_fields([("  cause   ", one.cause), ("  mend    ", one.mend)])
        typer.echo()
    if findings.total > len(findings.kept) > 0:
        typer.echo(f"{findings.total - len(findings.kept)} more differences are not shown; see more with --limit.\n")
    if findings.total:
        show_table(("difference", "count"), findings.counts.most_common())
        typer.echo()
    _show_counts(tally)
    found = f"{findings.total} differences" if findings.total else "no difference"
    if findings.total == 1:
        found = "1 difference"
    typer.echo(f"{found}: {tally.records} records in {tally.seconds:.1f} s, {tally.per_second:.0f} a second")


def _show_counts(tally: Tally) -> None:
    rows = [("applied", tally.applied), ("duplicates", tally.duplicates)]
    rows += [(f"skipped: {reason}", count) for reason, count in sorted(tally.skipped.items())]
    rows += [(f"skips: {state}", count) for state, count in sorted(tally.skips.items())]
    rows += [(f"controls: {verdict}", count) for verdict, count in sorted(tally.controls.items())]
    rows.append(("orders", tally.orders))
    rows += [(f"outbox: {state}", count) for state, count in sorted(tally.outbox.items())]
    rows += [(f"ledger: {what}", count) for what, count in sorted(tally.ledger.items())]
    if tally.internal_errors:
        rows.append(("internal errors, which no log can show: `orderflow skipped list`", tally.internal_errors))
    if tally.lost_from_log:
        rows.append(("lost from the log, and kept here: `orderflow republish`", tally.lost_from_log))
    show_table(("compared", "count"), rows)
