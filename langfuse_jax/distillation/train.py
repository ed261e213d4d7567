"""`langfuse-jax distill`: trains the student to fuse as a teacher does."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, PRNGKeyArray, PyTree
from ml_collections import ConfigDict

from langfuse_jax.data.pipeline import TrainingData
from langfuse_jax.data.scenes import Scenes, list_scenes
from langfuse_jax.distillation.faded import FadedScenes
from langfuse_jax.distillation.loss import imitation_loss
from langfuse_jax.distillation.taught import TaughtScenes, fingerprint
from langfuse_jax.images.files import write_png
from langfuse_jax.images.sheet import grid
from langfuse_jax.inference.fuser import Fuser
from langfuse_jax.losses.ssim import ssim
from langfuse_jax.models.fusion import fresh_params
from langfuse_jax.models.student import StudentNet
from langfuse_jax.training import loop
from langfuse_jax.training.configs import check_below_one, check_least, check_texts
from langfuse_jax.training.parallel import data_mesh, on_host
from langfuse_jax.training.sources import provenance, training_scenes
from langfuse_jax.training.speed import Speed
from langfuse_jax.training.step import clip_by_norm, init_state, make_train_step
from langfuse_jax.weights.fusion import refuse_student, save_fusion

_LEAST = {
    1: (*loop.LEAST[1], "batch_size", "steps"),
    0: (*loop.LEAST[0], "scores.every", "augment.faded_copies"),
    32: ("crop",),
}
_SHEET_ROWS = 7


def distill(config: ConfigDict, workdir: str | Path, *, command: str = "", override: bool = False) -> float:
    """Trains a student as `config` (configs/student.py) says, resuming from the checkpoints in `workdir`.

    Beside what `loop.run` writes into `workdir` there are taught/ (the teacher's images), scores.jsonl (mean SSIM to
    the teacher on the validation dataset every `scores.every` steps), sheet.png (infrared | visible | teacher |
    student) and the model for `Fuser.load`. It runs on one device.

    Args:
        command: kept with the model.
        override: resume from checkpoints of another config too.

    Returns:
        The mean SSIM to the teacher (`losses.ssim.ssim`) over whole validation images; over the training images where
        the config names no validation dataset.
    """
    check_least(config, _LEAST)
    check_texts(config, "data.train")
    check_below_one(config, "optimizer.ema", 0.999)
    check_below_one(config, "augment.fading", 0.7)
    workdir = Path(workdir)
    teacher = Fuser.load(config.teacher or None)
    refuse_student(teacher.params, f"config.teacher: {config.teacher}")
    training, held_out = training_scenes(config), config.data.validation
    validation = list_scenes(Path(config.data.root) / held_out, "test") if held_out else training
    scenes = FadedScenes(
        Scenes(training, cache_mb=config.data.cache_mb),
        copies=config.augment.faded_copies,
        most=config.augment.fading,
        seed=config.seed,
    )
    taught = TaughtScenes(scenes, teacher, workdir / "taught")
    unseen = TaughtScenes(Scenes(validation, cache_mb=config.data.cache_mb), teacher, workdir / "taught")

    net, chosen = StudentNet(), config.optimizer
    rate = optax.warmup_cosine_decay_schedule(
        0.0, chosen.learning_rate, chosen.warmup_steps, max(config.steps, chosen.warmup_steps + 1)
    )
    optimizer = optax.chain(clip_by_norm(chosen.gradient_clip), optax.adam(rate))
    init_key, key = jax.random.split(jax.random.key(config.seed))
    state = jax.device_get(init_state(fresh_params(net, init_key), optimizer, average=chosen.ema > 0))
    mean = 0.0

    def teach() -> None:
        for lesson in (taught, unseen):
            lesson.teach()

    def look(params: PyTree, step: int, _: Mapping[str, Any]) -> dict[str, float]:
        nonlocal mean
        mean, rows = score(params, unseen)
        write_png(workdir / "sheet.png", grid(rows, ("infrared", "visible", "teacher", "student")))
        return {"ssim": mean}

    run = loop.TrainingRun(
        config=config,
        steps=config.steps,
        state=state,
        key=key,
        make_step=partial(make_train_step, partial(distillation_loss, net=net), optimizer, average_decay=chosen.ema),
        rate=rate,
        data=TrainingData(taught, crop=config.crop, batch_size=config.batch_size, seed=config.seed),
        mesh=data_mesh(jax.local_devices()[:1]),
        speed=Speed(config.batch_size),
        looks=[loop.Look("scores", config.scores.every, look, at_start=False)],
        prepare=teach,
    )
    with loop.claimed(workdir, state):
        state, _ = loop.run(run, workdir, override=override)
        taught_by = {"path": config.teacher, "fingerprint": fingerprint(teacher.params)}
        more = {"teacher": taught_by, "ssim_to_teacher": round(mean, 4)}
        metadata = provenance(config, command, training, config.steps, **more)
        save_fusion(workdir, on_host(state.final), dtype=np.float32, metadata=metadata)
    return mean


def distillation_loss(
    params: PyTree, batch: Mapping[str, Array], key: PRNGKeyArray, frozen: None, *, net: StudentNet
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """`imitation_loss` and its terms, of "visible", "infrared" and "taught" crops (b, s, s, 1), mirrored and turned at
    random; with "fused_std", the mean standard deviation of what the student fuses.
    """
    visible, infrared, taught = (turned(key, batch[role]) for role in ("visible", "infrared", "taught"))
    fused = cast(Array, net.apply(params, visible, infrared))
    total, terms = imitation_loss(fused, taught.astype(jnp.float32))
    return total, {**terms, "fused_std": fused.std(axis=(1, 2, 3)).mean()}


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
