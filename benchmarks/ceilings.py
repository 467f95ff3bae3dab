"""What the libraries below orderflow do on this machine in the same run, with nothing of ours around them."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import msgspec
from kafka import KafkaConsumer, KafkaProducer, TopicPartition

from orderflow.broker import PARTITIONS, ensure_topic
from orderflow.broker.clients import shared_options
from orderflow.store import sqlite
from orderflow.store.rows import HistoryRow, OrderRow
from orderflow.store.writer import insert_sql

if TYPE_CHECKING:
    from pathlib import Path

    from orderflow.settings import Settings

TOPIC = "benchmark_ceiling"
GROUP = 32
THREADS = 32
SECONDS = 3.0

#: As long as an event of a create with two items.
VALUE = b"x" * 480

#: Rows of one transaction, as in the consumer's poll.
TRANSACTION = 2_000


def grouped_sends(settings: Settings) -> float:
    """Send groups and wait for each: records a second."""
    producer = _producer(settings)
    sent = 0
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        futures = [producer.send(TOPIC, VALUE, b"order-%d" % (sent + number)) for number in range(GROUP)]
        for future in futures:
            future.get(timeout=10)
        sent += GROUP
    producer.close()
    return sent / SECONDS


def single_sends(settings: Settings) -> float:
    """Send one record at a time from each of many threads: records a second."""
    producer = _producer(settings)
    counts = [0] * THREADS
    end = time.monotonic() + SECONDS

    def run(thread: int) -> None:
        while time.monotonic() < end:
            producer.send(TOPIC, VALUE, b"order-%d-%d" % (thread, counts[thread])).get(timeout=10)
            counts[thread] += 1

    threads = [threading.Thread(target=run, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    producer.close()
    return sum(counts) / SECONDS


def poll(settings: Settings, records: int) -> float:
    """Read the filled topic and do nothing with it: records a second."""
    consumer = KafkaConsumer(
        **shared_options(settings, "ceiling"),
        metrics_enabled=False,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        max_poll_records=settings.poll_max_records,
        max_partition_fetch_bytes=4 * 1024 * 1024,
    )
    consumer.assign([TopicPartition(settings.topic, partition) for partition in range(PARTITIONS)])
    found = sum(map(len, consumer.poll(timeout_ms=5_000).values()))
    begin, first = time.monotonic(), found
    while found < records:
        found += sum(map(len, consumer.poll(timeout_ms=1_000).values()))
    seconds = time.monotonic() - begin
    consumer.close(autocommit=False, timeout_ms=1_000)
    return (found - first) / seconds


def inserts(source: Path, folder: Path) -> float:
    """Write the rows of a store again, by executemany, into a new one: events a second."""
    reader = sqlite.open_reader(source, busy_timeout_s=5)
    history = reader.execute(f"SELECT {', '.join(HistoryRow._fields)} FROM history").fetchall()  # noqa: S608
    orders = reader.execute(f"SELECT {', '.join(OrderRow._fields)} FROM orders ORDER BY arrival").fetchall()  # noqa: S608
    reader.close()
    writer = sqlite.open_writer(folder / "ceiling.db", busy_timeout_s=5)
    share = len(orders) / len(history)
    begin = time.monotonic()
    done = 0
    for start in range(0, len(history), TRANSACTION):
        upto = round((start + TRANSACTION) * share)
        with sqlite.immediate(writer):
            writer.executemany(insert_sql("history", HistoryRow._fields), history[start : start + TRANSACTION])
            writer.executemany(insert_sql("orders", OrderRow._fields), orders[done:upto])
        done = upto
    seconds = time.monotonic() - begin
    writer.close()
    return len(history) / seconds


def synced_commits(folder: Path, rows: int) -> float:
    """Write rows as large as an event, so many a transaction, each commit synced as the outbox's are: rows a second."""
    writer = sqlite.open_outbox(folder / "synced.db", busy_timeout_s=5)
    writer.execute("CREATE TABLE IF NOT EXISTS plain (id INTEGER PRIMARY KEY, value BLOB NOT NULL) STRICT")
    begin, done = time.monotonic(), 0
    while time.monotonic() - begin < SECONDS:
        with sqlite.immediate(writer):
            writer.executemany("INSERT INTO plain (value) VALUES (?)", [(VALUE,)] * rows)
        done += rows
    seconds = time.monotonic() - begin
    writer.close()
    return done / seconds


def _producer(settings: Settings) -> KafkaProducer:
    """Make a producer that holds to what the publisher does: all replicas, one request in flight, no idempotence."""
    ensure_topic(msgspec.structs.replace(settings, topic=TOPIC), "ceiling")
    producer = KafkaProducer(
        **shared_options(settings, "ceiling"),
        metrics_enabled=False,
        acks="all",
        enable_idempotence=False,
        max_in_flight_requests_per_connection=1,
    )
    producer.send(TOPIC, VALUE).get(timeout=10)  # so that connecting is not measured
    return producer
