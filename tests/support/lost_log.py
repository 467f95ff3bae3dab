"""Ways to lose a log while the order consumer runs, and whether what came of it is right.

Nothing here knows how a loss is noticed: what is expected follows from the events that were written, in a few lines.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import struct
import subprocess
import sys
import uuid
from contextlib import ExitStack, closing, contextmanager, nullcontext
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Any, Self

import psutil
from kafka import TopicPartition

from orderflow.broker import ensure_topic, partition_of
from orderflow.broker.raw import RawProducer, RawRecord
from orderflow.errors import BrokerError
from orderflow.settings import Settings, inherited
from orderflow.stack import free_ports, project_file
from tests.support import store
from tests.support.broker import _running
from tests.support.messages import admin, changed, created, produce
from tests.support.raw_batches import Segment
from tests.support.topic import TopicReader, TopicRecord
from tests.support.waiting import is_alive, until

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

#: Short waits, so that a test lasts no longer than its fault.
SHORT = {
    "poll_timeout_s": 0.2,
    "log_check_s": 1.0,
    "wait_first_delay_s": 0.05,
    "wait_max_delay_s": 0.2,
    "store_busy_timeout_s": 0.2,
    "log_format": "json",
}

#: From the end of a fault until everything on the log is applied.
RECOVERY_S = 15.0

#: An order, and the status that it gets; None creates it.
Event = tuple[str, str | None]


@dataclass
class Node:
    """A broker that can be stopped, and started again with what is on its disk, which may be other by then."""

    folder: Path
    port: int
    controller_port: int
    pid: int = 0
    _run: ExitStack = field(default_factory=ExitStack)
    _topics: Iterator[int] = field(default_factory=count)

    @classmethod
    @contextmanager
    def started(cls, folder: Path) -> Iterator[Self]:
        node = cls(folder, *free_ports(2))
        node.start()
        try:
            yield node
        finally:
            node.stop(signal.SIGKILL)

    def start(self) -> None:
        environ = Settings(
            var_dir=str(self.folder),
            kafka_port=self.port,
            kafka_controller_port=self.controller_port,
            kafka_bootstrap_servers=f"127.0.0.1:{self.port}",
        ).environ()
        launch = [str(project_file("deploy/kafka/launch"))]
        running = _running(launch, self.port, self.folder / "kafka.log", env=inherited(settings=False) | environ)
        self.pid = self._run.enter_context(running)

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        if is_alive(self.pid):
            os.kill(self.pid, how)
        until(lambda: not is_alive(self.pid), "the broker has ended", within_s=20)
        self._run.close()

    def settings(self, **more: Any) -> Settings:
        """Settings with a topic and a group that nobody else uses."""
        number = next(self._topics)
        own = {
            "kafka_bootstrap_servers": f"127.0.0.1:{self.port}",
            "topic": f"events_{number}",
            "consumer_group": f"group_{number}",
            "var_dir": str(self.folder / str(number)),
        }
        return Settings.from_env(Settings(**SHORT | own | more).environ())

    def cut(self, topic: str, partition: int, keep: int) -> None:
        """Cut a partition's log behind so many records, as a power cut does. The broker is stopped."""
        folder = self._data / f"{topic}-{partition}"
        (segment,) = folder.glob("*.log")
        content, at = segment.read_bytes(), 0
        while at < len(content):
            offset, length = struct.unpack_from(">qi", content, at)
            if offset >= keep:
                break
            at += struct.calcsize(">qi") + length
        assert at < len(content), f"{segment} has no more than {keep} records"
        os.truncate(segment, at)
        for derived in (*folder.glob("*index"), *folder.glob("*.snapshot")):
            derived.unlink()

    def segment(self, topic: str, partition: int) -> Segment:
        """Give a partition's log file, to damage it. The broker is stopped."""
        return Segment(self._data, topic, partition)

    def copy(self) -> Path:
        """Keep a copy of all data, as a backup does. The broker is stopped."""
        copy = self.folder / f"copy-{uuid.uuid4()}"
        shutil.copytree(self._data, copy)
        return copy

    def put_back(self, copy: Path) -> None:
        """Put a copy in place of the data. The broker is stopped."""
        self.remove()
        shutil.move(copy, self._data)

    def remove(self) -> None:
        """Remove all data: the next start makes another cluster. The broker is stopped."""
        shutil.rmtree(self._data)

    @property
    def _data(self) -> Path:
        return self.folder / "kafka" / "data"


@dataclass
class Life:
    """A consumer's life with its topic: what is written, what was on the topic, and what is expected of the store."""

    settings: Settings
    #: What was on the log before it was lost.
    before: list[TopicRecord] = field(default_factory=list)
    _process: subprocess.Popen[bytes] = field(init=False, repr=False)

    @classmethod
    @contextmanager
    def of(cls, settings: Settings) -> Iterator[Self]:
        """Run the order consumer, as Supervisor does, on a topic of its own."""
        ensure_topic(settings, "test")
        settings.var.mkdir(parents=True)
        life = cls(settings)
        life._start()
        try:
            yield life
            assert life._process.poll() is None, "the consumer has ended: it was to notice without a restart"
        finally:
            life._kill()

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Kill the consumer, and start it again at the end of the block."""
        self._kill()
        yield
        self._start()

    def _start(self) -> None:
        with (self.settings.var / "order-consumer.log").open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "order_consumer"],
                cwd=project_file("."),
                env=self.env | {"PYTHONPATH": ".:http:workers"},
                stdout=output,
                stderr=output,
            )

    def _kill(self) -> None:
        self._process.kill()
        self._process.wait(timeout=20)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def directory(self) -> Path:
        """Where commands are run."""
        return self.settings.var

    @property
    def env(self) -> dict[str, str]:
        return inherited(settings=False) | self.settings.environ()

    # Writing.

    def write(self, *events: Event) -> None:
        """Write events with ids of their own, each as a batch."""
        produce(self.settings, [_record(order_id, status) for order_id, status in events])

    def write_many(self, *events: Event) -> None:
        """Write events as fast as it goes, in batches of a hundred."""
        records = [_record(order_id, status) for order_id, status in events]
        raw = [RawRecord(one["value"], one["key"]) for one in records]
        with RawProducer(self.settings) as producer:
            for start in range(0, len(raw), 100):
                producer.send(raw[start : start + 100])

    def remember(self) -> None:
        """Remember what is on the topic: from now on it may be lost."""
        self.before = self._records()

    def _records(self) -> list[TopicRecord]:
        with closing(TopicReader.of(self.settings)) as reader:
            return reader.read_all() if reader.ends() else []

    def wait_until_applied(self, epoch: int = 1) -> None:
        """Wait until the store is at the end of the topic, in an epoch."""
        with closing(TopicReader.of(self.settings)) as reader:
            ends = reader.ends()
        until(lambda: self._applied(ends, epoch), f"epoch {epoch} reaches {ends}", RECOVERY_S, every_s=0.05)

    def _applied(self, ends: dict[int, int], epoch: int) -> bool:
        if not self.settings.orders_db.exists() or not store.query(self.settings, "PRAGMA user_version")[0][0]:
            return False
        reached = store.positions(self.settings)
        return store.epochs(self.settings) == epoch and all(reached.get(at, 0) >= end for at, end in ends.items())

    def applied(self) -> int:
        """How many records came to something."""
        return int(store.query(self.settings, "SELECT count(*) FROM history")[0][0])

    # Losing.

    def make_topic_anew(self) -> None:
        """Delete the topic, and see that there is another of its name: whoever misses it first makes it."""
        old = ensure_topic(self.settings, "test").topic_id
        self.delete_topic()
        until(lambda: self._topic_id() not in (None, old), "the topic is made anew", within_s=15, every_s=0.02)

    def delete_topic(self) -> None:
        with admin(self.settings) as client:
            client.delete_topics([self.settings.topic])

    def _topic_id(self) -> str | None:
        try:
            return ensure_topic(self.settings, "test").topic_id
        except BrokerError:
            return None

    def delete_records(self, order_id: str, before: int) -> None:
        """Delete the first records of an order's partition."""
        partition = TopicPartition(self.settings.topic, partition_of(order_id.encode()))
        with admin(self.settings) as client:
            client.delete_records({partition: before})

    @contextmanager
    def in_state(self, name: str) -> Iterator[None]:
        """Have the consumer ``idle``, ``behind`` or ``stopped`` for the block."""
        with {"idle": nullcontext, "behind": self.held_up, "stopped": self.stopped}[name]():
            yield

    @contextmanager
    def held_up(self) -> Iterator[None]:
        """Keep the consumer from writing, so that it falls behind."""
        with closing(sqlite3.connect(self.settings.orders_db, isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            yield
            connection.execute("ROLLBACK")

    # Looking.

    def check(self, epoch: int) -> None:
        """Assert that all on the topic is applied in this epoch, each record once, and no event twice."""
        self.wait_until_applied(epoch)
        records = self._records()
        assert set(store.history(self.settings)) == {record.place for record in records}
        assert store.query(self.settings, "SELECT * FROM skipped_messages") == []
        twice = "SELECT event_id FROM history WHERE outcome = 'applied' GROUP BY order_id, event_id HAVING count(*) > 1"
        assert store.query(self.settings, twice) == []
        read = [*self._applied_before(), *records] if epoch > 1 else records
        assert dict(store.query(self.settings, "SELECT order_id, status FROM orders")) == _statuses(read)

    def lost(self) -> list[str]:
        """The ids of the events that were applied and are not on the topic any more, in the sequence of places."""
        left = {record.event_id for record in self._records()}
        return [record.event_id for record in self._applied_before() if record.event_id not in left]

    def _applied_before(self) -> list[TopicRecord]:
        """What was applied of the log that was lost: of each partition all up to a place, and nothing behind it."""
        rows = store.query(self.settings, "SELECT partition, offset FROM history WHERE epoch = 1")
        reached = dict(sorted(rows))
        applied = [record for record in self.before if record.offset <= reached.get(record.partition, -1)]
        assert sorted(rows) == sorted(record.place for record in applied)
        return sorted(applied, key=lambda record: record.place)

    def alerts(self, cause: str = "log_replaced") -> list[str]:
        """The details of the alerts of a cause."""
        if not self.settings.outbox_db.exists():
            return []
        with closing(sqlite3.connect(self.settings.outbox_db, timeout=10)) as connection:
            rows = connection.execute("SELECT detail FROM alerts WHERE cause = ?", (cause,)).fetchall()
        return [detail for (detail,) in rows]

    def logged(self, event: str) -> list[dict[str, Any]]:
        """The consumer's log lines of an event."""
        lines = (self.settings.var / "order-consumer.log").read_text(encoding="utf-8").splitlines()
        entries = [json.loads(line) for line in lines if line.startswith("{")]
        return [entry for entry in entries if entry["event"] == event]

    def cpu_s(self) -> float:
        times = psutil.Process(self.pid).cpu_times()
        return float(times.user + times.system)


def beside(order_id: str, number: int) -> list[str]:
    """Ids of other orders on the same partition."""
    names = (f"{order_id}-{n}" for n in count())
    partition = partition_of(order_id.encode())
    same = (name for name in names if partition_of(name.encode()) == partition)
    return [next(same) for _ in range(number)]


def _record(order_id: str, status: str | None) -> dict[str, bytes]:
    event = created(order_id) if status is None else changed(order_id, status)
    return {"key": order_id.encode(), "value": json.dumps(event).encode()}


def _statuses(records: Sequence[TopicRecord]) -> dict[str, str]:
    """What orders come to, each event counted once."""
    seen, statuses = set(), {}
    for record in records:
        if record.event_id not in seen:
            seen.add(record.event_id)
            statuses[record.order_id] = "new" if record.creates else record.event["status"]
    return statuses
