"""The audit: whether the projection is what the topic says, and whether callers were told the truth.

A second model of the rules in docs/events.md and docs/adr/0013-repairs-on-the-topic.md. It shares no code with the
decoder, the fold and the store, so that a fault of theirs is a difference here, and not the same fault twice.
"""
