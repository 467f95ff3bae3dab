"""The positions beside what the log holds: where reading goes on, and the last record that was read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orderflow.audit.compare import told
from orderflow.audit.differences import Findings, Kind, difference

if TYPE_CHECKING:
    from orderflow.audit.partition import Last, Partition
    from orderflow.audit.rows import PositionRow


def passes_over(partition: Partition, position: PositionRow | None) -> bool:
    """Tell whether a position stands behind records that it does not know: nothing is written of them."""
    seen_last = -1 if position is None or position.last_offset is None else position.last_offset
    return partition.unseen_from is not None and seen_last < partition.unseen_from


def check_position(
    findings: Findings, partition: Partition, position: PositionRow | None, log_end: int, rows_end: int
) -> None:
    """Compare a position with the records; ``log_end`` is behind the last record, ``rows_end`` behind the last row."""
    next_offset = 0 if position is None else position.next_offset
    place = partition.place_id(next_offset)
    if next_offset > log_end:
        findings.add(
            difference(
                Kind.POSITION_TOO_FAR,
                None,
                place,
                f"next_offset {log_end} at most, where the log ends",
                f"next_offset {next_offset}",
                cause="The log lost its end, or the row of positions was changed by hand.",
                mend="supervisorctl restart order-consumer, which looks at the log; then orderflow republish",
            )
        )
        return
    if passes_over(partition, position):
        said = f"next_offset {partition.unseen_from}"
        found = f"next_offset {next_offset}, and nothing is written of {partition.unseen} records in front of it"
        findings.add(difference(Kind.POSITION_TOO_FAR, None, place, said, found))
        return
    if next_offset < min(rows_end, log_end):
        found = f"next_offset {next_offset}, and rows up to offset {rows_end - 1}"
        findings.add(difference(Kind.POSITION_TOO_LOW, None, place, f"next_offset {rows_end}", found))
        return
    if position is not None and partition.last is not None:
        _check_last(findings, partition, position, partition.last)


def _check_last(findings: Findings, partition: Partition, position: PositionRow, last: Last) -> None:
    known = last.checksum is not None  # Of an unreadable record a position has its next offset alone.
    pairs = [
        ("epoch", partition.epoch, position.epoch),
        ("next_offset", last.offset + 1, position.next_offset),
        ("last_offset", last.offset if known else None, position.last_offset),
        ("last_checksum", last.checksum, position.last_checksum),
        ("last_event_id", last.event_id, position.last_event_id),
    ]
    changed = [(name, a, b) for name, a, b in pairs if a != b]
    if changed:
        place = partition.place_id(position.next_offset)
        findings.add(difference(Kind.POSITION_CHANGED, None, place, *told(changed)))
