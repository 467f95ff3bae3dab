"""The worker between the outbox and the topic: delivers what Kafka did not acknowledge at first, in order per order."""
