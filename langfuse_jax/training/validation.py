"""What the validation dataset says of a training: the objective on fixed crops, and metrics of whole fused images."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree
from ml_collections import ConfigDict

from langfuse_jax.atomic import atomic_write
from langfuse_jax.canvas import extend, fit_network, how_seen, place
from langfuse_jax.data.pipeline import random_crop
from langfuse_jax.data.scenes import list_scenes, read_scene
from langfuse_jax.errors import UserError
from langfuse_jax.metrics import METRICS, evaluate
from langfuse_jax.models.clip import VisionTower
from langfuse_jax.models.fusion import FusionNet
from langfuse_jax.training.log import json_line, lines_before
from langfuse_jax.training.step import Frozen, Recipe, fusion_loss


def write_line(path: Path, step: int, values: dict[str, float]) -> None:
    """Adds the line of a step to a .jsonl file, dropping those of this and later steps."""
    lines = lines_before(path, step)
    with atomic_write(path) as file:
        file.write("".join([*lines, json_line(step, values)]).encode())


def make_scores(config: ConfigDict, net: FusionNet) -> Callable[[PyTree], dict[str, float]] | None:
    """A function of params that gives the mean `config.scores.metrics` of all fused validation pairs; None for none.

    Images keep their sizes: all are fused as `Fuser` does, but on one canvas, and rounded to 8 bits before they are
    scored in the convention "cddfuse".
    """
    if not config.data.validation or not config.scores.every:
        return None
    for name in config.scores.metrics:
        if name not in METRICS:
            raise UserError(f"config.scores.metrics: {name} is unknown; choose among {', '.join(METRICS)}")
    scenes = list_scenes(Path(config.data.root) / config.data.validation, "test")
    pairs = [read_scene(scene) for scene in scenes]
    metrics, seen = tuple(config.scores.metrics), how_seen(config.crop)
    extended = [[extend(image, **seen) for image in pair] for pair in pairs]
    canvas = fit_network(tuple(max(visible.shape[axis] for visible, _ in extended) for axis in (0, 1)))

    @jax.jit
    def score(params, network_sees, network_size, sources, size):
        fused: Any = net.apply(params, *network_sees, network_size)
        images = [jnp.round(255 * jnp.clip(image[..., 0], 0, 1)) for image in (fused, *sources)]
        return evaluate(*images, sizes=size, metrics=metrics)

    def scores(params):
        values = []
        for pair in zip(extended, pairs, strict=True):
            images = [
                x
                for source in pair
                for x in ([place([i], canvas) for i in source], np.array([source[0].shape], np.int32))
            ]
            values.append(jax.device_get(score(params, *images)))
        return {name: float(np.mean([value[name] for value in values])) for name in metrics}

    return scores


def make_validation(
    config: ConfigDict, net: FusionNet, vision: VisionTower, recipe: Recipe
) -> Callable[[PyTree, Frozen], dict[str, float]] | None:
    """A function of (params, frozen) that gives the mean loss and terms; None where the config asks for none.

    `config.validation_pairs` scenes, spread over the validation dataset and filled up to whole batches, give one crop
    each; crops, views and patch windows are drawn from a fixed key, so numbers compare between steps and trainings of
    one crop size. The network sees no noise.
    """
    if not config.data.validation or not config.validation_pairs:
        return None
    scenes = list_scenes(Path(config.data.root) / config.data.validation, "test")
    count = -(-config.validation_pairs // config.batch_size) * config.batch_size
    places = np.linspace(0, len(scenes) - 1, count).round().astype(int)
    rng = np.random.default_rng(0)
    crops = [random_crop(*read_scene(scenes[i]), config.crop, rng, zoom=config.zoom) for i in places]
    batches = [
        {role: np.stack([crop[role] for crop in crops[start : start + config.batch_size]]) for role in crops[0]}
        for start in range(0, count, config.batch_size)
    ]
    loss = jax.jit(partial(fusion_loss, net=net, vision=vision, recipe=recipe._replace(noise=0.0)))

    def validate(params, frozen):
        values = []
        for number, batch in enumerate(batches):
            total, terms = loss(params, batch, np.arange(config.batch_size), jax.random.key(number), frozen)
            values.append({"loss": total, **terms})
        values = jax.device_get(values)
        return {name: float(np.mean([value[name] for value in values])) for name in values[0]}

    return validate
