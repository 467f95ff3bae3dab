"""Structured logs: JSON lines under Supervisor, colours on a terminal; kafka-python's and granian's go the same way.

Event names are dotted, in the past tense and stable; docs/logs.md lists them with their keys.
"""

from __future__ import annotations

import io
import logging
import sys
import time
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec
import stamina.instrumentation
import structlog

from orderflow.errors import Undelivered
from orderflow.lines import LineWriter

if TYPE_CHECKING:
    from orderflow.settings import Settings

#: A foreign logger may say the same thing once in this time; kafka-python repeats itself while a broker is away.
REPEAT_S = 30.0

_lines = LineWriter()
_trace_id: ContextVar[str | None] = ContextVar("trace_id", default=None)
_encoder = msgspec.json.Encoder(enc_hook=repr)


def set_up(settings: Settings, program: str) -> None:
    """Make structlog and logging write to stdout, with the program's name in every line."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace")  # No character may cost a line.
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    shared: list[structlog.typing.Processor] = [add_trace, _Complete(program)]
    if settings.log_format == "json" or (settings.log_format == "auto" and not sys.stdout.isatty()):
        render: list[structlog.typing.Processor] = [structlog.processors.format_exc_info, _json_line]
    else:
        render = [structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)]
    structlog.configure(
        processors=[*shared, *render],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=lambda *_: _lines,
        cache_logger_on_first_use=True,
    )
    _bridge_logging(shared, render, level)
    stamina.instrumentation.set_on_retry_hooks([log_retry])


def _bridge_logging(
    shared: list[structlog.typing.Processor], render: list[structlog.typing.Processor], level: int
) -> None:
    handler = _ToLines()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *render],
        )
    )
    handler.addFilter(_NotAgain())
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(max(level, logging.WARNING))


def log_retry(details: stamina.instrumentation.RetryDetails) -> None:
    """Log that a send is tried again, and when. stamina calls it."""
    error = details.caused_by
    if isinstance(error, Undelivered):
        delay_s = round(details.wait_for, 3)
        structlog.get_logger(__name__).warning(
            "publish.retry_scheduled", attempt=details.retry_num, delay_s=delay_s, error=str(error), **error.fields
        )


def add_trace(_: object, __: str, entry: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Add the trace that this thread has begun, where a line names none of its own."""
    trace_id = _trace_id.get()
    if trace_id is not None:
        entry.setdefault("trace_id", trace_id)
    return entry


class _Complete:
    """Adds what every line has. One processor: a line is written for each request, and each step costs."""

    def __init__(self, program: str) -> None:
        self._program = program

    def __call__(self, _: object, level: str, entry: structlog.typing.EventDict) -> structlog.typing.EventDict:
        entry["level"] = level
        entry["at"] = datetime.now(UTC).isoformat(timespec="microseconds")[:-6] + "Z"
        entry["program"] = self._program
        return entry


def _json_line(_: object, __: str, entry: structlog.typing.EventDict) -> str:
    return _encoder.encode(entry).decode()


class _ToLines(logging.Handler):
    """Sends what `logging` is given the way of all lines, at once: it is a warning at least."""

    def emit(self, record: logging.LogRecord) -> None:
        _lines.at_once(self.format(record))


class _NotAgain(logging.Filter):
    """Lets each message template of each logger through once in `REPEAT_S`, with the number of those held back."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: dict[tuple[str, str], list[float]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        key = (record.name, str(record.msg)[:200])
        last = self._seen.get(key)
        if last is not None and time.monotonic() - last[0] < REPEAT_S:
            last[1] += 1
            return False
        if last is not None and last[1]:
            record.msg = f"{record.msg} ({last[1]:.0f} more like this in the last {REPEAT_S:.0f} s)"
        if len(self._seen) > 1_000:  # noqa: PLR2004 (bounds the memory; which number does not matter)
            self._seen.clear()
        self._seen[key] = [time.monotonic(), 0]
        return True


def begin_trace(trace_id: str) -> None:
    """Give every line that this thread logs from now on the trace id, where it has none of its own."""
    _trace_id.set(trace_id)
