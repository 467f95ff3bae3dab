"""One partition's audit from its sources to what it came to: what a process is given, and what it gives back."""

from __future__ import annotations

from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from orderflow.audit.copies import open_copy
from orderflow.audit.differences import Findings
from orderflow.audit.ledger import Ledger, LedgerWitness
from orderflow.audit.orders import Left, OrdersCheck
from orderflow.audit.outbox import OutboxCopy, OutboxWitness
from orderflow.audit.partition import Partition
from orderflow.audit.positions import check_position, passes_over
from orderflow.audit.rows import EpochRow, OrdersCopy, PositionRow
from orderflow.audit.tally import Tally

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from typing import Protocol

    from orderflow.broker import Topic
    from orderflow.broker.log_reader import Span
    from orderflow.records import Record, UnreadableRecord
    from orderflow.settings import Settings

    class Log(Protocol):
        """A topic's log, as `orderflow.broker.log_reader.LogReader` reads it."""

        topic: Topic

        def spans(self) -> dict[int, Span]:
            """Tell what each partition holds."""

        def read(self, number: int, begin: int, end: int) -> Iterator[Record | UnreadableRecord]:
            """Give what a partition holds from one offset to another."""


class Sources:
    """The copies that are compared with the log, in a folder of the audit's own. ``ledger_lines``: None without one."""

    LEDGER: ClassVar = "ledger.db"

    def __init__(self, settings: Settings, folder: Path, *, has_outbox: bool, ledger_lines: int | None) -> None:
        self.settings = settings
        self.orders = folder / settings.orders_db.name
        self.outbox = folder / settings.outbox_db.name
        self.ledger = folder / self.LEDGER
        self.has_outbox = has_outbox
        self.ledger_lines = ledger_lines


class Part(NamedTuple):
    """A partition: what the log holds of it, what the copy says of it, and up to where the two are compared."""

    number: int
    span: Span
    position: PositionRow | None
    rows_end: int
    end: int

    @classmethod
    def of(cls, orders: OrdersCopy, life: EpochRow, number: int, span: Span) -> Part:
        """Find out up to where a partition was applied."""
        position, rows_end = orders.position(number), orders.end(life.epoch, number)
        applied = max(rows_end, 0 if position is None else position.next_offset)
        return cls(number, span, position, rows_end, max(span.begin, min(applied, span.end)))

    @property
    def records(self) -> int:
        """How many records are compared."""
        return self.end - self.span.begin


class Compared(NamedTuple):
    """What one partition came to."""

    tally: Tally
    findings: Findings
    left: Left


class Comparer:
    """Compares partitions, one at a time, with copies that it opens for itself. Not thread-safe."""

    def __init__(self, sources: Sources, life: EpochRow, findings_max: int) -> None:
        self._life = life
        self._findings_max = findings_max
        with ExitStack() as opened:
            self._orders = OrdersCopy(opened.enter_context(closing(open_copy(sources.orders))))
            outbox = opened.enter_context(closing(open_copy(sources.outbox))) if sources.has_outbox else None
            self._outbox = OutboxCopy(outbox)
            self._ledger = None
            if sources.ledger_lines is not None:
                self._ledger = Ledger(opened.enter_context(closing(open_copy(sources.ledger))))
            self.close = opened.pop_all().close

    def compare(self, part: Part, log: Log, tell: Callable[[int], None]) -> Compared:
        """Compare a partition; ``tell`` is told of so many more records."""
        number, span, position, rows_end, end = part
        tally, findings = Tally(), Findings(self._findings_max)
        orders = OrdersCheck(self._orders, findings)
        partition = Partition(self._orders, self._life, number, findings)
        partition.take_over(span.begin)
        outbox = OutboxWitness(self._outbox, partition, self._life, findings, tally.outbox)
        told = None
        if self._ledger is not None:
            told = LedgerWitness((self._ledger, self._outbox, tally.ledger), partition, self._life, findings)
        partition.run(log.read(number, span.begin, end), [outbox, told] if told else [outbox], tell)
        partition.finish(passed_over=passes_over(partition, position))
        check_position(findings, partition, position, span.end, rows_end)
        orders.check(partition)
        outbox.finish(end, span.end)
        if told is not None:
            for record in log.read(number, end, span.end):
                told.see_behind(record)
                tell(0)
            told.finish()
        tally.add(partition)
        return Compared(tally, findings, orders.left)
