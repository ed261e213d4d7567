"""Losses: pure functions on embeddings, images and features."""

from langfuse_jax.losses.grid import grid_loss
from langfuse_jax.losses.guide import guide_loss
from langfuse_jax.losses.language import Words, language_driven_loss, similarity_loss
from langfuse_jax.losses.patches import informative, patch_entropy
from langfuse_jax.losses.perceptual import feature_bank, perceptual_loss
from langfuse_jax.losses.total import total_loss

__all__ = [
    "Words",
    "feature_bank",
    "grid_loss",
    "guide_loss",
    "informative",
    "language_driven_loss",
    "patch_entropy",
    "perceptual_loss",
    "similarity_loss",
    "total_loss",
]
