"""Weights of other projects, read into this project's parameter trees: one table per model."""
