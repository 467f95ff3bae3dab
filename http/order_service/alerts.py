"""``/alerts``: what needs a person, and the person who looks after it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import bottle
import msgspec

from orderflow.alerts import Cause
from orderflow.alerts.shown import Acknowledgement, acknowledge, shown
from orderflow.store.alerts import Alerts
from orderflow.wsgi import parameters
from orderflow.wsgi.guards import BodyReader, decode_body, require_token
from orderflow.wsgi.problems import Problem

if TYPE_CHECKING:
    from collections.abc import Mapping

    from orderflow.settings import Settings

#: The longest id that is looked for; a longer number is no row's.
ID_DIGITS = 18

_encoder = msgspec.json.Encoder()
_acknowledgement = msgspec.json.Decoder(Acknowledgement)


class AlertDesk:
    """The handlers."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._alerts = Alerts(settings)
        self._bodies = BodyReader(settings.http_body_limit_bytes, max(1, settings.order_threads // 2))

    def list(self) -> bytes:
        """Answer ``GET /alerts[?state=][&limit=&cursor=]``, newest first."""
        state = parameters.choice("state", "open", ("open", "all"))
        limit = parameters.number("limit", 100, 1, 1_000)
        cursor = parameters.number("cursor", 2**63 - 1, 1, 2**63 - 1)
        rows = self._alerts.rows(open_only=state == "open", limit=limit, before_id=cursor)
        if len(rows) == limit:
            parameters.point_to_next("/alerts", state=state, limit=limit, cursor=rows[-1].id)
        return _encoder.encode({"alerts": [shown(row) for row in rows]})

    def acknowledge(self) -> bytes:
        """Answer ``POST /alerts/<id>/acknowledge``."""
        environ = bottle.request.environ
        require_token(self._settings, environ.get("HTTP_AUTHORIZATION"))
        said = decode_body(self._bodies.read(environ), Acknowledgement, _acknowledgement)
        given: str = bottle.request.url_args["id"]
        environ["orderflow.log"] = {"alert_id": given[:50]}
        known = given.isascii() and given.isdigit() and len(given) <= ID_DIGITS
        row, taken = acknowledge(self._alerts, int(given), said) if known else (None, False)
        if row is None:
            raise Problem(404, "unknown-alert", f"There is no alert {given[:50]!r}; GET /alerts lists those there are.")
        if not taken:
            raise Problem(409, "alert-resolved", f"Alert {row.id} is resolved: {row.resolution}")
        return _encoder.encode({"alert": shown(row)})

    def open_now(self) -> Mapping[tuple[str, ...], float]:
        """Tell for ``/metrics`` which alerts are open, by cause and severity."""
        counts: dict[tuple[str, ...], float] = {(cause.value, cause.facts.severity): 0 for cause in Cause}
        counts.update(self._alerts.open_counts())
        return counts
