"""What the consumer skips comes to the dead-letter topic, as it was, with the reason; what it applies does not."""

from __future__ import annotations

import json
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from orderflow.broker import PARTITIONS, Producer, partition_of
from orderflow.messages import Message, Published
from tests.support import store
from tests.support.messages import NotUtf8
from tests.support.stacks import running
from tests.support.topic import TopicReader
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orderflow.stack import Stack
    from tests.support.topic import TopicRecord


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack of its own, since it is poisoned."""
    with running(tmp_path_factory.mktemp("dead-letters")) as stack:
        yield stack


def _copies(stack: Stack) -> dict[tuple[int, int], TopicRecord]:
    """What is on the dead-letter topic, by the place of the original."""
    with closing(TopicReader(stack.settings.kafka_bootstrap_servers, stack.settings.dead_letter_topic_name)) as reader:
        records = reader.read_all() if reader.ends() else []
    found = [(dict(record.headers), record) for record in records]
    return {
        (int(headers["dead-letter-original-partition"]), int(headers["dead-letter-original-offset"])): record
        for headers, record in found
    }


def test_each_skipped_message_is_copied_with_its_reason(stack: Stack) -> None:
    own = partition_of(b"ord-1")
    update = json.dumps({"type": "order.status_changed", "order_id": "ord-1", "status": "shipped"}).encode()
    odd = (("h", b"\x00\xff"), ("h", None), (NotUtf8("x"), b"y"))
    sent = [
        Message(b"ord-1", b"\xff{", (("a", b"\xff"), ("a", None)), "", ""),
        Message(b"ord-1", None, (), "", ""),
        Message(None, update, (), "", "", partition=own),
        Message(b"ord-1", update, (), "", "", partition=(own + 1) % PARTITIONS),
        Message(b"ord-1", update, odd, "", ""),
        Message(b"ord-1", update, (), "", ""),
    ]
    places = _produced(stack, sent)
    rows = until(
        lambda: found if len(found := _rows(stack)) == len(sent) else None, "all are skipped", within_s=20, every_s=0.1
    )

    copies = until(
        lambda: found if len(found := _copies(stack)) == len(sent) else None, "all are copied", within_s=20, every_s=0.2
    )

    assert copies.keys() == rows.keys() == set(places)
    for place, record in zip(places, sent, strict=True):
        copy, (reason, detail, logged_at) = copies[place], rows[place]
        headers = dict(copy.headers)
        assert (copy.partition, copy.key, copy.value) == (place[0], record.key, record.value)
        assert headers["dead-letter-reason"].decode() == reason
        assert headers["dead-letter-detail"].decode() == detail
        assert headers["dead-letter-original-topic"].decode() == stack.settings.topic
        assert int(headers["dead-letter-original-timestamp"]) == logged_at
    assert copies[places[0]].headers[:2] == (("a", b"\xff"), ("a", None))
    assert copies[places[4]].headers[:3] == (("h", b"\x00\xff"), ("h", None), ("\\xff\\xfe-name", b"y"))
    assert {rows[place][0] for place in places} == {
        "malformed_json", "missing_key", "wrong_partition", "unreadable_record", "unknown_order",
    }  # fmt: skip


def _produced(stack: Stack, messages: list[Message]) -> list[tuple[int, int]]:
    """Send records as they are, in sequence; kafka-python's producer refuses a header without a value."""
    producer = Producer(stack.settings, "test")
    try:
        results = producer.deliver(messages)
    finally:
        producer.drop()
    return [(result.partition, result.offset) for result in results if isinstance(result, Published)]


def _rows(stack: Stack) -> dict[tuple[int, int], tuple[str, str, int]]:
    rows = store.query(stack.settings, "SELECT partition, offset, reason, detail, logged_at FROM skipped_messages")
    return {(partition, offset): (reason, detail, at) for partition, offset, reason, detail, at in rows}
