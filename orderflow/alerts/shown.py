"""An alert as people and machines are shown it, and what a person says of one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, TypedDict

import msgspec
from msgspec import Meta

from orderflow.alerts.causes import facts_of
from orderflow.clock import moment
from orderflow.orders import PRINTABLE
from orderflow.shapes import Time

if TYPE_CHECKING:
    from orderflow.store.alerts import AlertRow, Alerts


class Acknowledgement(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who looks after an alert, and what that person has to say."""

    author: Annotated[str, Meta(min_length=1, max_length=128, pattern=PRINTABLE)]
    note: Annotated[str, Meta(min_length=1, max_length=2_000, pattern=PRINTABLE)] | None = None


def acknowledge(alerts: Alerts, alert_id: int, said: Acknowledgement) -> tuple[AlertRow | None, bool]:
    """Give the alert, None when there is none of this id, and whether it was open and so could be acknowledged.

    An alert of something that happened is resolved by it: there is nothing to measure.
    """
    row = alerts.get(alert_id)
    if row is None:
        return None, False
    resolves = facts_of(row.cause).occurrence
    taken = alerts.acknowledge(alert_id, said.author, said.note, resolves=resolves)
    return taken or alerts.get(alert_id), taken is not None


class AlertShown(TypedDict):
    """An alert; what is not there yet is null. A later version may know more causes."""

    id: int
    cause: str
    severity: str
    title: str
    detail: str
    program: str
    affected: int
    openedAt: Time | None
    updatedAt: Time | None
    acknowledgedAt: Time | None
    acknowledgedBy: str | None
    note: str | None
    resolvedAt: Time | None
    resolution: str | None
    durationS: float | None
    runbook: tuple[str, ...]


def shown(row: AlertRow) -> AlertShown:
    """Give an alert with its title and its runbook."""
    facts = facts_of(row.cause)
    return {
        "id": row.id,
        "cause": row.cause,
        "severity": row.severity,
        "title": facts.title,
        "detail": row.detail,
        "program": row.program,
        "affected": row.affected,
        "openedAt": moment(row.opened_at),
        "updatedAt": moment(row.updated_at),
        "acknowledgedAt": moment(row.acknowledged_at),
        "acknowledgedBy": row.acknowledged_by,
        "note": row.note,
        "resolvedAt": moment(row.resolved_at),
        "resolution": row.resolution,
        "durationS": row.duration_s,
        "runbook": facts.runbook(row.id),
    }
