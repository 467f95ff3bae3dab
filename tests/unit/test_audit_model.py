"""The audit's model beside the projection, and what it says of logs that were written by hand."""

from __future__ import annotations

import json
import os
import random
import secrets
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from orderflow.audit.auditor import compare, sources_of
from orderflow.audit.copies import open_copy, workspace
from orderflow.audit.differences import Findings
from orderflow.audit.model import Model
from orderflow.audit.rows import OrdersCopy
from orderflow.broker import partition_of
from orderflow.headers import NO_HEADERS
from orderflow.records import Record, UnreadableRecord
from orderflow.settings import Settings
from tests.support.audited import Quiet, control, event, shown
from tests.support.random_log import TOPIC_ID, Log, Logged, RandomLog, applied, uuid

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from orderflow.audit.tally import Tally

#: Logs of the comparison with the projection, and records of each.
LOGS, SIZE = 150, 35

HOME = partition_of(b"a")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(var_dir=str(tmp_path / "var"))


def audited(settings: Settings, records: Sequence[Logged], findings_max: int = 100) -> tuple[Findings, Tally]:
    findings = Findings(findings_max)
    with workspace(settings.var) as folder:
        sources = sources_of(settings, folder)
        with closing(open_copy(sources.orders)) as connection:
            life = OrdersCopy(connection).epoch()
        assert life is not None
        assert life.topic_id == TOPIC_ID
        tally = compare(sources, life, Log(records), findings, Quiet())
    return findings, tally


def test_the_projection_and_the_model_agree_on_logs_made_at_random(tmp_path: Path) -> None:
    """AUDIT_SEED repeats a run."""
    seed = int(os.environ.get("AUDIT_SEED") or secrets.randbits(32))
    seen: set[str] = set()
    for number in range(LOGS):
        rng = random.Random(seed + number)  # noqa: S311 (to be repeated, not to keep a secret)
        settings = Settings(var_dir=str(tmp_path / str(number)))
        lives = [RandomLog(rng, SIZE).records for _ in range(1 + (rng.random() < 0.3))]
        applied(settings, lives, rng, failing=rng.choice((0, 0, 0.1)))

        findings, tally = audited(settings, lives[-1])

        assert findings.total == 0, f"AUDIT_SEED={seed + number}: {findings.kept[:3]}"
        seen |= {*tally.skips, *tally.controls, *tally.skipped}
    assert seen >= {
        "open", "repaired", "healed", "discarded", "accepted", "stale", "superseded", "duplicate", "invalid_control",
        "malformed_json", "invalid_event", "unknown_type", "missing_key", "key_mismatch", "wrong_partition",
        "unreadable_record", "unknown_order", "duplicate_create", "event_id_conflict", "internal_error",
    }  # fmt: skip


# Logs of one order, written by hand.


def laid(*values: bytes) -> list[Record]:
    return [
        Record(HOME, offset, b"a", value, NO_HEADERS, 1_700_000_000_000 + offset) for offset, value in enumerate(values)
    ]


def repair(offset: int, mended: bytes, number: int, **more: object) -> bytes:
    return control(TOPIC_ID, (HOME, offset), uuid(number), mended, **more)


def discard(offset: int, number: int, **more: object) -> bytes:
    return control(TOPIC_ID, (HOME, offset), uuid(number), **more)


def outcomes(model: Model) -> list[str]:
    """What each of the order's places comes to."""
    return [place.outcome for place in model.orders[b"a"].places if place.outcome]


def skips(model: Model) -> dict[int, tuple[str, str]]:
    return {offset: (skip.reason, skip.state) for offset, skip in model.skips.items()}


def read(*values: bytes) -> Model:
    model = Model(TOPIC_ID, 1, HOME)
    for record in laid(*values):
        model.take(record)
    return model


def test_the_first_create_makes_the_order_and_updates_set_its_status() -> None:
    model = read(event("a", "new"), event("a"), event("a", "pending"), event("a"), event("a", "shipped"))

    assert outcomes(model) == ["unknown_order", "applied", "applied", "duplicate_create", "applied"]
    assert model.orders[b"a"].status == "shipped"
    assert skips(model) == {0: ("unknown_order", "open"), 3: ("duplicate_create", "open")}


def test_the_first_place_with_an_id_owns_it_though_it_was_skipped() -> None:
    early = event("a", "shipped", uuid(1))
    model = read(early, event("a"), early, event("a", "pending", uuid(1)))

    assert outcomes(model) == ["unknown_order", "applied", "duplicate", "event_id_conflict"]
    assert model.orders[b"a"].status == "new"


def test_a_repair_stands_at_its_place_and_heals_what_hung_on_it() -> None:
    model = read(b"{", event("a", "pending"), event("a", "shipped"), repair(0, event("a"), 9, if_last=2))

    assert outcomes(model) == ["applied", "applied", "applied"]
    assert skips(model) == {
        0: ("malformed_json", "repaired"), 1: ("unknown_order", "healed"), 2: ("unknown_order", "healed"),
    }  # fmt: skip
    assert model.orders[b"a"].places[0].event_id == uuid(9)


def test_a_repair_may_turn_what_was_applied_into_a_skip_that_names_it() -> None:
    model = read(b"{", event("a"), repair(0, event("a", customerId="c-2"), 9, if_last=1))

    assert outcomes(model) == ["applied", "duplicate_create"]
    assert skips(model) == {0: ("malformed_json", "repaired"), 1: ("duplicate_create", "open")}
    assert model.skips[1].opened_by == 2


def test_a_discarded_event_keeps_its_id_and_a_damaged_one_takes_it() -> None:
    early, damaged = event("a", "shipped", uuid(1)), json.dumps({"type": "x", "event_id": uuid(2)}).encode()
    model = read(
        early, damaged, event("a"), event("a", "pending", uuid(2)), discard(0, 8), discard(1, 9),
        early, event("a", "pending", uuid(2)),
    )  # fmt: skip

    assert outcomes(model)[3:] == ["applied", "duplicate", "duplicate"]
    assert skips(model) == {0: ("unknown_order", "discarded"), 1: ("unknown_type", "discarded")}


@pytest.mark.parametrize(
    ("said", "verdict"),
    [
        (repair(0, event("a"), 9, if_last=1), "accepted"),
        (repair(0, event("a"), 9, if_last=0), "stale"),
        (repair(1, event("a"), 9, if_last=1), "superseded"),
        (repair(2, event("a"), 9, if_last=1), "invalid_control"),
        (repair(0, event("b"), 9, if_last=1), "invalid_control"),
        (control("another", (HOME, 0), uuid(9)), "invalid_control"),
        (control(TOPIC_ID, (HOME + 1, 0), uuid(9)), "invalid_control"),
        (discard(0, 9), "accepted"),
        (discard(0, 9, if_last=0), "stale"),
    ],
)
def test_a_control_is_judged_by_what_it_names_and_what_it_saw(said: bytes, verdict: str) -> None:
    model = read(b"{", event("a"), said, said)

    assert model.judge.verdicts == {verdict: 1, "duplicate": 1}


def test_controls_of_one_operation_do_not_make_each_other_stale() -> None:
    both = {"if_last": 1, "operation": uuid(5)}
    model = read(b"{", b"[", repair(0, event("a"), 8, **both), repair(1, event("a", "shipped"), 9, **both))

    assert model.judge.verdicts == {"accepted": 2}
    assert model.orders[b"a"].status == "shipped"


# What the store alone can say, and what the log cannot any more.


@pytest.mark.parametrize("value", [event("a", "shipped", uuid(1)), b"{"])
def test_a_record_that_was_applied_and_cannot_be_read_any_more_is_told_once(settings: Settings, value: bytes) -> None:
    records: list[Logged] = [*laid(event("a"), value, event("a", "pending"))]
    applied(settings, [records], random.Random(1))  # noqa: S311
    records[1] = UnreadableRecord(HOME, 1, "CorruptRecordError: a checksum")

    findings, _ = audited(settings, records)

    assert shown(findings) == [("record_unreadable", None, f"1-{HOME}-1")]
    assert "no orderflow rebuild" in findings.kept[0].mend


def test_differences_are_all_counted_and_some_are_kept(settings: Settings) -> None:
    records = laid(event("a"), *(event("a", "shipped") for _ in range(5)))
    applied(settings, [records], random.Random(1))  # noqa: S311
    with closing(sqlite3.connect(settings.orders_db)) as connection, connection:
        connection.execute("UPDATE history SET outcome = 'duplicate' WHERE offset > 0")

    findings, _ = audited(settings, records, findings_max=2)

    assert (findings.total, len(findings.kept)) == (5, 2)
    assert findings.counts == {"other_outcome": 5}
