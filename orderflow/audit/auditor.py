"""The audit as a whole: partition by partition, with one partition's state in memory at a time."""

from __future__ import annotations

import time
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, NamedTuple, Protocol

from orderflow.audit.copies import DatabaseError, copied, make_sure_of_files, scratch
from orderflow.audit.differences import Findings, Kind, difference
from orderflow.audit.ledger import TABLE, Ledger, LedgerWitness
from orderflow.audit.orders import OrdersCheck
from orderflow.audit.outbox import OutboxCopy, OutboxWitness
from orderflow.audit.partition import Partition
from orderflow.audit.positions import check_position, passes_over
from orderflow.audit.rows import EpochRow, OrdersCopy
from orderflow.audit.tally import Tally
from orderflow.broker.log_reader import LogReader, Span, find_topic
from orderflow.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from orderflow.audit.rows import PositionRow
    from orderflow.records import Record, UnreadableRecord
    from orderflow.settings import Settings

CLIENT_ID = "audit"


class Log(Protocol):
    """A topic's log, as `orderflow.broker.log_reader.LogReader` reads it."""

    def spans(self) -> dict[int, Span]:
        """Tell what each partition holds."""

    def read(self, number: int, begin: int, end: int) -> Iterator[Record | UnreadableRecord]:
        """Give what a partition holds from one offset to another."""


class Progress(Protocol):
    """Who is told how far the audit is."""

    def expect(self, records: int) -> None:
        """So many records are to be compared."""

    def note(self, records: int) -> None:
        """So many more were."""


def audit(settings: Settings, findings: Findings, progress: Progress, ledger_path: Path | None = None) -> Tally:
    """Compare a stack's databases, and what its callers were told, with its topic.

    What is told is read first, the log's ends last: what is in one must then be in those that were read behind it.

    Raises:
        OrderflowError: it cannot be carried out.

    """
    started = time.monotonic()
    make_sure_of_files(settings)
    try:
        with ExitStack() as opened:
            tally = _audit(settings, findings, progress, ledger_path, opened)
    except DatabaseError as error:
        raise StoreError(f"a copy in {settings.var} cannot be read: {error}") from error
    tally.seconds = time.monotonic() - started
    return tally


def _audit(
    settings: Settings, findings: Findings, progress: Progress, ledger_path: Path | None, opened: ExitStack
) -> Tally:
    ledger = None
    if ledger_path is not None:
        ledger = Ledger(opened.enter_context(closing(scratch(settings.var, TABLE))))
        ledger.fill(ledger_path)
    orders, outbox = opened.enter_context(copied(settings))
    auditor = Auditor(OrdersCopy(orders), OutboxCopy(outbox), findings, ledger)
    topic = find_topic(settings, CLIENT_ID)
    if topic is not None and auditor.knows(topic.topic_id):
        auditor.compare(opened.enter_context(LogReader(settings, topic, CLIENT_ID)), progress)
    else:
        auditor.refuse("no topic" if topic is None else topic.topic_id)
    return auditor.tally


class Part(NamedTuple):
    """A partition: what the log holds of it, what the copy says of it, and up to where the two are compared."""

    number: int
    span: Span
    position: PositionRow | None
    rows_end: int
    end: int


class Auditor:
    """Compares copies with a log."""

    def __init__(
        self, orders: OrdersCopy, outbox: OutboxCopy, findings: Findings, ledger: Ledger | None = None
    ) -> None:
        self.tally = Tally()
        self._orders = orders
        self._outbox = outbox
        self._findings = findings
        self._ledger = ledger
        self._life = orders.epoch()
        self.tally.outbox.update(outbox.counts())
        if ledger is not None:
            self.tally.ledger["lines"] = ledger.lines

    def knows(self, topic_id: str) -> bool:
        """Tell whether this topic is the one that was applied; where nothing was, it may be any."""
        if self._life is None:
            self._life = EpochRow(1, "", topic_id, 0)
        return self._life.topic_id == topic_id

    def refuse(self, found: str) -> None:
        """Tell that the topic is another one, or gone; nothing else can be compared."""
        life = self._life
        if life is not None:
            said = f"the topic {life.topic!r} with the id {life.topic_id} (epoch {life.epoch})"
        elif self._ledger is not None and self._ledger.lines:
            said = "the topic that the ledger tells of"
        else:  # There is neither a topic nor anything that was applied from one.
            return
        self._findings.add(difference(Kind.LOG_REPLACED, None, None, said, found))

    def compare(self, log: Log, progress: Progress) -> None:
        """Compare all partitions."""
        life = self._life
        if life is None:
            return
        spans, orders = log.spans(), OrdersCheck(self._orders, self._findings)
        for table, *place in self._orders.nowhere(life.epoch, len(spans)):
            named = "-".join(map(str, place))
            self._findings.add(difference(Kind.ROW_WITHOUT_RECORD, None, named, "nothing", f"a row of {table}"))
        parts = [self._part(life, number, span) for number, span in spans.items()]
        progress.expect(sum(part.end - part.span.begin for part in parts))
        for part in parts:
            self._compare_part(life, part, log, orders, progress)
        orders.finish()

    def _part(self, life: EpochRow, number: int, span: Span) -> Part:
        position, rows_end = self._orders.position(number), self._orders.end(life.epoch, number)
        applied = max(rows_end, 0 if position is None else position.next_offset)
        return Part(number, span, position, rows_end, max(span.begin, min(applied, span.end)))

    def _compare_part(self, life: EpochRow, part: Part, log: Log, orders: OrdersCheck, progress: Progress) -> None:
        number, span, position, rows_end, end = part
        partition = Partition(self._orders, life, number, self._findings)
        partition.take_over(span.begin)
        outbox = OutboxWitness(self._outbox, partition, life, self._findings, self.tally.outbox)
        told = None
        if self._ledger is not None:
            told = LedgerWitness((self._ledger, self._outbox, self.tally.ledger), partition, life, self._findings)
        partition.run(log.read(number, span.begin, end), [outbox, told] if told else [outbox], progress.note)
        partition.finish(passed_over=passes_over(partition, position))
        check_position(self._findings, partition, position, span.end, rows_end)
        orders.check(partition)
        outbox.finish(end, span.end)
        if told is not None:
            for record in log.read(number, end, span.end):
                told.see_behind(record)
            told.finish()
        self.tally.add(partition)
