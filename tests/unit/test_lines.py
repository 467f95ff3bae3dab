"""Lines are gathered, written in order, and not lost at an end that is not a kill."""

import json
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
