"""Metrics of infrared-visible fusion: one pure function each, and `evaluate` for several at once."""

from langfuse_jax.metrics.table import CONVENTIONS, METRICS, USUAL, Metric, evaluate

__all__ = ["CONVENTIONS", "METRICS", "USUAL", "Metric", "evaluate"]
