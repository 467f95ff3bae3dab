"""``orderflow skipped``: what could not be applied, and the healing of it. It needs no service but the workers."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from orderflow.cli.completing import one_of, skip_ids
from orderflow.cli.filters import Filter, filtered
from orderflow.cli.healing import carry_out, chosen, show_changes
from orderflow.cli.terminal import (
    AuthorOption,
    JsonOption,
    StackOption,
    fail,
    login_name,
    settings_of,
    show_fields,
    show_json,
    show_table,
    text_of,
)
from orderflow.clock import moment
from orderflow.healing import shown
from orderflow.healing.desk import HealingDesk
from orderflow.healing.wishes import Discard, Redrive
from orderflow.store.rows import SKIP_STATES, parse_place_id, place_id
from orderflow.wording import plain

if TYPE_CHECKING:
    from collections.abc import Collection

    from orderflow.healing.wishes import Wish
    from orderflow.store.rows import SkippedRow

app = typer.Typer(
    no_args_is_help=True,
    help="""See what could not be applied, mend it in its place, or give it up.

    For example:
    $ orderflow skipped list
    $ orderflow skipped redrive 1-3-42 --event mended.json --simulate
    """,
)

STATES = (*SKIP_STATES, "all")

Ids = Annotated[
    list[str] | None, typer.Argument(metavar="ID...", autocompletion=skip_ids, help="As `list` shows them: 1-3-42.")
]
AllOption = Annotated[bool, typer.Option("--all", help="All that are open.")]
SimulateOption = Annotated[bool, typer.Option("--simulate", help="Only show what would come of it.")]
IfLastOption = Annotated[
    int | None,
    typer.Option("--if-last", metavar="OFFSET", min=0, help="Refuse if the order's last record is another by now."),
]
WaitOption = Annotated[
    float,
    typer.Option("--wait", metavar="SECONDS", min=0, help="Wait until all is applied, or nothing moves so long."),
]


@app.command(name="list")
@filtered
def list_(
    *,
    state: Annotated[
        str, typer.Option(metavar="STATE", autocompletion=one_of(STATES), help=f"One of {', '.join(STATES)}.")
    ] = "open",
    meant: Filter,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="So many at most.")] = 100,
    stack: StackOption = None,
    as_json: JsonOption = False,
) -> None:
    """List skipped messages, newest first, and count them by reason.

    For example:
    $ orderflow skipped list
    $ orderflow skipped list --reason unknown_order --since 2026-11-23 --json
    """
    if state not in STATES:
        raise typer.BadParameter(f"{state!r} is no state; give one of {', '.join(STATES)}")
    wanted = meant.wanted()._replace(state=None if state == "all" else state)  # type: ignore[arg-type]
    desk = HealingDesk(settings_of(stack))
    counts = desk.skips.counts(wanted)
    rows = [row.skip for row in desk.skips.newest(wanted, limit)]
    if as_json:
        show_json({"counts": counts, "skippedMessages": [shown.skip_shown(row) for row in rows]})
        return
    if rows:
        rigid = ("id", "state", "reason", "came") if state == "all" else ("id", "reason", "came")
        show_table((*rigid, "order", "detail"), [_cells(row, rigid) for row in rows], rigid=rigid)
    told = ", ".join(f"{count} {name}" for name, count in counts.items())
    typer.echo(f"{sum(counts.values())} skipped messages{': ' + told if told else ''}")


@app.command()
def show(
    name: Annotated[str, typer.Argument(metavar="ID", autocompletion=skip_ids, help="As `list` shows it: 1-3-42.")],
    *,
    stack: StackOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show one skipped message with its payload and headers, and what was asked for it.

    For example:
    $ orderflow skipped show 1-3-42
    """
    desk = HealingDesk(settings_of(stack))
    skip = _find(desk, name)
    controls = [shown.control_shown(row) for row in desk.skips.controls_of(skip.place)]
    entry = desk.under_way([skip]).get(place_id(skip.place))
    under_way = None if entry is None else shown.under_way_shown(entry)
    kept, last = shown.skip_with_payload(skip), desk.last_offset(skip)
    if as_json:
        show_json({"skippedMessage": {**kept, "lastOffset": last, "controls": controls, "underWay": under_way}})
        return
    headers = [("header", f"{one['name']}: {one['value']}") for one in kept["headers"]]
    asked = [
        ("asked", f"{one['type']} by {one['author']} at offset {one['offset']}: {one['verdict']}. {one['detail']}")
        for one in controls
    ]
    asked += [("because", one["reason"]) for one in controls if one["reason"]]
    waits = [("under way", f"{under_way['eventId']}, {under_way['state']}")] if under_way else []
    fields = [(name, value) for name, value in kept.items() if name != "headers" and not name.endswith("Base64")]
    show_fields([*fields, ("lastOffset", last), *headers, *asked, *waits])


@app.command()
@filtered
def redrive(  # noqa: PLR0913 (a command's options)
    names: Ids = None,
    *,
    event: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="The mended event as JSON; - reads it from stdin. Without: as it was."),
    ] = None,
    at_end: Annotated[
        bool, typer.Option("--at-end", help="Send it anew, behind all others; for what has no place, or wants none.")
    ] = False,
    because: Annotated[str | None, typer.Option("--because", metavar="TEXT", help="Why; it is kept.")] = None,
    author: AuthorOption = "",
    if_last: IfLastOption = None,
    force: Annotated[
        bool, typer.Option("--force", help="Also what would come to nothing, or was repaired too often.")
    ] = False,
    simulate: SimulateOption = False,
    wait: WaitOption = 30.0,
    meant: Filter,
    all_: AllOption = False,
    stack: StackOption = None,
    as_json: JsonOption = False,
) -> None:
    """Let skipped messages take effect in their place, mended or as they were; see first with --simulate.

    For example:
    $ orderflow skipped redrive 1-3-42 --event mended.json --simulate
    $ orderflow skipped redrive --reason internal_error --because "the bug is mended"
    """
    settings = settings_of(stack)
    desk = HealingDesk(settings)
    skips = chosen(desk, [_find(desk, name) for name in names or []], meant.wanted(), all_=all_, as_json=as_json)
    if event is not None and len(skips) != 1:
        fail(f"--event is for one skipped message, and {len(skips)} are meant")
    wish = Redrive(
        author=text_of(author or login_name()),
        reason=None if because is None else text_of(because),
        event=msgspec.UNSET if event is None else msgspec.Raw(_read_event(event)),
        if_last=if_last,
        at_end=at_end,
        force=force,
    )
    _do(desk, skips, _checked(wish), simulate=simulate, wait_s=wait, as_json=as_json)


@app.command()
@filtered
def discard(  # noqa: PLR0913 (a command's options)
    names: Ids = None,
    *,
    because: Annotated[str, typer.Option("--because", metavar="TEXT", help="Why; it is kept.")],
    author: AuthorOption = "",
    if_last: IfLastOption = None,
    simulate: SimulateOption = False,
    wait: WaitOption = 30.0,
    meant: Filter,
    all_: AllOption = False,
    stack: StackOption = None,
    as_json: JsonOption = False,
) -> None:
    """Give skipped messages up for good. A late copy of one does not come back to life.

    For example:
    $ orderflow skipped discard 1-3-42 --because "a test of the shop's"
    """
    desk = HealingDesk(settings_of(stack))
    skips = chosen(desk, [_find(desk, name) for name in names or []], meant.wanted(), all_=all_, as_json=as_json)
    wish = Discard(author=text_of(author or login_name()), reason=text_of(because), if_last=if_last)
    _do(desk, skips, _checked(wish), simulate=simulate, wait_s=wait, as_json=as_json)


def _do(
    desk: HealingDesk, skips: list[SkippedRow], wish: Wish, *, simulate: bool, wait_s: float, as_json: bool
) -> None:
    prepared = desk.prepare(skips, wish)
    if simulate:
        show_changes(desk.preview(prepared.remedies), prepared.left_out, as_json=as_json)
    else:
        carry_out(desk, prepared, wait_s, as_json=as_json)


def _find(desk: HealingDesk, name: str) -> SkippedRow:
    place = parse_place_id(name)
    found = None if place is None else desk.skips.at(place)
    return found or fail(f"there is no skipped message {name!r}; `orderflow skipped list --state all` shows what is")


def _checked(wish: Wish) -> Wish:
    """Check what a person says, as the HTTP route does. The mended event is checked when it is used."""
    words = msgspec.structs.replace(wish, event=msgspec.UNSET) if isinstance(wish, Redrive) else wish
    try:
        msgspec.json.decode(msgspec.json.encode(words), type=type(wish))
    except msgspec.ValidationError as error:
        fail(plain(str(error)))
    return wish


def _read_event(name: str) -> bytes:
    if name == "-":
        return sys.stdin.buffer.read()
    try:
        return Path(name).read_bytes()
    except OSError as error:
        fail(f"the mended event cannot be read: {error}")


def _cells(skip: SkippedRow, names: Collection[str]) -> tuple[object, ...]:
    came = (moment(skip.logged_at) or "").partition(".")[0]  # to the second
    cells = {"id": place_id(skip.place), "state": skip.state, "reason": skip.reason, "came": came and f"{came}Z"}
    return *(cells[name] for name in names), skip.order_id or "", skip.detail
