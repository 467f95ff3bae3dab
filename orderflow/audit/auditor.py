"""The audit as a whole: partition by partition, with one partition's state in memory at a time."""

from __future__ import annotations

import time
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, Protocol

from orderflow.audit.copies import copied, scratch
from orderflow.audit.differences import Findings, Kind, difference
from orderflow.audit.ledger import TABLE, Ledger, LedgerWitness
from orderflow.audit.orders import OrdersCheck
from orderflow.audit.outbox import OutboxCopy, OutboxWitness
from orderflow.audit.partition import Partition
from orderflow.audit.positions import check_position, passes_over
from orderflow.audit.rows import EpochRow, OrdersCopy
from orderflow.audit.tally import Tally
from orderflow.broker.log_reader import LogReader, Span, find_topic

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from orderflow.audit.partition import Witness
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
    with ExitStack() as opened:
        ledger = None
        if ledger_path is not None:
            ledger = Ledger(opened.enter_context(closing(scratch(settings.var, TABLE))))
            ledger.fill(ledger_path)
        orders, outbox = opened.enter_context(copied(settings))
        auditor = Auditor(OrdersCopy(orders), OutboxCopy(outbox), findings, ledger)
        topic = find_topic(settings, CLIENT_ID)
        found = "no topic" if topic is None else topic.topic_id
        if topic is not None and auditor.knows(topic.topic_id):
            reader = opened.enter_context(LogReader(settings, topic, CLIENT_ID))
            auditor.compare(reader, progress)
        else:
            auditor.refuse(found)
    auditor.tally.seconds = time.monotonic() - started
    return auditor.tally


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
        if life is None:  # There is neither a topic nor anything that was applied from one.
            return
        said = f"the topic {life.topic!r} with the id {life.topic_id} (epoch {life.epoch})"
        self._findings.add(difference(Kind.LOG_REPLACED, None, None, said, found))

    def compare(self, log: Log, progress: Progress) -> None:
        """Compare all partitions."""
        life = self._life
        if life is None:
            return
        positions, spans = self._orders.positions(), log.spans()
        orders = OrdersCheck(self._orders, self._findings)
        ends = {}
        for number, span in spans.items():
            position = positions.get(number)
            rows_end = self._orders.end(life.epoch, number)
            ends[number] = max(rows_end, 0 if position is None else position.next_offset), rows_end
        progress.expect(sum(max(0, min(ends[number][0], span.end) - span.begin) for number, span in spans.items()))
        for number, span in spans.items():
            wanted, rows_end = ends[number]
            end = max(span.begin, min(wanted, span.end))
            partition = Partition(self._orders, life, number, self._findings)
            partition.take_over(span.begin)
            outbox = OutboxWitness(self._outbox, partition, life, self._findings, self.tally.outbox)
            told = LedgerWitness(self._ledger, partition, life, self._findings) if self._ledger else None
            witnesses: list[Witness] = [outbox, told] if told else [outbox]
            partition.run(log.read(number, span.begin, end), witnesses, progress.note)
            position = positions.get(number)
            partition.finish(passed_over=passes_over(partition, position))
            check_position(self._findings, partition, position, span.end, rows_end)
            orders.check(partition)
            outbox.finish(end)
            if told is not None:
                for record in log.read(number, end, span.end):
                    told.see_behind(record)
                told.finish(self._outbox, self.tally.ledger)
            self.tally.add(partition)
        orders.finish()
