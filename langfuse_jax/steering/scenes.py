"""Batches for the steered network: windows of scenes, a goal for each, and what it would look like."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image

from langfuse_jax.classical.pyramid import hot_targets
from langfuse_jax.classical.target import target_fuse
from langfuse_jax.data.drawn import DrawnBatches
from langfuse_jax.data.pipeline import random_crop
from langfuse_jax.data.scenes import Scenes
from langfuse_jax.images.files import to_uint8
from langfuse_jax.models.statistics import pair_statistics
from langfuse_jax.steering.glare import glare_opened
from langfuse_jax.steering.goals import Goals
from langfuse_jax.steering.pictures import Layers, picture, sureness
from langfuse_jax.training.augmentation.fade import mixed

_DEFAULT = 0.4  # of the samples have the default sentence
_PARTIAL, _MIXED = 0.5, 0.1  # of the others a part of a goal's strength; a mixture of two goals
_UNPICTURED = 0.25  # how much the default target holds a sample whose goal has no picture
_CANVAS = 256  # pixels; canvases have multiples of it
_SIZES = 3  # in which a scene is shown

Gray = Float32[np.ndarray, "h w"]
_statistics = jax.jit(pair_statistics)


class SteeredScene(NamedTuple):
    """A whole scene (0-255): visible, infrared, the default target, where it is hot; and its statistics."""

    layers: UInt8[np.ndarray, "4 h w"]
    statistics: Float32[np.ndarray, "18"]


def steered_scene(visible: Gray, infrared: Gray) -> SteeredScene:
    """What is computed once of sources in [0, 1]."""
    target = target_fuse(glare_opened(visible, infrared), infrared)
    layers = to_uint8(np.stack([visible, infrared, target, np.asarray(hot_targets(infrared), np.float32)]))
    # Scenes differ in size: canvases of few sizes spare a compilation for each.
    canvas = np.pad(layers[:2], ((0, 0), *((0, -side % _CANVAS) for side in visible.shape)))
    sources = (jnp.asarray(source[None, ..., None], jnp.float32) / 255 for source in canvas)
    return SteeredScene(layers, np.asarray(_statistics(*sources, np.array([visible.shape], np.int32))[0]))


class SteeredScenes(Sequence):
    """Scenes by number: each pair in some sizes, as it is and in copies of other tones.

    Made when they are first asked for, and kept in memory until `cache_mb` megabytes are full. Zooms go from 1 to
    `zoom`, as far as a scene stays as large as a crop: statistics, target and pictures are those of the smaller scene.
    """

    def __init__(self, sources: Scenes, *, copies: int, zoom: float, crop: int, cache_mb: int, seed: int):
        self._sources, self._copies, self._crop, self._seed = sources, copies, crop, seed
        self._zooms = np.geomspace(1, zoom, _SIZES)
        self._kept: dict[int, SteeredScene] = {}
        self._free = cache_mb * 2**20

    def __len__(self) -> int:
        return len(self._sources) * (1 + self._copies) * _SIZES

    def __getitem__(self, index: int) -> SteeredScene:  # type: ignore[override]  # no slices
        if index in self._kept:
            return self._kept[index]
        rest, size = divmod(index, _SIZES)
        number, copy = divmod(rest, 1 + self._copies)
        visible, infrared = self._sources[number]
        zoom = max(1.0, min(float(self._zooms[size]), min(visible.shape) / self._crop))
        visible, infrared = (_shrunk(image, zoom) for image in (visible, infrared))
        if copy:
            visible, infrared = with_other_tones(
                visible, infrared, np.random.default_rng((7, self._seed, number, copy))
            )
        scene = steered_scene(visible, infrared)
        if scene.layers.nbytes <= self._free:
            self._free -= scene.layers.nbytes
            self._kept[index] = scene
        return scene


def _shrunk(image: Gray, zoom: float) -> Float32[np.ndarray, "h2 w2"]:
    if zoom == 1:
        return image
    size = round(image.shape[1] / zoom), round(image.shape[0] / zoom)
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC)).clip(0, 1)


def with_other_tones(visible: Gray, infrared: Gray, rng: np.random.Generator) -> tuple[Gray, Gray]:
    """The sources with other contrasts and curves, as other cameras would give them."""
    draws = rng.random((2, 2, 1, 1), np.float32)
    faded = mixed(np.stack([visible, infrared]), draws, np.float32(0.6))
    curves = np.exp(rng.uniform(-0.7, 0.7, 2))
    first, second = (
        (image / (image + (1 - image) * curve + 1e-6)).astype(np.float32)
        for image, curve in zip(np.clip(faded, 0, 1), curves, strict=True)
    )
    return first, second


class SteeringData(DrawnBatches):
    """Numbered batches for `steering_loss`; process i of n makes the i-th, the (i + n)-th sample and so on.

    Args:
        scenes: drawn from alike.
        goals: drawn from alike, for those samples that do not have the `default` goal, a unit embedding.
        crop: side of the windows.
        batch_size: of all processes together.
        process: (index, count) of this process.
    """

    def __init__(
        self,
        scenes: Sequence[SteeredScene],
        goals: Goals,
        default: Float32[np.ndarray, " d"],
        *,
        crop: int,
        batch_size: int,
        seed: int,
        process: tuple[int, int] = (0, 1),
    ):
        self._scenes, self._goals, self._default = scenes, goals, default
        self._crop, self._seed, self._places = crop, seed, range(process[0], batch_size, process[1])

    def batch(self, number: int) -> dict[str, np.ndarray]:
        """The arguments of `steering_loss` by name: the same whenever they are asked for."""
        samples = [self._sample(np.random.default_rng((6, self._seed, number, place))) for place in self._places]
        return {name: np.stack([sample[name] for sample in samples]) for name in samples[0]}

    def _sample(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        scene = self._scenes[int(rng.integers(len(self._scenes)))]
        layers = Layers(*(layer.astype(np.float32) / 255 for layer in scene.layers))
        goal, wanted, anchored, steered = self._default, layers.target, 1.0, rng.random() >= _DEFAULT
        if steered:
            goal, wanted, anchored = self._goal(layers, rng)
        crops = random_crop(layers.visible, layers.infrared, self._crop, rng, wanted=wanted)
        if rng.random() < 0.5:
            crops = {name: image[:, ::-1].copy() for name, image in crops.items()}
        more = {"anchored": anchored, "goal": goal, "steered": steered, "statistics": scene.statistics}
        return crops | {name: np.asarray(value, np.float32) for name, value in more.items()}

    def _goal(self, layers: Layers, rng: np.random.Generator) -> tuple[Float32[np.ndarray, " d"], Gray, float]:
        """An embedding, what it looks like, and how surely."""
        strength = float(rng.uniform(0.2, 1)) if rng.random() < _PARTIAL else 1.0
        first = int(rng.integers(len(self._goals.sentences)))
        concepts, towards = self._goals.concepts[first], self._goals.embeddings[first]
        if rng.random() < _MIXED:
            second = int(rng.integers(len(self._goals.sentences)))
            if self._goals.agree(first, second):
                concepts = (*concepts, *self._goals.concepts[second])
                share = rng.uniform(0.3, 0.7)
                towards = share * towards + (1 - share) * self._goals.embeddings[second]
                towards = towards / np.linalg.norm(towards)
        goal = (self._default + strength * (towards - self._default)).astype(np.float32)
        if not concepts:
            return goal, layers.target, _UNPICTURED
        return goal, picture(layers, concepts, strength), sureness(concepts)
