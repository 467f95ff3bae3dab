"""``/alerts``: what needs a person, and the person who looks after it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import bottle
import msgspec
from msgspec import Meta

from order_service.answers import AlertList, OneAlert
from orderflow.alerts import Cause
from orderflow.alerts.shown import Acknowledgement, acknowledge, shown
from orderflow.store.alerts import Alerts
from orderflow.wsgi.parameters import NUMBER_MAX, Before, Limit, point_to_next
from orderflow.wsgi.problems import Kind, Problem
from orderflow.wsgi.routes import Link, Route

if TYPE_CHECKING:
    from collections.abc import Mapping

    from orderflow.settings import Settings

#: The longest id that is looked for; a longer number is no row's.
ID_DIGITS = 18

#: So long a scrape waits for a locked file: all else that it tells waits with it.
SCRAPE_BUSY_TIMEOUT_S = 0.1

_encoder = msgspec.json.Encoder()


class AlertsQuery(msgspec.Struct, frozen=True):
    """The parameters of ``GET /alerts``."""

    state: Literal["open", "all"] = "open"
    limit: Limit = 100
    cursor: Before = NUMBER_MAX


class AlertNamed(msgspec.Struct, frozen=True):
    """The parameter of ``POST /alerts/<id>/acknowledge``."""

    id: Annotated[str, Meta(description="The alert's `id`.")]


class AlertDesk:
    """The handlers."""

    def __init__(self, settings: Settings) -> None:
        self._alerts = Alerts(settings)
        self._scraped = Alerts(settings, SCRAPE_BUSY_TIMEOUT_S)

    def routes(self) -> tuple[Route, ...]:
        """Declare the routes."""
        return (
            Route(
                path="/alerts",
                handler=self.list,
                name="alerts",
                tag="alerts",
                summary="What needs a person, newest first",
                parameters=AlertsQuery,
                answers={200: AlertList},
                problems=(Kind.STORE_UNAVAILABLE,),
                links=(Link("acknowledgeAlert", {"id": "$response.body#/alerts/0/id"}, {"author": "kim"}),),
            ),
            Route(
                method="POST",
                path="/alerts/<id>/acknowledge",
                handler=self.acknowledge,
                name="acknowledgeAlert",
                tag="alerts",
                summary="Say who looks after an alert",
                description="One of something that happened is closed by it.",
                parameters=AlertNamed,
                body=Acknowledgement,
                answers={200: OneAlert},
                problems=(Kind.UNKNOWN_ALERT, Kind.ALERT_RESOLVED, Kind.STORE_UNAVAILABLE),
                operator=True,
            ),
        )

    def list(self, query: AlertsQuery) -> bytes:
        """Answer ``GET /alerts``, newest first."""
        rows = self._alerts.rows(open_only=query.state == "open", limit=query.limit, before_id=query.cursor)
        if len(rows) == query.limit:
            point_to_next("/alerts", state=query.state, limit=query.limit, cursor=rows[-1].id)
        answer: AlertList = {"alerts": [shown(row) for row in rows]}
        return _encoder.encode(answer)

    def acknowledge(self, named: AlertNamed, said: Acknowledgement) -> bytes:
        """Answer ``POST /alerts/<id>/acknowledge``."""
        given = named.id
        bottle.request.environ["orderflow.log"] = {"alert_id": given[:50]}
        known = given.isascii() and given.isdigit() and len(given) <= ID_DIGITS
        row, taken = acknowledge(self._alerts, int(given), said) if known else (None, False)
        if row is None:
            raise Problem(Kind.UNKNOWN_ALERT, f"There is no alert {given[:50]!r}; GET /alerts lists those there are.")
        if not taken:
            raise Problem(Kind.ALERT_RESOLVED, f"Alert {row.id} is resolved: {row.resolution}")
        answer: OneAlert = {"alert": shown(row)}
        return _encoder.encode(answer)

    def open_now(self) -> Mapping[tuple[str, ...], float]:
        """Tell for ``/metrics`` which alerts are open, by cause and severity."""
        counts: dict[tuple[str, ...], float] = {(cause.value, cause.facts.severity): 0 for cause in Cause}
        counts.update(self._scraped.open_counts())
        return counts
