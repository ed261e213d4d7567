"""A training step compiled for devices that are not here: memory, work, exchanges, and a bound on its time."""

import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import PyTree
from ml_collections import ConfigDict

from langfuse_jax.clip.architecture import vision_tower
from langfuse_jax.errors import UserError, reason
from langfuse_jax.losses import Words
from langfuse_jax.models.clip import VisionTower
from langfuse_jax.models.fusion import FusionNet, fresh_params
from langfuse_jax.models.vgg import VGG19
from langfuse_jax.runtime.topology import Chip, Topology
from langfuse_jax.training.fusion import (
    batch_shapes,
    check_config,
    clip_dtype,
    frozen_tower,
    make_loss,
    make_optimizer,
    make_recipe,
    network,
    runs_stacked,
    sample_flops,
    step_maker,
)
from langfuse_jax.training.hlo import Collective, bytes_accessed, collectives
from langfuse_jax.training.objective import Frozen
from langfuse_jax.training.parallel import check_division, compile_step, data_mesh, divided_optimizer
from langfuse_jax.training.speed import PEAK_TFLOPS
from langfuse_jax.training.step import init_state

# What a step that does not fit is tried with, in turn; the first are the cheapest.
REMEDIES: tuple[Mapping[str, Any], ...] = (
    {"memory.clip_chunk": 8},
    {"memory.remat": True},
    {"memory.clip_chunk": 4, "memory.remat": True},
    {"memory.accumulate": 2, "memory.clip_chunk": 4, "memory.remat": True},
    {"memory.accumulate": 4, "memory.clip_chunk": 4, "memory.remat": True},
)
_RESERVED = 0.06  # of a chip's memory, that its runtime keeps


class Plan(NamedTuple):
    """What a compiled step takes on each device.

    Attributes:
        chips: devices.
        flops: of the loss and its gradient by XLA's count before it is compiled, of one device's share of the batch.
        bytes_accessed: between memory and the arithmetic, see `hlo.bytes_accessed`.
        hbm_traffic: those of them that are in HBM; the others stay in the chip's own memory.
        argument_bytes: parameters, optimizer, what is frozen, and the batch.
        temp_bytes: what is computed on the way.
        peak_bytes: all that is allocated.
        hbm_bytes: memory of a chip; None for CPUs.
        fits: whether the peak does; None for CPUs.
        compile_seconds: here.
        collectives: every exchange between devices.
        step_seconds_bound: the longest of arithmetic, memory and exchange at the chip's full speed; None for CPUs.
        mfu_bound: share of the chip's arithmetic that the step can use at most; None for CPUs.
    """

    chips: int
    flops: float
    bytes_accessed: float
    hbm_traffic: float
    argument_bytes: int
    temp_bytes: int
    peak_bytes: int
    hbm_bytes: float | None
    fits: bool | None
    compile_seconds: float
    collectives: list[Collective]
    step_seconds_bound: float | None
    mfu_bound: float | None

    def as_dict(self) -> dict[str, Any]:
        """What --json writes: collectives as counts and bytes by their kinds."""
        kinds: dict[str, dict[str, int]] = {}
        for one in self.collectives:
            found = kinds.setdefault(one.kind, {"count": 0, "bytes": 0})
            found["count"] += 1
            found["bytes"] += one.bytes
        return {**self._asdict(), "collectives": kinds}


class TooLarge(UserError):
    """A step for which the compiler finds no way to fit a chip's memory."""


def plan_training(config: ConfigDict, topology: Topology) -> Plan:
    """The step that `train` would run with `config` on these devices, compiled from shapes alone.

    No weights and no data are read: the architecture of the CLIP is that of its name or folder, VGG19's is known. All
    parameters count as trained, also those that a lossless start would leave alone.
    Raises UserError for what `train` would refuse, and TooLarge where the compiler itself runs out of memory.

    Example::

        plan = plan_training(load_config("tpu_pod", command="train"), find_topology("v5e:4x8"))
        plan.peak_bytes, plan.fits
    """
    check_config(config)
    if config.parallel.mode != "jit":
        raise UserError(f"config.parallel.mode: {config.parallel.mode!r} cannot be planned; use 'jit'")
    count = len(topology.devices)
    check_division(config.batch_size, config.memory.accumulate, count)
    dtype, stacked = clip_dtype(config, topology.platform), runs_stacked(topology.platform)
    vision = vision_tower(config.clip).clone(dtype=dtype)
    frozen, counted = (_frozen(vision, dtype, stacked=s, vgg=bool(config.vgg)) for s in (stacked, False))
    params = jax.eval_shape(partial(fresh_params, FusionNet()), jax.random.key(0))
    optimizer = make_optimizer(config, lambda step: 1e-4, None)
    state = jax.eval_shape(partial(init_state, optimizer=optimizer, average=config.optimizer.ema > 0), params)
    mesh = data_mesh(topology.devices)
    shardings = divided_optimizer(state, mesh) if config.parallel.shard_optimizer else None
    net = network(config, topology.platform)
    loss = make_loss(net, vision.clone(stacked=stacked), make_recipe(config))
    step = compile_step(step_maker(config, loss, optimizer), "jit", mesh, shardings)
    key = jax.eval_shape(lambda: jax.random.key(0))
    start = time.perf_counter()
    lowered = step.trace(state, batch_shapes(config, config.batch_size), key, frozen).lower(
        lowering_platforms=(topology.platform,)
    )
    try:
        compiled = lowered.compile()
    except Exception as error:  # of the runtime; only its text tells why
        if "RESOURCE_EXHAUSTED" in str(error):
            raise TooLarge(f"the step does not fit ({reason(error)})") from error
        raise
    seconds = time.perf_counter() - start
    flops = sample_flops(config, vision, params, counted, platform=topology.platform)
    if flops is None:
        raise UserError("JAX_PLATFORMS: does not name cpu, which counts FLOPs; add it")
    return describe(compiled, topology, flops * config.batch_size / count, seconds)


def find_remedy(
    config: ConfigDict, topology: Topology, report: Callable[[Mapping[str, Any]], object] = lambda changes: None
) -> tuple[Mapping[str, Any], Plan] | None:
    """The first of REMEDIES with which the step fits, and its plan; None if none does. `report` hears of each.

    Example::

        find_remedy(config, find_topology("v5e:2x2"), report=print)
    """
    count = len(topology.devices)
    for changes in REMEDIES:
        changed = ConfigDict(config)
        changed.update_from_flattened_dict(changes)
        if changed.batch_size % (count * changed.memory.accumulate):
            continue
        report(changes)
        try:
            plan = plan_training(changed, topology)
        except TooLarge:
            continue
        if plan.fits:
            return changes, plan
    return None


def _frozen(vision: VisionTower, dtype: str, *, stacked: bool, vgg: bool) -> Frozen:
    """The shapes of what a step only reads."""

    def parameters(module: Any, channels: int, side: int) -> PyTree:
        image = jnp.zeros((1, side, side, channels))
        return jax.eval_shape(lambda key: module.init(key, image)["params"], jax.random.key(0))

    clip = jax.eval_shape(partial(frozen_tower, dtype=dtype, stacked=stacked), parameters(vision, 3, vision.image_size))
    words = Words(*(jnp.zeros(vision.embedding) for _ in range(3)))
    if not vgg:
        return Frozen(clip, words, None)
    features = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, dtype), parameters(VGG19(), 1, 32))
    return Frozen(clip, words, features)


def describe(compiled: Any, topology: Topology, flops: float, seconds: float) -> Plan:
    """What a program that was compiled for `topology`, in so many seconds, takes; its FLOPs are given."""
    memory, text = compiled.memory_analysis(), compiled.as_text()
    found, moved = collectives(text), bytes_accessed(text, on_chip=False)
    # XLA's own peak leaves out what its heap cannot use; what is allocated is the larger.
    allocated = memory.argument_size_in_bytes + memory.output_size_in_bytes + memory.temp_size_in_bytes
    peak = max(int(getattr(memory, "peak_memory_in_bytes", 0)), allocated - memory.alias_size_in_bytes)
    chip, fits, bound, mfu = topology.chip, None, None, None
    if chip is not None:
        fits = bool(peak <= (1 - _RESERVED) * chip.hbm_bytes)
        arithmetic = flops / (1e12 * PEAK_TFLOPS[chip.kind])
        bound = max(arithmetic, moved / chip.hbm_bandwidth, _seconds(found, chip))
        mfu = arithmetic / bound
    return Plan(
        chips=len(topology.devices),
        flops=flops,
        bytes_accessed=bytes_accessed(text),
        hbm_traffic=moved,
        argument_bytes=memory.argument_size_in_bytes,
        temp_bytes=memory.temp_size_in_bytes,
        peak_bytes=peak,
        hbm_bytes=None if chip is None else chip.hbm_bytes,
        fits=fits,
        compile_seconds=seconds,
        collectives=found,
        step_seconds_bound=bound,
        mfu_bound=mfu,
    )


def _seconds(found: list[Collective], chip: Chip) -> float:
    """What the exchanges take at the links' full speed: an all-reduce passes its bytes twice round a ring."""
    return sum(one.bytes * (2 if one.kind == "all-reduce" else 1) for one in found) / chip.link_bandwidth
