"""What can need a person: the closed set of causes, with what each means and the commands that help.

docs/operations.md has an entry for each, with the same steps.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Literal, NamedTuple

Severity = Literal["critical", "warning"]

#: What every runbook begins with.
PLACE = "Go to the stack's folder; the commands are in .venv/bin, where orderflow is installed."


class Facts(NamedTuple):
    """What is known of a cause. ``resolved_when``: what its owner measures; None where there is nothing to measure."""

    severity: Severity
    title: str
    steps: tuple[str, ...]
    resolved_when: str | None = None

    @property
    def occurrence(self) -> bool:
        """Whether it is something that happened, and not a condition that lasts: a person closes it."""
        return self.resolved_when is None

    def runbook(self, alert_id: int | None) -> tuple[str, ...]:
        """Give all steps for one alert."""
        ack = f"`orderflow alerts ack {'ID' if alert_id is None else alert_id}`"
        if self.occurrence:
            return (PLACE, *self.steps, f"When this is done, close the alert: {ack}.")
        return (PLACE, f"Tell the others that you are at it: {ack}.", *self.steps, f"{self.resolved_when}")


class Cause(StrEnum):
    """Why an alert is open. At most one alert of a cause is open at a time."""

    KAFKA_UNREACHABLE = "kafka_unreachable"
    OUTBOX_NEARLY_FULL = "outbox_nearly_full"
    OUTBOX_UNWRITABLE = "outbox_unwritable"
    EVENT_HELD = "event_held"
    EVENT_REJECTED = "event_rejected"
    TOPIC_MISCONFIGURED = "topic_misconfigured"
    STORE_INCOMPATIBLE = "store_incompatible"
    LOG_REPLACED = "log_replaced"
    LOG_STARTS_LATE = "log_starts_late"
    INTERNAL_ERROR = "internal_error"
    UNREADABLE_RECORD = "unreadable_record"
    SKIP_FLOOD = "skip_flood"
    STORE_DAMAGED = "store_damaged"

    @property
    def facts(self) -> Facts:
        """What is known of it."""
        return _FACTS[self]


def facts_of(name: str) -> Facts:
    """Give what is known of the cause in a row, which another version may have written."""
    return _FACTS.get(name, _UNKNOWN)


_UNKNOWN = Facts(
    "critical",
    "Another version of orderflow opened this alert; this one does not know its cause.",
    ("See docs/operations.md of the version that wrote it.",),
    "Resolved by the program that opened it.",
)

_FACTS: dict[str, Facts] = {
    Cause.KAFKA_UNREACHABLE: Facts(
        "critical",
        "Kafka does not take events; they wait in the outbox.",
        (
            "See whether the broker runs, and who waits for it: `supervisorctl status kafka`, `orderflow status`.",
            "See why it does not: `tail -n 50 var/log/kafka.log`. A full disk is a usual reason: `df -h var`.",
            "Start it: `supervisorctl start kafka`. One that runs and does not answer: `supervisorctl restart kafka`.",
            "Where `orderflow config` shows another cluster in KAFKA_BOOTSTRAP_SERVERS, ask those who run it.",
            "Send nothing again: the outbox-relay delivers what waits. Watch it: `orderflow outbox list`.",
        ),
        "Resolved when Kafka takes events again and what the outage left in the outbox is delivered.",
    ),
    Cause.OUTBOX_NEARLY_FULL: Facts(
        "critical",
        "The outbox is nearly full; once it is, events that would have to wait are refused.",
        (
            "See why it is not drained: `orderflow status`. Where Kafka is away, see to that first.",
            "See how the relay does: `tail -n 50 var/log/outbox-relay.log`, `supervisorctl start outbox-relay`.",
            "Settle what is held; later events of its orders wait behind it: `orderflow outbox list --state held`.",
            "Where the outage will last, see whether the disk has room for more: `df -h var`.",
            "Then set ORDERFLOW_OUTBOX_MAX_EVENTS or ORDERFLOW_OUTBOX_MAX_MB higher.",
            "Start everything again with the setting: `orderflow stack down`, `orderflow stack up`.",
        ),
        "Resolved when the outbox is well below its bound again.",
    ),
    Cause.OUTBOX_UNWRITABLE: Facts(
        "critical",
        "outbox.db cannot be written: events that would have to wait are answered with 503.",
        (
            "Where the disk is full, make room: `df -h var`, `du -sh var/*`.",
            "Where it is locked, end the program that holds it (a backup, an open sqlite3): `fuser -v var/outbox.db`.",
            "Where it may not be written, give it back to the user of the services: `ls -l var/outbox.db`.",
            "Never remove the file: events wait in it that are nowhere else.",
        ),
        "Resolved when the outbox can be written.",
    ),
    Cause.EVENT_HELD: Facts(
        "critical",
        "Kafka refuses an event of the outbox for good; its order waits until a person decides.",
        (
            "See which events, and what Kafka says of them: `orderflow outbox list --state held`.",
            "Where that can be mended (a limit of size, a permission), do, and send it: `orderflow outbox retry ID`.",
            'Where it cannot, give it up, and its order goes on: `orderflow outbox discard ID --reason "..."`.',
            "Tell whoever sent an event that was given up: unless it may be on the topic, it never takes effect.",
        ),
        "Resolved when no event is held any more.",
    ),
    Cause.EVENT_REJECTED: Facts(
        "warning",
        "Kafka refused an event for good; its caller was told so.",
        (
            "See which events, and what Kafka says of them: `grep publish.rejected var/log/cart-service.log | tail`.",
            "Mend what can be mended: a size limit of the topic, a permission.",
            "Nothing waits: the answer was `refused`. Whoever sent the event may send it again.",
        ),
    ),
    Cause.TOPIC_MISCONFIGURED: Facts(
        "critical",
        "The topic has settings that break a guarantee; nothing is taken for it or read from it.",
        (
            "The alert's detail says which setting is wrong, and what it must be: `orderflow alerts list`.",
            "Set it: `kafka-python admin -b 127.0.0.1:9092 configs alter -r topic -n order_events -c NAME=VALUE`.",
            "A wrong number of partitions cannot be set right: set ORDERFLOW_TOPIC to another topic's name.",
            "Start everything again with the setting: `orderflow stack down`, `orderflow stack up`.",
            "Without a new setting, start the workers that ended: `supervisorctl start order-consumer outbox-relay`.",
        ),
        "Resolved when the topic is verified.",
    ),
    Cause.STORE_INCOMPATIBLE: Facts(
        "critical",
        "A database was written by another version of orderflow.",
        (
            "The alert's detail says which file: `orderflow alerts list`, or `grep alert.opened var/log/*.log`.",
            "Where it is orders.db, build it anew; the old file is kept: `orderflow rebuild --from-scratch`.",
            "Where it is outbox.db, keep it: events wait in it. Run the version of orderflow that wrote it.",
        ),
        "Resolved when the database can be opened.",
    ),
    Cause.LOG_REPLACED: Facts(
        "critical",
        "The topic does not hold what was applied from it; it is read again from its start.",
        (
            "See what differs: `orderflow alerts list`, `grep log_replaced var/log/order-consumer.log`.",
            "See whether Kafka lost its data: `ls -l var/kafka/data`, `tail -n 50 var/log/kafka.log`.",
            "See whether this is another cluster or topic: `orderflow config`.",
            "Where the right data is elsewhere, put it back between `orderflow stack down` and `orderflow stack up`.",
            "What the topic lost is in var/orders.db alone: never remove that file.",
            "See what is lost: `orderflow republish --dry-run`. Send it before new events come: `orderflow republish`.",
        ),
    ),
    Cause.LOG_STARTS_LATE: Facts(
        "warning",
        "A partition was read for the first time, and what stood at its beginning is gone.",
        (
            "See which partition, and where it begins: `orderflow alerts list`.",
            "Find out who removed records (retention, or a person): `tail -n 50 var/log/kafka.log`.",
            "Orders whose create is gone are unknown; their updates: `orderflow skipped list --reason unknown_order`.",
            "Create such an order anew, then send them again: `orderflow skipped redrive --order ORDER_ID --at-end`.",
        ),
    ),
    Cause.INTERNAL_ERROR: Facts(
        "critical",
        "A record was skipped because applying it raised an error that nobody foresaw.",
        (
            "See the error with its trace: `grep batch.failed var/log/order-consumer.log | tail -n 1`.",
            "See the records: `orderflow skipped list --reason internal_error`, `orderflow skipped show ID`.",
            "It is a bug of orderflow: report the trace and the record. The order lacks this event meanwhile.",
            "With the mended version let them take effect: `orderflow skipped redrive --reason internal_error`.",
        ),
    ),
    Cause.UNREADABLE_RECORD: Facts(
        "warning",
        "Records of the topic cannot be read, and were skipped.",
        (
            "See where they are, and what is wrong: `orderflow skipped list --reason unreadable_record`.",
            "Find out who wrote them: a header's name that is not UTF-8, or a codec that is not installed.",
            "Where a checksum is wrong, suspect the broker's disk: `tail -n 50 var/log/kafka.log`.",
            "Where the value is known, send it again at the end: `orderflow skipped redrive ID --at-end --event FILE`.",
            "Else its sender sends it again. Then give up what is left: `orderflow skipped discard ID --because TEXT`.",
        ),
    ),
    Cause.SKIP_FLOOD: Facts(
        "critical",
        "A large share of the last records could not be applied.",
        (
            "See the common cause and examples: `orderflow alerts list`, `orderflow skipped list`.",
            "See one of them whole: `orderflow skipped show ID`. Its headers may tell who sent it.",
            "Have the sender mended. The good records between the bad ones are applied meanwhile.",
            "To hold the stream until then: `supervisorctl stop order-consumer`. Nothing is lost by it.",
            "Then heal what was skipped, all of one reason at once: `orderflow skipped redrive --reason REASON`.",
        ),
        "Resolved when few of the last records were skipped.",
    ),
    Cause.STORE_DAMAGED: Facts(
        "critical",
        "orders.db is damaged, so nothing is applied.",
        (
            "See what SQLite says: `orderflow alerts list`, `tail -n 20 var/log/order-consumer.log`.",
            "Suspect the disk: `df -h var`, `dmesg | tail`.",
            "Build it anew from the topic; the damaged file is kept: `orderflow rebuild --from-scratch`.",
        ),
        "Resolved when the database can be opened.",
    ),
}
