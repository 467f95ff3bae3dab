"""Copies of skipped messages against a real broker: each comes to the dead-letter topic as it was, at least once."""

from __future__ import annotations

import signal
import time
from collections import Counter
from contextlib import closing
from typing import TYPE_CHECKING

from kafka.admin import ConfigResource, ConfigResourceType

from orderflow.broker import PARTITIONS
from orderflow.broker.topic import DAY_MS
from orderflow.process import read_heartbeat
from orderflow.store.dead_letters import START, DeadLetterMarks, Stretch
from outbox_relay.relay import PROGRAM
from tests.support.messages import admin, message
from tests.support.relays import SHORT, fill, relay_process, relaying, wait_until_empty
from tests.support.skips import TOPIC_ID, put, skip
from tests.support.topic import TopicReader, TopicRecord
from tests.support.waiting import frozen, until

if TYPE_CHECKING:
    from orderflow.settings import Settings
    from tests.support.broker import Broker


def copies(settings: Settings) -> list[TopicRecord]:
    """All that is on the dead-letter topic; nothing while there is no such topic."""
    with closing(TopicReader(settings.kafka_bootstrap_servers, settings.dead_letter_topic_name)) as reader:
        return reader.read_all() if reader.ends() else []


def wait_for_copies(settings: Settings, count: int, within_s: float = 20) -> list[TopicRecord]:
    def so_many() -> list[TopicRecord] | None:
        found = copies(settings)
        return found if len(found) >= count else None

    return until(so_many, f"{count} copies are there", within_s, 0.1)


def originals(records: list[TopicRecord]) -> Counter[tuple[int, int]]:
    """Which places of the orders' topic were copied, and how often."""
    places = ("dead-letter-original-partition", "dead-letter-original-offset")
    found = [dict(record.headers) for record in records]
    return Counter((int(headers[places[0]]), int(headers[places[1]])) for headers in found)


def create_topic(settings: Settings, partitions: int = PARTITIONS, **configs: str) -> None:
    with admin(settings) as client:
        new = {"num_partitions": partitions, "replication_factor": 1, "configs": configs}
        client.create_topics({settings.dead_letter_topic_name: new}, wait_for_metadata=True)


def test_what_was_skipped_before_the_first_start_is_copied_as_it_was(broker: Broker) -> None:
    """Malformed, without a value, without a key, with odd headers: to the partition of the same number."""
    settings = broker.settings()
    odd = '[["twice","AP8="],["twice","Yg=="],["null",null],["empty",""],["","eA=="],["\\\\xff\\\\xfe-name","eQ=="]]'
    rows = [
        skip(0, 2, key=b"ord-1", value=b"\x00\xff{", headers=odd, logged_at=1_700_000_000_000),
        skip(1, 2, value=None),
        skip(2, 2, key=None, value=b""),
        skip(3, 5, key=b"", reason="internal_error", detail="KeyError: 'ü'", exception="KeyError", attempts=3),
        *(skip(offset, 4) for offset in range(300)),
    ]
    put(settings, rows)

    with relaying(settings):
        records = wait_for_copies(settings, len(rows))
        until(lambda: (beat := read_heartbeat(settings, PROGRAM)) and beat.counters.get("dead_letters") == len(rows),
              "the heartbeat counts them", 5)  # fmt: skip

    assert originals(records) == {(row.partition, row.offset): 1 for row in rows}
    by_place = {(record.partition, record.offset): record for record in records}
    assert [(r.key, r.value) for r in records if r.partition == 2] == [
        (b"ord-1", b"\x00\xff{"), (b"key", None), (None, b""),
    ]  # fmt: skip
    assert by_place[2, 0].headers == (
        ("twice", b"\x00\xff"), ("twice", b"b"), ("null", None), ("empty", b""), ("", b"x"), ("\\xff\\xfe-name", b"y"),
        ("dead-letter-original-topic", settings.topic.encode()),
        ("dead-letter-original-partition", b"2"),
        ("dead-letter-original-offset", b"0"),
        ("dead-letter-original-timestamp", b"1700000000000"),
        ("dead-letter-reason", b"malformed_json"),
        ("dead-letter-detail", b"The value is not JSON."),
        ("dead-letter-attempts", b"1"),
        ("dead-letter-group", settings.consumer_group.encode()),
    )  # fmt: skip
    internal = dict(by_place[5, 0].headers)
    assert (internal["dead-letter-detail"].decode(), internal["dead-letter-exception-class"]) == (
        "KeyError: 'ü'", b"KeyError",
    )  # fmt: skip
    assert [r.headers[2][1] for r in records if r.partition == 4] == [b"%d" % offset for offset in range(300)], (
        "in order"
    )


def test_the_topic_is_made_as_it_is_documented(broker: Broker) -> None:
    settings = broker.settings(dead_letter_retention_days=7, dead_letter_topic="letters-of-ours")
    put(settings, [skip(0)])

    with relaying(settings):
        wait_for_copies(settings, 1)

    with admin(settings) as client:
        (topic,) = client.describe_topics(["letters-of-ours"])
        resource = ConfigResource(ConfigResourceType.TOPIC, "letters-of-ours")
        found = client.describe_configs([resource], config_filter="all")["topic"]["letters-of-ours"]
    assert len(topic["partitions"]) == PARTITIONS
    assert {name: found[name]["value"] for name in ("cleanup.policy", "retention.ms", "max.message.bytes")} == {
        "cleanup.policy": "delete", "retention.ms": str(7 * DAY_MS), "max.message.bytes": "2097152",
    }  # fmt: skip


def test_a_record_as_large_as_kafka_takes_has_a_copy_and_one_that_is_larger_holds_up_none(broker: Broker) -> None:
    """A record that came compressed can be larger than any that is sent as it is."""
    settings = broker.settings()
    rows = [skip(0, value=b"x" * 1_048_500), skip(1, value=b"x" * 3_000_000), skip(2), skip(0, 1)]
    put(settings, rows)

    with relaying(settings):
        records = wait_for_copies(settings, 3)

    assert originals(records) == {(0, 0): 1, (0, 2): 1, (1, 0): 1}
    assert max(len(record.value or b"") for record in records) == 1_048_500


def test_a_topic_that_is_there_is_taken_as_it_is(broker: Broker) -> None:
    settings = broker.settings()
    create_topic(settings, partitions=4, **{"max.message.bytes": "2000"})
    put(
        settings, [skip(7, partition) for partition in range(PARTITIONS)] + [skip(8, 5, value=b"x" * 3_000), skip(9, 5)]
    )

    with relaying(settings):
        records = wait_for_copies(settings, PARTITIONS + 1)

    assert originals(records) == Counter([*((partition, 7) for partition in range(PARTITIONS)), (5, 9)])
    assert Counter(record.partition for record in records) == {0: 2, 1: 3, 2: 1, 3: 1}


#: A relay that is killed when it is about to note how far the copies have come.
KILLED_BEFORE_NOTE = """
import os, signal
from orderflow.store.dead_letters import DeadLetterMarks
DeadLetterMarks.move = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
"""


def test_killed_between_the_copies_and_the_note_it_makes_them_again(broker: Broker) -> None:
    settings = broker.settings()
    rows = [skip(offset, partition) for partition in range(3) for offset in range(20)]
    put(settings, rows)

    with relay_process(settings, KILLED_BEFORE_NOTE) as process:
        assert process.wait(timeout=20) == -signal.SIGKILL
    before = originals(copies(settings))
    with relay_process(settings):
        records = wait_for_copies(settings, 2 * len(rows))
        put(settings, [skip(99)])
        records = wait_for_copies(settings, len(records) + 1)

    assert before == {(row.partition, row.offset): 1 for row in rows}
    assert originals(records) == dict.fromkeys(before, 2) | {(0, 99): 1}


FIRST = Stretch(TOPIC_ID, 1, 0)


def test_killed_at_any_time_it_leaves_none_out(broker: Broker) -> None:
    settings = broker.settings()
    rows = [skip(offset, partition) for partition in range(PARTITIONS) for offset in range(700)]
    put(settings, rows)

    marks = DeadLetterMarks(settings)
    reached = []
    for wanted in (50, 200, 400):
        with relay_process(settings) as process:
            until(lambda: marks.all().get(FIRST, START).offset > wanted, f"{wanted} are noted", 30, 0.001)  # noqa: B023 (now)
            process.kill()
            process.wait(timeout=10)
        reached.append(marks.all()[FIRST].offset)
    with relay_process(settings):
        until(lambda: len(originals(copies(settings))) == len(rows), "all are copied", 30, 0.2)

    found = originals(copies(settings))
    assert reached == sorted(set(reached)), "each came further"
    assert reached[0] < 600, "killed in the middle"
    assert found.keys() == {(row.partition, row.offset) for row in rows}
    assert max(found.values()) <= 4, "a kill costs what was not noted, and no more"


def test_a_projection_that_is_built_anew_is_not_copied_again(broker: Broker) -> None:
    """A row that it has and the first one had not is behind those that are copied, or was there before."""
    settings = broker.settings()
    rows = [skip(offset, partition) for partition in range(3) for offset in range(50)]
    put(settings, rows)

    with relaying(settings):
        wait_for_copies(settings, len(rows))
        for path in settings.var.glob("orders.db*"):
            path.unlink()
        put(settings, rows[:30])
        time.sleep(1.5)
        put(settings, rows[30:])
        time.sleep(1.5)
        put(settings, [skip(50)])
        records = wait_for_copies(settings, len(rows) + 1)

    assert originals(records) == {(row.partition, row.offset): 1 for row in [*rows, skip(50)]}


def test_the_outbox_is_delivered_whatever_becomes_of_the_copies(broker: Broker) -> None:
    """Kafka has no topic of such a name, and makes none."""
    settings = broker.settings(dead_letter_topic="..", **SHORT)
    put(settings, [skip(offset) for offset in range(10)])
    outbox = fill(settings, [])

    with relaying(settings):
        for number in range(20):
            began = time.monotonic()
            outbox.add([(message(f"order-{number}"), False)])
            wait_until_empty(outbox, within_s=5)
            assert time.monotonic() - began < 2
        beat = read_heartbeat(settings, PROGRAM)

    assert beat is not None
    assert (beat.state, beat.counters["delivered"] > 0, beat.counters["dead_letters"]) == ("running", True, 0)


def test_a_topic_that_is_removed_is_made_again(broker: Broker) -> None:
    settings = broker.settings(**SHORT)
    put(settings, [skip(0)])

    with relaying(settings):
        wait_for_copies(settings, 1)
        with admin(settings) as client:
            client.delete_topics([settings.dead_letter_topic_name])
        until(lambda: not copies(settings), "it is gone", 10)
        put(settings, [skip(1)])
        records = wait_for_copies(settings, 1, within_s=30)

    assert originals(records) == {(0, 1): 1}


def test_a_frozen_broker_is_waited_for(broker: Broker) -> None:
    settings = broker.settings(**SHORT)
    put(settings, [skip(0)])

    with relaying(settings):
        wait_for_copies(settings, 1)
        with frozen(broker.pid):
            put(settings, [skip(offset) for offset in range(1, 40)])
            time.sleep(2.5)
        records = wait_for_copies(settings, 40)

    assert originals(records).keys() == {(0, offset) for offset in range(40)}
