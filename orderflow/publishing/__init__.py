"""Publishing an event: to Kafka, or to the outbox while Kafka does not take it; in order per order, and told as it is.

`publisher` decides, `lanes` lets callers work in groups, `delivery` sends a group with its `retries`, `breaker` knows
whether Kafka takes events, `spool` which orders wait in the outbox, `pause` how they come out of it. See
docs/adr/0011-spool-and-tell-the-truth.md.
"""
