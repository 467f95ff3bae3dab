"""What people ask for skipped messages: whether it can be done, what it would do, the controls that do it."""
