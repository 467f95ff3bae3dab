"""The control records: a repair or a discard of a skipped record, addressed to that record's place.

How they are judged and what they do: docs/adr/0013-repairs-on-the-topic.md.
"""

from __future__ import annotations

import hashlib
import uuid
from enum import StrEnum
from typing import Annotated

import msgspec
from msgspec import Meta

from orderflow.errors import InvalidEvent
from orderflow.events import Event, EventId, Moment, SkipReason, decode_text, text_of, type_of
from orderflow.orders import JSON_ENCODER
from orderflow.shapes import RawEvent  # noqa: TC001 (msgspec reads the annotations at run time)

#: UUIDv5 namespace of the ids of controls: the same wish is the same control.
CONTROL_IDS = uuid.UUID("0c5d3f4e-8a37-5d0b-9f6c-2f1f4f0f6b52")

#: The longest text of a person in a control: an author, a reason.
AUTHOR_MAX, NOTE_MAX = 200, 2_000

Offset = Annotated[int, Meta(ge=0, le=2**63 - 1)]
TopicId = Annotated[str, Meta(min_length=1, max_length=100)]
Author = Annotated[str, Meta(min_length=1, max_length=AUTHOR_MAX, pattern=r"\S")]
Note = Annotated[str, Meta(max_length=NOTE_MAX)]


class _Control(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="type"):
    """What both have. ``reason`` is what the author says, for people."""

    event_id: EventId
    topic_id: TopicId
    partition: Annotated[int, Meta(ge=0, le=2**31 - 1)]
    offset: Offset
    author: Author
    reason: Note = ""
    operation: EventId | None = None
    occurred_at: Moment | None = None


class Repaired(_Control, frozen=True, kw_only=True, tag="message.repaired"):
    """The mended event stands at the place of the named record. ``event`` is one whole event, as on the wire."""

    if_last: Offset
    event: RawEvent

    def mended(self) -> Event:
        """Decode the mended event.

        Raises:
            InvalidEvent: it is none.

        """
        return decode_text(self.event_text)

    @property
    def event_text(self) -> str:
        """The mended event as it was written."""
        return bytes(self.event).decode()


class Discarded(_Control, frozen=True, kw_only=True, tag="message.discarded"):
    """The named record is given up for good. ``successor`` is the event that was sent in its stead, where one was."""

    if_last: Offset | None = None
    successor: EventId | None = None


class Verdict(StrEnum):
    """What came of a control: the closed set of words that logs, tables and answers use."""

    ACCEPTED = "accepted"
    SUPERSEDED = "superseded"
    STALE = "stale"
    INVALID_CONTROL = "invalid_control"
    DUPLICATE = "duplicate"


Control = Repaired | Discarded
TYPES = {kind: str(kind.__struct_config__.tag) for kind in (Repaired, Discarded)}


_decoder: msgspec.json.Decoder[Control] = msgspec.json.Decoder(Control)


def is_control(value: bytes | None) -> bool:
    """Tell whether a record's value is a JSON object with a control's type, valid or not. Cheap for plain events."""
    if value is None or (b"message." not in value and b"\\" not in value):  # A type may be written with escapes.
        return False
    return type_of(value) in TYPES.values()


def decode(value: bytes | None) -> Control:
    """Read a control record's value.

    Raises:
        InvalidEvent: it is none; a repair whose mended event does not decode is none.

    """
    text = text_of(value)
    try:
        control = _decoder.decode(text)
        if isinstance(control, Repaired):
            control.mended()
    except InvalidEvent as error:
        raise InvalidEvent(SkipReason.INVALID_CONTROL, f"The mended event is no event: {error.detail}") from None
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidEvent(SkipReason.INVALID_CONTROL, f"{error}.") from None
    return control


def encode(control: Control) -> bytes:
    """Write a control as one record's value."""
    return JSON_ENCODER.encode(control)


def fingerprint(value: bytes) -> bytes:
    """Hash a control's value: equal for two copies of it, byte for byte. 16 bytes."""
    return hashlib.blake2b(value, digest_size=16).digest()


def control_id(*said: object) -> str:
    """Name a control by what it says, so that the same wish is the same control."""
    return str(uuid.uuid5(CONTROL_IDS, msgspec.json.encode([str(part) for part in said]).decode()))
