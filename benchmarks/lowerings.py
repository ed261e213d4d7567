"""Times of the fusion network's convolutions against the library's own: `python benchmarks/lowerings.py`.

Each row is value and both gradients of one layer at the sizes of a 128-pixel crop, batch 4, float32; then the whole
network, with the layers swapped for the library's. Ours and the library's take turns; the median is printed (ms).
"""

import os
import statistics
import time
from unittest import mock

import flax
import jax
import jax.numpy as jnp
import numpy as np

from langfuse_jax.models import convolution, layers
from langfuse_jax.models.fusion import FusionNet

# name: (side, in, out, kernel, stride, zero padding, transposed).
LAYERS = {
    "7x7 1->16": (134, 1, 16, 7, 1, 0, False),
    "4x4 stride 2, 16->32": (128, 16, 32, 4, 2, 1, False),
    "4x4 stride 2, 32->64": (64, 32, 64, 4, 2, 1, False),
    "4x4 stride 2, 64->128": (32, 64, 128, 4, 2, 1, False),
    "3x3 128->128": (18, 128, 128, 3, 1, 0, False),
    "3x3 256->256": (18, 256, 256, 3, 1, 0, False),
    "transposed 5x5 256->128": (16, 256, 128, 5, 2, 0, True),
    "transposed 5x5 128->64": (35, 128, 64, 5, 2, 0, True),
    "transposed 5x5 64->32": (73, 64, 32, 5, 2, 0, True),
    "7x7 32->1": (155, 32, 1, 7, 1, 0, False),
}


def interleaved(ours, library, *args, rounds):
    """Median milliseconds of the two functions, called in turns after one warm-up each."""
    times = ([], [])
    for turn in range(rounds + 1):
        for function, seconds in zip((ours, library), times, strict=True):
            start = time.perf_counter()
            jax.block_until_ready(function(*args))
            if turn:
                seconds.append(time.perf_counter() - start)
    return [1e3 * statistics.median(seconds) for seconds in times]


def with_gradients(function):
    def run(x, kernel, cotangent):
        y, pullback = jax.vjp(function, x, kernel)
        return y, pullback(cotangent)

    return jax.jit(run)


def layer_times(side, c, d, size, stride, padding, transposed):
    rng = np.random.default_rng(0)

    def ours(x, kernel):
        return layers.conv_transpose(x, kernel) if transposed else layers.conv(x, kernel, stride, padding)

    def library(x, kernel):
        if transposed:
            return convolution.library_conv_transpose(x, kernel)
        return convolution.library_conv(x, kernel, stride, padding)

    x = jnp.asarray(rng.normal(size=(4, side, side, c)), jnp.float32)
    kernel = jnp.asarray(rng.normal(size=(size, size, c, d)), jnp.float32)
    cotangent = jax.jit(ours)(x, kernel)
    forward = interleaved(jax.jit(ours), jax.jit(library), x, kernel, rounds=7)
    whole = interleaved(with_gradients(ours), with_gradients(library), x, kernel, cotangent, rounds=5)
    return forward + whole


def network_times(shape, gradient, rounds):
    rng = np.random.default_rng(0)
    visible, infrared = (jnp.asarray(rng.random(shape), jnp.float32) for _ in range(2))
    params = FusionNet().init(jax.random.key(0), visible[:1, :32, :32], infrared[:1, :32, :32])

    def compiled():
        # A new function each time, so that tracing happens anew under the patch.
        def loss(params):
            return jnp.mean(jnp.square(FusionNet().apply(params, visible, infrared) - infrared))

        start = time.perf_counter()
        program = jax.jit(jax.grad(loss) if gradient else loss).lower(params).compile()
        return program, time.perf_counter() - start

    ours, ours_seconds = compiled()
    with (
        mock.patch.object(layers, "conv", convolution.library_conv),
        mock.patch.object(layers, "conv_transpose", convolution.library_conv_transpose),
    ):
        library, library_seconds = compiled()
    memory = [program.memory_analysis().temp_size_in_bytes / 2**20 for program in (ours, library)]
    return interleaved(ours, library, params, rounds=rounds), (ours_seconds, library_seconds), memory


def main():
    print(f"jax {jax.__version__}, flax {flax.__version__}, {jax.default_backend()}, {os.cpu_count()} cores, ms\n")
    print("| layer | ours | library | with gradients: ours | library |\n|---|---|---|---|---|")
    for name, layer in LAYERS.items():
        print(f"| {name} | " + " | ".join(f"{ms:.1f}" for ms in layer_times(*layer)) + " |", flush=True)
    print("\n| network | ours | library | compile s | temporary MiB |\n|---|---|---|---|---|")
    for name, shape, gradient, rounds in (
        ("gradient, batch 4 of 128x128", (4, 128, 128, 1), True, 3),
        ("forward, 480x640", (1, 480, 640, 1), False, 5),
        ("forward, 768x1024", (1, 768, 1024, 1), False, 3),
    ):
        (ours, library), seconds, memory = network_times(shape, gradient, rounds)
        print(
            f"| {name} | {ours:.0f} | {library:.0f} | {seconds[0]:.1f} / {seconds[1]:.1f} "
            f"| {memory[0]:.0f} / {memory[1]:.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
