"""The errors of orderflow. A class says what its catcher does.

OrderflowError
├── SettingsError          exit with EX_CONFIG: a person must change a setting
├── Invalid                answer 400, or skip the record: no retry makes it right
│   ├── InvalidEvent       a record's value that is no event: skip it with its reason
│   ├── InvalidMending     a mended event that cannot take the place: answer 400
│   └── InvalidBody        an HTTP body: answer 400 with the fields
├── HealingRefused         answer 409: what a person asks for a skipped message cannot be done as things are
├── AmbiguousEvent         answer 409: several orders have an event of that id
├── SearchTooLong          answer 503: an event is looked for in all orders, and that takes too long
├── BrokerError
│   ├── NotAccepted        not taken at all: too many wait, or the topic may not be used: refuse
│   ├── Unsent             nothing reached Kafka: retry, then spool
│   ├── Unacknowledged     sent without an answer: retry, then spool; where that fails, say unknown
│   ├── Rejected           Kafka said no for good: refuse without a retry
│   │   └── RecordRejected because of the record itself: the others are taken
│   ├── Undelivered        some of a group is not acknowledged: the policy waits and tries again
│   ├── Unreadable         close the subscription, find the record, skip it, subscribe again
│   └── TopicMisconfigured exit with EX_CONFIG: the topic is not the one orderflow is built on
├── LogInDoubt             the log may not be the one that was applied: subscribe again, which finds out
├── RebuildRefused         tell the operator: the projection cannot be rebuilt from this topic
├── RepublishRefused       tell the operator: what the log lost cannot be told as things are
├── LogReplaced            the log is not the one that was applied: open a new epoch, replay
├── StoreError
│   ├── StoreUnavailable   answer 503, or wait: there is no database yet, or it is locked
│   ├── StoreUncertain     say unknown: a commit failed that may have taken effect
│   ├── OutboxFull         answer 503: the event must wait, and there is no room
│   ├── StoreIncompatible  exit with EX_CONFIG: the file has another schema version
│   └── StoreDamaged       exit with EX_CONFIG: a person has the projection built anew
├── ClientError            what a typed call of the client could not do: as its kind says
│   ├── RequestRefused     mend the request: it has no effect, and never will
│   ├── NotFound           there is none of that name, or not yet
│   ├── ServiceUnavailable ask again later: nobody answers, or not now
│   ├── OutcomeUnknown     send the write again with its key until it is published or spooled
│   ├── NotAppliedYet      read again later: the write is on its way
│   │   └── EventSpooled   tell the caller: it waits for Kafka; or, held or given up, for an operator
│   ├── EventSkipped       tell the caller: the write had no effect, for the reason
│   └── UnexpectedAnswer   report it: the service failed, or is of another version
├── NoSupervisor           tell the operator: no supervisord answers, or it does not start
├── SupervisorRefused      tell the operator: supervisord cannot do what it was asked
└── StackError             tell the operator: a stack cannot be made, or does not become ready
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from orderflow.client.shapes import Event


class OrderflowError(Exception):
    """Whatever orderflow raises on purpose."""


class SettingsError(OrderflowError):
    """A setting is wrong. The message names it, its value and what would be right."""


class Invalid(OrderflowError):
    """Input that no retry makes right.

    ``reason`` is a stable word for machines, ``str()`` the sentence for people.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


class InvalidEvent(Invalid):
    """A record's value that is no event; ``reason`` is one of `orderflow.events.SkipReason`."""


class InvalidBody(Invalid):
    """An HTTP body that is no valid request; ``fields`` maps a field's path to what is wrong with it."""

    def __init__(self, reason: str, detail: str, fields: dict[str, str] | None = None) -> None:
        super().__init__(reason, detail)
        self.fields = fields or {}


class InvalidMending(Invalid):
    """A mended event that is no event, so that it cannot stand in any history."""


class HealingRefused(OrderflowError):
    """What is asked for a skipped message cannot be done; ``reason`` is a stable word, ``str()`` the sentence."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class AmbiguousEvent(OrderflowError):
    """Several orders have an event of the id that is asked for; the message names them, and the way out."""


class SearchTooLong(OrderflowError):
    """An event is looked for in all orders, and that takes too long now."""


class BrokerError(OrderflowError):
    """Kafka did not do what it was asked."""


class NotAccepted(BrokerError):
    """The event was not taken: too many wait already, or the topic may not be used."""


class Unsent(BrokerError):
    """Nothing was handed to the network: the event will not appear on the topic."""


class Unacknowledged(BrokerError):
    """The event was sent and no acknowledgement came: it may be on the topic, or come to it later."""


class Undelivered(BrokerError):
    """Some events of a group are not acknowledged yet. ``fields`` is what the retry's log line says about them."""

    def __init__(self, detail: str, fields: dict[str, Any]) -> None:
        super().__init__(detail)
        self.fields = fields


class Unreadable(BrokerError):
    """A record cannot be parsed, nor anything behind it in its batch; ``at`` has each partition's offset reached."""

    def __init__(self, detail: str, at: dict[int, int]) -> None:
        super().__init__(detail)
        self.at = at


class Rejected(BrokerError):
    """Kafka refused the event, and will refuse it again."""


class RecordRejected(Rejected):
    """Kafka refused the event for what it is: it is too large, say. Others of the topic are taken."""


class TopicMisconfigured(BrokerError):
    """The topic exists with settings that would break a guarantee."""


class LogInDoubt(OrderflowError):
    """The topic's log may not be the one that was applied: its broker was away, or another answers."""


class RebuildRefused(OrderflowError):
    """The projection cannot be rebuilt as things are; the message says why, and the way out."""


class RepublishRefused(OrderflowError):
    """What the log lost cannot be told as things are; the message says why, and the way out."""


class LogReplaced(OrderflowError):
    """The topic's log does not hold what was applied from it: truncated, deleted or another cluster's."""


class StoreError(OrderflowError):
    """The database did not do what it was asked."""


class StoreUnavailable(StoreError):
    """The database is not there yet, or locked beyond the wait."""


class StoreUncertain(StoreError):
    """A commit ended with an error, and may have taken effect all the same."""


class OutboxFull(StoreError):
    """As many events wait for Kafka as may, or as many bytes."""


class StoreIncompatible(StoreError):
    """The database was written by another version of orderflow."""


class StoreDamaged(StoreError):
    """The projection's file is damaged."""


class ClientError(OrderflowError):
    """What a typed call of the client could not do; ``str()`` has the way out.

    ``status`` is that of the HTTP answer, 0 without one; ``problem`` the kind of error, such as ``unknown-order``.
    """

    def __init__(self, detail: str, status: int, problem: str | None) -> None:
        super().__init__(detail)
        self.status = status
        self.problem = problem


class RequestRefused(ClientError):
    """The service refuses the request as it is."""


class NotFound(ClientError):
    """There is nothing of that name, or nothing is known of it yet."""


class ServiceUnavailable(ClientError):
    """The service cannot be reached, or cannot answer now. Of a write: it was not taken."""


class OutcomeUnknown(ClientError):
    """A write was sent, and nobody knows whether it takes effect. Repeated under ``idempotency_key`` it is the same.

    ``said`` is what happened, without the way out.
    """

    def __init__(self, said: str, status: int, problem: str | None, idempotency_key: str) -> None:
        way_out = f"send it again with idempotency_key={idempotency_key!r} until it is published or spooled"
        super().__init__(f"{said}; {way_out}", status, problem)
        self.said = said
        self.idempotency_key = idempotency_key


class NotAppliedYet(ClientError):
    """The event ``event_id``, after which an order was asked for, was not applied in time.

    ``event`` is what is known of it, or None; ``lag`` are the records that are to be applied first, or None.
    """

    def __init__(
        self, detail: str, status: int, problem: str | None, event_id: str, event: Event | None, lag: int | None
    ) -> None:
        super().__init__(detail, status, problem)
        self.event_id = event_id
        self.event = event
        self.lag = lag


class EventSpooled(NotAppliedYet):
    """It is in the outbox: ``event.state`` is spooled, held or given_up."""


class EventSkipped(ClientError):
    """The event ``event_id``, after which an order was asked for, was skipped: ``reason`` is the word for why."""

    def __init__(
        self, detail: str, status: int, problem: str | None, event_id: str, event: Event | None, reason: str
    ) -> None:
        super().__init__(detail, status, problem)
        self.event_id = event_id
        self.event = event
        self.reason = reason


class UnexpectedAnswer(ClientError):
    """The service failed, or said what this client does not understand."""


class NoSupervisor(OrderflowError):
    """No supervisord answers on the socket, or it does not start."""


class SupervisorRefused(OrderflowError):
    """Supervisor answered that it cannot do what it was asked."""


class StackError(OrderflowError):
    """A stack cannot be made, or does not become ready."""
