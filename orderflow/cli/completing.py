"""What a shell completes of values that only a running stack knows. Where nobody answers soon, nothing is offered."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import typer  # noqa: TC002 (typer reads the annotations)

from orderflow.cli.terminal import settings_of
from orderflow.client import Client
from orderflow.errors import OrderflowError
from orderflow.store.alerts import Alerts
from orderflow.store.reader import Reader
from orderflow.store.rows import place_id
from orderflow.store.skips import Skips, Wanted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from orderflow.settings import Settings

#: So many of the newest are looked through.
NEWEST = 1_000
TIMEOUT_S = 1.0


def _orders(settings: Settings) -> Iterable[str]:
    with Client.from_settings(settings, timeout_s=TIMEOUT_S, retries=0) as client:
        return [order.order_id for order in islice(client.orders(page=NEWEST), NEWEST)]


def _skips(settings: Settings) -> Iterable[str]:
    return [place_id(row.skip.place) for row in Skips(Reader(settings)).newest(Wanted("open"), NEWEST)]


def _alerts(settings: Settings) -> Iterable[str]:
    if not settings.outbox_db.exists():
        return []
    return [str(row.id) for row in Alerts(settings).rows(limit=NEWEST)]


def _completing(find: Callable[[Settings], Iterable[str]]) -> Callable[[typer.Context, str], list[str]]:
    def complete(ctx: typer.Context, incomplete: str) -> list[str]:
        """Give what begins like that, in the stack that was named."""
        try:
            found = find(settings_of(Path(named) if (named := ctx.params.get("stack")) else None))
        except OrderflowError:
            return []
        return [one for one in found if one.startswith(incomplete)]

    return complete


order_ids = _completing(_orders)
skip_ids = _completing(_skips)
alert_ids = _completing(_alerts)


def one_of(words: Iterable[str]) -> Callable[[str], list[str]]:
    """Complete one of some words."""
    return lambda incomplete: [word for word in words if word.startswith(incomplete)]
