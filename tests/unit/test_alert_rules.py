"""What watches the services: the rules fire when they should and else not, and the dashboard asks for what there is."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
import yaml

from tests.support.documents import DOCS, ROOT, read, table
from tests.support.metrics import metric_of
from tests.support.promtool import promtool, run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PROMETHEUS = ROOT / "deploy/prometheus"
ALERTS = PROMETHEUS / "alerts.yml"
DASHBOARD = ROOT / "deploy/grafana/orderflow.json"

CART = 'job="cart-service", instance="a:1"'
ORDER = 'job="order-service", instance="a:2"'


def rules() -> dict[str, dict[str, Any]]:
    """The rules by their names."""
    groups = yaml.safe_load(read(ALERTS))["groups"]
    return {rule["alert"]: rule for group in groups for rule in group["rules"]}


# When each rule fires.


class Case(NamedTuple):
    """What is measured each minute from 0 on, and at which minutes the rule fires and does not."""

    rule: str
    series: dict[str, str]
    fires: tuple[int, ...]
    quiet: tuple[int, ...]


HEALTHY = f"orderflow_alerts_open{{cause='x', {ORDER}}}"
PUBLISHED = f"orderflow_events_published_total{{type='order.created', outcome='%s', {CART}}}"
REQUESTS = f"orderflow_http_requests_total{{method='POST', route='%s', status='%s', {CART}}}"
SECONDS = f"orderflow_http_request_duration_seconds_bucket{{method='POST', route='/create-order', le='%s', {CART}}}"
BREAKER = f"orderflow_breaker_state{{state='%s', {CART}}}"
OLDEST = f"orderflow_outbox_oldest_age_seconds{{state='%s', {CART}}}"
UP = "up{%s}"
WAITING = f"orderflow_outbox_events{{state='waiting', {CART}}}"
STARTED = f"orderflow_worker_start_time_seconds{{program='order-consumer', {ORDER}}}"
AGE = f"orderflow_heartbeat_age_seconds{{program='order-consumer', {ORDER}}}"
LAG = f"orderflow_lag_seconds{{partition='%d', {ORDER}}}"

#: What is there while all is well, unless a case says otherwise.
WELL = {UP % CART: "1x200", UP % ORDER: "1x200", HEALTHY: "0x200", WAITING: "0x200"}

#: When something was started that ends again after two minutes, and then stays.
FIVE_STARTS = "0 0 120 120 240 240 360 360 480x40"

CASES = [
    Case("OrderflowServiceDown", {UP % CART: "1 1 0 0 0 0 1 1x9"}, fires=(4, 5), quiet=(1, 2, 6)),
    Case("OrderflowServiceDown", {UP % ORDER: "1 1 stale _x5 1x9"}, fires=(4, 7), quiet=(1, 2, 9)),
    Case(
        "OrderflowServiceRestarts",
        {f"process_start_time_seconds{{{CART}}}": FIVE_STARTS, f"process_start_time_seconds{{{ORDER}}}": "0x9 9x99"},
        fires=(8, 15),
        quiet=(7, 17),
    ),
    Case(
        "OrderflowServerErrors",
        {
            REQUESTS % ("/create-order", 200): "0+100x40",
            REQUESTS % ("/create-order", 503): "0x9 0+2x10 20x20",
            REQUESTS % ("/order-details", 504): "0+5x40",  # reads that waited in vain
        },
        fires=(18, 19),
        quiet=(8, 12, 30),
    ),
    Case(
        "OrderflowAlertOpen",
        {f"orderflow_alerts_open{{cause='event_held', severity='critical', {ORDER}}}": "0 0 1 1 0 0"},
        fires=(2, 3),
        quiet=(1, 4),
    ),
    Case(
        "OrderflowAlertsUnreadable",
        {HEALTHY: "0x3 stale _x8 0x9"},
        fires=(7, 10),
        quiet=(2, 4, 14),
    ),
    Case(
        "OrderflowKafkaAway",
        {
            BREAKER % "closed": "1 1 0 0 0 1 1",
            BREAKER % "half_open": "0 0 0 1 0 0 0",
            BREAKER % "open": "0 0 1 0 1 0 0",
        },
        fires=(3, 4),
        quiet=(1, 2, 5),
    ),
    Case("OrderflowWritesRefused", {PUBLISHED % "refused": "0x5 1x20"}, fires=(7, 9), quiet=(4, 14)),
    Case("OrderflowWritesRefused", {PUBLISHED % "unknown": "0x5 1x20"}, fires=(7, 9), quiet=(4, 14)),
    Case(
        "OrderflowRetries",
        {f"orderflow_publish_retries_total{{{CART}}}": "0x5 0+1x20 20x20"},
        fires=(18, 24),
        quiet=(4, 12, 34),
    ),
    Case(
        "OrderflowWritesSlow",
        {
            SECONDS % "1.0": "0+100x10 1000+50x20 2000+100x20",
            SECONDS % "2.5": "0+100x60",
            SECONDS % "+Inf": "0+100x60",
        },
        fires=(24, 28),
        quiet=(9, 15, 45),
    ),
    Case(
        "OrderflowOutboxNotDrained",
        {OLDEST % "waiting": "0 60+60x10 0 0 0", OLDEST % "held": "0x9 600+60x9", BREAKER % "closed": "1x20"},
        fires=(7, 8),
        quiet=(5, 6, 13, 16),
    ),
    Case("OrderflowOutboxUnreadable", {WAITING: "0x3 stale _x8 0x9"}, fires=(7, 10), quiet=(2, 4, 14)),
    Case("OrderflowWorkerSilent", {AGE: "9999 1 1 60 120 1 1"}, fires=(4,), quiet=(0, 1, 2, 3, 5)),
    Case("OrderflowWorkerRestarts", {STARTED: FIVE_STARTS}, fires=(8, 15), quiet=(7, 17)),
    Case(
        "OrderflowWorkerWaits",
        {f"orderflow_worker_state{{program='outbox-relay', state='waiting', {ORDER}}}": "0 0 1x8 0 0"},
        fires=(7, 9),
        quiet=(1, 4, 6, 12),
    ),
    Case("OrderflowLag", {LAG % 0: "0x20", LAG % 1: "0 0 30 90 150 210 270 1 0"}, fires=(5, 6), quiet=(2, 4, 7)),
    Case(
        "OrderflowSkipsOpen",
        {f"orderflow_skips_open{{reason='unknown_order', {ORDER}}}": "0x5 1x100 0x10"},
        fires=(70, 100),
        quiet=(4, 30, 60, 110),
    ),
]


def asked_of(case: Case) -> dict[str, Any]:
    """What promtool is to find: all alerts that fire, by name, at the minutes of the case."""
    firing = [{"labels": f'{{alertname="{case.rule}"}}', "value": 1}]
    return {
        "name": case.rule,
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in (WELL | case.series).items()],
        "promql_expr_test": [
            {
                "expr": 'count by (alertname) (count by (alertname, instance) (ALERTS{alertstate="firing"}))',
                "eval_time": f"{minute}m",
                "exp_samples": samples,
            }
            for minutes, samples in ((case.fires, firing), (case.quiet, []))
            for minute in minutes
        ],
    }


def test_each_rule_fires_when_it_should_and_no_other_does(tmp_path: Path) -> None:
    """On a course of figures each: before it is time, while it is, and when it is over."""
    assert {case.rule for case in CASES} == rules().keys()
    wanted = {"rule_files": [str(ALERTS)], "evaluation_interval": "1m", "tests": list(map(asked_of, CASES))}
    file = tmp_path / "cases.yml"
    file.write_text(json.dumps(wanted))  # JSON is YAML, too.

    assert "SUCCESS" in promtool("test", "rules", file)


def test_a_rule_that_waits_too_long_is_found(tmp_path: Path) -> None:
    slow = tmp_path / "alerts.yml"
    slow.write_text(read(ALERTS).replace("for: 1m", "for: 10m"))
    wanted = {"rule_files": [str(slow)], "evaluation_interval": "1m", "tests": list(map(asked_of, CASES))}
    file = tmp_path / "cases.yml"
    file.write_text(json.dumps(wanted))

    done = run("test", "rules", file)

    assert done.returncode != 0
    assert "OrderflowServiceDown" in done.stdout + done.stderr


# What the files say.


def test_the_scrape_and_its_rules_are_valid() -> None:
    assert "16 rules found" in promtool("check", "config", PROMETHEUS / "prometheus.yml")


def test_each_rule_says_how_urgent_it_is_and_where_its_steps_are() -> None:
    """In operations.md, below a heading of its own, with the same severity."""
    text = read(DOCS / "operations.md")
    for name, rule in rules().items():
        severity = rule["labels"]["severity"]
        assert rule["annotations"]["summary"]
        page, _, anchor = rule["annotations"]["runbook"].partition("#")
        assert page == "docs/operations.md"
        if name == "OrderflowAlertOpen":  # It has the severity and the steps of the alert that is open.
            assert (severity, anchor) == ("{{ $labels.severity }}", "{{ $labels.cause }}")
            continue
        assert anchor == name.lower()
        entry = text.partition(f"\n### {name}\n\n")[2].partition("\n###")[0]
        assert entry.startswith(f"{severity.capitalize()}. "), name
        assert "\n1. " in entry or "its steps are the ones to take" in entry, name
    assert set(re.findall(r"^### (Orderflow\w+)$", text, re.MULTILINE)) == rules().keys() - {"OrderflowAlertOpen"}


def expressions() -> Iterator[tuple[str, str]]:
    """The dashboard's expressions, with the titles of their panels."""
    for panel in json.loads(read(DASHBOARD))["panels"]:
        for target in panel.get("targets", []):
            yield panel["title"], target["expr"]


def unknown_metrics(expression: str) -> set[str]:
    """Names that an expression asks for, and no service has."""
    known = set(table(read(DOCS / "metrics.md"), "(?:orderflow|process)_[a-z_]+"))
    named = re.findall(r"\b(?:orderflow|process)_[a-z_]+\b", re.sub(r'"[^"]*"', '""', expression))
    return {name for name in named if metric_of(name) not in known and name not in known}


def test_every_expression_of_the_dashboard_is_valid(tmp_path: Path) -> None:
    file = tmp_path / "dashboard.yml"
    valid = [
        {"record": f"panel:{number}", "expr": expr.replace("$__rate_interval", "1m")}
        for number, (_, expr) in enumerate(expressions())
    ]
    file.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": valid}]}))

    assert len(valid) > 20
    assert f"{len(valid)} rules found" in promtool("check", "rules", file)


def test_dashboard_and_rules_ask_for_metrics_that_there_are() -> None:
    asked = [expr for _, expr in expressions()] + [rule["expr"] for rule in rules().values()]

    assert {expression: unknown for expression in asked if (unknown := unknown_metrics(expression))} == {}
    assert unknown_metrics('rate(orderflow_gone_total{x="orderflow_y"}[5m])') == {"orderflow_gone_total"}


def test_what_is_measured_is_on_the_dashboard() -> None:
    """But since when a worker runs: its counters tell of a restart, too."""
    shown = {metric_of(name) for _, expr in expressions() for name in re.findall(r"\borderflow_[a-z_]+\b", expr)}

    assert table(read(DOCS / "metrics.md"), "orderflow_[a-z_]+").keys() - shown == {
        "orderflow_worker_start_time_seconds"
    }


def test_the_dashboard_is_of_any_prometheus() -> None:
    """Its source is a variable; each panel has a unit; no two lie upon each other."""
    board = json.loads(read(DASHBOARD))
    (variable,) = board["templating"]["list"]
    panels = [panel for panel in board["panels"] if panel["type"] != "row"]
    rows = [panel["title"] for panel in board["panels"] if panel["type"] == "row"]
    cells = [
        (x, y)
        for position in (panel["gridPos"] for panel in board["panels"])
        for x in range(position["x"], position["x"] + position["w"])
        for y in range(position["y"], position["y"] + position["h"])
    ]

    assert rows == ["Is it well?", "Writes", "Outbox", "Applying", "Reads"]
    assert (variable["name"], variable["type"], variable["query"]) == ("datasource", "datasource", "prometheus")
    assert {panel["datasource"]["uid"] for panel in panels} == {"${datasource}"}
    assert {target["datasource"]["uid"] for panel in panels for target in panel["targets"]} == {"${datasource}"}
    assert all(panel["fieldConfig"]["defaults"]["unit"] for panel in panels)
    assert len(cells) == len(set(cells))
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    assert not re.search(r"localhost|127\.0\.0\.1|:\d{4}\b", read(DASHBOARD))


@pytest.mark.parametrize("text", ["# TYPE orderflow_seen counter\norderflow_seen 1\n", "orderflow_x_ms 1\n"])
def test_a_name_against_the_conventions_is_found(text: str) -> None:
    assert run("check", "metrics", stdin=text).returncode != 0
