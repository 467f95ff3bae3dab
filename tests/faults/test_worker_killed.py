"""The order consumer killed with -9 again and again, while it is behind: nothing is lost, nothing counts twice."""

from __future__ import annotations

import json
import os
import re
import signal
import statistics
import time
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from tests.support import staged_consumer, store
from tests.support.load import Load
from tests.support.staged_consumer import AFTER_COMMIT, BEFORE_COMMIT, IN_ASSIGNMENT
from tests.support.topic import TopicReader
from tests.support.truth import check_truth
from tests.support.waiting import frozen, is_alive, state_of, until

if TYPE_CHECKING:
    from pathlib import Path

    from orderflow.stack import Stack
    from tests.conftest import Figures, MakeStack

pytestmark = [pytest.mark.faults, pytest.mark.timeout(420)]

PROGRAM = "order-consumer"
ANYWHERE = "anywhere"

#: Where each of the 20 is killed.
POINTS = [ANYWHERE, BEFORE_COMMIT, AFTER_COMMIT, ANYWHERE, IN_ASSIGNMENT] * 4

#: From the kill to the first record that the next process applied.
RECOVERY_S = 3.0


@dataclass
class Killer:
    """Kills the consumer of a stack at named points, and takes down what it saw."""

    stack: Stack
    folder: Path
    reader: TopicReader
    lags: list[int] = field(default_factory=list)
    recovered_s: list[float] = field(default_factory=list)

    def arm(self, point: str) -> None:
        """Have the consumer stand still when it next comes to a point."""
        if point != ANYWHERE:
            (self.folder / "stop-at").write_text(point, encoding="utf-8")

    def kill(self, point: str, next_point: str) -> None:
        """Kill the consumer at a point while it is behind, then wait until a new one applies records."""
        # Killed sooner, Supervisor would take it for a program that does not start, and wait before the next.
        pid = until(self._running, f"{PROGRAM} runs", within_s=20)
        if point == ANYWHERE:
            self._kill_behind(pid)
        else:
            if point != IN_ASSIGNMENT:  # on the way there since its start, else
                self.arm(point)
            until(lambda: self._stands(pid), f"{PROGRAM} comes to the point {point!r}", within_s=20)
            # It stands there while the load goes on, also when it had applied all there was.
            self.lags.append(until(self._lag, "the consumer is behind", within_s=10))
            (self.folder / "stopped").unlink()
            self._kill(pid)
        if next_point == IN_ASSIGNMENT:
            self.arm(next_point)
        else:
            self._wait_for_records()

    def _running(self) -> int | None:
        program = self.stack.supervisor.program(PROGRAM)
        # Supervisor may not have seen yet that the last one was killed.
        return program.pid if program.running and program.pid and is_alive(program.pid) else None

    def _stands(self, pid: int) -> bool:
        stopped = self.folder / "stopped"
        return stopped.exists() and stopped.read_text(encoding="utf-8") == str(pid) and state_of(pid) == "T"

    def _kill_behind(self, pid: int) -> None:
        """Kill it at a moment of no choosing, but one at which there is something left to apply."""
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            with frozen(pid):
                if lag := self._lag():
                    self.lags.append(lag)
                    self._kill(pid)
                    return
        raise AssertionError("the consumer is never behind: the load is too small for this test")

    def _kill(self, pid: int) -> None:
        self._killed_at = time.monotonic()
        os.kill(pid, signal.SIGKILL)
        until(lambda: not is_alive(pid), f"process {pid} is dead", within_s=5)

    def _lag(self) -> int:
        """How many records are on the topic that the projection does not have."""
        applied = store.positions(self.stack.settings)
        return sum(end - applied.get(partition, 0) for partition, end in self.reader.ends().items())

    def _wait_for_records(self) -> None:
        before = self._applied()
        until(lambda: self._applied() > before, "a record is applied after the restart", within_s=30)
        self.recovered_s.append(time.monotonic() - self._killed_at)

    def _applied(self) -> int:
        return sum(store.positions(self.stack.settings).values())


def test_killed_twenty_times_while_behind(make_stack: MakeStack, tmp_path: Path, figures: Figures) -> None:
    # Small batches, so that most kills meet one in hand.
    stack = make_stack(poll_max_records=50)
    _stage(stack, tmp_path)
    stack.up()

    with closing(TopicReader.of(stack.settings)) as reader, Load(stack.settings, writers=16) as load:
        killer = Killer(stack, tmp_path, reader)
        until(lambda: len(load.ledger.published()) > 100, "the load is under way", within_s=20)
        for point, next_point in zip(POINTS, [*POINTS[1:], ANYWHERE], strict=True):
            killer.kill(point, next_point)
        load.stop()
    verdict = check_truth(load.ledger, stack.settings, catch_up_s=30)

    delivered, twice = _deliveries(tmp_path)
    figures(
        "worker killed 20 times",
        **verdict.outcomes,
        lag_at_kill_min=min(killer.lags),
        lag_at_kill_median=statistics.median(killer.lags),
        processes=delivered,
        delivered_twice=twice,
        duplicates_on_topic=verdict.duplicates,
        recovered_s_median=statistics.median(killer.recovered_s),
        recovered_s_max=max(killer.recovered_s),
    )
    assert len(killer.lags) == 20
    assert min(killer.lags) > 0
    assert delivered > 10
    assert twice > 0
    assert max(killer.recovered_s) < RECOVERY_S, killer.recovered_s


def _stage(stack: Stack, folder: Path) -> None:
    """Have Supervisor run the staged consumer in place of the plain one."""
    conf = stack.conf.read_text(encoding="utf-8")
    # -P: the folder of the script, with its plain names, stays off the import path.
    script = f'-P "{staged_consumer.__file__}" "{folder}"'
    staged, replaced = re.subn(r"(?m)^(command=.*) -m order_consumer$", rf"\g<1> {script}", conf)
    assert replaced == 1
    stack.conf.write_text(staged, encoding="utf-8")


def _deliveries(folder: Path) -> tuple[int, int]:
    """How many processes polled records, and how many records were given to more than one of them."""
    lines = [json.loads(line) for line in (folder / "polled.jsonl").read_text(encoding="utf-8").splitlines()]
    given = {(pid, partition, offset) for pid, places in lines for partition, offset in places}
    times = Counter((partition, offset) for _, partition, offset in given)
    return len({pid for pid, _ in lines}), sum(count > 1 for count in times.values())
