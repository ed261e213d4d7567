"""Where the time of one 480x640 fusion goes on the CPU, layer by layer: `python benchmarks/account.py`.

Each row is one kind of layer alone, with its pads and its bias, in the forms that the forward direction takes: how many
of it the network has, the arithmetic of all of them by the definition of a convolution, the time of all of them with
the library's convolutions and with ours, and the time that arithmetic takes as one large matrix product on the same
machine (float32). Times are processor time over cores, medians of calls in turns: other work on the machine hardly
counts, but cores that wait for each other do not count either.
"""

import argparse
import os
import time
from functools import partial
from unittest import mock

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from langfuse_jax.models import convolution, layers
from langfuse_jax.models.fusion import FusionNet
from langfuse_jax.models.layers import Conv, ConvTranspose, LayerNorm, instance_norm

H, W = 480, 640
CORES = len(os.sched_getaffinity(0))


class Norm(nn.Module):
    def __call__(self, x):
        return nn.relu(instance_norm(x))


class NormOfLayer(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.relu(LayerNorm()(x))


# name: (how many, module, height, width and channels of the input).
LAYERS = {
    "stems of a source, 7x7 1->16 twice": (2, Conv(32, 7, reflect=3), (480, 640, 1)),
    "4x4 stride 2, 16->32": (4, Conv(32, 4, stride=2, zeros=1), (480, 640, 16)),
    "4x4 stride 2, 32->64": (4, Conv(64, 4, stride=2, zeros=1), (240, 320, 32)),
    "4x4 stride 2, 64->128": (2, Conv(128, 4, stride=2, zeros=1), (120, 160, 64)),
    "4x4 stride 2, 64->64": (2, Conv(64, 4, stride=2, zeros=1), (120, 160, 64)),
    "3x3 128->128": (8, Conv(128, 3, reflect=1), (60, 80, 128)),
    "3x3 256->256": (4, Conv(256, 3, reflect=1), (60, 80, 256)),
    "transposed 5x5 256->128": (1, ConvTranspose(128, 5), (60, 80, 256)),
    "transposed 5x5 128->64": (1, ConvTranspose(64, 5), (123, 163, 128)),
    "transposed 5x5 64->32": (1, ConvTranspose(32, 5), (249, 329, 64)),
    "7x7 32->1": (1, Conv(1, 7, reflect=3), (480, 640, 32)),
    "instance norm, ReLU: 480x640x16": (2, Norm(), (480, 640, 16)),
    "instance norm, ReLU: 240x320x32": (2, Norm(), (240, 320, 32)),
    "instance norm, ReLU: 120x160x64": (2, Norm(), (120, 160, 64)),
    "instance norm, ReLU: 60x80x128": (10, Norm(), (60, 80, 128)),
    "instance norm, ReLU: 60x80x256": (4, Norm(), (60, 80, 256)),
    "layer norm, ReLU: 123x163x128": (1, NormOfLayer(), (123, 163, 128)),
    "layer norm, ReLU: 249x329x64": (1, NormOfLayer(), (249, 329, 64)),
    "layer norm, ReLU: 501x661x32": (1, NormOfLayer(), (501, 661, 32)),
}


def gigaflops(module, shape):
    """Products and sums of a convolution by its definition; norms count as none."""
    h, w, c = shape
    if isinstance(module, Conv):
        return 2e-9 * module.size**2 * c * module.features * (h // module.stride) * (w // module.stride)
    return 2e-9 * module.size**2 * c * module.features * h * w if isinstance(module, ConvTranspose) else 0.0


def compiled(module, library, *args):
    if not library:
        return jax.jit(module.apply).lower(*args).compile()
    with (
        mock.patch.object(layers, "conv", convolution.library_conv),
        mock.patch.object(layers, "conv_transpose", convolution.library_conv_transpose),
    ):
        # A new function, so that tracing happens anew under the patch.
        return jax.jit(lambda *args: module.apply(*args)).lower(*args).compile()


def medians(functions, rounds):
    """Milliseconds of processor time over cores of each function, called in turns."""
    times = [[] for _ in functions]
    for turn in range(rounds + 1):
        for function, seconds in zip(functions, times, strict=True):
            start = time.process_time()
            jax.block_until_ready(function())
            if turn:
                seconds.append(time.process_time() - start)
    return [1e3 / CORES * np.median(seconds) for seconds in times]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    normal = partial(np.random.default_rng(0).normal)
    square = jnp.asarray(normal(size=(2048, 2048)), jnp.float32)
    product = jax.jit(jnp.matmul).lower(square, square).compile()
    rate = 2e-9 * 2048**3 / medians([lambda: product(square, square)], rounds)[0]  # GFLOP a millisecond
    print(f"jax {jax.__version__}, {jax.default_backend()}, {CORES} cores, matrix product {1e3 * rate:.0f} GFLOP/s\n")
    print("| layer | number | GFLOP | library, ms | ours, ms | as a matrix product, ms |\n|---|---|---|---|---|---|")
    sums = np.zeros(4)
    for name, (number, module, shape) in LAYERS.items():
        x = jnp.asarray(normal(size=(1, *shape)), jnp.float32)
        params = module.init(jax.random.key(0), x)
        programs = [compiled(module, library, params, x) for library in (True, False)]
        library, ours = medians([partial(program, params, x) for program in programs], rounds)
        work = gigaflops(module, shape)
        row = number * np.array([work, library, ours, work / rate])
        sums += row
        print(f"| {name} | {number} | {row[0]:.1f} | " + " | ".join(f"{ms:.1f}" for ms in row[1:]) + " |", flush=True)
    print("| sum | | " + " | ".join(f"{value:.1f}" for value in sums) + " |")
    pair = [jnp.asarray(normal(size=(1, H, W, 1)), jnp.float32) for _ in range(2)]
    params = jax.jit(FusionNet().init)(jax.random.key(0), *[image[:, :32, :32] for image in pair])
    whole = [compiled(FusionNet(), library, params, *pair) for library in (True, False)]
    library, ours = medians([partial(program, params, *pair) for program in whole], rounds)
    print(f"| the whole network | | | {library:.1f} | {ours:.1f} | |")


if __name__ == "__main__":
    main()
