"""Carrying out what is asked for skipped messages: which are meant, what would come of it, what came of it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import msgspec
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from orderflow.cli.terminal import fail, show_json, show_table
from orderflow.healing import shown
from orderflow.orders import JSON_ENCODER
from orderflow.store.rows import place_id
from orderflow.store.skips import Wanted

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from orderflow.errors import HealingRefused, InvalidMending
    from orderflow.healing.desk import HealingDesk, Prepared
    from orderflow.healing.preview import Change
    from orderflow.healing.remedy import Remedy
    from orderflow.store.rows import ControlRow, SkippedRow

#: Pause between two looks at what was applied.
LOOK_S = 0.2


def chosen(
    desk: HealingDesk, named: list[SkippedRow], wanted: Wanted, *, all_: bool, as_json: bool
) -> list[SkippedRow]:
    """Give the skips that are meant: those that were named, or the open ones of a filter in the log as it is."""
    if bool(named) + (wanted != Wanted()) + all_ != 1:
        fail("say which are meant, in one way: the ids of skipped messages, or filters such as --reason, or --all")
    epoch = desk.epoch()
    skips = named or [skip for skip in desk.skips.walk(wanted) if skip.epoch == epoch]
    if not skips and not as_json:
        typer.echo("no open skipped message is meant")
        raise typer.Exit
    return list({skip.place: skip for skip in skips}.values())


def show_changes(
    changes: Sequence[Change], left_out: Sequence[tuple[SkippedRow, HealingRefused | InvalidMending]], *, as_json: bool
) -> None:
    """Say what would come of it; exit code 1 where something could not be done."""
    if as_json:
        show_json(
            {"changes": [_plain(shown.change_shown(change)) for change in changes], "leftOut": _left_out(left_out)}
        )
    else:
        for change in changes:
            _show_change(change)
        _show_left_out(left_out)
    if left_out:
        raise typer.Exit(1)


def carry_out(desk: HealingDesk, prepared: Prepared, wait_s: float, *, as_json: bool) -> None:
    """Put it into the outbox, and wait until it is applied; exit code 1 where not all came to be as it was wished."""
    remedies = prepared.remedies
    verdicts: dict[str, ControlRow] = {}
    if remedies:
        desk.ask(remedies)
        verdicts = _wait(desk, remedies, wait_s, quiet=as_json)
    results = [_result(desk, one, verdicts.get(one.control.event_id)) for one in remedies]
    if as_json:
        show_json({"results": results, "leftOut": _left_out(prepared.left_out)})
    else:
        if results:
            columns = ("id", "verdict", "state", "detail")
            show_table(columns, [tuple(one[name] or "" for name in columns) for one in results])
            _show_summary(results)
        _show_left_out(prepared.left_out)
    if prepared.left_out or not all(one["done"] for one in results):
        raise typer.Exit(1)


def _wait(desk: HealingDesk, remedies: Sequence[Remedy], wait_s: float, *, quiet: bool) -> dict[str, ControlRow]:
    """Wait until the consumer has read them all, or nothing moves for so long; give the verdicts there are."""
    until = time.monotonic() + wait_s
    columns = (TextColumn("applied"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=quiet) as progress:
        task = progress.add_task("applied", total=len(remedies))
        verdicts: dict[str, ControlRow] = {}
        while True:
            before, verdicts = verdicts, desk.verdicts(remedies)
            progress.update(task, completed=len(verdicts))
            if len(verdicts) > len(before):
                until = time.monotonic() + wait_s
            if len(verdicts) == len(remedies) or time.monotonic() >= until:
                return verdicts
            time.sleep(LOOK_S)


def _result(desk: HealingDesk, one: Remedy, verdict: ControlRow | None) -> dict[str, Any]:
    skip = desk.skips.at(one.skip.place) or one.skip
    detail = "Asked for, and not applied yet." if verdict is None else verdict.detail
    if one.event is not None:
        detail += f" Sent again as event {one.event.event_id}."
    return {
        "id": place_id(skip.place),
        "verdict": None if verdict is None else verdict.verdict,
        "state": skip.state,
        "done": verdict is not None and skip.state in one.closes_as,
        "detail": detail if skip.state != "open" or verdict is None else f"{detail} Now: {skip.detail}",
    }


def _show_summary(results: Sequence[dict[str, Any]]) -> None:
    waits = sum(one["verdict"] is None for one in results)
    done = sum(one["done"] for one in results)
    typer.echo(f"{done} took effect, {len(results) - done - waits} did not, {waits} are under way")
    if waits:
        typer.echo("what is under way is applied when Kafka and the workers run: `orderflow status`", err=True)


def _show_change(change: Change) -> None:
    typer.echo(f"order {change.order_id}" if change.order_id else "no order")
    typer.echo(f"  before   {_order_line(change.before)}")
    typer.echo(f"  after    {_order_line(change.after)}")
    for name, value in _plain(shown.change_shown(change)).items():
        if name in ("orderId", "before", "after", "lastOffset") or not value:
            continue
        for one in value:
            typer.echo(f"  {_word(name)} {_line(one)}")
    if change.last is not None and len(change.controls) == 1:
        typer.echo(f"  to do this and nothing else, add --if-last {change.last}")


def _word(name: str) -> str:
    return {
        "verdicts": "verdict ",
        "becomesSkipped": "turns to a skip",
        "becomesDuplicate": "becomes a duplicate",
    }.get(name, name.ljust(8))


def _line(one: Any) -> str:
    if isinstance(one, str):
        return one
    return f"{one['id']} {one['reason']}" if "id" in one else f"{one['verdict']}: {one['detail']}"


def _order_line(row: Any) -> str:
    if row is None:
        return "does not exist"
    total = f"{row.total_minor // 100}.{row.total_minor % 100:02d} {row.currency}"
    return f"{row.status}, customer {row.customer_id}, total {total}"


def _show_left_out(left_out: Sequence[tuple[SkippedRow, HealingRefused | InvalidMending]]) -> None:
    for skip, error in left_out:
        typer.echo(f"left out {place_id(skip.place)} ({error.reason}): {error}", err=True)


def _left_out(left_out: Sequence[tuple[SkippedRow, HealingRefused | InvalidMending]]) -> list[dict[str, str]]:
    return [{"id": place_id(skip.place), "reason": error.reason, "detail": str(error)} for skip, error in left_out]


def _plain(value: Mapping[str, Any]) -> dict[str, Any]:
    """Give what holds raw JSON as plain values."""
    plain: dict[str, Any] = msgspec.json.decode(JSON_ENCODER.encode(value))
    return plain
