"""Flax modules: the fusion network and the CLIP encoders."""
