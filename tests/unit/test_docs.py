"""The documents are held to the code, in both directions: what one names the other must have.

Finders give what the code has, readers what a document says, and a check compares the two into sentences. Each check is
also shown a document with a planted fault, so that a finder that finds nothing cannot pass for agreement.
"""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING

import msgspec
import pytest

from cart_service.app import Parts, make_service
from order_service.app import make_app as make_order_app
from orderflow.alerts import Cause
from orderflow.audit.differences import Kind
from orderflow.broker import PARTITIONS
from orderflow.broker.topic import CONFIG, dead_letter_config
from orderflow.events import TYPES, SkipReason
from orderflow.settings import Settings, variable
from orderflow.wsgi import problems
from tests.support.documents import DOCS, compared, documents, nodes, planted, read, table

if TYPE_CHECKING:
    from collections.abc import Iterable

    from orderflow.wsgi.service import Service


# Settings.

NUMBERS = (msgspec.inspect.IntType, msgspec.inspect.FloatType)

#: The longest duration that a setting may be.
DAY_S = 86_400


def _ranges() -> dict[str, str]:
    """The ranges of the settings that are numbers, as the document writes them."""
    info = msgspec.inspect.type_info(Settings)
    assert isinstance(info, msgspec.inspect.StructType)
    numbers = {variable(f.name): f.type for f in info.fields if isinstance(f.type, NUMBERS)}
    return {name: _range(kind) for name, kind in numbers.items()}


def _range(kind: msgspec.inspect.IntType | msgspec.inspect.FloatType) -> str:
    if kind.gt is None:
        return f"{kind.ge} to {kind.le}"
    return "duration" if (kind.gt, kind.le) == (0, DAY_S) else f"above {kind.gt} to {kind.le}"


def setting_problems(text: str) -> list[str]:
    defaults = {variable(f.name): f.default for f in msgspec.structs.fields(Settings)}
    ranges = _ranges()
    rows = table(text, "[A-Z_]+")
    problems = compared("the setting", set(defaults), set(rows), "docs/settings.md")
    for name in defaults.keys() & rows.keys():
        shown = "(empty)" if defaults[name] == "" else f"`{defaults[name]}`"
        if rows[name][0] != shown:
            problems.append(f"{name} has the default {shown}, and docs/settings.md says {rows[name][0]}")
        if ranges.get(name, rows[name][1]) != rows[name][1]:
            problems.append(f"{name} has the range {ranges[name]}, and docs/settings.md says {rows[name][1]}")
        if not all(rows[name]) or len(rows[name]) != 3:
            problems.append(f"{name} has no range or no purpose in docs/settings.md")
    return problems


def test_every_setting_is_documented_with_its_default() -> None:
    assert setting_problems(read(DOCS / "settings.md")) == []


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("| `ORDERFLOW_CART_PORT` |", "| `ORDERFLOW_CARTPORT` |", "ORDERFLOW_CART_PORT is in the code and not"),
        ("| `ORDERFLOW_CART_PORT` |", "| `ORDERFLOW_CARTPORT` |", "ORDERFLOW_CARTPORT is in docs/settings.md and not"),
        ("| `5000` | 1 to 65535 |", "| `5000` | 1 to 6553 |", "ORDERFLOW_CART_PORT has the range 1 to 65535"),
        ("| `3.0` | duration |", "| `3.0` | 1 to 2 |", "has the range duration"),
        ("| `5000` |", "| `5005` |", "ORDERFLOW_CART_PORT has the default `5000`"),
        ("| `ORDERFLOW_TOKEN` | (empty) |", "| `ORDERFLOW_TOKEN` | `x` |", "ORDERFLOW_TOKEN has the default (empty)"),
    ],
)
def test_a_drift_of_the_settings_is_found(old: str, new: str, said: str) -> None:
    problems = setting_problems(planted(read(DOCS / "settings.md"), old, new))

    assert any(said in problem for problem in problems)


def unknown_variables(text: str) -> set[str]:
    return set(re.findall(r"\bORDERFLOW_[A-Z_]*[A-Z]\b", text)) - {variable(f) for f in Settings.__struct_fields__}


def test_every_variable_that_a_document_names_exists() -> None:
    named = {path.name: unknown_variables(read(path)) for path in documents()}

    assert {name: unknown for name, unknown in named.items() if unknown} == {}
    assert unknown_variables("set ORDERFLOW_CARTPORT or ORDERFLOW_CART_PORT") == {"ORDERFLOW_CARTPORT"}


# Routes.


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Service]:
    """Both services, without Kafka: the watch is not started, and no client is built before the first send."""
    settings = Settings(var_dir=str(tmp_path_factory.mktemp("var")))
    cart = make_service(settings, Parts.of(settings))
    return {"cart_service": cart, "order_service": make_order_app(settings)}


def registered_routes(services: dict[str, Service]) -> set[str]:
    routes = {name: {f"{r.method} {r.rule}" for r in service.router.routes} for name, service in services.items()}
    shared = routes["cart_service"] & routes["order_service"]
    found = {f"Both services: {route}" for route in shared}
    return found | {f"{name}: {route}" for name, own in routes.items() for route in own - shared}


def documented_routes(text: str) -> set[str]:
    section, found = "", set()
    for line in text.splitlines():
        if heading := re.fullmatch(r"## (.+)", line):
            section = heading[1]
        elif route := re.fullmatch(r"### ([A-Z]+ /\S*)", line):
            found.add(f"{section}: {route[1]}".replace("\\<", "<"))
    return found


def test_every_route_is_documented_below_its_service(services: dict[str, Service]) -> None:
    code = registered_routes(services)

    assert {"cart_service: POST /create-order", "Both services: GET /readyz"} <= code
    assert compared("the route", code, documented_routes(read(DOCS / "http.md")), "docs/http.md") == []


@pytest.mark.parametrize(
    ("old", "new"),
    [("### PUT /update-order", "### POST /update-order"), ("## order_service", "## cart_service, again")],
)
def test_a_drift_of_the_routes_is_found(services: dict[str, Service], old: str, new: str) -> None:
    text = planted(read(DOCS / "http.md"), old, new)

    assert registered_routes(services) != documented_routes(text)


# Problem types.


#: What passes on an error's reason, which is a literal where that is raised.
PASSED_ON = ("InvalidBody", "InvalidMending", "HealingRefused")


def raised_problems(found: Iterable[ast.AST]) -> set[str]:
    """The kinds of every ``Problem(Kind.…)``, and the reasons of errors that handlers turn into one."""
    raised = set()
    for node in found:
        match node:
            case ast.Call(func=ast.Name(id="Problem"), args=[kind, *_]):
                raised |= {name.lower().replace("_", "-") for name in _kinds_in(kind)}
            case ast.Call(func=ast.Name(id=error), args=[ast.Constant(value=str(reason)), *_]) if error in PASSED_ON:
                raised.add(reason)
    return raised


def _kinds_in(expression: ast.AST) -> list[str]:
    return [
        node.attr
        for node in ast.walk(expression)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "Kind"
    ]


def documented_problems(text: str) -> dict[str, list[str]]:
    return {kind.removeprefix("/problems/"): cells for kind, cells in table(text, r"/problems/[a-z-]+").items()}


def problem_problems(text: str) -> list[str]:
    """Each kind has a row, with its status and what the code says that it means."""
    rows = documented_problems(text)
    told = {kind: cells for kind, cells in rows.items() if kind in list(problems.Kind)}
    return compared("the problem", {str(kind) for kind in problems.Kind}, set(rows), "docs/http.md") + [
        f"{kind} is {problems.Kind(kind).status}, {problems.Kind(kind).meaning!r}, and docs/http.md says {cells}"
        for kind, cells in told.items()
        if cells != [str(problems.Kind(kind).status), problems.Kind(kind).meaning]
    ]


def test_every_problem_type_is_documented_with_its_status_and_meaning() -> None:
    assert problem_problems(read(DOCS / "http.md")) == []


def test_every_problem_type_is_raised_and_what_is_raised_is_one() -> None:
    """A reason that the core gives must be one of the kinds, too: else its caller would see a crash."""
    assert compared("the problem", raised_problems(nodes()), {str(kind) for kind in problems.Kind}, "Kind") == []
    planted_faults = ast.parse("raise InvalidBody('no-kind', 'x'); raise Problem(Kind.UNKNOWN_ORDER, 'x')")
    assert raised_problems(ast.walk(planted_faults)) == {"no-kind", "unknown-order"}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("| `/problems/unknown-order` | 404 |", "| `/problems/unknown-order` | 400 |"),
        ("| `/problems/foreign-host` |", "| `/problems/strange-host` |"),
        ("| `/problems/skip-closed` | 409 |", "| `/problems/skip-closed` | 400 |"),
        ("| `/problems/wrong-order` |", "| `/problems/other-order` |"),
        ("| There is no such path. |", "| There is no such route. |"),
    ],
)
def test_a_drift_of_the_problems_is_found(old: str, new: str) -> None:
    assert problem_problems(planted(read(DOCS / "http.md"), old, new))


# Alerts.


def cause_problems(text: str) -> list[str]:
    """Each cause has an entry, which says what its runbook says."""
    parts = re.split(r"^### `([a-z_]+)`$", text.partition("## Alerts")[2].partition("\n## ")[0], flags=re.MULTILINE)
    entries = {name: " ".join(entry.split()) for name, entry in zip(parts[1::2], parts[2::2], strict=True)}
    problems = compared("the cause", {str(cause) for cause in Cause}, set(entries), "docs/operations.md")
    for cause in Cause:
        facts, entry = cause.facts, entries.get(cause, "")
        steps = " ".join(f"{number}. {step}" for number, step in enumerate(facts.steps, start=1))
        said = {
            "severity": f"{facts.severity.capitalize()}, ",
            "title": f"{facts.title} ",
            "steps": f" {steps} {facts.resolved_when or 'Closed by a person.'}",
        }
        problems += [f"docs/operations.md says another {what} of {cause}" for what in said if said[what] not in entry]
    return problems


def test_every_cause_of_an_alert_is_documented_with_its_steps() -> None:
    assert cause_problems(read(DOCS / "operations.md")) == []


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("### `event_held`", "### `event_kept`", "the cause event_held is in the code and not in"),
        ("### `event_held`", "### `event_kept`", "the cause event_kept is in docs/operations.md and not in"),
        ("`orderflow outbox retry ID`", "`orderflow retry ID`", "another steps of event_held"),
        (
            "Critical, a condition that lasts. Kafka does",
            "Warning. Kafka does",
            "another severity of kafka_unreachable",
        ),
        ("Resolved when the topic", "Over when the topic", "another steps of topic_misconfigured"),
    ],
)
def test_a_drift_of_the_causes_is_found(old: str, new: str, said: str) -> None:
    problems = cause_problems(planted(read(DOCS / "operations.md"), old, new))

    assert any(said in problem for problem in problems)


# Differences that the audit finds.


def difference_problems(text: str) -> list[str]:
    """Each kind has a row, which says what the audit says: its meaning, and what mends it."""
    rows = table(text.partition("\n## Audit\n")[2].partition("\n## ")[0], "[a-z_]+")
    facts = {str(kind): [kind.facts.sentence, kind.facts.mend] for kind in Kind}
    told = {name: [cells[0], cells[1].replace("`", "")] for name, cells in rows.items()}
    problems = compared("the difference", set(facts), set(told), "docs/operations.md")
    return problems + [f"{name} is told otherwise" for name in facts.keys() & told.keys() if facts[name] != told[name]]


def test_every_difference_is_documented_with_what_mends_it() -> None:
    assert difference_problems(read(DOCS / "operations.md")) == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("| `told_lost` |", "| `told_gone` |"),
        ("| There is no row of a control. |", "| There is no control. |"),
        ("| There is no row of a control. | `orderflow rebuild` |", "| There is no row of a control. | nothing |"),
    ],
)
def test_a_drift_of_the_differences_is_found(old: str, new: str) -> None:
    assert difference_problems(planted(read(DOCS / "operations.md"), old, new))


# Events.


def skip_reason_problems(text: str) -> list[str]:
    rows = table(text.partition("## What is skipped")[2], "[a-z_]+")
    rows.pop("reason", None)
    problems = compared("the reason", {str(reason) for reason in SkipReason}, set(rows), "docs/events.md")
    return problems + [
        f"{reason} means {reason.sentence!r}, and docs/events.md says {rows[reason][0]!r}"
        for reason in SkipReason
        if reason in rows and rows[reason][0] != reason.sentence
    ]


def test_every_skip_reason_is_documented_with_its_sentence() -> None:
    assert skip_reason_problems(read(DOCS / "events.md")) == []


@pytest.mark.parametrize(
    ("old", "new"), [("| `missing_key` |", "| `no_key` |"), ("| The value is not JSON. |", "| It is odd. |")]
)
def test_a_drift_of_the_skip_reasons_is_found(old: str, new: str) -> None:
    assert skip_reason_problems(planted(read(DOCS / "events.md"), old, new))


def test_the_topic_is_described_as_it_is_made() -> None:
    text = read(DOCS / "events.md")

    assert f"| partitions | {PARTITIONS}, " in text
    missing = [name for name in (*CONFIG, *TYPES.values(), Settings().topic) if f"`{name}`" not in text]
    assert missing == []


def test_the_dead_letter_topic_is_described_as_it_is_made() -> None:
    section = read(DOCS / "events.md").partition("## Dead letters")[2]
    config = dead_letter_config(Settings().dead_letter_retention_days)

    assert f"`{Settings().dead_letter_topic_name}`" in section
    assert f"{PARTITIONS} partitions" in section
    assert f"`max.message.bytes={config['max.message.bytes']}`" in section
    assert f"`cleanup.policy={config['cleanup.policy']}`" in section
    assert "`retention.ms`" in section


# Metrics.


def exported_metrics(services: dict[str, Service]) -> set[str]:
    """The names on /metrics with their types."""
    exported = "\n".join(service.metrics.render().decode() for service in services.values())
    return {" ".join(found) for found in re.findall(r"^# TYPE (\S+) (\S+)$", exported, re.MULTILINE)}


def documented_metrics(text: str) -> set[str]:
    return {f"{name} {cells[0]}" for name, cells in table(text, "(?:orderflow|process)_[a-z_]+").items()}


def test_every_metric_is_documented(services: dict[str, Service]) -> None:
    code = exported_metrics(services)

    assert {"orderflow_http_requests_total counter", "orderflow_lag_seconds gauge"} <= code
    assert compared("the metric", code, documented_metrics(read(DOCS / "metrics.md")), "docs/metrics.md") == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("| `orderflow_events_published_total` |", "| `orderflow_events_total` |"),
        ("| `orderflow_skips_open` | gauge |", "| `orderflow_skips_open` | counter |"),
    ],
)
def test_a_drift_of_the_metrics_is_found(services: dict[str, Service], old: str, new: str) -> None:
    text = planted(read(DOCS / "metrics.md"), old, new)

    assert exported_metrics(services) != documented_metrics(text)


@pytest.mark.parametrize("between", ["\n", "Text.\n", "\n| `x` | gauge |\n"])
def test_a_row_that_is_in_no_table_is_found(between: str) -> None:
    """Behind an empty line, say: it would be shown as text."""
    row = "| `orderflow_reads_waiting` |"

    with pytest.raises(AssertionError, match="orderflow_reads_waiting has no header"):
        documented_metrics(planted(read(DOCS / "metrics.md"), row, between + row))
