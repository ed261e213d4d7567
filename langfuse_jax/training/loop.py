"""The loop of every training run: it resumes, steps, logs, validates, saves, and stops where it must."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import grain
import jax
import optax
import orbax.checkpoint as ocp
from jax.sharding import Mesh
from jaxtyping import PRNGKeyArray, PyTree
from ml_collections import ConfigDict

from langfuse_jax.errors import Preempted
from langfuse_jax.runtime.atomic import atomic_write, full_disk_reported, make_folder
from langfuse_jax.runtime.distributed import end_together, wait_for_others
from langfuse_jax.runtime.workdir_lock import locked
from langfuse_jax.training import checkpoints
from langfuse_jax.training.guard import Guard
from langfuse_jax.training.log import TrainingLog, log_interval, write_line
from langfuse_jax.training.parallel import compile_step, divide, divided_optimizer, on_host, replicate
from langfuse_jax.training.preemption import PreemptionWatch
from langfuse_jax.training.speed import Speed
from langfuse_jax.training.step import TrainState
from langfuse_jax.training.trace import Trace

# The least that numbers of every config may be.
LEAST: dict[int, tuple[str, ...]] = {
    1: ("log.every", "guard.max_skipped", "guard.max_dead", "checkpoint.every"),
    0: ("seed", "optimizer.learning_rate", "optimizer.warmup_steps", "optimizer.gradient_clip"),
}


@runtime_checkable
class Batches(Protocol):
    """The data of a training run: numbered batches, each a dictionary of arrays divided along their first axis."""

    def batches(self, first: int) -> grain.DatasetIterator:
        """An endless iterator from batch number `first` on."""
        ...

    def names(self, batch: int) -> list[str]:
        """What to call this process's samples of a batch."""
        ...


class Look(NamedTuple):
    """What process 0 does with the parameters every so many steps (0: never) and at the end.

    Attributes:
        name: of the .jsonl file and TensorBoard's group for numbers, or of the picture.
        every: steps.
        take: (parameters, step, the config that they were trained with) -> numbers by name, or a picture's path.
        at_start: before the first step of a run too.
    """

    name: str
    every: int
    take: Callable[[PyTree, int, Mapping[str, Any]], Mapping[str, float] | Path]
    at_start: bool = True


@dataclass(frozen=True, kw_only=True)
class TrainingRun:
    """What is trained, on what, and for how long.

    Attributes:
        config: kept with each checkpoint; the loop reads its `log`, `guard` and `checkpoint`.
        steps: in all.
        state: to start from, at step 0, on the host.
        key: of the steps.
        make_step: `step.make_train_step` with its arguments bound.
        rate: the learning rate by step, for the log.
        data: what steps take.
        frozen: what steps read.
        mesh, mode, shard_optimizer: the devices, and how step and optimizer are divided over them, see `parallel`.
        validate: (parameters, frozen), on the devices, to the validation loss and its terms, or None for none.
        looks: sheets, scores and the like.
        speed: of the steps.
        config_file: the name of the file in the work directory that has the config.
    """

    config: ConfigDict
    steps: int
    state: TrainState
    key: PRNGKeyArray
    make_step: Callable[..., Callable]
    rate: optax.Schedule
    data: Batches
    mesh: Mesh
    speed: Speed
    mode: str = "jit"
    shard_optimizer: bool = False
    frozen: Any = None
    validate: Callable[[PyTree, Any], dict[str, float]] | None = None
    looks: Sequence[Look] = ()
    config_file: str = "config.json"


@contextmanager
def claimed(workdir: Path, state: TrainState) -> Iterator[None]:
    """`workdir`, made if it is missing, for one training run alone. Raises UserError where it is in use, cannot be
    written, or has no room for a checkpoint of `state`.
    """
    checkpoints.check_space(workdir, state)
    make_folder(workdir)
    with locked(workdir) if jax.process_index() == 0 else nullcontext():
        wait_for_others("workdir")
        yield


def run(
    training: TrainingRun, workdir: Path, *, override: bool = False, profile: int = 0
) -> tuple[TrainState, Mapping[str, Any]]:
    """Trains, resuming from the checkpoints that `workdir`, which is `claimed`, holds.

    Writes checkpoints/ (Orbax) into `workdir`, and process 0 metrics.jsonl (a line of loss terms and speed every
    `log.log_interval` steps), the same for TensorBoard, validation.jsonl (a line before the first step and with each
    checkpoint), config.json, and what `training.looks` give.

    Args:
        override: resume from checkpoints of another config too.
        profile: steps, from the third on, of which a trace is written into `workdir`/profile.

    Returns:
        The final state, and the config that its parameters were trained with, as JSON has it: where nothing was left to
        train, that of the checkpoint. Raises UserError where the checkpoints do not fit, the disk is full, or steps
        cannot be used; Preempted, after a save, on SIGTERM.
    """
    config, first = training.config, jax.process_index() == 0
    shardings = divided_optimizer(training.state, training.mesh) if training.shard_optimizer else None
    train_step = compile_step(training.make_step, training.mode, training.mesh, shardings)
    state, frozen = replicate(training.state, training.mesh, shardings), replicate(training.frozen, training.mesh)
    manager = checkpoints.open_checkpoints(workdir)
    state, key, saved = checkpoints.restore(manager, state, key=training.key, config=config, override=override)
    start, key = int(state.step), replicate(key, training.mesh)
    if first:
        with atomic_write(workdir / training.config_file) as file:
            file.write(config.to_json_best_effort(indent=2).encode() + b"\n")
    batches, interval = training.data.batches(start), log_interval(config.log.every, training.steps)
    guard = Guard(
        config.guard.max_skipped,
        config.guard.max_dead,
        names=training.data.names,
        last_checkpoint=partial(checkpoints.latest, manager),
    )
    with (
        checkpoints.closing(manager),
        closing(batches),
        PreemptionWatch() as preemption,
        TrainingLog(workdir if first else None, start, training.steps, training.speed.read) as log,
        Trace(workdir / "profile", start + 2, profile if first else 0) as trace,
        end_together(workdir),  # before the others close: that would wait for the other processes
        full_disk_reported(workdir),
    ):
        reports = _Reports(training, workdir, manager, log, key, frozen, saved, start)
        if start == 0:
            reports.validate(state)  # what later losses are compared with
        waited = training.speed.waiting(batches)
        for step in range(start, training.steps):
            if preemption.reached(step):
                reports.save(state, preempted=True)
                raise Preempted(f"{workdir}: stopped by SIGTERM before step {step}, which is saved; run it again")
            if step > start and step % config.checkpoint.every == 0:
                reports.save(state)
            reports.look(state, step)
            trace.before(step, state)
            state, metrics = train_step(state, divide(next(waited), training.mode, training.mesh), key, frozen)
            # The step just dispatched runs while the one before it is read and written.
            log.write(
                step,
                metrics,
                training.rate(step),
                keep=step % interval == 0 or step == training.steps - 1,
            )
            guard.watch(step, metrics)
        guard.look()
        if start < training.steps:
            reports.save(state)
        reports.look(state, training.steps)
    return state, reports.trained_with(training.steps)


class _Reports(NamedTuple):
    """What a run says of its state, beside the metrics of its steps."""

    training: TrainingRun
    workdir: Path
    manager: ocp.CheckpointManager
    log: TrainingLog
    key: PRNGKeyArray
    frozen: Any
    saved: Mapping[str, Any]
    start: int

    def validate(self, state: TrainState) -> float | None:
        """The validation loss, which is written down too; None where there is none."""
        if self.training.validate is None:
            return None
        values = self.training.validate(state.final, self.frozen)
        if jax.process_index() == 0:
            write_line(self.workdir / "validation.jsonl", int(state.step), values)
        self.log.scalars("validation", int(state.step), values)
        return values["loss"]

    def save(self, state: TrainState, *, preempted: bool = False) -> None:
        loss = None if preempted else self.validate(state)
        checkpoints.save(
            self.manager,
            state,
            key=self.key,
            config=self.training.config,
            validation_loss=loss,
            wait=preempted,
        )

    def look(self, state: TrainState, step: int) -> None:
        """The looks that are due before a step, by process 0 alone, for which the others wait."""
        last, start = step == self.training.steps, step == self.start
        due = [
            look
            for look in self.training.looks
            if last or (look.every and step % look.every == 0 and (look.at_start or not start))
        ]
        if due and jax.process_index() == 0:
            params = on_host(state.final)
            for look in due:
                found = look.take(params, step, self.trained_with(step))
                if isinstance(found, Path):
                    self.log.image(look.name, step, found)
                else:
                    write_line(self.workdir / f"{look.name}.jsonl", step, found)
                    self.log.scalars(look.name, step, found)
        if due or last or start:
            wait_for_others(f"step {step}")

    def trained_with(self, step: int) -> Mapping[str, Any]:
        """The config that the parameters of a step were trained with."""
        return self.saved if step <= self.start else checkpoints.plain(self.training.config)
