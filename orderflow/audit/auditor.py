"""The audit as a whole: what is compared with what, partition by partition, in as many processes as it is worth."""

from __future__ import annotations

import time
from contextlib import closing
from typing import TYPE_CHECKING

from orderflow.audit.copies import (
    ORDERS_VERSIONS,
    OUTBOX_VERSIONS,
    DatabaseError,
    copy,
    make_sure_of_files,
    new_database,
    open_copy,
    workspace,
)
from orderflow.audit.differences import Findings, Kind, difference
from orderflow.audit.ledger import TABLE, Ledger
from orderflow.audit.orders import finish_orders
from orderflow.audit.outbox import OutboxCopy
from orderflow.audit.parts import Comparer, Part, Sources
from orderflow.audit.processes import compare_in_processes, processes_for
from orderflow.audit.rows import EpochRow, OrdersCopy
from orderflow.audit.tally import Tally
from orderflow.broker.log_reader import LogReader, find_topic
from orderflow.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path
    from typing import Protocol

    from orderflow.audit.parts import Compared, Log
    from orderflow.broker import Topic
    from orderflow.settings import Settings

    class Progress(Protocol):
        """Who is told how far the audit is."""

        def expect(self, records: int) -> None:
            """So many records are to be compared."""

        def note(self, records: int) -> None:
            """So many more were."""


CLIENT_ID = "audit"


def audit(settings: Settings, findings: Findings, progress: Progress, ledger_path: Path | None = None) -> Tally:
    """Compare a stack's databases, and what its callers were told, with its topic.

    What is told is read first, the log's ends last: what is in one must then be in those that were read behind it.

    Raises:
        OrderflowError: it cannot be carried out.

    """
    started = time.monotonic()
    make_sure_of_files(settings)
    try:
        with workspace(settings.var) as folder:
            tally = _audit(sources_of(settings, folder, ledger_path), findings, progress)
    except DatabaseError as error:
        raise StoreError(f"a copy in {settings.var} cannot be read: {error}") from error
    tally.seconds = time.monotonic() - started
    return tally


def sources_of(settings: Settings, folder: Path, ledger_path: Path | None = None) -> Sources:
    """Copy what is compared with the log.

    Raises:
        OrderflowError: it cannot be read, or there is no room for it.

    """
    lines = None
    if ledger_path is not None:
        with closing(new_database(folder / Sources.LEDGER, TABLE)) as connection:
            lines = Ledger(connection).fill(ledger_path)
    copy(settings.orders_db, folder, ORDERS_VERSIONS, settings.store_busy_timeout_s)
    has_outbox = settings.outbox_db.exists()
    if has_outbox:
        copy(settings.outbox_db, folder, OUTBOX_VERSIONS, settings.outbox_busy_timeout_s)
    return Sources(settings, folder, has_outbox=has_outbox, ledger_lines=lines)


def _audit(sources: Sources, findings: Findings, progress: Progress) -> Tally:
    topic = find_topic(sources.settings, CLIENT_ID)
    with closing(open_copy(sources.orders)) as connection:
        life = OrdersCopy(connection).epoch()
    if topic is not None and life is None:  # Where nothing was applied, the topic may be any.
        life = EpochRow(1, "", topic.topic_id, 0)
    if topic is not None and life is not None and life.topic_id == topic.topic_id:
        with LogReader(sources.settings, topic, CLIENT_ID) as log:
            return compare(sources, life, log, findings, progress)
    _refuse(life, topic, sources, findings)
    return _counted(sources)


def _refuse(life: EpochRow | None, topic: Topic | None, sources: Sources, findings: Findings) -> None:
    """Tell that the topic is another one, or gone; nothing else can be compared."""
    if life is not None:
        said = f"the topic {life.topic!r} with the id {life.topic_id} (epoch {life.epoch})"
    elif sources.ledger_lines:
        said = "the topic that the ledger tells of"
    else:  # There is neither a topic nor anything that was applied from one.
        return
    found = "no topic" if topic is None else topic.topic_id
    findings.add(difference(Kind.LOG_REPLACED, None, None, said, found))


def _counted(sources: Sources) -> Tally:
    """Count what is counted without a log."""
    tally = Tally()
    if sources.ledger_lines is not None:
        tally.ledger["lines"] = sources.ledger_lines
    if sources.has_outbox:
        with closing(open_copy(sources.outbox)) as outbox:
            tally.outbox.update(OutboxCopy(outbox).counts())
    return tally


def compare(sources: Sources, life: EpochRow, log: Log, findings: Findings, progress: Progress) -> Tally:
    """Compare all partitions, and then what can only be settled behind all of them."""
    tally = _counted(sources)
    with closing(open_copy(sources.orders)) as connection:
        orders, spans = OrdersCopy(connection), log.spans()
        for table, *place in orders.nowhere(life.epoch, len(spans)):
            named = "-".join(map(str, place))
            findings.add(difference(Kind.ROW_WITHOUT_RECORD, None, named, "nothing", f"a row of {table}"))
        parts = [Part.of(orders, life, number, span) for number, span in spans.items()]
        progress.expect(sum(part.records for part in parts))
        left = []
        for one in _compared(sources, life, log, parts, findings.limit, progress.note):
            tally.merge(one.tally)
            findings.merge(one.findings)
            left.append(one.left)
        finish_orders(orders, left, findings)
    return tally


def _compared(
    sources: Sources,
    life: EpochRow,
    log: Log,
    parts: Sequence[Part],
    findings_max: int,
    tell: Callable[[int], None],
) -> list[Compared]:
    processes = processes_for(parts)
    if processes > 1:
        return compare_in_processes(sources, (life, log.topic), (parts, processes), findings_max, tell)
    with closing(Comparer(sources, life, findings_max)) as comparer:
        return [comparer.compare(part, log, tell) for part in parts]
