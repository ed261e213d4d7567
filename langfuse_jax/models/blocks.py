"""The fusion network's layers of few channels, on maps whose pixels lie in blocks of 2x2.

TPU keeps channels in tiles of 128, so that a map of 16 takes eight times its size. As blocks, each of its 2x2 pixels'
channels one after the other (row, column, channel), it has four times the channels and a quarter of the places.
Block (i, j) holds rows 2i - 1 and 2i and columns 2j - 1 and 2j: what a convolution of 4x4, stride 2, padded by 1, sees
are 2x2 whole blocks. Row and column -1, and those beyond the image, are outside.
"""

from collections.abc import Mapping
from functools import partial, reduce

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Shaped

from langfuse_jax.models.convolution import from_blocks, library_conv, to_blocks, zero_pad
from langfuse_jax.models.layers import Sizes, in_full, moments_about, some_pixels

Blocks = Float[Array, "b i j c4"]
_product = partial(jnp.einsum, precision="highest")


def within(blocks: Blocks, sizes: Sizes, shape: tuple[int, ...]) -> Bool[Array | np.ndarray, "_ i j c4"]:
    """What of `blocks` belongs to images of `shape`, or of their own `sizes`; broadcasts against them."""
    channel = np.arange(blocks.shape[3]) * 4 // blocks.shape[3]
    marks = []
    for axis, phase in ((1, channel // 2), (2, channel % 2)):
        place = 2 * np.arange(blocks.shape[axis])[:, None] + phase - 1
        end = np.full((1, 1, 1), shape[axis - 1]) if sizes is None else sizes[:, axis - 1, None, None]
        marks.append((place >= 0) & (place < end))
    rows, columns = marks
    return rows[..., :, None, :] & columns[..., None, :, :]


def repeated(channels: Shaped[Array | np.ndarray, " c"]) -> Shaped[Array, " c4"]:
    """Numbers of each channel, for all four pixels of a block."""
    return jnp.tile(channels, 4)


def moments(
    x: Blocks, inside: Bool[Array | np.ndarray, "_ i j c4"], sizes: Sizes, *, joint: bool = False
) -> tuple[Float[Array, "b 1 1 c4"], Float[Array, "b 1 1 c4"], Float[Array, "_ 1 1 c4"]]:
    """Mean and biased variance of each sample's channel `inside`, or of all its channels together (`joint`), repeated
    for each pixel of a block; and how many values they are of. In float32 or better, read in one pass.

    Sums are of differences from a few pixels' mean, as in `layers`: a mean far from zero costs no digits.
    """
    x = in_full(x)
    groups = x.shape[3] if joint else 4
    inside = jnp.asarray(inside)

    def over_group(sums: Float[Array, "b c4"]) -> Float[Array, "b 1 1 c4"]:
        parts = sums.reshape(len(sums), groups, -1).sum(1)
        return jnp.tile(parts, groups)[:, None, None]

    n = over_group(inside.sum((1, 2), dtype=x.dtype))
    # Of images of at least 32 pixels a side these blocks are all inside.
    some = some_pixels(jax.lax.stop_gradient(x), None if sizes is None else sizes // 2)
    pivot = over_group(some.mean((1, 2))) / groups
    difference = jnp.where(inside, x - pivot, 0.0)
    return *moments_about(pivot, difference, lambda x: over_group(x.sum((1, 2))), n), n


def instance_norm_of_half(x: Blocks, inside: Bool[Array | np.ndarray, "_ i j c4"], sizes: Sizes) -> Blocks:
    """`layers.instance_norm` of the first half of the channels, the other half as it is, and zero outside."""
    mean, variance, _ = moments(x, inside, sizes)
    normed = repeated(np.arange(x.shape[3] // 4) < x.shape[3] // 8)
    scale = jnp.where(normed, jax.lax.rsqrt(variance + 1e-5), 1.0)
    return jnp.where(inside, (x * scale - jnp.where(normed, mean * scale, 0.0)).astype(x.dtype), 0)


def layer_norm(
    x: Blocks, params: Mapping[str, Float[Array, "c"]], inside: Bool[Array | np.ndarray, "_ i j c4"], sizes: Sizes
) -> Blocks:
    """`layers.LayerNorm` with its parameters, zero outside."""
    mean, variance, n = moments(x, inside, sizes, joint=True)
    std = jnp.sqrt(jnp.maximum(variance * (n / (n - 1)), 1e-12))
    scale = repeated(params["gamma"]) / (std + 1e-5)
    return jnp.where(inside, (x * scale + (repeated(params["beta"]) - mean * scale)).astype(x.dtype), 0)


def stem(image: Float[Array, "b h6 w6 1"], kernel: Float[Array, "7 7 1 d"]) -> Blocks:
    """A convolution of 7x7 of a gray image that is padded by 3, in blocks; what is outside is not zero."""
    size = len(kernel)
    b, h, w, _ = image.shape
    # Blocks of the image, from row and column -1.
    i, j = ((n - size + 1) // 2 + 1 for n in (h, w))
    taps = (size + 1) // 2
    border = [(1, 2 * (n + taps - 1) - length - 1) for n, length in ((i, h), (j, w))]
    image = jnp.pad(image[..., 0], ((0, 0), *border)).reshape(b, i + taps - 1, 2, j + taps - 1, 2)
    phases = image.transpose(2, 4, 0, 1, 3)
    if b == 1:
        # TPU's compiler would fill its tiles with the batch, 127 of 128 places of which were empty.
        phases = phases[:, :, 0]
    places = [(p, q) for p in range(size + 1) for q in range(size + 1)]
    shifted = [phases[p % 2, q % 2][..., p // 2 : p // 2 + i, q // 2 : q // 2 + j] for p, q in places]
    matrix = _as_it_is(_of_phases(kernel[:, :, 0]).reshape(len(places), -1))
    made = _product("k...ij,kd->...ijd", jnp.stack(shifted), matrix)
    return made.reshape(b, i, j, -1)


def side_by_side(one: Float[Array, "k k c d"], other: Float[Array, "k k e f"]) -> Float[Array, "k k c+e d+f"]:
    """A kernel for two convolutions, each of channels of its own: what the one would take of the other's is 0."""
    one = jnp.pad(one, ((0, 0), (0, 0), (0, 0), (0, other.shape[3])))
    other = jnp.pad(other, ((0, 0), (0, 0), (0, 0), (one.shape[3] - other.shape[3], 0)))
    return jnp.concatenate([one, other], 2)


def down(x: Blocks, kernel: Float[Array, "4 4 c d"]) -> Float[Array, "b h w d"]:
    """A convolution of 4x4, stride 2, padded by 1, of blocks that are zero outside."""
    return library_conv(x, _as_it_is(from_blocks(kernel)))


def up(x: Float[Array, "b h w c"], kernel: Float[Array, "5 5 c d"]) -> Blocks:
    """`conv_transpose` of 5x5 in blocks; what is outside is not zero."""
    kernel = jnp.pad(kernel, ((1, 0), (1, 0), (0, 0), (0, 0)))
    return library_conv(zero_pad(x, 2), _as_it_is(to_blocks(kernel)))


def head(x: Blocks, kernel: Float[Array, "7 7 c 1"], shape: tuple[int, int]) -> Float[Array, "b h w 1"]:
    """A convolution of 7x7 to gray, of blocks reflected by 3 pixels above and on the left, cut to `shape`.

    Requires 3 more rows and columns than `shape` has, which stand for what would be reflected below and on the right.
    """
    x = _reflected(_reflected(x, 1), 2)
    size, c = len(kernel), kernel.shape[2]
    taps = (size + 1) // 2
    # What a pixel takes from 4x4 blocks, for each pixel of a block and each of theirs.
    matrix = _of_phases(kernel[..., 0]).reshape(taps, 2, taps, 2, 2, 2, c).transpose(0, 2, 4, 5, 1, 3, 6)
    b = len(x)
    i, j = (-(-n // 2) for n in shape)
    x = x[:, : i + taps - 1, : j + taps - 1]
    terms = _product("kc,bijc->kbij", _as_it_is(matrix.reshape(-1, 4 * c)), x).reshape(taps, taps, 4, *x.shape[:3])
    shifted = [terms[p, q, :, :, p : p + i, q : q + j] for p in range(taps) for q in range(taps)]
    image = reduce(jnp.add, shifted).reshape(2, 2, b, i, j).transpose(2, 3, 0, 4, 1).reshape(b, 2 * i, 2 * j)
    return image[:, : shape[0], : shape[1], None]


def _as_it_is(kernel: Float[Array, "*any"]) -> Float[Array, "*any"]:
    """The kernel, kept apart from the product with it: a TPU v4's compiler aborts where it merges such transposes."""
    return jax.lax.optimization_barrier(kernel)


def _of_phases(kernel: Float[Array, "7 7 c"]) -> Float[Array, "8 8 2 2 c"]:
    """The kernel as each pixel of a block has it, in the window of all four."""
    shifted = [jnp.pad(kernel, ((p, 1 - p), (q, 1 - q), (0, 0))) for p in range(2) for q in range(2)]
    return jnp.stack(shifted, 2).reshape(8, 8, 2, 2, -1)


def _reflected(x: Blocks, axis: int) -> Float[Array, "b i2 j2 c4"]:
    """Another block before the first, so that rows -3, -2 and -1 (or columns) are 3, 2 and 1."""
    channels = x.shape[3]
    first, second, third = (jax.lax.slice_in_dim(x, n, n + 1, axis=axis) for n in range(3))
    place = 3 + (axis == 2)

    def phases(block: Blocks) -> list[Float[Array, "..."]]:
        parts = block.reshape(*block.shape[:3], 2, 2, channels // 4)
        return [jax.lax.slice_in_dim(parts, n, n + 1, axis=place) for n in range(2)]

    def block(one: Float[Array, "..."], other: Float[Array, "..."]) -> Blocks:
        return jnp.concatenate([one, other], place).reshape(first.shape)

    (_, row_0), (row_1, row_2), (row_3, _) = phases(first), phases(second), phases(third)
    rest = jax.lax.slice_in_dim(x, 1, x.shape[axis], axis=axis)
    return jnp.concatenate([block(row_3, row_2), block(row_1, row_0), rest], axis)
