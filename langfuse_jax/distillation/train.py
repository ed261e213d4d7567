"""`langfuse-jax distill`: trains the student to fuse as a teacher does."""

import json
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, PRNGKeyArray, PyTree
from ml_collections import ConfigDict

from langfuse_jax._version import __version__
from langfuse_jax.data.pipeline import TrainingData
from langfuse_jax.data.scenes import Scenes, check_crop, list_scenes
from langfuse_jax.distillation.faded import FadedScenes
from langfuse_jax.distillation.loss import imitation_loss
from langfuse_jax.distillation.taught import TaughtScenes, fingerprint
from langfuse_jax.errors import Preempted, UserError
from langfuse_jax.images.files import write_png
from langfuse_jax.images.sheet import grid
from langfuse_jax.inference.fuser import Fuser
from langfuse_jax.losses.ssim import ssim
from langfuse_jax.models.fusion import fresh_params
from langfuse_jax.models.student import StudentNet
from langfuse_jax.runtime.atomic import atomic_write, make_folder
from langfuse_jax.runtime.workdir_lock import locked
from langfuse_jax.training import checkpoints
from langfuse_jax.training.configs import check_least, texts
from langfuse_jax.training.log import TrainingLog
from langfuse_jax.training.preemption import PreemptionWatch
from langfuse_jax.training.step import TrainState, moving_average
from langfuse_jax.training.validation import write_line
from langfuse_jax.weights.fusion import refuse_student, save_fusion

_LEAST = {
    1: ("batch_size", "steps", "checkpoint_every", "log_every"),
    0: ("seed", "scores_every", "learning_rate", "warmup_steps", "faded_copies"),
    32: ("crop",),
}
_SHEET_ROWS = 7


def distill(config: ConfigDict, workdir: str | Path, *, command: str = "") -> float:
    """Trains a student as `config` (configs/student.py) says, going on from the checkpoints in `workdir`.

    Writes into `workdir`: taught/ (the teacher's images), checkpoints/, metrics.jsonl, tensorboard/,
    scores.jsonl (mean SSIM to the teacher on the validation dataset every `scores_every` steps), sheet.png (infrared |
    visible | teacher | student) and the model for `Fuser.load`.

    Returns:
        The mean SSIM to the teacher (`losses.ssim.ssim`) over whole validation images; over the
        training images where the config names no validation dataset.
    """
    check_least(config, _LEAST)
    if not 0 <= config.ema < 1:
        raise UserError(f"config.ema: {config.ema} is no decay; use 0 for none, or a number below 1 such as 0.999")
    if not 0 <= config.fading < 1:
        raise UserError(f"config.fading: {config.fading} is no share; use 0 for none, or a number below 1 such as 0.7")
    workdir = Path(workdir)
    teacher = Fuser.load(config.teacher or None)
    refuse_student(teacher.params, f"config.teacher: {config.teacher}")
    root = Path(config.data.root)
    folders = [root / name for name in texts(config.data.train)]
    training = [scene for folder in folders for scene in list_scenes(folder)]
    check_crop(training, config.crop)
    validation = list_scenes(root / config.data.validation, "test") if config.data.validation else training
    plain = Scenes(training, cache_mb=config.data.cache_mb)
    scenes = FadedScenes(plain, copies=config.faded_copies, most=config.fading, seed=config.seed)
    taught = TaughtScenes(scenes, teacher, workdir / "taught")
    unseen = TaughtScenes(Scenes(validation, cache_mb=config.data.cache_mb), teacher, workdir / "taught")
    data = TrainingData(taught, crop=config.crop, batch_size=config.batch_size, seed=config.seed)
    iterator = iter(data)

    net = StudentNet()
    rate = optax.warmup_cosine_decay_schedule(
        0.0, config.learning_rate, config.warmup_steps, max(config.steps, config.warmup_steps + 1)
    )
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate))
    init_key, key = jax.random.split(jax.random.key(config.seed))
    state = init_student(init_key, net, optimizer, average=config.ema > 0)
    checkpoints.check_space(workdir, state)
    make_folder(workdir)
    with locked(workdir):
        manager = checkpoints.open_checkpoints(workdir)
        state, key = checkpoints.restore(manager, state, iterator, key=key, config=config)
        with atomic_write(workdir / "config.json") as file:
            file.write(config.to_json_best_effort(indent=2).encode() + b"\n")
        for lesson in (taught, unseen):
            lesson.teach()
        step_function = jax.jit(make_distill_step(net, optimizer, decay=config.ema), donate_argnums=0)

        start = int(state.step)
        with (
            checkpoints.closing(manager, iterator),
            PreemptionWatch() as preemption,
            TrainingLog(workdir, start, config.steps) as log,
        ):
            save = partial(checkpoints.save, manager, iterator=iterator, key=key, config=config, validation_loss=None)
            for step in range(start, config.steps):
                if preemption.reached(step):
                    save(state, wait=True)
                    raise Preempted(f"{workdir}: stopped by SIGTERM before step {step}, which is saved; run it again")
                if step > start and step % config.checkpoint_every == 0:
                    save(state)
                if config.scores_every and step > start and step % config.scores_every == 0:
                    write_line(workdir / "scores.jsonl", step, {"ssim": score(state.final, unseen)[0]})
                state, metrics = step_function(state, next(iterator), key)
                keep = step % config.log_every == 0 or step == config.steps - 1
                log.write(step, metrics, rate(step), keep=keep)
            if start < config.steps:
                save(state)
            mean, rows = score(state.final, unseen)
        write_line(workdir / "scores.jsonl", config.steps, {"ssim": mean})
        write_png(workdir / "sheet.png", grid(rows, ("infrared", "visible", "teacher", "student")))
        metadata = {
            "command": command,
            "config": json.loads(config.to_json_best_effort()),
            "data": {"folders": list(map(str, folders)), "pairs": len(training)},
            "date": datetime.now(UTC).date().isoformat(),
            "langfuse_jax": __version__,
            "teacher": {"path": config.teacher, "fingerprint": fingerprint(teacher.params)},
            "ssim_to_teacher": round(mean, 4),
            "steps": config.steps,
        }
        save_fusion(workdir, jax.device_get(state.final), dtype=np.float32, metadata=metadata)
        return mean


def init_student(
    key: PRNGKeyArray, net: StudentNet, optimizer: optax.GradientTransformation, *, average: bool
) -> TrainState:
    """Fresh parameters and optimizer state at step 0, with a moving average of the parameters if wished."""
    params = fresh_params(net, key)
    zero = jnp.zeros((), jnp.int32)
    return TrainState(zero, params, optimizer.init(params), jax.tree.map(jnp.copy, params) if average else None)


def make_distill_step(net: StudentNet, optimizer: optax.GradientTransformation, *, decay: float):
    """A pure `step(state, batch, key) -> (state, metrics)` on `imitation_loss`, of "visible", "infrared" and "taught"
    crops (b, s, s, 1), mirrored and turned at random. An average in the state moves by `moving_average`.
    """

    def loss(params, batch, key):
        visible, infrared, taught = (turned(key, batch[role]) for role in ("visible", "infrared", "taught"))
        return imitation_loss(cast(Array, net.apply(params, visible, infrared)), taught.astype(jnp.float32))

    def step(state, batch, key):
        key = jax.random.fold_in(key, state.step)
        (total, terms), grads = jax.value_and_grad(loss, has_aux=True)(state.params, batch, key)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        average = state.average
        if average is not None:
            average = moving_average(average, params, state.step, decay=decay)
        new = state.replace(step=state.step + 1, params=params, opt_state=opt_state, average=average)
        return new, {"loss": total, **terms, "gradient_norm": optax.tree.norm(grads)}

    return step


def turned(key: PRNGKeyArray, images: Float[Array, "b s s 1"]) -> Float[Array, "b s s 1"]:
    """Each sample in one of the eight positions of a square, by the key and its place in the batch.

    >>> image = jnp.arange(4.0).reshape(1, 2, 2, 1)
    >>> sorted(turned(jax.random.key(0), image).ravel().tolist())
    [0.0, 1.0, 2.0, 3.0]
    """
    flips = jax.random.bernoulli(key, shape=(3, len(images), 1, 1, 1))
    images = jnp.where(flips[0], images[:, ::-1], images)
    images = jnp.where(flips[1], images[:, :, ::-1], images)
    return jnp.where(flips[2], images.swapaxes(1, 2), images)


def score(params: PyTree, scenes: TaughtScenes) -> tuple[float, list]:
    """Mean SSIM of a student's fused images to the teacher's, and rows for a sheet of some scenes spread over them."""
    student = Fuser(params)
    scored = jax.jit(ssim)
    shown = set(np.linspace(0, len(scenes) - 1, min(_SHEET_ROWS, len(scenes))).round().astype(int).tolist())
    values, rows = [], []
    for i in range(len(scenes)):
        visible, infrared, taught = scenes[i]
        fused, taught = student(visible, infrared), taught.astype(np.float32)
        values.append(scored(fused[None], taught[None]).item())
        if i in shown:
            rows.append((infrared, visible, taught, fused))
    return float(np.mean(values)), rows
