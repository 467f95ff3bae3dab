"""`orderflow top`: its rates, and what it draws of a look."""

from __future__ import annotations

import io
from typing import Any

from rich.console import Console

from orderflow.cli.figures import Figures, Lag, Rates, Waiting
from orderflow.cli.top import drawn
from orderflow.status import Row

PROGRAM = Row("cart-service", "RUNNING", 7, 65, ok=False, says="degraded: " + "x" * 100, log="l")


def figures(**more: Any) -> Figures:
    given: dict[str, Any] = {
        "at": 1_795_453_200.0,
        "programs": [PROGRAM],
        "rates": {"published": 12.25, "applied": 11.0},
        "breaker": "open",
        "lag": [Lag(0, 0, None), Lag(1, 7, 90.0)],
        "outbox": Waiting(2, 1, 2**20, 61.0),
        "alerts": [{"id": 4, "severity": "critical", "cause": "kafka_unreachable", "detail": "a\x1b[2Jb\nc"}],
        "problems": {},
    }
    return Figures(**given | more)


def text_of(look: Figures, *, whole: bool = True) -> str:
    console = Console(file=io.StringIO(), width=80)
    with console.capture() as captured:
        console.print(drawn(look, whole=whole))
    return captured.get()


def test_rates_are_differences_per_second() -> None:
    rates = Rates()

    assert rates.note("c", 10.0, {"applied": 100.0}) == {}
    assert rates.note("c", 12.0, {"applied": 150.0, "skipped": 2.0}) == {"applied": 25.0, "skipped": 1.0}
    assert rates.note("c", 12.0, {"applied": 150.0, "skipped": 2.0})["applied"] == 25.0, "the same beat, seen again"


def test_rates_are_those_of_the_last_seconds() -> None:
    rates = Rates()

    for second in range(100):
        rate = rates.note("c", float(second), {"applied": 0.0 if second < 90 else (second - 90) * 10.0})

    assert rate == {"applied": 10.0}


def test_a_program_that_began_again_begins_again() -> None:
    rates = Rates()
    rates.note("c", 1.0, {"applied": 500.0})

    assert rates.note("c", 2.0, {"applied": 3.0}) == {}
    assert rates.note("c", 3.0, {"applied": 7.0}) == {"applied": 4.0}


def test_one_that_does_not_tell_any_more_is_forgotten() -> None:
    rates = Rates()
    rates.note("c", 1.0, {"applied": 1.0})
    rates.forget("c")

    assert rates.note("c", 2.0, {"applied": 9.0}) == {}


def test_a_look_shows_what_is_known_and_names_what_is_not() -> None:
    text = text_of(figures(lag=None, problems={"order-consumer": "it does not beat since 12 s"}))

    assert "cart-service  RUNNING  0:01:05  LOOK" in text
    assert "published 12.2/s" in text
    assert "breaker  open" in text
    assert "lag      not known" in text
    assert "2 wait, 1 held, 1.0 MiB, the oldest for 1 min 1 s" in text
    assert "4 critical kafka_unreachable: a\\x1b[2Jb\\nc" in text
    assert "problem  order-consumer: it does not beat since 12 s" in text


def test_lag_is_shown_where_there_is_any() -> None:
    text = text_of(figures())

    assert "lag      7 records" in text
    assert "partition 1: 7 for 1 min 30 s" in text
    assert "partition 0" not in text


def test_on_a_screen_each_program_has_one_line() -> None:
    assert text_of(figures()).count("xxxx") > 1
    assert len(text_of(figures(), whole=False).splitlines()) < len(text_of(figures()).splitlines())
