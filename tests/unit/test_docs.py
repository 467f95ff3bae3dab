"""The documents are held to the code, in both directions: what one names the other must have.

Finders give what the code has, readers what a document says, and a check compares the two into sentences. Each check is
also shown a document with a planted fault, so that a finder that finds nothing cannot pass for agreement.
"""

from __future__ import annotations

import ast
import json
import re
import subprocess
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

from cart_service.app import Parts, make_service
from order_service.app import make_app as make_order_app
from orderflow.alerts import Cause
from orderflow.broker import PARTITIONS
from orderflow.broker.topic import CONFIG, dead_letter_config
from orderflow.cli.main import app as cli
from orderflow.events import TYPES, SkipReason
from orderflow.settings import Settings, variable
from orderflow.wsgi.problems import for_status

if TYPE_CHECKING:
    from orderflow.wsgi.service import Service

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
SOURCES = ("orderflow", "http", "workers")
#: Folders below the root that hold no documents of ours.
FOREIGN = {".venv", "var", "build", "dist", "node_modules", "libs"}


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def _documents() -> list[Path]:
    found = [
        path
        for path in ROOT.rglob("*.md")
        if not any(part in FOREIGN or part.startswith(".") for part in path.relative_to(ROOT).parts)
    ]
    return sorted(found)


def _modules() -> list[ast.Module]:
    return [ast.parse(_read(path)) for source in SOURCES for path in sorted((ROOT / source).rglob("*.py"))]


def _nodes() -> list[ast.AST]:
    return [node for module in _modules() for node in ast.walk(module)]


def _table(text: str, first: str) -> dict[str, list[str]]:
    """The rows whose first cell is one code span that matches ``first``: the name, and the other cells."""
    rows = {}
    for line in text.splitlines():
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip().strip("|"))]
        if line.startswith("|") and (match := re.fullmatch(rf"`({first})`", cells[0])):
            assert match[1] not in rows, f"{match[1]} has two rows"
            rows[match[1]] = cells[1:]
    return rows


def _compared(what: str, code: set[str], documented: set[str], where: str) -> list[str]:
    return [f"{what} {name} is in the code and not in {where}" for name in sorted(code - documented)] + [
        f"{what} {name} is in {where} and not in the code" for name in sorted(documented - code)
    ]


def _planted(text: str, old: str, new: str) -> str:
    assert old in text, f"the planted fault needs {old!r} in the document"
    return text.replace(old, new)


# Settings.

NUMBERS = (msgspec.inspect.IntType, msgspec.inspect.FloatType)


def _ranges() -> dict[str, str]:
    """The ranges of the settings that are numbers, as the document writes them."""
    info = msgspec.inspect.type_info(Settings)
    assert isinstance(info, msgspec.inspect.StructType)
    numbers = {variable(f.name): f.type for f in info.fields if isinstance(f.type, NUMBERS)}
    return {name: "duration" if kind.gt == 0 else f"{kind.ge} to {kind.le}" for name, kind in numbers.items()}


def setting_problems(text: str) -> list[str]:
    defaults = {variable(f.name): f.default for f in msgspec.structs.fields(Settings)}
    ranges = _ranges()
    rows = _table(text, "[A-Z_]+")
    problems = _compared("the setting", set(defaults), set(rows), "docs/settings.md")
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
    assert setting_problems(_read(DOCS / "settings.md")) == []


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
    problems = setting_problems(_planted(_read(DOCS / "settings.md"), old, new))

    assert any(said in problem for problem in problems)


def unknown_variables(text: str) -> set[str]:
    return set(re.findall(r"\bORDERFLOW_[A-Z_]*[A-Z]\b", text)) - {variable(f) for f in Settings.__struct_fields__}


def test_every_variable_that_a_document_names_exists() -> None:
    named = {path.name: unknown_variables(_read(path)) for path in _documents()}

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
    assert _compared("the route", code, documented_routes(_read(DOCS / "http.md")), "docs/http.md") == []


@pytest.mark.parametrize(
    ("old", "new"),
    [("### PUT /update-order", "### POST /update-order"), ("## order_service", "## cart_service, again")],
)
def test_a_drift_of_the_routes_is_found(services: dict[str, Service], old: str, new: str) -> None:
    text = _planted(_read(DOCS / "http.md"), old, new)

    assert registered_routes(services) != documented_routes(text)


# Problem types.


def raised_problems() -> set[str]:
    """Every ``Problem(status, kind, …)`` and ``InvalidBody(reason, …)``, and what Bottle's own errors become."""
    found = {
        f"/problems/{for_status(status, '').kind} {status}"
        for status in (400, 404, 405, 413, 500)  # Bottle and our guards decide on these
    }
    for node in _nodes():
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
            continue
        constants = [argument.value for argument in node.args[:2] if isinstance(argument, ast.Constant)]
        match node.func.id, constants:
            case "Problem", [int(status), str(kind)]:
                found.add(f"/problems/{kind} {status}")
            case "InvalidBody", [str(reason), *_]:
                found.add(f"/problems/{reason} 400")
    return found


def documented_problems(text: str) -> set[str]:
    return {f"{kind} {cells[0]}" for kind, cells in _table(text, r"/problems/[a-z-]+").items()}


def test_every_problem_type_is_documented_with_its_status() -> None:
    code = raised_problems()

    assert {"/problems/unknown-order 404", "/problems/invalid-body 400", "/problems/no-such-route 404"} <= code
    assert _compared("the problem", code, documented_problems(_read(DOCS / "http.md")), "docs/http.md") == []


def test_problem_types_are_literal_where_they_are_raised() -> None:
    """Else the finder would miss them: only the three places that pass one on may compute it."""
    computed = [
        ast.unparse(node)[:60]
        for node in _nodes()
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in ("Problem", "InvalidBody")
        and not any(
            isinstance(argument, ast.Constant) and isinstance(argument.value, str) for argument in node.args[:2]
        )
    ]

    assert len(computed) == 2, computed


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("| `/problems/unknown-order` | 404 |", "| `/problems/unknown-order` | 400 |"),
        ("| `/problems/foreign-host` |", "| `/problems/strange-host` |"),
    ],
)
def test_a_drift_of_the_problems_is_found(old: str, new: str) -> None:
    text = _planted(_read(DOCS / "http.md"), old, new)

    assert raised_problems() != documented_problems(text)


# Log events.

LEVELS = {"debug": "debug", "info": "info", "warning": "warning", "error": "error", "exception": "error"}
EVENT_NAME = re.compile(r"[a-z_]+(\.[a-z_]+)+")


@dataclass
class LogEvent:
    """What the code says of one event: its levels, and the keys that its calls name."""

    levels: set[str] = field(default_factory=set)
    keys: set[str] = field(default_factory=set)


def logged_events(nodes: list[ast.AST]) -> dict[str, LogEvent]:
    """Find ``log.<level>("a.b", key=…)``, however the name is chosen, and names that errors bring for their retries."""
    found: dict[str, LogEvent] = defaultdict(LogEvent)
    for node in nodes:
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr in LEVELS
            and node.args
        ):
            for name in _event_names(node.args[0]):
                found[name].levels.add(LEVELS[node.func.attr])
                found[name].keys |= {keyword.arg for keyword in node.keywords if keyword.arg}
                found[name].keys |= {"exception"} if node.func.attr == "exception" else set()
    return dict(found)


def _event_names(node: ast.AST) -> list[str]:
    constants = [n.value for n in ast.walk(node) if isinstance(n, ast.Constant) and isinstance(n.value, str)]
    return [name for name in constants if EVENT_NAME.fullmatch(name)]


def log_problems(text: str) -> list[str]:
    code, rows = logged_events(_nodes()), _table(text, EVENT_NAME.pattern)
    problems = _compared("the event", set(code), set(rows), "docs/logs.md")
    for name in code.keys() & rows.keys():
        level, _, keys, when = rows[name]
        if {level} != code[name].levels:
            problems.append(f"{name} is logged as {code[name].levels}, and docs/logs.md says {level}")
        missing = code[name].keys - set(re.findall(r"`([^`]+)`", keys))
        if missing:
            problems.append(f"{name} has the keys {sorted(missing)}, and docs/logs.md does not name them")
        if not when:
            problems.append(f"docs/logs.md does not say when {name} is logged")
    return problems


def test_every_log_event_is_documented_with_level_and_keys() -> None:
    assert log_problems(_read(DOCS / "logs.md")) == []


def test_the_finder_finds_events_however_they_are_named() -> None:
    code = logged_events(_nodes())

    assert {"order.event_applied", "order.event_duplicate"} <= code.keys(), "chosen by a condition"
    assert code["publish.retry_scheduled"].levels == {"warning"}
    assert code["publish.failed"] == LogEvent({"error"}, {"events", "exception"})


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("| `message.skipped` |", "| `message.ignored` |", "message.skipped is in the code and not in"),
        ("| `message.skipped` |", "| `message.ignored` |", "message.ignored is in docs/logs.md and not in"),
        ("| `message.skipped` | warning |", "| `message.skipped` | info |", "message.skipped is logged as"),
        ("`delay_s`, `error`, `events`", "`error`, `events`", "publish.retry_scheduled has the keys"),
        ("| `reason`, `detail`, `topic`", "| `reason`, `topic`", "message.skipped has the keys ['detail']"),
    ],
)
def test_a_drift_of_the_log_events_is_found(old: str, new: str, said: str) -> None:
    problems = log_problems(_planted(_read(DOCS / "logs.md"), old, new))

    assert any(said in problem for problem in problems)


# Alerts.


def cause_problems(text: str) -> list[str]:
    """Each cause has an entry, which says what its runbook says."""
    parts = re.split(r"^### `([a-z_]+)`$", text.partition("## Alerts")[2].partition("\n## ")[0], flags=re.MULTILINE)
    entries = {name: " ".join(entry.split()) for name, entry in zip(parts[1::2], parts[2::2], strict=True)}
    problems = _compared("the cause", {str(cause) for cause in Cause}, set(entries), "docs/operations.md")
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
    assert cause_problems(_read(DOCS / "operations.md")) == []


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
    problems = cause_problems(_planted(_read(DOCS / "operations.md"), old, new))

    assert any(said in problem for problem in problems)


# Events.


def skip_reason_problems(text: str) -> list[str]:
    rows = _table(text.partition("## What is skipped")[2], "[a-z_]+")
    rows.pop("reason", None)
    problems = _compared("the reason", {str(reason) for reason in SkipReason}, set(rows), "docs/events.md")
    return problems + [
        f"{reason} means {reason.sentence!r}, and docs/events.md says {rows[reason][0]!r}"
        for reason in SkipReason
        if reason in rows and rows[reason][0] != reason.sentence
    ]


def test_every_skip_reason_is_documented_with_its_sentence() -> None:
    assert skip_reason_problems(_read(DOCS / "events.md")) == []


@pytest.mark.parametrize(
    ("old", "new"), [("| `missing_key` |", "| `no_key` |"), ("| The value is not JSON. |", "| It is odd. |")]
)
def test_a_drift_of_the_skip_reasons_is_found(old: str, new: str) -> None:
    assert skip_reason_problems(_planted(_read(DOCS / "events.md"), old, new))


def test_the_topic_is_described_as_it_is_made() -> None:
    text = _read(DOCS / "events.md")

    assert f"| partitions | {PARTITIONS}, " in text
    missing = [name for name in (*CONFIG, *TYPES.values(), Settings().topic) if f"`{name}`" not in text]
    assert missing == []


def test_the_dead_letter_topic_is_described_as_it_is_made() -> None:
    section = _read(DOCS / "events.md").partition("## Dead letters")[2]
    config = dead_letter_config(Settings().dead_letter_retention_days)

    assert f"`{Settings().dead_letter_topic_name}`" in section
    assert f"{PARTITIONS} partitions" in section
    assert f"`max.message.bytes={config['max.message.bytes']}`" in section
    assert f"`cleanup.policy={config['cleanup.policy']}`" in section
    assert "`retention.ms`" in section


# Metrics.


def exported_metrics(services: dict[str, Service]) -> set[str]:
    """The names on /metrics, without the ``_created`` gauge that each counter and histogram brings."""
    exported = "\n".join(service.metrics.render().decode() for service in services.values())
    return {name for name in re.findall(r"^# TYPE (\S+) ", exported, re.MULTILINE) if not name.endswith("_created")}


def documented_metrics(text: str) -> set[str]:
    return set(_table(text, "orderflow_[a-z_]+"))


def test_every_metric_is_documented(services: dict[str, Service]) -> None:
    code = exported_metrics(services)

    assert "orderflow_http_requests_total" in code
    assert _compared("the metric", code, documented_metrics(_read(DOCS / "http.md")), "docs/http.md") == []


def test_a_drift_of_the_metrics_is_found(services: dict[str, Service]) -> None:
    text = _planted(_read(DOCS / "http.md"), "| `orderflow_events_published_total` |", "| `orderflow_events_total` |")

    assert exported_metrics(services) != documented_metrics(text)


# The command line and make.


def test_every_command_is_in_the_readme() -> None:
    commands = {command.callback.__name__ for command in cli.registered_commands if command.callback}
    groups = {str(group.name) for group in cli.registered_groups}
    documented = {name.split()[1] for name in _table(_read(ROOT / "README.md"), "orderflow [a-z]+")}

    assert {"status", "stack"} <= commands | groups
    assert _compared("the command", commands | groups, documented, "README.md") == []


def test_every_make_target_that_a_document_names_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", _read(ROOT / "Makefile"), re.MULTILINE))
    named = {name for path in _documents() for name in re.findall(r"(?:^|`)make ([a-z-]+)", _read(path), re.MULTILINE)}

    assert {"up", "test"} <= named
    assert named <= targets


# Decision records.


def index_problems(text: str, records: set[str]) -> list[str]:
    return _compared("the record", records, set(re.findall(r"\]\((\d{4}-[a-z-]+\.md)\)", text)), "docs/adr/README.md")


def test_every_record_is_in_the_index_and_has_its_headings() -> None:
    records = {path.name: _read(path) for path in (DOCS / "adr").glob("0*.md")}

    assert len(records) >= 6
    assert index_problems(_read(DOCS / "adr/README.md"), set(records)) == []
    for name, text in records.items():
        assert re.match(rf"# {int(name[:4])}\. \S", text), name
        assert re.findall(r"^(?:## )?(Status|Context|Decision|Consequences)\b", text, re.MULTILINE) == [
            "Status", "Context", "Decision", "Consequences",
        ], name  # fmt: skip


def test_a_record_outside_the_index_is_found() -> None:
    text = _read(DOCS / "adr/README.md")

    assert (
        index_problems(text, {"0099-new.md"})[0]
        == "the record 0099-new.md is in the code and not in docs/adr/README.md"
    )


# Paths, links, fenced blocks and words.


def missing_paths(text: str) -> list[str]:
    """Code spans that name a file or folder of the project, and what they name is not there."""
    tops = "orderflow|http|workers|tests|docs|scripts|deploy"
    named = re.findall(rf"`((?:{tops})/[\w./-]*)`", _outside_fences(text))
    return [path for path in named if not (ROOT / path).exists()]


@pytest.mark.parametrize("path", _documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_path_that_a_document_names_exists(path: Path) -> None:
    allowed = {"http/__init__.py"} if path.name.startswith("0001") else set()  # there it says that there is none

    assert set(missing_paths(_read(path))) <= allowed


def test_a_missing_path_is_found() -> None:
    assert missing_paths("`orderflow/events.py`, `http/`, `orderflow/gone.py`") == ["orderflow/gone.py"]


def _outside_fences(text: str) -> str:
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


def _anchors(text: str) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", _outside_fences(text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken_links(path: Path, text: str) -> list[str]:
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", _outside_fences(text)):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        linked = path.parent / file if file else path
        if not linked.exists() or (anchor and anchor not in _anchors(text if not file else _read(linked))):
            broken.append(target)
    return broken


@pytest.mark.parametrize("path", _documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_leads_somewhere(path: Path) -> None:
    assert broken_links(path, _read(path)) == []


def test_a_broken_link_is_found() -> None:
    text = (
        "# A b\n[1](settings.md) [2](none.md) [3](#a-b) [4](#c) [5](settings.md#http) [6](http.md#d) [7](https://x.y)"
    )

    assert broken_links(DOCS / "logs.md", text) == ["none.md", "#c", "http.md#d"]


def block_problems(text: str) -> list[str]:
    """Fenced blocks of a language that we can check must parse; a fence without one is plain text."""
    problems = []
    for language, block in re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        try:
            _parse(language, block)
        except (SyntaxError, ValueError) as error:
            problems.append(f"{language}: {error}: {block[:60]!r}")
    return problems


def _parse(language: str, block: str) -> None:
    if language == "python":
        ast.parse(block)
    elif language == "json":
        json.loads(block)
    elif language == "bash":
        done = subprocess.run(["bash", "-n"], input=block, capture_output=True, text=True, check=False, timeout=10)  # noqa: S607
        if done.returncode:
            raise ValueError(done.stderr)
    elif language not in ("", "mermaid"):
        raise ValueError("a fence of this language is not checked")


@pytest.mark.parametrize("path", _documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_fenced_block_parses(path: Path) -> None:
    assert block_problems(_read(path)) == []


@pytest.mark.parametrize(
    "block",
    ["```python\ndef f(:\n```\n", "```bash\nif x; then\n```\n", "```json\n{'a': 1}\n```\n", "```ruby\n1\n```\n"],
)
def test_a_block_that_does_not_parse_is_found(block: str) -> None:
    assert block_problems(f"text\n{block}text\n")


#: Documents speak of the project alone: no paths of one machine, no words of how it came to be.
FORBIDDEN = re.compile(
    r"(?<![\w.%~)}])/(?:tmp|root|work|home|mnt)\b|\bissues?\b|\bpypi\b|\brepo1?\.maven|\bclaude\b|\bsubagents?\b|\bTODO\b",
    re.IGNORECASE,
)


def forbidden_words(text: str) -> list[str]:
    return [match[0] for match in FORBIDDEN.finditer(text)]


@pytest.mark.parametrize("path", _documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_no_document_speaks_of_anything_but_the_project(path: Path) -> None:
    assert forbidden_words(_read(path)) == []


def test_forbidden_words_are_found() -> None:
    assert forbidden_words("see /mnt/x, `/root`, (/work/y); TODO, Issue") == [
        "/mnt",
        "/root",
        "/work",
        "TODO",
        "Issue",
    ]
    assert forbidden_words("/problems/x, workers/, work/hour, tissue") == []


def test_the_documents_are_found() -> None:
    assert {ROOT / "README.md", ROOT / "CHANGELOG.md", DOCS / "http.md", DOCS / "adr/README.md"} <= set(_documents())
