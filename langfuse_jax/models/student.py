"""The student: a small network of local operations that imitates the fusion network in real time.

It works at a half and a quarter of the resolution, with a glance at a sixteenth, and mixes the sources' own pixels, so
that nothing has to be redrawn. There are no global statistics: a fused pixel depends on the sources within `REACH`
pixels, and images can be fused in tiles, exactly.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from langfuse_jax.models.clamp import clamp_to_unit
from langfuse_jax.models.layers import Conv, Sizes, zero_outside

TILE_MULTIPLE = 16  # pixels; tiles start at multiples of it
REACH = 112  # pixels; a multiple of TILE_MULTIPLE

_HALF, _QUARTER, _CONTEXT = 16, 32, 32  # channels


class StudentNet(nn.Module):
    """`StudentNet().apply(params, visible, infrared)`: fused luminance in [0, 1], of the shape of its inputs.

    Arguments and canvases as in `FusionNet`: (b, h, w, 1) floats in [0, 1], and `sizes` (b, 2) for samples smaller than
    the map. Any h and w will do: the last row and column are repeated up to multiples of `TILE_MULTIPLE`.

    >>> import jax
    >>> image = jax.ShapeDtypeStruct((1, 48, 64, 1), jnp.float32)
    >>> fused, params = jax.eval_shape(StudentNet().init_with_output, jax.random.key(0), image, image)
    >>> fused.shape, sum(leaf.size for leaf in jax.tree.leaves(params))
    ((1, 48, 64, 1), 56716)
    """

    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, visible: Float[Array, "b h w 1"], infrared: Float[Array, "b h w 1"], sizes: Sizes = None
    ) -> Float[Array, "b h w 1"]:
        h, w = visible.shape[1:3]
        cells = None if sizes is None else -(-sizes // TILE_MULTIPLE)

        def inside(x: Float[Array, "b h w c"], per_cell: int) -> Float[Array, "b h w c"]:
            return zero_outside(x, None if cells is None else cells * per_cell)

        # Four channels of each source, its pixels in blocks of 2 x 2.
        visible, infrared = (inside(space_to_depth(repeat_edges(x, sizes)), 8) for x in (visible, infrared))

        def conv(name: str, x: Float[Array, "b h w c"], features: int, size: int = 3) -> Float[Array, "b h w d"]:
            zeros = (size - 1) // 2
            layer = Conv(
                features, size, zeros=zeros, dtype=self.dtype, kernel_init=nn.initializers.he_normal(), name=name
            )
            return layer(x)

        def relu(x: Float[Array, "b h w c"], per_cell: int) -> Float[Array, "b h w c"]:
            return inside(nn.relu(x), per_cell)

        half = relu(conv("half_0", jnp.concatenate([visible, infrared], -1), _HALF), 8)
        quarter = relu(conv("quarter_0", space_to_depth(half), _QUARTER, 1), 4)
        context = relu(conv("context_0", _shrink(quarter), _CONTEXT), 1)
        context = relu(conv("context_1", context, _CONTEXT), 1)
        context = relu(conv("context_2", context, _CONTEXT), 1)
        context = inside(conv("context_3", context, _QUARTER, 1), 1)
        quarter = relu(quarter + _enlarge(context), 4)
        quarter = relu(conv("quarter_1", quarter, _QUARTER), 4)
        quarter = relu(conv("quarter_2", quarter, _QUARTER), 4)
        half = relu(half + depth_to_space(conv("quarter_3", quarter, 4 * _HALF, 1)), 8)
        half = relu(conv("half_1", half, _HALF), 8)
        # Of every pixel: how much of each source, and what else. It starts from something near the average.
        mix = 0.1 * conv("mix", half, 12).astype(jnp.float32)
        fused = (0.5 + mix[..., :4]) * visible + (0.5 + mix[..., 4:8]) * infrared + mix[..., 8:]
        return zero_outside(depth_to_space(clamp_to_unit(fused))[:, :h, :w], sizes)


def repeat_edges(x: Float[Array, "b h w c"], sizes: Sizes) -> Float[Array, "b h2 w2 c"]:
    """`x` with the last row and column of each sample repeated beyond it, its sides filled up to `TILE_MULTIPLE`.

    >>> repeat_edges(jnp.arange(3.0).reshape(1, 1, 3, 1), None)[0, 0, :, 0].tolist()[:5]
    [0.0, 1.0, 2.0, 2.0, 2.0]
    """
    if sizes is not None:
        for axis in (1, 2):
            end = jnp.expand_dims(sizes[:, axis - 1], (1, 2, 3))
            edge = jnp.take_along_axis(x, end - 1, axis)
            place = jnp.expand_dims(jnp.arange(x.shape[axis]), (0, 2, 3) if axis == 1 else (0, 1, 3))
            x = jnp.where(place < end, x, edge)
    return jnp.pad(x, ((0, 0), *((0, -side % TILE_MULTIPLE) for side in x.shape[1:3]), (0, 0)), mode="edge")


def space_to_depth(x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 d"]:
    """Blocks of 2 x 2 pixels as 4 c channels.

    >>> space_to_depth(jnp.arange(4.0).reshape(1, 2, 2, 1)).reshape(-1).tolist()
    [0.0, 1.0, 2.0, 3.0]
    """
    b, h, w, c = x.shape
    return x.reshape(b, h // 2, 2, w // 2, 2, c).swapaxes(2, 3).reshape(b, h // 2, w // 2, 4 * c)


def depth_to_space(x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 d"]:
    """The inverse of `space_to_depth`.

    >>> depth_to_space(jnp.arange(4.0).reshape(1, 1, 1, 4))[0, :, :, 0].tolist()
    [[0.0, 1.0], [2.0, 3.0]]
    """
    b, h, w, c = x.shape
    return x.reshape(b, h, w, 2, 2, c // 4).swapaxes(2, 3).reshape(b, 2 * h, 2 * w, c // 4)


def _shrink(x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c"]:
    """Means of 4 x 4 pixels."""
    b, h, w, c = x.shape
    return x.reshape(b, h // 4, 4, w // 4, 4, c).mean((2, 4))


def _enlarge(x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c"]:
    """Four times as many rows and columns, linearly interpolated, zero beyond the edges."""
    for axis in (1, 2):
        n = x.shape[axis]
        padded = jnp.pad(x, [(1, 1) if a == axis else (0, 0) for a in range(4)])
        before, after = (jax.lax.slice_in_dim(padded, start, start + n, axis=axis) for start in (0, 2))
        neighbours = ((before, 0.375), (before, 0.125), (after, 0.125), (after, 0.375))
        parts = [x + weight * (neighbour - x) for neighbour, weight in neighbours]
        x = jnp.stack(parts, axis + 1).reshape(*x.shape[:axis], 4 * n, *x.shape[axis + 1 :])
    return x
