"""The alert of a flood of skips: when it opens, what it says, when it is over. At the border each record counts."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from order_consumer.applying import Applier
from order_consumer.flood import FloodWatch
from orderflow.alerts import AlertBook, Cause
from orderflow.process import StopFlag
from orderflow.projection import Projection
from orderflow.settings import Settings
from orderflow.store.alerts import Alerts
from tests.support.skips import skip
from tests.unit.test_projection import TOPIC, created, log_of, open_writer

if TYPE_CHECKING:
    from pathlib import Path

    from orderflow.records import Record
    from orderflow.store.alerts import AlertRow
    from orderflow.store.rows import SkippedRow

#: More than 2 of the last 10 are a flood; 1 is none any more.
TEN = {"flood_records": 10, "flood_share": 0.2}


class Noted:
    """A watch, and what it has written."""

    def __init__(self, tmp_path: Path, **more: object) -> None:
        self.settings = Settings(var_dir=str(tmp_path), **TEN | more)  # type: ignore[arg-type]
        self._book = AlertBook(self.settings, "test")
        self._watch = FloodWatch(self.settings, self._book)
        self._offset = 0

    def note(self, good: int, bad: int = 0, reason: str = "malformed_json") -> None:
        """Note some records as one portion."""
        self._watch.note(good + bad, [self._skip(reason) for _ in range(bad)])

    def _skip(self, reason: str) -> SkippedRow:
        self._offset += 1
        return skip(self._offset, reason=reason, detail=f"why {self._offset}")

    def rows(self) -> list[AlertRow]:
        """All alerts, newest first, when what was noted is written."""
        self._book.close()
        return Alerts(self.settings).rows(open_only=False)

    @property
    def is_open(self) -> bool:
        return any(row.resolved_at is None for row in self.rows())


@pytest.fixture
def noted(tmp_path: Path) -> Noted:
    return Noted(tmp_path)


def test_at_the_limit_there_is_no_flood_and_beyond_it_there_is(noted: Noted) -> None:
    noted.note(8, 2)
    at_the_limit = noted.rows()
    noted.note(0, 1)

    assert at_the_limit == []
    (row,) = noted.rows()
    assert (row.cause, row.resolved_at) == (Cause.SKIP_FLOOD, None)


def test_few_skips_after_a_start_are_no_flood(noted: Noted) -> None:
    """The records that were not read yet count as good ones, however large a share of the others is bad."""
    noted.note(0, 2)
    after_two = noted.rows()
    noted.note(0, 1)

    assert after_two == []
    assert "Of the last 3 records 3 were skipped" in noted.rows()[0].detail


def test_a_large_batch_is_judged_by_its_share(noted: Noted) -> None:
    """It holds more records than are looked back on, and among them more bad ones than the limit."""
    noted.note(980, 20)
    few = noted.rows()
    noted.note(799, 201)

    assert few == []
    assert "Of the last 1000 records 201 were skipped" in noted.rows()[0].detail


def test_what_lies_far_back_does_not_count(noted: Noted) -> None:
    noted.note(0, 2)
    noted.note(10)
    noted.note(0, 2)

    assert noted.rows() == []


def test_it_opens_once_and_counts_what_is_skipped_meanwhile(noted: Noted) -> None:
    for _ in range(5):
        noted.note(1, 3)
        noted.note(1)

    (row,) = noted.rows()
    assert row.affected == 5 * 3


def test_it_names_the_common_cause_with_its_last_examples(noted: Noted) -> None:
    noted.note(0, 2, "unknown_order")
    noted.note(0, 4, "malformed_json")
    noted.note(0, 1, "missing_key")

    (row,) = noted.rows()
    assert "4 of them as malformed_json (the value is not json)" in row.detail
    assert "Examples: 1-0-4, 1-0-5, 1-0-6; the last one says: why 6" in row.detail


def test_it_is_over_when_half_the_limit_is_left_and_does_not_flap(noted: Noted) -> None:
    noted.note(0, 3)
    noted.note(9)
    at_once = noted.is_open
    noted.note(0, 2)
    noted.note(8)
    between = noted.is_open
    noted.note(1)
    still = noted.is_open
    noted.note(1)

    assert (at_once, between, still) == (True, True, True)
    (row,) = noted.rows()
    assert row.resolution is not None
    assert "records 0 were skipped" in row.resolution


def test_a_new_worker_takes_over_the_alert_of_the_one_before(tmp_path: Path) -> None:
    """It resolves it when it has read enough itself, and counts on in it while the flood goes on."""
    first = Noted(tmp_path)
    first.note(0, 5)
    first.rows()

    second = Noted(tmp_path)
    second.note(9)
    too_few = second.is_open
    third = Noted(tmp_path)
    third.note(0, 3)
    (going_on,) = third.rows()
    fourth = Noted(tmp_path)
    fourth.note(10)

    assert too_few is True
    assert going_on.affected == 5 + 3
    assert fourth.is_open is False


def test_a_share_of_all_switches_it_off(tmp_path: Path) -> None:
    noted = Noted(tmp_path, flood_share=1.0)

    noted.note(0, 50)

    assert noted.rows() == []


class Told:
    """A book that keeps what it is told."""

    def __init__(self) -> None:
        self.is_open = False

    def open(self, *_: object) -> None:
        self.is_open = True

    def resolve(self, *_: object) -> None:
        self.is_open = False


@given(bad=st.lists(st.booleans(), max_size=60))
def test_record_by_record_it_is_the_share_of_the_last_ten(bad: list[bool]) -> None:
    book = Told()
    watch = FloodWatch(Settings(**TEN), book)  # type: ignore[arg-type]
    last: deque[bool] = deque(maxlen=10)
    expected = False
    for number, is_bad in enumerate(bad):
        watch.note(1, [skip(number)] if is_bad else [])
        last.append(is_bad)
        if sum(last) > 2 and is_bad:
            expected = True
        elif sum(last) <= 1 and len(last) == 10:
            expected = False
        assert book.is_open is expected


def test_the_worker_tells_of_a_flood_and_applies_the_good_records_between(tmp_path: Path) -> None:
    settings = Settings(var_dir=str(tmp_path), **TEN)  # type: ignore[arg-type]
    writer, book = open_writer(tmp_path), AlertBook(settings, "order-consumer")
    applier = Applier(settings, writer, book, StopFlag(), lambda *_: None)
    projection = Projection(writer, TOPIC.topic_id, 1)
    records: list[Record] = log_of([
        *((f"o{number}".encode(), created(f"o{number}", number)) for number in range(9)),
        *[(b"a", b"{")] * 3,
    ])  # fmt: skip

    applier.apply(projection, records[:11])
    book.close()
    before = Alerts(settings).rows()
    applier.apply(projection, records[11:])
    book.close()
    writer.close()

    assert before == []
    (row,) = Alerts(settings).rows()
    assert (row.cause, row.affected) == (Cause.SKIP_FLOOD, 1)
    assert row.detail.startswith("Of the last 12 records 3 were skipped, 3 of them as malformed_json")
