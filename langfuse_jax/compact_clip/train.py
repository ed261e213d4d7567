"""Training of the compact CLIP, from pairs to a folder in Hugging Face format."""

import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import safetensors.numpy
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Array, PyTree
from ml_collections import ConfigDict
from transformers import CLIPConfig, CLIPTokenizer

from langfuse_jax.clip.pretrained import Clip
from langfuse_jax.clip.tensors import tensors_from_params
from langfuse_jax.clip.vocabulary import Vocabulary
from langfuse_jax.compact_clip.batches import PER_SCENE, CameraScenes
from langfuse_jax.compact_clip.captions import (
    neutral_words,
    reference_sentences,
    related,
    sample_captions,
    truth,
    vocabulary,
)
from langfuse_jax.compact_clip.concepts import CONCEPTS
from langfuse_jax.compact_clip.initialisation import convolutional_start
from langfuse_jax.compact_clip.judgement import format_report, limits
from langfuse_jax.compact_clip.loss import clip_loss, init_heads
from langfuse_jax.compact_clip.report import evaluate, evaluate_sentences
from langfuse_jax.compact_clip.scenes import Scene, load_scenes
from langfuse_jax.compact_clip.tokenizer import make_tokenizer, save_tokenizer
from langfuse_jax.data.drawn import DrawnBatches
from langfuse_jax.errors import UserError
from langfuse_jax.models.clip import MEAN, STD, TextTower, VisionTower, init_params, towers
from langfuse_jax.training import loop
from langfuse_jax.training.configs import check_least, check_texts, texts
from langfuse_jax.training.parallel import data_mesh, on_host
from langfuse_jax.training.speed import Speed
from langfuse_jax.training.step import clip_by_norm, init_state, make_train_step

_LEAST = {
    2: ("scenes_per_batch",),  # whose sources directions are taken from, too
    1: (*loop.LEAST[1], "steps", "steps_left_out"),
    0: (*loop.LEAST[0], "optimizer.matrix_learning_rate", "optimizer.weight_decay"),
}
CAPTION_LENGTH = 32


def clip_config(config: ConfigDict, tokenizer: CLIPTokenizer) -> CLIPConfig:
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


def _schedule(config: ConfigDict, peak: float) -> optax.Schedule:
    """Linear warm-up, then a cosine to 1%."""
    warmup = config.optimizer.warmup_steps
    return optax.warmup_cosine_decay_schedule(0, peak, warmup, max(config.steps, warmup + 1), peak / 100)


def make_optimizer(config: ConfigDict) -> optax.GradientTransformation:
    """Muon for the matrices of the transformer blocks, AdamW for the rest; linear warm-up, then a cosine to 1%."""
    decay = config.optimizer.weight_decay

    def kinds(params: dict[str, Any]) -> dict[tuple[str, ...], str]:
        return {
            path: "matrix" if leaf.ndim == 2 and any(key.startswith("block_") for key in path) else "other"
            for path, leaf in flatten_dict(params).items()
        }

    decayed = partial(jax.tree.map, lambda leaf: leaf.ndim > 1)
    rules = {
        "matrix": optax.contrib.muon(_schedule(config, config.optimizer.matrix_learning_rate), weight_decay=decay),
        "other": optax.adamw(
            _schedule(config, config.optimizer.learning_rate), b2=0.98, weight_decay=decay, mask=decayed
        ),
    }
    optimizer = optax.multi_transform(rules, lambda params: unflatten_dict(kinds(params)))
    return optax.chain(clip_by_norm(config.optimizer.gradient_clip), optimizer)


def draw_params(key: Array, vision: VisionTower, text: TextTower) -> dict[str, Any]:
    """Fresh parameters of both towers and of the heads of the loss, each of them drawn by a key of its own."""
    towers_key, heads_key = jax.random.split(key)
    heads = init_heads(heads_key, tokens=vision.width, width=vision.embedding, concepts=len(CONCEPTS))
    return init_params(vision, text, towers_key) | {"heads": heads}


class ClipData(DrawnBatches):
    """Numbered batches of patches and sentences for `clip_loss`, made in a thread beside the device."""

    def __init__(
        self,
        cameras: Sequence[Sequence[Scene]],
        tokenizer: CLIPTokenizer,
        config: ConfigDict,
        *,
        side: int,
    ):
        self._scenes, self._tokenizer = CameraScenes(cameras, config.seed), tokenizer
        self._count, self._side, self._seed = config.scenes_per_batch, side, config.seed

    def batch(self, number: int) -> dict[str, np.ndarray]:
        """The arguments of `clip_loss` by name: the same on every call."""
        patches = self._scenes.batch(number, self._count, self._side)
        captions = sample_captions(np.random.default_rng((3, self._seed, number)), patches.drawn)
        ids = self._tokenizer(
            captions.sentences, padding="max_length", max_length=CAPTION_LENGTH, truncation=True, return_tensors="np"
        )["input_ids"].astype(np.int32)
        known = patches.known
        return {
            "images": patches.images,
            "ids": ids,
            "truth": truth(captions.claims, known),
            "known": known,
            "claims": captions.claims,
            "strengths": patches.strengths,
        }


def save(folder: Path, params: PyTree, architecture: CLIPConfig, tokenizer: CLIPTokenizer) -> None:
    """config.json, model.safetensors (float16), preprocessor_config.json and the tokenizer's files."""
    half = jax.tree.map(lambda x: np.asarray(x, np.float16), params)
    content = safetensors.numpy.save(tensors_from_params(half), metadata={"format": "pt"})
    (folder / "model.safetensors").write_bytes(content)
    architecture.architectures, architecture.dtype = ["CLIPModel"], "float16"
    architecture.save_pretrained(folder)
    vision: Any = architecture.vision_config
    preprocessing = {"image_mean": MEAN, "image_std": STD, "size": vision.image_size}
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessing, indent=2) + "\n")
    save_tokenizer(tokenizer, folder)
    phrases = tuple(reference_sentences().values())
    Vocabulary(frozenset(vocabulary()), frozenset(neutral_words()), phrases).save(folder)


def train_one(config: ConfigDict, cameras: Mapping[str, Sequence[Scene]], out: Path, *, override: bool) -> Clip:
    """Trains a compact CLIP on `cameras` and writes it into `out` in Hugging Face's format, resuming what is there."""
    tokenizer = make_tokenizer(vocabulary())
    architecture = clip_config(config, tokenizer)
    vision, text = towers(architecture)
    init_key, step_key = jax.random.split(jax.random.key(config.seed))
    params = draw_params(init_key, vision, text)
    params["vision"] = convolutional_start(params["vision"], vision)
    params["logit_scale"] = jnp.asarray(architecture.logit_scale_init_value, jnp.float32)
    optimizer = make_optimizer(config)
    state = jax.device_get(init_state(params, optimizer))
    loss = partial(
        clip_loss, vision=vision, text=text, per_scene=PER_SCENE, related=related(), weights=dict(config.loss)
    )
    run = loop.TrainingRun(
        config=config,
        steps=config.steps,
        state=state,
        key=step_key,
        make_step=partial(make_train_step, loss, optimizer),
        rate=_schedule(config, config.optimizer.learning_rate),
        data=ClipData(list(cameras.values()), tokenizer, config, side=vision.image_size),
        mesh=data_mesh(jax.local_devices()[:1]),
        speed=Speed(config.scenes_per_batch),
        config_file="training.json",  # config.json is the model's
    )
    with loop.claimed(out, state):
        state, _ = loop.run(run, out, override=override)
        trained = {name: part for name, part in on_host(state.final).items() if name != "heads"}
        with _replaced_whole(out) as temporary:
            save(temporary, trained, architecture, tokenizer)
    return Clip.load(out)


def check_config(config: ConfigDict) -> list[tuple[str, ...]]:
    """The groups of cameras to leave out. Raises UserError, naming the key, for a value that cannot be used."""
    check_least(config, _LEAST)
    for key in ("data.train", "data.validation", "data.unseen"):
        check_texts(config, key)
    names = texts(config.data.train)
    for part in ("validation", "unseen"):
        if seen := set(names).intersection(texts(config.data[part])):
            raise UserError(f"config.data.{part}: {min(seen)} is in config.data.train; judge by other cameras")
    groups = [texts(group) for group in config.data.left_out]
    remedy = 'name some of them, or leave out none: --config.data.left_out="()"'
    for group in groups:
        if stranger := next((name for name in group if name not in names), None):
            raise UserError(f"config.data.left_out: {stranger} is not among config.data.train {names}; {remedy}")
        if set(group) == set(names):
            raise UserError(f"config.data.left_out: {group} leaves no camera to train on; {remedy}")
    return groups


def without(config: ConfigDict, group: Sequence[str]) -> ConfigDict:
    """The config of the shorter training run without a group of cameras."""
    alone = config.copy_and_resolve_references()
    alone.data.train = tuple(name for name in texts(config.data.train) if name not in group)
    alone.data.left_out, alone.steps = (), config.steps_left_out
    return alone


@contextmanager
def _replaced_whole(out: Path) -> Iterator[Path]:
    """A folder whose files are moved into `out` when all are written."""
    with tempfile.TemporaryDirectory(dir=out, prefix=".") as name:
        yield Path(name)
        for file in sorted(Path(name).iterdir()):
            os.replace(file, out / file.name)


def train_clip(config: ConfigDict, out: Path, *, command: str = "", override: bool = False) -> dict[str, Any]:
    """Trains a compact CLIP as `config` (configs/compact_clip.py) says, and judges it on cameras that it never saw.

    Beside what `loop.run` writes into `out`, whose checkpoints it resumes from, there is the model in Hugging Face's
    format, report.json and a README with `command`. For every group of cameras of `config.data.left_out` another one,
    in `out`/left_out, is trained without them and judged on them. It runs on one device. Returns the report.
    """
    groups = check_config(config)
    names = texts(config.data.train)
    clip_config(config, make_tokenizer(vocabulary()))  # refuses what cannot be built before images are read
    read = lru_cache(None)(lambda name: load_scenes(Path(config.data.root) / name))
    cameras = {name: read(name) for name in names}
    judges = {part: {name: read(name) for name in texts(config.data[part])} for part in ("validation", "unseen")}
    clip = train_one(config, cameras, out, override=override)
    report: dict[str, Any] = {
        "fingerprint": clip.fingerprint,
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(clip.params)),
        "sentences": evaluate_sentences(clip),
        "development": {name: evaluate(clip, scenes) for name, scenes in judges["validation"].items()},
        "unseen": {name: evaluate(clip, scenes) for name, scenes in judges["unseen"].items()},
        "left_out": {},
    }
    for group in groups:
        rest = {name: scenes for name, scenes in cameras.items() if name not in group}
        folder = out / "left_out" / "+".join(group)
        other = train_one(without(config, group), rest, folder, override=override)
        report["left_out"] |= {name: evaluate(other, cameras[name]) for name in group}
    report["accepted"] = all(limit.reached for limit in limits(report))
    with _replaced_whole(out) as temporary:
        (temporary / "report.json").write_text(json.dumps(report, indent=2) + "\n")
        counts = {name: len(scenes) for name, scenes in cameras.items()}
        (temporary / "README.md").write_text(_card(command, config, counts, report))
    return report


def _card(command: str, config: ConfigDict, pairs: Mapping[str, int], report: dict[str, Any]) -> str:
    licences = dict(config.data.licences)
    data = "\n".join(f"| {name} | {count} | {licences.get(name, 'not given')} |" for name, count in pairs.items())
    return f"""# Compact CLIP

Made on {date.today()} by

    {command}

Trained on patches of these, for research; none of them is in this package:

| folder | pairs | licence as stated |
|---|---|---|
{data}

Judged on cameras that it never saw. Rows "left out" are of other CLIPs of this recipe, trained for fewer steps without
that camera's group:

{format_report(report)}

The config:

```
{config}
```
"""
