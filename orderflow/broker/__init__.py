"""Kafka, as orderflow uses it. The only package that imports kafka-python.

`topic` makes sure of the topic, `publisher` writes to it, `subscription` reads from it. Why each client option is
set is in docs/adr, records 2 (publishing), 3 (reading) and 9 (the network client).
"""

from orderflow.broker.clients import reachable
from orderflow.broker.messages import Message, Outcome, Published, Refused, Unknown
from orderflow.broker.publisher import Publisher
from orderflow.broker.subscription import Subscription, locate_unreadable
from orderflow.broker.topic import PARTITIONS, Topic, ensure_topic, partition_of

__all__ = [
    "PARTITIONS",
    "Message",
    "Outcome",
    "Published",
    "Publisher",
    "Refused",
    "Subscription",
    "Topic",
    "Unknown",
    "ensure_topic",
    "locate_unreadable",
    "partition_of",
    "reachable",
]
