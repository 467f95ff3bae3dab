"""What is drawn: wishes, such as "repair the last open skip, and be late", and how what they lead to is read.

Numbers are taken modulo what there is. A word that stands more often in a tuple is drawn more often.
"""

from __future__ import annotations

from itertools import chain
from typing import NamedTuple

from hypothesis import strategies as st


class Say(NamedTuple):
    """An event of an order; ``gap`` offsets before it have no record."""

    order: int
    id: int | None
    saying: int
    harm: str = ""
    address: str = "own"
    gap: int = 0


class Again(NamedTuple):
    """A record once more, byte for byte."""

    back: int


class Act(NamedTuple):
    """A control, so many ``times``; ``sight`` is where its author saw the order's last record."""

    repair: bool
    among: str = "open"
    back: int = 0
    saying: int = 0
    sight: str = "now"
    id: str = "own"
    operation: int | None = None
    fault: str = ""
    times: int = 1


class Resend(NamedTuple):
    """An event by the id that a skip goes by, as its sender would send it again."""

    back: int
    saying: int


class Bulk(NamedTuple):
    """Controls that were asked for together: one for each open skip of an order."""

    order: int
    repair: bool
    saying: int


class SendAgain(NamedTuple):
    """A skip's event at the end, and a discard of the skip."""

    back: int
    saying: int


Wish = Say | Again | Act | Resend | Bulk | SendAgain


class Life(NamedTuple):
    """A further life of the log: so many records of the one before are sent again first."""

    replayed: int
    where_they_were: bool
    same_topic: bool
    wishes: list[Wish]


class Turn(NamedTuple):
    """Which partition the next record is read from, and what happens then.

    A kill comes in the transaction of that number from here on, or between two batches where there are fewer.
    """

    partition: int
    then: str
    transaction: int = 0


HARMS = ("",) * 30 + (
    "malformed", "null", "list", "no value", "wrong value", "wrong value", "bad id", "unknown type", "unknown type",
    "undecodable", "unapplicable", "unapplicable", "unapplicable", "unreadable", "unreadable, unapplicable", "lost",
)  # fmt: skip
ADDRESSES = ("own",) * 24 + ("no key", "no key", "other key", "other key", "elsewhere", "elsewhere", "odd key")
FAULTS = ("",) * 30 + (
    "topic", "partition", "ahead", "itself", "none", "key", "other order", "no event", "no if_last", "no author",
    "unreadable", "undecodable", "unapplicable",
)  # fmt: skip

say = st.builds(
    Say,
    order=st.sampled_from((0, 0, 0, 0, 0, 1, 2, 3)),
    id=st.sampled_from((None, 1, 1, 2, 2, 3)),
    saying=st.sampled_from((0, 0, 1, 2, 3)),
    harm=st.sampled_from(HARMS),
    address=st.sampled_from(ADDRESSES),
    gap=st.sampled_from((0, 0, 0, 0, 0, 1)),
)
act = st.builds(
    Act,
    repair=st.sampled_from((True, True, False)),
    among=st.sampled_from(("open", "open", "open", "healing", "healing", "skips", "discarded", "all")),
    back=st.sampled_from((0, 0, 0, 1, 1, 2, 3, 4)),
    saying=st.sampled_from((0, 1, 2, 2, 3)),
    sight=st.sampled_from(("now",) * 8 + ("old", "old", "ahead", "not said")),
    id=st.sampled_from(("own",) * 14 + ("the last", "the last", "an event's", "an event's")),
    operation=st.sampled_from((None, None, None, 0, 1)),
    fault=st.sampled_from(FAULTS),
    times=st.sampled_from((1,) * 8 + (2,)),
)
resend = st.builds(Resend, back=st.sampled_from((0, 0, 1, 2)), saying=st.sampled_from((0, 1, 2, 2, 3)))
again = st.builds(Again, back=st.sampled_from((0, 0, 1, 2, 3, 4, 5, 6)))
bulk = st.builds(
    Bulk, order=st.sampled_from((0, 0, 1, 2, 3)), repair=st.sampled_from((True, True, False)), saying=st.integers(0, 3)
)
send_again = st.builds(SendAgain, back=st.sampled_from((0, 1, 2, 3)), saying=st.integers(0, 3))
one_wish = st.sampled_from((say,) * 7 + (act,) * 7 + (resend, resend, again, bulk, send_again)).flatmap(
    lambda kind: kind.map(lambda wish: [wish])
)


@st.composite
def story(draw: st.DrawFn) -> list[Wish]:
    """What seldom comes about by itself: a damaged event whose copy is there before it is repaired, and another one.

    The damaged one, or the copy, may be discarded at once.
    """
    perhaps_discarded = st.sampled_from(([], [], [], [Act(repair=False)]))
    order, saying = draw(st.sampled_from((0, 1, 2, 3, 3))), st.integers(0, 3)
    first, second = draw(st.sampled_from(((1, 0), (1, 0), (2, 0), (0, 0))))
    return [
        Say(order, draw(st.integers(4, 9)), draw(saying), "unknown type"),
        *draw(perhaps_discarded),
        Say(order, None, draw(saying), draw(st.sampled_from(("", "malformed", "malformed")))),
        Resend(0, draw(saying)),
        *draw(perhaps_discarded),
        Act(repair=True, back=first, saying=draw(st.sampled_from((0, 2, 2)))),
        Act(
            repair=True, back=second, saying=draw(st.sampled_from((0, 1, 1, 3))), times=draw(st.sampled_from((1, 1, 4)))
        ),
    ]


some_wishes = st.sampled_from((one_wish,) * 8 + (story(),)).flatmap(lambda kind: kind)

#: One life of the log.
wishes = (
    st.integers(1, 25)
    .flatmap(lambda size: st.lists(some_wishes, min_size=size, max_size=size))
    .map(lambda parts: list(chain.from_iterable(parts)))
)

#: Lives that follow the first.
lives = st.lists(
    st.builds(
        Life, replayed=st.integers(0, 40), where_they_were=st.booleans(), same_topic=st.booleans(), wishes=wishes
    ),
    min_size=1,
    max_size=2,
)

lives_or_none: st.SearchStrategy[list[Life]] = st.one_of(st.just([]), lives)

turns = st.lists(
    st.builds(
        Turn,
        partition=st.integers(0, 3),
        then=st.sampled_from(("read on",) * 6 + ("write",) * 3 + ("kill",) * 3),
        transaction=st.sampled_from((0, 0, 1, 2, 9)),
    ),
    min_size=1,
    max_size=12,
)

#: Where the log begins when it is rebuilt: what is before that offset is lost.
begins = st.sampled_from((0, 0, 0, 3, 5, 8, 12, 20))

#: All at once, partition after partition.
AT_ONCE = [Turn(0, "read on")]
