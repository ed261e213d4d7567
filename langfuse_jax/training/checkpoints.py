"""Orbax checkpoints of a training run: state, key and config, saved together and restored together."""

import errno
import json
import logging
import math
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from absl import logging as absl_logging
from jaxtyping import PRNGKeyArray
from ml_collections import ConfigDict

from langfuse_jax.errors import UserError
from langfuse_jax.training.step import TrainState
from langfuse_jax.weights.checkpoint import FOLDER, damaged, finished_steps

_KEEP = 2
_METRIC = "validation_loss"
_ABSENT = "(absent)"


def silence_orbax() -> None:
    """No log of what goes wrong in Orbax's threads and event loops: it ends in one line of our own."""
    absl_logging.set_verbosity(absl_logging.FATAL)
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)


def open_checkpoints(workdir: str | Path) -> ocp.CheckpointManager:
    """The manager of `workdir`/checkpoints (made if missing), which keeps the latest two and the best.

    The best is the one of the lowest validation loss, of those saved with one. Saves run in the background and appear
    whole or not at all; what a killed one has left is removed here.
    """
    policies = [
        ocp.checkpoint_managers.LatestN(_KEEP),
        ocp.checkpoint_managers.BestN(get_metric_fn=_loss, reverse=True, n=1, keep_checkpoints_without_metrics=False),
    ]
    options = ocp.CheckpointManagerOptions(
        preservation_policy=ocp.checkpoint_managers.AnyPreservationPolicy(policies),
        best_fn=_loss,  # without it metrics are not written
        best_mode="min",
        enable_async_checkpointing=True,
        cleanup_tmp_directories=True,
    )
    return ocp.CheckpointManager((Path(workdir) / FOLDER).absolute(), options=options)


def _loss(metrics: dict[str, float]) -> float:
    return metrics.get(_METRIC, math.inf)


@contextmanager
def closing(manager: ocp.CheckpointManager) -> Iterator[None]:
    """Ends with all saves finished and the manager closed; raises UserError where the last save failed."""
    others = sys.unraisablehook
    sys.unraisablehook = partial(_skip_event_loops, others)
    try:
        yield
    except BaseException:
        with suppress(Exception):  # the error under way says more
            manager.close()
        raise
    else:
        with _save_errors(manager):
            manager.close()
    finally:
        sys.unraisablehook = others


def _skip_event_loops(others: Callable[[Any], object], unraisable: Any) -> None:
    # When one write of a save fails, the others call an event loop that is closed: the failure itself is one line.
    trace = unraisable.exc_traceback
    if trace is None or not trace.tb_frame.f_globals.get("__name__", "").startswith("asyncio."):
        others(unraisable)


@contextmanager
def _save_errors(manager: ocp.CheckpointManager) -> Iterator[None]:
    """Orbax's errors of a save, also of one in the background, as one line; a lost process raises JAX's own error."""
    try:
        yield
    except Exception as error:  # a full disk, a folder without rights: many layers, each with errors of its own
        if lost := _lost_process(error):
            raise lost from error
        done = finished_steps(manager.directory)
        usable = f"the one of step {done[-1]} stays usable" if done else "there is none before it"
        reason = " ".join(str(error).split())[-200:]
        raise UserError(
            f"{manager.directory}: a checkpoint cannot be saved ({reason}); {usable}: check the space and the "
            "rights there and run the same command again"
        ) from error


def _lost_process(error: BaseException | None) -> jax.errors.JaxRuntimeError | None:
    """Among the causes of an error, that a collective of several processes failed: no fault of the disk."""
    while error is not None and jax.process_count() > 1:
        if isinstance(error, jax.errors.JaxRuntimeError):
            return error
        error = error.__cause__ or error.__context__
    return None


def latest(manager: ocp.CheckpointManager) -> str | None:
    """The path of the latest whole checkpoint, after the save under way, or None."""
    with _save_errors(manager):
        manager.wait_until_finished()
    done = finished_steps(manager.directory)
    return f"{manager.directory}/{done[-1]}" if done else None


def save(
    manager: ocp.CheckpointManager,
    state: TrainState,
    *,
    key: PRNGKeyArray,
    config: ConfigDict,
    validation_loss: float | None = None,
    wait: bool = False,
) -> None:
    """Starts saving all that a training run resumes from, under the state's step; does nothing if that is saved.

    The data's place is the step: each takes one batch.

    Args:
        key: of the steps.
        config: what a later run is compared with.
        validation_loss: by which the best is kept; not finite counts as None.
        wait: until it is on disk.

    Raises UserError where this or the save before it failed; what was there before is as it was.
    """
    step = int(state.step)
    with _save_errors(manager):
        if step not in manager.all_steps():
            about = {"config": plain(config), "key": np.asarray(jax.random.key_data(key)).tolist()}
            arguments = ocp.args.Composite(state=ocp.args.StandardSave(state), about=ocp.args.JsonSave(about))
            manager.wait_until_finished()
            if jax.process_count() == 1:  # several would have to agree
                _check_space(manager.directory, state)
            metrics = {}
            if validation_loss is not None and math.isfinite(validation_loss):
                metrics[_METRIC] = float(validation_loss)
            manager.save(step, args=arguments, metrics=metrics)
        if wait:
            manager.wait_until_finished()


def check_space(workdir: str | Path, state: TrainState) -> None:
    """Raises UserError where the disk of `workdir`, which may not be there yet, has no room for one checkpoint."""
    above = Path(workdir).absolute()
    while not above.is_dir():
        above = above.parent
    try:
        _check_space(above, state)
    except OSError as error:
        raise UserError(
            f"{workdir}: cannot hold a checkpoint ({error.strerror or error}); free space there, or use another folder"
        ) from error


def _check_space(folder: str | os.PathLike, state: TrainState) -> None:
    # Found out beforehand, a full disk costs no half-written files.
    needed, free = sum(leaf.nbytes for leaf in jax.tree.leaves(state)), shutil.disk_usage(folder).free
    if needed > free:
        raise OSError(errno.ENOSPC, f"{os.strerror(errno.ENOSPC)}: {needed >> 20} MiB needed, {free >> 20} free")


def restore(
    manager: ocp.CheckpointManager,
    state: TrainState,
    *,
    key: PRNGKeyArray,
    config: ConfigDict,
    override: bool = False,
) -> tuple[TrainState, PRNGKeyArray, dict[str, Any]]:
    """State, key and config of the latest checkpoint; `state`, `key` and `config` if there is none.

    The arrays come back with the shardings of `state`, whatever devices they were saved from. Raises UserError where
    the checkpoint is of another config, naming the keys that differ, unless `override`; and where it does not fit.
    """
    step = manager.latest_step()
    if step is None:
        return state, key, plain(config)
    folder = manager.directory / str(step)
    try:
        about = manager.restore(step, args=ocp.args.Composite(about=ocp.args.JsonRestore())).about
        if "learning_rate" in about["config"]:
            raise UserError(
                f"{folder}: was saved before version 0.2, which fuses but cannot resume; use another folder"
            )
        if not override:
            _check_config(folder, about["config"], plain(config))
        form = jax.tree.map(ocp.utils.to_shape_dtype_struct, state)
        restored = manager.restore(step, args=ocp.args.Composite(state=ocp.args.StandardRestore(form))).state
    except UserError:
        raise
    except Exception as error:  # a checkpoint of another network or a damaged one: Orbax raises many types
        raise UserError(damaged(folder, error, "use another folder")) from error
    return restored, jax.random.wrap_key_data(jnp.asarray(about["key"], jnp.uint32)), about["config"]


def plain(config: ConfigDict) -> dict[str, Any]:
    """A config as JSON has it.

    >>> plain(ConfigDict({"crop": 64, "sizes": (1, 2)}))
    {'crop': 64, 'sizes': [1, 2]}
    """
    return json.loads(config.to_json_best_effort())


def _check_config(folder: str | os.PathLike, saved: dict[str, Any], current: dict[str, Any]) -> None:
    saved, current = _flat(saved), _flat(current)
    differing = [
        f"{name} {saved.get(name, _ABSENT)!r} -> {current.get(name, _ABSENT)!r}"
        for name in sorted(saved.keys() | current.keys())
        if saved.get(name, _ABSENT) != current.get(name, _ABSENT)
    ]
    if differing:
        raise UserError(
            f"{folder}: was saved with another config: {', '.join(differing)}; use another folder, or --override to "
            "resume from it with the new values"
        )


def _flat(config: Any, prefix: str = "config") -> dict[str, Any]:
    if not isinstance(config, dict):
        return {prefix: config}
    return {name: value for key, inner in config.items() for name, value in _flat(inner, f"{prefix}.{key}").items()}
