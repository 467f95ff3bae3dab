"""Looking into the log with consumers that belong to no group: whether it still reaches so far, what cannot be read."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from kafka import OffsetAndMetadata, TopicPartition

from orderflow.broker.clients import milliseconds
from orderflow.broker.consuming import LEAST_WAIT_S, OUT_OF_RANGE, is_damage, new_consumer
from orderflow.errors import BrokerError, LogInDoubt, LogReplaced
from orderflow.records import UnreadableRecord

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from orderflow.broker.fetching import End
    from orderflow.broker.topic import Topic
    from orderflow.settings import Settings

#: Unreadable offsets that are looked for in one go; the rest is found in the next.
UNREADABLE_RUN = 500


def verify_ends(settings: Settings, topic: Topic, ends: Mapping[int, End]) -> None:
    """Make sure that the log still reaches as far as it was seen to, with the records of that time.

    What was not applied yet has no anchor. But a broker knows where each epoch of its leaders ended, and a cut moves
    that: kafka-python asks for it when it is told the epoch of an offset.

    Raises:
        LogInDoubt: Kafka did not say.
        LogReplaced: it does not.

    """
    left = dict(ends)
    while left:
        left = _verify_some(settings, topic, left)


def _verify_some(settings: Settings, topic: Topic, ends: Mapping[int, End]) -> dict[int, End]:
    """Make sure of some, and give those that are left: a batch that cannot be read ends the look."""
    consumer, fetcher = new_consumer(settings, topic, "order-consumer-probe", fetch_max_wait_ms=1)
    try:
        partitions = {TopicPartition(topic.name, number): end for number, end in ends.items()}
        consumer.assign(list(partitions))
        for partition, end in partitions.items():
            place = OffsetAndMetadata(end.offset, "", end.leader_epoch)
            consumer._subscription.seek(partition, place)  # noqa: SLF001 (the consumer's own takes no epoch)
        deadline = time.monotonic() + settings.kafka_request_timeout_s
        while fetcher.ends.keys() != ends.keys() and fetcher.doubt() is None and time.monotonic() < deadline:
            consumer.poll(timeout_ms=milliseconds(LEAST_WAIT_S), max_records=1)
    except OUT_OF_RANGE as error:
        raise LogReplaced(f"Records are gone that were there and had not been applied yet: {error}") from error
    except Exception as error:
        if not is_damage(error):
            raise LogInDoubt(f"Kafka did not say where its partitions end: {error}") from error
        if not fetcher.ends:
            raise LogInDoubt(f"Nothing could be read of the partitions: {error}") from error
    finally:
        consumer.close(autocommit=False, timeout_ms=1_000)
    if fetcher.doubt() is not None or not fetcher.ends:
        raise LogInDoubt(fetcher.doubt() or "Kafka did not say where its partitions end")
    # Where a batch is that cannot be read, the log reaches as far; what to do about it is found when it is read.
    return {number: end for number, end in ends.items() if number not in fetcher.ends}


def locate_unreadable(
    settings: Settings, topic: Topic, reached: Mapping[int, int], goes_on: Callable[[], bool] = lambda: True
) -> list[UnreadableRecord]:
    """Find the records at and behind the reached offsets that cannot be read; none means that it has passed.

    Reads with consumers of its own, which belong to no group, and asks before each whether to go on.

    Raises:
        BrokerError: Kafka refuses to be read; nothing is known of the records.

    """
    found: list[UnreadableRecord] = []
    for number, offset in sorted(reached.items()):
        partition = TopicPartition(topic.name, number)
        for at in range(offset, offset + UNREADABLE_RUN):
            error: str | None = "not tried"
            for _ in range(1 + settings.unreadable_retries):
                if not goes_on():
                    return found
                error = error and _try_to_read(settings, topic, partition, at)
            if error is None:
                break
            found.append(UnreadableRecord(number, at, error))
    return found


def _try_to_read(settings: Settings, topic: Topic, partition: TopicPartition, offset: int) -> str | None:
    """Read one record; its error, or None when it can be read or nothing is there."""
    consumer, _ = new_consumer(settings, topic, "order-consumer-probe", max_poll_records=1)
    try:
        consumer.assign([partition])
        consumer.seek(partition, offset)
        consumer.poll(timeout_ms=milliseconds(settings.poll_timeout_s))
    except OUT_OF_RANGE:
        return None
    except Exception as error:
        if not is_damage(error):
            raise BrokerError(f"Kafka refuses to be read: {error}") from error
        return f"{type(error).__name__}: {error}"
    else:
        return None
    finally:
        consumer.close(autocommit=False, timeout_ms=1_000)
