"""Training runs of a tiny network with a cheap loss, for tests of all around the step.

`python quick_training.py ARGUMENTS` runs one.
"""

import json
import sys
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
from PIL import Image

from langfuse_jax.examples.night_scene import night_scene
from langfuse_jax.inference import fuser
from langfuse_jax.models.fusion import FusionNet
from langfuse_jax.models.layers import Conv, zero_outside
from langfuse_jax.training import fusion, validation
from langfuse_jax.weights import fusion as weights

CONFIG = Path(__file__).resolve().parents[1] / "configs" / "smoke.py"


def loss(params, batch, key, frozen, *, net=None, vision=None, recipe=None):
    """Needs all that a resumed training run must repeat: parameters, batch and key. NaN for a batch of black images."""
    level = batch["visible"].mean()
    goal = level / (level > 0) + 0.1 * jax.random.normal(key)
    total = sum(jnp.square(leaf - goal).mean() for leaf in jax.tree.leaves(params))
    terms = {name: total for name in ("whole", "patch", "similarity", "perceptual")}
    return total, {**terms, "fused_std": batch["visible"].std()}


def draw_scenes(root, seeds=(0, 1, 2)):
    """A dataset `night` in a folder, of small drawn pairs."""
    for role in ("visible", "infrared"):
        (root / "night" / role).mkdir(parents=True)
    for seed in seeds:
        for role, pixels in zip(("visible", "infrared"), night_scene(48, 64, seed=seed), strict=True):
            Image.fromarray(pixels).save(root / "night" / role / f"{seed}.png")


def overrides(root, **values):
    """The flags of a training run on `draw_scenes(root)`; in a name, two underscores are a dot."""
    values = {
        "data.root": root,
        "data.train": "('night',)",
        "data.validation": "",
        "crop": 32,
        "batch_size": 2,
        "steps": 12,
        "optimizer.warmup_steps": 1,
        "checkpoint.every": 2,
        "log.every": 2,  # so short a run has a line for each step all the same
        "sheet.every": 1000,
        "optimizer.trainable": "all",
        **{name.replace("__", "."): value for name, value in values.items()},
    }
    return [f"--config.{key}={value}" for key, value in values.items()]


def lines(path):
    """What a .jsonl file holds."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def metrics(workdir):
    """The lines of metrics.jsonl, strict JSON, without those numbers that no second run repeats."""

    def refuse(constant):
        raise ValueError(f"{constant} is no JSON")

    text = (workdir / "metrics.jsonl").read_text()
    lines = [json.loads(line, parse_constant=refuse) for line in text.splitlines()]
    timed = ("samples_per_second", "input_wait", "mfu", "device_memory_gib")
    return [{name: value for name, value in line.items() if name not in timed} for line in lines]


class TinyNet(FusionNet):
    """Three convolutions, saved in no time; what the loop touches has the name that it has in the fusion network."""

    def setup(self):
        self.hidden = Conv(64, 3, reflect=1)
        self.decoder = _Decoder()

    def __call__(self, visible, infrared, sizes=None):
        x = self.hidden(jnp.concatenate([visible, infrared], -1), sizes)
        return zero_outside(nn.sigmoid(self.decoder(nn.relu(x))), sizes)


class _Decoder(nn.Module):
    @nn.compact
    def __call__(self, x):
        return Conv(1, 1, name="head")(nn.relu(Conv(64, 3, zeros=1, name="body")(x)))


def patch_loss(setattr=setattr):
    """Puts the cheap loss in the place of the real one."""
    setattr(fusion, "fusion_loss", loss)
    setattr(validation, "fusion_loss", loss)


def patch(setattr=setattr):
    """Puts the tiny network and the cheap loss in the place of the real ones."""
    patch_loss(setattr)
    setattr(fusion, "FusionNet", TinyNet)
    for module in (weights, fuser):
        setattr(module, "network", lambda params: TinyNet())


if __name__ == "__main__":
    from langfuse_jax.cli import main

    patch()
    sys.exit(main(["train", "--config", str(CONFIG), *sys.argv[1:]]))
