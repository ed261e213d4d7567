"""Other cameras, drawn at random: what a patch of a source might look like had another camera taken it.

Nine cameras teach a modality by their own tone, contrast, sharpness and noise too, which a tenth contradicts. So some
pairs stay as they were taken; some are of cameras as most are, whose infrared is softer and often darker; and some of
any camera, which leaves nothing to tell the two apart but what is shown, or has a flat infrared. The shares were chosen
by leaving cameras out (benchmarks/CLIP_LOG.md): each kind alone is wrong on some camera more often than right.
"""

import numpy as np
from jaxtyping import Float

from langfuse_jax.classical.pyramid import equalise, gaussian_blur
from langfuse_jax.images.files import LUMA

Patch = Float[np.ndarray, "s s"]

_AS_TAKEN, _TYPICAL = 0.4, 0.25  # shares of the pairs; the rest is of any camera
_FLAT = 0.7  # share, among these, of a flat infrared


def other_cameras(
    colours: Float[np.ndarray, "3 s s"], infrared: Patch, rng: np.random.Generator
) -> tuple[Patch, Patch]:
    """Both sources of a window in [0, 1], each by a camera drawn for it.

    `colours` are the red, green and blue of the visible image, of which another camera sees another mixture.
    """
    kind = rng.random()
    if kind < _AS_TAKEN:
        sources = (np.tensordot(LUMA.astype(np.float32), colours, 1), infrared)
        pair = [patch * rng.uniform(0.7, 1.4) + rng.uniform(-0.1, 0.1) for patch in sources]
    else:
        sources = (np.tensordot(rng.dirichlet([0.7, 0.7, 0.7]), colours, 1), infrared)
        make = _typical if kind < _AS_TAKEN + _TYPICAL else _any
        visible, infrared = (_tone(patch, rng) for patch in sources)
        pair = make(visible, infrared, rng)
        if rng.random() < 0.15:
            pair[0] = _lamps(pair[0], rng)
    visible, infrared = (np.clip(patch, 0, 1).astype(np.float32) for patch in pair)
    return visible, infrared


def _typical(visible: Patch, infrared: Patch, rng: np.random.Generator) -> list[Patch]:
    """As most cameras are: optics of the infrared softer than those of the visible, its picture darker or as bright."""
    visible = _noise(_optics(visible, rng, softer=0.2, sharper=0.3, most=1.2), rng)
    infrared = _noise(_optics(infrared, rng, softer=0.65, sharper=0.15, most=2.2), rng)
    if rng.random() < 0.4:
        exposure = rng.uniform(0.1, 0.65), _log_uniform(rng, 0.04, 0.28)
        return [_exposed(visible, *exposure), _exposed(infrared, *exposure)]
    return [
        _exposed(visible, rng.uniform(0.1, 0.65), _log_uniform(rng, 0.05, 0.28)),
        _exposed(infrared, rng.uniform(0.05, 0.55), _log_uniform(rng, 0.02, 0.28)),
    ]


def _any(visible: Patch, infrared: Patch, rng: np.random.Generator) -> list[Patch]:
    """Of any sharpness and noise; both of one mean and contrast, or the infrared as of a camera without gain control.

    Such a camera spreads its grays from the coldest to the hottest it can show, so that most scenes are a flat gray.
    """
    pair = [_noise(_optics(patch, rng, softer=0.4, sharper=0.27, most=2.0), rng) for patch in (visible, infrared)]
    if rng.random() >= _FLAT:
        exposure = rng.uniform(0.25, 0.65), _log_uniform(rng, 0.04, 0.25)
        return [_exposed(patch, *exposure) for patch in pair]
    return [
        _exposed(pair[0], rng.uniform(0.15, 0.65), _log_uniform(rng, 0.05, 0.28)),
        _exposed(pair[1], rng.uniform(0.3, 0.6), _log_uniform(rng, 0.015, 0.08)),
    ]


def _exposed(patch: Patch, mean: float, contrast: float) -> Patch:
    return mean + contrast * (patch - patch.mean()) / max(patch.std(), 0.01)


def _log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def _lamps(patch: Patch, rng: np.random.Generator) -> Patch:
    """Up to three lights that glare, which only a visible camera sees."""
    y, x = np.mgrid[: len(patch), : len(patch)] / len(patch)
    for _ in range(rng.integers(1, 4)):
        distance = np.hypot(y - rng.random(), x - rng.random()) / rng.uniform(0.02, 0.3)
        patch = patch + rng.uniform(0.8, 2) * np.exp(-0.5 * distance**2)
    return patch


def _tone(patch: Patch, rng: np.random.Generator) -> Patch:
    """A rising curve through four random values, in two patches of three; local equalisation, in one of three."""
    if rng.random() < 0.67:
        values = 0.8 * np.sort(rng.random(4)) + 0.2 * np.linspace(0.1, 0.9, 4)
        patch = np.interp(patch, np.linspace(0, 1, 6), [0, *values, 1])
        low = rng.uniform(0, 0.4)
        patch = low + rng.uniform(0.3, 1) * (1 - low) * patch
    patch = patch.astype(np.float32)
    if rng.random() < 0.33:
        patch = patch + np.float32(rng.uniform(0.2, 0.8)) * (equalise(patch) - patch)
    return patch


def _optics(patch: Patch, rng: np.random.Generator, *, softer: float, sharper: float, most: float) -> Patch:
    """Softer, by at most `most` pixels, or sharper, each in such a share of the patches."""
    kind = rng.random()
    if kind < softer:
        return np.asarray(gaussian_blur(patch, rng.uniform(0.3, most)))
    if kind < softer + sharper:
        return patch + np.float32(rng.uniform(0.3, 1.5)) * (patch - gaussian_blur(patch, rng.uniform(0.7, 2)))
    return patch


def _noise(patch: Patch, rng: np.random.Generator) -> Patch:
    """Grain in two patches of three, fine or coarse; in one of five of these the columns differ, as thermal ones do."""
    if rng.random() > 0.67:
        return patch
    noise = rng.standard_normal(patch.shape, dtype=np.float32)
    if rng.random() < 0.5:
        noise = np.asarray(gaussian_blur(noise, rng.uniform(0.3, 1)))
        noise /= noise.std()
    patch = patch + np.float32(rng.uniform(0, 0.05)) * noise
    if rng.random() < 0.2:
        patch = patch + np.float32(rng.uniform(0, 0.03)) * rng.standard_normal(patch.shape[1], dtype=np.float32)
    return patch
