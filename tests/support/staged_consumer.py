"""The order consumer as it is, but it stands still at a named point when asked to, so that a test can kill it there.

    python staged_consumer.py FOLDER

``FOLDER/stop-at`` names the point: the next time it is reached, the file is removed, ``FOLDER/stopped`` says which
process is there, and the process stops itself with SIGSTOP. What each poll gave the application is in
``FOLDER/polled.jsonl``, written before anything is applied.
"""

from __future__ import annotations

import functools
import json
import os
import signal
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from order_consumer.__main__ import main
from orderflow.broker import subscription
from orderflow.store import writer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FOLDER = Path(sys.argv[1]) if __name__ == "__main__" else Path()

BEFORE_COMMIT = "before commit"
AFTER_COMMIT = "after commit"
IN_ASSIGNMENT = "in assignment"


def reach(point: str) -> None:
    """Stand still here, if the test asked for this point."""
    wanted = FOLDER / "stop-at"
    if not wanted.exists() or wanted.read_text(encoding="utf-8") != point:
        return
    wanted.unlink()
    (FOLDER / "stopped").write_text(str(os.getpid()), encoding="utf-8")
    os.kill(os.getpid(), signal.SIGSTOP)


def journal_polls(poll: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(poll)
    def journaled(self: object) -> Any:
        records = poll(self)
        if records:
            line = json.dumps([os.getpid(), [(record.partition, record.offset) for record in records]]) + "\n"
            journal.write(line.encode())
        return records

    return journaled


def stage_commits(immediate: Callable[..., Any]) -> Callable[..., Any]:
    @contextmanager
    def staged(connection: object) -> Iterator[None]:
        with immediate(connection):
            yield
            reach(BEFORE_COMMIT)
        reach(AFTER_COMMIT)

    return staged


def stage_assignment(assigned: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(assigned)
    def staged(self: object, partitions: Any) -> None:
        assigned(self, partitions)
        reach(IN_ASSIGNMENT)

    return staged


if __name__ == "__main__":
    listener = subscription._SeekToStore
    subscription.Subscription.poll = journal_polls(subscription.Subscription.poll)
    writer.immediate = stage_commits(writer.immediate)
    listener.on_partitions_assigned = stage_assignment(listener.on_partitions_assigned)
    with (FOLDER / "polled.jsonl").open("ab", buffering=0) as journal:
        sys.exit(main())
