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
from langfuse_jax.convert.vgg import load_vgg19
from langfuse_jax.data.pipeline import TrainingData
from langfuse_jax.data.scenes import Scenes, list_scenes, read_scene
from langfuse_jax.errors import Preempted, UserError
from langfuse_jax.images import write_png
from langfuse_jax.models.clip import Clip
from langfuse_jax.models.fusion import FusionNet
from langfuse_jax.sheet import grid
from langfuse_jax.text import TextEmbeddings, embed
from langfuse_jax.training import checkpoints
from langfuse_jax.training.configs import load_config
from langfuse_jax.training.guard import Guard
from langfuse_jax.training.log import TrainingLog
from langfuse_jax.training.preemption import PreemptionWatch
from langfuse_jax.training.schedule import published_schedule
from langfuse_jax.training.step import Frozen, Recipe, TrainState, init_state, make_train_step
from langfuse_jax.training.validation import make_validation, write_validation
from langfuse_jax.weights import load_fusion, save_fusion


def train_command(args, overrides):
    """`langfuse-jax train`: parse the config, train, and say where the model is."""
    logging.set_verbosity(logging.FATAL)  # what goes wrong in Orbax's threads ends in one line of our own
    config = load_config(args.config, overrides)
    command = shlex.join(["langfuse-jax", "train", "--config", args.config, "--workdir", args.workdir, *overrides])
    try:
        train(config, args.workdir, command=command, override=args.override)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise UserError(
            f"{args.workdir}: cannot be written ({error.strerror}); its last checkpoint stays usable: free space there "
            "and run the same command again"
        ) from error
    print(f"{args.workdir}: trained model, sheets and metrics.jsonl; fuse with --checkpoint {args.workdir}")


def train(config: ConfigDict, workdir: str | Path, *, command: str = "", override: bool = False) -> TrainState:
    """Trains a fusion network as `config` says, resuming from the checkpoints that `workdir` holds.

    Writes into `workdir`: checkpoints/ (Orbax), metrics.jsonl (a line of loss terms every `log_every` steps), sheets/
    (infrared | visible | fused of fixed validation pairs every `sheet.every` steps), validation.jsonl (a line with each
    checkpoint), config.json, and at the end the model for inference (fusion.safetensors, fusion.json) that
    `Fuser.load(workdir)` takes.

    Args:
        config: as in configs/default.py.
        workdir: a checkpoint in it that was saved with another config is refused, unless `override`.
        command: kept with the model.

    Returns:
        The final state. Raises UserError for missing or unpaired data, another CLIP's text file and the like, and where
        losses stay not finite; Preempted, after a save, on SIGTERM.
    """
    workdir = Path(workdir)
    if config.crop < 32:
        raise UserError(f"config.crop: {config.crop} is too small; the fusion network needs 32 pixels per side")
    if config.clip_dtype not in ("float32", "bfloat16"):
        raise UserError(f"config.clip_dtype: {config.clip_dtype!r} is unknown; use 'float32' or 'bfloat16'")
    if not 0 <= config.ema < 1:
        raise UserError(f"config.ema: {config.ema} is no decay; use 0 for none, or a number below 1 such as 0.999")
    clip = Clip.load(config.clip or None)
    vision = clip.vision.clone(dtype=config.clip_dtype)
    texts = _texts(config, clip)
    frozen = Frozen(
        clip=clip.params["vision"],
        texts={f"text_{role}": jnp.asarray(getattr(texts, role)) for role in ("goal", "visible", "infrared")},
        vgg=load_vgg19(config.vgg) if config.vgg else None,
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
    draw_sheet = _sheet_drawer(config, net)

    init_key, step_key = jax.random.split(jax.random.key(config.seed))
    state = init_state(init_key, net, optimizer, config.crop)
    if config.init_from:
        state = state.replace(params=load_fusion(config.init_from)[0])
    if config.ema:
        state = state.replace(average=state.params)
    iterator = iter(data)
    validate = make_validation(config, net, vision, _recipe(config))
    make_folder(workdir)
    manager = checkpoints.open_checkpoints(workdir)
    state, step_key = checkpoints.restore(manager, state, iterator, key=step_key, config=config, override=override)
    with atomic_write(workdir / "config.json") as file:
        file.write(config.to_json_best_effort(indent=2).encode() + b"\n")
    train_step = jax.jit(make_train_step(net, vision, optimizer, _recipe(config), average_decay=config.ema))

    def save(state, *, preempted=False):
        loss = None
        if validate and not preempted:
            values = validate(state.final, frozen)
            loss = values["loss"]
            if jax.process_index() == 0:
                write_validation(workdir / "validation.jsonl", int(state.step), values)
        checkpoints.save(manager, state, iterator, key=step_key, config=config, validation_loss=loss, wait=preempted)

    start = int(state.step)
    guard = Guard(config.max_skipped, names=data.names, last_checkpoint=partial(checkpoints.latest, manager))
    with (
        checkpoints.closing(manager, iterator),
        PreemptionWatch() as preemption,
        TrainingLog(workdir / "metrics.jsonl", start, total_steps) as log,
    ):
        for step in range(start, total_steps):
            if preemption.reached(step):
                save(state, preempted=True)
                raise Preempted(f"{workdir}: stopped by SIGTERM before step {step}, which is saved; run it again")
            if step > start and step % config.checkpoint_every == 0:
                save(state)
            if step % config.sheet.every == 0:
                draw_sheet(state.final, workdir / "sheets" / f"step_{step:06d}.png")
            state, metrics = train_step(state, next(iterator), step_key, frozen)
            # The step just dispatched runs while the one before it is read and written.
            log.write(step, metrics, rate(step), keep=step % config.log_every == 0 or step == total_steps - 1)
            guard.watch(step, metrics["skipped_in_a_row"])
        guard.look()
        if start < total_steps:
            save(state)
    draw_sheet(state.final, workdir / "sheets" / f"step_{total_steps:06d}.png")
    metadata = {
        "command": command,
        "config": json.loads(config.to_json_best_effort()),
        "data": {"folders": folders, "pairs": pairs},
        "date": datetime.now(UTC).date().isoformat(),
        "langfuse_jax": __version__,
        "clip": {"name": clip.name, "fingerprint": clip.fingerprint},
        "steps": total_steps,
        "pad_multiple": 8 if config.crop % 8 == 0 else 1,  # see Fuser
    }
    save_fusion(workdir, state.final, dtype=np.float32, metadata=metadata)
    return state


def _texts(config, clip):
    if config.text:
        texts = TextEmbeddings.load(config.text)
        texts.check(clip)
        return texts
    return embed(clip, **{role: list(config.prompts[role]) for role in ("visible", "infrared", "goal")})


def _recipe(config):
    return Recipe(
        weights=dict(config.loss),
        patches=config.patches.count,
        patch_fraction=tuple(config.patches.fraction),
        entropy_threshold=config.patches.entropy_threshold,
        noise=config.noise,
    )


def _sheet_drawer(config, net):
    """A function (params, path) that fuses the fixed validation pairs and writes them as one picture."""
    pairs = list_scenes(Path(config.data.root) / config.data.validation, "test") if config.data.validation else []
    if not pairs:
        return lambda params, path: None
    places = np.linspace(0, len(pairs) - 1, min(config.sheet.pairs, len(pairs))).round().astype(int)
    images = [read_scene(pairs[i]) for i in places]
    # One size for all, so that the network is compiled once.
    h, w = (min(visible.shape[axis] for visible, _ in images) for axis in (0, 1))
    visible, infrared = (np.stack([_centre(pair[i], h, w) for pair in images])[..., None] for i in (0, 1))
    fuse = jax.jit(net.apply)

    def draw(params, path):
        fused = np.asarray(fuse(params, visible, infrared))
        write_png(
            path, grid([(i[..., 0], v[..., 0], f[..., 0]) for i, v, f in zip(infrared, visible, fused, strict=True)])
        )

    return draw


def _centre(image, h, w):
    top, left = (image.shape[0] - h) // 2, (image.shape[1] - w) // 2
    return image[top : top + h, left : left + w]
