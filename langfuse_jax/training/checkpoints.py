"""Orbax checkpoints of a training: state and data iterator, saved together and restored together."""

from pathlib import Path
from typing import Any

import grain
import jax
import orbax.checkpoint as ocp
from jaxtyping import PyTree

from langfuse_jax.errors import UserError
from langfuse_jax.training.step import TrainState

FOLDER = "checkpoints"
_KEEP = 2


def open_checkpoints(workdir: str | Path) -> ocp.CheckpointManager:
    """The manager of `workdir`/checkpoints (made if missing), which keeps the latest two."""
    options = ocp.CheckpointManagerOptions(
        preservation_policy=ocp.checkpoint_managers.LatestN(_KEEP), enable_async_checkpointing=True
    )
    return ocp.CheckpointManager((Path(workdir) / FOLDER).absolute(), options=options)


def save(manager: ocp.CheckpointManager, state: TrainState, iterator: Any) -> None:
    """Starts saving `state` and the place of the grain `iterator` under the state's step."""
    arguments = ocp.args.Composite(state=ocp.args.StandardSave(state), data=grain.checkpoint.CheckpointSave(iterator))
    manager.save(int(state.step), args=arguments)


def restore(manager: ocp.CheckpointManager, state: TrainState, iterator: Any) -> TrainState:
    """The latest checkpoint in the form of `state`, `iterator` set to its place; `state` itself if there is none."""
    step = manager.latest_step()
    if step is None:
        return state
    arguments = ocp.args.Composite(
        state=ocp.args.StandardRestore(jax.tree.map(ocp.utils.to_shape_dtype_struct, state)),
        data=grain.checkpoint.CheckpointRestore(iterator),
    )
    try:
        return manager.restore(step, args=arguments).state
    except Exception as error:  # a checkpoint of another network or a damaged one: Orbax raises many types
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{manager.directory}/{step}: cannot be restored ({reason}); use another --workdir") from error


def restore_params(workdir: str | Path) -> PyTree:
    """The fusion parameters of the latest checkpoint of a training, averaged where it keeps an average.

    Raises UserError where there is none.
    """
    folder = (Path(workdir) / FOLDER).absolute()
    with ocp.CheckpointManager(folder, options=ocp.CheckpointManagerOptions(create=False)) as manager:
        step = manager.latest_step()
        if step is None:
            raise UserError(f"{folder}: no checkpoint in it; train longer, or give another folder")
        state = manager.restore(step, args=ocp.args.Composite(state=ocp.args.StandardRestore())).state
        return state.get("average") or state["params"]
