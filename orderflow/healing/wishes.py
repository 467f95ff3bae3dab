"""What a person asks for a skipped message. The same types check HTTP bodies and the command line."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from orderflow.controls import AUTHOR_MAX, NOTE_MAX, Offset
from orderflow.orders import PRINTABLE
from orderflow.shapes import RawEvent  # noqa: TC001 (msgspec reads the annotations at run time)

Author = Annotated[str, Meta(min_length=1, max_length=AUTHOR_MAX, pattern=PRINTABLE)]
Reason = Annotated[str, Meta(min_length=1, max_length=NOTE_MAX, pattern=PRINTABLE)]


class Redrive(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel", kw_only=True):
    """Let a record take effect: mended, where ``event`` is given, else as it was; in its place, or at the end.

    ``if_last`` is the offset of the order's last record that the author saw; without it, the one of this moment.
    ``force`` allows what is refused because it would come to nothing, or go round in circles.
    """

    author: Author
    reason: Reason | None = None
    event: RawEvent | msgspec.UnsetType = msgspec.UNSET
    if_last: Offset | None = None
    at_end: bool = False
    force: bool = False

    @property
    def mended(self) -> bytes | None:
        """The mended event, as it was given."""
        return None if isinstance(self.event, msgspec.UnsetType) else bytes(self.event)


class Discard(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel", kw_only=True):
    """Give a record up for good."""

    author: Author
    reason: Reason
    if_last: Offset | None = None


Wish = Redrive | Discard
