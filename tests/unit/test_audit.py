"""The audit's own reading of values and keys, and that it is its own: it shares no code with what it judges."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import pytest

from orderflow.audit.keys import order_of, partition_of
from orderflow.audit.wire import Changed, Created, Damaged, Discarded, Repaired, derived_id, read
from tests.support.audited import event

ROOT = Path(__file__).parents[2]

#: What the audit judges.
JUDGED = ("events", "orders", "controls", "projection", "store", "healing", "rebuild", "publishing")

ID = "00000000-0000-4000-8000-000000000001"


def imported(package: str) -> set[str]:
    """All modules of orderflow that come with a package when it is imported, those of type checkers apart."""
    found: set[str] = set()
    to_read = {".".join(path.relative_to(ROOT).with_suffix("").parts) for path in (ROOT / package).rglob("*.py")}
    while to_read:
        name = to_read.pop()
        if name not in found and (path := _file_of(name)):
            found.add(name)
            to_read |= _imports(ast.parse(path.read_text(encoding="utf-8")))
            to_read.add(name.rpartition(".")[0])
    return found


def _file_of(name: str) -> Path | None:
    path = ROOT / name.replace(".", "/")
    candidates = (path.with_suffix(".py"), path / "__init__.py")
    return next((one for one in candidates if name.startswith("orderflow") and one.exists()), None)


def _imports(tree: ast.AST) -> set[str]:
    found: set[str] = set()
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
        found |= _imports(node)
    return found


def judged(modules: set[str]) -> set[str]:
    return {name for name in modules if any(f"{name}.".startswith(f"orderflow.{part}.") for part in JUDGED)}


def test_the_audit_shares_no_code_with_what_it_judges() -> None:
    modules = imported("orderflow/audit")

    assert "orderflow.broker.log_reader" in modules, "what it reads the topic with is shared"
    assert judged(modules) == set()


def test_what_is_shared_would_be_noticed_however_it_is_imported() -> None:
    assert judged(imported("orderflow/rebuild")) >= {"orderflow.events", "orderflow.store.writer"}


# Values.


def changed(**members: Any) -> bytes:
    return json.dumps({"type": "order.status_changed", "order_id": "a", "status": "shipped"} | members).encode()


def created(**members: Any) -> bytes:
    return event("a", None, ID, **members)


def said(type_: str, **members: Any) -> bytes:
    whole = {
        "type": type_, "event_id": ID, "topic_id": "t", "partition": 1, "offset": 4, "if_last": 5, "author": "kim",
        "event": json.loads(changed()),
    }  # fmt: skip
    return json.dumps({name: value for name, value in (whole | members).items() if value is not ...}).encode()


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (changed(), Changed),
        (changed(event_id=None, occurred_at=None, unknown=[{}]), Changed),
        (changed(order_id="Ünï ✓"), Changed),
        (b' {"status":"new","type":"order.status_changed","order_id":"b","order_id":"a"}\n', Changed),
        (created(), Created),
        (created(orderDate="2026-01-02T03:04:05.123456+02:00", status="new"), Created),
        (created(items=[{"itemId": "i", "quantity": 10_000, "price": 1_000_000}], totalAmount=1e10), Created),
        (created(items=[{"itemId": "i", "quantity": 3, "price": 0.1}], totalAmount=0.3), Created),
        (said("message.repaired"), Repaired),
        (said("message.discarded", event=..., if_last=...), Discarded),
        (said("message.discarded", successor=ID, operation=ID, reason="r" * 2_000), Discarded),
    ],
)
def test_what_is_valid_is_read(value: bytes, kind: type) -> None:
    assert type(read(value)) is kind


@pytest.mark.parametrize(
    "value",
    [
        None, b"", b"{", b"\xef\xbb\xbf" + changed(), changed() + b"x", changed().replace(b"shipped", b"\xff"),
        changed(unknown=float("nan")), b'{"type":1,,}', b"[1, 2", b'"order.created", 1',
        b'{"type":"\\ud800"}', changed()[:-1] + b',"x":' + b"[" * 500 + b"]" * 500 + b"}",
    ],
)  # fmt: skip
def test_what_is_no_json_is_malformed(value: bytes | None) -> None:
    assert read(value) == Damaged("malformed_json")


@pytest.mark.parametrize(
    ("value", "reason", "event_id"),
    [
        (b"[]", "invalid_event", None),
        (b"{}", "invalid_event", None),
        (changed(order_id=" "), "invalid_event", None),
        (changed(order_id="a" * 129), "invalid_event", None),
        (changed(order_id="a\n"), "invalid_event", None),
        (changed(status="lost", event_id=ID), "invalid_event", ID),
        (changed(event_id=ID.upper() + "\n"), "invalid_event", None),
        (changed(type=1, event_id=ID), "invalid_event", ID),
        (b'{"type":"order.created",' + changed()[1:], "invalid_event", None),
        (b'{"order_id":"",' + changed()[1:], "invalid_event", None),
        (changed(type="order.deleted", event_id=ID), "unknown_type", ID),
        (changed(x=json.loads("[" * 498 + "]" * 498), status=1), "invalid_event", None),
        (created(totalAmount=8.51), "invalid_event", ID),
        (created(orderId="b"), "invalid_event", ID),
        (created(orderDate="2026-01-02T03:04:05"), "invalid_event", ID),
        (created(items=[{"itemId": "i", "quantity": 1, "price": 0}], totalAmount=0), "invalid_event", ID),
        (created(items=[{"itemId": "i", "quantity": 1, "price": 8.501}], totalAmount=8.501), "invalid_event", ID),
        (created(items=[{"itemId": "i", "quantity": 2.0, "price": 4.25}]), "invalid_event", ID),
        (created(items=[], totalAmount=0), "invalid_event", ID),
        (created(items=[{"itemId": "i", "quantity": 10_001, "price": 1}], totalAmount=10_001), "invalid_event", ID),
        (
            created(items=[{"itemId": "i", "quantity": 1, "price": 1e6 + 0.01}], totalAmount=1e6 + 0.01),
            "invalid_event",
            ID,
        ),
        (created(items=[{"itemId": "i", "quantity": 1, "price": 1}] * 101, totalAmount=101), "invalid_event", ID),
        (created(currency="XXX"), "invalid_event", ID),
        (created(totalAmount=float("1e308")), "invalid_event", ID),
        (said("message.repaired", author=" "), "invalid_control", ID),
        (said("message.repaired", if_last=None), "invalid_control", ID),
        (said("message.repaired", event=json.loads(changed(status="lost"))), "invalid_control", ID),
        (said("message.repaired", event=json.loads(said("message.discarded"))), "invalid_control", ID),
        (said("message.discarded", offset=-1), "invalid_control", ID),
        (said("message.discarded", event_id="x"), "invalid_control", None),
    ],
)
def test_what_breaks_a_rule_is_refused_with_the_id_that_stands_in_it(
    value: bytes, reason: str, event_id: str | None
) -> None:
    assert read(value) == Damaged(reason, event_id)  # type: ignore[arg-type]  # one of the words


def test_amounts_are_whole_cents_and_shipping_is_rounded_at_the_end() -> None:
    found = read(created(items=[{"itemId": "i", "quantity": 3, "price": 4.42}], totalAmount=13.26))

    assert isinstance(found, Created)
    assert found.order.items[0].price == 442
    assert found.order.total_amount == 1326


# Keys.


@pytest.mark.parametrize(
    ("key", "hashed"),
    [
        (b"21", -973932308), (b"foobar", -790332482), (b"abc", 479470107), (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829), (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
    ],
)  # fmt: skip
def test_a_key_leads_to_the_partition_that_kafka_s_clients_choose(key: bytes, hashed: int) -> None:
    """The hashes are those of the tests of Kafka's own client."""
    assert partition_of(key) == (hashed & 0x7FFFFFFF) % 6


def test_a_key_is_an_order_s_on_its_partition_alone() -> None:
    home = partition_of(b"a")

    assert order_of(b"a", home) == "a"
    assert order_of(b"a", home + 1) is None
    assert [order_of(key, partition_of(key)) for key in (b"", b"\xff", b" ", b"a\x07", b"a" * 129)] == [None] * 5
    assert order_of(None, 0) is None


def test_a_record_without_an_id_is_named_by_where_and_what_it_is() -> None:
    first = derived_id("t", 1, 2, b"key", b"value")

    assert first == derived_id("t", 1, 2, b"key", b"value") == "cb6cc9fe-0565-54b1-a91a-e95fa0dee469"
    assert len({first, derived_id("t", 1, 3, b"key", b"value"), derived_id("t", 1, 2, b"ke", b"yvalue")}) == 3
