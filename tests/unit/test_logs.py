"""One JSON object a line, kafka-python's through the same door, and its chatter held back."""

from __future__ import annotations

import json
import subprocess
import sys

CODE = """
import logging, structlog
from orderflow import logs
from orderflow.settings import Settings
logs.set_up(Settings(log_format="{format}", log_level="{level}"), "worker")
log = structlog.get_logger()
log.debug("thing.hidden")
logs.begin_trace("t-1")
log.info("thing.done", number=1, raw=b"\\xff", other=object)
try:
    1 / 0
except ZeroDivisionError:
    log.exception("thing.failed")
for number in range(5):
    logging.getLogger("kafka.conn").warning("connection %s failed", number)
logging.getLogger("kafka.conn").info("connecting")
"""


def output(fmt: str = "auto", level: str = "info") -> list[str]:
    code = CODE.format(format=fmt, level=level)
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.splitlines()


def test_without_a_terminal_each_line_is_a_json_object() -> None:
    """With the program, the time in UTC, what is bound, and a trace where there was an exception."""
    done, failed, kafka = [json.loads(line) for line in output()]

    assert (done["event"], done["program"], done["trace_id"], done["number"]) == ("thing.done", "worker", "t-1", 1)
    assert done["at"].endswith("Z")
    assert "ZeroDivisionError" in failed["exception"]
    assert (kafka["event"], kafka["logger"], kafka["level"]) == ("connection 0 failed", "kafka.conn", "warning")


def test_the_level_is_a_setting() -> None:
    """debug shows what info hides."""
    assert json.loads(output(level="debug")[0])["event"] == "thing.hidden"


def test_for_people_it_is_no_json() -> None:
    """The console format."""
    assert "thing.done" in "\n".join(output("console"))
    assert not any(line.startswith("{") for line in output("console"))
