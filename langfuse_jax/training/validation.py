"""What the validation dataset says of a training run: the objective on fixed crops, and metrics of whole fused images.

Scenes are read when they are needed and dropped, so that memory does not grow with their number.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Int, PyTree, Shaped
from ml_collections import ConfigDict

from langfuse_jax.data.pipeline import random_crop
from langfuse_jax.data.prepared import Record
from langfuse_jax.data.scenes import list_scenes, read_scene, scene_size
from langfuse_jax.errors import UserError
from langfuse_jax.images.canvas import Size, border_rule, extend, extended_size, place, plan, smallest
from langfuse_jax.images.pairs import Pair
from langfuse_jax.metrics import METRICS, evaluate
from langfuse_jax.models.clip import VisionTower
from langfuse_jax.models.fusion import FusionNet
from langfuse_jax.training.loop import Look
from langfuse_jax.training.objective import Frozen, Recipe, fusion_loss
from langfuse_jax.training.parallel import AXIS, compiler_options, divide, on_host


def make_scores(config: ConfigDict, net: FusionNet) -> list[Look]:
    """The look that gives the mean `config.scores.metrics` of all fused validation pairs; none where none are wanted.

    Images keep their sizes: all are fused as `Fuser` does, but on one canvas, and rounded to 8 bits before they are
    scored in the convention "cddfuse".
    """
    if not config.data.validation or not config.scores.every:
        return []
    for name in config.scores.metrics:
        if name not in METRICS:
            raise UserError(f"config.scores.metrics: {name} is unknown; choose among {', '.join(METRICS)}")
    scenes = list_scenes(Path(config.data.root) / config.data.validation, "test")
    metrics = tuple(config.scores.metrics)

    @cache
    def canvases(pad_multiple: int) -> list[Size]:
        return plan([extended_size(scene_size(scene), pad_multiple) for scene in scenes], limit=1)

    @jax.jit
    def score(
        params: PyTree,
        padded: Sequence[Array],
        padded_size: Int[Array, "1 2"],
        sources: Sequence[Array],
        size: Int[Array, "1 2"],
    ) -> dict[str, Array]:
        fused: Any = net.apply(params, *padded, padded_size)
        images = [jnp.round(255 * jnp.clip(image[..., 0], 0, 1)) for image in (fused, *sources)]
        return cast(dict[str, Array], evaluate(*images, sizes=size, metrics=metrics))

    def of_scene(params: PyTree, scene: Pair | Record, padding: Mapping[str, int]) -> dict[str, np.ndarray]:
        pair = read_scene(scene)
        extended = [extend(image, **padding) for image in pair]
        # A header may not tell all of how an image is turned.
        canvas = smallest(canvases(padding["pad_multiple"]), extended[0].shape)
        images = [
            x
            for source in (extended, pair)
            for x in ([place([i], canvas) for i in source], np.array([source[0].shape], np.int32))
        ]
        return jax.device_get(score(params, *images))

    def scores(params: PyTree, step: int, trained_with: Mapping[str, Any]) -> dict[str, float]:
        params, total, padding = jax.device_put(params), Counter[str](), border_rule(trained_with["crop"])
        for scene in scenes:
            total.update({name: float(np.mean(value)) for name, value in of_scene(params, scene, padding).items()})
        return {name: total[name] / len(scenes) for name in metrics}

    return [Look("scores", config.scores.every, scores)]


def make_validation(
    config: ConfigDict, net: FusionNet, vision: VisionTower, recipe: Recipe, mesh: Mesh
) -> Callable[[PyTree, Frozen], dict[str, float]] | None:
    """A function of (params, frozen), on every device of the mesh, that gives the mean loss and terms, or None.

    `config.validation.pairs` scenes, spread over the validation dataset (all where it has no more), give one crop each.
    A crop and its view depend on the scene alone, and patch windows are the same for all, so that numbers compare
    between steps, training runs of one crop size, and any number of devices and processes. The network sees no noise.
    Devices take no more crops at a time than of a part of a step's batch, and processes read those of their own
    devices. None where the config wants none. Raises UserError for scenes that cannot be read, now, not in an hour.
    """
    if not config.data.validation or not config.validation.pairs:
        return None
    scenes = list_scenes(Path(config.data.root) / config.data.validation, "test")
    count = min(config.validation.pairs, len(scenes))
    chosen = np.linspace(0, len(scenes) - 1, count).round().astype(int)
    parts = _parts(chosen, config.batch_size // config.memory.accumulate, mesh.size)
    for number in parts[parts >= 0]:
        read_scene(scenes[number])
    add = _make_sums(net, vision, recipe._replace(noise=0.0), mesh)

    def validate(params: PyTree, frozen: Frozen) -> dict[str, float]:
        total: Counter[str] = Counter()
        for numbers in parts:
            sums = add(params, divide(_crops(scenes, numbers, config), "jit", mesh), frozen)
            total.update(jax.tree.map(float, on_host(sums)))
        return {name: value / count for name, value in total.items()}

    return validate


def _parts(numbers: Int[np.ndarray, " n"], most: int, devices: int) -> Int[np.ndarray, "parts b"]:
    """Numbers in as few equal parts of at most `most` as will do, filled up with -1 to divide over the devices; of each
    part, what this process reads.
    """
    turns = -(-len(numbers) // most)
    size = -(-len(numbers) // (turns * devices)) * devices
    filled = np.pad(numbers, (0, turns * size - len(numbers)), constant_values=-1)
    return filled.reshape(turns, jax.process_count(), -1)[:, jax.process_index()]


def _crops(
    scenes: Sequence[Pair | Record], numbers: Int[np.ndarray, " b"], config: ConfigDict
) -> dict[str, Shaped[np.ndarray, "b ..."]]:
    """A batch of a crop of each scene, drawn by its number alone, which is its place; black for -1."""
    batch: dict[str, np.ndarray] = {
        role: np.zeros((len(numbers), config.crop, config.crop, 1), np.float32) for role in ("visible", "infrared")
    }
    for row in np.flatnonzero(numbers >= 0):
        rng = np.random.default_rng([0, numbers[row]])
        crop = random_crop(*read_scene(scenes[numbers[row]]), config.crop, rng, zoom=config.augment.zoom)
        for role, image in crop.items():
            batch[role][row] = image
    return {**batch, "place": numbers}


def _make_sums(net: FusionNet, vision: VisionTower, recipe: Recipe, mesh: Mesh) -> Callable[..., dict[str, Array]]:
    """A function (params, batch, frozen) -> sums of loss and terms over the crops whose place is not -1."""

    def sums(params: PyTree, batch: Mapping[str, Array], frozen: Frozen) -> dict[str, Array]:
        def one(sample: Mapping[str, Array]) -> dict[str, Array]:
            batch = {name: x[None] for name, x in sample.items()}
            total, terms = fusion_loss(params, batch, jax.random.key(0), frozen, net=net, vision=vision, recipe=recipe)
            return {"loss": total, **terms}

        real = batch["place"] >= 0
        values = jax.vmap(one)(batch)
        return jax.lax.psum({name: jnp.where(real, value, 0).sum() for name, value in values.items()}, AXIS)

    everywhere, blocks = PartitionSpec(), PartitionSpec(AXIS)
    arguments = (everywhere, blocks, everywhere)
    mapped = jax.shard_map(sums, mesh=mesh, in_specs=arguments, out_specs=everywhere, check_vma=False)
    return jax.jit(mapped, compiler_options=compiler_options(mesh))
