"""What fusing needs of a training run's Orbax checkpoints: the fusion parameters and the config of the run."""

import os
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from jaxtyping import PyTree

from langfuse_jax.errors import UserError

FOLDER = "checkpoints"  # in a work directory


def finished_steps(folder: str | os.PathLike) -> list[int]:
    """The steps of the whole checkpoints in a folder, sorted."""
    return sorted(
        int(path.name) for path in Path(folder).glob("[0-9]*") if path.name.isascii() and path.name.isdecimal()
    )


def _find(workdir: str | Path, step: int | None) -> Path:
    """The folder of a checkpoint; of the latest where `step` is None."""
    folder = (Path(workdir) / FOLDER).absolute()
    done = finished_steps(folder)
    step = done[-1] if step is None and done else step
    if step not in done:
        which = "no checkpoint" if step is None else f"no checkpoint of step {step}"
        raise UserError(f"{folder}: {which} in it; train longer, or give another folder")
    return folder / str(step)


def restore_params(workdir: str | Path, step: int | None = None) -> PyTree:
    """The fusion parameters of a checkpoint, averaged where it keeps an average, on the first device.

    Args:
        workdir: of the training run.
        step: None for the latest.

    Raises UserError where there is none, or where it is damaged.
    """
    checkpoint = _find(workdir, step)
    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    place = checkpoint / "state"
    handler = ocp.PyTreeCheckpointHandler()  # a Checkpointer would warn of metadata that only whole checkpoints have
    try:
        form = handler.metadata(place).tree
        form = {name: form[name] for name in ("params", "average") if form.get(name)}
        form = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here), form)
        arguments = ocp.checkpoint_utils.construct_restore_args(form)
        arguments = ocp.args.PyTreeRestore(item=form, restore_args=arguments, partial_restore=True)
        state = handler.restore(place, args=arguments)
    except Exception as error:  # damaged: Orbax raises many types
        raise UserError(damaged(checkpoint, error, "give another folder")) from error
    finally:
        handler.close()
    return state.get("average") or state["params"]


def saved_config(workdir: str | Path, step: int | None = None) -> dict[str, Any]:
    """The config that a checkpoint was saved with, as JSON has it. Arguments and errors as of `restore_params`."""
    checkpoint = _find(workdir, step)
    handler = ocp.JsonCheckpointHandler()
    try:
        return handler.restore(checkpoint / "about")["config"]
    except Exception as error:  # damaged: Orbax raises many types
        raise UserError(damaged(checkpoint, error, "give another folder")) from error
    finally:
        handler.close()


def damaged(checkpoint: str | os.PathLike, error: Exception, remedy: str) -> str:
    """The line that says that a checkpoint cannot be restored."""
    return f"{checkpoint}: cannot be restored ({' '.join(str(error).split())[:200]}); {remedy}"
