"""Operators' commands on their way through the outbox to a real broker: where they are sent, all of them, in order."""

from __future__ import annotations

import uuid
from collections import Counter, defaultdict
from typing import TYPE_CHECKING

from orderflow.broker import PARTITIONS, partition_of
from orderflow.controls import Discarded
from orderflow.controls import encode as encode_control
from orderflow.messages import Message
from orderflow.store.outbox import Outbox
from orderflow.store.outbox_desk import OutboxDesk
from orderflow.store.outbox_rows import Command
from tests.support.messages import message
from tests.support.relays import relay_process, relaying, wait_until_empty
from tests.support.topic import read_topic
from tests.support.waiting import until

if TYPE_CHECKING:
    from orderflow.settings import Settings
    from tests.conftest import Figures
    from tests.support.broker import Broker
    from tests.support.topic import TopicRecord


def discard(partition: int, offset: int, key: bytes | None = None, order_id: str = "") -> Command:
    """A discard of the record at a place of the first epoch."""
    control = Discarded(event_id=str(uuid.uuid4()), topic_id="t", partition=partition, offset=offset, author="kim")
    value, pairs = encode_control(control), (("ce_id", control.event_id.encode()), ("none", None))
    return Command(
        Message(key, value, pairs, order_id, control.event_id, "", partition), "control", f"1-{partition}-{offset}"
    )


def test_a_control_goes_to_the_partition_that_it_names(broker: Broker) -> None:
    """Without a key, or with one whose partition is another; an event goes to that of its key, as ever."""
    settings = broker.settings()
    outbox, desk = Outbox(settings), OutboxDesk(settings)
    elsewhere = (partition_of(b"ord-1") + 1) % PARTITIONS
    commands = [
        *(discard(partition, 7) for partition in range(PARTITIONS)),
        discard(elsewhere, 8, b"ord-1", "ord-1"),
        Command(message("ord-1"), "event"),
    ]
    outbox.add_all(commands)

    with relaying(settings):
        wait_until_empty(outbox)

    records = {record.event_id: record for record in read_topic(settings)}
    for command in commands:
        sent, record = command.message, records[command.message.event_id]
        assert (record.key, record.value, record.headers) == (sent.key, sent.value, sent.headers)
        assert record.partition == (partition_of(sent.key) if sent.partition is None else sent.partition)
    under_way = desk.under_way([command.named for command in commands if command.named])
    assert {named: (entry.state, (entry.partition, entry.offset)) for named, entry in under_way.items()} == {
        command.named: ("delivered", records[command.message.event_id].place) for command in commands if command.named
    }


def test_an_order_s_events_and_the_controls_about_it_keep_their_sequence(broker: Broker) -> None:
    settings = broker.settings()
    outbox, key = Outbox(settings), b"ord-1"
    events = [Command(message("ord-1"), "event") for _ in range(60)]
    controls = [discard(partition_of(key), offset, key, "ord-1") for offset in range(60)]
    outbox.add_all([command for pair in zip(events, controls, strict=True) for command in pair])

    with relaying(settings):
        wait_until_empty(outbox)

    on_topic = [record.event_id for record in read_topic(settings)]
    for lane in (events, controls):
        ids = [command.message.event_id for command in lane]
        assert [one for one in on_topic if one in ids] == ids


def bulk() -> list[Command]:
    """500 discards: of keyless records, and of records of some orders."""
    keyless = [discard(number % PARTITIONS, number) for number in range(200)]
    orders = [f"ord-{number % 25}" for number in range(300)]
    keyed = [
        discard(partition_of(order.encode()), 1_000 + number, order.encode(), order)
        for number, order in enumerate(orders)
    ]
    return [*keyless, *keyed]


def test_a_bulk_is_delivered_though_the_relay_is_killed_in_the_middle(broker: Broker, figures: Figures) -> None:
    """Each command is on the topic, a few of them twice; the first copies of an order's are in sequence."""
    settings = broker.settings(relay_batch_max=10)
    outbox, commands = Outbox(settings), bulk()
    outbox.add_all(commands)

    killed_at = [kill_when_delivered(settings, outbox, wanted) for wanted in (50, 150, 250)]
    with relay_process(settings):
        wait_until_empty(outbox)

    records = read_topic(settings)
    copies = Counter(record.event_id for record in records)
    entries = OutboxDesk(settings).entries(("waiting", "held", "delivered", "discarded"), limit=1_000)
    assert killed_at == sorted(set(killed_at)), killed_at
    assert killed_at[-1] < 500, "killed in the middle"
    assert Counter(entry.state for entry in entries) == {"delivered": 500}
    assert copies.keys() == {command.message.event_id for command in commands}
    assert sum(copies.values()) - len(commands) <= 3 * 2 * 10, "a kill costs what was not noted"
    places = {record.place: record.event_id for record in records}
    assert {
        entry.event_id for entry in entries if places[entry.partition or 0, entry.offset or 0] == entry.event_id
    } == (copies.keys())
    assert first_copies(records) == sequences(commands)
    figures("500 commands, three kills", killed_at=killed_at, twice=sum(copies.values()) - len(commands))


def kill_when_delivered(settings: Settings, outbox: Outbox, wanted: int) -> int:
    """Kill a relay with -9 when so many are noted as delivered; tell how many are then."""
    with relay_process(settings) as process:
        until(lambda: outbox.totals().delivered >= wanted, f"{wanted} are delivered", 30, 0.001)
        process.kill()
        process.wait(timeout=10)
    return outbox.totals().delivered


def sequences(commands: list[Command]) -> dict[str, list[str]]:
    """The ids of each order's commands, in the sequence in which they were given."""
    found = defaultdict(list)
    for command in commands:
        if command.message.order_id:
            found[command.message.order_id].append(command.message.event_id)
    return found


def first_copies(records: list[TopicRecord]) -> dict[str, list[str]]:
    """The same, as it is on the topic."""
    found: dict[str, dict[str, None]] = defaultdict(dict)
    for record in records:
        if record.key is not None:
            found[record.key.decode()].setdefault(record.event_id)
    return {order: list(ids) for order, ids in found.items()}
