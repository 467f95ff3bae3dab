"""An event and its steps as people and machines are shown them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NotRequired, TypedDict, cast

from orderflow.clock import moment
from orderflow.shapes import Time

if TYPE_CHECKING:
    from collections.abc import Sequence

#: How an event stands. The first three: in the outbox. `published`: on the topic, and not read yet. The last four are
#: the verdicts on a control, beside `duplicate`.
EventState = Literal[
    "spooled", "held", "given_up", "published", "applied", "duplicate", "skipped", "repaired", "healed", "discarded",
    "accepted", "superseded", "stale", "invalid_control",
]  # fmt: skip

StepWord = Literal[
    "accepted", "spooled", "held", "given_up", "delivered", "published", "applied", "duplicate", "skipped",
    "redrive_asked", "discard_asked", "repaired", "healed", "discarded", "refused",
]  # fmt: skip


class Step(TypedDict):
    """What happened to an event, and when; what is not known, or does not apply, is left out.

    ``eventId`` is that of the control that did it, where one did.
    """

    step: StepWord
    at: Time | None
    traceId: NotRequired[str]
    partition: NotRequired[int]
    offset: NotRequired[int]
    reason: NotRequired[str]
    detail: NotRequired[str]
    author: NotRequired[str]
    eventId: NotRequired[str]


class EventShown(TypedDict):
    """An event or a control: what it is, how it stands, and its steps, the first one first.

    ``status`` is the one that it sets. ``maybeOnTopic``: it is in the outbox and was sent without an acknowledgement,
    so a copy may be on the topic, or come to it. ``epoch``, ``partition`` and ``offset`` are its place, once known.
    """

    eventId: str | None
    orderId: str | None
    kind: Literal["event", "control"]
    type: str | None
    status: str | None
    state: EventState
    reason: str | None
    detail: str | None
    traceId: str | None
    maybeOnTopic: bool
    epoch: int | None
    partition: int | None
    offset: int | None
    steps: list[Step]


def step(word: StepWord, at_ms: int | None, **said: Any) -> Step:
    """Make a step of what is known of it; ``at_ms`` is in ms since 1970."""
    known = {name: value for name, value in said.items() if value is not None}
    return cast("Step", {"step": word, "at": moment(at_ms)} | known)


def in_time(steps: Sequence[Step]) -> list[Step]:
    """Put steps into the sequence of time; one whose time is not known stays behind the one in front of it."""
    known, timed = "", []
    for one in steps:
        known = one["at"] or known
        timed.append((known, one))
    return [one for _, one in sorted(timed, key=lambda pair: pair[0])]
