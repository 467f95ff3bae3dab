"""``orderflow rebuild``: fold the topic anew, and see what differs before it takes effect."""

from __future__ import annotations

import os
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from orderflow.cli.terminal import JsonOption, StackOption, fail, settings_of, show_json, tidy_up_when_ended
from orderflow.process import CONSUMER, StopFlag, exclusive_lock
from orderflow.rebuild.rebuild import Rebuild
from orderflow.rebuild.scratch import from_scratch
from orderflow.stack import CONF
from orderflow.store.sqlite import MAYBE_COMMITTED, DatabaseError, is_damage
from orderflow.supervise import Supervisor, read_socket
from orderflow.worker import standing_in

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from orderflow.settings import Settings
    from orderflow.store.differences import Difference, Differences


#: Examples of each kind of difference.
EXAMPLES = 5


def rebuild(
    *,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what differs, and change nothing. Exit code 0, whatever differs.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask where something differs.")] = False,
    drop_lost: Annotated[
        bool,
        typer.Option(
            "--drop-lost", help="Drop what the log has lost; it is nowhere else. First: `orderflow republish`."
        ),
    ] = False,
    scratch: Annotated[
        bool,
        typer.Option("--from-scratch", help="Make a new file, where the old one is lost or damaged; that is kept."),
    ] = False,
    stack: StackOption = None,
    as_json: JsonOption = False,
) -> None:
    """Fold the topic anew into orders.db; the old tables serve reads until the new ones take their place at once.

    The order-consumer is stopped for it, with --dry-run, too, and while you are asked; then it is started again.
    Stopped or killed in between, the old ones stay. Exit code 1: refused, or not confirmed.

    For example:
    $ orderflow rebuild --dry-run
    $ orderflow rebuild --yes
    $ orderflow rebuild --from-scratch
    """
    if scratch and dry_run:
        fail("--from-scratch does not go with --dry-run")
    settings = settings_of(stack)
    tidy_up_when_ended()
    with _consumer_stopped(stack, quiet=as_json), _writers_lock(settings), _troubles_told(settings, scratch=scratch):
        if scratch:
            with _progress(quiet=as_json) as tell:
                kept = from_scratch(settings, tell, drop_lost=drop_lost)
        else:
            swapped, found = _rebuild(settings, dry_run=dry_run, yes=yes, keep_lost=not drop_lost, quiet=as_json)
    if scratch:
        _tell_scratch(settings, kept, as_json=as_json)
        return
    if as_json:
        show_json(_shown(found) | {"swapped": swapped})
    else:
        typer.echo("the new tables serve reads now" if swapped else "nothing was changed")
    if not swapped and not dry_run:
        raise typer.Exit(1)


def _rebuild(settings: Settings, *, dry_run: bool, yes: bool, keep_lost: bool, quiet: bool) -> tuple[bool, Differences]:
    with Rebuild(settings, keep_lost=keep_lost) as work:
        with _progress(quiet=quiet) as tell:
            work.fold(tell)
        found = work.differences(EXAMPLES)
        if not quiet:
            _tell_differences(found)
        if dry_run or (found.total and not yes and not _confirmed(found, may_ask=not quiet)):
            return False, found
        work.swap()
        return True, found


def _confirmed(found: Differences, *, may_ask: bool) -> bool:
    if not (may_ask and sys.stdin.isatty()):
        typer.echo(f"{found.total} rows differ; look at them, and say --yes to let the new ones take effect", err=True)
        return False
    return typer.confirm(
        f"{found.total} rows differ. Nothing is applied until you answer. Let the new ones take effect?"
    )


@contextmanager
def _troubles_told(settings: Settings, *, scratch: bool) -> Iterator[None]:
    """End with a sentence where the file or the disk is in the way."""
    try:
        yield
    except (DatabaseError, OSError) as error:
        if is_damage(error) and not scratch:
            fail(f"{settings.orders_db} is damaged ({error}); build it anew with `orderflow rebuild --from-scratch`")
        if MAYBE_COMMITTED in getattr(error, "__notes__", ()):
            fail(f"{settings.orders_db}: {error}; it may have taken effect; say it again to see")
        fail(
            f"{settings.orders_db} cannot be built ({error}), and nothing was changed; see that its folder has room "
            "for a second copy, and that nobody else has the file open"
        )


@contextmanager
def _writers_lock(settings: Settings) -> Iterator[None]:
    """Be the file's writer. Whoever is it already is named."""
    stop = StopFlag()
    holder: list[int | None] = []

    def waiting(pid: int | None) -> None:
        holder.append(pid)
        stop.set()

    with exclusive_lock(settings.run_dir / f"{CONSUMER}.lock", stop, waiting) as held:
        if not held:
            fail(f"process {holder[0]} writes {settings.orders_db}; stop it first: `supervisorctl stop {CONSUMER}`")
        with standing_in(settings, CONSUMER, "orderflow rebuild"):
            yield


@contextmanager
def _consumer_stopped(stack: Path | None, *, quiet: bool) -> Iterator[None]:
    """Stop the consumer where Supervisor runs it, and start it again, however this ends; not one that was stopped."""
    conf = (stack or Path()) / CONF
    supervisor = Supervisor(read_socket(conf)) if conf.exists() else None
    state = supervisor.program(CONSUMER).state if supervisor is not None and supervisor.alive() else "STOPPED"
    if supervisor is None or state == "STOPPED":
        yield
        return
    starts = state in ("RUNNING", "STARTING")  # One that gave up is started where this has helped.
    try:
        if starts and not quiet:
            typer.echo(f"stopping {CONSUMER}", err=True)
        supervisor.stop(CONSUMER)
        yield
        starts = True
    finally:
        if starts:
            supervisor.start(CONSUMER)
            if not quiet:
                typer.echo(f"started {CONSUMER}", err=True)


@contextmanager
def _progress(*, quiet: bool) -> Iterator[Callable[[int, int], None]]:
    columns = (TextColumn("folded"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=quiet or not console.is_terminal) as progress:
        task = progress.add_task("folded", total=None)
        begin = time.monotonic()
        last = [0]

        def tell(done: int, total: int) -> None:
            last[0] = done
            progress.update(task, completed=done, total=total)

        yield tell
    if not quiet:
        seconds = max(time.monotonic() - begin, 1e-6)
        typer.echo(f"folded {last[0]:,} records in {seconds:.1f} s, {last[0] / seconds:,.0f} a second", err=True)


def _tell_differences(found: Differences) -> None:
    if not found.total:
        typer.echo("nothing differs: orders, history, skips and controls are what the topic says")
    for (table, kind), count in found.counts.items():
        typer.echo(f"{table}: {count} {_WORDS[kind]}")
        for example in found.examples:
            if (example.table, example.kind) == (table, kind):
                typer.echo(f"  {_line(example)}")


_WORDS = {"gone": "would be gone", "new": "would be new", "other": "would be other"}


def _line(one: Difference) -> str:
    name = "-".join(map(str, one.key))
    if one.kind == "other":
        before, after = one.before or {}, one.after or {}
        return f"{name}: " + ", ".join(f"{column} {before[column]!r} -> {after[column]!r}" for column in before)
    row = one.before or one.after or {}
    told = ("status", "outcome", "reason", "state", "verdict")
    return f"{name}: " + ", ".join(f"{column} {row[column]!r}" for column in told if row.get(column) is not None)


def _tell_scratch(settings: Settings, kept: Path | None, *, as_json: bool) -> None:
    if as_json:
        show_json({"built": str(settings.orders_db), "kept": None if kept is None else str(kept)})
        return
    typer.echo(f"built {os.path.relpath(settings.orders_db)} from the topic")
    if kept is not None:
        typer.echo(f"the old file is kept as {os.path.relpath(kept)}; remove it when nobody needs it")


def _shown(found: Differences) -> dict[str, Any]:
    return {
        "differences": found.total,
        "counts": {f"{table}.{kind}": count for (table, kind), count in found.counts.items()},
        "examples": [
            {"table": one.table, "kind": one.kind, "key": list(one.key), "before": _text(one.before),
             "after": _text(one.after)}
            for one in found.examples
        ],
    }  # fmt: skip


def _text(row: dict[str, Any] | None) -> dict[str, Any] | None:
    """Give a row as JSON takes it."""
    if row is None:
        return None
    return {
        name: value.decode(errors="backslashreplace") if isinstance(value, bytes) else value
        for name, value in row.items()
    }
