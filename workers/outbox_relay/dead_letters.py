"""Copies of skipped messages for the dead-letter topic, beside the relay's own work and never in its way.

A copy counts as made when Kafka has acknowledged it. Killed before that is noted, the relay makes it again: a reader of
the topic may see one twice. What is in the way of the copies (no such topic, no permission) is waited out; a message
that Kafka refuses for what it is has no copy, and stays where it is kept, in orders.db.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import msgspec
import structlog

from orderflow.broker import PARTITIONS, Producer, ensure_dead_letter_topic
from orderflow.delays import growing_delays
from orderflow.errors import BrokerError, RecordRejected, StoreError, Unacknowledged, Unsent
from orderflow.messages import Message, Published
from orderflow.store.dead_letters import START, DeadLetter, DeadLetterMarks, DeadLetters, Limits, Mark, Stretch
from orderflow.store.rows import place_id
from outbox_relay.relay import PROGRAM

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orderflow.broker import Topic
    from orderflow.broker.requests import Result
    from orderflow.settings import Settings

#: How often it is looked whether something was skipped.
LOOK_EVERY_S = 1.0

#: What one turn may copy of each partition: it takes as long as delivering some events does.
LIMITS = Limits(messages=100, bytes=1024 * 1024)

#: Beyond this no copy is tried. A record that came compressed may be so large that a broker would hang up on it.
COPY_MAX_BYTES = 16 * 1024 * 1024

#: While there is trouble, copies are tried again less and less often, up to so many times the workers' longest delay:
#: a try may hold up the relay for as long as Kafka takes to answer.
PATIENCE = 15

#: In front of the names of the headers that tell of the original.
PREFIX = "dead-letter-"

log = structlog.get_logger(PROGRAM)

_headers = msgspec.json.Decoder(list[tuple[str, bytes | None]])


class Copier:
    """Copies what was skipped, some of it a turn. Not thread-safe."""

    def __init__(self, settings: Settings, producer: Producer) -> None:
        self._settings = settings
        self._producer = producer
        self._letters = DeadLetters(settings)
        self._marks = DeadLetterMarks(settings)
        self._topic: Topic | None = None
        self._delays = growing_delays(settings, PATIENCE)
        self._next_at = 0.0
        #: How far the copies have come where that is not noted yet.
        self._moved: dict[Stretch, Mark] = {}
        self._noted = 0
        #: Copies that were made since the start.
        self.copied = 0

    @classmethod
    def of(cls, settings: Settings) -> Copier:
        """Make one with a producer of its own."""
        return cls(settings, Producer(settings, PROGRAM, topic=settings.dead_letter_topic_name))

    def close(self) -> None:
        """Close the connections and the file."""
        self._producer.drop()
        self._marks.close()

    def turn(self) -> None:
        """Copy some, where it is time to. Raises nothing: the relay has other work to do."""
        if time.monotonic() < self._next_at:
            return
        try:
            more = self._copy_some()
        except (BrokerError, StoreError) as error:
            self._try_later(error)
        except Exception as error:
            log.exception("dead_letter.failed")
            self._try_later(error)
        else:
            self._delays = growing_delays(self._settings, PATIENCE)
            self._next_at = time.monotonic() + (0 if more else LOOK_EVERY_S)

    def _try_later(self, error: Exception) -> None:
        delay_s = next(self._delays)
        self._next_at = time.monotonic() + delay_s
        self._topic = None  # It may have been removed: it is asked for again.
        stuck_at = _place(error.letter) if isinstance(error, _NotCopied) else {}
        to = self._settings.dead_letter_topic_name
        log.warning("dead_letter.retry_scheduled", delay_s=delay_s, to=to, error=str(error), **stuck_at)

    def _copy_some(self) -> bool:
        """Copy what comes next of each partition; tell whether there was something.

        Raises:
            BrokerError: Kafka did not take all.
            StoreError: it cannot be read, or noted, how far the copies have come.

        """
        self._note()
        self._compare_epochs()
        letters = self._letters.behind(self._marks.all(), range(PARTITIONS), LIMITS)
        if not letters:
            return False
        if self._topic is None:
            self._topic = ensure_dead_letter_topic(self._settings, PROGRAM)
        failed = self._take_note(letters, self._results(letters, self._topic.partitions))
        self._note()
        if failed is not None:
            raise failed
        return True

    def _compare_epochs(self) -> None:
        """Forget the marks of a log that orders.db does not know any more; note an epoch that is new."""
        marks = self._marks.all()
        for topic_id, epoch in self._letters.epochs().items():
            marked = max((stretch.epoch for stretch in marks if stretch.topic_id == topic_id), default=epoch)
            if marked > epoch:
                log.warning("dead_letter.marks_forgotten", topic_id=topic_id, epoch=epoch, marked=marked)
                self._marks.forget(topic_id)
            elif marked < epoch:
                self._marks.move({Stretch(topic_id, epoch, 0): START})

    def _results(self, letters: Sequence[DeadLetter], partitions: int) -> list[Result]:
        """Send the copies, but those that are too large for any topic; one result for each."""
        results: list[Result] = [RecordRejected(f"It is larger than {COPY_MAX_BYTES} bytes.")] * len(letters)
        fitting = [(at, letter) for at, letter in enumerate(letters) if len(letter.skip.value or b"") <= COPY_MAX_BYTES]
        for (at, _), result in zip(fitting, self._send([letter for _, letter in fitting], partitions), strict=True):
            results[at] = result
        return results

    def _send(self, letters: Sequence[DeadLetter], partitions: int) -> list[Result]:
        """Send the copies; where that raises an error that nobody foresaw, each alone: it may be one message's."""
        try:
            return self._deliver(letters, partitions)
        except Exception:
            log.exception("dead_letter.failed", messages=len(letters))
        results: list[Result] = [Unsent("Kafka did not take what was to be sent before it.")] * len(letters)
        for at, letter in enumerate(letters):
            results[at] = self._result_alone(letter, partitions)
            if isinstance(results[at], (Unsent, Unacknowledged)):
                break  # Each of the others would take as long to fail.
        return results

    def _result_alone(self, letter: DeadLetter, partitions: int) -> Result:
        try:
            (result,) = self._deliver([letter], partitions)
        except (OSError, MemoryError) as error:  # the machine's, which passes
            return Unacknowledged(f"Sending it failed: {error}")
        except Exception as error:  # noqa: BLE001 (here it is decided what becomes of the message)
            return RecordRejected(f"Sending it raised an error that nobody foresaw: {error!r}")
        return result

    def _deliver(self, letters: Sequence[DeadLetter], partitions: int) -> list[Result]:
        group = self._settings.consumer_group
        return self._producer.deliver([copy_of(letter, group, partitions) for letter in letters])

    def _take_note(self, letters: Sequence[DeadLetter], results: Sequence[Result]) -> _NotCopied | None:
        """Move the marks behind what is copied or has no copy; where a partition has failed no further.

        Tell what is to be tried again first.
        """
        failed: dict[Stretch, _NotCopied] = {}
        for letter, result in zip(letters, results, strict=True):
            if letter.stretch in failed:
                continue
            if isinstance(result, Published):
                self.copied += 1
            elif isinstance(result, RecordRejected):
                log.error("dead_letter.rejected", error=str(result), **_place(letter))
            else:
                failed[letter.stretch] = _NotCopied(str(result), letter)
                continue
            self._moved[letter.stretch] = letter.mark
        return next(iter(failed.values()), None)

    def _note(self) -> None:
        """Write down how far the copies have come. Before that is done none is made: they would be made again."""
        if self._moved:
            self._marks.move(self._moved)
            self._moved = {}
        if self.copied > self._noted:
            log.info("dead_letter.copied", messages=self.copied - self._noted)
            self._noted = self.copied


class _NotCopied(BrokerError):
    """A copy was not acknowledged; those behind it wait for it."""

    def __init__(self, detail: str, letter: DeadLetter) -> None:
        super().__init__(detail)
        self.letter = letter


def copy_of(letter: DeadLetter, group: str, partitions: int) -> Message:
    """Give a skip's copy: the record as it came, and behind its own headers those that tell of it.

    It goes to the partition of the same number, where there are as many.
    """
    skip = letter.skip
    told = {
        "original-topic": letter.topic,
        "original-partition": skip.partition,
        "original-offset": skip.offset,
        "original-timestamp": skip.logged_at,
        "reason": skip.reason,
        "detail": skip.detail,
        "exception-class": skip.exception,
        "attempts": skip.attempts,
        "group": group,
    }
    headers = (
        *_headers.decode(skip.headers),
        *((PREFIX + name, str(value).encode()) for name, value in told.items() if value is not None),
    )
    return Message(skip.key, skip.value, headers, "", place_id(skip.place), "", skip.partition % partitions)


def _place(letter: DeadLetter) -> dict[str, object]:
    skip = letter.skip
    return {
        "topic": letter.topic,
        "epoch": skip.epoch,
        "partition": skip.partition,
        "offset": skip.offset,
        "reason": skip.reason,
    }
