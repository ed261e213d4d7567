"""What goes wrong with fused images, synthesised: each failure has a name that the compact CLIP learns."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from langfuse_jax.classical.pyramid import gaussian_blur

Patch = Float[np.ndarray, "s s"]


def _blurry(patch: Patch, rng: np.random.Generator) -> Patch:
    return np.asarray(gaussian_blur(patch, rng.uniform(1.2, 3.5)))


def _noisy(patch: Patch, rng: np.random.Generator) -> Patch:
    noise = rng.standard_normal(patch.shape, dtype=np.float32)
    if rng.random() < 0.3:
        noise = 2 * np.asarray(gaussian_blur(noise, 0.75))
    return patch + np.float32(rng.uniform(0.06, 0.2)) * noise


def _dark(patch: Patch, rng: np.random.Generator) -> Patch:
    return patch * np.float32(min(rng.uniform(0.05, 0.2) / max(patch.mean(), 0.01), 0.7))


def _overexposed(patch: Patch, rng: np.random.Generator) -> Patch:
    return patch * np.float32(rng.uniform(1.3, 2)) + np.float32(rng.uniform(0.3, 0.45))


def _washed_out(patch: Patch, rng: np.random.Generator) -> Patch:
    contrast = rng.uniform(0.02, 0.05) / max(patch.std(), 0.05)
    return np.float32(rng.uniform(0.3, 0.75)) + np.float32(contrast) * (patch - patch.mean())


def _wave(side: int, rng: np.random.Generator, period: float) -> Patch:
    angle = rng.choice([0, np.pi / 2, rng.uniform(0, np.pi)])
    y, x = np.mgrid[:side, :side].astype(np.float32)
    phase = 2 * np.pi * (np.cos(angle) * x + np.sin(angle) * y) / period + rng.uniform(0, 6.3)
    wave = np.sin(phase)
    return (np.sign(wave) if rng.random() < 0.3 else wave).astype(np.float32)


def _striped(patch: Patch, rng: np.random.Generator) -> Patch:
    return patch + np.float32(rng.uniform(0.06, 0.25)) * _wave(len(patch), rng, rng.uniform(2.5, 14))


def _checkered(patch: Patch, rng: np.random.Generator) -> Patch:
    y, x = np.mgrid[: len(patch), : len(patch)]
    if rng.random() < 0.5:
        half = rng.uniform(1, 4)
        grid = ((y / half).astype(int) + (x / half).astype(int)) % 2 * 2 - 1
    else:
        period = rng.uniform(2.5, 8)
        grid = np.sin(2 * np.pi * y / period + rng.uniform(0, 6)) * np.sin(2 * np.pi * x / period + rng.uniform(0, 6))
    return patch + np.float32(rng.uniform(0.07, 0.25)) * grid.astype(np.float32)


def _blocky(patch: Patch, rng: np.random.Generator) -> Patch:
    side, step = len(patch), int(rng.integers(4, 13))
    offset = rng.integers(0, step, 2)
    row, column = (np.minimum((np.arange(side) + o) // step, side // step) for o in offset)
    code = row[:, None] * (side // step + 1) + column
    mean = np.bincount(code.ravel(), patch.ravel()) / np.maximum(np.bincount(code.ravel()), 1)
    return patch + np.float32(rng.uniform(0.75, 1)) * (mean[code].astype(np.float32) - patch)


def _haloed(patch: Patch, rng: np.random.Generator) -> Patch:
    edges = patch - gaussian_blur(patch, rng.uniform(3, 6))
    return patch + np.float32(rng.uniform(1.5, 3.5)) * edges


def _harsh(patch: Patch, rng: np.random.Generator) -> Patch:
    rough = patch + np.float32(rng.uniform(0, 0.01)) * rng.standard_normal(patch.shape, dtype=np.float32)
    return patch + np.float32(rng.uniform(2.5, 6)) * (rough - gaussian_blur(rough, rng.uniform(0.6, 1.3)))


def _inverted(patch: Patch, rng: np.random.Generator) -> Patch:
    return 1 - patch


FAILURES: dict[str, Callable[[Patch, np.random.Generator], Patch]] = {
    "blurry": _blurry,
    "noisy": _noisy,
    "dark": _dark,
    "overexposed": _overexposed,
    "washed_out": _washed_out,
    "striped": _striped,
    "checkered": _checkered,
    "blocky": _blocky,
    "haloed": _haloed,
    "harsh": _harsh,
    "inverted": _inverted,
}


def degrade(patch: Patch, failure: str, rng: np.random.Generator) -> Patch:
    """`patch` in [0, 1] with one of FAILURES, of random strength, clipped to [0, 1]."""
    return np.clip(FAILURES[failure](patch, rng), 0, 1).astype(np.float32)
