"""All makers of bad records with their weights, and a fuzzed topic whose seed is told."""

from __future__ import annotations

import os
import secrets
from typing import TYPE_CHECKING

from tests.support import store
from tests.support.fuzz import controls, no_effect, not_an_event, not_json
from tests.support.fuzz.log import Fuzz

if TYPE_CHECKING:
    from orderflow.stack import Stack
    from tests.conftest import Figures

MAKERS = not_json.MAKERS | not_an_event.MAKERS | no_effect.MAKERS | controls.MAKERS


def begun(stack: Stack, figures: Figures, name: str) -> Fuzz:
    """Begin with a seed of ``FUZZ_SEED`` or of chance, and tell it."""
    seed = int(os.environ.get("FUZZ_SEED") or secrets.randbits(32))
    print(f"\nFUZZ_SEED={seed}", flush=True)  # noqa: T201 (how to repeat it)
    figures(f"{name}, FUZZ_SEED={seed}")
    return Fuzz(seed, topic_id_of(stack))


def topic_id_of(stack: Stack) -> str:
    ((topic_id,),) = store.query(stack.settings, "SELECT topic_id FROM log_epochs")
    return str(topic_id)
