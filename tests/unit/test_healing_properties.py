"""Repairs through the real store, against a model: whatever is sent, damaged, mended, cut, interleaved and killed.

The rules are docs/adr/0013-repairs-on-the-topic.md, the model is tests/support/healing/model.py. More examples are
tried by tests/faults/test_healing_properties_long.py.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given, seed, settings

from tests.support.healing import wishes as drawn
from tests.support.healing.author import Author
from tests.support.healing.labels import COMMON, RARE
from tests.support.healing.properties import PROFILE, SHRINKING_MAX_S, check
from tests.support.healing.wishes import Act, Say, Turn

if TYPE_CHECKING:
    from tests.support.healing.wishes import Life, Wish

#: A discard takes an id; an event with it raises an error; its copy is in conflict with what was discarded.
TAKEN_BEFORE_AN_INTERNAL_ERROR = [
    Say(0, 1, 0, "unknown type"), Act(repair=False), Say(0, 1, 0, "unapplicable"), Say(0, 1, 0),
]  # fmt: skip

#: An event is discarded since it has the id that a repair goes by. A second repair in that place goes by another one:
#: now the discarded event owns the id, and its copy is a duplicate.
IN_CONFLICT_WITH_WHAT_IS_MENDED_AGAIN = [
    Say(0, None, 0, "malformed"), Act(repair=True, saying=1, id="an event's"), Say(0, 1, 0), Act(repair=False),
    Act(repair=True), Say(0, 1, 0),
]  # fmt: skip


@pytest.mark.timeout(SHRINKING_MAX_S)
@settings(PROFILE, max_examples=50)
@given(wishes=drawn.wishes, turns=drawn.turns, begin=drawn.begins)
@example(wishes=TAKEN_BEFORE_AN_INTERNAL_ERROR, turns=[Turn(0, "write")], begin=0)
@example(wishes=IN_CONFLICT_WITH_WHAT_IS_MENDED_AGAIN, turns=[Turn(0, "read on")], begin=0)
def test_repairs_come_to_what_the_rules_say(wishes: list[Wish], turns: list[Turn], begin: int) -> None:
    """However the log is cut, interleaved and killed on the way, and when it is rebuilt from what is left of it."""
    check(Author(wishes), turns, begin)


@pytest.mark.timeout(SHRINKING_MAX_S)
@settings(PROFILE, max_examples=25)
@given(wishes=drawn.wishes, lives=drawn.lives, turns=drawn.turns, begin=drawn.begins)
def test_repairs_in_several_lives_of_the_log(
    wishes: list[Wish], lives: list[Life], turns: list[Turn], begin: int
) -> None:
    """Each control is judged within its own, and an order is the fold of all."""
    check(Author(wishes, lives), turns, begin)


def test_each_case_comes_about() -> None:
    """In logs as they are drawn above, but always the same."""
    seen: Counter[str] = Counter()

    @seed(1)
    @settings(PROFILE, max_examples=150, database=None)
    @given(wishes=drawn.wishes, lives=drawn.lives)
    def lay_down(wishes: list[Wish], lives: list[Life]) -> None:
        seen.update(Author(wishes, lives).seen)

    lay_down()

    assert {case: seen[case] for case in COMMON if seen[case] < 20} == {}
    assert {case: seen[case] for case in RARE if seen[case] < 2} == {}
