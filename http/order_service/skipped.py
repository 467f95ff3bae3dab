"""``/skipped-messages``: what could not be applied, and the healing of it."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, Literal

import bottle
import msgspec
from msgspec import Meta

from order_service.answers import Asked, Simulated, SkippedList, SkippedOne
from orderflow.errors import HealingRefused, InvalidMending, StoreError
from orderflow.events import SkipReason
from orderflow.healing import shown
from orderflow.healing.desk import HealingDesk
from orderflow.healing.wishes import Discard, Redrive
from orderflow.orders import JSON_ENCODER
from orderflow.store.rows import parse_place_id, place_id
from orderflow.store.skips import Wanted
from orderflow.wsgi.parameters import NUMBER_MAX, Before, Limit, point_to_next
from orderflow.wsgi.problems import RETRY_AFTER, Kind, Problem
from orderflow.wsgi.routes import Link, Route

if TYPE_CHECKING:
    from collections.abc import Mapping

    from orderflow.healing.desk import Prepared
    from orderflow.healing.remedy import Remedy
    from orderflow.healing.wishes import Wish
    from orderflow.settings import Settings
    from orderflow.store.reader import Reader
    from orderflow.store.rows import SkippedRow

#: Why a simulation, or what is asked for, may be refused.
OF_A_WISH = (
    Kind.UNKNOWN_SKIP,
    Kind.SKIP_CLOSED,
    Kind.ORDER_MOVED_ON,
    Kind.UNDER_WAY,
    Kind.EARLIER_LOG,
    Kind.OUTBOX_UNAVAILABLE,
    Kind.STORE_UNAVAILABLE,
)
OF_A_REDRIVE = (
    *OF_A_WISH,
    Kind.INVALID_EVENT,
    Kind.NO_EVENT,
    Kind.WRONG_ORDER,
    Kind.NO_PLACE,
    Kind.NO_EFFECT,
    Kind.REPAIRED_TOO_OFTEN,
)

#: One of the reasons, or all of them.
ReasonAsked = StrEnum("ReasonAsked", ["all", *SkipReason])  # type: ignore[misc]  # the words are those of another set

SkipId = Annotated[str, Meta(description="Its place: log epoch, partition and offset.", examples=["1-3-3"])]


class SkippedQuery(msgspec.Struct, frozen=True, rename="camel"):
    """The parameters of ``GET /skipped-messages``."""

    state: Literal["open", "repaired", "healed", "discarded", "all"] = "open"
    reason: ReasonAsked = ReasonAsked("all")
    order_id: Annotated[str, Meta(description="Only those about this order.")] | msgspec.UnsetType = msgspec.UNSET
    limit: Limit = 100
    cursor: Before = NUMBER_MAX


class SkipNamed(msgspec.Struct, frozen=True):
    """The parameter of ``GET /skipped-messages/<id>``."""

    id: SkipId


class WishQuery(msgspec.Struct, frozen=True):
    """The parameters of a redrive or discard."""

    id: SkipId
    simulate: Annotated[Literal["true", "false"], Meta(description="`true`: only say what would come of it.")] = "false"


class SkippedMessages:
    """The handlers."""

    def __init__(self, settings: Settings, reader: Reader) -> None:
        self._desk = HealingDesk(settings, reader)

    def routes(self) -> tuple[Route, ...]:
        """Declare the routes."""
        first, same = "$response.body#/skippedMessages/0/id", "$request.path.id"
        simulated = {"author": "kim", "reason": "a test of the shop"}
        wishes: dict[str, Any] = {"method": "POST", "tag": "skipped messages", "operator": True}
        return (
            Route(
                path="/skipped-messages",
                handler=self.list,
                name="skippedMessages",
                tag="skipped messages",
                summary="What could not be applied, newest first",
                parameters=SkippedQuery,
                answers={200: SkippedList},
                problems=(Kind.STORE_UNAVAILABLE,),
                links=(
                    Link("skippedMessage", {"id": first}),
                    Link("redrive", {"id": first, "simulate": "true"}, simulated),
                    Link("discard", {"id": first, "simulate": "true"}, simulated),
                ),
            ),
            Route(
                path="/skipped-messages/<id>",
                handler=self.show,
                name="skippedMessage",
                tag="skipped messages",
                summary="One of them, with all that is known of it",
                parameters=SkipNamed,
                answers={200: SkippedOne},
                problems=(Kind.UNKNOWN_SKIP, Kind.STORE_UNAVAILABLE),
                links=(
                    Link("redrive", {"id": same, "simulate": "true"}, simulated),
                    Link("discard", {"id": same, "simulate": "true"}, simulated),
                ),
            ),
            Route(
                **wishes,
                path="/skipped-messages/<id>/redrive",
                handler=self.redrive,
                name="redrive",
                summary="Let a skipped message take effect: mended, or as it was",
                parameters=WishQuery,
                body=Redrive,
                answers={200: Simulated, 202: Asked},
                problems=OF_A_REDRIVE,
                links=(Link("skippedMessage", {"id": same}),),
            ),
            Route(
                **wishes,
                path="/skipped-messages/<id>/discard",
                handler=self.discard,
                name="discard",
                summary="Give a skipped message up for good",
                parameters=WishQuery,
                body=Discard,
                answers={200: Simulated, 202: Asked},
                problems=OF_A_WISH,
                links=(Link("skippedMessage", {"id": same}),),
            ),
        )

    def list(self, query: SkippedQuery) -> bytes:
        """Answer ``GET /skipped-messages``, newest first."""
        order_id = None if query.order_id is msgspec.UNSET else query.order_id
        wanted = Wanted(
            None if query.state == "all" else query.state,
            None if query.reason == "all" else str(query.reason),
            order_id,
        )
        rows = self._desk.skips.newest(wanted, query.limit, query.cursor)
        if len(rows) == query.limit:
            chosen = {"state": query.state, "reason": query.reason, "orderId": order_id}
            point_to_next("/skipped-messages", **chosen, limit=query.limit, cursor=rows[-1].number)
        answer: SkippedList = {
            "counts": self._desk.skips.counts(wanted),
            "skippedMessages": [shown.skip_shown(row.skip) for row in rows],
        }
        return JSON_ENCODER.encode(answer)

    def open_now(self) -> Mapping[tuple[str, ...], float]:
        """Tell for ``/metrics`` how many are open, by reason."""
        return {(reason,): count for reason, count in self._desk.skips.open_counts(SkipReason).items()}

    def show(self, named: SkipNamed) -> bytes:
        """Answer ``GET /skipped-messages/<id>``."""
        skip = self._named(named.id)
        entry = self._desk.under_way([skip]).get(place_id(skip.place))
        answer: SkippedOne = {
            "skippedMessage": {
                **shown.skip_with_payload(skip),
                "lastOffset": self._desk.last_offset(skip),
                "controls": [shown.control_shown(row) for row in self._desk.skips.controls_of(skip.place)],
                "underWay": None if entry is None else shown.under_way_shown(entry),
            }
        }
        return JSON_ENCODER.encode(answer)

    def redrive(self, query: WishQuery, wish: Redrive) -> bytes:
        """Answer ``POST /skipped-messages/<id>/redrive``."""
        return self._carry_out(query, wish)

    def discard(self, query: WishQuery, wish: Discard) -> bytes:
        """Answer ``POST /skipped-messages/<id>/discard``."""
        return self._carry_out(query, wish)

    def _carry_out(self, query: WishQuery, wish: Wish) -> bytes:
        skip = self._named(query.id)
        made = _only(self._desk.prepare([skip], wish, bottle.request.environ["orderflow.trace"]))
        asked: Asked = {
            "skippedMessage": shown.skip_shown(skip),
            "eventId": made.control.event_id,
            "outcome": "spooled",
        }
        if made.event is not None:
            asked["successor"] = str(made.event.event_id)
        if query.simulate == "true":
            (change,) = self._desk.preview([made])
            simulated: Simulated = {**asked, "outcome": "simulated", "change": shown.change_shown(change)}
            return JSON_ENCODER.encode(simulated)
        try:
            self._desk.ask([made])
        except HealingRefused as error:
            raise _refused(error) from error
        except StoreError as error:
            detail = f"Nothing was asked for the skipped message, unless the error says otherwise. {error}"
            raise Problem(Kind.OUTBOX_UNAVAILABLE, detail, RETRY_AFTER) from error
        bottle.response.status = 202
        return JSON_ENCODER.encode(asked)

    def _named(self, given: str) -> SkippedRow:
        bottle.request.environ["orderflow.log"] = {"skip": given[:60]}
        place = parse_place_id(given)
        skip = None if place is None else self._desk.skips.at(place)
        if skip is None:
            detail = f"There is no skipped message {given[:60]!r}; GET /skipped-messages lists those there are."
            raise Problem(Kind.UNKNOWN_SKIP, detail)
        return skip


def _only(prepared: Prepared) -> Remedy:
    for _, error in prepared.left_out:
        if isinstance(error, InvalidMending):
            raise Problem(Kind(error.reason), error.detail, fields={"event": error.detail})
        assert isinstance(error, HealingRefused)  # noqa: S101 (there is no third)
        raise _refused(error)
    (made,) = prepared.remedies
    return made


def _refused(error: HealingRefused) -> Problem:
    return Problem(Kind(error.reason), str(error))
