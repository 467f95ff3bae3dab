"""``/skipped-messages``: what could not be applied, and the healing of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar
from urllib.parse import quote

import bottle
import msgspec

from orderflow.errors import HealingRefused, InvalidMending, StoreError
from orderflow.events import SkipReason
from orderflow.healing import shown
from orderflow.healing.desk import HealingDesk
from orderflow.healing.wishes import Discard, Redrive
from orderflow.orders import JSON_ENCODER
from orderflow.store.rows import SKIP_STATES, parse_place_id, place_id
from orderflow.store.skips import Wanted
from orderflow.wsgi import parameters
from orderflow.wsgi.guards import BodyReader, decode_body, require_token
from orderflow.wsgi.problems import Problem
from orderflow.wsgi.service import RETRY_AFTER

if TYPE_CHECKING:
    from orderflow.healing.desk import Prepared
    from orderflow.healing.remedy import Remedy
    from orderflow.healing.wishes import Wish
    from orderflow.settings import Settings
    from orderflow.store.reader import Reader
    from orderflow.store.rows import SkippedRow

STATES = (*SKIP_STATES, "all")
REASONS = ("all", *(reason.value for reason in SkipReason))

T = TypeVar("T", Redrive, Discard)

_redrive = msgspec.json.Decoder(Redrive)
_discard = msgspec.json.Decoder(Discard)


class SkippedMessages:
    """The handlers."""

    def __init__(self, settings: Settings, reader: Reader) -> None:
        self._settings = settings
        self._desk = HealingDesk(settings, reader)
        self._bodies = BodyReader(settings.http_body_limit_bytes, max(1, settings.order_threads // 2))

    def list(self) -> bytes:
        """Answer ``GET /skipped-messages[?state=&reason=&orderId=][&limit=&cursor=]``, newest first."""
        state = parameters.choice("state", "open", STATES)
        reason = parameters.choice("reason", "all", REASONS)
        order_id = _order_id()
        limit = parameters.number("limit", 100, 1, 1_000)
        cursor = parameters.number("cursor", 2**63 - 1, 1, 2**63 - 1)
        wanted = Wanted(
            None if state == "all" else state,  # type: ignore[arg-type]
            None if reason == "all" else reason,
            order_id,
        )
        rows = self._desk.skips.newest(wanted, limit, cursor)
        if len(rows) == limit:
            chosen = {"state": state, "reason": reason}
            if order_id is not None:
                chosen["orderId"] = quote(order_id, safe="")
            parameters.point_to_next("/skipped-messages", **chosen, limit=limit, cursor=rows[-1].number)
        return JSON_ENCODER.encode(
            {
                "counts": self._desk.skips.counts(wanted),
                "skippedMessages": [shown.skip_shown(row.skip) for row in rows],
            }
        )

    def show(self) -> bytes:
        """Answer ``GET /skipped-messages/<id>``."""
        skip = self._named()
        entry = self._desk.under_way([skip]).get(place_id(skip.place))
        controls = [shown.control_shown(row) for row in self._desk.skips.controls_of(skip.place)]
        under_way = None if entry is None else shown.under_way_shown(entry)
        last = self._desk.last_offset(skip)
        members = shown.skip_with_payload(skip) | {"lastOffset": last, "controls": controls, "underWay": under_way}
        return JSON_ENCODER.encode({"skippedMessage": members})

    def redrive(self) -> bytes:
        """Answer ``POST /skipped-messages/<id>/redrive[?simulate=true]``."""
        return self._carry_out(self._wish(Redrive, _redrive))

    def discard(self) -> bytes:
        """Answer ``POST /skipped-messages/<id>/discard[?simulate=true]``."""
        return self._carry_out(self._wish(Discard, _discard))

    def _wish(self, kind: type[T], decoder: msgspec.json.Decoder[T]) -> T:
        environ = bottle.request.environ
        require_token(self._settings, environ.get("HTTP_AUTHORIZATION"))
        return decode_body(self._bodies.read(environ), kind, decoder)

    def _carry_out(self, wish: Wish) -> bytes:
        simulate = parameters.choice("simulate", "false", ("true", "false")) == "true"
        skip = self._named()
        made = _only(self._desk.prepare([skip], wish, bottle.request.environ["orderflow.trace"]))
        answer = {"skippedMessage": shown.skip_shown(skip), "eventId": made.control.event_id}
        if made.event is not None:
            answer["successor"] = made.event.event_id
        if simulate:
            (change,) = self._desk.preview([made])
            return JSON_ENCODER.encode(answer | {"outcome": "simulated", "change": shown.change_shown(change)})
        try:
            self._desk.ask([made])
        except HealingRefused as error:
            raise _refused(error) from error
        except StoreError as error:
            detail = f"Nothing was asked for the skipped message, unless the error says otherwise. {error}"
            raise Problem(503, "outbox-unavailable", detail, RETRY_AFTER) from error
        bottle.response.status = 202
        return JSON_ENCODER.encode(answer | {"outcome": "spooled"})

    def _named(self) -> SkippedRow:
        given: str = bottle.request.url_args["id"]
        bottle.request.environ["orderflow.log"] = {"skip": given[:60]}
        place = parse_place_id(given)
        skip = None if place is None else self._desk.skips.at(place)
        if skip is None:
            detail = f"There is no skipped message {given[:60]!r}; GET /skipped-messages lists those there are."
            raise Problem(404, "unknown-skip", detail)
        return skip


def _order_id() -> str | None:
    """Give the order that is asked for; bytes that are no UTF-8 are no order's id."""
    query = bottle.request.query
    return None if "orderId" not in query else query.getunicode("orderId", "")


def _only(prepared: Prepared) -> Remedy:
    for _, error in prepared.left_out:
        if isinstance(error, InvalidMending):
            raise Problem(400, error.reason, error.detail, fields={"event": error.detail})
        assert isinstance(error, HealingRefused)  # noqa: S101 (there is no third)
        raise _refused(error)
    (made,) = prepared.remedies
    return made


def _refused(error: HealingRefused) -> Problem:
    return Problem(409, error.reason, str(error))
