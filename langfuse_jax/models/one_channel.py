"""Convolutions of stride 1 from one channel, or to one, as matrix products with shifted copies of the one-channel map.

XLA's convolutions waste most of a processor's width on a single channel: on CPUs they run slowly, and TPU's compiler
takes minutes for one of them. Maps are padded beforehand.
"""

from functools import partial

import jax.numpy as jnp
from jaxtyping import Array, Float

_product = partial(jnp.einsum, precision="highest")


def from_one_channel(x: Float[Array, "b h w 1"], kernel: Float[Array, "k k 1 d"]) -> Float[Array, "b h2 w2 d"]:
    """The convolution of a gray map.

    >>> from_one_channel(jnp.ones((1, 3, 4, 1)), jnp.ones((3, 3, 1, 5)))[0, :, :, 0].tolist()
    [[9.0, 9.0]]
    """
    return _product("kbhw,kd->bhwd", _shifted(x[..., 0], len(kernel)), kernel.reshape(-1, kernel.shape[-1]))


def to_one_channel(x: Float[Array, "b h w c"], kernel: Float[Array, "k k c 1"]) -> Float[Array, "b h2 w2 1"]:
    """The convolution to one channel: a product gives the k*k terms of each pixel, summed where they fall.

    >>> to_one_channel(jnp.ones((1, 3, 4, 5)), jnp.ones((3, 3, 5, 1)))[0, :, :, 0].tolist()
    [[45.0, 45.0]]
    """
    size = len(kernel)
    b, h, w, c = x.shape
    terms = jnp.matmul(kernel.reshape(-1, c), x.reshape(-1, c).T, precision="highest").reshape(size, size, b, h, w)
    out_h, out_w = h - size + 1, w - size + 1
    shifted = (terms[p, q, :, p : p + out_h, q : q + out_w] for p in range(size) for q in range(size))
    return sum(shifted, jnp.zeros((), x.dtype))[..., None]


def kernel_gradient_from_one(x: Float[Array, "b h w 1"], g: Float[Array, "b h2 w2 d"]) -> Float[Array, "k k 1 d"]:
    """The gradient of `from_one_channel` for its kernel, `g` being that for its result."""
    size = x.shape[1] - g.shape[1] + 1
    gradient = _product("kbhw,bhwd->kd", _shifted(x[..., 0], size), g)
    return gradient.reshape(size, size, 1, g.shape[-1])


def kernel_gradient_to_one(x: Float[Array, "b h w c"], g: Float[Array, "b h2 w2 1"]) -> Float[Array, "k k c 1"]:
    """The gradient of `to_one_channel` for its kernel: shifted copies of `g` are c times smaller than windows of x."""
    _, h, w, c = x.shape
    size = h - g.shape[1] + 1
    g = jnp.pad(g[..., 0], ((0, 0), (size - 1, size - 1), (size - 1, size - 1)))
    shifts = [g[:, p : p + h, q : q + w] for p in range(size)[::-1] for q in range(size)[::-1]]
    product = jnp.matmul(jnp.stack(shifts).reshape(size * size, -1), x.reshape(-1, c), precision="highest")
    return product.reshape(size, size, c, 1)


def _shifted(x: Float[Array, "b h w"], size: int) -> Float[Array, "kk b h2 w2"]:
    """The pixels under each place of a kernel, row after row."""
    h, w = x.shape[1] - size + 1, x.shape[2] - size + 1
    return jnp.stack([x[:, p : p + h, q : q + w] for p in range(size) for q in range(size)])
