"""Produce requests: how a group is put into batches, and what an answer says of each of its messages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from kafka import errors as kafka_errors
from kafka.protocol.producer import ProduceResponse

from orderflow.broker import partition_of
from orderflow.broker.requests import REQUEST_MAX_BYTES, Batch, Result, gather, settle
from orderflow.errors import RecordRejected, Rejected, Unacknowledged, Unsent
from orderflow.messages import Message, Published

if TYPE_CHECKING:
    from collections.abc import Sequence

Topic = ProduceResponse.TopicProduceResponse


def message(key: str, value: bytes = b"v") -> Message:
    return Message(key.encode(), value, (), key, f"event-{key}")


def answer(partition: int, error: type[kafka_errors.KafkaError] = kafka_errors.NoError, offset: int = -1) -> Any:
    """What a leader says of one partition."""
    return Topic.PartitionProduceResponse(
        index=partition, error_code=error.errno, base_offset=offset, error_message="what Kafka says"
    )


def settled(batches: Sequence[Batch], *answers: Any) -> list[Result]:
    """Settle the batches; give the results in the sequence of the group."""
    settle(batches, ProduceResponse(responses=[Topic(name="t", partition_responses=list(answers))]))
    return [result for _, result in sorted(one for batch in batches for one in batch.results())]


def test_a_group_becomes_one_batch_for_each_partition() -> None:
    group = [message(f"order-{number}") for number in range(40)]

    (batches,) = gather(group)

    assert len({batch.partition for batch in batches}) == len(batches)
    assert sorted(index for batch in batches for index in batch.indexes) == list(range(40))
    for batch in batches:
        assert batch.messages == [group[index] for index in batch.indexes]
        assert {partition_of(one.key) for one in batch.messages} == {batch.partition}
        assert batch.indexes == sorted(batch.indexes), "a partition's messages keep their sequence"


def test_a_partition_that_is_named_counts_and_not_the_key() -> None:
    """A control goes to the partition of the record it names, whatever its key."""
    own = partition_of(b"a")
    keyed, keyless = message("a"), Message(None, None, (), "", "e", partition=(own + 1) % 6)
    elsewhere = Message(b"a", b"v", (), "a", "e", partition=(own + 2) % 6)

    (batches,) = gather([keyed, keyless, elsewhere])

    assert [(batch.partition, batch.messages) for batch in batches] == [
        (own, [keyed]), ((own + 1) % 6, [keyless]), ((own + 2) % 6, [elsewhere]),
    ]  # fmt: skip


def test_a_request_has_a_bound_and_what_is_beyond_it_goes_alone() -> None:
    """Kafka takes 1 MiB a batch; a request's bound is below it, and no message is cut or left out."""
    tenth = b"x" * (REQUEST_MAX_BYTES // 10)
    group = [message(f"order-{number}", tenth) for number in range(25)]
    group.insert(7, message("huge", b"x" * (2 * REQUEST_MAX_BYTES)))

    requests = list(gather(group))

    indexes = [sorted(index for batch in request for index in batch.indexes) for request in requests]
    assert indexes == [list(range(7)), [7], list(range(8, 18)), list(range(18, 26))]


def test_each_message_is_where_its_batch_begins_and_as_far_behind() -> None:
    batches = [Batch(1, [message("a"), message("b")], [0, 2]), Batch(4, [message("c")], [1])]

    results = settled(batches, answer(4, offset=70), answer(1, offset=10))

    assert results == [Published(1, 10), Published(4, 70), Published(1, 11)]


@pytest.mark.parametrize(
    ("error", "result"),
    [
        (kafka_errors.NotEnoughReplicasError, Unsent),
        (kafka_errors.NotLeaderForPartitionError, Unacknowledged),
        (kafka_errors.UnknownTopicOrPartitionError, Unacknowledged),
        (kafka_errors.NotEnoughReplicasAfterAppendError, Unacknowledged),
        (kafka_errors.RequestTimedOutError, Unacknowledged),
        (kafka_errors.UnknownError, Unacknowledged),
        (kafka_errors.TopicAuthorizationFailedError, Rejected),
        (kafka_errors.MessageSizeTooLargeError, RecordRejected),
    ],
)
def test_an_error_says_whether_the_record_may_be_on_the_topic(
    error: type[kafka_errors.KafkaError], result: type[Exception]
) -> None:
    (told,) = settled([Batch(0, [message("a")], [0])], answer(0, error))

    assert type(told) is result
    assert "what Kafka says" in str(told)


def test_a_partition_that_the_answer_leaves_out_is_not_acknowledged() -> None:
    (told,) = settled([Batch(0, [message("a")], [0])], answer(1, offset=5))

    assert isinstance(told, Unacknowledged)


@pytest.mark.parametrize(
    ("error", "count", "spoiled"),
    [
        (kafka_errors.MessageSizeTooLargeError, 2, True),
        (kafka_errors.InvalidRecordError, 2, True),
        (kafka_errors.MessageSizeTooLargeError, 1, False),
        (kafka_errors.TopicAuthorizationFailedError, 2, False),
    ],
)
def test_a_batch_that_one_record_may_have_spoiled_is_known(
    error: type[kafka_errors.KafkaError], count: int, *, spoiled: bool
) -> None:
    batch = Batch(0, [message(f"o{number}") for number in range(count)], range(count))

    settled([batch], answer(0, error))

    assert batch.spoiled is spoiled
    assert [(one.indexes, one.messages) for one in batch.one_by_one()] == [
        ([number], [batch.messages[number]]) for number in range(count)
    ]
