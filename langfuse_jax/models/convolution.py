"""Convolutions of the fusion network."""

import jax
from jaxtyping import Array, Float

DIMENSIONS = ("NHWC", "HWIO", "NHWC")


def conv(
    x: Float[Array, "b h w c"], kernel: Float[Array, "k k c d"], stride: int = 1, padding: int = 0
) -> Float[Array, "b h2 w2 d"]:
    """Convolution (no bias) of `x`, zero-padded by `padding` on every side."""
    return jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), [(padding, padding)] * 2, dimension_numbers=DIMENSIONS
    )


def conv_transpose(x: Float[Array, "b h w c"], kernel: Float[Array, "k k c d"]) -> Float[Array, "b h2 w2 d"]:
    """Transposed convolution, stride 2: out[2i + a, 2j + b] sums x[i, j] @ kernel[a, b]."""
    size = kernel.shape[0]
    return jax.lax.conv_general_dilated(
        x,
        kernel[::-1, ::-1],
        (1, 1),
        [(size - 1, size - 1)] * 2,
        lhs_dilation=(2, 2),
        dimension_numbers=DIMENSIONS,
    )
