"""Other cameras, drawn at random: what a patch of a source might look like had another camera taken it.

Two or three cameras teach a modality by their own tone, contrast, sharpness and noise, which another camera's images
contradict: without this a classifier that is all but sure of the cameras it was trained on is wrong more often than
right on those of VIFB. What is left when all four are drawn alike for both sources is what is shown: heat or light.
Contrast alone is not always drawn alike, for thermal cameras do have less of it.
"""

import numpy as np
from jaxtyping import Float

from langfuse_jax.classical.pyramid import equalise, gaussian_blur

Patch = Float[np.ndarray, "s s"]


def other_cameras(
    colours: Float[np.ndarray, "3 s s"], infrared: Patch, rng: np.random.Generator, *, flat: float
) -> tuple[Patch, Patch]:
    """Both sources of a window in [0, 1], each by a camera drawn for it.

    In a share `flat` of the pairs the infrared is flat and gray; in the others both have the same mean and contrast.
    Some visible cameras are dazzled by lamps.

    `colours` are the red, green and blue of the visible image, of which another camera sees another mixture.
    """
    visible = np.tensordot(rng.dirichlet([0.7, 0.7, 0.7]), colours, 1)
    exposures = _exposures(rng, flat)
    patches = []
    for patch, (mean, contrast) in zip((visible, infrared), exposures, strict=True):
        patch = _noise(_optics(_tone(patch, rng), rng), rng)
        patches.append(mean + contrast * (patch - patch.mean()) / max(patch.std(), 0.01))
    if rng.random() < 0.15:
        patches[0] = _lamps(patches[0], rng)
    visible, infrared = (np.clip(patch, 0, 1).astype(np.float32) for patch in patches)
    return visible, infrared


def _lamps(patch: Patch, rng: np.random.Generator) -> Patch:
    """Up to three lights that glare, which only a visible camera sees."""
    y, x = np.mgrid[: len(patch), : len(patch)] / len(patch)
    for _ in range(rng.integers(1, 4)):
        distance = np.hypot(y - rng.random(), x - rng.random()) / rng.uniform(0.02, 0.3)
        patch = patch + rng.uniform(0.8, 2) * np.exp(-0.5 * distance**2)
    return patch


def _exposures(rng: np.random.Generator, flat: float) -> tuple[tuple[float, float], tuple[float, float]]:
    """Mean and contrast of the visible and the infrared: the same, or those of a thermal camera without gain control.

    Such a camera spreads its grays from the coldest to the hottest it can show, so that most scenes are a flat gray.
    """

    def contrast(low: float, high: float) -> float:
        return np.exp(rng.uniform(np.log(low), np.log(high)))

    if rng.random() >= flat:
        both = rng.uniform(0.25, 0.65), contrast(0.04, 0.25)
        return both, both
    return (rng.uniform(0.15, 0.65), contrast(0.05, 0.28)), (rng.uniform(0.3, 0.6), contrast(0.015, 0.08))


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


def _optics(patch: Patch, rng: np.random.Generator) -> Patch:
    """Softer or sharper, in two patches of three."""
    kind = rng.random()
    if kind < 0.4:
        return np.asarray(gaussian_blur(patch, rng.uniform(0.3, 2)))
    if kind < 0.67:
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
