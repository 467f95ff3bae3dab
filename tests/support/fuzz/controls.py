"""Makers of repairs and discards: broken, aimed at nothing, too late, twice, and some that take effect."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from orderflow.broker import PARTITIONS, partition_of
from tests.support.fuzz.log import INVALID, INVALID_CONTROL, MALFORMED, UNKNOWN_TYPE, Made
from tests.support.fuzz.no_effect import mutated
from tests.support.fuzz.not_an_event import NEVER, Bare, dumped
from tests.support.fuzz.not_json import no_value, reasons_of

if TYPE_CHECKING:
    from tests.support.fuzz.log import Fuzz, Json

CONTROL_WRONG: dict[str, tuple[Any, ...]] = {
    "event_id": (7, None, "x", "2F1F4F0F-6B52-4C0F-8D5E-3F2E9B1C6A77"),
    "topic_id": (7, None),
    "partition": (-1, 2**31, "1", 1.5, None, Bare("1.0")),
    "offset": (-1, 2**63, "1", 1.5, None, Bare("0.0")),
    "author": (7, None, "\n", "x" * 201),
    "reason": (7, None, "x" * 2_001),
    "operation": (7, "x"),
    "occurred_at": (7, "yesterday", "2026-01-02T03:04:05"),
}
REPAIR_WRONG = CONTROL_WRONG | {
    "if_last": (-1, 2**63, "1", None),
    "event": (7, None, "text", {"type": "order.created"}, {"type": "message.repaired"}, {"type": 7}),
}
DISCARD_WRONG = CONTROL_WRONG | {"if_last": (-1, 2**63, "1"), "successor": (7, "x")}

#: Of `NEVER`, what a text for people may be.
PLAIN_TEXT = ("\x00", "\u0085", "", " ", "x" * 300)


def somewhere(fuzz: Fuzz) -> tuple[int, int, bytes | None]:
    """A place with a record whose key is known, and the key."""
    partition = fuzz.rng.randrange(PARTITIONS)
    log = fuzz.logs[partition]
    while not log or log[offset := fuzz.rng.randrange(len(log))].lost:
        no_value(fuzz)
    return partition, offset, log[offset].raw.key


def no_control(fuzz: Fuzz) -> None:
    """It has the type of a control, and a member is missing or wrong."""
    partition, offset, key = somewhere(fuzz)
    said = fuzz.control(partition, offset, "x")
    members = REPAIR_WRONG if said["type"] == "message.repaired" else DISCARD_WRONG
    name, wrong = fuzz.rng.choice(list(members)), None
    if name in said and name not in ("reason", "operation") and fuzz.rng.random() < 0.3:
        del said[name]
    else:
        never = [one for one in NEVER if not (name in ("topic_id", "author", "reason") and one in PLAIN_TEXT)]
        said[name] = wrong = fuzz.rng.choice([*never, *members[name]])
    value = dumped(said, wrong)
    if fuzz.rng.random() < 0.2:
        value = value.replace(b"message.", b"\\u006dessage\\u002E")
    fuzz.put(partition, key, value, INVALID_CONTROL)


def nowhere(fuzz: Fuzz) -> None:
    """A control whose form is right, and that names nothing it could act on."""
    partition, offset, key = somewhere(fuzz)
    said = fuzz.control(partition, offset, "x")
    own = len(fuzz.logs[partition])
    nonsense: Json = fuzz.rng.choice(
        (
            {"topic_id": fuzz.id()}, {"topic_id": fuzz.topic_id.upper()}, {"topic_id": "x"}, {"topic_id": "\x00"},
            {"partition": (partition + 1) % PARTITIONS}, {"partition": 6}, {"partition": 2**31 - 1},
            {"offset": own}, {"offset": own + 1}, {"offset": 2**63 - 1}, "key", "key", "event",
        )
    )  # fmt: skip
    if nonsense == "key":
        key = fuzz.rng.choice([one for one in (b"", None, b"\xff", fuzz.name("never").encode()) if one != key])
    elif nonsense == "event":
        said = fuzz.control(partition, offset, "never the order of a key", "message.repaired")
    else:
        said |= nonsense
    _control(fuzz, partition, key, said, INVALID_CONTROL)


def _control(fuzz: Fuzz, partition: int, key: bytes | None, said: Json, *reasons: str, verdict: str = "") -> None:
    fuzz.controls.append((partition, key, said))
    fuzz.put(partition, key, json.dumps(said).encode(), *reasons, outcome=verdict)


def control_again(fuzz: Fuzz) -> None:
    """The id of an earlier control: byte for byte it is a duplicate, else it is none."""
    if not fuzz.controls:
        return
    partition, key, said = fuzz.rng.choice(fuzz.controls)
    if fuzz.rng.random() < 0.3:
        fuzz.put(partition, key, json.dumps(said).encode(), outcome="duplicate")
    else:
        again = fuzz.rng.choice((said | {"author": "another"}, said | {"more": 1}, said | {"offset": 0, "reason": ""}))
        fuzz.put(partition, key, json.dumps(again).encode(), INVALID_CONTROL)


def mutant_control(fuzz: Fuzz) -> None:
    """A damaged copy of a control that names another log, so that it does nothing whatever the damage."""
    partition, offset, key = somewhere(fuzz)
    value = mutated(fuzz.rng, fuzz.json(fuzz.control(partition, offset, "x") | {"topic_id": fuzz.id()}))
    fuzz.put(partition, key, value, *reasons_of(value, INVALID, UNKNOWN_TYPE, INVALID_CONTROL))


def harmless_control(fuzz: Fuzz) -> None:
    """It is right, and too late; or it discards. None of these is a skip."""
    if fuzz.rng.random() < 0.4:
        order = fuzz.rng.choice(fuzz.orders)
        log = fuzz.logs[order.partition]
        applied = [at for at in range(max(0, len(log) - 300), len(log)) if log[at].raw.key == order.key]
        applied = [at for at in applied if log[at].outcome == "applied"]
        if applied:
            said = fuzz.control(order.partition, fuzz.rng.choice(applied), order.order_id)
            _control(fuzz, order.partition, order.key, said, verdict="superseded")
    elif fuzz.open:
        partition, offset = place = fuzz.rng.choice(fuzz.open)
        key = fuzz.logs[partition][offset].raw.key or b""
        if fuzz.rng.random() < 0.5:
            said = fuzz.control(partition, offset, key.decode()) | {"if_last": 2**40}
            _control(fuzz, partition, key, said, verdict="stale")
        else:
            said = fuzz.control(partition, offset, key.decode(), "message.discarded")
            _control(fuzz, partition, key, said, verdict="accepted")
            fuzz.settle(place, "discarded")


def repair(fuzz: Fuzz) -> None:
    """A broken create, and the repair that makes an order of it."""
    order_id = fuzz.name("mended")
    key, (event, cents) = order_id.encode(), fuzz.create(order_id)
    partition = partition_of(key)
    offset = fuzz.put(partition, key, fuzz.json(event)[:-1], MALFORMED)
    fuzz.open.append((partition, offset))
    said = fuzz.control(partition, offset, order_id, "message.repaired") | {"if_last": offset, "event": event}
    _control(fuzz, partition, key, said, verdict="accepted")
    fuzz.settle((partition, offset), "repaired")
    fuzz.mended.append(Made(order_id, cents, []))


MAKERS = {no_control: 8, nowhere: 6, control_again: 3, mutant_control: 6, harmless_control: 4, repair: 1}
