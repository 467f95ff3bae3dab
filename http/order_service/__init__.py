"""The query side's HTTP service: answers questions about orders from the projection. It writes nothing."""
