"""The training loop: `langfuse-jax train`."""

import json
from contextlib import nullcontext
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import PyTree
from ml_collections import ConfigDict

from langfuse_jax._version import __version__
from langfuse_jax.clip.pretrained import Clip
from langfuse_jax.clip.words import TextEmbeddings, embed
from langfuse_jax.data.pipeline import TrainingData
from langfuse_jax.data.scenes import Scenes, check_crop, list_scenes, read_scene
from langfuse_jax.errors import Preempted, UserError
from langfuse_jax.images.canvas import border_rule
from langfuse_jax.images.files import write_png
from langfuse_jax.images.sheet import grid
from langfuse_jax.inference.fuser import Fuser
from langfuse_jax.models.clip import in_compute_dtype
from langfuse_jax.models.fusion import FusionNet
from langfuse_jax.models.lossless import holds_lossless_code, lossless_init, spare_rates
from langfuse_jax.runtime.atomic import atomic_write, full_disk_reported, make_folder
from langfuse_jax.runtime.distributed import end_together, wait_for_others
from langfuse_jax.runtime.workdir_lock import locked
from langfuse_jax.training import checkpoints
from langfuse_jax.training.configs import check_values, texts
from langfuse_jax.training.guard import Guard
from langfuse_jax.training.log import TrainingLog
from langfuse_jax.training.parallel import check_division, compile_step, data_mesh, local, replicate, share
from langfuse_jax.training.preemption import PreemptionWatch
from langfuse_jax.training.schedule import published_schedule
from langfuse_jax.training.speed import Speed, peak_flops, step_flops
from langfuse_jax.training.step import Frozen, Recipe, TrainState, init_state, make_train_step
from langfuse_jax.training.trace import Trace
from langfuse_jax.training.validation import make_scores, make_validation, write_line
from langfuse_jax.weights.checkpoint import saved_config
from langfuse_jax.weights.fusion import refuse_student, save_fusion
from langfuse_jax.weights.vgg import load_vgg19


def train(
    config: ConfigDict, workdir: str | Path, *, command: str = "", override: bool = False, profile: int = 0
) -> TrainState:
    """Trains a fusion network as `config` says, resuming from the checkpoints that `workdir` holds.

    The step runs on all devices of all JAX processes, which must share `workdir`; process 0 writes into it. Writes into
    `workdir`: checkpoints/ (Orbax), metrics.jsonl (a line of loss terms and speed every `log_every` steps), the same in
    tensorboard/, scores.jsonl (metrics of the fused validation images every `scores.every` steps), sheets/
    (infrared | visible | fused of fixed validation pairs every `sheet.every` steps), validation.jsonl (a line before
    the first step and with each checkpoint), config.json, and at the end the model for inference (fusion.safetensors,
    fusion.json) that `Fuser.load(workdir)` takes.

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
    if config.trainable not in ("auto", "all", "spare"):
        raise UserError(f"config.trainable: {config.trainable!r} is unknown; use 'auto', 'all' or 'spare'")
    if config.zoom < 1:
        raise UserError(f"config.zoom: {config.zoom} is too small; use 1 for none, or a number above it such as 2.5")
    if not 0 <= config.fading < 1:
        raise UserError(f"config.fading: {config.fading} is no share; use 0 for none, or a number below 1 such as 0.7")
    check_division(config.batch_size, config.accumulate)
    recipe = make_recipe(config)
    folders = [str(Path(config.data.root) / name) for name in texts(config.data.train)]
    scenes = [scene for folder in folders for scene in list_scenes(folder)]
    check_crop(scenes, config.crop)
    clip = Clip.load(config.clip or None)
    vision = clip.vision.clone(dtype=dtype)
    sentences = _sentences(config, clip)
    frozen = Frozen(
        clip=in_compute_dtype(clip.params["vision"], dtype),
        texts={f"text_{role}": jnp.asarray(getattr(sentences, role)) for role in ("goal", "visible", "infrared")},
        vgg=jax.tree.map(lambda leaf: leaf.astype(dtype), load_vgg19(config.vgg)) if config.vgg else None,
    )
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

    init_key, step_key, lossless_key = jax.random.split(jax.random.key(config.seed), 3)
    state = init_state(init_key, net, optimizer)
    if config.init == "lossless":
        state = state.replace(params=lossless_init(lossless_key))
    if config.init_from:
        params = jax.device_get(Fuser.load(config.init_from).params)
        refuse_student(params, f"config.init_from: {config.init_from}")
        state = state.replace(params=params)
    if config.ema:
        state = state.replace(average=state.params)
    checkpoints.check_space(workdir, state)
    iterator = iter(data)
    mesh, mode = data_mesh(), config.parallel.mode
    first = jax.process_index() == 0
    validate = make_validation(config, net, vision, recipe, mesh)
    score = make_scores(config, net)
    draw_sheet = _sheet_drawer(config) if first else lambda *_: False
    rates = _rates(config, state.params)
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
    with locked(workdir) if first else nullcontext():
        wait_for_others("checkpoints")
        manager = checkpoints.open_checkpoints(workdir)
        state, step_key = checkpoints.restore(manager, state, iterator, key=step_key, config=config, override=override)
        start = int(state.step)
        # Whose `border_rule` the parameters of this start have learned.
        before = saved_config(workdir, start)["crop"] if start else config.crop
        step_key = replicate(step_key, mesh)
        if first:
            with atomic_write(workdir / "config.json") as file:
                file.write(config.to_json_best_effort(indent=2).encode() + b"\n")

        def judge(state):
            """The validation loss, which is written down too; None where there is none."""
            if not validate:
                return None
            values = validate(state.final, everywhere)
            if first:
                write_line(workdir / "validation.jsonl", int(state.step), values)
            log.scalars("validation", int(state.step), values)
            return values["loss"]

        def save(state, *, preempted=False):
            loss = None if preempted else judge(state)
            checkpoints.save(
                manager, state, iterator, key=step_key, config=config, validation_loss=loss, wait=preempted
            )

        def look(state, step):
            """Sheet and scores of the validation images, by process 0 alone."""
            params = local(state.final)
            seen = border_rule(before if step == start else config.crop)
            if step % config.sheet.every == 0 or step == total_steps:
                sheet = workdir / "sheets" / f"step_{step:06d}.png"
                if draw_sheet(params, seen, sheet):
                    log.image("sheet", step, sheet)
            if score and (step % config.scores.every == 0 or step == total_steps):
                values = score(params, seen)
                write_line(workdir / "scores.jsonl", step, values)
                log.scalars("scores", step, values)

        speed = Speed(config.batch_size, flops, peak)
        waited = speed.waiting(iterator)
        guard = Guard(
            config.max_skipped,
            config.max_dead,
            names=data.names,
            last_checkpoint=partial(checkpoints.latest, manager),
        )
        with (
            checkpoints.closing(manager, iterator),
            PreemptionWatch() as preemption,
            TrainingLog(workdir if first else None, start, total_steps) as log,
            Trace(workdir / "profile", start + 2, profile if first else 0) as trace,
            end_together(workdir),  # before the others close: that would wait for the other processes
            full_disk_reported(workdir),
        ):
            if start == 0:
                judge(state)  # what later losses are compared with
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
                guard.watch(step, metrics)
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
        } | border_rule(config.crop if start < total_steps else before)
        save_fusion(workdir, local(state.final), dtype=np.float32, metadata=metadata)
        return state


def _rates(config: ConfigDict, params: PyTree) -> PyTree | None:
    """Factors of the learning rate by `config.trainable`; None for 1 throughout."""
    holds_code = config.trainable != "all" and holds_lossless_code(jax.device_get(params))
    if config.trainable == "spare" and not holds_code:
        raise UserError(
            "config.trainable: 'spare' needs a start that draws losslessly; add --config.init=lossless, or a "
            "config.init_from that began so"
        )
    return spare_rates(params) if holds_code else None


def _sentences(config, clip):
    if config.text:
        sentences = TextEmbeddings.load(config.text)
        sentences.check(clip)
        return sentences
    return embed(clip, **{role: list(texts(config.prompts[role])) for role in ("visible", "infrared", "goal")})


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
    """A function (params, seen, path) that fuses the fixed validation pairs and writes them as one picture, and returns
    whether there are any. They are read anew each time; those that cannot be read are reported at once.
    """
    pairs = list_scenes(Path(config.data.root) / config.data.validation, "test") if config.data.validation else []
    if not pairs:
        return lambda *_: False
    pairs = [pairs[i] for i in np.linspace(0, len(pairs) - 1, min(config.sheet.pairs, len(pairs))).round().astype(int)]
    # One size for all, so that the network is compiled once.
    h, w = np.min([read_scene(pair)[0].shape for pair in pairs], axis=0)

    def draw(params, seen, path):
        images = [[_centre(image, h, w) for image in read_scene(pair)] for pair in pairs]
        visible, infrared = (np.stack(role)[..., None] for role in zip(*images, strict=True))
        fused = Fuser(params, seen)(visible, infrared)
        write_png(
            path, grid([(i[..., 0], v[..., 0], f[..., 0]) for i, v, f in zip(infrared, visible, fused, strict=True)])
        )
        return True

    return draw


def _centre(image, h, w):
    top, left = (image.shape[0] - h) // 2, (image.shape[1] - w) // 2
    return image[top : top + h, left : left + w]
