"""Errors as ``application/problem+json`` (RFC 9457), with ``error`` for clients that look for a sentence there.

The kinds are stable references: here is each with its status and its meaning, and docs/http.md lists them.
"""

from __future__ import annotations

from enum import StrEnum
from http import HTTPStatus
from typing import Any, Literal, NotRequired, TypedDict

import msgspec

from orderflow.timeline.shown import EventShown

MEDIA_TYPE = "application/problem+json"

#: How long a client should wait before it asks again.
RETRY_AFTER = {"Retry-After": "1"}


class Kind(StrEnum):
    """What is wrong: the closed set of words below ``/problems/``."""

    MALFORMED_JSON = "malformed-json"
    INVALID_BODY = "invalid-body"
    INVALID_IDEMPOTENCY_KEY = "invalid-idempotency-key"
    MISSING_PARAMETER = "missing-parameter"
    INVALID_PARAMETER = "invalid-parameter"
    INVALID_EVENT = "invalid-event"
    NO_EVENT = "no-event"
    WRONG_ORDER = "wrong-order"
    BAD_REQUEST = "bad-request"
    TOKEN_REQUIRED = "token-required"  # noqa: S105 (a word, and no secret)
    FOREIGN_HOST = "foreign-host"
    FOREIGN_ORIGIN = "foreign-origin"
    UNKNOWN_ORDER = "unknown-order"
    UNKNOWN_TOPIC = "unknown-topic"
    UNKNOWN_SKIP = "unknown-skip"
    UNKNOWN_ALERT = "unknown-alert"
    UNKNOWN_EVENT = "unknown-event"
    NO_SUCH_ROUTE = "no-such-route"
    METHOD_NOT_ALLOWED = "method-not-allowed"
    SKIP_CLOSED = "skip-closed"
    NO_PLACE = "no-place"
    NO_EFFECT = "no-effect"
    REPAIRED_TOO_OFTEN = "repaired-too-often"
    ORDER_MOVED_ON = "order-moved-on"
    UNDER_WAY = "under-way"
    EARLIER_LOG = "earlier-log"
    ALERT_RESOLVED = "alert-resolved"
    EVENT_SKIPPED = "event-skipped"
    AMBIGUOUS_EVENT = "ambiguous-event"
    BODY_TOO_LARGE = "body-too-large"
    JSON_REQUIRED = "json-required"
    INTERNAL_ERROR = "internal-error"
    KAFKA_UNAVAILABLE = "kafka-unavailable"
    OUTBOX_UNAVAILABLE = "outbox-unavailable"
    TOO_MANY_BODIES = "too-many-bodies"
    NOT_ACCEPTED = "not-accepted"
    EVENT_REJECTED = "event-rejected"
    OUTCOME_UNKNOWN = "outcome-unknown"
    STORE_UNAVAILABLE = "store-unavailable"
    TOO_MANY_WALKS = "too-many-walks"
    TOO_MANY_WAITING = "too-many-waiting"
    SEARCH_TOO_LONG = "search-too-long"
    STOPPING = "stopping"
    NOT_APPLIED_YET = "not-applied-yet"

    @property
    def status(self) -> int:
        """The HTTP status that it is answered with."""
        return _FACTS[self][0]

    @property
    def meaning(self) -> str:
        """What it means, for people."""
        return _FACTS[self][1]

    @property
    def type(self) -> str:
        """The reference that an answer has."""
        return f"/problems/{self}"


#: Status -> the kinds that are answered with it, and what each means.
_MEANINGS: dict[int, dict[Kind, str]] = {
    400: {
        Kind.MALFORMED_JSON: "The body is not UTF-8, not JSON, or nested too deeply.",
        Kind.INVALID_BODY: "The body is JSON and not a valid request; `fields` says where.",
        Kind.INVALID_IDEMPOTENCY_KEY: "The `Idempotency-Key` is not 1 to 255 visible ASCII characters.",
        Kind.MISSING_PARAMETER: "A required parameter is missing or empty.",
        Kind.INVALID_PARAMETER: (
            "A parameter is none of the route's, is given twice, or has a value that it cannot have; `fields` "
            "says which."
        ),
        Kind.INVALID_EVENT: "The mended event is no event.",
        Kind.BAD_REQUEST: "The request itself is broken in a way that has no type of its own.",
    },
    401: {
        Kind.TOKEN_REQUIRED: "The route asks for the operator's bearer token, and it was not given, or is another.",
    },
    403: {
        Kind.FOREIGN_HOST: "The `Host` header is not one of this service's.",
        Kind.FOREIGN_ORIGIN: "The request comes from a page of another site (`Origin`).",
    },
    404: {
        Kind.UNKNOWN_ORDER: "There is no such order, or its create was not applied yet.",
        Kind.UNKNOWN_TOPIC: "This system does not read that topic.",
        Kind.UNKNOWN_SKIP: "There is no such skipped message.",
        Kind.UNKNOWN_ALERT: "There is no such alert.",
        Kind.UNKNOWN_EVENT: "Nothing is known of such an event: it may be published and not read yet, or never was.",
        Kind.NO_SUCH_ROUTE: "There is no such path.",
    },
    405: {
        Kind.METHOD_NOT_ALLOWED: "The path does not take this method; `Allow` says which it takes.",
    },
    409: {
        Kind.NO_EVENT: "The message is to be redriven as it is, and is no event: give the mended one.",
        Kind.WRONG_ORDER: "The event is of another order than the place in which it is to stand.",
        Kind.SKIP_CLOSED: "The skipped message is not open any more: it is repaired, healed or discarded.",
        Kind.NO_PLACE: (
            "The skipped message lies in no order's history, so it has no place to heal at. Send it again at the "
            "end, or discard it."
        ),
        Kind.NO_EFFECT: (
            "The message would be skipped again as it is asked for. Mend it, or what is in front of it, send it "
            "again at the end, discard it, or force it."
        ),
        Kind.REPAIRED_TOO_OFTEN: (
            "Three repairs of the message were accepted, and it is still skipped. Discard it, send it again at "
            "the end, or force a further repair."
        ),
        Kind.ORDER_MOVED_ON: "The order's last record is not the one that the author saw (`ifLast`). Look at it again.",
        Kind.UNDER_WAY: (
            "Something else is asked for the skipped message, and the consumer has not read it yet; or Kafka "
            "refuses it, and the outbox holds it."
        ),
        Kind.EARLIER_LOG: "The skipped message lies in an epoch of the log that is gone, so no control can name it.",
        Kind.ALERT_RESOLVED: "The alert is resolved: there is nothing to acknowledge.",
        Kind.EVENT_SKIPPED: (
            "The event that the read was to wait for was skipped: nothing of it takes effect, unless it is healed. "
            "`reason` says why, `event` has its steps."
        ),
        Kind.AMBIGUOUS_EVENT: "Several orders have an event of this id. Say which is meant with `orderId`.",
    },
    413: {
        Kind.BODY_TOO_LARGE: "The body is larger than the limit.",
    },
    415: {
        Kind.JSON_REQUIRED: "The `Content-Type` is not `application/json`.",
    },
    500: {
        Kind.INTERNAL_ERROR: "The service failed on this request; its log has the trace.",
    },
    503: {
        Kind.KAFKA_UNAVAILABLE: (
            "The event waited for all of its time behind others that Kafka took slowly, and was not sent. "
            "`outcome` is `refused`."
        ),
        Kind.OUTBOX_UNAVAILABLE: (
            "The event must wait, and the outbox takes none: it is full, locked, or cannot be written. It was not"
            " sent. `outcome` is `refused`. Of a redrive or discard, which has no `outcome`: nothing is asked "
            "for, unless `detail` says that a commit failed at its end. Asking again is safe."
        ),
        Kind.TOO_MANY_BODIES: "Too many callers are sending their bodies, slowly; nothing was read of this one.",
        Kind.NOT_ACCEPTED: (
            "The event was not taken: too many writes wait already, it is not known yet which orders wait in the "
            "outbox, or the topic is not the one orderflow is built on. `outcome` is `refused`."
        ),
        Kind.EVENT_REJECTED: (
            "Kafka refuses the event and will refuse it again (it is too large, say). `outcome` is `refused`. "
            "When an earlier attempt may have arrived, the event goes to the outbox instead (202); where Kafka "
            "refuses it there, too, it is held."
        ),
        Kind.OUTCOME_UNKNOWN: (
            "The event was sent without an acknowledgement, and the outbox did not take it in time. `outcome` is "
            "`unknown`. Retry with the same `Idempotency-Key`."
        ),
        Kind.STORE_UNAVAILABLE: (
            "There is no database yet, it (or the outbox, where that is asked) cannot be read now, or another "
            "version of orderflow wrote it."
        ),
        Kind.TOO_MANY_WALKS: "Too many callers read the list of all ids. Ask again, or for a page.",
        Kind.TOO_MANY_WAITING: "Half of the service's threads wait for events already. Ask again, or without `after`.",
        Kind.SEARCH_TOO_LONG: (
            "To find it everything must be looked through, and that takes too long, or too many others do so just now. "
            "Name the event's order with `orderId`; ask for orders without `status`."
        ),
        Kind.STOPPING: "The service stops, so it keeps nobody waiting. Ask again.",
    },
    504: {
        Kind.NOT_APPLIED_YET: (
            "The event that the read waited for was not applied in time. `event` is what is known of it (null: "
            "nothing yet), `lag` how many records of its partition are not applied (null: nobody knows, or it is not "
            "on the topic)."
        ),
    },
}
_FACTS = {kind: (status, meaning) for status, kinds in _MEANINGS.items() for kind, meaning in kinds.items()}


class ProblemDocument(TypedDict):
    """An error (RFC 9457)."""

    type: str
    title: str
    status: int
    #: The same sentence twice: one for clients of RFC 9457, one for clients that look for ``error``.
    detail: str
    error: str
    #: What is wrong, by member of the body or by parameter.
    fields: NotRequired[dict[str, str]]
    #: What is true of a write's event, and the event's id.
    outcome: NotRequired[Literal["refused", "unknown"]]
    eventId: NotRequired[str]
    #: Of a read that waited: why its event was skipped, what is known of that, and how far its partition is behind.
    reason: NotRequired[str]
    event: NotRequired[EventShown | None]
    lag: NotRequired[int | None]


class Problem(Exception):
    """An answer that is an error. ``extra`` are further members, ``headers`` go with it."""

    def __init__(self, kind: Kind, detail: str, headers: dict[str, str] | None = None, **extra: Any) -> None:
        super().__init__(detail)
        self.kind = kind
        self.status = kind.status
        self.detail = detail
        self.headers = headers or {}
        self.extra = extra

    def body(self) -> bytes:
        """Encode the problem."""
        members: ProblemDocument = {
            "type": self.kind.type,
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
            "error": self.detail,
        }
        return msgspec.json.encode(members | self.extra)


def for_status(status: int, detail: str) -> Problem:
    """Build the problem of a status that Bottle decided on."""
    crashed = status >= HTTPStatus.INTERNAL_SERVER_ERROR
    return Problem(
        {404: Kind.NO_SUCH_ROUTE, 405: Kind.METHOD_NOT_ALLOWED, 413: Kind.BODY_TOO_LARGE}.get(
            status, Kind.INTERNAL_ERROR if crashed else Kind.BAD_REQUEST
        ),
        detail,
    )
