"""A topic whose records the real projection has applied, to be audited: its store may be changed by hand in between."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from typing import TYPE_CHECKING, Any

from orderflow.audit.auditor import audit
from orderflow.audit.differences import Findings
from orderflow.broker import ensure_topic
from orderflow.broker.log_reader import LogReader, Span
from orderflow.broker.raw import RawProducer, RawRecord
from orderflow.projection import Projection
from orderflow.rebuild.reading import read_into
from orderflow.rebuild.rebuild import Rebuild
from orderflow.settings import Settings, inherited
from orderflow.stack import project_file
from orderflow.store.writer import Writer

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from orderflow.audit.tally import Tally
    from tests.support.topic import Place


class Quiet:
    """Hears how far an audit is, and says nothing of it."""

    def expect(self, records: int) -> None:
        """So many records are to be compared."""

    def note(self, records: int) -> None:
        """So many more were."""


class Audited:
    """A topic, and a store of its own."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.topic = ensure_topic(settings, "test-audited")

    def beside(self, folder: Path) -> Audited:
        """Give the same topic with a copy of the store as it is now."""
        (folder / "var").mkdir()
        for path in self.settings.var.glob("o*.db*"):
            shutil.copy(path, folder / "var")
        return Audited(Settings.from_env(self.settings.environ() | {"ORDERFLOW_VAR_DIR": str(folder / "var")}))

    def send(self, records: Iterable[RawRecord]) -> list[Place]:
        with RawProducer(self.settings) as producer:
            return producer.send(records)

    def apply(self) -> None:
        """Apply what has come since the last time, as the order-consumer does."""
        with closing(Writer(self.settings)) as writer, LogReader(self.settings, self.topic, "test-audited") as log:
            epoch, _ = writer.epoch() or (writer.open_epoch(self.topic, "a test"), "")
            positions = writer.positions()
            spans = {
                number: Span(positions[number].next_offset if number in positions else begin, end)
                for number, (begin, end) in log.spans().items()
            }
            read_into(writer, Projection(writer, self.topic.topic_id, epoch), log, spans, lambda _: None)

    def change(self, sql: str, *parameters: object) -> None:
        """Change the store by hand; something must change."""
        with closing(sqlite3.connect(self.settings.orders_db)) as connection, connection:
            assert connection.execute(sql, parameters).rowcount > 0, sql

    def audit(self, ledger: Path | None = None) -> tuple[Findings, Tally]:
        findings = Findings(100)
        tally = audit(self.settings, findings, Quiet(), ledger)
        return findings, tally

    def rebuild(self) -> None:
        """Do what ``orderflow rebuild --yes`` does; then go on applying."""
        with Rebuild(self.settings) as rebuild:
            rebuild.fold(lambda *_: None)
            rebuild.swap()
        self.apply()

    def run(self, *arguments: str, code: int = 0, **settings: str) -> str:
        """Run a command of ``orderflow`` as a process of its own; give what it wrote to stdout, then to stderr."""
        done = subprocess.run(
            [sys.executable, "-m", "orderflow.cli.main", *arguments],
            cwd=self.settings.var,
            env=inherited(settings=False)
            | self.settings.environ()
            | {"PYTHONPATH": project_file("."), "COLUMNS": "200"}
            | settings,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr


def shown(findings: Findings) -> list[tuple[str, str | None, str | None]]:
    """What was found, without words: kind, order, place."""
    return [(str(one.kind), one.order_id, one.place) for one in findings.kept]


def event(order_id: str, status: str | None = None, event_id: str | None = None, /, **more: Any) -> bytes:
    """An update, or a create where there is no status, as the test writes it."""
    said: dict[str, Any] = {"type": "order.status_changed" if status else "order.created", "order_id": order_id}
    said |= {} if event_id is None else {"event_id": event_id}
    if status:
        return json.dumps(said | {"status": status} | more).encode()
    order = {
        "orderId": order_id, "customerId": "c-1", "orderDate": "2026-01-02T03:04:05Z", "currency": "EUR",
        "items": [{"itemId": "tea", "quantity": 2, "price": 4.25}], "totalAmount": 8.5,
    }  # fmt: skip
    return json.dumps(said | {"order": order | more}).encode()


def control(topic_id: str, place: Place, event_id: str, mended: bytes | None = None, **more: Any) -> bytes:
    """A repair with a mended event, or a discard, of the record at a place."""
    said = {
        "type": "message.discarded" if mended is None else "message.repaired", "event_id": event_id,
        "topic_id": topic_id, "partition": place[0], "offset": place[1], "author": "mira", **more,
    }  # fmt: skip
    return json.dumps(said | ({} if mended is None else {"event": json.loads(mended)})).encode()


def killed(_: object) -> None:
    """What becomes of a process that takes more memory than there is."""
    os.kill(os.getpid(), signal.SIGKILL)
