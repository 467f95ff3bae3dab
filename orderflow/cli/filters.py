"""The options that choose skipped messages, said once for all commands that take them."""

from __future__ import annotations

import functools
import inspect
from dataclasses import dataclass
from datetime import datetime  # noqa: TC003 (typer reads the annotations)
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orderflow.cli.completing import one_of, order_ids
from orderflow.events import SkipReason
from orderflow.store.skips import Wanted

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True, kw_only=True)
class Filter:
    """Which skipped messages are meant."""

    reason: Annotated[
        str | None,
        typer.Option(
            metavar="REASON", autocompletion=one_of(SkipReason), help="Only those skipped for it, e.g. unknown_order."
        ),
    ] = None
    order: Annotated[
        str | None, typer.Option(metavar="ORDER_ID", autocompletion=order_ids, help="Only those about this order.")
    ] = None
    since: Annotated[
        datetime | None, typer.Option(help="Only those that came to the topic then or later, local time.")
    ] = None
    until: Annotated[datetime | None, typer.Option(help="Only those that came to the topic before.")] = None

    def wanted(self) -> Wanted:
        """Give them as the store takes them: the open ones."""
        if self.reason is not None and self.reason not in list(SkipReason):
            raise typer.BadParameter(f"{self.reason!r} is no reason; give one of {', '.join(SkipReason)}")
        return Wanted("open", self.reason, self.order, _ms(self.since), _ms(self.until))


def filtered(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of `Filter`; it gets them as one argument, ``meant``."""
    own = inspect.signature(command, eval_str=True)
    options = inspect.signature(Filter, eval_str=True).parameters

    @functools.wraps(command)
    def run(**given: Any) -> None:
        meant = Filter(**{name: given.pop(name) for name in options})
        command(**given, meant=meant)

    kept = [parameter for name, parameter in own.parameters.items() if name != "meant"]
    parameters = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in (*kept, *options.values())]
    # What typer reads: the signature, and the annotations.
    run.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {one.name: one.annotation for one in parameters}
    return run


def _ms(at: datetime | None) -> int | None:
    return None if at is None else round(at.timestamp() * 1000)
