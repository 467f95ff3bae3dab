"""The worker between the topic and the store: applies each event exactly once, skips what cannot be applied."""
