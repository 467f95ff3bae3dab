"""Copies of skipped messages: each skip is sent once and in sequence, whatever is in the way, and none is left out."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
import structlog
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from orderflow.broker import PARTITIONS, Topic
from orderflow.errors import BrokerError, RecordRejected, Rejected, StoreUnavailable, Unacknowledged
from orderflow.messages import Message, Published
from orderflow.settings import Settings
from orderflow.store.dead_letters import DeadLetter, DeadLetterMarks, DeadLetters, Limits, Mark, Stretch
from orderflow.store.outbox import Outbox
from outbox_relay import dead_letters
from outbox_relay.dead_letters import Copier, copy_of
from tests.support.skips import TOPIC_ID, put, skip

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from orderflow.broker.requests import Result
    from orderflow.store.rows import SkippedRow

MANY = Limits(messages=1_000, bytes=1 << 30)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(var_dir=str(tmp_path), topic="t", outbox_busy_timeout_s=0.05)


class Kafka:
    """Takes copies, unless told otherwise. Stands in for the producer and the topic to make each failure happen."""

    def __init__(self, partitions: int = PARTITIONS) -> None:
        self.partitions = partitions
        self.sent: list[Message] = []
        self.refused: dict[str, Exception] = {}  # by event id, which is the skip's place
        self.absent: Exception | None = None
        self.asked = 0

    def deliver(self, messages: Sequence[Message]) -> list[Result]:
        results: list[Any] = []
        for message in messages:
            error = self.refused.get(message.event_id)
            if isinstance(error, ZeroDivisionError | OSError):
                raise error
            results.append(error or Published(message.partition or 0, len(self.sent)))
            if error is None:
                self.sent.append(message)
        return results

    def drop(self) -> None:
        pass

    def ensure(self, settings: Settings, _: str) -> Topic:
        self.asked += 1
        if self.absent is not None:
            raise self.absent
        return Topic(settings.dead_letter_topic_name, "id", self.partitions)

    @property
    def places(self) -> list[str]:
        """Which skips were copied, in the sequence of the copies."""
        return [message.event_id for message in self.sent]


@pytest.fixture
def kafka(monkeypatch: pytest.MonkeyPatch) -> Kafka:
    kafka = Kafka()
    monkeypatch.setattr(dead_letters, "ensure_dead_letter_topic", kafka.ensure)
    return kafka


def copier(settings: Settings, kafka: Kafka) -> Copier:
    return Copier(settings, kafka)  # type: ignore[arg-type]


def turns(copier: Copier, count: int = 20) -> list[dict[str, Any]]:
    """Let some turns pass, without the pauses between them; give what was logged."""
    with structlog.testing.capture_logs() as logs:
        for _ in range(count):
            copier._next_at = 0
            copier.turn()
    return logs


def behind(settings: Settings, marks: dict[Stretch, Mark] | None = None, limits: Limits = MANY) -> list[SkippedRow]:
    return [letter.skip for letter in DeadLetters(settings).behind(marks or {}, range(PARTITIONS), limits)]


# The sequence.


def test_without_a_projection_nothing_is_to_be_copied(settings: Settings, kafka: Kafka) -> None:
    """It is not there yet, is being made, has another version, or is no database at all; then it is there."""
    settings.var.mkdir(exist_ok=True)
    copies = copier(settings, kafka)
    logs = turns(copies, 2)
    with closing(sqlite3.connect(settings.orders_db)) as other:
        logs += turns(copies, 2)
        other.execute("PRAGMA user_version = 1")
        logs += turns(copies, 2)
    settings.orders_db.write_bytes(b"no database" * 1_000)
    logs += turns(copies, 2)
    settings.orders_db.unlink()
    put(settings, [skip(1)])
    nothing_yet = kafka.places
    turns(copies, 2)

    assert (logs, nothing_yet) == ([], [])
    assert kafka.places == ["1-0-1"]


def test_skips_come_in_the_sequence_in_which_they_became_skips(settings: Settings) -> None:
    """One that a repair has turned into a skip comes with the repair, behind all before it."""
    put(settings, [skip(5), skip(9), skip(2, opened_by=8), skip(3, opened_by=8), skip(8)])

    assert [row.offset for row in behind(settings)] == [5, 2, 3, 8, 9]
    assert [row.offset for row in behind(settings, {Stretch(TOPIC_ID, 1, 0): Mark(8, 2)})] == [3, 8, 9]


def test_a_partition_gives_a_bounded_share_and_none_waits_for_another(settings: Settings) -> None:
    rows = [skip(offset, partition) for partition in (0, 3) for offset in range(10)]
    put(settings, [*rows, skip(1, 5, value=b"x" * 1_000), skip(2, 5, value=b"x"), skip(3, 5)])

    found = behind(settings, limits=Limits(messages=4, bytes=1_000))

    assert [(row.partition, row.offset) for row in found] == [
        *((0, offset) for offset in range(4)), *((3, offset) for offset in range(4)), (5, 1),
    ]  # fmt: skip


def test_an_epoch_comes_behind_the_one_before_it(settings: Settings) -> None:
    """Their places are counted apart. Those of another topic are others, though the epoch's number be the same."""
    put(settings, [skip(7), skip(1, epoch=2), skip(7, epoch=2)], ["first", "second"])
    done = {Stretch("first", 1, 0): Mark(7, 7)}

    assert [row.place for row in behind(settings)] == [(1, 0, 7)]
    assert [row.place for row in behind(settings, done)] == [(2, 0, 1), (2, 0, 7)]
    assert [row.place for row in behind(settings, {Stretch("another", 1, 0): Mark(99, 99)})] == [(1, 0, 7)]


def test_marks_are_kept_and_only_those_that_moved_change(settings: Settings) -> None:
    marks, one, other = DeadLetterMarks(settings), Stretch("t", 1, 0), Stretch("t", 1, 1)

    marks.move({one: Mark(3, 3), other: Mark(4, 1)})
    marks.move({one: Mark(9, 2)})

    assert DeadLetterMarks(settings).all() == {one: Mark(9, 2), other: Mark(4, 1)}


# The copy.


def letter(row: SkippedRow, topic: str = "orders") -> DeadLetter:
    return DeadLetter(topic, Stretch(TOPIC_ID, row.epoch, row.partition), row)


def test_a_copy_is_the_record_as_it_came_and_says_why() -> None:
    """Its own headers come first, whatever they are called, with the bytes they had, or none."""
    headers = '[["a","AP8="],["a",null],["",""],["\\\\xff","YQ=="],["dead-letter-reason","b2xk"]]'
    row = skip(
        42, 3, key=b"\xff\x00", value=b"\x00\x01", headers=headers, logged_at=1_700_000_000_123,
        reason="internal_error", detail="KeyError: 'ü'", exception="KeyError", attempts=3,
    )  # fmt: skip

    copy = copy_of(letter(row), "group", 6)

    assert (copy.key, copy.value, copy.partition) == (b"\xff\x00", b"\x00\x01", 3)
    assert copy.headers == (
        ("a", b"\x00\xff"), ("a", None), ("", b""), ("\\xff", b"a"), ("dead-letter-reason", b"old"),
        ("dead-letter-original-topic", b"orders"),
        ("dead-letter-original-partition", b"3"),
        ("dead-letter-original-offset", b"42"),
        ("dead-letter-original-timestamp", b"1700000000123"),
        ("dead-letter-reason", b"internal_error"),
        ("dead-letter-detail", "KeyError: 'ü'".encode()),
        ("dead-letter-exception-class", b"KeyError"),
        ("dead-letter-attempts", b"3"),
        ("dead-letter-group", b"group"),
    )  # fmt: skip


def test_what_is_not_known_of_a_record_is_left_out() -> None:
    """Of a batch that could not be read nobody knows more than its places."""
    copy = copy_of(letter(skip(1, key=None, value=None, logged_at=None)), "group", 6)

    assert (copy.key, copy.value) == (None, None)
    assert not {"dead-letter-original-timestamp", "dead-letter-exception-class"} & dict(copy.headers).keys()


def test_a_topic_with_fewer_partitions_takes_the_copies_too() -> None:
    assert [copy_of(letter(skip(1, partition)), "g", 4).partition for partition in range(6)] == [0, 1, 2, 3, 0, 1]


# Copying.


def test_each_skip_is_copied_once(settings: Settings, kafka: Kafka) -> None:
    """Also by the relay's next process, and when the projection was built anew meanwhile."""
    rows = [skip(offset, partition) for partition in range(PARTITIONS) for offset in range(250)]
    put(settings, rows)
    first = copier(settings, kafka)

    logs = turns(first)
    settings.orders_db.unlink()
    put(settings, rows[:100])
    turns(copier(settings, kafka))
    put(settings, rows[100:])
    turns(copier(settings, kafka))

    assert sorted(kafka.places) == sorted(f"1-{row.partition}-{row.offset}" for row in rows)
    assert sum(line["messages"] for line in logs if line["event"] == "dead_letter.copied") == first.copied == len(rows)
    assert kafka.asked == 1, "the topic is made sure of once"


def test_a_skip_that_was_opened_again_is_copied_again(settings: Settings, kafka: Kafka) -> None:
    put(settings, [skip(1), skip(2)])
    copies = copier(settings, kafka)
    turns(copies)

    put(settings, [skip(1, reason="unknown_order", opened_by=7)])
    turns(copies)

    assert kafka.places == ["1-0-1", "1-0-2", "1-0-1"]


def test_a_new_life_of_the_log_is_copied_for_itself(settings: Settings, kafka: Kafka) -> None:
    put(settings, [skip(5)], ["first"])
    copies = copier(settings, kafka)
    turns(copies)

    put(settings, [skip(2, epoch=2), skip(5, epoch=2)], ["first", "second"])
    turns(copies)

    assert kafka.places == ["1-0-5", "2-0-2", "2-0-5"]


@pytest.mark.parametrize("skips_of_the_cut_log", [[skip(3, epoch=2)], []])
def test_what_was_skipped_behind_a_cut_is_copied_though_the_file_is_made_anew(
    settings: Settings, kafka: Kafka, skips_of_the_cut_log: list[SkippedRow]
) -> None:
    """The new file counts epochs from 1 again, and its offsets are in front of what was copied of the first log."""
    put(settings, [skip(100)])
    copies = copier(settings, kafka)
    turns(copies)
    put(settings, skips_of_the_cut_log, [TOPIC_ID, TOPIC_ID])
    turns(copies)
    settings.orders_db.unlink()
    put(settings, [skip(3), skip(12), skip(50)])
    kafka.sent.clear()

    logs = turns(copier(settings, kafka))

    assert kafka.places == ["1-0-3", "1-0-12", "1-0-50"]
    assert [line["marked"] for line in logs if line["event"] == "dead_letter.marks_forgotten"] == [2]


def test_a_topic_that_cannot_be_made_is_waited_for_longer_each_time(settings: Settings, kafka: Kafka) -> None:
    put(settings, [skip(1)])
    kafka.absent = BrokerError("not authorized")
    copies = copier(settings, kafka)

    logs = turns(copies, 12)
    kafka.absent = None
    turns(copies, 1)

    assert {(line["event"], line["log_level"], line["to"]) for line in logs} == {
        ("dead_letter.retry_scheduled", "warning", "t.dlq")
    }
    delays = [line["delay_s"] for line in logs]
    assert (delays[:3], delays[-1]) == ([0.2, 0.4, 0.8], 30.0)
    assert kafka.places == ["1-0-1"]


def test_a_permission_that_is_missing_is_waited_for_and_no_message_is_passed(settings: Settings, kafka: Kafka) -> None:
    put(settings, [skip(1), skip(2)])
    kafka.refused["1-0-1"] = Rejected("TopicAuthorizationFailedError")
    copies = copier(settings, kafka)

    (line, *_) = turns(copies)
    marks = DeadLetterMarks(settings).all()
    kafka.refused.clear()
    kafka.sent.clear()
    turns(copies)

    assert {key: line[key] for key in ("event", "topic", "epoch", "partition", "offset", "reason")} == {
        "event": "dead_letter.retry_scheduled", "topic": "t", "epoch": 1, "partition": 0, "offset": 1,
        "reason": "malformed_json",
    }  # fmt: skip
    assert marks == {}
    assert kafka.places == ["1-0-1", "1-0-2"]
    assert kafka.asked > 1, "the topic is made sure of again"


def test_a_partition_that_is_away_holds_up_no_other(settings: Settings, kafka: Kafka) -> None:
    put(settings, [skip(offset, partition) for partition in (0, 1) for offset in (1, 2)])
    kafka.refused["1-0-2"] = Unacknowledged("no leader")
    copies = copier(settings, kafka)

    turns(copies)

    assert kafka.places == ["1-0-1", "1-1-1", "1-1-2"]
    kafka.refused.clear()
    turns(copies)
    assert kafka.places[3:] == ["1-0-2"]


def test_a_message_that_kafka_refuses_for_what_it_is_is_told_and_passed(settings: Settings, kafka: Kafka) -> None:
    put(settings, [skip(1), skip(2), skip(3)])
    kafka.refused["1-0-2"] = RecordRejected("MessageSizeTooLargeError")

    logs = turns(copier(settings, kafka))

    (line,) = [line for line in logs if line["event"] == "dead_letter.rejected"]
    assert (line["log_level"], line["partition"], line["offset"], line["error"]) == (
        "error", 0, 2, "MessageSizeTooLargeError",
    )  # fmt: skip
    assert kafka.places == ["1-0-1", "1-0-3"]


def test_a_message_that_no_topic_takes_is_not_sent(
    settings: Settings, kafka: Kafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A broker hangs up on a request that is too large, and would do so again for ever."""
    monkeypatch.setattr(dead_letters, "COPY_MAX_BYTES", 10)
    put(settings, [skip(1), skip(2, value=b"x" * 11), skip(3)])

    logs = turns(copier(settings, kafka))

    assert kafka.places == ["1-0-1", "1-0-3"]
    assert [line["offset"] for line in logs if line["event"] == "dead_letter.rejected"] == [2]


def test_an_error_that_nobody_foresaw_costs_the_message_that_raises_it(settings: Settings, kafka: Kafka) -> None:
    put(settings, [skip(1), skip(2), skip(3, headers="no JSON"), skip(4)])
    kafka.refused["1-0-2"] = ZeroDivisionError("a bug")

    logs = turns(copier(settings, kafka))

    assert sorted(set(kafka.places)) == ["1-0-1", "1-0-4"]
    rejected = {line["offset"]: line["error"] for line in logs if line["event"] == "dead_letter.rejected"}
    assert rejected.keys() == {2, 3}
    assert "a bug" in rejected[2]


def test_an_error_of_the_machine_passes(settings: Settings, kafka: Kafka) -> None:
    put(settings, [skip(1), skip(2)])
    kafka.refused["1-0-1"] = OSError(24, "Too many open files")
    copies = copier(settings, kafka)

    logs = turns(copies, 3)
    kafka.refused.clear()
    turns(copies)

    assert "dead_letter.rejected" not in {line["event"] for line in logs}
    assert kafka.places == ["1-0-1", "1-0-2"]


def test_what_cannot_be_noted_is_not_sent_again_by_the_same_process(settings: Settings, kafka: Kafka) -> None:
    """The outbox is locked for a while."""
    put(settings, [skip(1)])
    copies = copier(settings, kafka)
    Outbox(settings).totals()
    with closing(sqlite3.connect(settings.outbox_db, isolation_level=None)) as locker:
        locker.execute("BEGIN IMMEDIATE")
        logs = turns(copies, 4)
        put(settings, [skip(2)])
        turns(copies, 1)
        locker.execute("ROLLBACK")

    assert "locked" in logs[0]["error"]
    assert kafka.places == ["1-0-1"]
    turns(copies)
    assert kafka.places == ["1-0-1", "1-0-2"]


def test_a_relay_that_is_killed_before_it_has_noted_copies_again(settings: Settings, kafka: Kafka) -> None:
    put(settings, [skip(1)])
    killed = copier(settings, kafka)
    killed._marks.move = lambda _: (_ for _ in ()).throw(StoreUnavailable("killed"))  # type: ignore[method-assign]
    turns(killed, 1)

    turns(copier(settings, kafka))

    assert kafka.places == ["1-0-1", "1-0-1"]


def test_it_looks_once_in_a_while_and_goes_on_at_once_while_there_is_more(settings: Settings, kafka: Kafka) -> None:
    put(settings, [skip(offset) for offset in range(150)])
    copies = copier(settings, kafka)

    for _ in range(5):
        copies.turn()
    put(settings, [skip(200)])
    copies.turn()

    assert copies.copied == 150, "the next look is a second later"


SKIPS = st.lists(st.tuples(st.integers(0, 2), st.booleans()), max_size=12)


@given(st.lists(SKIPS, max_size=6), st.lists(st.sampled_from(["turn", "die", "refuse"]), max_size=12))
@hypothesis_settings(max_examples=40, deadline=None)
def test_nothing_is_left_out_whatever_happens(
    tmp_path_factory: pytest.TempPathFactory, batches: list[list[tuple[int, bool]]], steps: list[str]
) -> None:
    """Skips come in batches, some of them opened again, while copies are made, fail, and are cut off by a kill."""
    settings = Settings(var_dir=str(tmp_path_factory.mktemp("var")))
    kafka, offset, expected = Kafka(), 0, set()
    put(settings, [])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dead_letters, "ensure_dead_letter_topic", kafka.ensure)
        copies = copier(settings, kafka)
        for number, step in enumerate([*steps, "turn"]):
            if number < len(batches):
                rows = []
                for partition, again in batches[number]:
                    offset += 1
                    rows.append(skip(offset, partition, value=b"%d" % offset))
                    if again:
                        rows.append(skip(max(1, offset - 5), partition, opened_by=offset, value=b"%d again" % offset))
                put(settings, {row.place: row for row in rows}.values())
            if step == "die":
                copies = copier(settings, kafka)
            kafka.refused = {f"1-1-{offset}": Unacknowledged("away")} if step == "refuse" else {}
            turns(copies, 1)
        kafka.refused = {}
        turns(copies, 10)
    expected = {(row.place, row.value) for row in all_skips(settings)}

    copied = [((1, message.partition, int(message.event_id.split("-")[2])), message.value) for message in kafka.sent]
    assert expected <= set(copied)
    assert len(copied) == len(set(copied)), "each once, since every note was written"


def all_skips(settings: Settings) -> list[SkippedRow]:
    return behind(settings, limits=MANY)
