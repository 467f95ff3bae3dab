"""Batches as kafka-python writes and reads them: ours are the same bytes, and more is read where one is damaged."""

from __future__ import annotations

import struct
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kafka import TopicPartition
from kafka.errors import CorruptRecordError
from kafka.record.default_records import DefaultRecordBatch
from kafka.record.memory_records import MemoryRecords, MemoryRecordsBuilder
from kafka.record.util import calc_crc32c

from orderflow import headers
from orderflow.broker import batches
from orderflow.broker.batches import RecordReader, encode_batch
from orderflow.messages import Message
from orderflow.records import Record
from tests.support.messages import NotUtf8

if TYPE_CHECKING:
    from collections.abc import Sequence

Made = tuple[bytes | None, bytes | None, list[tuple[str, bytes | None]]]
CODECS = {"none": 0, "gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}

blobs = st.none() | st.binary(max_size=300)
made = st.lists(st.tuples(blobs, blobs, st.lists(st.tuples(st.text(max_size=80), blobs), max_size=4)), min_size=1)


def batch_of(records: Sequence[Any], codec: int = 0, offset: int = 0, step_ms: int = 1) -> bytes:
    builder = MemoryRecordsBuilder(2, codec, 1 << 24, offset=offset)
    for number, (key, value, pairs) in enumerate(records):
        builder.append(timestamp=1_700_000_000_000 + number * step_ms, key=key, value=value, headers=pairs)
    builder.close()
    return bytes(builder.buffer())


def read(data: bytes, fetch_offset: int = 0, reader: type = RecordReader) -> Any:
    return reader(fetch_offset, TopicPartition("t", 3), MemoryRecords(data))


def taken(data: bytes, fetch_offset: int = 0) -> list[Record]:
    return list(read(data, fetch_offset).take())


@given(
    st.lists(
        st.tuples(
            st.none() | st.binary(max_size=100),
            blobs | st.integers(4_000, 20_000).map(bytes),
            st.lists(st.tuples(st.text(max_size=80), blobs), max_size=9),
        ),
        min_size=1,
        max_size=140,
    )
)
def test_it_writes_what_kafka_python_writes(records: list[Made]) -> None:
    """Byte for byte, but for the leader's epoch, which is the broker's to set: -1, as Kafka's own producer says."""
    messages = [Message(key, value, tuple(pairs), "o", "e") for key, value, pairs in records]

    ours, theirs = encode_batch(messages, 1_700_000_000_000), batch_of(records, step_ms=0)

    assert ours[:12] + ours[16:] == theirs[:12] + theirs[16:]
    assert ours[12:16] == struct.pack(">i", -1)


@given(st.integers(0, 2**62))
def test_a_varint_is_read_as_it_was_written(number: int) -> None:
    """At each length, and where the looked-up ones end."""
    for one in (number, number % 10_000, 4_095, 4_096):
        written = headers.to_varint(one)
        assert headers.varint(written, 0) == (one, len(written))


@given(made, st.sampled_from(list(CODECS)))
def test_it_reads_what_kafka_python_reads(records: list[Made], codec: str) -> None:
    """Keys, values, headers, times and offsets, whatever the codec."""
    data = batch_of(records, CODECS[codec])
    theirs = read(data, reader=RecordReader.__mro__[1]).take()

    ours = taken(data)

    assert [(r.offset, r.key, r.value, r.headers, r.logged_at) for r in ours] == [
        (r.offset, r.key, r.value, r.headers, r.timestamp) for r in theirs
    ]
    assert {(r.partition, r.damage) for r in ours} == {(3, None)}


@pytest.mark.parametrize("codec", CODECS)
def test_good_records_around_a_damaged_one_are_read(codec: str) -> None:
    """A header name that is not UTF-8 is that record's damage, and nobody else's."""
    good: Made = (b"k", b"good", [("a", b"1")])
    bad: Made = (b"k", b"bad", [("a", b"1"), (NotUtf8("x"), b"y")])

    records = taken(batch_of([good, bad, good], CODECS[codec]))

    assert [(r.offset, r.value, r.damage is None) for r in records] == [
        (0, b"good", True), (1, b"bad", False), (2, b"good", True),
    ]  # fmt: skip
    assert "not UTF-8" in (records[1].damage or "")
    assert records[1].headers == [("a", b"1"), ("\\xff\\xfe-name", b"y")]


def test_reading_goes_on_in_the_middle_of_a_batch_and_in_portions() -> None:
    """A fetch brings whole batches; what was read before is left out, and the rest comes when it is asked for."""
    records: list[Made] = [(b"k", b"%d" % number, []) for number in range(10)]
    part = read(batch_of(records), fetch_offset=4)

    assert [r.offset for r in part.take(3)] == [4, 5, 6]
    assert part.next_fetch_offset == 7
    assert [r.offset for r in part.take(100)] == [7, 8, 9]
    assert part.next_fetch_offset == 10
    assert not part


def test_a_batch_that_cannot_be_read_comes_after_those_before_it() -> None:
    """What is good is given first; the error names itself when more is asked for, and the position stays."""
    good, bad = batch_of([(b"k", b"good", [])]), bytearray(batch_of([(b"k", b"bad", [])], offset=1))
    bad[-3] ^= 1
    part = read(good + bytes(bad))

    assert [r.value for r in part.take(10)] == [b"good"]
    assert part.next_fetch_offset == 1
    with pytest.raises(CorruptRecordError):
        part.take(10)


def test_a_transaction_marker_is_passed_and_not_given() -> None:
    """It belongs to Kafka; reading goes on behind it."""
    marker = bytearray(batch_of([(b"\x00\x00\x00\x01", b"\x00" * 6, [])]))
    marker[22] |= DefaultRecordBatch.CONTROL_MASK
    marker[17:21] = struct.pack(">I", calc_crc32c(bytes(marker[21:])))
    part = read(bytes(marker) + batch_of([(b"k", b"v", [])], offset=1))

    assert [(r.offset, r.value) for r in part.take(10)] == [(1, b"v")]
    assert part.next_fetch_offset == 2


def test_records_out_of_place_are_refused() -> None:
    """An offset that is there twice, or behind its batch's end, would tear the history."""
    batch = SimpleNamespace(
        _buffer=batch_of([(b"k", b"v", [])])[61:] * 2, _pos=0, base_offset=0, first_timestamp=0, max_timestamp=0,
        timestamp_type=1, LOG_APPEND_TIME=1, records_count=2, last_offset_delta=1, _maybe_uncompress=lambda: None,
    )  # fmt: skip
    with pytest.raises(CorruptRecordError, match="out of place"):
        list(batches._records(batch, 0))


def test_a_wrong_checksum_or_a_format_of_old_is_told() -> None:
    """The batch's, and nothing of it is given."""
    data = bytearray(batch_of([(b"k", b"value", [])]))
    data[-3] ^= 1
    with pytest.raises(CorruptRecordError, match="checksum"):
        taken(bytes(data))
    data[16] = 1
    with pytest.raises(CorruptRecordError):
        taken(bytes(data))


@pytest.mark.parametrize("codec", CODECS)
def test_a_batch_that_unpacks_to_more_than_is_read_is_refused(monkeypatch: pytest.MonkeyPatch, codec: str) -> None:
    """A few packed bytes can hold more than a store takes."""
    monkeypatch.setattr(batches, "BATCH_MAX_BYTES", 100_000)
    small, large = (batch_of([(b"k", bytes(size), [])], CODECS[codec]) for size in (90_000, 100_000))

    assert len(taken(small)) == 1
    with pytest.raises(CorruptRecordError, match="when it is unpacked"):
        taken(large)


@given(st.binary(max_size=200), st.integers(0, 20))
def test_no_payload_breaks_it_but_with_its_own_error(payload: bytes, count: int) -> None:
    """Whatever stands behind a header that promises records."""
    batch = SimpleNamespace(
        _buffer=payload, _pos=0, base_offset=0, first_timestamp=0, max_timestamp=0, timestamp_type=1,
        LOG_APPEND_TIME=1, records_count=count, last_offset_delta=100, _maybe_uncompress=lambda: None,
    )  # fmt: skip
    try:
        records = list(batches._records(batch, 0))
    except CorruptRecordError:
        return
    assert len(records) == count
    for record in records:
        assert isinstance(record.headers, list)


@given(st.binary(max_size=100))
def test_headers_that_make_no_sense_are_read_as_far_as_they_do(data: bytes) -> None:
    """Nothing raises: they are looked at when something is wrong already."""
    assert all(isinstance(name, str) for name, _ in headers.pairs(data))
    assert headers.first(data, b"traceparent") is None or b"traceparent" in data
    assert headers.damage(data) is None or not data.isascii()


def test_the_first_header_of_a_name_counts() -> None:
    """And only one whose value is ASCII text; a name within another header's value is none."""
    pairs = [("x", b"\x16traceparent\x02a"), ("traceparent", b"one"), ("traceparent", b"two")]
    (record,) = taken(batch_of([(b"k", b"v", pairs)]))
    assert record.traceparent == "one"
    (record,) = taken(batch_of([(b"k", b"v", [("traceparent", b"\xff"), ("traceparent", b"two")])]))
    assert record.traceparent is None
    (record,) = taken(batch_of([(b"k", b"v", [("x", b"traceparent")])]))
    assert record.traceparent is None
    (record,) = taken(batch_of([(b"k", b"v", [("traceparent", None)])]))
    assert record.traceparent is None


@given(
    st.binary(min_size=55, max_size=55)
    | st.from_regex(r"00-[0-9a-f]{32}-[0-9a-f]{16}-01", fullmatch=True).map(str.encode),
    st.lists(st.tuples(st.text(max_size=20), st.binary(max_size=20)), max_size=70),
)
def test_a_trace_context_in_front_is_found_as_any_other_is(value: bytes, others: list[tuple[str, bytes]]) -> None:
    """Its place is known without reading, however many headers there are and whatever they hold."""
    written = headers.to_bytes([("traceparent", value), *others])
    record = Record(0, 0, b"k", b"v", written, 0)

    assert record.traceparent == (value.decode() if value.isascii() else None) == headers.first(written, b"traceparent")
    assert record.headers == [("traceparent", value), *others]
