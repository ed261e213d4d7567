"""Batches for the compact CLIP: patches of scenes, intact, degraded or of known strength, and what is known of each."""

from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float32, Int, Int8

from langfuse_jax.classical.pyramid import gaussian_blur
from langfuse_jax.compact_clip.cameras import other_cameras
from langfuse_jax.compact_clip.concepts import AXES
from langfuse_jax.compact_clip.degradations import FAILURES, degrade
from langfuse_jax.compact_clip.facts import GOALS, MODALITY, facts, facts_of_strengths, modality_alone
from langfuse_jax.compact_clip.scenes import COLOURS, VARIANTS, Scene
from langfuse_jax.compact_clip.strengths import HOT, draw_setting, drawable, independent, reached, with_strengths

_FAILURES = 6  # of a scene, each another one
GRADED = 6  # patches of a scene with known strengths on two axes
_ELSEWHERE = 6  # windows, of any scenes, whose two sources other cameras took
PER_SCENE = 7 + _FAILURES + 2 * _ELSEWHERE + GRADED

_SHOWN = 0.6  # share of the scenes whose window is to show something hot, where one of _TRIES does
_TRIES = 4
# How often an axis is drawn, where not once: looks and targets are the hardest to tell.
_OFTEN = {"look": 3.0, "targets": 3.0}

_ALTERNATIVES = (GOALS, ("average", "maximum"))


class Batch(NamedTuple):
    """Images of scenes, and what is known of them.

    Attributes:
      images: gray in [0, 1]. Those of a scene are consecutive, PER_SCENE of them: the intact visible first, the intact
        infrared second, and GRADED last; before these the sources of other scenes by other cameras.
      known: whether concept c is true (1), false (0) or unknown (-1) of image b.
      strengths: of the GRADED images of each scene on each of AXES, -1 to 1; NaN where it is unknown.
      drawn: for each scene, the concepts of two axes that at least one of its graded images has.
    """

    images: Float32[np.ndarray, "b s s"]
    known: Int8[np.ndarray, "b c"]
    strengths: Float32[np.ndarray, "n g a"]
    drawn: list[tuple[str, ...]]


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


def graded(
    window: Float32[np.ndarray, "v s s"], rng: np.random.Generator
) -> tuple[list[np.ndarray], list[np.ndarray], Float32[np.ndarray, "g a"], tuple[str, ...]]:
    """GRADED patches of a window on two axes drawn at random: one near each corner of both, and others between.

    Returns the patches, what is known of each, their strengths, and the two concepts of one corner.
    """
    axes = drawable(float((window[-1] > 0.5).mean()))
    often = np.array([_OFTEN.get(axis, 1.0) for axis in axes])
    first = str(rng.choice(axes, p=often / often.sum()))
    second = str(rng.choice([axis for axis in axes if independent(first, axis)]))
    setting = draw_setting(rng)
    corners = [(y, x) for y in (-1, 1) for x in (-1, 1)]
    levels = [tuple(np.array(corner) * rng.uniform(0.5, 1, 2)) for corner in corners]
    levels += [tuple(rng.uniform(-1, 1, 2)) for _ in range(GRADED - len(corners))]
    strengths = np.full((GRADED, len(AXES)), np.nan, np.float32)
    patches, known = [], []
    for row, level in enumerate(levels):
        named = {first: float(level[0]), second: float(level[1])}
        patch = with_strengths(window, named, setting)
        named = reached(named, patch)
        patches.append(patch)
        known.append(facts_of_strengths(named, patch, setting.base))
        strengths[row, [list(AXES).index(axis) for axis in named]] = list(named.values())
    corner = corners[rng.integers(len(corners))]
    return patches, known, strengths, tuple(AXES[a][int(c > 0)] for a, c in zip((first, second), corner, strict=True))


def scene_examples(scene: Scene, elsewhere: Sequence[Scene], rng: np.random.Generator, side: int) -> Batch:
    """The images of a window of `scene`, and both sources of a window of each scene of `elsewhere` by other cameras."""
    shown = rng.random() < _SHOWN
    for _ in range(_TRIES):
        window = cut(scene, rng, side)
        hot = float((window[-1] > 0.5).mean())
        if not shown or 0.03 < hot < HOT[1]:
            break
    patches, known = [], []

    def add(variant: str, patch: Float[np.ndarray, "s s"], failure: str | None = None) -> None:
        patches.append(patch)
        known.append(facts(variant, patch, failure=failure, targets=hot))

    # The sources that directions start from: most thermal cameras are softer and flatter than those of these pairs, and
    # now and then both sources get the same contrast and random blur.
    soft, softness, flatness = rng.random() < 0.6, rng.uniform(0.5, 2.5), rng.uniform(0.35, 1)
    matched, mean, contrast = rng.random() < 0.1, rng.uniform(0.3, 0.6), rng.uniform(0.08, 0.22)
    alternatives = (names[rng.integers(len(names))] for names in _ALTERNATIVES)
    chosen = [*VARIANTS[:2], *alternatives, "inverted_targets", "visible_enhanced", "infrared_enhanced"]
    for variant in chosen:
        patch = window[VARIANTS.index(variant)]
        if variant in MODALITY:
            if soft and MODALITY[variant] == "infrared":
                patch = gaussian_blur(patch, softness)
                patch = patch.mean() + flatness * (patch - patch.mean())
            if matched:
                if variant == MODALITY[variant]:  # what is enhanced stays sharp
                    patch = gaussian_blur(patch, rng.uniform(0.2, 1.4))
                patch = np.clip(mean + contrast * (patch - patch.mean()) / max(patch.std(), 0.01), 0, 1)
            else:
                patch = np.clip(patch * rng.uniform(0.8, 1.25) + rng.uniform(-0.06, 0.06), 0, 1)
            patch = patch.astype(np.float32)
        add(variant, patch)
    for failure in rng.choice(list(FAILURES), _FAILURES, replace=False):
        bases = ("visible", *GOALS) if failure == "inverted" else VARIANTS[:7]
        variant = bases[rng.integers(len(bases))]
        add(variant, degrade(window[VARIANTS.index(variant)], failure, rng), failure)
    for other in elsewhere:
        layers = cut(other, rng, side)
        sources = other_cameras(layers[COLOURS], layers[VARIANTS.index("infrared")], rng)
        for modality, patch in zip(("visible", "infrared"), sources, strict=True):
            patches.append(patch)
            known.append(modality_alone(modality))
    noise = rng.standard_normal((len(patches), side, side), dtype=np.float32) * np.float32(rng.uniform(0, 0.015))
    with_grain = np.clip(np.stack(patches) + noise, 0, 1)
    of_strength, known_of_strength, strengths, drawn = graded(window, rng)
    return Batch(
        np.concatenate([with_grain, np.stack(of_strength)]),
        np.stack([*known, *known_of_strength]),
        strengths[None],
        [drawn],
    )


class CameraScenes:
    """The scenes of several cameras, drawn in turn from each however many it has; none twice before all were drawn."""

    def __init__(self, cameras: Sequence[Sequence[Scene]], seed: int):
        self._cameras, self._seed = cameras, seed
        self._order = cache(self._order_of_epoch)

    def _order_of_epoch(self, camera: int, epoch: int) -> Int[np.ndarray, " n"]:
        return np.random.default_rng((1, self._seed, camera, epoch)).permutation(len(self._cameras[camera]))

    def scenes(self, number: int, count: int) -> list[Scene]:
        """The `count` scenes of batch `number`: those of the cameras in turn, over the end of each batch."""
        chosen = []
        for turn in range(number * count, (number + 1) * count):
            earlier, camera = divmod(turn, len(self._cameras))
            epoch, place = divmod(earlier, len(self._cameras[camera]))
            chosen.append(self._cameras[camera][self._order(camera, epoch)[place]])
        return chosen

    def batch(self, number: int, count: int, side: int) -> Batch:
        """Batch `number`, of `count` scenes and patches of `side` pixels: the same whenever it is asked for."""
        rng = np.random.default_rng((2, self._seed, number))
        examples = []
        for scene in self.scenes(number, count):
            of = (self._cameras[int(camera)] for camera in rng.integers(len(self._cameras), size=_ELSEWHERE))
            elsewhere = [scenes[int(rng.integers(len(scenes)))] for scenes in of]
            examples.append(scene_examples(scene, elsewhere, rng, side))
        images, known, strengths = (np.concatenate([example[i] for example in examples]) for i in range(3))
        return Batch(images, known, strengths, [example.drawn[0] for example in examples])
