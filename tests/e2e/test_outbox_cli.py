"""An event that Kafka refuses for good, among many: its order is held, and an operator settles it by commands."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from kafka.admin import ConfigResource, ConfigResourceType

from orderflow.broker.topic import CONFIG
from orderflow.client import Client
from tests.support.command import orderflow
from tests.support.messages import admin
from tests.support.outage import alerts, ask
from tests.support.stacks import running
from tests.support.topic import read_topic
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from orderflow.stack import Stack

OTHERS = 40


#: So that the first write that meets a stopped Kafka is answered soon.
SHORT_WAITS = {"publish_attempt_timeout_s": 0.3, "publish_deadline_s": 2.0, "publish_retry_first_delay_s": 0.05}


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack whose topic takes small messages only from now on, and whose outbox holds two orders' events."""
    folder = tmp_path_factory.mktemp("held")
    with running(folder, **SHORT_WAITS) as stack, Client.from_settings(stack.settings) as client:
        _limit(stack, 3_000)
        stack.stop("outbox-relay")
        stack.stop("kafka")
        for name in ("bad", "worse"):
            assert client.create_order(name, 100).outcome == "spooled"
            assert client.update_order(name, "shipped").outcome == "spooled"
        for number in range(OTHERS):
            assert client.create_order(f"good-{number}", 2).outcome == "spooled"
        stack.start("kafka")
        stack.start("outbox-relay")
        until(lambda: _outbox(stack)["held"] == 2 and _outbox(stack)["waiting"] == 2, "two are held", within_s=30)
        yield stack


def _limit(stack: Stack, size: int) -> None:
    with admin(stack.settings) as client:
        configs = CONFIG | {"max.message.bytes": str(size)}
        client.alter_configs([ConfigResource(ConfigResourceType.TOPIC, stack.settings.topic, configs)])


def _outbox(stack: Stack, query: str = "") -> Any:
    return ask(stack.settings.cart_port, f"/outbox{query}")


def _listed(stack: Stack, state: str) -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = json.loads(orderflow(stack, "outbox", "list", "--state", state, "--json"))["events"]
    return events


def test_held_events_are_shown_and_settled(stack: Stack) -> None:
    """The story of one poisoned event that is discarded and one that is retried, in this sequence."""
    listed = _listed(stack, "held")
    table = orderflow(stack, "outbox", "list")
    (alert,) = alerts(stack, "event_held")
    readyz = ask(stack.settings.cart_port, "/readyz")

    assert [event["orderId"] for event in listed] == ["bad", "worse"]
    assert [event["orderId"] for event in _outbox(stack, "?state=held")["events"]] == ["bad", "worse"]
    assert "2 wait, 2 held" in table
    assert "MessageSizeTooLarge" in listed[0]["reason"]
    assert alert["affected"] == 2
    assert any(f"orderflow alerts ack {alert['id']}" in step for step in alert["runbook"])
    assert (readyz["status"], "2 are held" in readyz["checks"]["outbox"]) == ("degraded", True)
    with Client.from_settings(stack.settings) as client:
        assert client.wait_for_order(f"good-{OTHERS - 1}")["status"] == "new", "the others went on"
        assert client.update_order("bad", "delivered").outcome == "spooled", "it stays behind its order's events"

    assert listed[0]["eventId"] in orderflow(stack, "outbox", "show", str(listed[0]["seq"]))
    orderflow(stack, "outbox", "discard", str(listed[0]["seq"]), "--reason", "too large", "--author", "kim")
    _limit(stack, 1_000_000)
    orderflow(stack, "outbox", "retry", "--all")
    until(lambda: _outbox(stack)["held"] == _outbox(stack)["waiting"] == 0, "the outbox is drained", within_s=20)
    until(lambda: alerts(stack, "event_held")[0]["resolvedAt"], "the alert is resolved", within_s=10)

    on_topic = [record.event_id for record in read_topic(stack.settings)]
    assert listed[0]["eventId"] not in on_topic
    assert on_topic.count(listed[1]["eventId"]) == 1
    with Client.from_settings(stack.settings) as client:
        assert client.wait_for_order("worse", until="shipped")["items"]
        assert client.order_details("bad").status == 404, "its create was given up; its updates are of no order"
    (discarded,) = _listed(stack, "discarded")
    assert (discarded["author"], discarded["reason"]) == ("kim", "too large")


def test_the_outbox_is_paged_and_filtered_over_http(stack: Stack) -> None:
    """A page names the next one, behind its last number; what is no state or number is a 400 with the way out."""
    with Client.from_settings(stack.settings) as client:
        seen: list[int] = []
        path: str | None = "/outbox?state=delivered&limit=17"
        while path:
            answer = client.request("cart", "GET", path)
            seen += [event["seq"] for event in answer.body["events"]]
            path = answer.headers["link"].partition(">")[0].lstrip("<") if "link" in answer.headers else None
        wrong = [client.request("cart", "GET", f"/outbox?{query}") for query in ("state=lost", "limit=0", "cursor=x")]

    assert len(seen) >= OTHERS
    assert seen == sorted(set(seen))
    assert [answer.status for answer in wrong] == [400] * 3
    assert "must be one of undelivered, waiting" in wrong[0].body["detail"]
    assert [list(answer.body["fields"]) for answer in wrong] == [["state"], ["limit"], ["cursor"]]


def test_what_cannot_be_done_is_said_with_a_way_out(stack: Stack) -> None:
    delivered = str(_listed(stack, "delivered")[0]["seq"])

    assert "there is no event '999999'" in orderflow(stack, "outbox", "show", "999999", code=1)
    assert "is not held, it is delivered" in orderflow(stack, "outbox", "retry", delivered, code=1)
    assert "give the ids of held events, or --all" in orderflow(stack, "outbox", "retry", code=1)
    assert "give one of undelivered" in orderflow(stack, "outbox", "list", "--state", "lost", code=2)
    assert "the reason is blank" in orderflow(stack, "outbox", "discard", delivered, "--reason", " ", code=1)


def test_a_folder_without_an_outbox_gets_none(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "orderflow.cli.main", "outbox", "list"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 1
    assert "run this in the stack's folder" in done.stderr
    assert list(tmp_path.iterdir()) == []
