"""Batches for the compact CLIP: patches of scenes, intact and degraded, and what is known of each."""

from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Int, Int8

from langfuse_jax.classical.pyramid import gaussian_blur
from langfuse_jax.compact_clip.cameras import other_cameras
from langfuse_jax.compact_clip.captions import CONCEPTS
from langfuse_jax.compact_clip.degradations import FAILURES, degrade
from langfuse_jax.compact_clip.scenes import COLOURS, VARIANTS, Scene

GOALS = ("goal", "goal_strong")
MODALITY = {
    "visible": "visible",
    "visible_enhanced": "visible",
    "infrared": "infrared",
    "infrared_enhanced": "infrared",
}
PER_SCENE = 21
_ELSEWHERE = 3  # windows of a scene, besides the first, whose two sources other cameras took

_ALTERNATIVES = (GOALS, ("average", "maximum"))
_ARTEFACTS = ("blurry", "noisy", "striped", "checkered", "blocky", "haloed", "harsh", "inverted")


class Batch(NamedTuple):
    """`images` gray in [0, 1]; `known[b, c]`: concept c is true (1), false (0) or unknown (-1) of image b.

    Images of a scene are consecutive, PER_SCENE of them, the intact visible first and the intact infrared second.
    """

    images: Float32[np.ndarray, "b s s"]
    known: Int8[np.ndarray, "b c"]


def facts(variant: str, patch: np.ndarray, *, failure: str | None = None, targets: float = 0.0) -> np.ndarray:
    """What is known of a patch (c,), int8: from how it was made, and from its mean and contrast.

    `targets` is the share of the patch that is hot. Whether it is visible or infrared stays unknown, though it may well
    be told: a network would tell it by the camera (`modality_alone`).
    """
    known = dict.fromkeys(CONCEPTS, -1)
    modality = MODALITY.get(variant, "fused")
    known["fused"] = int(modality == "fused")
    known |= dict.fromkeys(_ARTEFACTS[2:], 0)
    known |= {"goal": 0, "clear": 0 if failure else -1}
    mean, contrast = float(patch.mean()), float(patch.std())
    known["dark"] = _between(-mean, -0.3, -0.18)
    known["overexposed"] = _between(mean, 0.66, 0.8)
    known["bright"] = (
        0 if failure else min(_between(mean, 0.4, 0.5), 1 if variant in (*GOALS, "visible_enhanced") else -1)
    )
    known["washed_out"] = _between(-contrast, -0.1, -0.05)
    if variant in GOALS:
        known |= {"natural": -1, "blurry": 0, "noisy": 0, "detailed": 1, "clear": 1, "goal": 1}
    elif modality == "infrared":
        known |= {"natural": 0, "detailed": 0}
    elif variant == "visible":
        known |= {"natural": 1}
    elif variant == "visible_enhanced":
        known |= {"detailed": 1, "clear": 1, "blurry": 0}
    elif variant == "inverted_targets":
        known |= {"natural": 0, "inverted": 1 if targets > 0.03 else -1}
    else:
        known |= {"detailed": 0}
    if 0.01 < targets < 0.4:
        known["salient"] = {"infrared": -1, "infrared_enhanced": -1, "goal": 1, "goal_strong": 1, "maximum": 1}.get(
            variant, 0
        )
    if failure:
        known["fused"] = -1  # ruined images of all kinds look alike
        known |= dict.fromkeys(_ARTEFACTS, 0)
        known |= {"goal": 0, "clear": 0, "bright": 0, "natural": 0, "detailed": 0}
        if failure in ("blurry", "dark", "washed_out", "overexposed", "inverted"):
            known["salient"] = min(known["salient"], 0)
        known[failure] = 1
    if targets < 0.03 and (failure or variant) in ("visible_enhanced", "inverted_targets", "inverted"):
        # Where nothing is hot, an enhanced visible image shows all there is to show, and there is nothing to invert.
        known["goal"] = -1
    return np.array([known[concept] for concept in CONCEPTS], np.int8)


def modality_alone(modality: str) -> np.ndarray:
    """What is known (c,), int8, of a source by another camera: that it is `modality`, "visible" or "infrared"."""
    known = dict.fromkeys(CONCEPTS, -1) | {"visible": 0, "infrared": 0, "fused": 0, "goal": 0} | {modality: 1}
    return np.array([known[concept] for concept in CONCEPTS], np.int8)


def _between(value: float, no: float, yes: float) -> int:
    return 1 if value >= yes else 0 if value <= no else -1


def cut(
    scene: Scene, rng: np.random.Generator, side: int, *, smallest: float = 64.0, largest: float = 260.0
) -> np.ndarray:
    """The same window of all layers of a scene: (v, side, side) in [0, 1].

    The window is a rotated, sheared, perhaps mirrored square of `smallest` to `largest` pixels (less where the scene is
    smaller), read bilinearly without antialiasing as the patches of the language-driven loss are. Windows without any
    structure are drawn again.
    """
    height, width = scene.layers.shape[1:]
    fits = 0.95 * min(height, width)
    grid = (np.arange(side, dtype=np.float32) + 0.5) / side - 0.5
    for _ in range(6):
        size = np.exp(rng.uniform(np.log(min(smallest, fits)), np.log(min(largest, fits))))
        angle, shear = rng.uniform(-0.09, 0.09, 2)
        size_x = size * rng.choice([-1, 1])
        x = size_x * (np.cos(angle) * grid[None] + (shear - np.sin(angle)) * grid[:, None])
        y = size * (np.sin(angle) * grid[None] + np.cos(angle) * grid[:, None])
        x = x - x.min() + rng.uniform(0, max(width - 1 - (x.max() - x.min()), 0))
        y = y - y.min() + rng.uniform(0, max(height - 1 - (y.max() - y.min()), 0))
        patches = _sample(scene, y, x)
        if patches[:2].std((1, 2)).min() > 0.02:
            break
    return patches


def _sample(scene: Scene, y: np.ndarray, x: np.ndarray) -> Float32[np.ndarray, "v s s"]:
    count, height, width = scene.layers.shape
    side = len(y)
    y, x = np.clip(y, 0, height - 1.001).ravel(), np.clip(x, 0, width - 1.001).ravel()
    top, left = y.astype(np.int32), x.astype(np.int32)
    down, right = (y - top).astype(np.float32), (x - left).astype(np.float32)
    corner = top * width + left
    flat = scene.layers.reshape(count, -1)
    rows = [flat[:, corner + shift] * (1 - right) + flat[:, corner + shift + 1] * right for shift in (0, width)]
    return ((rows[0] * (1 - down) + rows[1] * down) / 255).astype(np.float32).reshape(-1, side, side)


def scene_examples(scene: Scene, rng: np.random.Generator, side: int) -> tuple[np.ndarray, np.ndarray]:
    """PER_SCENE patches and what is known of them: of one window, then both sources of others by other cameras."""
    window = cut(scene, rng, side)
    hot = float((window[-1] > 0.5).mean())
    patches, known = [], []

    def add(variant: str, patch: np.ndarray, failure: str | None = None) -> None:
        patches.append(patch)
        known.append(facts(variant, patch, failure=failure, targets=hot))

    # The sources that directions start from: most thermal cameras are softer and flatter than those of these pairs, and
    # now and then both sources get the same contrast and random blur.
    soft, softness, flatness = rng.random() < 0.6, rng.uniform(0.5, 2.5), rng.uniform(0.35, 1)
    matched, mean, contrast = rng.random() < 0.1, rng.uniform(0.3, 0.6), rng.uniform(0.08, 0.22)
    alternatives = (pair[rng.integers(2)] for pair in _ALTERNATIVES)
    chosen = [*VARIANTS[:2], *alternatives, "inverted_targets", "visible_enhanced", "infrared_enhanced"]
    for variant in chosen:
        patch = window[VARIANTS.index(variant)]
        if variant in MODALITY:
            if soft and MODALITY[variant] == "infrared":
                patch = gaussian_blur(patch, softness)
                patch = patch.mean() + flatness * (patch - patch.mean())
            if matched:
                patch = gaussian_blur(patch, rng.uniform(0.2, 1.4))
                patch = np.clip(mean + contrast * (patch - patch.mean()) / max(patch.std(), 0.01), 0, 1)
            else:
                patch = np.clip(patch * rng.uniform(0.8, 1.25) + rng.uniform(-0.06, 0.06), 0, 1)
            patch = patch.astype(np.float32)
        add(variant, patch)
    for failure in rng.choice(list(FAILURES), PER_SCENE - len(chosen) - 2 * _ELSEWHERE, replace=False):
        bases = ("visible", "goal", "goal_strong") if failure == "inverted" else VARIANTS[:6]
        variant = bases[rng.integers(len(bases))]
        add(variant, degrade(window[VARIANTS.index(variant)], failure, rng), failure)
    for _ in range(_ELSEWHERE):
        window = cut(scene, rng, side)
        sources = other_cameras(window[COLOURS], window[VARIANTS.index("infrared")], rng)
        for modality, patch in zip(("visible", "infrared"), sources, strict=True):
            patches.append(patch)
            known.append(modality_alone(modality))
    noise = rng.standard_normal((len(patches), side, side), dtype=np.float32) * np.float32(rng.uniform(0, 0.015))
    return np.clip(np.stack(patches) + noise, 0, 1), np.stack(known)


class CameraScenes:
    """The scenes of several cameras, drawn in turn from each however many it has; none twice before all were drawn."""

    def __init__(self, cameras: Sequence[Sequence[Scene]], seed: int):
        self._cameras, self._seed = cameras, seed
        self._order = cache(self._order_of_epoch)

    def _order_of_epoch(self, camera: int, epoch: int) -> Int[np.ndarray, " n"]:
        return np.random.default_rng((1, self._seed, camera, epoch)).permutation(len(self._cameras[camera]))

    def batch(self, number: int, count: int, side: int) -> Batch:
        """Batch `number`, of `count` scenes and patches of `side` pixels: the same whenever it is asked for."""
        rng = np.random.default_rng((2, self._seed, number))
        examples = []
        for turn in range(count):
            earlier, camera = divmod(turn, len(self._cameras))
            scenes = self._cameras[camera]
            a_batch = len(range(camera, count, len(self._cameras)))  # turns of this camera
            epoch, place = divmod(number * a_batch + earlier, len(scenes))
            examples.append(scene_examples(scenes[self._order(camera, epoch)[place]], rng, side))
        images, known = zip(*examples, strict=True)
        return Batch(np.concatenate(images), np.concatenate(known))
