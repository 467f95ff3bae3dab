"""What became of an event, and of an order's events: out of the outbox, the records, and what was made of them."""
