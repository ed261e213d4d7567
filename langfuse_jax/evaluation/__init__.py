"""Fused images scored against their sources: folders to tables."""
