"""Cameras the training has none of, drawn at random: the compact CLIP is to learn modalities, not two cameras."""

import numpy as np
from jaxtyping import Float32

from langfuse_jax.data.pyramid_fusion import gaussian_blur

Patch = Float32[np.ndarray, "s s"]


def tone(patch: Patch, rng: np.random.Generator) -> Patch:
    """A random rising curve from 0 to 1, as automatic gains have."""
    line = np.linspace(0, 1, 5)
    curve = (np.concatenate([[0], np.sort(rng.uniform(0, 1, 3)), [1]]) + line) / 2
    return np.interp(patch, line, curve).astype(np.float32)


def lighting(patch: Patch, rng: np.random.Generator) -> Patch:
    """Brightness that falls off to a random side, by a quarter at most."""
    angle, strength = rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.5)
    y, x = np.mgrid[: len(patch), : len(patch)].astype(np.float32) / len(patch) - 0.5
    return (patch * (1 + strength * (np.cos(angle) * x + np.sin(angle) * y))).astype(np.float32)


def optics(patch: Patch, rng: np.random.Generator) -> Patch:
    """Softened by a lens or by few pixels, or sharpened in the camera so that edges overshoot."""
    if rng.random() < 0.5:
        return gaussian_blur(patch, rng.uniform(0.4, 1.6))
    return patch + np.float32(rng.uniform(0.3, 1.5)) * (patch - gaussian_blur(patch, rng.uniform(0.8, 2.5)))


def other_camera(patch: Patch, rng: np.random.Generator) -> Patch:
    """`patch` in [0, 1] as another camera of the same band might have taken it, in [0, 1]."""
    for change in (tone, lighting, optics):
        if rng.random() < 0.6:
            patch = np.clip(change(patch, rng), 0, 1)
    if rng.random() < 0.4:
        flatness, mean = rng.uniform(0.35, 1), patch.mean()
        patch = np.clip(mean + rng.uniform(-0.15, 0.15) + flatness * (patch - mean), 0, 1)
    return patch.astype(np.float32)


def dressed_as(patch: Patch, other: Patch) -> Patch:
    """`patch` with the histogram of `other`, sharpened or blurred towards its sharpness before.

    What tells the two apart then is what they show, not how their cameras render it.
    """

    def sharpness(image):
        return np.abs(np.diff(image, axis=0)).mean() / max(float(image.std()), 0.01)

    ratio = float(sharpness(other) / max(sharpness(patch), 1e-3))
    if ratio > 1:
        patch = patch + np.float32(min(ratio - 1, 2.0)) * (patch - gaussian_blur(patch, 1.0))
    else:
        patch = gaussian_blur(patch, min(0.7 / max(ratio, 0.2), 2.0))
    ranks = np.argsort(np.argsort(patch.ravel(), kind="stable"), kind="stable")
    return np.sort(other.ravel())[ranks].reshape(patch.shape)
