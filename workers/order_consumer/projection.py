from orderflow.projection import Projected, Projection, runs

__all__ = ["Projected", "Projection", "runs"]
