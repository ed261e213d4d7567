"""Training of the compact CLIP, from pairs to a folder in Hugging Face format."""

import json
import os
import queue
import tempfile
import threading
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Array
from ml_collections import ConfigDict
from safetensors.numpy import save_file
from tqdm import tqdm
from transformers import CLIPConfig

from langfuse_jax.clip.pretrained import Clip
from langfuse_jax.clip.tensors import tensors_from_params
from langfuse_jax.compact_clip.batches import PER_SCENE, batches
from langfuse_jax.compact_clip.captions import CONCEPTS, sample_captions, truth, vocabulary
from langfuse_jax.compact_clip.initialisation import convolutional_start
from langfuse_jax.compact_clip.loss import clip_loss, init_heads
from langfuse_jax.compact_clip.report import evaluate, format_report
from langfuse_jax.compact_clip.scenes import load_scenes
from langfuse_jax.compact_clip.tokenizer import make_tokenizer, save_tokenizer
from langfuse_jax.errors import UserError
from langfuse_jax.models.clip import MEAN, STD, TextTower, VisionTower, init_params, towers
from langfuse_jax.runtime.atomic import make_folder
from langfuse_jax.runtime.workdir_lock import locked
from langfuse_jax.training.configs import texts

CAPTION_LENGTH = 32


def clip_config(config, tokenizer) -> CLIPConfig:
    """The architecture as transformers describes it. Raises UserError where heads do not divide a width."""
    for tower in ("vision", "text"):
        width, heads = config.model[tower]["hidden_size"], config.model[tower]["num_attention_heads"]
        if width % heads:
            raise UserError(
                f"--config.model.{tower}.hidden_size={width} does not go into {heads} heads; change it or "
                f"--config.model.{tower}.num_attention_heads"
            )
    words = {
        "vocab_size": len(tokenizer),
        "max_position_embeddings": 77,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    embedding = config.model.embedding
    return CLIPConfig(
        projection_dim=embedding,
        logit_scale_init_value=float(np.log(10)),
        vision_config=dict(config.model.vision, projection_dim=embedding),
        text_config=dict(config.model.text, projection_dim=embedding, **words),
    )


def make_step(vision, text, optimiser, *, weights):
    """The jitted step: one update."""
    loss = partial(clip_loss, vision=vision, text=text, per_scene=PER_SCENE, weights=dict(weights))

    @jax.jit
    def step(params, state, *batch):
        gradient, terms = jax.grad(loss, has_aux=True)(params, *batch)
        updates, state = optimiser.update(gradient, state, params)
        return optax.apply_updates(params, updates), state, terms

    return step


def make_optimiser(config) -> optax.GradientTransformation:
    """Muon for the matrices of the transformer blocks, AdamW for the rest; linear warm-up, then a cosine to 1%."""
    steps, warmup = config.batches, config.warmup_batches

    def schedule(peak):
        return optax.warmup_cosine_decay_schedule(0, peak, warmup, steps, peak / 100)

    def kinds(params):
        return {
            path: "matrix" if leaf.ndim == 2 and any(key.startswith("block_") for key in path) else "other"
            for path, leaf in flatten_dict(params).items()
        }

    decayed = partial(jax.tree.map, lambda leaf: leaf.ndim > 1)
    rules = {
        "matrix": optax.contrib.muon(schedule(config.matrix_learning_rate), weight_decay=config.weight_decay),
        "other": optax.adamw(schedule(config.learning_rate), b2=0.98, weight_decay=config.weight_decay, mask=decayed),
    }
    optimiser = optax.multi_transform(rules, lambda params: unflatten_dict(kinds(params)))
    return optax.chain(optax.clip_by_global_norm(1.0), optimiser)


def draw_params(key: Array, vision: VisionTower, text: TextTower) -> dict[str, Any]:
    """Fresh parameters of both towers and of the heads of the loss, each of them drawn by a key of its own."""
    towers_key, heads_key = jax.random.split(key)
    heads = init_heads(heads_key, tokens=vision.width, width=vision.embedding, concepts=len(CONCEPTS))
    return init_params(vision, text, towers_key) | {"heads": heads}


def train(config, tokenizer, architecture, cameras):
    """Train the two towers on scenes of several cameras; returns their parameters."""
    vision, text = towers(architecture)
    size, seeds = vision.image_size, np.random.SeedSequence(config.seed).spawn(2)
    params = draw_params(jax.random.key(config.seed), vision, text)
    params["vision"] = convolutional_start(params["vision"], vision)
    params["logit_scale"] = jnp.asarray(architecture.logit_scale_init_value, jnp.float32)
    optimiser = make_optimiser(config)
    state = optimiser.init(params)
    step = make_step(vision, text, optimiser, weights=config.weights)
    images_rng, captions_rng = (np.random.default_rng(seed) for seed in seeds)
    stream = batches(cameras, images_rng, count=config.scenes_per_batch, side=size)
    bar = tqdm(_prefetched(stream, config.batches), total=config.batches, disable=None, unit="batch")
    sources = np.array([0, 2], np.int32)  # two sentences of each concept, visible and infrared first
    for number, batch in enumerate(bar):
        captions = sample_captions(captions_rng)
        ids = tokenizer(
            captions.sentences, padding="max_length", max_length=CAPTION_LENGTH, truncation=True, return_tensors="np"
        )["input_ids"].astype(np.int32)
        shift = np.int32(captions_rng.integers(1, config.scenes_per_batch))
        known = truth(captions.claims, batch.known)
        params, state, terms = step(
            params, state, batch.images, ids, known, batch.known, captions.claims, sources, shift
        )
        if number % 20 == 0:
            bar.set_postfix({name: f"{float(value):.2f}" for name, value in terms.items()})
    del params["heads"]
    return params


def _prefetched(stream, count):
    """The first `count` items of a stream, made ahead by a thread of its own."""
    ready: queue.Queue = queue.Queue(maxsize=4)
    failed: list[BaseException] = []

    def work():
        try:
            for _, item in zip(range(count), stream, strict=False):
                ready.put(item)
        except BaseException as error:
            failed.append(error)
        ready.put(None)

    threading.Thread(target=work, daemon=True).start()
    while (item := ready.get()) is not None:
        yield item
    if failed:
        raise failed[0]


def save(folder: Path, params, architecture: CLIPConfig, tokenizer) -> None:
    """config.json, model.safetensors (float16), preprocessor_config.json and the tokenizer's files."""
    half = jax.tree.map(lambda x: np.asarray(x, np.float16), params)
    save_file(tensors_from_params(half), folder / "model.safetensors", metadata={"format": "pt"})
    architecture.architectures, architecture.dtype = ["CLIPModel"], "float16"
    architecture.save_pretrained(folder)
    vision: Any = architecture.vision_config
    preprocessing = {"image_mean": MEAN, "image_std": STD, "size": vision.image_size}
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessing, indent=2) + "\n")
    save_tokenizer(tokenizer, folder)


def train_clip(config: ConfigDict, out: Path, *, command: str = "") -> dict[str, Any]:
    """Trains a compact CLIP as `config` (configs/compact_clip.py) says, and judges it on the camera held out.

    Writes into `out` the folder in Hugging Face's format, report.json and a README with `command`. Returns the report.
    """
    tokenizer = make_tokenizer(vocabulary())
    architecture = clip_config(config, tokenizer)
    cameras = [load_scenes(folder) for folder in texts(config.train_folders)]
    held_out = load_scenes(config.validation_folder)
    make_folder(out)  # before the minutes of training, not after
    with locked(out):
        params = train(config, tokenizer, architecture, cameras)
        with tempfile.TemporaryDirectory(dir=out, prefix=".") as name:
            temporary = Path(name)
            save(temporary, params, architecture, tokenizer)
            report = evaluate(Clip.load(temporary), held_out)
            (temporary / "report.json").write_text(json.dumps(report, indent=2) + "\n")
            (temporary / "README.md").write_text(_card(command, config, cameras, held_out, report))
            for file in sorted(temporary.iterdir()):
                os.replace(file, out / file.name)
    return report


def _card(command, config, cameras, held_out, report):
    names = [Path(folder).name for folder in texts(config.train_folders)]
    data = ", ".join(f"{name} ({len(scenes)} pairs)" for name, scenes in zip(names, cameras, strict=True))
    return f"""# Compact CLIP

Made on {date.today()} by

    {command}

Trained on patches of {data}; judged on {Path(config.validation_folder).name} ({len(held_out)} pairs), whose cameras it
never saw:

{format_report(report)}

The config:

```
{config}
```
"""
