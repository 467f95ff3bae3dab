"""Every log event is in docs/logs.md with its level and its keys, and none is there that the code does not have."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from dataclasses import dataclass, field
from functools import cache

import pytest

from tests.support.documents import DOCS, compared, nodes, planted, read, table

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
    said = _dicts_of_calls(nodes)
    for node in nodes:
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr in LEVELS
            and node.args
        ):
            for name in _event_names(node.args[0]):
                found[name].levels.add(LEVELS[node.func.attr])
                found[name].keys |= {keyword.arg for keyword in node.keywords if keyword.arg} | said.get(node, set())
                found[name].keys |= {"exception"} if node.func.attr == "exception" else set()
    return dict(found)


def _dicts_of_calls(nodes: list[ast.AST]) -> dict[ast.AST, set[str]]:
    """The keys of ``said`` for every call ``f(…, **said)`` in a function that has ``said = {…}``."""
    found: dict[ast.AST, set[str]] = {}
    for function in (node for node in nodes if isinstance(node, ast.FunctionDef)):
        inner = list(ast.walk(function))
        dicts = {
            node.targets[0].id: {key.value for key in node.value.keys if isinstance(key, ast.Constant)}
            for node in inner
            if isinstance(node, ast.Assign)
            and isinstance(node.value, ast.Dict)
            and isinstance(node.targets[0], ast.Name)
        }
        for call in (node for node in inner if isinstance(node, ast.Call)):
            names = [one.value.id for one in call.keywords if one.arg is None and isinstance(one.value, ast.Name)]
            found[call] = {str(key) for name in names for key in dicts.get(name, ())}
    return found


@cache
def known_words() -> set[str]:
    """Whatever may be a key of a line: names of arguments, and constants of the code."""
    constants = {node.value for node in nodes() if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    return constants | {node.arg for node in nodes() if isinstance(node, ast.keyword) and node.arg}


def _event_names(node: ast.AST) -> list[str]:
    constants = [n.value for n in ast.walk(node) if isinstance(n, ast.Constant) and isinstance(n.value, str)]
    return [name for name in constants if EVENT_NAME.fullmatch(name)]


def log_problems(text: str) -> list[str]:
    code, rows, words = logged_events(nodes()), table(text, EVENT_NAME.pattern), known_words()
    problems = compared("the event", set(code), set(rows), "docs/logs.md")
    for name in code.keys() & rows.keys():
        level, _, keys, when = rows[name]
        if {level} != code[name].levels:
            problems.append(f"{name} is logged as {code[name].levels}, and docs/logs.md says {level}")
        named = set(re.findall(r"`([^`]+)`", keys))
        if same := re.search(r"those of `([a-z_.]+)`", keys):
            named |= set(re.findall(r"`([^`]+)`", rows[same[1]][2])) - {same[1]}
        if missing := code[name].keys - named:
            problems.append(f"{name} has the keys {sorted(missing)}, and docs/logs.md does not name them")
        if invented := {key for key in named if re.fullmatch("[a-z_]+", key)} - words:
            problems.append(f"docs/logs.md names the keys {sorted(invented)} of {name}, which are nowhere in the code")
        if not when:
            problems.append(f"docs/logs.md does not say when {name} is logged")
    return problems


def test_every_log_event_is_documented_with_level_and_keys() -> None:
    assert log_problems(read(DOCS / "logs.md")) == []


def test_the_finder_finds_events_however_they_are_named() -> None:
    code = logged_events(nodes())

    assert {"order.event_applied", "order.event_duplicate"} <= code.keys(), "chosen by a condition"
    assert code["publish.retry_scheduled"].levels == {"warning"}
    assert code["publish.failed"] == LogEvent({"error"}, {"events", "exception"})
    assert {"verdict", "named_offset", "detail"} <= code["control.refused"].keys, "gathered before"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("| `message.skipped` |", "| `message.ignored` |", "message.skipped is in the code and not in"),
        ("| `message.skipped` |", "| `message.ignored` |", "message.ignored is in docs/logs.md and not in"),
        ("| `message.skipped` | warning |", "| `message.skipped` | info |", "message.skipped is logged as"),
        ("`delay_s`, `error`, `events`", "`error`, `events`", "publish.retry_scheduled has the keys"),
        ("| `reason`, `detail`, `topic`", "| `reason`, `topic`", "message.skipped has the keys ['detail']"),
        ("| `type`, `verdict`, `topic`", "| `type`, `topic`", "control.duplicate has the keys ['verdict']"),
        ("`delay_s`, `error`, `events`", "`delay_ms`, `delay_s`, `error`, `events`", "names the keys ['delay_ms']"),
    ],
)
def test_a_drift_of_the_log_events_is_found(old: str, new: str, said: str) -> None:
    problems = log_problems(planted(read(DOCS / "logs.md"), old, new))

    assert any(said in problem for problem in problems)
