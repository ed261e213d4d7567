"""Winograd's minimal filtering (Lavin & Gray, arXiv 1509.09308), for the forward direction on CPUs.

Four outputs of a three-tap filter take six products, F(4, 3): y = A^T [(G k) * (B^T x)] for six neighbouring inputs x.
In one direction that halves the products of a convolution, in both it leaves a quarter of them. The matrices are
those of the points 0, 1, -1, 2, -2 and infinity; float32 keeps five to six digits.
"""

from collections.abc import Sequence
from functools import reduce
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Num

Side = Any  # a whole number, or symbolic in an export

B_T = np.array(
    [
        [4, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1],
    ]
)
G = np.array(
    [
        [1 / 4, 0, 0],
        [-1 / 6, -1 / 6, -1 / 6],
        [-1 / 6, 1 / 6, -1 / 6],
        [1 / 24, 1 / 12, 1 / 6],
        [1 / 24, -1 / 12, 1 / 6],
        [0, 0, 1],
    ],
    np.float32,
)
A_T = np.array([[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]])


def winograd_conv(x: Float[Array, "b h w c"], kernel: Float[Array, "3 3 c d"]) -> Float[Array, "b h2 w2 d"]:
    """3x3 convolution, stride 1, no padding, in tiles of 4x4 outputs: F(4x4, 3x3) as 36 matrix products."""
    b, h, w, c = x.shape
    d = kernel.shape[3]
    rows, columns = -(-(h - 2) // 4), -(-(w - 2) // 4)
    x = _zero_pad(x, (0, 4 * rows + 2 - h), (0, 4 * columns + 2 - w))
    # The barriers keep XLA from computing the first direction anew for each term of the second.
    tall = lax.optimization_barrier(jnp.stack(_combine(B_T, _every_fourth(x, rows, axis=1))))
    tiles = jnp.stack(_combine(B_T, _every_fourth(tall, columns, axis=3)), 1)
    weights = (np.kron(G, G) @ kernel.reshape(9, -1)).reshape(36, c, d)
    products = (tiles.reshape(36, -1, c) @ weights).reshape(6, 6, b, rows, columns, d)
    tall = lax.optimization_barrier(jnp.stack(_combine(A_T, products)))
    y = jnp.stack(_combine(A_T, tall.swapaxes(0, 1)))  # column in the tile, row in the tile, b, tiles, d
    y = y.transpose(2, 3, 1, 4, 0, 5).reshape(b, 4 * rows, 4 * columns, d)
    return y[:, : h - 2, : w - 2]


def winograd_conv_transpose(x: Float[Array, "b h w c"], kernel: Float[Array, "5 5 c d"]) -> Float[Array, "b h2 w2 d"]:
    """Transposed 5x5 convolution, stride 2: the four parities of its output are 3x3 convolutions of `x`.

    F(4, 3) over the rows, the library's convolution over the columns.
    """
    b, h, w, c = x.shape
    d = kernel.shape[3]
    rows, columns = -(-(h + 2) // 4), w + 2
    x = _zero_pad(x, (2, 4 * rows - h), (2, 2))
    bands = _combine(B_T, _every_fourth(x, rows, axis=1))
    # Tap p of 3 and parity q of 2 are row 4 - 2 p + q of the kernel: 6 rows, of which the last is zero.
    weights = jnp.pad(kernel, ((0, 1), (0, 1), (0, 0), (0, 0))).reshape(3, 2, 3, 2, c, d)
    weights = weights[::-1, :, ::-1].transpose(0, 2, 4, 1, 3, 5)  # row tap, column tap, c, row and column parity, d
    weights = (jnp.asarray(G) @ weights.reshape(3, -1)).reshape(6, 1, 3, c, 4 * d)
    products = [
        # A row and a column of zeros more than needed: the fast path of XLA:CPU is for padded convolutions.
        lax.conv_general_dilated(band, weight, (1, 1), ((0, 1), (0, 1)), dimension_numbers=("NHWC", "HWIO", "NHWC"))[
            :, :rows, :columns
        ]
        for band, weight in zip(bands, weights, strict=True)
    ]
    even, odd = (_combine(A_T, [product[..., i : i + 2 * d] for product in products]) for i in (0, 2 * d))
    y = jnp.stack([row for pair in zip(even, odd, strict=True) for row in pair], 2)  # b, rows, 8, columns, 2 d
    return y.reshape(b, 8 * rows, 2 * columns, d)[:, : 2 * h + 3, : 2 * w + 3]


def _zero_pad(
    x: Float[Array, "b h w c"], rows: tuple[Side, Side], columns: tuple[Side, Side]
) -> Float[Array, "b h2 w2 c"]:
    # lax, since jnp.pad asks whether a symbolic size is negative.
    return lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), (*rows, 0), (*columns, 0), (0, 0, 0)])


def _every_fourth(x: Array, count: Side, axis: int) -> list[Array]:
    """Six slices along `axis`: place i of every tile of six, which overlap by two."""
    return [lax.slice_in_dim(x, i, i + 4 * count - 3, 4, axis) for i in range(6)]


def _combine(matrix: Num[np.ndarray, "m n"], parts: Sequence[Array] | Array) -> list[Array]:
    """The rows of a small constant matrix times a list of arrays, zeros left out."""
    return [reduce(jnp.add, (float(a) * part for a, part in zip(row, parts, strict=True) if a)) for row in matrix]
