"""Which error a typed call raises for an answer that is none of its own."""

from __future__ import annotations

from http import HTTPStatus

import msgspec

from orderflow.client.shapes import Event
from orderflow.client.wire import NO_ANSWER, Answer
from orderflow.errors import (
    ClientError,
    EventSkipped,
    EventSpooled,
    NotAppliedYet,
    NotFound,
    OutcomeUnknown,
    RequestRefused,
    ServiceUnavailable,
    UnexpectedAnswer,
)

#: Of what was asked for after an event of this client's own.
SKIPPED, NOT_APPLIED, TOO_MANY_WAITING = "event-skipped", "not-applied-yet", "too-many-waiting"

#: What became of an event that is in the outbox, and the way out.
_IN_OUTBOX = {
    "spooled": "it waits on disk for Kafka, or behind an earlier event of its order, and is sent by itself; read later",
    "held": "Kafka refuses it for good; see it with `orderflow outbox list --state held`, then retry or discard it",
    "given_up": "an operator gave it up, so it never takes effect; write again what is still wanted",
}

#: The same of one that was given up after it had been sent without an acknowledgement.
_MAY_COME = (
    "an operator gave it up, but a copy that was sent before may still be applied; look at the order before you write "
    "again"
)


def failure(answer: Answer, what: str) -> ClientError:
    """Give the error of a read; ``what`` is what was asked for, in words."""
    kind: type[ClientError]
    if answer.status == NO_ANSWER:
        said, kind = f"{answer.error}; see with `orderflow status` whether it runs", ServiceUnavailable
    elif answer.status == HTTPStatus.SERVICE_UNAVAILABLE:
        said, kind = f"{_sentence(answer)} Ask again later", ServiceUnavailable
    elif answer.status == HTTPStatus.NOT_FOUND:
        said, kind = _sentence(answer), NotFound
    elif HTTPStatus.BAD_REQUEST <= answer.status < HTTPStatus.INTERNAL_SERVER_ERROR:
        said, kind = _sentence(answer), RequestRefused
    else:
        said, kind = f"answered with {answer.status}: {_sentence(answer)}", UnexpectedAnswer
    return kind(f"{what}: {said}", answer.status, answer.problem)


def write_failure(answer: Answer, what: str, key: str) -> ClientError:
    """Give the error of a write that was not taken, or of which nobody knows."""
    if answer.outcome == "unknown":
        return OutcomeUnknown(
            f"{what}: nobody knows whether it takes effect ({_sentence(answer).rstrip('.')})",
            answer.status,
            answer.problem,
            key,
        )
    return failure(answer, what)


def read_failure(answer: Answer, order_id: str, event_id: str | None) -> ClientError:
    """Give the error of a read of an order, after an event or not."""
    if event_id is None or answer.problem not in (SKIPPED, NOT_APPLIED):
        return failure(answer, f"order {order_id!r}")
    event = _event(answer)
    name = f"event {event_id} of order {order_id!r}"
    if answer.problem == SKIPPED:
        reason = answer.member("reason") or "unknown"
        why = (event and event.detail) or _sentence(answer)
        said = (
            f"{name} was skipped ({reason}), so it has no effect: {why} Write again what is wanted, or heal it: "
            f"`orderflow skipped list`"
        )
        return EventSkipped(said, answer.status, answer.problem, event_id, event, reason=reason)
    state, lag = event and event.state, answer.member("lag")
    if state in _IN_OUTBOX:
        why = f" ({event.reason})" if event and event.reason else ""
        may_come = state == "given_up" and event is not None and event.maybe_on_topic
        said = f"{name} is {state}{why}: {_MAY_COME if may_come else _IN_OUTBOX[state]}"
        return EventSpooled(said, answer.status, answer.problem, event_id, event, lag=lag)
    said = f"{name} is {state or 'not known yet'}{_behind(lag)}; {_WAIT if event or lag else _LOOK}"
    return NotAppliedYet(said, answer.status, answer.problem, event_id, event, lag=lag)


def is_settled(answer: Answer) -> bool:
    """Tell of the answer to a read after an event whether waiting for it any longer comes to nothing."""
    event = _event(answer)
    return answer.problem == SKIPPED or (event is not None and event.state == "given_up")


_WAIT = "read again, or wait longer: `orderflow status`"
_LOOK = "read again, or there is no such event: `orderflow event EVENT_ID`"


def _behind(lag: int | None) -> str:
    if lag is None:
        return ""
    return f", {lag} records of its partition are to be applied first" if lag else ", and nothing is left to be applied"


def _event(answer: Answer) -> Event | None:
    try:
        return msgspec.convert(answer.member("event"), Event | None)
    except msgspec.ValidationError:
        return None  # the sentence counts; an event of a later version is left out


def _sentence(answer: Answer) -> str:
    return answer.error or f"it was answered with {answer.status} and no reason"
