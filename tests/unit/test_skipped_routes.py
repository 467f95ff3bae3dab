"""``/skipped-messages`` of order_service: lists by filter and page, one with its payload, redrive and discard."""

from __future__ import annotations

import base64
import io
import json
import re
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest

from order_service.app import make_app
from orderflow.headers import to_bytes
from orderflow.settings import Settings
from orderflow.store.outbox_desk import OutboxDesk
from tests.unit.test_projection import changed, created, uuid
from tests.unit.test_service import TRACEPARENT, Answer

if TYPE_CHECKING:
    from pathlib import Path

    from orderflow.wsgi.service import Service
    from tests.support.applied_log import AppliedLog

TOKEN = "s3cret"  # noqa: S105 (a test's)

#: An order's id may be any text.
STRANGE = "ord & ü>; \\ %2F?"

KIM = {"author": "kim", "reason": "a test of the shop"}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(var_dir=str(tmp_path / "var"), outbox_busy_timeout_s=0.05)


@pytest.fixture
def service(settings: Settings) -> Service:
    return make_app(settings)


def get(service: Service, path: str = "", **query: object) -> Answer:
    text = "&".join(f"{name}={quote(str(value), safe='')}" for name, value in query.items())
    return Answer(service, f"/skipped-messages{path}", QUERY_STRING=text)


def post(service: Service, name: str, verb: str, body: object, query: str = "", **environ: Any) -> Answer:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    given = {"CONTENT_TYPE": "application/json", "CONTENT_LENGTH": str(len(raw)), "wsgi.input": io.BytesIO(raw)}
    return Answer(service, f"/skipped-messages/{name}/{verb}", "POST", **(given | {"QUERY_STRING": query} | environ))


def problem(answer: Answer) -> tuple[int, str]:
    assert answer.headers["content-type"] == "application/problem+json"
    return answer.status, answer.json["type"].removeprefix("/problems/")


def asked(settings: Settings) -> list[tuple[str, str | None]]:
    return [(entry.kind, entry.named) for entry in OutboxDesk(settings).entries(("waiting", "held", "delivered"))]


# Lists.


def test_there_are_none_at_first(service: Service, log: AppliedLog) -> None:
    del log
    assert get(service).json == {"counts": {}, "skippedMessages": []}


def test_a_list_is_filtered_and_counts_all_that_is_meant(service: Service, log: AppliedLog) -> None:
    names = [log.lay(b"a", changed("a", number, "shipped")) for number in (1, 2)]
    names.append(log.lay(b"a", b"{"))
    names.append(log.lay_unreadable(0))
    post(service, names[0], "discard", KIM)
    log.relay()

    def listed(**query: object) -> list[str]:
        return [one["id"] for one in get(service, **query).json["skippedMessages"]]

    assert listed() == names[:0:-1]
    assert listed(state="discarded") == names[:1]
    assert listed(state="all", reason="unknown_order") == names[1::-1]
    assert listed(orderId="a", reason="all") == [names[2], names[1]]
    assert listed(orderId="nobody") == listed(orderId="") == []
    assert get(service, limit=1).json["counts"] == {
        "malformed_json": 1, "unknown_order": 1, "unreadable_record": 1,
    }  # fmt: skip


def test_pages_lead_through_an_order_of_any_name(service: Service, log: AppliedLog) -> None:
    """``Link`` keeps the filter; a header cannot be broken by what is asked for."""
    names = [log.lay(STRANGE.encode(), changed(STRANGE, number, "shipped")) for number in range(3)]
    log.lay(b"a", b"{")

    found, query = [], f"state=all&reason=unknown_order&limit=2&orderId={quote(STRANGE, safe='')}"
    while query:
        answer = Answer(service, "/skipped-messages", QUERY_STRING=query)
        found.append([one["id"] for one in answer.json["skippedMessages"]])
        link = re.fullmatch(r'</skipped-messages\?([^<>" ]*)>; rel="next"', answer.headers.get("link", ""))
        assert ("link" in answer.headers) == (link is not None)
        query = link[1] if link else ""

    assert found == [names[:0:-1], names[:1]]
    assert answer.json["skippedMessages"][0]["orderId"] == STRANGE


def test_a_text_that_is_no_orders_id_names_none(service: Service, log: AppliedLog) -> None:
    """It does not mean all orders."""
    log.lay(b"a", b"{")

    for query in ("orderId=%00", "limit=1&orderId=a%0d%0aX-Evil:1", "orderId="):
        answer = Answer(service, "/skipped-messages", QUERY_STRING=query)
        assert (answer.status, answer.json["skippedMessages"]) == (200, []), query


@pytest.mark.parametrize(
    "query",
    ["state=lost", "state=", "reason=none", "limit=0", "limit=1001", "limit=%31%30x", "cursor=0", "cursor=-1",
     f"cursor={2**63}", "cursor=x"],
)  # fmt: skip
def test_wrong_parameters_are_refused(service: Service, query: str) -> None:
    answer = Answer(service, "/skipped-messages", QUERY_STRING=query)

    assert problem(answer) == (400, "invalid-parameter")
    assert answer.json["fields"].keys() == {query.partition("=")[0]}


# One.


def test_one_is_shown_with_all_that_came(service: Service, log: AppliedLog) -> None:
    """Bytes that are no text are escaped, and there in base64, which is exact."""
    headers = to_bytes((("traceparent", TRACEPARENT.encode()), ("x", b"\xff"), ("none", None)))
    name = log.lay(b"a", b'{"\xff"', header_bytes=headers)

    shown = get(service, f"/{name}").json["skippedMessage"]

    assert (shown["id"], shown["reason"], shown["orderId"], shown["inPlace"]) == (name, "malformed_json", "a", True)
    assert (shown["payload"], base64.b64decode(shown["payloadBase64"])) == ('{"\\xff"', b'{"\xff"')
    assert (shown["key"], shown["keyBase64"]) == ("a", "YQ==")
    assert shown["headers"][1:] == [
        {"name": "x", "value": "\\xff", "valueBase64": "/w=="},
        {"name": "none", "value": None, "valueBase64": None},
    ]
    assert shown["traceId"] == TRACEPARENT.split("-")[1]
    assert (shown["controls"], shown["underWay"]) == ([], None)


def test_what_is_asked_for_it_is_under_way_until_it_is_read(service: Service, log: AppliedLog) -> None:
    name = log.lay(b"a", created("a", 1)[:30])
    answer = post(service, name, "redrive", KIM | {"event": json.loads(created("a", None))})

    before = get(service, f"/{name}").json["skippedMessage"]
    log.relay()
    after = get(service, f"/{name}").json["skippedMessage"]

    assert (answer.status, answer.json["outcome"]) == (202, "spooled")
    assert (before["state"], before["controls"]) == ("open", [])
    assert (before["underWay"]["eventId"], before["underWay"]["state"]) == (answer.json["eventId"], "waiting")
    assert (after["state"], after["repairs"], after["underWay"]) == ("repaired", 1, None)
    (control,) = after["controls"]
    assert control["eventId"] == answer.json["eventId"]
    assert (control["verdict"], control["author"], control["reason"]) == ("accepted", "kim", KIM["reason"])
    assert control["event"] == json.loads(created("a", None))
    assert control["traceId"] == answer.headers["traceparent"].split("-")[1]


@pytest.mark.parametrize(
    "name", ["1-0-5", "2-0-0", "0-0-0", "1-0", "1-0-0-0", "-1-0-0", "1-0-x", "1-0-\u00b2", "1-0- 0", "9" * 5_000,
             f"1-0-{2**63}", "1-0-00", "..", "ü", "1-0-0\x00"],
)  # fmt: skip
@pytest.mark.parametrize("verb", ["", "redrive", "discard"])
def test_what_was_not_skipped_is_unknown(service: Service, log: AppliedLog, name: str, verb: str) -> None:
    """An id that no place can have, too."""
    log.lay(b"a", b"{")
    wire = name.encode().decode("latin-1")  # as a server hands a path on
    answer = post(service, wire, verb, KIM) if verb else get(service, f"/{wire}")

    assert problem(answer) == (404, "unknown-skip")


# Redrive and discard.


def test_a_simulation_changes_nothing_and_says_what_would_come(
    settings: Settings, service: Service, log: AppliedLog
) -> None:
    create = log.lay(b"a", created("a", 1)[:30])
    update = log.lay(b"a", changed("a", 2, "shipped"))
    wish = KIM | {"event": json.loads(created("a", None))}

    answer = post(service, create, "redrive", wish, "simulate=true")
    discard = post(service, update, "discard", KIM, "simulate=true")

    assert (answer.status, answer.json["outcome"], discard.status) == (200, "simulated", 200)
    change = answer.json["change"]
    assert change["lastOffset"] == get(service, f"/{create}").json["skippedMessage"]["lastOffset"] == 1
    assert (change["before"], change["after"]["status"]) == (None, "shipped")
    assert (change["repaired"], change["heals"], change["remains"]) == ([create], [update], [])
    assert change["verdicts"] == [{"verdict": "accepted", "detail": "It takes effect."}]
    assert discard.json["change"]["discards"] == [update]
    assert asked(settings) == []
    assert get(service).json["counts"] == {"malformed_json": 1, "unknown_order": 1}
    assert post(service, create, "redrive", wish).json["eventId"] == answer.json["eventId"], "it was the same wish"


@pytest.mark.parametrize("simulate", ["", "1", "True", "yes"])
def test_a_simulation_is_never_taken_for_the_thing_itself(
    settings: Settings, service: Service, log: AppliedLog, simulate: str
) -> None:
    name = log.lay(b"a", b"{")

    assert problem(post(service, name, "discard", KIM, f"simulate={simulate}")) == (400, "invalid-parameter")
    assert asked(settings) == []


def test_the_same_request_again_is_the_same_control(settings: Settings, service: Service, log: AppliedLog) -> None:
    """A client that lost the answer asks again. Something else must wait."""
    name = log.lay(None, created("a", 1), partition=2)

    first, again = [post(service, name, "redrive", KIM | {"atEnd": True}) for _ in range(2)]

    assert (first.status, first.json) == (again.status, again.json)
    assert first.json["successor"] not in {None, uuid(1)}
    assert asked(settings) == [("event", name), ("control", name)]
    assert problem(post(service, name, "discard", KIM)) == (409, "under-way")
    log.relay()
    assert problem(post(service, name, "discard", KIM)) == (409, "skip-closed")


def test_each_refusal_has_its_type(settings: Settings, service: Service, log: AppliedLog) -> None:
    name = log.lay(b"a", changed("a", 1, "shipped"))
    stray = log.lay(None, created("a", 1), partition=2)
    damaged = log.lay(b"c", b"{")

    def redriven(which: str, **wish: object) -> tuple[int, str]:
        return problem(post(service, which, "redrive", KIM | wish))

    wrong = post(service, name, "redrive", KIM | {"event": json.loads(created("b", 1))})
    assert problem(wrong) == (409, "wrong-order")
    lost = post(service, name, "redrive", KIM | {"event": {"type": "order.lost"}})
    assert problem(lost) == (400, "invalid-event")
    assert lost.json["fields"].keys() == {"event"}
    assert redriven(damaged) == (409, "no-event")
    assert redriven(name, event=[]) == redriven(name, event=None) == (400, "invalid-event")
    assert redriven(stray) == (409, "no-place")
    pending = {"event": json.loads(changed("a", None, "pending"))}
    assert redriven(name, ifLast=7, **pending) == (409, "order-moved-on")
    assert redriven(name) == redriven(name, atEnd=True) == (409, "no-effect")
    assert asked(settings) == []
    for _ in range(3):
        assert post(service, name, "redrive", KIM | pending).status == 202
        log.relay()
    assert redriven(name, **pending) == (409, "repaired-too-often")
    assert post(service, name, "redrive", KIM | {"force": True}).status == 202
    log.relay()
    log.begin("topic-2")
    assert redriven(name) == problem(post(service, name, "discard", KIM)) == (409, "earlier-log")


@pytest.mark.parametrize(
    ("verb", "body", "fields"),
    [
        ("redrive", {}, {"author"}),
        ("redrive", {"author": " "}, {"author"}),
        ("redrive", {"author": "k" * 201, "reason": "", "ifLast": -1, "atEnd": 1, "force": "yes", "more": 1},
         {"author", "reason", "ifLast", "atEnd", "force", "more"}),
        ("redrive", {"author": "kim", "reason": "r" * 2_001}, {"reason"}),
        ("redrive", {"author": "kim", "if_last": 1}, {"if_last"}),
        ("discard", {"author": "kim"}, {"reason"}),
        ("discard", {"author": "kim\n", "reason": "\x07"}, {"author", "reason"}),
        ("discard", KIM | {"event": {}, "atEnd": True}, {"event", "atEnd"}),
        ("discard", KIM | {"ifLast": 2**63}, {"ifLast"}),
        ("discard", [], set()),
    ],
)  # fmt: skip
def test_a_wrong_body_is_refused_field_by_field(
    settings: Settings, service: Service, log: AppliedLog, verb: str, body: object, fields: set[str]
) -> None:
    answer = post(service, log.lay(b"a", changed("a", 1, "shipped")), verb, body)

    assert problem(answer) == (400, "invalid-body")
    assert set(answer.json.get("fields", ())) == fields
    assert asked(settings) == []


@pytest.mark.parametrize(
    ("raw", "environ", "answered"),
    [
        (b"{", {}, (400, "malformed-json")),
        (b"", {}, (400, "malformed-json")),
        (b"\xff", {}, (400, "malformed-json")),
        (b'{"author": "\\udcff", "reason": "x"}', {}, (400, "malformed-json")),
        (b'{"author": ' + b"[" * 600 + b"]" * 600 + b"}", {}, (400, "malformed-json")),
        (b" " * 65_537, {}, (413, "body-too-large")),
        (b" " * 65_537, {"CONTENT_LENGTH": ""}, (413, "body-too-large")),
        (b"{}", {"CONTENT_LENGTH": "65537"}, (413, "body-too-large")),
        (b"{}", {"CONTENT_TYPE": "text/plain"}, (415, "json-required")),
        (b"{}", {"CONTENT_TYPE": ""}, (415, "json-required")),
        (b"{}", {"HTTP_HOST": "evil.example"}, (403, "foreign-host")),
        (b"{}", {"HTTP_HOST": ""}, (403, "foreign-host")),
        (b"{}", {"REQUEST_METHOD": "GET"}, (405, "method-not-allowed")),
    ],
)
@pytest.mark.parametrize("verb", ["redrive", "discard"])
def test_what_is_no_request_at_all_is_refused(
    service: Service, log: AppliedLog, raw: bytes, environ: dict[str, Any], answered: tuple[int, str], verb: str
) -> None:
    """A form of another site cannot say that it is JSON, and a name of another site is no host of ours."""
    name = log.lay(b"a", b"{")

    assert problem(post(service, name, verb, raw, **environ)) == answered


def test_the_operators_token_is_asked_for_first(settings: Settings, log: AppliedLog) -> None:
    """Reads never ask for it."""
    name = log.lay(b"a", changed("a", 1, "shipped"))
    service = make_app(Settings(var_dir=settings.var_dir, token=TOKEN))

    for which, body in ((name, b"{"), ("1-0-99", KIM)):
        for verb in ("redrive", "discard"):
            answer = post(service, which, verb, body, "simulate=true", HTTP_AUTHORIZATION="Bearer wrong")
            assert problem(answer) == (401, "token-required")
    assert post(service, name, "discard", KIM, HTTP_AUTHORIZATION=f"Bearer {TOKEN}").status == 202
    assert get(service).status == get(service, f"/{name}").status == 200


def test_a_full_outbox_is_a_503_and_nothing_is_asked_for(settings: Settings, log: AppliedLog) -> None:
    """There is room for one of the two that are to be sent together."""
    name = log.lay(None, created("a", 1), partition=2)
    service = make_app(Settings(var_dir=settings.var_dir, outbox_max_events=1))

    answer = post(service, name, "redrive", KIM | {"atEnd": True})

    assert problem(answer) == (503, "outbox-unavailable")
    assert answer.headers["retry-after"] == "1"
    assert asked(settings) == []


def test_a_locked_outbox_is_a_503_and_asking_again_works(settings: Settings, service: Service, log: AppliedLog) -> None:
    name = log.lay_before_a_bug(b"a", created("a", 1))
    assert asked(settings) == []
    with closing(sqlite3.connect(settings.outbox_db, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        locked = post(service, name, "redrive", KIM)
        other.execute("ROLLBACK")

    assert problem(locked) == (503, "outbox-unavailable")
    assert post(service, name, "redrive", KIM).status == 202


def test_without_a_projection_every_route_is_a_503(service: Service) -> None:
    for answer in (get(service), get(service, "/1-0-0"), post(service, "1-0-0", "discard", KIM)):
        assert problem(answer) == (503, "store-unavailable")
