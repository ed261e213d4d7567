"""`langfuse-jax train --config words`: the steered network, towards the default sentence and many others."""

import json
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from langfuse_jax.clip.pretrained import Clip
from langfuse_jax.clip.words import GOAL, TextEmbeddings
from langfuse_jax.data.scenes import Scenes
from langfuse_jax.errors import UserError, reason
from langfuse_jax.inference.goals import goal_direction
from langfuse_jax.models.clip import in_compute_dtype
from langfuse_jax.models.fusion import fresh_params
from langfuse_jax.models.steered import SteeredNet
from langfuse_jax.steering.goals import Goals, goals_of_vocabulary, listed_goals
from langfuse_jax.steering.loss import steering_loss
from langfuse_jax.steering.scenes import SteeredScenes, SteeringData
from langfuse_jax.training import loop
from langfuse_jax.training.configs import (
    check_below_one,
    check_choice,
    check_fractions,
    check_least,
    check_texts,
    texts,
)
from langfuse_jax.training.fusion import clip_dtype, embed_prompts
from langfuse_jax.training.objective import Frozen
from langfuse_jax.training.outcome import Outcome
from langfuse_jax.training.parallel import check_division, check_parallel, data_mesh, on_host
from langfuse_jax.training.sheets import make_sheet
from langfuse_jax.training.shown import Sentence, default, shown_pairs
from langfuse_jax.training.sources import provenance, training_scenes
from langfuse_jax.training.speed import Speed
from langfuse_jax.training.step import TrainState, clip_by_norm, init_state, make_train_step
from langfuse_jax.weights.fusion import save_fusion
from langfuse_jax.weights.vgg import load_vgg19

_LEAST = {
    1: (*loop.LEAST[1], "batch_size", "steps", "patches.count", "augment.zoom", "sheet.pairs"),
    0: (*loop.LEAST[0], "augment.copies", "sheet.every", "data.cache_mb", "data.max_unreadable"),
    64: ("crop",),
}


def train_steered(
    config: ConfigDict, workdir: str | Path, *, command: str = "", override: bool = False, profile: int = 0
) -> TrainState:
    """Trains a steered network as `config` (configs/words.py) says, resuming from the checkpoints in `workdir`.

    The step runs on all devices of all JAX processes. Beside what `loop.run` writes there are sheets/ (infrared,
    visible, fused before and after, and towards `config.sheet.goals`, every `config.sheet.every` steps) and at the end
    outcome.jsonl (each of these sentences before and after, which is printed too) and the model, which remembers its
    CLIP and its default sentence. Arguments and errors are those of `training.fusion.train_fusion`.
    """
    workdir = Path(workdir)
    check_config(config)
    check_division(config.batch_size, 1)
    pairs = training_scenes(config)
    clip = Clip.load(config.clip or None)
    dtype = clip_dtype(config)
    sentences = embed_prompts(config, clip)
    if config.loss.guide and sentences.prompts["goal"] != (GOAL,):
        raise UserError(
            f"config.prompts.goal: the guide draws the default pictures towards what {GOAL!r} looks like; leave the "
            "sentence as it is, or train without: --config.loss.guide=0"
        )
    net, vision = SteeredNet(embedding=clip.vision.embedding), clip.vision.clone(dtype=dtype)
    loss = partial(
        steering_loss,
        net=net,
        vision=vision,
        weights=dict(config.loss),
        patches=config.patches.count,
        fraction=tuple(config.patches.fraction),
    )
    chosen = config.optimizer
    peak, warmup = chosen.learning_rate, chosen.warmup_steps
    rate = optax.warmup_cosine_decay_schedule(0.0, peak, warmup, max(config.steps, warmup + 1), peak / 50)
    optimizer = optax.chain(clip_by_norm(chosen.gradient_clip), optax.adamw(rate, weight_decay=chosen.weight_decay))
    init_key, key = jax.random.split(jax.random.key(config.seed))
    state = jax.device_get(init_state(fresh_params(net, init_key), optimizer, average=chosen.ema > 0))
    frozen = Frozen(
        clip=in_compute_dtype(clip.params["vision"], dtype),
        words=jax.tree.map(jnp.asarray, sentences.words),
        vgg=jax.tree.map(lambda leaf: leaf.astype(dtype), load_vgg19(config.vgg)) if config.vgg else None,
    )
    shown = shown_pairs(config, lambda _: {})
    judged = _sentences(config, clip, sentences) if shown else []
    outcome = Outcome(shown, judged, state.final, vision=vision, frozen=frozen)
    run = loop.TrainingRun(
        config=config,
        steps=config.steps,
        state=state,
        key=key,
        make_step=partial(make_train_step, loss, optimizer, average_decay=chosen.ema),
        rate=rate,
        data=SteeringData(
            SteeredScenes(
                Scenes(pairs, cache_mb=0, max_unreadable=config.data.max_unreadable),
                copies=config.augment.copies,
                zoom=config.augment.zoom,
                crop=config.crop,
                cache_mb=config.data.cache_mb,
                seed=config.seed,
            ),
            find_goals(config, clip),
            sentences.goal,
            crop=config.crop,
            batch_size=config.batch_size,
            seed=config.seed,
            process=(jax.process_index(), jax.process_count()),
        ),
        mesh=data_mesh(),
        mode=config.parallel.mode,
        shard_optimizer=config.parallel.shard_optimizer,
        speed=Speed(config.batch_size),
        frozen=frozen,
        looks=[
            *make_sheet(workdir / "sheets", shown, judged, state.final, every=config.sheet.every, at_start=False),
            *outcome.looks,
        ],
    )
    with loop.claimed(workdir, run.state):
        state, trained_with = loop.run(run, workdir, override=override, profile=profile)
        own, saved = (json.loads(json.dumps(dict(c), default=dict)) for c in (config, trained_with))
        if other := [key for key in ("clip", "prompts", "text") if saved[key] != own[key]]:
            raise UserError(f"{workdir}: was trained with another config.{other[0]}; choose another work directory")
        if jax.process_index() == 0:
            made_by = {"name": clip.name, "fingerprint": clip.fingerprint}
            metadata = provenance(config, command, pairs, config.steps, clip=made_by, goal=sentences.goal.tolist())
            save_fusion(workdir, on_host(state.final), dtype=np.float32, metadata=metadata)
            outcome.tell()
    return state


def check_config(config: ConfigDict) -> None:
    """Raises UserError, naming the key, for a value that a training run cannot use."""
    check_least(config, _LEAST)
    for name in (
        "data.train",
        "goals",
        "sheet.goals",
        *(f"prompts.{role}" for role in ("visible", "infrared", "goal")),
    ):
        check_texts(config, name)
    check_fractions(config, "patches.fraction", (0.5, 0.8))
    check_choice(config, "clip_dtype", ("", "float32", "bfloat16"))
    check_parallel(config)
    check_below_one(config, "optimizer.ema", 0.999)


def find_goals(config: ConfigDict, clip: Clip) -> Goals:
    """What samples are steered by: the sentences of `config.goals`, those of a file, or the vocabulary's.

    Raises UserError for a file that is no text or is empty, and for sentences that say nothing to `clip`.
    """
    chosen = texts(config.goals)
    if not chosen:
        return goals_of_vocabulary(clip, config.seed)
    if len(chosen) > 1 or not (Path(chosen[0]).is_file() or Path(chosen[0]).suffix):
        return listed_goals(clip, chosen)
    try:
        lines = Path(chosen[0]).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"config.goals: {chosen[0]} cannot be read as text ({reason(error)}); name a file of sentences"
        ) from error
    if not (sentences := [line.strip() for line in lines if line.strip()]):
        raise UserError(f"config.goals: {chosen[0]} has no sentence in it; write one a line")
    return listed_goals(clip, sentences)


def _sentences(config: ConfigDict, clip: Clip, prompts: TextEmbeddings) -> list[Sentence]:
    """The default sentence and those of `config.sheet.goals`."""
    made_by = {"name": clip.name, "fingerprint": clip.fingerprint}
    first = default(prompts)
    goals = texts(config.sheet.goals)
    directions = [goal_direction(first.goal, made_by, [goal], clip=clip) for goal in goals]
    others = zip(goals, directions, strict=True)
    return [first, *(Sentence(goal, first.goal + direction, direction) for goal, direction in others)]
