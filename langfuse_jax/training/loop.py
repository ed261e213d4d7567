"""The training loop: `langfuse-jax train`."""

import errno
import json
import shlex
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import logging
from ml_collections import ConfigDict

from langfuse_jax._version import __version__
from langfuse_jax.atomic import atomic_write, make_folder
from langfuse_jax.canvas import how_seen
from langfuse_jax.convert.vgg import load_vgg19
from langfuse_jax.data.pipeline import TrainingData
from langfuse_jax.data.scenes import Scenes, list_scenes, read_scene
from langfuse_jax.distributed import end_alone, join_cluster, wait_for_others
from langfuse_jax.errors import Preempted, UserError
from langfuse_jax.fuser import Fuser
from langfuse_jax.images import write_png
from langfuse_jax.models.clip import Clip, in_compute_dtype
from langfuse_jax.models.fusion import FusionNet
from langfuse_jax.models.lossless import lossless_init, spare_rates
from langfuse_jax.sheet import grid
from langfuse_jax.text import TextEmbeddings, embed
from langfuse_jax.training import checkpoints
from langfuse_jax.training.configs import check_values, load_config
from langfuse_jax.training.guard import Guard
from langfuse_jax.training.log import TrainingLog
from langfuse_jax.training.parallel import check_division, compile_step, data_mesh, local, replicate, share
from langfuse_jax.training.preemption import PreemptionWatch
from langfuse_jax.training.schedule import published_schedule
from langfuse_jax.training.speed import Speed, peak_flops, step_flops
from langfuse_jax.training.step import Frozen, Recipe, TrainState, init_state, make_train_step
from langfuse_jax.training.trace import Trace
from langfuse_jax.training.validation import make_scores, make_validation, write_line
from langfuse_jax.weights import refuse_student, save_fusion


def train_command(args, overrides):
    """`langfuse-jax train`: parse the config, train, and say where the model is."""
    logging.set_verbosity(logging.FATAL)  # what goes wrong in Orbax's threads ends in one line of our own
    config = load_config(args.config, overrides)
    join_cluster(args.coordinator, args.num_processes, args.process_id)
    command = shlex.join(["langfuse-jax", "train", "--config", args.config, "--workdir", args.workdir, *overrides])
    try:
        try:
            train(config, args.workdir, command=command, override=args.override, profile=args.profile)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise UserError(
                f"{args.workdir}: cannot be written ({error.strerror}); its last checkpoint stays usable: free space "
                "there and run the same command again"
            ) from error
    except (jax.errors.JaxRuntimeError, UserError) as error:
        if jax.process_count() == 1:
            raise
        # The others may be gone, or wait for this one: a normal end would wait for them.
        reason = " ".join(str(error).split())[:200]
        if not isinstance(error, UserError):
            reason = (
                f"{args.workdir}: this process lost the others ({reason}); start all of them again, they go on from "
                "the last checkpoint"
            )
        end_alone(reason)
    if jax.process_index():
        return
    print(f"{args.workdir}: trained model, sheets and metrics.jsonl; fuse with --checkpoint {args.workdir}")


def train(
    config: ConfigDict, workdir: str | Path, *, command: str = "", override: bool = False, profile: int = 0
) -> TrainState:
    """Trains a fusion network as `config` says, resuming from the checkpoints that `workdir` holds.

    The step runs on all devices of all JAX processes, which must share `workdir`; process 0 writes into it. Writes into
    `workdir`: checkpoints/ (Orbax), metrics.jsonl (a line of loss terms and speed every `log_every` steps), the same in
    tensorboard/, scores.jsonl (metrics of the fused validation images every `scores.every` steps), sheets/
    (infrared | visible | fused of fixed validation pairs every `sheet.every` steps), validation.jsonl (a line with each
    checkpoint), config.json, and at the end the model for inference (fusion.safetensors, fusion.json) that
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
    check_values(config)
    if config.crop < 32:
        raise UserError(f"config.crop: {config.crop} is too small; the fusion network needs 32 pixels per side")
    dtype = config.clip_dtype or ("float32" if jax.default_backend() == "cpu" else "bfloat16")
    if dtype not in ("float32", "bfloat16"):
        raise UserError(f"config.clip_dtype: {config.clip_dtype!r} is unknown; use 'float32' or 'bfloat16'")
    if not 0 <= config.ema < 1:
        raise UserError(f"config.ema: {config.ema} is no decay; use 0 for none, or a number below 1 such as 0.999")
    if config.init not in ("normal", "lossless"):
        raise UserError(f"config.init: {config.init!r} is unknown; use 'normal' or 'lossless'")
    if config.spare_only and config.init == "normal" and not config.init_from:
        raise UserError("config.spare_only: needs a start that draws; add --config.init=lossless, or init_from=DIR")
    if config.zoom < 1:
        raise UserError(f"config.zoom: {config.zoom} is too small; use 1 for none, or a number above it such as 2.5")
    if not 0 <= config.fading < 1:
        raise UserError(f"config.fading: {config.fading} is no share; use 0 for none, or a number below 1 such as 0.7")
    check_division(config.batch_size, config.accumulate)
    recipe = make_recipe(config)
    clip = Clip.load(config.clip or None)
    vision = clip.vision.clone(dtype=dtype)
    texts = _texts(config, clip)
    frozen = Frozen(
        clip=in_compute_dtype(clip.params["vision"], dtype),
        texts={f"text_{role}": jnp.asarray(getattr(texts, role)) for role in ("goal", "visible", "infrared")},
        vgg=jax.tree.map(lambda leaf: leaf.astype(dtype), load_vgg19(config.vgg)) if config.vgg else None,
    )
    folders = [str(Path(config.data.root) / name) for name in config.data.train]
    scenes = [scene for folder in folders for scene in list_scenes(folder)]
    pairs = len(scenes)
    data = TrainingData(
        Scenes(
            scenes,
            cache_mb=config.data.cache_mb // max(1, config.data.workers),
            max_unreadable=config.data.max_unreadable,
        ),
        crop=config.crop,
        zoom=config.zoom,
        batch_size=config.batch_size,
        seed=config.seed,
        process=(jax.process_index(), jax.process_count()),
        workers=config.data.workers,
    )
    epoch = max(1, pairs * config.data.repeats // config.batch_size)
    total_steps = config.steps or config.epochs * epoch
    warmup = config.warmup_steps or epoch
    rate = published_schedule(
        config.learning_rate, total_steps=total_steps, warmup_steps=min(warmup, total_steps // 10)
    )
    optimizer = optax.chain(
        optax.clip_by_global_norm(config.gradient_clip) if config.gradient_clip else optax.identity(),
        optax.adam(rate, b1=0.9, b2=0.999),
    )
    net = FusionNet()
    draw_sheet = _sheet_drawer(config)

    init_key, step_key = jax.random.split(jax.random.key(config.seed))
    state = init_state(init_key, net, optimizer)
    if config.init == "lossless":
        state = state.replace(params=lossless_init(init_key))
    if config.init_from:
        params = jax.device_get(Fuser.load(config.init_from).params)
        refuse_student(params, f"config.init_from: {config.init_from}")
        state = state.replace(params=params)
    if config.ema:
        state = state.replace(average=state.params)
    iterator = iter(data)
    validate = make_validation(config, net, vision, recipe)
    score = make_scores(config, net)
    mesh, mode = data_mesh(), config.parallel.mode
    rates = spare_rates(state.params) if config.spare_only else None
    make_step = partial(
        make_train_step,
        net,
        vision,
        optimizer,
        recipe,
        average_decay=config.ema,
        accumulate=config.accumulate,
        processes=jax.process_count(),
        rates=rates,
    )
    train_step = compile_step(make_step, mode, mesh)
    peak = peak_flops(config.peak_tflops)
    flops = peak and step_flops(net, vision, recipe, state.params, frozen, config.crop, config.batch_size, rates)
    state, everywhere = replicate(state, mesh), replicate(frozen, mesh)
    make_folder(workdir)
    wait_for_others("checkpoints")
    manager = checkpoints.open_checkpoints(workdir)
    state, step_key = checkpoints.restore(manager, state, iterator, key=step_key, config=config, override=override)
    step_key = replicate(step_key, mesh)
    first = jax.process_index() == 0
    if first:
        with atomic_write(workdir / "config.json") as file:
            file.write(config.to_json_best_effort(indent=2).encode() + b"\n")

    def save(state, *, preempted=False):
        loss = None
        if validate and not preempted:
            values = validate(local(state.final), frozen)
            loss = values["loss"]
            if first:
                write_line(workdir / "validation.jsonl", int(state.step), values)
            log.scalars("validation", int(state.step), values)
        checkpoints.save(manager, state, iterator, key=step_key, config=config, validation_loss=loss, wait=preempted)

    def look(state, step):
        """Sheet and scores of the validation images, by process 0 alone."""
        params = local(state.final)
        if step % config.sheet.every == 0 or step == total_steps:
            sheet = workdir / "sheets" / f"step_{step:06d}.png"
            if draw_sheet(params, sheet):
                log.image("sheet", step, sheet)
        if score and (step % config.scores.every == 0 or step == total_steps):
            values = score(params)
            write_line(workdir / "scores.jsonl", step, values)
            log.scalars("scores", step, values)

    start = int(state.step)
    speed = Speed(config.batch_size, flops, peak)
    waited = speed.waiting(iterator)
    guard = Guard(config.max_skipped, names=data.names, last_checkpoint=partial(checkpoints.latest, manager))
    with (
        checkpoints.closing(manager, iterator),
        PreemptionWatch() as preemption,
        TrainingLog(workdir if first else None, start, total_steps) as log,
        Trace(workdir / "profile", start + 2, profile if first else 0) as trace,
    ):
        for step in range(start, total_steps):
            if preemption.reached(step):
                save(state, preempted=True)
                raise Preempted(f"{workdir}: stopped by SIGTERM before step {step}, which is saved; run it again")
            if step > start and step % config.checkpoint_every == 0:
                save(state)
            if first:
                look(state, step)
            if step == start or step % config.sheet.every == 0 or (score and step % config.scores.every == 0):
                wait_for_others(f"step {step}")
            trace.before(step, state)
            state, metrics = train_step(state, share(next(waited), mode, mesh), step_key, everywhere)
            # The step just dispatched runs while the one before it is read and written.
            keep = step % config.log_every == 0 or step == total_steps - 1
            log.write(step, metrics, rate(step), keep=keep, speed=speed.read)
            guard.watch(step, metrics["skipped_in_a_row"])
        guard.look()
        if start < total_steps:
            save(state)
        if first:
            look(state, total_steps)
        wait_for_others("last look")
    if not first:
        return state
    metadata = {
        "command": command,
        "config": json.loads(config.to_json_best_effort()),
        "data": {"folders": folders, "pairs": pairs},
        "date": datetime.now(UTC).date().isoformat(),
        "langfuse_jax": __version__,
        "clip": {"name": clip.name, "fingerprint": clip.fingerprint},
        "steps": total_steps,
    } | how_seen(config.crop)
    save_fusion(workdir, local(state.final), dtype=np.float32, metadata=metadata)
    return state


def _texts(config, clip):
    if config.text:
        texts = TextEmbeddings.load(config.text)
        texts.check(clip)
        return texts
    return embed(clip, **{role: list(config.prompts[role]) for role in ("visible", "infrared", "goal")})


def make_recipe(config: ConfigDict) -> Recipe:
    """What of `config` a step is compiled with. Raises UserError for numbers of patches that do not fit together."""
    count, first, chunk = config.patches.count, config.patches.select_first, config.clip_chunk
    if not 0 <= first <= count:
        raise UserError(f"config.patches.select_first: {first} is not among 0 to {count} (config.patches.count)")
    for patches in {count, first or count}:
        if chunk < 0 or (chunk and patches > chunk and patches % chunk):
            raise UserError(f"config.clip_chunk: {chunk} does not divide {patches} patches; use 0 or a divisor")
    return Recipe(
        weights=dict(config.loss),
        patches=count,
        patch_fraction=tuple(config.patches.fraction),
        entropy_threshold=config.patches.entropy_threshold,
        fading=config.fading,
        noise=config.noise,
        select_first=first,
        clip_chunk=chunk,
        remat=config.remat,
    )


def _sheet_drawer(config):
    """A function (params, path) that fuses the fixed validation pairs and writes them as one picture; False if none."""
    pairs = list_scenes(Path(config.data.root) / config.data.validation, "test") if config.data.validation else []
    if not pairs:
        return lambda params, path: False
    places = np.linspace(0, len(pairs) - 1, min(config.sheet.pairs, len(pairs))).round().astype(int)
    images = [read_scene(pairs[i]) for i in places]
    # One size for all, so that the network is compiled once.
    h, w = (min(visible.shape[axis] for visible, _ in images) for axis in (0, 1))
    visible, infrared = (np.stack([_centre(pair[i], h, w) for pair in images])[..., None] for i in (0, 1))
    seen = how_seen(config.crop)

    def draw(params, path):
        fused = Fuser(params, seen)(visible, infrared)
        write_png(
            path, grid([(i[..., 0], v[..., 0], f[..., 0]) for i, v, f in zip(infrared, visible, fused, strict=True)])
        )
        return True

    return draw


def _centre(image, h, w):
    top, left = (image.shape[0] - h) // 2, (image.shape[1] - w) // 2
    return image[top : top + h, left : left + w]
