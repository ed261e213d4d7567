"""Patches that have attributes of known strength, from -1 (the one end of an axis) to 1 (the other)."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from langfuse_jax.classical.pyramid import gaussian_blur
from langfuse_jax.compact_clip.concepts import AXES
from langfuse_jax.compact_clip.scenes import VARIANTS

Patch = Float[np.ndarray, "s s"]

# Axes that change what another one says; the two are never drawn together.
_ENTANGLED = (
    {"contrast", "haze"},
    {"contrast", "exposure"},
    {"contrast", "noise"},
    {"brightness", "exposure"},
    {"brightness", "haze"},
    {"haze", "exposure"},
    {"sharpness", "background"},
    {"sharpness", "noise"},
    {"background", "noise"},
    {"background", "haze"},
    {"look", "targets"},
    {"look", "background"},
)
_NEEDS_TARGETS = ("targets",)
HOT = (0.01, 0.4)  # shares of a window that is hot where targets can be told from a background


def independent(a: str, b: str) -> bool:
    """Whether two axes can be set each for itself."""
    return a != b and {a, b} not in _ENTANGLED


def drawable(hot: float) -> list[str]:
    """The axes that a window can be put on; `hot` is the share of it that is hot."""
    return [axis for axis in AXES if axis not in _NEEDS_TARGETS or HOT[0] < hot < HOT[1]]


class Setting(NamedTuple):
    """What is the same in all patches of a window but for their strengths."""

    base: str
    matched: bool
    airlight: float
    slope: float
    place: tuple[float, float]
    radius: float
    coarse: float
    seed: int


def draw_setting(rng: np.random.Generator) -> Setting:
    """A base among the sources and their fusions, and where glare, haze and noise would be."""
    return Setting(
        base=str(rng.choice(["visible", "average", "goal", "goal_natural", "infrared"], p=[0.4, 0.15, 0.1, 0.2, 0.15])),
        matched=bool(rng.random() < 0.5),
        airlight=rng.uniform(0.6, 0.95),
        slope=rng.uniform(-0.3, 0.3),
        place=(rng.uniform(0.1, 0.9), rng.uniform(0.1, 0.9)),
        radius=rng.uniform(0.12, 0.4),
        coarse=rng.uniform(0.3, 1.0) if rng.random() < 0.4 else 0.0,
        seed=int(rng.integers(2**31)),
    )


def with_strengths(window: Float[np.ndarray, "v s s"], strengths: Mapping[str, float], setting: Setting) -> Patch:
    """A patch of a window of a scene's layers, in [0, 1], that has the given strengths on the axes named."""
    patch = window[VARIANTS.index(setting.base)]
    for axis, change in _CHANGES.items():
        if axis in strengths:
            patch = np.clip(change(patch, strengths[axis], window, setting), 0, 1).astype(np.float32)
    return patch


def _look(patch: Patch, strength: float, window: Float[np.ndarray, "v s s"], setting: Setting) -> Patch:
    visible, infrared = window[0], window[1]
    if setting.matched:
        infrared = visible.mean() + (infrared - infrared.mean()) * visible.std() / max(infrared.std(), 0.01)
    return visible + (strength + 1) / 2 * (infrared - visible)


def _targets(patch: Patch, strength: float, window: Float[np.ndarray, "v s s"], setting: Setting) -> Patch:
    hot, side = window[-1], len(patch)
    around = gaussian_blur(patch * (1 - hot), side / 10) / np.maximum(gaussian_blur(1 - hot, side / 10), 0.05)
    hidden = patch + hot * (around + 0.3 * (patch - gaussian_blur(patch, 2.0)) - patch)
    infrared = window[1] / max(float((window[1] * (hot > 0.3)).max()), 0.05)
    shown = np.maximum(0.95 * np.clip(infrared, 0, 1), hidden)
    return hidden + (strength + 1) / 2 * hot * (shown - hidden)


def _background(patch: Patch, strength: float, window: Float[np.ndarray, "v s s"], setting: Setting) -> Patch:
    factor = 1 + 0.9 * strength if strength < 0 else 1 + 1.6 * strength
    kept = np.clip(2 * window[-1], 0, 1)
    return patch + (factor - 1) * (1 - kept) * (patch - gaussian_blur(patch, 3.0))


def _sharpness(patch: Patch, strength: float, window: Float[np.ndarray, "v s s"], setting: Setting) -> Patch:
    if strength > 0:
        return patch + 1.6 * strength * (patch - gaussian_blur(patch, 1.0))
    sigma = 3 * abs(strength) ** 1.3
    return np.asarray(gaussian_blur(patch, sigma)) if sigma > 0.2 else patch


def _contrast(patch: Patch, strength: float, window: Float[np.ndarray, "v s s"], setting: Setting) -> Patch:
    contrast = np.exp(np.interp(strength, [-1, 1], np.log([0.03, 0.3])))
    return patch.mean() + contrast * (patch - patch.mean()) / max(patch.std(), 0.01)


def reached(strengths: Mapping[str, float], patch: Patch) -> dict[str, float]:
    """The strengths that a patch has in the end: of brightness and contrast, which change each other, as measured."""
    measured = {"brightness": (float(patch.mean()) - 0.5) / 0.4}
    measured["contrast"] = float(np.interp(np.log(max(float(patch.std()), 1e-6)), np.log([0.03, 0.3]), [-1, 1]))
    return {axis: float(np.clip(measured.get(axis, given), -1, 1)) for axis, given in strengths.items()}


def _brightness(patch: Patch, strength: float, window: Float[np.ndarray, "v s s"], setting: Setting) -> Patch:
    """A tone curve, of the family x / (x + k (1 - x)), that gives the mean 0.5 + 0.4 `strength`."""
    patch = 0.02 + 0.96 * patch
    low, high = np.log(1e-3), np.log(1e3)
    for _ in range(16):
        middle = (low + high) / 2
        curved = patch / (patch + np.exp(middle) * (1 - patch))
        low, high = (middle, high) if curved.mean() > 0.5 + 0.4 * strength else (low, middle)
    return curved


def _haze(patch: Patch, strength: float, window: Float[np.ndarray, "v s s"], setting: Setting) -> Patch:
    thickness = 0.85 * (strength + 1) / 2
    rows = np.linspace(-0.5, 0.5, len(patch))[:, None]
    seen = 1 - thickness * (1 + setting.slope * rows)
    return patch * seen + setting.airlight * (1 - seen)


def _exposure(patch: Patch, strength: float, window: Float[np.ndarray, "v s s"], setting: Setting) -> Patch:
    y, x = np.mgrid[: len(patch), : len(patch)] / len(patch)
    distance = np.hypot(y - setting.place[0], x - setting.place[1])
    light = (strength + 1) / 2
    return patch + light * (1.5 * np.exp(-0.5 * (distance / setting.radius) ** 2) + 0.25)


def _noise(patch: Patch, strength: float, window: Float[np.ndarray, "v s s"], setting: Setting) -> Patch:
    noise = np.random.default_rng(setting.seed).standard_normal(patch.shape, dtype=np.float32)
    if setting.coarse:
        noise = np.asarray(gaussian_blur(noise, setting.coarse))
        noise = noise / noise.std()
    return patch + 0.16 * ((strength + 1) / 2) ** 1.3 * noise


_CHANGES: dict[str, Callable[[Patch, float, Float[np.ndarray, "v s s"], Setting], Patch]] = {
    "look": _look,
    "targets": _targets,
    "background": _background,
    "sharpness": _sharpness,
    "brightness": _brightness,
    "contrast": _contrast,
    "haze": _haze,
    "exposure": _exposure,
    "noise": _noise,
}
