"""How fast a training run is: samples a second, the fraction of time that waits for input, memory, FLOP utilisation."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jaxtyping import PyTree

from langfuse_jax.training.step import LossFn, make_gradient

# Dense bfloat16 (V100, T4: float16) TFLOP/s of one device by what JAX calls it, from the makers' data sheets.
PEAK_TFLOPS = {
    "TPU v3": 61.5,
    "TPU v4": 275,
    "TPU v5 lite": 197,
    "TPU v5e": 197,
    "TPU v5": 459,
    "TPU v5p": 459,
    "TPU v6 lite": 918,
    "TPU v6e": 918,
    "NVIDIA H200": 989,
    "NVIDIA H100": 989,
    "NVIDIA A100": 312,
    "NVIDIA L4": 121,
    "Tesla V100": 125,
    "Tesla T4": 65,
}


def peak_flops(tflops: float = 0.0) -> float | None:
    """FLOP/s of all devices together: `tflops` each where given, else by the table; None for others, as CPUs are."""
    kind = jax.devices()[0].device_kind
    known = [name for name in PEAK_TFLOPS if kind == name or kind.startswith((f"{name}-", f"{name} "))]
    tflops = tflops or (PEAK_TFLOPS[max(known, key=len)] if known else 0.0)
    return 1e12 * tflops * jax.device_count() if tflops else None


def gradient_flops(
    loss_fn: LossFn, params: PyTree, batch: PyTree, frozen: PyTree, platform: str | None = None
) -> float | None:
    """FLOPs that a loss and its gradient need for a batch, given by its arrays' shapes, see `count_flops`."""
    return count_flops(make_gradient(loss_fn), params, batch, jax.random.key(0), frozen, platform=platform)


def count_flops(function: Callable, *arguments: PyTree, platform: str | None = None) -> float | None:
    """FLOPs of a call by XLA's count of the program for `platform`, by default JAX's; shapes suffice as arguments.

    XLA counts the body of a loop once, so there should be none. None where JAX has no CPU backend: those of
    accelerators do not count.

    >>> import jax.numpy as jnp
    >>> count_flops(jnp.dot, *2 * [jax.ShapeDtypeStruct((8, 8), jnp.float32)])
    1024.0
    """
    try:
        counter = jax.sharding.SingleDeviceSharding(jax.local_devices(backend="cpu")[0])
    except RuntimeError:
        return None
    shapes = jax.eval_shape(lambda *arguments: arguments, *arguments)
    traced = jax.jit(function, in_shardings=counter).trace(*shapes)
    cost: Any = traced.lower(lowering_platforms=(platform or jax.default_backend(),)).cost_analysis()
    return cost["flops"] if cost else None


class Speed:
    """Measures from one reading to the next; the first, which has compiling in it, says nothing.

    Args:
        batch_size: samples of a step.
        flops: of a step, or None.
        peak: FLOP/s of all devices, or None.
    """

    def __init__(self, batch_size: int, flops: float | None = None, peak: float | None = None):
        self._batch_size, self._utilisation = batch_size, flops / peak if flops and peak else None
        self._since: float | None = None
        self._steps, self._waited = 0, 0.0

    def waiting(self, iterator: Iterator) -> Iterator:
        """`iterator`, with the time it takes counted as waiting for input."""
        while True:
            start = time.perf_counter()
            batch = next(iterator)
            self._waited += time.perf_counter() - start
            self._steps += 1
            yield batch

    def read(self) -> dict[str, float]:
        """samples_per_second, input_wait (fraction of the time), mfu and device_memory_gib (peak), as far as known."""
        now = time.perf_counter()
        since, steps, waited = self._since, self._steps, self._waited
        self._since, self._steps, self._waited = now, 0, 0.0
        values = {}
        if since is not None and steps:
            values["samples_per_second"] = steps * self._batch_size / (now - since)
            values["input_wait"] = waited / (now - since)
            if self._utilisation:
                values["mfu"] = self._utilisation * steps / (now - since)
        if memory := (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use"):
            values["device_memory_gib"] = memory / 2**30
        return values
