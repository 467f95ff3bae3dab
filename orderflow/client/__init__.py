"""A client of both services, for notebooks, programs, tests and the command line.

`Client` has two kinds of calls. Those with a type for what they give (`create`, `order`, `timeline`, …) retry, and
raise a `ClientError` for everything else. Those that give an `Answer` (`create_order`, `order_details`, …) never raise
for what happens on the network, and send once unless they are told otherwise.
"""

from orderflow.client.calls import Calls, urls_of
from orderflow.client.client import Client
from orderflow.client.shapes import Event, Item, Order, Outcome, Step, Timeline, Written
from orderflow.client.wire import NO_ANSWER, Answer, Which
from orderflow.timeline.shown import EventState, StepWord

__all__ = [
    "NO_ANSWER",
    "Answer",
    "Calls",
    "Client",
    "Event",
    "EventState",
    "Item",
    "Order",
    "Outcome",
    "Step",
    "StepWord",
    "Timeline",
    "Which",
    "Written",
    "urls_of",
]
