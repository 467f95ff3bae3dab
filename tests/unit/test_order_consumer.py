"""The start of the order consumer: a damaged file is refused at once, and what waits is known to have waited."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import pytest

from order_consumer.__main__ import consume
from order_consumer.applying import Stopped
from order_consumer.consumer import OrderConsumer
from orderflow.alerts import AlertBook
from orderflow.broker import Topic
from orderflow.errors import StoreDamaged
from orderflow.headers import NO_HEADERS
from orderflow.measures import Lag
from orderflow.process import Heartbeat, StopFlag
from orderflow.records import Record
from orderflow.store.bounded import interrupted_after
from orderflow.store.sqlite import DatabaseError
from orderflow.store.writer import Writer
from orderflow.worker import Worker
from tests.support.applied_log import AppliedLog
from tests.support.damage import PAGE
from tests.unit.test_projection import created

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orderflow.broker import End
    from orderflow.settings import Settings

#: Orders whose index has several pages.
ORDERS = 300


@pytest.fixture
def worker(settings: Settings) -> Iterator[Worker]:
    """One that is asked to stop already, so that it does no more than start."""
    stop = StopFlag()
    stop.set()
    alerts = AlertBook(settings, "x")
    yield Worker(settings, alerts, stop, Heartbeat(settings, "x"))
    alerts.close()


def fill(settings: Settings, *, damaged: bool) -> None:
    """Apply some orders, and close the file; where it is to be damaged only an index is, deep in the file."""
    log = AppliedLog(settings)
    for number in range(ORDERS):
        log.lay(b"o-%d" % number, created(f"o-{number}", number))
    query = "SELECT rootpage FROM sqlite_schema WHERE name = 'history_by_order'"
    ((page,),) = log.writer._connection.execute(query).fetchall()
    log.writer.close()
    if damaged:
        with settings.orders_db.open("r+b") as file:
            file.seek((page - 1) * PAGE)
            file.write(b"\xff" * PAGE)


def test_a_damaged_page_deep_in_the_file_is_found_at_the_start(settings: Settings, worker: Worker) -> None:
    """What the start itself reads is whole, and so are the tables."""
    fill(settings, damaged=True)

    with pytest.raises(StoreDamaged, match="orderflow rebuild --from-scratch"):
        consume(worker)


def test_a_sound_file_is_opened(settings: Settings, worker: Worker) -> None:
    fill(settings, damaged=False)

    consume(worker)


class OnePoll:
    """A subscription that gives two records of long ago."""

    polled_up_to: ClassVar[dict[int, int]] = {}

    def __init__(self, *_: object) -> None: ...

    def poll(self) -> list[Record]:
        return [Record(0, offset, b"a", b"{", NO_HEADERS, logged_at) for offset, logged_at in ((0, 1_000), (1, 2_000))]

    def left(self) -> dict[int, int]:
        return {0: 2}

    def ends(self) -> dict[int, End]:
        return {}

    def close(self) -> None: ...


def test_what_waits_for_the_store_after_a_start_waits_since_it_came_to_the_topic(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not since the consumer was started."""
    stop, heartbeat, alerts = StopFlag(), Heartbeat(settings, "x"), AlertBook(settings, "x")
    consumer = OrderConsumer(settings, Writer(settings), alerts, stop, heartbeat)
    said: dict[int, Lag] = {}

    def takes_nothing(*_: object) -> None:
        consumer._beat_applying("waiting", "the store")
        said.update(heartbeat.lags)
        stop.set()
        raise Stopped("the store took nothing")

    monkeypatch.setattr("order_consumer.consumer.Subscription", OnePoll)
    monkeypatch.setattr(consumer._applier, "apply", takes_nothing)
    with pytest.raises(Stopped):
        consumer._consume(Topic("order_events", "topic-id", 6))
    alerts.close()

    assert said == {0: Lag(2, 1.0)}


def test_a_large_file_does_not_hold_up_the_start(settings: Settings) -> None:
    """The search ends with its time, and is in the way of nothing afterwards."""
    fill(settings, damaged=True)
    writer = Writer(settings)
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"

    with pytest.raises(DatabaseError, match="interrupted"), interrupted_after(writer._connection, 0.2):
        writer._connection.execute(endless).fetchall()
    writer._connection.set_progress_handler(lambda: 1, 1)
    assert writer.damage(at_most_s=60) is None, "it was cut off"
    writer._connection.set_progress_handler(None, 0)

    assert "page" in (writer.damage(at_most_s=60) or "").lower()
    writer.close()
