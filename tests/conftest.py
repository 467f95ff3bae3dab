"""Real stacks and a real broker for tests, and the figures that tests measured, printed at the end.

``stack``       one for the session, all programs up: ordinary tests share it and use order ids of their own
``make_stack``  makes stacks for one test, with settings of their own; the test calls ``up()``; all are taken down
``client``      talks to the shared stack
``broker``      one broker for the session, without Supervisor: tests use topics of their own
``figures``     keeps what a test measured
"""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

import pytest

from orderflow.client import Client
from orderflow.stack import Stack
from orderflow.wsgi.calling import Call
from tests.support.broker import Broker
from tests.support.stacks import running, take_down

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator
    from pathlib import Path

    MakeStack = Callable[..., Stack]
    Figures = Callable[..., None]

FIGURES = "figures"

# What was started in the background may ignore Ctrl-C and a terminal that goes away, and so would all that it starts.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

#: In a test's own process a route that answers what it does not declare fails.
Call.strict = True


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The stack that ordinary tests share; it is never killed, frozen, stopped or poisoned."""
    with running(tmp_path_factory.mktemp("shared")) as stack:
        yield stack


@pytest.fixture
def client(stack: Stack) -> Iterator[Client]:
    """A client of the shared stack."""
    with Client.from_settings(stack.settings) as client:
        yield client


@pytest.fixture
def make_stack(tmp_path: Path) -> Iterator[MakeStack]:
    """Make a stack that only this test uses. It is not up yet: ``make_stack(poll_timeout_s=0.1).up()``."""
    made: list[Stack] = []

    def make(programs: Collection[str] | None = None, **settings: Any) -> Stack:
        made.append(Stack.create(tmp_path / f"stack{len(made)}", programs, **settings))
        return made[-1]

    yield make
    problems = []
    for stack in made:
        try:
            take_down(stack)
        except Exception as error:  # noqa: BLE001 (the other stacks must come down, too)
            problems.append(error)
    if problems:
        raise problems[0]


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """A broker that tests without Supervisor share. A test that freezes it lets it go on."""
    with Broker.start(tmp_path_factory.mktemp("broker")) as broker:
        yield broker


@pytest.fixture
def figures(record_property: Callable[[str, object], None]) -> Figures:
    """Keep what was measured: ``figures("broker killed", refused=3, back_after_s=0.41)``."""

    def keep(what: str, **measured: object) -> None:
        shown = (f"{name}={round(value, 3) if isinstance(value, float) else value}" for name, value in measured.items())
        record_property(FIGURES, f"{what}: {', '.join(shown)}")

    return keep


def pytest_terminal_summary(terminalreporter: Any) -> None:
    reports = [report for reports in terminalreporter.stats.values() for report in reports]
    lines = {
        value: None for report in reports for name, value in getattr(report, "user_properties", ()) if name == FIGURES
    }
    if lines:
        terminalreporter.section("figures")
        for line in lines:
            terminalreporter.write_line(line)
