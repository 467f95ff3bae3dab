"""What the commands that write orders share: their arguments, and a key that is told where it may be needed again."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from orderflow import orders
from orderflow.cli.completing import order_ids
from orderflow.cli.terminal import complain, fail, text_of
from orderflow.errors import OutcomeUnknown
from orderflow.idempotency import KEY, KEY_RULE
from orderflow.process import EX_INTERRUPTED
from orderflow.wording import plain

if TYPE_CHECKING:
    from collections.abc import Iterator


def _id(given: str) -> str:
    try:
        return msgspec.convert(text_of(given), orders.OrderId)
    except msgspec.ValidationError as error:
        raise typer.BadParameter(f"{text_of(given)!r} is no order id: {plain(str(error))}") from None


def _key(given: str | None) -> str | None:
    if given is not None and not KEY.fullmatch(given):
        raise typer.BadParameter(f"{text_of(given)!r} is no key: give {KEY_RULE}")
    return given


NewId = Annotated[str, typer.Argument(metavar="ORDER_ID", callback=_id, help="The id that it is to have.")]
OrderId = Annotated[
    str, typer.Argument(metavar="ORDER_ID", callback=_id, autocompletion=order_ids, help="The order's id.")
]
KeyOption = Annotated[
    str | None,
    typer.Option(
        "--key", metavar="KEY", callback=_key, help="Idempotency-Key: a repetition under it is the same event."
    ),
]
WaitOption = Annotated[
    float, typer.Option("--wait", metavar="SECONDS", min=0, help="Wait so long for it to be applied; 0: not at all.")
]


@contextmanager
def key_told(key: str) -> Iterator[None]:
    """Tell the key of a write where nobody knows what came of it: exit code 1, or 130 after Ctrl-C."""
    try:
        yield
    except OutcomeUnknown as error:
        fail(f"{error.said}; repeat it with --key {key} until it is published or spooled")
    except KeyboardInterrupt:
        complain(f"interrupted, and it may take effect; repeated with --key {key} it is the same event")
        raise typer.Exit(EX_INTERRUPTED) from None
