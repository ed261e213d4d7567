"""`langfuse-jax train`: a fusion network trained towards the sentences of a config."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import PRNGKeyArray, PyTree
from ml_collections import ConfigDict

from langfuse_jax.clip.pretrained import Clip
from langfuse_jax.clip.words import TextEmbeddings, embed
from langfuse_jax.data.pipeline import TrainingData
from langfuse_jax.data.prepared import Record
from langfuse_jax.data.scenes import Scenes
from langfuse_jax.errors import UserError, print_warning
from langfuse_jax.images.canvas import border_rule
from langfuse_jax.images.pairs import Pair
from langfuse_jax.inference.fuser import Fuser
from langfuse_jax.models.clip import VisionTower, in_compute_dtype, stack_blocks
from langfuse_jax.models.fusion import FusionNet, fresh_params
from langfuse_jax.models.lossless import holds_lossless_code, lossless_init, spare_rates
from langfuse_jax.training import loop
from langfuse_jax.training.configs import (
    check_below_one,
    check_choice,
    check_fractions,
    check_least,
    check_texts,
    texts,
)
from langfuse_jax.training.objective import Frozen, Recipe, fusion_loss
from langfuse_jax.training.outcome import Outcome
from langfuse_jax.training.parallel import check_division, check_parallel, data_mesh, on_host
from langfuse_jax.training.schedule import published_schedule
from langfuse_jax.training.sheets import make_sheet
from langfuse_jax.training.shown import default, shown_pairs
from langfuse_jax.training.sources import provenance, training_scenes
from langfuse_jax.training.speed import Speed, gradient_flops, peak_flops
from langfuse_jax.training.step import (
    LossFn,
    TrainState,
    clip_by_norm,
    init_state,
    make_train_step,
    scale_by_rates,
    without_gradient_where_zero,
)
from langfuse_jax.training.validation import make_scores, make_validation
from langfuse_jax.weights.fusion import require_ldfusion, save_fusion
from langfuse_jax.weights.vgg import load_vgg19

_LEAST = {
    1: (*loop.LEAST[1], "batch_size", "patches.count", "data.repeats", "sheet.pairs", "augment.zoom"),
    0: (*loop.LEAST[0], "steps", "epochs", "validation.pairs", "sheet.every", "scores.every"),
    32: ("crop",),
}


def train_fusion(
    config: ConfigDict, workdir: str | Path, *, command: str = "", override: bool = False, profile: int = 0
) -> TrainState:
    """Trains a fusion network as `config` says, resuming from the checkpoints that `workdir` holds.

    The step runs on all devices of all JAX processes, which must share `workdir`. Beside what `loop.run` writes there
    are scores.jsonl (metrics of the fused validation images every `scores.every` steps), sheets/ (infrared | visible |
    before | after of fixed validation pairs every `sheet.every` steps), and at the end outcome.jsonl (what the words
    gained on these pairs, which is printed too) and the model for inference (fusion.safetensors, fusion.json) that
    `Fuser.load(workdir)` takes.

    Args:
        config: as in configs/default.py.
        workdir: a checkpoint in it that was saved with another config is refused, unless `override`.
        command: kept with the model.
        profile: steps, from the third on, of which a trace is written into `workdir`/profile.

    Returns:
        The final state. Raises UserError for missing or unpaired data, another CLIP's text file and the like, and where
        losses stay not finite; Preempted, after a save, on SIGTERM.
    """
    workdir = Path(workdir)
    check_config(config)
    check_division(config.batch_size, config.memory.accumulate)
    recipe = make_recipe(config)
    scenes = training_scenes(config)
    clip = Clip.load(config.clip or None)
    dtype, stacked = clip_dtype(config), runs_stacked()
    vision = clip.vision.clone(dtype=dtype, stacked=stacked)
    prompts = embed_prompts(config, clip)
    frozen = Frozen(
        clip=frozen_tower(clip.params["vision"], dtype, stacked=stacked),
        words=jax.tree.map(jnp.asarray, prompts.words),
        vgg=jax.tree.map(lambda leaf: leaf.astype(dtype), load_vgg19(config.vgg)) if config.vgg else None,
    )
    data = _data(config, scenes)
    epoch = max(1, len(scenes) * config.data.repeats // config.batch_size)
    steps = config.steps or config.epochs * epoch
    warmup = min(config.optimizer.warmup_steps or epoch, steps // 10)
    rate = published_schedule(config.optimizer.learning_rate, total_steps=steps, warmup_steps=warmup)

    net, mesh = network(config), data_mesh()
    init_key, step_key, lossless_key = jax.random.split(jax.random.key(config.seed), 3)
    params = jax.device_get(_start(config, init_key, lossless_key))
    rates = _rates(config, params)
    optimizer = make_optimizer(config, rate, rates)
    state = jax.device_get(init_state(params, optimizer, average=config.optimizer.ema > 0))

    shown, sentences = shown_pairs(config, lambda trained_with: border_rule(trained_with["crop"])), [default(prompts)]
    outcome = Outcome(shown, sentences, state.final, vision=vision, frozen=frozen)
    training = loop.TrainingRun(
        config=config,
        steps=steps,
        state=state,
        key=step_key,
        make_step=step_maker(config, make_loss(net, vision, recipe, rates), optimizer),
        rate=rate,
        data=data,
        mesh=mesh,
        mode=config.parallel.mode,
        shard_optimizer=config.parallel.shard_optimizer,
        speed=_speed(config, params, clip, frozen, rates),
        frozen=frozen,
        validate=make_validation(config, net, vision, recipe, mesh),
        looks=[
            *make_sheet(workdir / "sheets", shown, sentences, state.final, every=config.sheet.every),
            *make_scores(config, net),
            *outcome.looks,
        ],
    )
    with loop.claimed(workdir, state):
        state, trained_with = loop.run(training, workdir, override=override, profile=profile)
        if jax.process_index() == 0:
            made_by = {"name": clip.name, "fingerprint": clip.fingerprint}
            metadata = provenance(config, command, scenes, steps, clip=made_by) | border_rule(trained_with["crop"])
            save_fusion(workdir, on_host(state.final), dtype=np.float32, metadata=metadata)
            outcome.tell()
    return state


def clip_dtype(config: ConfigDict, platform: str | None = None) -> str:
    """What CLIP and VGG19 compute in, on `platform` or on JAX's."""
    return config.clip_dtype or ("float32" if (platform or jax.default_backend()) == "cpu" else "bfloat16")


def network(config: ConfigDict, platform: str | None = None) -> FusionNet:
    """The network in the form for `platform`, or for JAX's."""
    return FusionNet(config.network_dtype, looped=runs_stacked(platform), blocked=runs_stacked(platform))


def runs_stacked(platform: str | None = None) -> bool:
    """Whether layers that are alike run as one compiled layer in a loop: where compiling takes minutes."""
    return (platform or jax.default_backend()) == "tpu"


def batch_shapes(config: ConfigDict, size: int) -> dict[str, jax.ShapeDtypeStruct]:
    """The arrays of a batch of `size` samples."""
    crops = jax.ShapeDtypeStruct((size, config.crop, config.crop, 1), jnp.float32)
    return {"visible": crops, "infrared": crops, "place": jax.ShapeDtypeStruct((size,), jnp.int32)}


def frozen_tower(params: Mapping[str, Any], dtype: str, *, stacked: bool) -> PyTree:
    """A vision tower's parameters as a step reads them."""
    found = in_compute_dtype(params, dtype)
    return stack_blocks(found) if stacked else found


def make_loss(net: FusionNet, vision: VisionTower, recipe: Recipe, rates: PyTree | None = None) -> LossFn:
    """What a training run minimises; parameters whose `rates` (see `_rates`) are 0 get no gradient."""
    loss = partial(fusion_loss, net=net, vision=vision, recipe=recipe)
    return loss if rates is None else without_gradient_where_zero(loss, rates)


def step_maker(
    config: ConfigDict, loss: LossFn, optimizer: optax.GradientTransformation
) -> Callable[..., Callable[..., Any]]:
    """What `parallel.compile_step` compiles."""
    return partial(
        make_train_step, loss, optimizer, average_decay=config.optimizer.ema, accumulate=config.memory.accumulate
    )


def check_config(config: ConfigDict) -> None:
    """Raises UserError, naming the key, for a value that a training run cannot use."""
    check_least(config, _LEAST)
    if not (config.steps or config.epochs):
        raise UserError("config.steps: 0, and config.epochs is 0 too; set one of them")
    for name in ("data.train", *(f"prompts.{role}" for role in ("visible", "infrared", "goal"))):
        check_texts(config, name)
    check_fractions(config, "patches.fraction", (0.5, 0.8))
    check_choice(config, "clip_dtype", ("", "float32", "bfloat16"))
    check_choice(config, "network_dtype", ("float32", "bfloat16"))
    check_choice(config, "init", ("normal", "lossless"))
    check_parallel(config)
    check_choice(config, "optimizer.trainable", ("auto", "all", "spare"))
    check_below_one(config, "optimizer.ema", 0.999)
    check_below_one(config, "augment.fading", 0.7)


def make_recipe(config: ConfigDict) -> Recipe:
    """What of `config` an objective is compiled with. Raises UserError for numbers of patches that do not fit."""
    count, first, chunk = config.patches.count, config.patches.select_first, config.memory.clip_chunk
    if not 0 <= first <= count:
        raise UserError(f"config.patches.select_first: {first} is not among 0 to {count} (config.patches.count)")
    for patches in {count, first or count}:
        if chunk < 0 or (chunk and patches > chunk and patches % chunk):
            raise UserError(f"config.memory.clip_chunk: {chunk} does not divide {patches} patches; use 0 or a divisor")
    return Recipe(
        weights=dict(config.loss),
        patches=count,
        patch_fraction=tuple(config.patches.fraction),
        entropy_threshold=config.patches.entropy_threshold,
        fading=config.augment.fading,
        noise=config.augment.noise,
        select_first=first,
        clip_chunk=chunk,
        remat=config.memory.remat,
    )


def embed_prompts(config: ConfigDict, clip: Clip) -> TextEmbeddings:
    """The sentences of `config`, by `clip`, or its text file, which must be of this CLIP."""
    if config.text:
        sentences = TextEmbeddings.load(config.text)
        sentences.check(clip)
        return sentences
    prompts = {role: texts(config.prompts[role]) for role in ("visible", "infrared", "goal")}
    return embed(clip, **prompts, report=print_warning)


def _data(config: ConfigDict, scenes: Sequence[Pair | Record]) -> TrainingData:
    return TrainingData(
        Scenes(
            scenes,
            cache_mb=config.data.cache_mb // max(1, config.data.workers),
            max_unreadable=config.data.max_unreadable,
        ),
        crop=config.crop,
        zoom=config.augment.zoom,
        batch_size=config.batch_size,
        seed=config.seed,
        process=(jax.process_index(), jax.process_count()),
        workers=config.data.workers,
    )


def _start(config: ConfigDict, key: PRNGKeyArray, lossless_key: PRNGKeyArray) -> PyTree:
    """The parameters to start from."""
    if config.init_from:
        packaged = config.init_from == "ldfusion" and not Path(config.init_from).exists()
        params = jax.device_get(
            Fuser.load(None if packaged else config.init_from, model="ldfusion" if packaged else None).params
        )
        require_ldfusion(params, f"config.init_from: {config.init_from}")
        return params
    if config.init == "lossless":
        return lossless_init(lossless_key)
    params = fresh_params(FusionNet(), key)
    # From a zero bias half of the first images would be black.
    params["params"]["decoder"]["head"]["bias"] = jnp.full((1,), 0.5, jnp.float32)
    return params


def _rates(config: ConfigDict, params: PyTree) -> PyTree | None:
    """Factors of the learning rate by `config.optimizer.trainable`; None for 1 throughout."""
    trainable = config.optimizer.trainable
    holds_code = trainable != "all" and holds_lossless_code(params)
    if trainable == "spare" and not holds_code:
        raise UserError(
            "config.optimizer.trainable: 'spare' needs a start that draws losslessly; add --config.init=lossless, or a "
            "config.init_from that began so"
        )
    return spare_rates(params) if holds_code else None


def make_optimizer(config: ConfigDict, rate: optax.Schedule, rates: PyTree | None) -> optax.GradientTransformation:
    """Adam after the clipping of the gradient, its updates scaled by `rates`."""
    return optax.chain(
        clip_by_norm(config.optimizer.gradient_clip),
        optax.adam(rate, b1=0.9, b2=0.999),
        optax.identity() if rates is None else scale_by_rates(rates),
    )


def _speed(config: ConfigDict, params: PyTree, clip: Clip, frozen: Frozen, rates: PyTree | None) -> Speed:
    """With the FLOPs of a step where the devices' are known."""
    peak = peak_flops(config.log.peak_tflops)
    if not peak:
        return Speed(config.batch_size)
    tower = jax.eval_shape(partial(in_compute_dtype, dtype=clip_dtype(config)), clip.params["vision"])
    flops = sample_flops(config, clip.vision, params, frozen._replace(clip=tower), rates)
    return Speed(config.batch_size, flops and config.batch_size * flops, peak)


def sample_flops(
    config: ConfigDict,
    vision: VisionTower,
    params: PyTree,
    frozen: Frozen,
    rates: PyTree | None = None,
    platform: str | None = None,
) -> float | None:
    """FLOPs of the loss and its gradient for a sample; what is recomputed to save memory is not counted.

    Shapes suffice for `params` and `frozen`, whose tower is not stacked. None where they cannot be counted.
    """
    vision = vision.clone(dtype=clip_dtype(config, platform))
    recipe = make_recipe(config)._replace(clip_chunk=0, remat=False)
    loss = make_loss(network(config, platform).clone(looped=False), vision, recipe, rates)
    return gradient_flops(loss, params, batch_shapes(config, 1), frozen, platform)
