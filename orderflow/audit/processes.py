"""Partitions in several processes: a history lies on one partition, so none needs to know what another one finds."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
from concurrent.futures import FIRST_EXCEPTION, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import TYPE_CHECKING, Any

from orderflow.audit.parts import Comparer
from orderflow.broker.log_reader import LogReader
from orderflow.errors import OrderflowError
from orderflow.process import die_with_parent

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from multiprocessing.sharedctypes import Synchronized

    from orderflow.audit.parts import Compared, Part, Sources
    from orderflow.audit.rows import EpochRow
    from orderflow.broker import Topic

#: Each holds the state of a partition: more of them would take more memory than the audit may have.
PROCESSES_MAX = 2

#: Below this, starting processes takes longer than they save.
WORTH_IT = 100_000

#: When garbage is looked for. Millions of values live as long as their partition; looking costs a tenth of the time.
SELDOM = (100_000, 50, 50)

#: Pause between two looks at how far they are.
LOOK_S = 0.2

CLIENT_ID = "audit"


def processes_for(parts: Sequence[Part]) -> int:
    """Tell how many processes are worth it; 1: this one alone."""
    if sum(part.records for part in parts) < WORTH_IT:
        return 1
    return min(PROCESSES_MAX, len(os.sched_getaffinity(0)), sum(part.records > 0 for part in parts))


def compare_in_processes(
    sources: Sources,
    log: tuple[EpochRow, Topic],
    work: tuple[Sequence[Part], int],
    findings_max: int,
    tell: Callable[[int], None],
) -> list[Compared]:
    """Compare all parts in so many processes; give what each came to, in their sequence.

    Raises:
        OrderflowError: it cannot be carried out.

    """
    (parts, processes), spawn = work, multiprocessing.get_context("spawn")  # A fork would share locks of threads.
    done, stop = spawn.Value("q", 0), spawn.Event()
    arguments = (os.getpid(), (sources, log, findings_max), done, stop)
    with ProcessPoolExecutor(processes, spawn, initializer=_begin, initargs=arguments) as pool:
        try:
            largest_first = sorted(parts, key=lambda part: -part.records)
            futures = {part.number: pool.submit(_compare, part) for part in largest_first}
            told, left = 0, set(futures.values())
            while left:
                finished, left = wait(left, LOOK_S, FIRST_EXCEPTION)
                now = done.value
                tell(now - told)
                told = now
                for one in finished:
                    one.result()  # An error is told before the others are done.
            return [futures[part.number].result() for part in parts]
        except BrokenProcessPool as error:
            raise OrderflowError("a process of the audit was killed; is there memory enough? Run it again") from error
        finally:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)


class _Stopped(Exception):
    """The audit was ended, so nobody wants to know."""


class _Worker:
    """What a process of the pool works with."""

    def __init__(self, sources: Sources, log: tuple[EpochRow, Topic], findings_max: int) -> None:
        life, topic = log
        self._comparer = Comparer(sources, life, findings_max)
        self._reader = LogReader(sources.settings, topic, CLIENT_ID)

    def compare(self, part: Part) -> Compared:
        return self._comparer.compare(part, self._reader, _tell)


#: What this process was begun with, and its worker from the first part on: an error is then that part's.
_given: dict[str, Any] = {}


def _begin(parent: int, work: tuple[Sources, tuple[EpochRow, Topic], int], done: Synchronized[int], stop: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the command, which tells the others.
    die_with_parent(parent)
    gc.set_threshold(*SELDOM)
    _given.update(work=work, done=done, stop=stop)


def _compare(part: Part) -> Compared:
    if "worker" not in _given:
        _given["worker"] = _Worker(*_given["work"])
    compared: Compared = _given["worker"].compare(part)
    return compared


def _tell(records: int) -> None:
    if _given["stop"].is_set():
        raise _Stopped
    done = _given["done"]
    with done.get_lock():
        done.value += records
