"""The worker between the outbox and the topic: delivers what Kafka did not acknowledge at first, in order per order.

And between the skipped messages and the dead-letter topic: copies the one to the other.
"""
