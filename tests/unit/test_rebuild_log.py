"""A rebuild from a log that was cut, that begins late, or that is read in another sequence than it was."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from itertools import count
from typing import TYPE_CHECKING, Any
from unittest.mock import Mock, create_autospec, patch

import pytest
from kafka import KafkaConsumer

from orderflow.broker import log_reader
from orderflow.broker.log_reader import LogReader, Span, lacks
from orderflow.errors import BrokerError, RebuildRefused
from orderflow.projection import Projection
from orderflow.rebuild.rebuild import Rebuild
from orderflow.rebuild.scratch import from_scratch
from orderflow.records import Anchor, Position
from orderflow.settings import Settings
from orderflow.store.reader import Reader
from orderflow.store.skips import Skips, Wanted
from orderflow.store.writer import Writer
from tests.support import store
from tests.support.rebuilding import FIVE, Served, applied, control, of_a, on_topic, rebuilt
from tests.unit.test_projection import TOPIC, changed, created, log_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from orderflow.records import Record, UnreadableRecord


@pytest.mark.parametrize("keep_lost", [True, False])
def test_a_log_that_was_cut_and_has_grown_again_is_not_taken_for_the_one_that_was_applied(
    tmp_path: Path, *, keep_lost: bool
) -> None:
    """It reaches as far as before, and is another: what was applied would be dropped, and nobody could know."""
    settings = applied(tmp_path, log_of(FIVE))
    before = store.history(settings)
    other = log_of([*FIVE[:2], *of_a(*[changed("a", number, "cancelled") for number in range(90, 96)])])

    with on_topic(other):
        with Rebuild(settings, keep_lost=keep_lost) as work, pytest.raises(RebuildRefused, match="opens a new epoch"):
            work.fold(lambda *_: None)
        with pytest.raises(RebuildRefused, match="has 5 events that are not known to be on the topic"):
            from_scratch(settings, lambda *_: None)

    assert store.history(settings) == before
    assert not list(tmp_path.glob("*.building*"))


@pytest.mark.parametrize("last", ["an event", "a mended event", "a skip", "a control"])
def test_a_position_that_is_wrong_is_no_lost_log(tmp_path: Path, last: str) -> None:
    """What stands at the anchor is known, from one table or the other."""
    values = {"an event": changed("a", 9, "shipped"), "a control": control(50, 0, None, None)[1]}
    records = log_of([*FIVE, (b"a", values.get(last, b"{"))])
    settings = applied(tmp_path, records)
    good = store.query(settings, "SELECT * FROM positions")
    with closing(sqlite3.connect(settings.orders_db)) as connection, connection:
        connection.execute("UPDATE positions SET last_checksum = last_checksum + 1")

    differences = rebuilt(settings, records)

    assert differences.counts == {("positions", "other"): 1}
    assert store.query(settings, "SELECT * FROM positions") == good


def test_whether_a_log_lacks_what_was_applied_from_it() -> None:
    records = log_of(FIVE)
    log, checksum = Served(records), records[-1].checksum()

    def lacking(span: Span, position: Position) -> bool:
        return lacks(log, records[-1].partition, span, position)  # type: ignore[arg-type]

    assert not lacking(Span(0, 5), Position(5, Anchor(4, checksum)))
    assert not lacking(Span(0, 5), Position(5))
    assert not lacking(Span(5, 5), Position(5, Anchor(4, checksum + 1)))
    assert lacking(Span(0, 5), Position(5, Anchor(4, checksum + 1)))
    assert lacking(Span(0, 5), Position(6, Anchor(4, checksum)))
    assert lacking(Span(0, 9), Position(9, Anchor(8, checksum)))


@pytest.mark.parametrize("begin", range(7))
def test_a_repair_of_what_is_lost_is_kept_with_all_that_follows_from_it(tmp_path: Path, begin: int) -> None:
    """The second repair quotes the first one as the order's last record, so both must stand."""
    records = log_of([
        *of_a(created("a", 1), b"{", *[changed("a", number, "pending") for number in (20, 21)], b"{"),
        control(50, 1, 4, changed("a", None, "confirmed")), control(51, 4, 5, changed("a", None, "cancelled")),
    ])  # fmt: skip
    settings = applied(tmp_path, records)

    differences = rebuilt(settings, records[begin:])

    assert differences.counts == {}
    assert store.query(settings, "SELECT verdict FROM controls") == [("accepted",)] * 2
    assert store.query(settings, "SELECT status FROM orders") == [("cancelled",)]


def test_what_a_repair_of_what_is_lost_did_to_the_rest_of_its_order_is_kept(tmp_path: Path) -> None:
    """By it an update that came too early was healed, and the create that had won became a second one."""
    records = log_of([
        *of_a(b"{", changed("a", 20, "shipped"), created("a", 1)), control(50, 0, 2, created("a", None)),
        *of_a(changed("a", 21, "delivered")), control(51, 2, None, None),
    ])  # fmt: skip
    settings = applied(tmp_path, records)
    before = store.query(settings, "SELECT offset, state, opened_by FROM skipped_messages ORDER BY 1")

    differences = rebuilt(settings, records[1:])

    assert differences.counts == {}
    assert before == [(0, "repaired", 0), (1, "healed", 1), (2, "discarded", 3)]


def test_an_id_that_a_discard_of_what_is_lost_took_stays_taken(tmp_path: Path) -> None:
    """Else a late copy would come back to life."""
    records = log_of([
        *of_a(created("a", 1), changed("a", 7, "shiped"), changed("a", 8, "pending")), control(50, 1, None, None),
        *of_a(changed("a", 7, "shipped")),
    ])  # fmt: skip
    settings = applied(tmp_path, records[:-1])

    assert rebuilt(settings, records[2:-1]).counts == {}

    with closing(Writer(settings)) as writer:
        writer.write(Projection(writer, TOPIC.topic_id, 1).project(records[-1:]).batch)
    assert store.query(settings, "SELECT status FROM orders") == [("pending",)]
    assert store.query(settings, "SELECT reason FROM skipped_messages WHERE offset = 4") == [("event_id_conflict",)]


def test_reading_goes_on_where_it_did_when_a_partition_has_no_records_any_more(tmp_path: Path) -> None:
    settings = applied(tmp_path, log_of(FIVE))
    before = store.query(settings, "SELECT * FROM positions")

    with patch.object(Served, "spans", lambda _: {number: Span(5, 5) for number in range(6)}):
        differences = rebuilt(settings, [])

    assert differences.counts == {}
    assert store.query(settings, "SELECT * FROM positions") == before != []


def test_lists_go_on_as_they_did(tmp_path: Path) -> None:
    """Although partitions are read one after the other: orders as they were created, skips as they came to be."""
    records = log_of([
        *[(name.encode(), created(name, 1)) for name in "fedcba"], *[(name, b"{") for name in (b"f", b"b", b"c", b"a")],
    ])  # fmt: skip
    settings = applied(tmp_path, records)

    def lists() -> Any:
        reader = Reader(settings)
        newest = Skips(reader).newest(Wanted(), 9)
        return reader.order_ids(0, 9), [(numbered.number, numbered.skip.order_id) for numbered in newest]

    before = lists()
    first, second = (rebuilt(settings, records) and lists() for _ in range(2))
    with on_topic(records):
        from_scratch(settings, lambda *_: None)

    assert before == (list(enumerate("fedcba", start=1)), [(4, "a"), (3, "c"), (2, "b"), (1, "f")])
    assert before == first == second == lists()


# Reading a log that cannot be read.


def test_a_place_that_is_found_readable_and_cannot_be_read_ends_the_reading() -> None:
    """A slow look finds nothing wrong where reading does; without a bound it would go round for ever."""
    looks = count()

    class Stubborn(LogReader):
        def _new_consumer(self) -> Any:
            return create_autospec(KafkaConsumer, instance=True), Mock(doubt=lambda: None)

        def _polled(self, *_: object) -> Iterator[Record]:
            raise log_reader._Unreadable(3)
            yield

    def readable(*_: object) -> list[UnreadableRecord]:
        assert next(looks) < 100
        return []

    with (
        patch.object(log_reader, "locate_unreadable", readable),
        Stubborn(Settings(), TOPIC, "test") as log,
        pytest.raises(BrokerError, match="cannot be read at offset 3"),
    ):
        list(log.read(0, 3, 9))
