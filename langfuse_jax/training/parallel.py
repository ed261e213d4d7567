"""The step on all devices of all processes: a batch in equal blocks, everything else on every device.

Two modes with one result. "jit" compiles the step for a mesh of devices and lets the compiler divide it by the sharding
of the batch; "pmap" runs the same step on each device's block and averages gradients over a named axis. In "jit" the
optimizer's state may be divided too, so that each device keeps, and updates with, its share of it alone (ZeRO's first
stage, arXiv 1910.02054).
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, PyTree, Shaped
from ml_collections import ConfigDict

from langfuse_jax.errors import UserError
from langfuse_jax.training.configs import check_choice
from langfuse_jax.training.step import TrainState

AXIS = "data"
MODES = ("jit", "pmap")


def data_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Devices along one axis; by default all of all processes, process after process."""
    return Mesh(np.array(devices or jax.devices()), (AXIS,), axis_types=(jax.sharding.AxisType.Auto,))


def check_division(batch_size: int, accumulate: int, devices: int | None = None) -> None:
    """Raises UserError unless the batch goes into parts, and each part onto all `devices` (JAX's), without a rest."""
    devices = jax.device_count() if devices is None else devices
    if accumulate < 1:
        raise UserError(
            f"config.memory.accumulate: {accumulate} is no number of parts; use 1 for the whole batch at once"
        )
    if batch_size % (accumulate * devices):
        parts = f" in {accumulate} parts (config.memory.accumulate)" if accumulate > 1 else ""
        raise UserError(
            f"config.batch_size: {batch_size}{parts} does not divide over {devices} devices; "
            f"use a multiple of {accumulate * devices}"
        )


def check_parallel(config: ConfigDict) -> None:
    """Raises UserError for a mode that is unknown, or that cannot divide the optimizer."""
    check_choice(config, "parallel.mode", MODES)
    if config.parallel.shard_optimizer and config.parallel.mode != "jit":
        raise UserError(
            f"config.parallel.shard_optimizer: requires config.parallel.mode 'jit', not {config.parallel.mode!r}"
        )


def replicated(mesh: Mesh) -> NamedSharding:
    """On every device."""
    return NamedSharding(mesh, PartitionSpec())


def divided_optimizer(state: TrainState, mesh: Mesh) -> TrainState:
    """Where each array of a state is kept, as `replicate` and `compile_step` take it: the optimizer's divided.

    Each of its arrays is divided along the longest axis that goes into the mesh's devices; one without is on every
    device, as all the rest is.

    >>> state = TrainState(0, {"w": 0}, {"w": np.zeros((3, 8))})
    >>> tuple(divided_optimizer(state, data_mesh(jax.devices()[:1])).opt_state["w"].spec)
    (None, 'data')
    """

    def share(leaf: Array | np.ndarray) -> NamedSharding:
        fitting = [axis for axis, length in enumerate(leaf.shape) if length % mesh.size == 0]
        if not fitting:
            return replicated(mesh)
        longest = max(fitting, key=lambda axis: leaf.shape[axis])
        return NamedSharding(mesh, PartitionSpec(*[None] * longest, AXIS))

    everywhere = jax.tree.map(lambda _: replicated(mesh), state)
    return everywhere.replace(opt_state=jax.tree.map(share, state.opt_state))


def replicate(tree: PyTree, mesh: Mesh, shardings: PyTree | None = None) -> PyTree:
    """A tree of arrays and keys, the same in every process, on every device, or where `shardings` says."""
    # jit, since device_put reaches only the devices of this process; host arrays, since those have no device yet.
    keys = jax.tree.map(lambda leaf: jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key), tree)
    host = jax.tree.map(lambda leaf, key: np.asarray(jax.random.key_data(leaf) if key else leaf), tree, keys)
    wrap = jax.jit(
        lambda host: jax.tree.map(lambda leaf, key: jax.random.wrap_key_data(leaf) if key else leaf, host, keys),
        out_shardings=replicated(mesh) if shardings is None else shardings,
    )
    return wrap(host)


def on_host(tree: PyTree) -> PyTree:
    """The host's copy of what is on every device whole."""
    return jax.tree.map(lambda leaf: np.asarray(leaf.addressable_data(0)), tree)


def divide(
    batch: Mapping[str, Shaped[np.ndarray, "b ..."]], mode: str, mesh: Mesh
) -> dict[str, Shaped[Array | np.ndarray, "..."]]:
    """This process's part of a batch, in the form that a step compiled in `mode` takes.

    The whole batch is that of all processes, one after the other.
    """
    if mode == "pmap":
        return {name: part.reshape(jax.local_device_count(), -1, *part.shape[1:]) for name, part in batch.items()}
    blocks = NamedSharding(mesh, PartitionSpec(AXIS))
    return {name: jax.make_array_from_process_local_data(blocks, part) for name, part in batch.items()}


def compiler_options(mesh: Mesh) -> dict[str, float]:
    """What programs for the mesh's devices are compiled with, as `jax.jit` takes it.

    TPU's compiler spends most of its time on choosing tiles for convolutions: it weighs all that there are. With this
    option it takes the first choice that reaches 99% of the speed that it aims at (benchmarks/RESULTS.md).

    >>> compiler_options(data_mesh(jax.devices("cpu")))
    {}
    """
    on_tpu = mesh.devices.flat[0].platform == "tpu"
    return {"xla_jf_convolution_performance_target": 0.99} if on_tpu else {}


def compile_step(make: Callable[..., Callable], mode: str, mesh: Mesh, shardings: PyTree | None = None) -> Any:
    """A function (state, batch, key, frozen) -> (state, metrics), or other trees, on all devices of the mesh.

    Args:
        make: makes the pure function: `step.make_train_step` with its arguments bound; called with `mean` in mode
            "pmap".
        mode: "jit" or "pmap".
        mesh: from `data_mesh`.
        shardings: of the state, from `divided_optimizer`; None for all on every device. For mode "jit" alone.

    Returns:
        The function. Its arrays, given and taken, are on every device (see `replicate`), but for the batch, which comes
        from `divide`, and what `shardings` divides. Raises UserError for an unknown mode.
    """
    everywhere, blocks = replicated(mesh), NamedSharding(mesh, PartitionSpec(AXIS))
    if mode == "jit":
        kept, step = everywhere, make
        if shardings is not None:
            # Else the compiler divides what computes the gradient too, and passes pieces of it round.
            kept, step = shardings, partial(make, mean=partial(jax.lax.with_sharding_constraint, shardings=everywhere))
        return jax.jit(
            step(),
            in_shardings=(kept, blocks, everywhere, everywhere),
            out_shardings=(kept, everywhere),
            compiler_options=compiler_options(mesh),
        )
    if mode != "pmap":
        raise UserError(f"config.parallel.mode: {mode!r} is unknown; use one of {', '.join(MODES)}")
    step = make(mean=partial(jax.lax.pmean, axis_name=AXIS))
    mapped = jax.pmap(step, AXIS, in_axes=(None, 0, None, None), out_axes=None)

    def on_all_processes(leaf: Array) -> Array:
        copies = [shard.data for shard in leaf.addressable_shards]
        return jax.make_array_from_single_device_arrays(leaf.shape, everywhere, copies)

    # What pmap returns is known to be alike on the devices of this process only.
    return lambda *arguments: jax.tree.map(on_all_processes, mapped(*arguments))
