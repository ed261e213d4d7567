"""Weights as files, those of this package and of other projects."""
