"""Where people ask for the healing of skipped messages: wishes are checked, shown, and put into the outbox."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, NamedTuple

from orderflow import tracing
from orderflow.controls import Verdict
from orderflow.errors import HealingRefused, InvalidMending
from orderflow.healing.preview import preview
from orderflow.healing.remedy import Context, remedy
from orderflow.store.outbox import Outbox
from orderflow.store.outbox_desk import OutboxDesk
from orderflow.store.outbox_rows import Command
from orderflow.store.places import Places, current_epoch
from orderflow.store.reader import Reader
from orderflow.store.rows import place_id
from orderflow.store.skips import Skips

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orderflow.healing.preview import Change
    from orderflow.healing.remedy import Remedy
    from orderflow.healing.wishes import Wish
    from orderflow.settings import Settings
    from orderflow.store.outbox_rows import Addition, Entry
    from orderflow.store.rows import ControlRow, SkippedRow
    from orderflow.tracing import Trace


class Prepared(NamedTuple):
    """What can be done, and what cannot, with the reason."""

    remedies: list[Remedy]
    left_out: list[tuple[SkippedRow, HealingRefused | InvalidMending]]


class HealingDesk:
    """The desk. Thread-safe."""

    def __init__(self, settings: Settings, reader: Reader | None = None) -> None:
        self._settings = settings
        self._reader = reader or Reader(settings)
        self._outbox = Outbox(settings)
        self._desk = OutboxDesk(settings)
        self.skips = Skips(self._reader)

    def under_way(self, skips: Sequence[SkippedRow]) -> dict[str, Entry]:
        """Give the controls that were asked for these skips and not read by the consumer yet."""
        asked = self._desk.under_way([place_id(skip.place) for skip in skips])
        if not asked:
            return {}
        ends = dict(self._reader.query("SELECT partition, next_offset FROM positions"))
        return {named: entry for named, entry in asked.items() if not _was_read(entry, ends)}

    def prepare(self, skips: Sequence[SkippedRow], wish: Wish, trace: Trace | None = None) -> Prepared:
        """Make the remedies for some skips; what cannot be done for one does not hold up the others.

        Raises:
            StoreError: the projection or the outbox cannot be read.

        """
        operation = str(uuid.uuid4()) if len(skips) > 1 else None
        context = Context(trace or tracing.join(None), operation)
        under_way = self.under_way(skips)
        prepared = Prepared([], [])
        with self._reader.snapshot() as snapshot:
            for skip in skips:
                try:
                    made = remedy(snapshot, skip, wish, context)
                    _refuse_second(skip, made, under_way)
                    prepared.remedies.append(made)
                except (HealingRefused, InvalidMending) as error:
                    prepared.left_out.append((skip, error))
        return prepared

    def preview(self, remedies: Sequence[Remedy]) -> list[Change]:
        """Say what they would do, order by order. Nothing is written."""
        with self._reader.snapshot() as snapshot:
            return preview(self._settings, snapshot, remedies)

    def ask(self, remedies: Sequence[Remedy]) -> list[Addition]:
        """Put them into the outbox, all in one transaction; give what became of each one's control.

        Raises:
            StoreError: none of them is in it, but where the error says that it is not certain.

        """
        commands: list[Command] = []
        controls: list[int] = []
        for one in remedies:
            named, successor = place_id(one.skip.place), None
            if one.event is not None:
                successor = one.event.event_id
                commands.append(Command(one.event, "event", named))
            controls.append(len(commands))
            commands.append(Command(one.control, "control", named, successor))
        additions = self._outbox.add_all(commands)
        return [additions[index] for index in controls]

    def epoch(self) -> int:
        """Give the life of the topic that is read now, 0 before the first."""
        current = current_epoch(self._reader.query)
        return 0 if current is None else current[0]

    def last_offset(self, skip: SkippedRow) -> int | None:
        """Give the offset of the last record of the skip's order, for `if_last`; None where it has none."""
        with self._reader.snapshot() as snapshot:
            return Places(snapshot).last_offset(skip.epoch, skip.order_id or "", None)

    def verdicts(self, remedies: Sequence[Remedy]) -> dict[str, ControlRow]:
        """Give the verdicts on those that the consumer has read, by the id of their control. A second copy has none."""
        ids = {one.control.event_id for one in remedies}
        places = {one.skip.place for one in remedies}
        rows = [row for place in places for row in self.skips.controls_of(place)]
        first_last = sorted(
            rows, key=lambda row: (row.epoch, row.offset), reverse=True
        )  # A copy with other bytes has a verdict, too.
        return {row.event_id: row for row in first_last if row.event_id in ids and row.verdict != Verdict.DUPLICATE}


def _was_read(entry: Entry, ends: dict[int, int]) -> bool:
    return entry.partition is not None and entry.offset is not None and entry.offset < ends.get(entry.partition, 0)


def _refuse_second(skip: SkippedRow, made: Remedy, under_way: dict[str, Entry]) -> None:
    name = place_id(skip.place)
    entry = under_way.get(name)
    if entry is None:
        return
    if entry.state == "held":
        raise HealingRefused(
            "under-way",
            f"What was asked for skip {name} is number {entry.seq} of the outbox, and Kafka refuses it: "
            f"`orderflow outbox retry {entry.seq}` or `orderflow outbox discard {entry.seq}` settles that.",
        )
    if entry.event_id != made.control.event_id:
        raise HealingRefused(
            "under-way",
            f"Something else is asked for skip {name} and not applied yet (number {entry.seq} of the outbox); wait for "
            f"it: `orderflow skipped show {name}`.",
        )
