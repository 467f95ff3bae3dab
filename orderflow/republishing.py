"""Sending again what the log lost: events that were applied go through the outbox once more, under their own ids.

For this store each is a duplicate and changes nothing. But it is on the topic again, for whoever reads that from its
start. See docs/adr/0014-noticing-a-lost-log.md.
"""

from __future__ import annotations

import time
from collections import deque
from contextlib import closing
from typing import TYPE_CHECKING

import msgspec

from orderflow import events, tracing
from orderflow.broker.log_reader import LogReader, find_topic, lacks
from orderflow.clock import now_ms
from orderflow.envelope import OPERATOR, event_message
from orderflow.errors import InvalidEvent, OutboxFull, RepublishRefused
from orderflow.store import lost
from orderflow.store.outbox import Outbox
from orderflow.store.outbox_rows import Command
from orderflow.store.places import current_epoch, positions
from orderflow.store.reader import Reader

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from orderflow.broker import Topic
    from orderflow.broker.log_reader import Span
    from orderflow.messages import Message
    from orderflow.settings import Settings
    from orderflow.store.lost import LostOrder
    from orderflow.store.rows import HistoryRow

CLIENT_ID = "republish"

#: Events that one transaction adds, more or less: all of an order, and others want to write to the outbox, too.
EVENTS_AT_ONCE = 1_000

#: Pause between two looks at the projection.
LOOK_S = 0.2


class Republishing:
    """What is lost as the log is now, and what became of it."""

    def __init__(self, settings: Settings, wait_s: float) -> None:
        """Find out what is lost; wait at most so long until the consumer has read all that the log has.

        Raises:
            RepublishRefused: it cannot be told as things are.
            BrokerError: Kafka does not answer.

        """
        self._settings = settings
        self._asked_at = now_ms()
        reader = Reader(settings)
        topic = _topic(settings, reader)
        spans = _spans(settings, reader, topic)
        _wait_until_read(reader, spans, wait_s)
        epoch = _epoch_of(topic, reader)
        self.lost = lost.LostEvents(reader, epoch, {number: span.begin for number, span in spans.items()})
        self.orders = self.lost.orders()
        self.events = sum(order.events for order in self.orders)
        #: How many were added now, how many were under way, and those that cannot be sent.
        self.added = 0
        self.under_way = 0
        self.left_out: list[HistoryRow] = []
        self._parts = deque(_parts(self.orders))

    def add(self) -> bool:
        """Put into the outbox what it has room for, some orders in each transaction; tell whether that is all.

        What waits there already, or was sent by an earlier run, is not added again.

        Raises:
            StoreError: the rest was not added; asking again is safe.

        """
        with closing(Outbox(self._settings)) as outbox:
            while self._parts:
                part = self._parts[0]
                try:
                    self._add(outbox, part)
                except OutboxFull:
                    if len(part) == 1:
                        return False
                    half = len(part) // 2
                    self._parts[0] = part[half:]
                    self._parts.appendleft(part[:half])
                else:
                    self._parts.popleft()
        return True

    def _add(self, outbox: Outbox, order_ids: Sequence[str]) -> None:
        messages = [(row, _message(row)) for row in self.lost.of(order_ids)]
        commands = [Command(message, "event") for _, message in messages if message is not None]
        # What was delivered before the log's ends were asked for, and is not in front of them, went to a lost log.
        ids = [(command.message.order_id, command.message.event_id) for command in commands]
        lost.forget_deliveries(self._settings, ids, self._asked_at)
        new = sum(addition.new for addition in outbox.add_all(commands))
        self.added += new
        self.under_way += len(commands) - new
        self.left_out += [row for row, message in messages if message is None]


def _parts(orders: Sequence[LostOrder]) -> Iterator[list[str]]:
    """Cut the orders into parts, none of them with many events more than go at once."""
    part: list[str] = []
    count = 0
    for order in orders:
        part.append(order.order_id)
        count += order.events
        if count >= EVENTS_AT_ONCE:
            yield part
            part, count = [], 0
    if part:
        yield part


def _message(row: HistoryRow) -> Message | None:
    """Write an event under the id that it goes by; None where it would not be taken for the same one any more."""
    try:
        event = events.decode_text(row.payload)
    except InvalidEvent:
        return None
    if events.fingerprint(event) != row.fingerprint:
        return None
    return event_message(msgspec.structs.replace(event, event_id=row.event_id), tracing.join(None), OPERATOR)


def _topic(settings: Settings, reader: Reader) -> Topic:
    topic = find_topic(settings, CLIENT_ID)
    if topic is None:
        raise RepublishRefused(
            f"There is no topic {settings.topic!r} at {settings.kafka_bootstrap_servers}; start the order-consumer, "
            "which makes it, and try again."
        )
    _epoch_of(topic, reader)
    return topic


def _epoch_of(topic: Topic, reader: Reader) -> int:
    current = current_epoch(reader.query)
    if current is None or topic.topic_id != current[1]:
        raise RepublishRefused(
            f"The topic {topic.name!r} is not the one that was applied last; start the order-consumer, which reads it "
            "from its start, and try again."
        )
    return current[0]


def _spans(settings: Settings, reader: Reader, topic: Topic) -> dict[int, Span]:
    """Tell what the log holds, and make sure of the last record that was applied of each partition."""
    applied = positions(reader.query)
    with LogReader(settings, topic, CLIENT_ID) as log:
        spans = log.spans()
        for number, position in applied.items():
            if lacks(log, number, spans[number], position):
                raise RepublishRefused(
                    f"Partition {number} does not hold what was applied from it up to offset {position.next_offset}; "
                    "see that the order-consumer runs, which then reads the topic from its start, and try again."
                )
    return spans


def _wait_until_read(reader: Reader, spans: dict[int, Span], wait_s: float) -> None:
    """Wait until all that the log had when it was asked is applied: what is only not read again is not lost."""
    until = time.monotonic() + wait_s
    while True:
        applied = positions(reader.query)
        left = {
            number: span.end - applied[number].next_offset if number in applied else span.end - span.begin
            for number, span in spans.items()
        }
        waits = sum(count for count in left.values() if count > 0)
        if not waits:
            return
        if time.monotonic() >= until:
            raise RepublishRefused(
                f"The order-consumer has {waits} records of the topic to read yet, and what it finds there is not "
                "lost; see that it runs, and try again when it is done."
            )
        time.sleep(LOOK_S)
