"""Kafka, as orderflow uses it. The only package that imports kafka-python.

`topic` makes sure of the topic, `producer` writes to it, `subscription` reads from it. Why each client option is
set is in docs/adr, records 2 (publishing), 3 (reading) and 9 (the network client).
"""

from orderflow.broker.clients import reachable
from orderflow.broker.fetching import End
from orderflow.broker.probing import locate_unreadable
from orderflow.broker.producer import Producer
from orderflow.broker.subscription import Subscription
from orderflow.broker.topic import PARTITIONS, Topic, ensure_dead_letter_topic, ensure_topic, partition_of

__all__ = [
    "PARTITIONS",
    "End",
    "Producer",
    "Subscription",
    "Topic",
    "ensure_dead_letter_topic",
    "ensure_topic",
    "locate_unreadable",
    "partition_of",
    "reachable",
]
