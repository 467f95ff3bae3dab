"""Rebuilding a projection from a log that needs no broker."""

from __future__ import annotations

from contextlib import ExitStack, closing, contextmanager
from typing import TYPE_CHECKING, Any, Self
from unittest.mock import patch

import msgspec

from orderflow import controls
from orderflow.broker import partition_of
from orderflow.controls import Discarded, Repaired
from orderflow.projection import Projection, runs
from orderflow.rebuild import rebuild, scratch
from orderflow.settings import Settings
from tests.support import random_log
from tests.unit.test_projection import TOPIC, changed, created, open_writer, uuid

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from orderflow.records import Record
    from orderflow.store.differences import Differences


class Served(random_log.Log):
    """A log, as the `LogReader` that a rebuild opens."""

    def __call__(self, *_: object) -> Self:
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...


@contextmanager
def on_topic(records: list[Any]) -> Iterator[None]:
    """Have the topic hold these records."""
    with ExitStack() as stack:
        for module in (rebuild, scratch):
            stack.enter_context(patch.object(module, "LogReader", Served(records)))
            stack.enter_context(patch.object(module, "topic_of", lambda *_: TOPIC))
        yield


def rebuilt(settings: Settings, records: list[Any]) -> Differences:
    """Rebuild from what the topic holds, and swap."""
    with on_topic(records), rebuild.Rebuild(settings) as work:
        work.fold(lambda *_: None)
        differences = work.differences()
        work.swap()
    return differences


def applied(folder: Path, records: list[Record]) -> Settings:
    """Apply records one by one, in their sequence, as the consumer does that never has more to read."""
    with closing(open_writer(folder)) as writer:
        for record in records:
            (run,) = runs([record])
            writer.write(Projection(writer, TOPIC.topic_id, 1).project(run).batch)
    return Settings(var_dir=str(folder), store_busy_timeout_s=0.1)


def control(number: int, offset: int, if_last: int | None, mended: bytes | None) -> tuple[bytes, bytes]:
    """A repair or a discard of a record of the order ``a``."""
    says: dict[str, Any] = {
        "event_id": uuid(number), "topic_id": TOPIC.topic_id, "partition": partition_of(b"a"), "offset": offset,
        "author": "kim", "if_last": if_last,
    }  # fmt: skip
    made = Discarded(**says) if mended is None else Repaired(**says, event=msgspec.Raw(mended))
    return b"a", controls.encode(made)


def of_a(*values: bytes) -> list[tuple[bytes, bytes | None]]:
    return [(b"a", value) for value in values]


#: Five events of one order.
FIVE = of_a(created("a", 1), *[changed("a", number, "shipped") for number in range(2, 6)])
