"""The training objective on fixed crops of the validation dataset."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import jax
import numpy as np
from jaxtyping import PyTree
from ml_collections import ConfigDict

from langfuse_jax.atomic import atomic_write
from langfuse_jax.data.pipeline import random_crop
from langfuse_jax.data.scenes import list_scenes, read_scene
from langfuse_jax.models.clip import VisionTower
from langfuse_jax.models.fusion import FusionNet
from langfuse_jax.training.step import Frozen, Recipe, fusion_loss


def write_validation(path: Path, step: int, values: dict[str, float]) -> None:
    """Adds the line of a step to validation.jsonl, dropping those of this and later steps."""
    lines = path.read_text().splitlines() if path.exists() else []
    lines = [line for line in lines if json.loads(line)["step"] < step]
    rounded = {name: round(value, 6) for name, value in values.items()}
    with atomic_write(path) as file:
        file.write("".join(line + "\n" for line in [*lines, json.dumps({"step": step, **rounded})]).encode())


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
    crops = [random_crop(*read_scene(scenes[i]), config.crop, rng) for i in places]
    batches = [
        {role: np.stack([crop[role] for crop in crops[start : start + config.batch_size]]) for role in crops[0]}
        for start in range(0, count, config.batch_size)
    ]
    loss = jax.jit(partial(fusion_loss, net=net, vision=vision, recipe=recipe._replace(noise=0.0)))

    def validate(params, frozen):
        values = []
        for number, batch in enumerate(batches):
            total, terms = loss(params, batch, jax.random.key(number), frozen)
            values.append({"loss": total, **terms})
        values = jax.device_get(values)
        return {name: float(np.mean([value[name] for value in values])) for name in values[0]}

    return validate
