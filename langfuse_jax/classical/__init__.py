"""Fusion without a network: Laplacian pyramids and plain baselines."""
