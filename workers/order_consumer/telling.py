"""The log lines of what came of a record: an event, a skip, a control."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from orderflow.controls import Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orderflow.store.rows import ControlRow, HistoryRow, SkippedRow

log = structlog.get_logger("order-consumer")


def tell_event(topic: str, entry: HistoryRow) -> None:
    """Say that an event was applied, or is a copy."""
    if entry.outcome == "skipped":
        return
    log.info(
        "order.event_applied" if entry.outcome == "applied" else "order.event_duplicate",
        type=entry.type, topic=topic, partition=entry.partition, offset=entry.offset,
        order_id=entry.order_id, event_id=entry.event_id, trace_id=entry.trace_id,
    )  # fmt: skip


def tell_skipped(topic: str, row: SkippedRow) -> None:
    """Say that a record is skipped, and why."""
    log.warning(
        "message.skipped", reason=row.reason, detail=row.detail, topic=topic, partition=row.partition,
        offset=row.offset, order_id=row.order_id, event_id=row.event_id, trace_id=row.trace_id,
    )  # fmt: skip


def tell_control(topic: str, control: ControlRow, restated: Sequence[SkippedRow]) -> None:
    """Say what came of a control, and of each skip that it changed."""
    said = {
        "type": control.type, "verdict": control.verdict, "topic": topic, "partition": control.partition,
        "offset": control.offset, "named_offset": control.named_offset, "order_id": control.order_id,
        "event_id": control.event_id, "author": control.author, "trace_id": control.trace_id,
    }  # fmt: skip
    if control.verdict in (Verdict.ACCEPTED, Verdict.DUPLICATE):
        log.info("control.applied" if control.verdict == Verdict.ACCEPTED else "control.duplicate", **said)
    else:
        log.warning("control.refused", detail=control.detail, **said)
    for row in restated:
        if row.state == "open" and row.opened_by == control.offset:
            tell_skipped(topic, row)
        else:
            log.info(
                "skip.changed", state=row.state, reason=row.reason, topic=topic, partition=row.partition,
                offset=row.offset, order_id=row.order_id, event_id=row.event_id, repairs=row.repairs,
                control_offset=control.offset,
            )  # fmt: skip
