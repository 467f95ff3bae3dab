"""Repairs against a model, as in tests/unit/test_healing_properties.py, with many more examples.

HEALING_SEED=… repeats a run, HEALING_EXAMPLES=… makes it longer.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, seed, settings

from tests.support.healing import wishes as drawn
from tests.support.healing.author import Author
from tests.support.healing.labels import COMMON, RARE
from tests.support.healing.properties import PROFILE, SHRINKING_MAX_S, check

if TYPE_CHECKING:
    from tests.conftest import Figures
    from tests.support.healing.wishes import Life, Turn, Wish

SEED = int(os.environ.get("HEALING_SEED") or random.randrange(2**32))  # noqa: S311 (no secret)
EXAMPLES = int(os.environ.get("HEALING_EXAMPLES") or 600)


@pytest.mark.faults
@pytest.mark.timeout(SHRINKING_MAX_S + EXAMPLES)
def test_repairs_come_to_what_the_rules_say_in_many_logs(figures: Figures) -> None:
    """Of one life and of several."""
    seen: Counter[str] = Counter()
    figures("healing properties", seed=SEED, examples=EXAMPLES)

    @seed(SEED)
    @settings(PROFILE, max_examples=EXAMPLES, database=None)
    @given(wishes=drawn.wishes, lives=drawn.lives_or_none, turns=drawn.turns, begin=drawn.begins)
    def hold(wishes: list[Wish], lives: list[Life], turns: list[Turn], begin: int) -> None:
        author = Author(wishes, lives)
        check(author, turns, begin)
        seen.update(author.seen)

    hold()

    figures("healing properties, seen", **{case: seen[case] for case in COMMON + RARE})
