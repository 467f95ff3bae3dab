"""Records -> rows: what each record of the topic comes to. Writes nothing itself.

The rules are those of an order's history: docs/events.md, and docs/adr/0013-repairs-on-the-topic.md for repairs. The
same code applies the stream, shows what a repair would do, and builds the projection anew.
"""

from orderflow.projection.projection import Projected, Projection, runs

__all__ = ["Projected", "Projection", "runs"]
