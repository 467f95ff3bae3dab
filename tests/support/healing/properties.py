"""What holds whatever is sent, damaged, mended, cut, interleaved and killed, and how often it is tried."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from hypothesis import HealthCheck, Phase, event, note, settings

from tests.support.healing.comparison import Tables, expect
from tests.support.healing.driver import applied, rebuilt
from tests.support.healing.wishes import AT_ONCE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.support.healing.author import Author
    from tests.support.healing.wishes import Turn

#: Explaining takes longer than shrinking, and says nothing of a whole system.
PROFILE = settings(
    deadline=None,
    phases=set(Phase) - {Phase.explain},
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)

#: In seconds: when a property does not hold, its smallest example is looked for.
SHRINKING_MAX_S = 400


def check(author: Author, turns: Sequence[Turn], begin: int) -> None:
    """Assert that the log comes to what the model says: read in turns, read at once, and rebuilt.

    The log that is rebuilt has lost what is before the offset ``begin``, and what raised an error raises none.
    """
    for label in author.seen:
        event(label)
    note(repr(author.lives))
    with tempfile.TemporaryDirectory(prefix="healing") as folder:
        incremental = applied(Path(folder, "in-turns"), author.lives, turns)
        tables = Tables(incremental)
        expect(tables, author.oracle)
        at_once = Tables(applied(Path(folder, "at-once"), author.lives, AT_ONCE))
        assert at_once.rows == tables.rows
        differences = rebuilt(incremental, *author.lives[-1], 0 if author.has_bugs else begin)
        assert author.has_bugs or not differences.total, differences
        expect(Tables(incremental), author.without_bugs())
