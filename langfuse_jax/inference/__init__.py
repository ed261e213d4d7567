"""Fusing: arrays, folders, videos, and exported programs."""
