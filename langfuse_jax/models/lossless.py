"""Fusion parameters from which the network starts as a lossless code of both sources, instead of from noise.

Instance norms and rectifiers stand in the way of an identity, but not of a pair of channels with opposite signs:
relu(x) - relu(-x) = x, and a norm without parameters leaves what is normalised as it is. So each pixel of a source
travels as such a pair: three strided convolutions sort the pixels of 8 x 8 blocks into 64 pairs (128 channels, all
there are), and three transposed ones put them back. Channels that are left over start from noise and add nothing.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray, PyTree

from langfuse_jax.models.fusion import MIN_SIDE, FusionNet

_MEAN, _CONTRAST = 0.45, 0.08  # of the first fused images, before tanh
_MODULATED = 0.1  # what the decoder's residual blocks add at first, in units of what they add it to


def lossless_init(key: PRNGKeyArray) -> PyTree:
    """Parameters for `FusionNet().apply` whose first fused images are the sum of both sources, each standardised.

    Sharp from the first step: a training need not learn to draw, only what to take from which source.

    >>> image = jax.ShapeDtypeStruct((1, 64, 64, 1), jnp.float32)
    >>> jax.eval_shape(FusionNet().apply, lossless_init(jax.random.key(0)), image, image).shape
    (1, 64, 64, 1)
    """
    image = jnp.zeros((1, MIN_SIDE, MIN_SIDE, 1))
    init_key, noise_key = jax.random.split(key)
    params = jax.tree.map(np.array, jax.jit(FusionNet().init)(init_key, image, image))["params"]
    rng = np.random.default_rng(np.asarray(jax.random.key_data(noise_key)))
    for role in ("content_visible", "content_infrared"):
        _encoder(params[role], rng)
    _decoder(params["decoder"], rng)
    return jax.tree.map(jnp.asarray, {"params": params})


def _encoder(params, rng):
    kernel = _noise(params["stem"]["kernel"], rng)
    kernel[..., :2] = 0
    kernel[3, 3, 0, :2] = 1, -1
    for level, name in enumerate(("down_0", "down_1", "down_2")):
        kernel = _noise(params[name]["kernel"], rng)
        side = 2**level  # of a block of pixels that one place of the input holds
        kernel[..., : 8 * side * side] = 0
        for row, column in np.ndindex(2 * side, 2 * side):
            # Of the 4 x 4 taps the inner 2 x 2 are the places that the output's place stands for.
            tap = 1 + row // side, 1 + column // side
            source = (row % side) * side + column % side
            _join(kernel[tap], [source], row * 2 * side + column)
    for name in ("block_0", "block_1"):
        for conv in ("conv_0", "conv_1"):
            kernel = params[name][conv]["kernel"]
            kernel[:] = 0
            for pixel in range(64):
                _join(kernel[1, 1], [pixel], pixel)


def _decoder(params, rng):
    for name in ("block_0", "block_1"):
        for conv in ("conv_0", "conv_1"):
            _noise(params[name][conv]["kernel"], rng)
    modulation = params["mlp"]["dense_2"]
    modulation["kernel"] *= 0.1
    # Block, norm, (shift, scale), channel.
    modulation["bias"].reshape(2, 2, 2, 256)[:, :, 0] = 0
    modulation["bias"].reshape(2, 2, 2, 256)[:, 0, 1] = 1
    modulation["bias"].reshape(2, 2, 2, 256)[:, 1, 1] = _MODULATED
    for level, name in enumerate(("up_0", "up_1", "up_2")):
        kernel = _noise(params[name]["kernel"], rng)
        side = 4 >> level  # of a block of pixels that one place of the output holds
        kernel[..., : 4 * side * side] = 0
        for image, (row, column) in ((image, place) for image in (0, 1) for place in np.ndindex(2 * side, 2 * side)):
            tap = row // side, column // side
            source = (image * 2 * side + row) * 2 * side + column
            _join(kernel[tap], [source], (image * side + row % side) * side + column % side)
        params[f"up_norm_{level}"]["gamma"][:] = 1
    head = params["head"]
    head["kernel"][:] = 0
    head["kernel"][3, 3, :4, 0] = np.array([1, -1, 1, -1]) * _CONTRAST
    head["bias"][:] = _MEAN


def _join(matrix, sources, target):
    """Channels 2 target and 2 target + 1 become the sum of the pairs `sources` and its opposite."""
    for source in sources:
        matrix[2 * source : 2 * source + 2, 2 * target : 2 * target + 2] = [[1, -1], [-1, 1]]


def _noise(kernel, rng):
    """Fills a kernel, in place, with what keeps the variance through rectifiers (He et al., 2015)."""
    kernel[:] = rng.normal(0, np.sqrt(2 / np.prod(kernel.shape[:3])), kernel.shape)
    return kernel
