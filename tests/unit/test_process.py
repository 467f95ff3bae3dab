"""What a worker is made of: stop flag, heartbeat, lock, and ending with its parent."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import msgspec
import pytest

from orderflow.measures import Lag
from orderflow.process import Heartbeat, StopFlag, exclusive_lock, read_heartbeat
from orderflow.settings import Settings
from orderflow.status import _worker
from orderflow.supervise import ProgramState
from tests.support.waiting import is_alive, until

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(var_dir=str(tmp_path), heartbeat_interval_s=0.05)


def run(code: str, **environ: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=os.environ | environ)


def run_and_ask(code: str) -> subprocess.Popen[str]:
    """Run code that says when it is up, and ask it to stop then."""
    process = run(code)
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    process.send_signal(signal.SIGTERM)
    return process


def test_a_heartbeat_says_what_is_waited_for(settings: Settings) -> None:
    """Written whole, at once when the state changes, and at most once an interval otherwise."""
    heartbeat = Heartbeat(settings, "worker")
    heartbeat.beat("waiting", "Kafka")
    first = read_heartbeat(settings, "worker")
    heartbeat.counters = {"applied": 3}
    heartbeat.beat("waiting", "Kafka")
    same = read_heartbeat(settings, "worker")
    heartbeat.beat("running")
    changed = read_heartbeat(settings, "worker")

    assert first is not None
    assert (first.state, first.waits_for, first.pid) == ("waiting", "Kafka", os.getpid())
    assert same == first
    assert changed is not None
    assert (changed.state, changed.waits_for, changed.counters) == ("running", None, {"applied": 3})
    assert changed.age_s() < 5
    assert list(settings.run_dir.iterdir()) == [heartbeat.path]


@pytest.mark.parametrize("text", ["", "{", "{}", '{"pid": "x"}'])
def test_a_file_that_is_no_heartbeat_is_none(settings: Settings, text: str) -> None:
    """Half a file or another's is not believed."""
    settings.run_dir.mkdir(parents=True)
    (settings.run_dir / "worker.json").write_text(text)

    assert read_heartbeat(settings, "worker") is None
    assert read_heartbeat(settings, "nobody") is None


def test_a_heartbeat_that_cannot_be_written_does_not_end_the_worker(settings: Settings) -> None:
    """A full disk is told in the log; the work goes on."""
    heartbeat = Heartbeat(settings, "worker")
    heartbeat.path.mkdir()

    heartbeat.beat("running")

    assert read_heartbeat(settings, "worker") is None


def test_a_second_holder_waits_names_the_first_and_takes_over(tmp_path: Path) -> None:
    """The kernel frees the lock when the first dies, by kill -9 too."""
    lock = tmp_path / "x.lock"
    code = (
        "import sys, time; from pathlib import Path; from orderflow.process import *\n"
        f"with exclusive_lock(Path({str(lock)!r}), StopFlag(), print): print('held', flush=True); time.sleep(60)"
    )
    first = run(code)
    assert first.stdout is not None
    assert first.stdout.readline() == "held\n"
    waited_for: list[int | None] = []

    def waiting(holder: int | None) -> None:
        waited_for.append(holder)
        first.kill()
        first.wait()

    with exclusive_lock(lock, StopFlag(), waiting) as held:
        assert held
        assert lock.read_text() == f"{os.getpid()}\n"
    first.stdout.close()
    assert waited_for == [first.pid]


#: A worker that says each time that it has waited for the lock, and does not beat again when it has it.
SECOND = """
import time
from orderflow import process, worker
from orderflow.alerts import Cause
def wait(stop, seconds): print("waited", flush=True); time.sleep(0.02); return False
process.StopFlag.wait = wait
def work(given): given.heartbeat.beat("running"); print("works", flush=True)
worker.run("worker", "the lock", work, incompatible=Cause.STORE_INCOMPATIBLE)
"""


def test_the_counters_never_fall_while_a_second_process_waits(settings: Settings, tmp_path: Path) -> None:
    """Not while the first beats, nor when it does not any more: then the second says what it waits for."""
    first = Heartbeat(settings, "worker")
    first.counters, first.lags = {"applied": 7}, {0: Lag(3, 90.0), 1: Lag(0, None)}
    with exclusive_lock(settings.run_dir / "worker.lock", StopFlag(), print):
        first.beat("running")
        second = run(SECOND, ORDERFLOW_VAR_DIR=str(tmp_path))
        assert second.stdout is not None
        for _ in range(5):
            assert second.stdout.readline() == "waited\n"
            beside = read_heartbeat(settings, "worker")
            assert beside is not None
            assert (beside.pid, beside.state, beside.counters) == (os.getpid(), "running", {"applied": 7})
            first.beat("running")
        first.path.write_bytes(msgspec.json.encode(msgspec.structs.replace(beside, at=beside.at - 60)))
        alone = until(lambda: (beat := read_heartbeat(settings, "worker")) and beat.waits_for and beat, "it says", 10)
    rest, _ = second.communicate(timeout=10)
    working = read_heartbeat(settings, "worker")

    assert (alone.pid, alone.state) == (second.pid, "waiting")
    assert alone.waits_for == f"the lock, held by process {os.getpid()}"
    assert (alone.counters, alone.lags) == ({"applied": 7}, {0: Lag(3, 90.0)}), "nobody knows whether more waits"
    assert working is not None
    assert "works" in rest.splitlines()
    assert (working.state, working.counters) == ("running", {}), "it has done nothing yet"
    assert alone.started_at < working.started_at


def test_who_waits_alone_says_so_at_once(settings: Settings) -> None:
    """As a worker whose lock another program holds."""
    Heartbeat(settings, "worker").stand_by("the lock")

    beat = read_heartbeat(settings, "worker")
    assert beat is not None
    assert (beat.state, beat.waits_for, beat.counters) == ("waiting", "the lock", {})


def test_status_names_the_process_that_works_in_the_stead_of_one_that_waits(settings: Settings, tmp_path: Path) -> None:
    """The heartbeat of one that has gone says nothing."""
    program = ProgramState("worker", "RUNNING", True, os.getppid(), 1, None, tmp_path / "x.log")
    heartbeat = Heartbeat(settings, "worker")
    heartbeat.beat("running")
    beside = _worker(program, settings)
    gone = run("pass")
    gone.communicate(timeout=10)
    heartbeat.path.write_text(heartbeat.path.read_text().replace(f'"pid":{os.getpid()}', f'"pid":{gone.pid}'))

    assert beside == (False, f"waits for process {os.getpid()}, which works in its stead")
    assert _worker(program, settings) == (False, "no heartbeat yet")


def test_a_waiting_holder_can_be_stopped(tmp_path: Path) -> None:
    """Asked to stop while it waits, it gives up without the lock."""
    stop = StopFlag()
    with (
        exclusive_lock(tmp_path / "x.lock", StopFlag(), print),
        exclusive_lock(tmp_path / "x.lock", stop, lambda _: stop.set()) as held,
    ):
        assert not held


def test_the_first_signal_asks_and_the_second_ends() -> None:
    """SIGTERM twice: the flag, then exit 130 at once."""
    process = run_and_ask(
        "import time; from orderflow.process import *\n"
        "stop = StopFlag().install(); print('up', flush=True)\n"
        "while not stop: time.sleep(0.01)\n"
        "print('asked', flush=True); time.sleep(60)"
    )
    assert process.stdout.readline() == "asked\n"
    process.send_signal(signal.SIGTERM)

    assert process.wait(10) == 130
    process.stdout.close()


def test_a_signal_may_come_at_any_moment() -> None:
    """Amid a log line, amid a wait: the handler interrupts whatever runs, and nothing breaks."""
    process = run_and_ask(
        "from orderflow.process import *; from orderflow import logs; from orderflow.settings import Settings\n"
        "import structlog; logs.set_up(Settings(), 'x'); log = structlog.get_logger()\n"
        "stop = StopFlag().install(); print('up', flush=True)\n"
        "log.info('thing.done')\n"  # The signal may come before the loop begins.
        "while not stop: log.info('thing.done'); stop.wait(0.0001)\n"
        "print('ended', flush=True)"
    )
    rest, _ = process.communicate(timeout=10)

    lines = rest.splitlines()
    assert lines.count("ended") == 1
    assert {json.loads(line)["event"] for line in lines if line != "ended"} == {"thing.done"}
    assert process.returncode == 0


def test_a_wait_ends_when_asked_to_stop() -> None:
    """However long it would be."""
    process = run_and_ask(
        "from orderflow.process import *\n"
        "stop = StopFlag().install(); print('up', flush=True); print(stop.wait(3600), flush=True)"
    )

    assert process.communicate(timeout=10) == ("True\n", None)


def test_a_child_dies_with_its_parent() -> None:
    """Killed with -9, the parent takes the child along."""
    process = run(
        "import os, signal, time; from orderflow.process import die_with_parent\n"
        "parent = os.getpid()\n"
        "if os.fork() == 0:\n"
        "    die_with_parent(parent); print(os.getpid(), flush=True); time.sleep(60)\n"
        "else: time.sleep(60)"
    )
    assert process.stdout is not None
    child = int(process.stdout.readline())
    process.kill()
    process.wait()

    until(lambda: not is_alive(child), f"child {child} dies with its parent", within_s=5)
    process.stdout.close()


def test_the_threads_that_answer_are_bound_and_no_other() -> None:
    """Each to the CPU that was named, the first time it answers; there none interrupts another."""
    code = """
import os, threading
from orderflow.wsgi.serve import _on_one_cpu
free = os.sched_getaffinity(0)
app = _on_one_cpu(lambda environ, start: (sorted(os.sched_getaffinity(0)), os.sched_getscheduler(0)), 1)
found = []
def answer(): found.extend([app({}, None), app({}, None)])
thread = threading.Thread(target=answer); thread.start(); thread.join()
assert found == [([sorted(free)[1 % len(free)]], os.SCHED_BATCH)] * 2, found
assert (os.sched_getaffinity(0), os.sched_getscheduler(0)) == (free, os.SCHED_OTHER)
print("right")
"""
    assert run(code).communicate(timeout=20)[0] == "right\n"


def test_where_binding_is_not_permitted_threads_answer_all_the_same() -> None:
    """As in a sandbox."""
    code = """
import os
from orderflow.wsgi.serve import _on_one_cpu
tries = []
def refuse(*_): tries.append(1); raise PermissionError
os.sched_setaffinity = refuse
app = _on_one_cpu(lambda environ, start: [b"answer"], 0)
assert [app({}, None), app({}, None)] == [[b"answer"]] * 2
print(len(tries))
"""
    assert run(code).communicate(timeout=20)[0] == "1\n"
