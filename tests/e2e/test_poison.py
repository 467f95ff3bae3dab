"""Poison on the topic: each bad record is logged and kept with its reason, every good one applied, nothing restarts."""

from __future__ import annotations

import functools
import json
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from kafka import KafkaProducer

from orderflow.broker import partition_of
from tests.support import store
from tests.support.calls import Caller
from tests.support.messages import NotUtf8, changed, created
from tests.support.stacks import running
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orderflow.stack import Stack

CODECS = ("gzip", "snappy", "lz4", "zstd")


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack of its own: other tests read their whole topic with a plain consumer, which poison stops."""
    with running(tmp_path_factory.mktemp("poison")) as stack:
        yield stack


@pytest.fixture(scope="module")
def producer(stack: Stack) -> Iterator[KafkaProducer]:
    with closing(KafkaProducer(bootstrap_servers=stack.settings.bootstrap, acks="all")) as producer:
        yield producer


def raw(event: object) -> bytes:
    return json.dumps(event).encode()


def bad_values(order_id: str) -> list[tuple[str, bytes | None]]:
    """(reason, value) of records with the right key on the right partition."""
    good = raw(created(order_id))
    return [
        ("malformed_json", b'{"type": "order.created",'),
        ("malformed_json", b"\x00\xff"),
        ("malformed_json", None),
        ("malformed_json", good.replace(b"10.25", b"NaN")),
        ("invalid_event", good.replace(b"10.25", b"1e400")),
        ("malformed_json", good.replace(b'"c"', b'"\\ud800"')),
        ("malformed_json", b"[" * 100_000),
        ("malformed_json", b'{"type":"order.created","order_id":' + b"[" * 100_000),
        ("invalid_event", raw(created(order_id) | {"order_id": 7})),
        ("invalid_event", raw(changed(order_id, "lost"))),
        ("invalid_event", good.replace(b"10.25", b'"10.25"')),
        ("unknown_type", raw(changed(order_id) | {"type": "order.deleted"})),
        ("unknown_order", raw(changed(order_id))),
    ]


def skips_of(stack: Stack, places: set[tuple[int, int]]) -> dict[tuple[int, int], tuple[str, bytes | None]]:
    rows = store.query(stack.settings, "SELECT partition, offset, reason, value FROM skipped_messages")
    return {(p, o): (reason, value) for p, o, reason, value in rows if (p, o) in places}


def applied_up_to(stack: Stack, place: tuple[int, int]) -> None:
    partition, offset = place
    until(
        lambda: store.positions(stack.settings).get(partition, 0) > offset,
        f"the consumer passes offset {offset} of partition {partition}",
        within_s=20,
    )


def log_lines(stack: Stack, event: str) -> list[dict[str, object]]:
    text = (stack.settings.log_dir / "order-consumer.log").read_text(encoding="utf-8")
    lines = (json.loads(line) for line in text.splitlines() if line.startswith("{"))
    return [line for line in lines if line["event"] == event]


def skips_logged(stack: Stack) -> dict[tuple[object, object], object]:
    return {(line["partition"], line["offset"]): line["reason"] for line in log_lines(stack, "message.skipped")}


def causes_logged(stack: Stack) -> list[object]:
    return [line["cause"] for line in log_lines(stack, "alert.opened")]


def unreadable_counted(stack: Stack) -> int:
    """How many records the alert of unreadable ones counts."""
    with closing(Caller(stack.settings.order_port)) as caller:
        alerts = caller.call("GET", "/alerts").body["alerts"]
    return sum(alert["affected"] for alert in alerts if alert["cause"] == "unreadable_record")


def test_between_good_records_each_bad_one_is_skipped_and_kept(stack: Stack, producer: KafkaProducer) -> None:
    """Good, bad, good, bad, …: the bad with reason and bytes, the good in order-details, the process the same."""
    pid = stack.pid("order-consumer")
    expected: dict[tuple[int, int], tuple[str, bytes | None]] = {}
    orders = []
    place = (0, 0)
    for number, (reason, value) in enumerate(bad_values("poison-bad")):
        bad = producer.send("order_events", key=b"poison-bad", value=value).get(10)
        expected[bad.partition, bad.offset] = (reason, value)
        orders.append(f"poison-good-{number}")
        for event in (created(orders[-1]), changed(orders[-1])):
            good = producer.send("order_events", key=orders[-1].encode(), value=raw(event)).get(10)
        applied_up_to(stack, (good.partition, good.offset))
        place = (bad.partition, bad.offset)
    applied_up_to(stack, place)

    assert skips_of(stack, set(expected)) == expected
    until(lambda: set(expected) <= set(skips_logged(stack)), "each skip has its log line", within_s=5)
    logged = skips_logged(stack)
    assert {at: logged[at] for at in expected} == {at: reason for at, (reason, _) in expected.items()}
    with closing(Caller(stack.settings.order_port)) as caller:
        for order_id in orders:
            assert caller.call("GET", f"/order-details?orderId={order_id}").body["order"]["status"] == "shipped"
        assert caller.call("GET", "/order-details?orderId=poison-bad").status == 404
    assert stack.pid("order-consumer") == pid


def test_a_record_out_of_its_place_is_skipped(stack: Stack, producer: KafkaProducer) -> None:
    """No key, another order's key, another partition: none makes the order, none owns its event id."""
    order_id = "poison-misplaced"
    event = created(order_id)
    partition = partition_of(order_id.encode())
    places = {}
    for reason, key, at in [
        ("missing_key", None, partition),
        ("key_mismatch", b"another", partition_of(b"another")),
        ("wrong_partition", order_id.encode(), (partition + 1) % 6),
    ]:
        sent = producer.send("order_events", key=key, value=raw(event), partition=at).get(10)
        places[sent.partition, sent.offset] = (reason, raw(event))
        applied_up_to(stack, (sent.partition, sent.offset))
    with closing(Caller(stack.settings.order_port)) as caller:
        assert caller.call("GET", f"/order-details?orderId={order_id}").status == 404
        sent = producer.send("order_events", key=order_id.encode(), value=raw(event)).get(10)
        applied_up_to(stack, (sent.partition, sent.offset))

        assert caller.call("GET", f"/order-details?orderId={order_id}").status == 200
    assert skips_of(stack, set(places)) == places


def test_business_errors_are_skipped_and_duplicates_dropped(stack: Stack, producer: KafkaProducer) -> None:
    """A second create, the same id with other content, and the same fact twice."""
    order_id = "poison-business"
    first, update = created(order_id), changed(order_id, "pending")
    conflict = changed(order_id, "cancelled", event_id=update["event_id"])
    events = [first, created(order_id), update, conflict, update | {"occurred_at": "2026-01-02T03:04:05Z"}]
    places = [producer.send("order_events", key=order_id.encode(), value=raw(event)).get(10) for event in events]
    at = [(sent.partition, sent.offset) for sent in places]
    applied_up_to(stack, at[-1])

    history = store.history(stack.settings)
    assert [(history[place].outcome, history[place].reason) for place in at] == [
        ("applied", None),
        ("skipped", "duplicate_create"),
        ("applied", None),
        ("skipped", "event_id_conflict"),
        ("duplicate", None),
    ]
    with closing(Caller(stack.settings.order_port)) as caller:
        assert caller.call("GET", f"/order-details?orderId={order_id}").body["order"]["status"] == "pending"


@pytest.mark.parametrize("codec", CODECS)
def test_compressed_batches_are_read(stack: Stack, codec: str) -> None:
    """Whatever other producers compress with."""
    with closing(KafkaProducer(bootstrap_servers=stack.settings.bootstrap, compression_type=codec)) as producer:
        order_id = f"poison-{codec}"
        sent = producer.send("order_events", key=order_id.encode(), value=raw(created(order_id))).get(10)
        applied_up_to(stack, (sent.partition, sent.offset))

    with closing(Caller(stack.settings.order_port)) as caller:
        assert caller.call("GET", f"/order-details?orderId={order_id}").status == 200


@pytest.mark.parametrize("codec", [None, *CODECS])
def test_a_damaged_record_costs_none_of_its_batch(stack: Stack, codec: str | None) -> None:
    """A header name that is not UTF-8: kept with its reason, one alert of all such, the good ones around it applied."""
    pid = stack.pid("order-consumer")
    counted = unreadable_counted(stack)
    order_id = f"poison-unreadable-{codec}"
    key = order_id.encode()
    value = raw(changed(order_id))
    with closing(
        KafkaProducer(bootstrap_servers=stack.settings.bootstrap, compression_type=codec, linger_ms=200)
    ) as producer:
        producer.partitions_for("order_events")  # so that nothing holds up the first of the batch
        send = functools.partial(producer.send, "order_events", key=key)
        before, damaged, after = (
            send(value=raw(created(order_id))),
            send(value=value, headers=[(NotUtf8("x"), b"")]),
            send(value=raw(changed(order_id, "delivered"))),
        )
        first, bad, last = (future.get(10) for future in (before, damaged, after))
    assert (bad.offset, last.offset) == (first.offset + 1, first.offset + 2)
    applied_up_to(stack, (last.partition, last.offset))

    skip = {(bad.partition, bad.offset): ("unreadable_record", value)}
    assert skips_of(stack, {(bad.partition, bad.offset)}) == skip
    until(lambda: unreadable_counted(stack) == counted + 1, "the alert counts it", within_s=5)
    until(lambda: causes_logged(stack) == ["unreadable_record"], "one alert has its log line", within_s=5)
    with closing(Caller(stack.settings.order_port)) as caller:
        assert caller.call("GET", f"/order-details?orderId={order_id}").body["order"]["status"] == "delivered"
    assert stack.pid("order-consumer") == pid
