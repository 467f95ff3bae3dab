"""The outbox: what is added is there once and in order, bounded, and its totals are those of its rows."""

from __future__ import annotations

import sqlite3
import threading
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from orderflow.errors import HealingRefused, OutboxFull, StoreIncompatible, StoreUnavailable
from orderflow.messages import Message
from orderflow.settings import Settings
from orderflow.store.outbox import Outbox
from orderflow.store.outbox_adding import ROW_BYTES
from orderflow.store.outbox_desk import OutboxDesk
from orderflow.store.outbox_rows import Addition, Command
from orderflow.store.outbox_shown import shown_with_payload
from orderflow.store.sqlite import MAYBE_COMMITTED, immediate

if TYPE_CHECKING:
    from pathlib import Path


def message(order: str, number: int = 0, size: int = 1) -> Message:
    headers = (("traceparent", b"00-1-2-01"), ("empty", b""))
    return Message(order.encode(), b"v" * size, headers, order, f"{order}-{number}", "trace")


def control(order: str, number: int, named: str, key: bytes | None = b"k", partition: int = 3) -> Command:
    pairs = (("none", None),)
    return Command(Message(key, b"c", pairs, order, f"control-{number}", "trace", partition), "control", named)


def settings(tmp_path: Path, **more: Any) -> Settings:
    return Settings(var_dir=str(tmp_path), **more)


def test_what_was_added_comes_back_as_it_was_and_in_order(tmp_path: Path) -> None:
    outbox = Outbox(settings(tmp_path))
    messages = [message("a"), message("b"), message("a", 1)]

    added = outbox.add([(one, False) for one in messages])

    assert added == [Addition("waiting", 0), Addition("waiting", 1), Addition("waiting", 2)]
    assert [entry.message() for entry in outbox.deliverable(10)] == messages
    assert [entry.message() for entry in outbox.deliverable(2)] == messages[:2]
    assert outbox.waiting_orders() == {"a", "b"}


def test_an_event_is_there_once_and_once_sent_stays_sent(tmp_path: Path) -> None:
    outbox, desk = Outbox(settings(tmp_path)), OutboxDesk(settings(tmp_path))
    outbox.add([(message("a"), False), (message("b"), False)])

    again = outbox.add([(message("b"), True), (message("c"), False)])
    outbox.add([(message("b"), False)])

    assert again == [Addition("waiting", 1, new=False), Addition("waiting", 2)]
    assert [(entry.order_id, entry.sent) for entry in desk.entries(("waiting",))] == [("a", 0), ("b", 1), ("c", 0)]


def test_two_orders_may_have_the_same_event_id(tmp_path: Path) -> None:
    """An event id is unique within its order."""
    outbox = Outbox(settings(tmp_path))
    one, other = message("a"), message("b")
    other = Message(other.key, other.value, other.headers, other.order_id, one.event_id)

    assert outbox.add([(one, False), (other, False)]) == [Addition("waiting", 0), Addition("waiting", 1)]


def test_beyond_the_bound_of_events_or_bytes_none_is_added(tmp_path: Path) -> None:
    by_events = Outbox(settings(tmp_path / "a", outbox_max_events=2))
    by_bytes = Outbox(settings(tmp_path / "b", outbox_max_mb=1))

    few = by_events.add([(message(f"o{number}"), False) for number in range(4)])
    large = by_bytes.add([(message(f"o{number}", size=400_000), False) for number in range(2)])
    none_more = by_bytes.add([(message("o3", size=400_000), False), (message("o4"), False)])

    assert [type(one) for one in few] == [Addition, Addition, OutboxFull, OutboxFull]
    assert "2 events of at most 2" in str(few[2])
    assert [type(one) for one in large] == [Addition, Addition]
    assert [type(one) for one in none_more] == [OutboxFull, OutboxFull], "a later one does not slip in"
    assert by_bytes.totals().bytes_undelivered > 2 * (400_000 + ROW_BYTES)


def test_room_is_made_by_delivery(tmp_path: Path) -> None:
    outbox = Outbox(settings(tmp_path, outbox_max_events=1))
    outbox.add([(message("a"), False)])
    (entry,) = outbox.deliverable(1)

    outbox.settle(delivered=[(entry.seq, 3, 4)])

    assert outbox.add([(message("b"), False)]) == [Addition("waiting", 0)]
    assert outbox.add([(message("a"), False)]) == [Addition("delivered", 0, 3, 4, new=False)]


def test_a_held_event_holds_its_order_until_it_is_retried_or_discarded(tmp_path: Path) -> None:
    outbox, desk = Outbox(settings(tmp_path)), OutboxDesk(settings(tmp_path))
    outbox.add([(message("a"), False), (message("a", 1), False), (message("b"), False)])
    first = outbox.deliverable(1)[0].seq

    outbox.settle(held=[(first, "too large")])
    held = [entry.order_id for entry in outbox.deliverable(10)]
    behind = outbox.drained_up_to(first)
    retried = desk.retry([first, first + 1])
    after_retry = [entry.event_id for entry in outbox.deliverable(10)]
    outbox.settle(held=[(first, "too large")])
    discarded = desk.discard([first], "kim", "sent in two parts")

    assert held == ["b"]
    assert behind is True, "nothing in front of it can be delivered"
    assert (retried, discarded) == (1, 1), "only what is held is changed"
    assert after_retry == ["a-0", "a-1", "b-0"]
    assert [entry.event_id for entry in outbox.deliverable(10)] == ["a-1", "b-0"]
    (row,) = desk.find("a-0")
    assert (row.state, row.author, row.reason) == ("discarded", "kim", "sent in two parts")


def test_what_was_discarded_may_come_again(tmp_path: Path) -> None:
    outbox, desk = Outbox(settings(tmp_path)), OutboxDesk(settings(tmp_path))
    outbox.add([(message("a"), False)])
    outbox.settle(held=[(1, "no")])
    desk.discard([1], "kim", "no")

    assert outbox.add([(message("a"), False)]) == [Addition("waiting", 0)]
    assert [entry.state for entry in desk.find("a-0")] == ["discarded", "waiting"]


def test_delivered_events_are_removed_after_a_while_and_others_stay(tmp_path: Path) -> None:
    outbox, desk = Outbox(settings(tmp_path)), OutboxDesk(settings(tmp_path))
    outbox.add([(message("a"), False), (message("b"), False)])
    outbox.settle(delivered=[(1, 0, 0)])

    kept = outbox.prune(keep_s=3600)
    gone = outbox.prune(keep_s=-1)

    assert (kept, gone) == (0, 1)
    assert [entry.order_id for entry in desk.entries(("waiting", "delivered"))] == ["b"]
    assert outbox.totals().delivered_ever == 1


def test_delivered_events_beyond_the_bound_are_removed_early(tmp_path: Path) -> None:
    outbox = Outbox(settings(tmp_path, outbox_max_events=3))
    for number in range(5):
        outbox.add([(message(f"o{number}"), False)])
        outbox.settle(delivered=[(number + 1, 0, 0)])

    outbox.prune(keep_s=3600)

    assert outbox.totals().delivered == 3


def test_a_control_comes_back_as_it_was(tmp_path: Path) -> None:
    """With null as its key and in its headers, and the partition that it names."""
    outbox = Outbox(settings(tmp_path))
    commands = [control("", 1, "1-3-7", key=None), control("a", 2, "1-3-8"), Command(message("a"), "event")]

    added = outbox.add_all(commands)

    assert added == [Addition("waiting", 0), Addition("waiting", 1), Addition("waiting", 2)]
    entries = outbox.deliverable(10)
    assert [entry.message() for entry in entries] == [command.message for command in commands]
    assert [(entry.kind, entry.named) for entry in entries] == [
        ("control", "1-3-7"), ("control", "1-3-8"), ("event", None),
    ]  # fmt: skip


def test_a_held_event_holds_up_no_control_and_a_held_control_no_event(tmp_path: Path) -> None:
    outbox = Outbox(settings(tmp_path))
    outbox.add([(message("a"), False), (message("a", 1), False), (message("b"), False), (message("b", 1), False)])
    outbox.add_all([control(order, number, f"1-3-{number}") for number, order in enumerate("aabb")])

    outbox.settle(held=[(1, "an event of a"), (7, "a control about b")])

    assert [entry.event_id for entry in outbox.deliverable(10)] == ["b-0", "b-1", "control-0", "control-1"]
    assert outbox.held_orders() == {"a"}


def test_of_controls_about_no_order_none_holds_up_another(tmp_path: Path) -> None:
    outbox = Outbox(settings(tmp_path))
    outbox.add_all([control("", number, f"1-3-{number}", key=None) for number in range(3)])

    outbox.settle(held=[(2, "no")])

    assert [entry.event_id for entry in outbox.deliverable(10)] == ["control-0", "control-2"]


def test_the_first_of_each_lane_comes_where_one_lane_fills_the_window(tmp_path: Path) -> None:
    outbox = Outbox(settings(tmp_path))
    outbox.add([(message("busy", number), False) for number in range(20)])
    outbox.add_all([control("busy", 1, "1-3-1"), control("busy", 2, "1-3-2"), Command(message("other"), "event")])

    entries = outbox.deliverable(10)

    assert [entry.event_id for entry in entries] == [*(f"busy-{n}" for n in range(10)), "control-1", "other-0"]


def test_an_outage_is_about_events_alone(tmp_path: Path) -> None:
    """Which orders' events must go behind something is asked by the service that publishes them."""
    outbox = Outbox(settings(tmp_path))
    outbox.add_all([control("a", 1, "1-3-1"), control("b", 2, "1-3-2"), Command(message("b"), "event")])
    last = outbox.last_seq()

    waiting, drained = outbox.waiting_orders(), outbox.drained_up_to(last)
    outbox.settle(delivered=[(last, 0, 0)])

    assert (waiting, drained) == ({"b"}, False)
    assert (outbox.waiting_orders(), outbox.drained_up_to(last)) == (set(), True)


def test_commands_are_added_all_or_none(tmp_path: Path) -> None:
    """What waits already takes no room, and is told."""
    outbox = Outbox(settings(tmp_path, outbox_max_events=3))
    outbox.add_all([control("a", 2, "1-3-2")])

    with pytest.raises(OutboxFull, match=r"no room for all 3, so none was added: 1 events of at most 3"):
        outbox.add_all([control("b", number, f"1-3-{number}") for number in (3, 4, 5)])
    after_refusal = outbox.totals().waiting
    added = outbox.add_all([control("a", 2, "1-3-2"), *[control("b", 3, "1-3-3")] * 2])

    assert after_refusal == 1
    assert added == [Addition("waiting", 0, new=False), Addition("waiting", 1), Addition("waiting", 1, new=False)]
    assert outbox.totals().waiting == 2


def test_a_command_that_was_delivered_is_delivered_again(tmp_path: Path) -> None:
    """The log may have lost it. An event of a client, which is told where its event is, is not."""
    outbox = Outbox(settings(tmp_path))
    outbox.add([(message("b"), False)])
    outbox.add_all([control("a", 1, "1-3-1")])
    outbox.settle(delivered=[(1, 2, 10), (2, 3, 44)])

    (event,) = outbox.add([(message("b"), False)])
    again = outbox.add_all([control("a", 1, "1-3-1")])

    assert event == Addition("delivered", 0, 2, 10, new=False)
    assert again == [Addition("waiting", 0, new=False)]
    (entry,) = outbox.deliverable(10)
    assert (entry.seq, entry.partition, entry.offset, entry.settled_at) == (2, None, None, None)
    assert (outbox.totals().waiting, outbox.totals().delivered) == (1, 1)


def test_a_discard_waits_behind_the_event_that_is_sent_instead(tmp_path: Path) -> None:
    """Else the message would be closed, and nothing in its stead, when Kafka refuses the event."""
    outbox, desk = Outbox(settings(tmp_path)), OutboxDesk(settings(tmp_path))
    sent = Command(msgspec.structs.replace(message("a"), event_id="instead"), "event", "1-3-1")
    closing = control("a", 1, "1-3-1")._replace(successor="instead")
    outbox.add_all([sent, closing, control("a", 2, "1-3-2")])

    lanes = [entry.lane for entry in outbox.deliverable(10)]
    outbox.settle(held=[(1, "too large")])
    deliverable = [entry.seq for entry in outbox.deliverable(10)]
    given_up = desk.discard([1], "kim", "too large")
    states = [(entry.seq, entry.state) for entry in desk.entries(("waiting", "held", "discarded"))]

    assert lanes == ["event a", "event a", "control a"]
    assert deliverable == [3]
    assert (given_up, states) == (1, [(1, "discarded"), (2, "discarded"), (3, "waiting")])
    assert outbox.add_all([sent, closing]) == [Addition("waiting", 1), Addition("waiting", 2)]


def test_of_two_who_ask_at_once_the_second_is_refused(tmp_path: Path) -> None:
    """All that is asked for with it, too. The same again is the same, and another message is nobody's business."""
    outbox = Outbox(settings(tmp_path))
    outbox.add_all([control("a", 1, "1-3-1")])

    with pytest.raises(HealingRefused, match=r"Something else was asked for skip 1-3-1 meanwhile \(number 1 of"):
        outbox.add_all([control("a", 2, "1-3-2"), control("a", 3, "1-3-1")])

    assert outbox.totals().waiting == 1
    outbox.add_all([control("a", 1, "1-3-1"), control("a", 2, "1-3-2")])
    assert outbox.totals().waiting == 2


def test_commands_are_kept_longer_than_events(tmp_path: Path) -> None:
    """While they are there it is known what the consumer has not read yet, be it stopped for days."""
    outbox = Outbox(settings(tmp_path, outbox_max_events=2))
    outbox.add([(message("b"), False)])
    outbox.add_all([control("a", 1, "1-3-1")])
    outbox.settle(delivered=[(1, 2, 10), (2, 3, 44)])

    assert outbox.prune(keep_s=-1) == 1
    assert [entry.kind for entry in OutboxDesk(settings(tmp_path)).entries(("delivered",))] == ["control"]


def test_a_discard_that_kafka_refuses_holds_its_order_and_says_so(tmp_path: Path) -> None:
    outbox = Outbox(settings(tmp_path))
    outbox.add_all([control("a", 1, "1-3-1")._replace(successor="instead")])
    outbox.settle(held=[(1, "no")])
    outbox.add([(message("a"), False)])

    assert outbox.deliverable(10) == []
    assert outbox.held_orders() == {"a"}
    assert outbox.drained_up_to(2)


def test_a_discarded_command_may_be_given_again(tmp_path: Path) -> None:
    outbox, desk = Outbox(settings(tmp_path)), OutboxDesk(settings(tmp_path))
    outbox.add_all([control("a", 1, "1-3-1")])
    outbox.settle(held=[(1, "no")])
    desk.discard([1], "kim", "no")

    assert outbox.add_all([control("a", 1, "1-3-1")]) == [Addition("waiting", 0)]


def test_it_is_known_which_skipped_messages_have_a_control_under_way(tmp_path: Path) -> None:
    """The last one counts; events, also those that are sent in a message's stead, are none."""
    outbox, desk = Outbox(settings(tmp_path)), OutboxDesk(settings(tmp_path))
    outbox.add_all([control("a", number, f"1-3-{number}") for number in range(4)])
    outbox.settle(delivered=[(1, 3, 70), (2, 3, 72), (3, 3, 73)], held=[(4, "no")])
    desk.discard([4], "kim", "no")
    outbox.add_all([control("a", number, f"1-3-{number - 4}") for number in range(4, 7)])
    outbox.add_all([Command(message("a"), "event", "1-3-9")])
    outbox.settle(delivered=[(5, 3, 71)], held=[(6, "no")])

    found = desk.under_way(["1-3-0", "1-3-1", "1-3-2", "1-3-3", "1-3-9", "1-4-0"])

    assert {named: (one.event_id, one.state, one.partition, one.offset) for named, one in found.items()} == {
        "1-3-0": ("control-4", "delivered", 3, 71),
        "1-3-1": ("control-5", "held", None, None),
        "1-3-2": ("control-6", "waiting", None, None),
    }


def test_rows_are_shown_with_their_kind(tmp_path: Path) -> None:
    outbox, desk = Outbox(settings(tmp_path)), OutboxDesk(settings(tmp_path))
    discard = b'{"type":"message.discarded"}'
    outbox.add_all([Command(Message(None, discard, (("n", None),), "", "c", "", 2), "control", "1-2-3")])
    outbox.add([(message("a"), False)])

    one, other = (shown_with_payload(entry) for entry in desk.entries(("waiting",)))

    assert (one["kind"], one["orderId"], one["names"], one["type"]) == (
        "control", None, "1-2-3", "message.discarded",
    )  # fmt: skip
    assert (one["headers"], one["payload"]) == ({"n": ""}, discard.decode())
    assert (other["kind"], other["orderId"], other["names"], other["type"]) == ("event", "a", None, None)


STEPS = st.lists(st.tuples(st.sampled_from(["add", "deliver", "hold", "retry", "discard", "prune"]), st.integers(1, 6)))


@given(STEPS)
@hypothesis_settings(max_examples=60, deadline=None)
def test_the_totals_are_those_of_the_rows(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int]]
) -> None:
    """Whatever is done, in whatever sequence."""
    own = settings(tmp_path_factory.mktemp("outbox"))
    outbox, desk = Outbox(own), OutboxDesk(own)
    for number, (step, seq) in enumerate(steps):
        match step:
            case "add":
                outbox.add([(message(f"o{seq}", number, size=seq), False)])
            case "deliver":
                outbox.settle(delivered=[(seq, 0, 0)])
            case "hold":
                outbox.settle(held=[(seq, "no")])
            case "retry":
                desk.retry([seq])
            case "discard":
                desk.discard([seq], "kim", "no")
            case "prune":
                outbox.prune(keep_s=-1)

    totals = outbox.totals()
    rows = desk.entries(("waiting", "held", "delivered", "discarded"), limit=1_000)
    states = [row.state for row in rows]
    assert totals[:4] == tuple(states.count(state) for state in ("waiting", "held", "delivered", "discarded"))
    assert totals.bytes_undelivered == sum(row.bytes for row in rows if row.state in {"waiting", "held"})
    assert totals.bytes_delivered == sum(row.bytes for row in rows if row.state == "delivered")
    assert outbox.waiting_orders() == {row.order_id for row in rows if row.state in {"waiting", "held"}}


def test_a_commit_is_synced_and_its_journal_stays(tmp_path: Path) -> None:
    """A journal that is deleted without a sync of its folder comes back with the power, and undoes the commit."""
    outbox = Outbox(settings(tmp_path))
    outbox.add([(message("a"), False)])
    connection = outbox._file._connection

    assert connection is not None
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("truncate",)
    assert connection.execute("PRAGMA synchronous").fetchone() == (2,)
    assert (tmp_path / "outbox.db-journal").stat().st_size == 0


class EndsBadly:
    """A connection whose commits fail: the disk's errors that are wanted here cannot be made at the very moment."""

    def __init__(self, code: int) -> None:
        self.in_transaction = False
        self._code = code

    def execute(self, sql: str) -> None:
        if sql == "COMMIT":
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorcode = self._code
            raise error


@pytest.mark.parametrize(
    ("code", "maybe"), [(sqlite3.SQLITE_IOERR_FSYNC, True), (sqlite3.SQLITE_FULL, False), (sqlite3.SQLITE_BUSY, False)]
)
def test_a_commit_that_failed_at_the_disk_may_have_taken_effect(code: int, *, maybe: bool) -> None:
    """Nobody may call it undone; of a full disk and of a lock it is known."""
    with pytest.raises(sqlite3.OperationalError) as failed, immediate(EndsBadly(code)):  # type: ignore[arg-type]
        pass

    assert (MAYBE_COMMITTED in getattr(failed.value, "__notes__", ())) is maybe


def test_a_lock_beyond_the_wait_is_an_error_and_passes(tmp_path: Path) -> None:
    outbox = Outbox(settings(tmp_path, outbox_busy_timeout_s=0.1))
    outbox.add([(message("a"), False)])
    other = sqlite3.connect(tmp_path / "outbox.db", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")

    with pytest.raises(StoreUnavailable, match="locked"):
        outbox.add([(message("b"), False)])
    other.execute("ROLLBACK")
    other.close()

    assert outbox.add([(message("b"), False)]) == [Addition("waiting", 1)]


def test_a_file_of_another_version_is_refused_and_left_alone(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "outbox.db") as other:
        other.execute("PRAGMA user_version = 99")

    with pytest.raises(StoreIncompatible, match=r"schema version 99.*events wait in it"):
        Outbox(settings(tmp_path)).totals()


def test_many_processes_worth_of_openers_make_one_file(tmp_path: Path) -> None:
    """Each of them finds no tables at first."""
    outboxes = [Outbox(settings(tmp_path)) for _ in range(8)]
    results: list[object] = []

    def add(index: int) -> None:
        results.extend(outboxes[index].add([(message(f"o{index}"), False)]))

    threads = [threading.Thread(target=add, args=[index]) for index in range(len(outboxes))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)

    assert sorted(one.ahead for one in results if isinstance(one, Addition)) == list(range(8))
