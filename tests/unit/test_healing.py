"""The desk where people ask for healing: what can be done, what is refused and why, and that a preview comes true."""

from __future__ import annotations

import json
import os
import tempfile
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import pytest
from hypothesis import event, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from orderflow import controls
from orderflow.controls import Discarded, Repaired
from orderflow.errors import HealingRefused, InvalidMending, OutboxFull
from orderflow.healing.desk import HealingDesk
from orderflow.healing.wishes import Discard, Redrive
from orderflow.settings import Settings
from orderflow.store import skips as skips_module
from orderflow.store.outbox import Outbox
from orderflow.store.outbox_desk import OutboxDesk
from orderflow.store.reader import Reader
from orderflow.store.rows import parse_place_id, place_id
from orderflow.store.skips import Wanted
from tests.support import store
from tests.support.applied_log import AppliedLog
from tests.unit.test_projection import changed, created, uuid

if TYPE_CHECKING:
    from pathlib import Path

    from orderflow.healing.desk import Prepared
    from orderflow.healing.preview import Change
    from orderflow.healing.wishes import Wish
    from orderflow.store.outbox_rows import Entry
    from orderflow.store.rows import OrderRow, SkippedRow

#: HYPOTHESIS_EXAMPLES=20000 makes a long run.
EXAMPLES = int(os.environ.get("HYPOTHESIS_EXAMPLES", "60"))

DESTROYED = created("a", 1)[:40]


@pytest.fixture
def desk(settings: Settings) -> HealingDesk:
    return HealingDesk(settings)


def found(desk: HealingDesk, name: str) -> SkippedRow:
    place = parse_place_id(name)
    assert place is not None
    skip = desk.skips.at(place)
    assert skip is not None, name
    return skip


def redrive(mended: bytes | None = None, **more: Any) -> Redrive:
    return Redrive(author="mira", event=msgspec.UNSET if mended is None else msgspec.Raw(mended), **more)


def discard(**more: Any) -> Discard:
    return Discard(author="kim", reason="a test", **more)


def prepare(desk: HealingDesk, wish: Wish, *names: str) -> Prepared:
    return desk.prepare([found(desk, name) for name in names], wish)


def asked(desk: HealingDesk, wish: Wish, *names: str) -> Prepared:
    """Prepare what can be done, and put it into the outbox."""
    prepared = prepare(desk, wish, *names)
    assert prepared.left_out == []
    desk.ask(prepared.remedies)
    return prepared


def refused(desk: HealingDesk, wish: Wish, name: str) -> str:
    """Why a wish is refused; nothing comes of it."""
    ((skip, error),) = prepare(desk, wish, name).left_out
    assert place_id(skip.place) == name
    assert isinstance(error, HealingRefused | InvalidMending)
    return error.reason


def waiting(settings: Settings) -> list[Entry]:
    return OutboxDesk(settings).entries(("waiting",))


def states(desk: HealingDesk) -> dict[str, tuple[str, str, int]]:
    rows = [numbered.skip for numbered in desk.skips.newest(Wanted(state=None), 1_000)]
    return {place_id(row.place): (row.state, row.reason, row.repairs) for row in rows}


def status(settings: Settings, order_id: str) -> str | None:
    row = Reader(settings).order(order_id)
    return row and row.status


# What can be done.


def test_what_a_bug_cost_is_redriven_as_it_was(settings: Settings, log: AppliedLog, desk: HealingDesk) -> None:
    """It takes effect in its place: the update behind it stays the last."""
    log.lay(b"a", created("a", 1))
    name = log.lay_before_a_bug(b"a", changed("a", 2, "pending"))
    log.lay(b"a", changed("a", 3, "shipped"))

    prepared = asked(desk, redrive(reason="the bug is mended"), name)
    log.relay()

    assert states(desk) == {name: ("repaired", "internal_error", 1)}
    assert status(settings, "a") == "shipped"
    (row,) = desk.skips.controls_of(prepared.remedies[0].skip.place)
    assert (row.author, row.note, row.verdict, row.if_last) == ("mira", "the bug is mended", "accepted", 2)
    assert desk.verdicts(prepared.remedies) == {row.event_id: row}


def test_a_mended_create_heals_what_waited_for_it(settings: Settings, log: AppliedLog, desk: HealingDesk) -> None:
    """The mended event's own id is not heard: the place has one, or gets the control's."""
    create = log.lay(b"a", DESTROYED)
    update = log.lay(b"a", changed("a", 2, "shipped"))

    prepared = asked(desk, redrive(created("a", 2)), create)
    log.relay()

    assert states(desk) == {create: ("repaired", "malformed_json", 1), update: ("healed", "unknown_order", 0)}
    assert status(settings, "a") == "shipped"
    ids = [row.event_id for row in store.history(settings).values()]
    assert ids == [prepared.remedies[0].control.event_id, uuid(2)]


def test_what_has_no_place_is_sent_again_at_the_end(settings: Settings, log: AppliedLog, desk: HealingDesk) -> None:
    """The event goes by an id of its own, and the discard names it."""
    name = log.lay(None, created("a", 1), partition=0)
    assert refused(desk, redrive(), name) == "no-place"

    (one,) = asked(desk, redrive(at_end=True), name).remedies
    sent, control = waiting(settings)
    log.relay()

    assert one.event is not None
    assert (sent.kind, sent.event_id, sent.key, sent.to_partition) == ("event", one.event.event_id, b"a", None)
    assert one.event.event_id != uuid(1)
    assert (control.kind, control.named, control.key, control.to_partition) == ("control", name, None, 0)
    discarded = controls.decode(control.value)
    assert isinstance(discarded, Discarded)
    assert (discarded.successor, discarded.if_last) == (one.event.event_id, None)
    assert states(desk) == {name: ("discarded", "missing_key", 0)}
    assert status(settings, "a") == "new"


def test_an_early_update_is_sent_again_behind_its_create(
    settings: Settings, log: AppliedLog, desk: HealingDesk
) -> None:
    name = log.lay(b"a", changed("a", 2, "shipped"))
    log.lay(b"a", created("a", 1))

    asked(desk, redrive(at_end=True), name)
    log.relay()

    assert states(desk) == {name: ("discarded", "unknown_order", 0)}
    assert status(settings, "a") == "shipped"


def test_a_discard_closes_for_good_and_a_late_copy_stays_dead(
    settings: Settings, log: AppliedLog, desk: HealingDesk
) -> None:
    name = log.lay(b"a", changed("a", 2, "shipped"))
    log.lay(b"a", created("a", 1))

    asked(desk, discard(), name)
    log.relay()
    log.lay(b"a", changed("a", 2, "shipped"))

    assert states(desk) == {name: ("discarded", "unknown_order", 0)}
    assert status(settings, "a") == "new"
    assert refused(desk, discard(), name) == refused(desk, redrive(), name) == "skip-closed"


@pytest.mark.parametrize(
    ("lay", "reason"),
    [
        (lambda log: log.lay(b"wrong", created("a", 1)), "key_mismatch"),
        (lambda log: log.lay(b"a", created("a", 1), partition=0), "wrong_partition"),
        (lambda log: log.lay_unreadable(2), "unreadable_record"),
        (lambda log: log.lay(b"a", b'{"type": "message.repaired"}'), "invalid_control"),
    ],
)
def test_whatever_has_no_place_can_be_discarded(log: AppliedLog, desk: HealingDesk, lay: Any, reason: str) -> None:
    name = lay(log)

    asked(desk, discard(), name)
    log.relay()

    assert states(desk) == {name: ("discarded", reason, 0)}


# What is refused.


def test_the_loop_guard_asks_for_force_after_three_repairs(log: AppliedLog, desk: HealingDesk) -> None:
    """An early update, in its place, stays one however often it is repaired."""
    name = log.lay(b"a", changed("a", 1, "shipped"))
    pending = changed("a", 1, "pending")
    for _ in range(3):
        asked(desk, redrive(pending), name)
        log.relay()

    assert refused(desk, redrive(pending), name) == "repaired-too-often"
    assert prepare(desk, redrive(created("a", 1), at_end=True), name).left_out == []
    assert prepare(desk, discard(), name).left_out == []
    asked(desk, redrive(force=True), name)
    log.relay()
    assert states(desk) == {name: ("open", "unknown_order", 4)}


def test_what_would_come_to_nothing_asks_for_force(log: AppliedLog, desk: HealingDesk) -> None:
    """In bulk an update may follow its own create, and what another repair heals is closed by that."""
    early = log.lay(b"a", changed("a", 1, "shipped"))
    log.lay(b"c", created("c", 2))
    second = log.lay(b"c", created("c", 3))

    for name in (early, second):
        for wish in (redrive(), redrive(at_end=True)):
            assert refused(desk, wish, name) == "no-effect"
    stranger = redrive(changed("c", None, "shipped"), at_end=True)
    assert refused(desk, stranger, early) == "wrong-order"

    for wish in (redrive(force=True), redrive(at_end=True, force=True), msgspec.structs.replace(stranger, force=True)):
        assert prepare(desk, wish, early).left_out == []
    assert prepare(desk, redrive(), early, second).left_out == []
    ((skip, error),) = prepare(desk, redrive(at_end=True), early, second).left_out
    assert (place_id(skip.place), error.reason) == (second, "no-effect")


def test_what_was_read_before_counts_as_it_is_now(log: AppliedLog, desk: HealingDesk) -> None:
    """Somebody else may have been faster: sent at the end it would take effect a second time."""
    name = log.lay(None, created("a", 1), partition=0)
    as_it_was = found(desk, name)
    asked(desk, redrive(at_end=True), name)
    log.relay()

    ((_, error),) = desk.prepare([as_it_was], redrive(at_end=True)).left_out

    assert error.reason == "skip-closed"


@pytest.mark.parametrize("given", [b"", b"null", b"null\n", b" "])
def test_an_empty_mended_event_does_not_mean_as_it_was(log: AppliedLog, desk: HealingDesk, given: bytes) -> None:
    """It is what a tool leaves that failed to write the event."""
    name = log.lay_before_a_bug(b"a", created("a", 1))

    assert refused(desk, redrive(given), name) == "invalid-event"


def test_a_moved_order_is_refused_to_whoever_saw_an_older_one(log: AppliedLog, desk: HealingDesk) -> None:
    name = log.lay(b"a", changed("a", 1, "shipped"))
    log.lay(b"a", created("a", 2))

    pending = redrive(changed("a", 1, "pending"), if_last=0)
    assert refused(desk, pending, name) == refused(desk, discard(if_last=0), name) == "order-moved-on"
    assert refused(desk, redrive(if_last=0, at_end=True), name) == "order-moved-on"
    assert desk.last_offset(found(desk, name)) == 1
    for wish in (redrive(changed("a", 1, "new"), if_last=1), redrive(if_last=1, at_end=True), discard(if_last=1)):
        ((made), left_out) = (*prepare(desk, wish, name).remedies, prepare(desk, wish, name).left_out)
        assert (made.last, left_out) == (1, [])


def test_nothing_can_name_what_lies_in_an_earlier_log(log: AppliedLog, desk: HealingDesk) -> None:
    name = log.lay(b"a", b"{")
    log.begin("topic-2")

    for wish in (redrive(created("a", 1)), redrive(created("a", 1), at_end=True), discard()):
        assert refused(desk, wish, name) == "earlier-log"


def test_something_else_waits_until_the_first_is_read(settings: Settings, log: AppliedLog, desk: HealingDesk) -> None:
    """Asking for the same again is the same; the first may be held, or given up by an operator."""
    name = log.lay(b"a", changed("a", 1, "shipped"))
    create = created("a", 1)
    asked(desk, redrive(create), name)

    again = asked(desk, redrive(create), name)
    first = [entry.event_id for entry in waiting(settings)]
    others = (discard(), redrive(create, at_end=True), redrive(changed("a", 1, "pending")))
    refusals = [refused(desk, wish, name) for wish in others]
    under_way = desk.under_way([found(desk, name)])
    Outbox(settings).settle(held=[(under_way[name].seq, "too large")])
    ((_, error),) = prepare(desk, redrive(create), name).left_out
    held = error.reason
    assert f"`orderflow outbox retry {under_way[name].seq}`" in str(error)
    OutboxDesk(settings).discard([under_way[name].seq], "kim", "no")

    assert first == [again.remedies[0].control.event_id]
    assert refusals == ["under-way"] * 3
    assert held == "under-way"
    asked(desk, discard(), name)
    log.relay()
    assert desk.under_way([found(desk, name)]) == {}
    assert states(desk) == {name: ("discarded", "unknown_order", 0)}


def test_what_is_delivered_and_not_read_is_still_under_way(
    settings: Settings, log: AppliedLog, desk: HealingDesk
) -> None:
    name = log.lay(b"a", changed("a", 1, "shipped"))
    asked(desk, redrive(changed("a", 1, "pending")), name)
    (entry,) = waiting(settings)
    _, partition, offset = map(int, name.split("-"))

    Outbox(settings).settle(delivered=[(entry.seq, partition, offset + 1)])
    before = refused(desk, discard(), name)
    log.lay(b"a", entry.value)

    assert before == "under-way"
    assert prepare(desk, discard(), name).left_out == []


@pytest.mark.parametrize(
    ("mended", "reason"),
    [
        (b"{", "invalid-event"),
        (b"\xff", "invalid-event"),
        (b'{"type": "order.lost"}', "invalid-event"),
        (b'{"type": "message.discarded"}', "invalid-event"),
        (changed("a", 1, "lost"), "invalid-event"),
        (created("b", 1), "wrong-order"),
        (b'{"type": "order.status_changed", "order_id": "a", "status": "new", "x": %b0%b}' % (b"[" * 499, b"]" * 499),
         "invalid-event"),
    ],
)  # fmt: skip
def test_what_cannot_take_the_place_is_refused(log: AppliedLog, desk: HealingDesk, mended: bytes, reason: str) -> None:
    """The consumer reads a repair one level deeper than the event alone, and must be able to."""
    name = log.lay(b"a", b"{")

    assert refused(desk, redrive(mended), name) == reason


def test_a_payload_that_is_no_event_cannot_be_redriven_as_it_is(log: AppliedLog, desk: HealingDesk) -> None:
    names = [log.lay(b"a", b"{"), log.lay_unreadable(0)]

    assert [refused(desk, redrive(at_end=True), name) for name in names] == ["no-event"] * 2


def test_as_it_is_means_what_an_earlier_repair_put_there(log: AppliedLog, desk: HealingDesk) -> None:
    name = log.lay(b"a", b"{")
    asked(desk, redrive(changed("a", None, "shipped")), name)
    log.relay()

    (one,) = asked(desk, redrive(force=True), name).remedies

    control = controls.decode(one.control.value)
    assert isinstance(control, Repaired)
    assert control.event_text == changed("a", None, "shipped").decode()


# In bulk.


def test_what_cannot_be_done_for_one_does_not_hold_up_the_others(log: AppliedLog, desk: HealingDesk) -> None:
    good = [log.lay(b"a", changed("a", number, "shipped")) for number in (1, 2)]
    bad = [log.lay(None, created("b", 1), partition=0), log.lay(b"c", b"{")]

    prepared = prepare(desk, redrive(), good[0], *bad, good[1])

    assert [place_id(one.skip.place) for one in prepared.remedies] == good
    assert [(place_id(skip.place), error.reason) for skip, error in prepared.left_out] == [
        (bad[0], "no-place"),
        (bad[1], "no-event"),
    ]


def test_repairs_asked_for_together_do_not_make_each_other_stale(log: AppliedLog, desk: HealingDesk) -> None:
    """Asked for one by one, the second would be: each moves the order on."""
    names = [log.lay_before_a_bug(b"a", created("a", 1))]
    names += [log.lay_before_a_bug(b"a", changed("a", number, "shipped")) for number in (2, 3)]

    prepared = asked(desk, redrive(), *names)
    log.relay()

    operations = {controls.decode(one.control.value).operation for one in prepared.remedies}
    assert len(operations) == 1
    assert None not in operations
    assert {row.verdict for row in desk.verdicts(prepared.remedies).values()} == {"accepted"}
    assert {state for state, _, _ in states(desk).values()} == {"repaired"}


def test_all_of_a_bulk_is_asked_for_or_nothing(tmp_path: Path) -> None:
    """An event and its discard, too."""
    settings = Settings(var_dir=str(tmp_path), outbox_max_events=5)
    desk, log = HealingDesk(settings), AppliedLog(settings)
    names = [log.lay(None, created(order, 1), partition=0) for order in ("a", "b", "c")]
    prepared = prepare(desk, redrive(at_end=True), *names)

    with pytest.raises(OutboxFull):
        desk.ask(prepared.remedies)
    after_refusal = waiting(settings)
    additions = desk.ask(prepared.remedies[:2])
    again = desk.ask(prepared.remedies[:2])

    assert after_refusal == []
    assert [addition.new for addition in additions] == [True, True]
    assert [addition.new for addition in again] == [False, False]
    assert [entry.kind for entry in waiting(settings)] == ["event", "control"] * 2
    log.writer.close()


def test_skips_are_found_by_state_reason_order_and_time(
    log: AppliedLog, desk: HealingDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A walk gives each once, also where they take several pages."""
    names = [log.lay(b"a", changed("a", number, "shipped")) for number in range(5)]
    names += [log.lay(b"c", b"{"), log.lay_unreadable(0)]
    asked(desk, discard(), names[0])
    log.relay()
    with log.writer._connection:
        log.writer._connection.execute("UPDATE skipped_messages SET logged_at = offset * 1000 WHERE order_id = 'a'")
    monkeypatch.setattr(skips_module, "WALK_PAGE", 2)

    def walked(**wanted: Any) -> list[str]:
        return [place_id(skip.place) for skip in desk.skips.walk(Wanted(**wanted))]

    assert sorted(walked()) == sorted(names[1:])
    assert sorted(walked(state=None)) == sorted(names)
    assert walked(state="discarded") == names[:1]
    assert walked(order_id="a") == names[1:5]
    assert walked(reason="malformed_json", order_id="c") == [names[5]]
    assert walked(order_id="a", since=2_000, until=4_000) == names[2:4]
    assert desk.skips.counts(Wanted()) == {"unknown_order": 4, "malformed_json": 1, "unreadable_record": 1}
    newest = [numbered.number for numbered in desk.skips.newest(Wanted(), 100)]
    assert newest == sorted(newest, reverse=True)


# The preview.


def test_a_preview_warns_of_a_second_create(log: AppliedLog, desk: HealingDesk) -> None:
    """And changes nothing."""
    name = log.lay(b"a", DESTROYED)
    again = log.lay(b"a", created("a", 1, "c-2"))
    damaged = log.lay(b"a", b"{")
    before = states(desk)

    (change,) = desk.preview(prepare(desk, redrive(created("a", None, "c-1")), name).remedies)

    assert (change.before and change.before.customer_id, change.after and change.after.customer_id) == ("c-2", "c-1")
    assert [(place_id(skip.place), skip.reason) for skip in change.turned] == [(again, "duplicate_create")]
    assert [place_id(skip.place) for skip in change.remaining] == [damaged]
    assert states(desk) == before


def test_a_preview_names_what_becomes_a_copy(log: AppliedLog, desk: HealingDesk) -> None:
    """The place of a damaged record whose id is known owns it, once it is mended."""
    log.lay(b"a", created("a", 1))
    name = log.lay(b"a", changed("a", 2, "SHIPPED"))
    copy = log.lay(b"a", changed("a", 2, "shipped"))

    (change,) = desk.preview(prepare(desk, redrive(changed("a", None, "shipped")), name).remedies)

    assert [place_id(row.place) for row in change.duplicates] == [copy]
    assert [place_id(skip.place) for skip in change.repaired] == [name]


def test_a_preview_of_nothing_to_do_with_an_order_says_so(log: AppliedLog, desk: HealingDesk) -> None:
    name = log.lay_unreadable(2)

    (change,) = desk.preview(prepare(desk, discard(), name).remedies)

    assert (change.order_id, change.before, change.after) == (None, None, None)
    assert [place_id(skip.place) for skip in change.discarded] == [name]


class Laid(NamedTuple):
    """A record to lay down: an event of an order, whole or damaged, as it comes or into a bug, under a key."""

    order: str
    id: int | None
    kind: str
    harm: str


KINDS = {
    "create": lambda order, number: created(order, number, "c-1"),
    "other create": lambda order, number: created(order, number, "c-2"),
    "pending": lambda order, number: changed(order, number, "pending"),
    "shipped": lambda order, number: changed(order, number, "shipped"),
}
laid = st.builds(
    Laid,
    st.sampled_from(("a", "a", "a", "c")), st.sampled_from((None, None, 1, 2)),
    st.sampled_from(("create", "create", *KINDS)),
    st.sampled_from(("", "", "", "", "cut", "cut", "wrong", "bug", "no key", "other key")),
)  # fmt: skip


class Asked(NamedTuple):
    """A wish about some open skips: an index each, modulo how many there are."""

    which: list[int]
    how: str
    kind: str


#: Outcomes of what is no skip.
APPLIED = ("applied", "duplicate")

wishes = st.builds(
    Asked,
    st.lists(st.integers(0, 9), min_size=1, max_size=3),
    st.sampled_from(("mended", "mended", "mended", "as it is", "as it is", "at the end", "discard")),
    st.sampled_from(("create", "create", *KINDS)),
)


def lay(log: AppliedLog, one: Laid) -> None:
    value = KINDS[one.kind](one.order, one.id)
    key: bytes | None = one.order.encode()
    if one.harm == "cut":
        value = value[:-5]
    if one.harm == "wrong":
        value = json.dumps(json.loads(value) | {"status": 5, "order": 5}).encode()
    if one.harm == "bug":
        log.lay_before_a_bug(one.order.encode(), value)
        return
    if one.harm == "other key":
        key = b"e"
    log.lay(None if one.harm == "no key" else key, value, partition=0 if one.harm == "no key" else None)


def remedies_of(desk: HealingDesk, wish: Asked) -> list[Any]:
    """As one bulk: each event is mended to one of its own order."""
    skips = sorted(desk.skips.walk(Wanted()), key=lambda skip: skip.place)
    chosen = list({skips[index % len(skips)].place: skips[index % len(skips)] for index in wish.which}.values())
    by_order = {skip.order_id or "a" for skip in chosen}
    if wish.how == "mended" and len(by_order) > 1:
        chosen = [skip for skip in chosen if (skip.order_id or "a") == min(by_order)]
    order = chosen[0].order_id or "a"
    made = {
        "mended": redrive(KINDS[wish.kind](order, None)),
        "as it is": redrive(),
        "at the end": redrive(KINDS[wish.kind](order, None) if len(by_order) == 1 else None, at_end=True),
        "discard": discard(),
    }[wish.how]
    return desk.prepare(chosen, made).remedies


class Seen:
    """Orders, skips and outcomes, read by SQLite alone. Places are names; those of records to come are not known."""

    def __init__(self, settings: Settings) -> None:
        place = "epoch || '-' || partition || '-' || offset"
        last = "last_epoch || '-' || last_partition || '-' || last_offset"
        self.orders = {
            order_id: row
            for order_id, *row in store.query(settings, f"SELECT order_id, customer_id, status, {last} FROM orders")
        }
        self.skips = {
            name: row
            for name, *row in store.query(
                settings, f"SELECT {place}, order_id, state, reason, repairs, opened_by FROM skipped_messages"
            )
        }
        self.outcomes = dict(store.query(settings, f"SELECT {place}, outcome FROM history"))

    def named(self, place: str) -> str:
        """The name of a place, where it is known."""
        return place if place in self.outcomes or place in self.skips else "at the end"


def names(rows: Any) -> list[str]:
    return sorted(place_id(row.place) for row in rows)


def told(row: OrderRow | None, before: Seen) -> list[str] | None:
    return row and [
        row.customer_id,
        row.status,
        before.named(place_id((row.last_epoch, row.last_partition, row.last_offset))),
    ]


def compare(change: Change, before: Seen, after: Seen) -> None:
    """Assert that what was shown for one order is what happened."""
    for shown, seen in ((change.before, before), (change.after, after)):
        row = seen.orders.get(change.order_id or "")
        assert told(shown, before) == (row and [*row[:2], before.named(row[2])])
    about = {name: row for name, row in after.skips.items() if row[0] == change.order_id}
    new = {name: row for name, row in about.items() if row != before.skips.get(name)}
    turned = {name for name, row in new.items() if row[1] == "open" and before.outcomes.get(name) in APPLIED}
    assert names(change.turned) == sorted(turned)
    for state, rows in (("repaired", change.repaired), ("healed", change.healed)):
        assert names(rows) == sorted(name for name in new if new[name][1] == state)
    assert all(after.skips[name][1] == "discarded" for name in names(change.discarded))
    remains = [
        (before.named(name), *row[2:4]) for name, row in about.items() if row[1] == "open" and name not in turned
    ]
    shown_open = [skip for skip in change.remaining if skip.order_id == change.order_id]
    assert sorted((before.named(place_id(s.place)), s.reason, s.repairs) for s in shown_open) == sorted(remains)
    copies = {name for name, was in before.outcomes.items() if was != "duplicate" == after.outcomes[name]}
    assert {*names(change.duplicates)} <= copies


@examples(deadline=None, max_examples=EXAMPLES)
@given(records=st.lists(laid, min_size=1, max_size=10), wishes=st.lists(wishes, min_size=1, max_size=3))
def test_what_a_preview_shows_is_what_then_happens(records: list[Laid], wishes: list[Asked]) -> None:
    """Of any history, and any wishes for it: the orders, the skips, the verdicts."""
    with tempfile.TemporaryDirectory(prefix="preview") as folder:
        settings = Settings(var_dir=folder)
        log, desk = AppliedLog(settings), HealingDesk(settings)
        for record in records:
            lay(log, record)
        for wish in wishes:
            if not desk.skips.counts(Wanted()) or not (remedies := remedies_of(desk, wish)):
                continue
            before = Seen(settings)
            changes = desk.preview(remedies)
            assert Seen(settings).__dict__ == before.__dict__, "a preview changes nothing"
            desk.ask(remedies)
            log.relay()
            after = Seen(settings)
            verdicts = {row.event_id: row.verdict for row in desk.verdicts(remedies).values()}
            assert {row.event_id: row.verdict for change in changes for row in change.controls} == verdicts
            for change in changes:
                compare(change, before, after)
            copies = sum(was != "duplicate" == after.outcomes[name] for name, was in before.outcomes.items())
            assert sum(len(change.duplicates) for change in changes) == copies
            event(f"{wish.how}: {', '.join(sorted({*verdicts.values()}))}")
            for what in ("healed", "turned", "duplicates", "remaining"):
                if any(getattr(change, what) for change in changes):
                    event(f"something is {what}")
        log.writer.close()
