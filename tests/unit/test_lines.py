"""Lines are gathered, written in order, and not lost at an end that is not a kill."""

import json
import os
import subprocess
import sys

SET_UP = """
import os, structlog, sys, time
from orderflow import logs
from orderflow.settings import Settings
logs.set_up(Settings(), "worker")
log = structlog.get_logger()
"""


def lines_of(code: str) -> list[str]:
    run = subprocess.run([sys.executable, "-c", SET_UP + code], check=True, capture_output=True, text=True)
    return [json.loads(line)["event"] for line in run.stdout.splitlines()]


def test_a_warning_goes_out_at_once_behind_what_was_gathered() -> None:
    """Before a process is killed, too."""
    assert lines_of("log.info('one'); log.info('two'); log.warning('three'); os._exit(0)") == ["one", "two", "three"]


def test_info_goes_out_soon() -> None:
    """Without anybody asking for it."""
    assert lines_of("log.info('one'); time.sleep(0.5); log.info('two'); time.sleep(0.5); os._exit(0)") == ["one", "two"]


def test_the_end_of_a_process_writes_what_was_gathered() -> None:
    """Of one that Python ends, and of one that multiprocessing has started."""
    code = """
from multiprocessing import get_context
def child():
    log.info("child")
log.info("main")
one = get_context("fork").Process(target=child)
one.start()
one.join()
log.info("end")
"""
    assert sorted(lines_of(code)) == ["child", "end", "main"]


def test_a_reader_that_reads_nothing_stops_the_writer_not_the_memory() -> None:
    """Beyond a bound whoever logs writes, and so waits for the pipe."""
    code = """
import threading
from orderflow import lines
read, write = os.pipe()
keep = os.dup(1)
os.dup2(write, 1)
def much():
    for number in range(100_000):
        log.info("thing.done", number=number)
threading.Thread(target=much, daemon=True).start()
time.sleep(2)
waiting = len(logs._lines._lines)
os.dup2(keep, 1)
os.write(1, (f'{{"event": {waiting <= lines.GATHERED_MAX + 1}}}\\n').lower().encode())
os._exit(0)
"""
    assert lines_of(code) == [True]


def test_what_cannot_be_written_fails_nobody() -> None:
    """A full disk, a closed pipe."""
    code = """
keep = os.dup(1)
os.dup2(os.open("/dev/full", os.O_WRONLY), 1)
log.warning("lost")
log.info("lost")
time.sleep(0.2)
os.dup2(keep, 1)
log.warning("back")
os._exit(0)
"""
    assert lines_of(code)[-1] == "back"


def test_what_other_libraries_log_keeps_its_turn() -> None:
    """kafka-python's warning stands behind what was logged before it."""
    assert lines_of("import logging; log.info('one'); logging.getLogger('kafka').warning('two'); os._exit(0)") == [
        "one", "two",
    ]  # fmt: skip


def test_no_character_costs_a_line() -> None:
    """On a stdout that knows ASCII only."""
    code = SET_UP + "log.info('thing.done', name='Zo\u00eb'); time.sleep(0.3); log.info('end')"
    run = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
    )  # fmt: skip
    assert [json.loads(line)["event"] for line in run.stdout.splitlines()] == [
        "thing.done",
        "end",
    ]


def test_info_waits_for_no_reader() -> None:
    """With the pipe full and the writer stuck in it, whoever logs goes on."""
    code = """
import threading
read, write = os.pipe()
keep = os.dup(1)
os.dup2(write, 1)
log.info("x" * 200_000)
time.sleep(0.3)
def some():
    for number in range(100):
        log.info("thing.done", number=number)
threads = [threading.Thread(target=some, daemon=True) for _ in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join(5)
stuck = any(thread.is_alive() for thread in threads)
os.dup2(keep, 1)
os.write(1, (f'{{"event": {stuck}}}\\n').lower().encode())
os._exit(0)
"""
    assert lines_of(code) == [False]
