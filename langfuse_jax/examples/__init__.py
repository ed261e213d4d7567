"""Scenes that the package draws itself."""
