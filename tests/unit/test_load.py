"""The load generator: its plan, its ledger, and what the command makes of both."""

from __future__ import annotations

import json
import threading
import time
from typing import TYPE_CHECKING

import msgspec
import pytest
from typer.testing import CliRunner

from orderflow.cli.load import summary
from orderflow.cli.main import app
from orderflow.client import NO_ANSWER, Answer
from orderflow.ledger import Entry, Ledger, read_ledger
from orderflow.load import Pace, Plan, _entry

if TYPE_CHECKING:
    from pathlib import Path

FIELDS = {
    "kind", "order_id", "event_id", "sets", "outcome", "status", "partition", "offset", "sent_at", "answered_at",
    "idempotency_key", "error",
}  # fmt: skip

PUBLISHED = Answer(201, {"eventId": "e-1", "partition": 2, "offset": 7}, outcome="published")


def _one(answer: Answer = PUBLISHED) -> Entry:
    return _entry("create", "load-1", "new", 1_000.0, answer, "1")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({}, "either a number of orders or a duration"),
        ({"orders": 1, "duration_s": 1.0}, "either a number of orders or a duration"),
        ({"orders": 1, "updates": 0.6, "bad": 0.4}, "updates 0.6 and bad 0.4 leave no share for creates"),
    ],
)
def test_a_plan_that_cannot_be_carried_out_is_refused(wrong: dict[str, float], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Plan(**wrong)  # type: ignore[arg-type]  # that is the point


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--updates", "0.5", "--bad", "0.5"), "leave no share for creates"),
        (("--orders", "5", "--duration", "5"), "either a number of orders or a duration"),
        (("--orders", "0"), "--orders"),
        (("--updates", "2"), "--updates"),
    ],
)
def test_wrong_arguments_end_with_2_before_anything_is_sent(arguments: tuple[str, ...], said: str) -> None:
    done = CliRunner().invoke(app, ["load", *arguments], env={"TERM": "dumb", "COLUMNS": "200"})

    assert done.exit_code == 2
    assert said in done.output


def test_a_number_of_orders_counts_creates_only() -> None:
    pace = Pace(Plan(orders=2))

    taken = [pace.take(kind) for kind in ("create", "update", "invalid", "create", "update")]

    assert [name is not None for name in taken] == [True, True, True, True, False]
    assert len(set(taken[:4])) == 4


def test_a_rate_is_kept_and_a_stop_ends_its_wait() -> None:
    pace = Pace(Plan(orders=100, rate=50))
    for _ in range(6):
        pace.take("create")
    assert pace.seconds >= 0.1

    slow = Pace(Plan(orders=100, rate=0.01))
    slow.take("create")
    threading.Timer(0.05, slow.stop).start()
    begin = time.monotonic()
    assert slow.take("create") is None
    assert time.monotonic() - begin < 5


def test_a_duration_ends() -> None:
    pace = Pace(Plan(duration_s=0.05))
    assert pace.take("create")
    time.sleep(0.06)

    assert pace.take("create") is None
    assert pace.done == 1


def test_a_ledger_has_one_line_a_request_which_is_there_at_once(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    with Ledger(path) as ledger:
        ledger.add(_one())
        (line,) = path.read_text(encoding="utf-8").splitlines()
        ledger.add(_one())

    written = json.loads(line)
    assert written.keys() == FIELDS
    assert (written["event_id"], written["partition"], written["offset"]) == ("e-1", 2, 7)
    assert (written["kind"], written["outcome"], written["status"]) == ("create", "published", 201)
    assert (written["order_id"], written["sets"], written["idempotency_key"]) == ("load-1", "new", "1")
    assert len(read_ledger(path)) == 2


def test_the_command_documents_every_field() -> None:
    said = CliRunner().invoke(app, ["load", "--help"], env={"TERM": "dumb", "COLUMNS": "200"}).output

    assert [field for field in msgspec.structs.asdict(_one()) if field not in said] == []


def test_a_ledger_is_added_to_and_a_line_that_was_cut_short_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    for _ in range(2):
        with Ledger(path) as ledger:
            ledger.add(_one())
    with path.open("a", encoding="utf-8") as file:
        file.write('{"kind": "cre')

    assert [entry.kind for entry in read_ledger(path)] == ["create", "create"]


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (PUBLISHED, "published"),
        (Answer(202, {}, outcome="spooled"), "spooled"),
        (Answer(400, {"error": "no"}, outcome="refused"), "invalid"),
        (Answer(503, {"error": "no"}, outcome="refused"), "refused"),
        (Answer(503, {"error": "no"}, outcome="unknown"), "unknown"),
        (Answer(NO_ANSWER, {"error": "no"}, outcome="refused"), "refused"),
        (Answer(NO_ANSWER, {"error": "no"}, outcome="unknown"), "no_answer"),
    ],
)
def test_the_outcome_tells_what_was_said_from_what_nobody_said(answer: Answer, outcome: str) -> None:
    assert _one(answer).outcome == outcome


def test_the_summary_counts_by_kind_and_outcome() -> None:
    with Ledger(None) as ledger:
        for answer in (PUBLISHED, PUBLISHED, Answer(NO_ANSWER, {}, outcome="unknown")):
            ledger.add(_one(answer))

    summed = summary(ledger, 2.0)

    assert summed["counts"] == {"create": {"no_answer": 1, "published": 2}}
    assert (summed["requests"], summed["per_second"]) == (3, 1.5)
    assert len(ledger.latencies_s) == 2


def test_nothing_answered_has_no_percentiles() -> None:
    with Ledger(None) as ledger:
        assert (summary(ledger, 1.0)["p50_ms"], summary(ledger, 1.0)["per_second"]) == (None, 0.0)
