"""Produce requests: a group of messages as batches, one for each partition, and what the broker answers of each."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from kafka import errors as kafka_errors
from kafka.protocol.producer import ProduceRequest

from orderflow.broker.batches import encode_batch
from orderflow.broker.topic import partition_of
from orderflow.errors import RecordRejected, Rejected, Unacknowledged, Unsent
from orderflow.messages import Published

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from kafka.protocol.producer import ProduceResponse

    from orderflow.messages import Message

Result = Published | Unsent | Unacknowledged | Rejected

#: Kafka refuses a record, and with it the batch that the record is in.
SPOILS_BATCH = (
    kafka_errors.MessageSizeTooLargeError,
    kafka_errors.RecordListTooLargeError,
    kafka_errors.InvalidRecordError,
)

#: Kafka says no, and would say it again: no retry mends these.
FINAL = (
    *SPOILS_BATCH,
    kafka_errors.InvalidTopicError,
    kafka_errors.PolicyViolationError,
    kafka_errors.AuthorizationError,
)

#: The broker answers this only before it appends. "Not the leader" is no such answer: with acks=all it is also what a
#: leader says that lost its place while it waited for the replicas of what it had appended.
NOT_APPENDED = kafka_errors.NotEnoughReplicasError

#: All replicas in sync have it before the broker answers.
ACKS_ALL = -1

#: Of the request: from 13 on it names the topic by its id.
VERSION = 9

#: Values beyond this go into the next request. A broker takes 1 MiB a batch, unless it is told otherwise; and
#: kafka-python keeps a buffer of the largest request for each thread that ever sent one.
REQUEST_MAX_BYTES = 128 * 1024


class Batch:
    """The messages for one partition in one request: all of them meet the same fate."""

    __slots__ = ("forbidden", "indexes", "messages", "partition", "result", "spoiled")

    def __init__(self, partition: int, messages: Sequence[Message] = (), indexes: Sequence[int] = ()) -> None:
        self.partition = partition
        self.messages = list(messages)
        self.indexes = list(indexes)  # of the messages in their group
        self.result: Result = Unsent("Kafka was not reached in time.")  # where Published: the first message's place
        self.spoiled = False  # refused as a whole, perhaps for one of its records
        self.forbidden = False  # refused for want of a permission, which a client goes on to believe for minutes

    @property
    def failed(self) -> bool:
        """Whether another attempt may change what came of it."""
        return isinstance(self.result, (Unsent, Unacknowledged))

    def results(self) -> Iterator[tuple[int, Result]]:
        """Yield the index of each message, and what came of it."""
        result = self.result
        for delta, index in enumerate(self.indexes):
            yield index, Published(self.partition, result.offset + delta) if isinstance(result, Published) else result

    def one_by_one(self) -> Iterator[Batch]:
        """Yield a batch for each message."""
        for index, message in zip(self.indexes, self.messages, strict=True):
            yield Batch(self.partition, [message], [index])

    def fail(self, error: Exception, *, appended: bool) -> None:
        """Take note of an error; ``appended`` says whether the records may be on the topic in spite of it."""
        if isinstance(error, FINAL):
            of_record = isinstance(error, SPOILS_BATCH)
            self.result = RecordRejected(str(error)) if of_record else Rejected(str(error))
            self.spoiled = of_record and len(self.messages) > 1
            self.forbidden = isinstance(error, kafka_errors.AuthorizationError)
        else:
            self.result = Unacknowledged(str(error)) if appended else Unsent(str(error))


def gather(messages: Sequence[Message]) -> Iterator[list[Batch]]:
    """Put messages into batches by their partition; yield those of one request after the other."""
    batches: dict[int, Batch] = {}
    size = 0
    for index, message in enumerate(messages):
        length = len(message.value or b"")
        if size and size + length > REQUEST_MAX_BYTES:
            yield list(batches.values())
            batches, size = {}, 0
        partition = message.partition
        if partition is None:
            partition = partition_of(message.key)
        batch = batches.get(partition)
        if batch is None:
            batch = batches[partition] = Batch(partition)
        batch.messages.append(message)
        batch.indexes.append(index)
        size += length
    if batches:
        yield list(batches.values())


def produce_request(topic: str, batches: Sequence[Batch], timeout_ms: int) -> ProduceRequest:
    """Write the request for batches of one leader, each of another partition."""
    now_ms = time.time_ns() // 1_000_000
    data = ProduceRequest.TopicProduceData
    partitions = [
        data.PartitionProduceData(index=batch.partition, records=encode_batch(batch.messages, now_ms))
        for batch in batches
    ]
    return ProduceRequest(
        transactional_id=None,
        acks=ACKS_ALL,
        timeout_ms=timeout_ms,
        topic_data=[data(name=topic, partition_data=partitions)],
        min_version=VERSION,
        max_version=VERSION,
    )


def settle(batches: Sequence[Batch], response: ProduceResponse) -> None:
    """Take note of what the leader answered of each batch."""
    answers = {answer.index: answer for topic in response.responses for answer in topic.partition_responses}
    for batch in batches:
        answer = answers.get(batch.partition)
        if answer is None:
            batch.result = Unacknowledged(f"Kafka's answer says nothing of partition {batch.partition}.")
        elif answer.error_code == kafka_errors.NoError.errno:
            batch.result = Published(batch.partition, answer.base_offset)
        else:
            said = (answer.error_message,) if answer.error_message else ()
            error = kafka_errors.for_code(answer.error_code)(*said)
            batch.fail(error, appended=not isinstance(error, NOT_APPENDED))
