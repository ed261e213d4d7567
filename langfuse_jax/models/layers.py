"""Layers of the fusion network: convolutions, transposed convolutions, norms. Channels last, parameters float32.

A map may be a canvas: each sample fills the top-left corner of it, as high and wide as `sizes` (b, 2) says, and what
lies outside counts for nothing. Without `sizes` samples fill the map.
"""

from collections.abc import Callable, Sequence
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.nn.initializers import Initializer
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from langfuse_jax.models.convolution import conv, conv_transpose

Sizes = Int[Array, "b 2"] | None

kernel_init = nn.initializers.normal(0.02)


class Conv(nn.Module):
    """Convolution with a bias: (b, h, w, in) -> (b, h', w', features). `reflect` and `zeros` pad every side first.

    On a canvas `reflect` mirrors at each sample's edge; `zeros` requires a map that is zero outside the samples.
    """

    features: int
    size: int
    stride: int = 1
    reflect: int = 0
    zeros: int = 0
    dtype: DTypeLike = jnp.float32
    kernel_init: Initializer = kernel_init

    def __call__(self, x: Float[Array, "b h w c"], sizes: Sizes = None) -> Float[Array, "b h2 w2 d"]:
        return joint_conv([self], x, sizes)

    @nn.compact
    def weights(self, channels: int) -> tuple[Float[Array, "k k c d"], Float[Array, "d"]]:
        """The kernel and the bias for inputs of so many channels, in `dtype`."""
        kernel = self.param("kernel", self.kernel_init, (self.size, self.size, channels, self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        return kernel.astype(self.dtype), bias.astype(self.dtype)


def joint_conv(convs: Sequence[Conv], x: Float[Array, "b h w c"], sizes: Sizes = None) -> Float[Array, "b h2 w2 d"]:
    """What several `Conv`, alike but for their features, make of one input, side by side: as one convolution."""
    kernels, biases = zip(*(conv.weights(x.shape[-1]) for conv in convs), strict=True)
    form = convs[0]
    x = x.astype(form.dtype)
    if form.reflect:
        x = reflect_pad(x, form.reflect, sizes)
    return conv(x, jnp.concatenate(kernels, -1), form.stride, form.zeros) + jnp.concatenate(biases)


class ConvTranspose(nn.Module):
    """Transposed convolution, stride 2, with a bias: (b, h, w, in) -> (b, 2h+size-2, 2w+size-2, features)."""

    features: int
    size: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 d"]:
        kernel = self.param("kernel", kernel_init, (self.size, self.size, x.shape[-1], self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        return conv_transpose(x.astype(self.dtype), kernel.astype(self.dtype)) + bias.astype(self.dtype)


class LayerNorm(nn.Module):
    """Per-sample norm over (h, w, c): (x - mean) / (std + 1e-5) * gamma + beta, std unbiased, gamma and beta (c,)."""

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], sizes: Sizes = None) -> Float[Array, "b h w c"]:
        gamma = self.param("gamma", nn.initializers.uniform(1.0), (x.shape[-1],))
        beta = self.param("beta", nn.initializers.zeros, (x.shape[-1],))
        mean, variance, n = _moments(x, (1, 2, 3), sizes)
        # The floor keeps the root's gradient finite for a constant input.
        std = jnp.sqrt(jnp.maximum(variance * (n / (n - 1)), 1e-12))
        scale = gamma / (std + 1e-5)
        return zero_outside((x * scale + (beta - mean * scale)).astype(x.dtype), sizes)


def instance_norm(x: Float[Array, "b h w c"], sizes: Sizes = None) -> Float[Array, "b h w c"]:
    """Zero mean, unit (biased) variance of each sample's channel over (h, w); eps 1e-5 inside the root."""
    mean, variance, _ = _moments(x, (1, 2), sizes)
    scale = jax.lax.rsqrt(variance + 1e-5)
    return zero_outside((x * scale - mean * scale).astype(x.dtype), sizes)


def adaptive_instance_norm(
    x: Float[Array, "b h w c"], shift: Float[Array, "b c"], scale: Float[Array, "b c"], sizes: Sizes = None
) -> Float[Array, "b h w c"]:
    """`instance_norm(x) * scale + shift` with a scale and shift for each sample's channel."""
    mean, variance, _ = _moments(x, (1, 2), sizes)
    scale = jax.lax.rsqrt(variance + 1e-5) * scale[:, None, None]
    return zero_outside((x * scale + (shift[:, None, None] - mean * scale)).astype(x.dtype), sizes)


def global_mean(x: Float[Array, "b h w c"], sizes: Sizes = None) -> Float[Array, "b 1 1 c"]:
    """Mean of each sample's channel over (h, w), in float32 or better."""
    x = in_full(x)
    return zero_outside(x, sizes).sum((1, 2), keepdims=True) / _area(x, sizes)


def reflect_pad(x: Float[Array, "b h w c"], width: int, sizes: Sizes = None) -> Float[Array, "b h2 w2 c"]:
    """Mirror `width` pixels across every side of each sample, the border pixel itself not repeated."""
    x = jnp.pad(x, ((0, 0), (width, width), (width, width), (0, 0)), mode="reflect")
    if sizes is None:
        return x
    for axis in (1, 2):
        end = sizes[:, axis - 1] + width
        inside = jax.vmap(lambda x, end, axis=axis: jax.lax.dynamic_slice_in_dim(x, end - 1 - width, width, axis - 1))
        edge = inside(x, end)
        place = jnp.expand_dims(jnp.arange(x.shape[axis]) - end[:, None], (2, 3) if axis == 1 else (1, 3))
        for i in range(width):
            mirrored = jax.lax.slice_in_dim(edge, width - 1 - i, width - i, axis=axis)
            x = jnp.where(place == i, mirrored, x)
    return x


def in_full(x: Float[Array, "*any"]) -> Float[Array, "*any"]:
    """Half precision as float32; float32 and float64 as they are."""
    return x.astype(full_precision(x.dtype))


def full_precision(dtype: DTypeLike) -> jnp.dtype:
    """float32 for half precision, else `dtype`."""
    return jnp.promote_types(dtype, jnp.float32)


def zero_outside(x: Float[Array, "b h w c"], sizes: Sizes) -> Float[Array, "b h w c"]:
    """`x` on the samples, zero on the rest of the canvas, whatever is there (NaN too)."""
    if sizes is None:
        return x
    rows = jnp.arange(x.shape[1]) < sizes[:, :1]
    columns = jnp.arange(x.shape[2]) < sizes[:, 1:]
    return jnp.where((rows[:, :, None] & columns[:, None])[..., None], x, 0)


def _moments(
    x: Float[Array, "b h w c"], axes: tuple[int, ...], sizes: Sizes
) -> tuple[Float[Array, "b 1 1 _"], Float[Array, "b 1 1 _"], Float[Array, "b 1 1 1"] | float]:
    """Mean and biased variance of the samples over `axes` (kept), in float32 or better, read in one pass; and how many
    values they are of.

    Sums are of differences from the mean of a few pixels of the sample, so that a mean far from zero costs no digits,
    even where a border or a corner is black.
    """
    x = in_full(x)
    pivot = some_pixels(jax.lax.stop_gradient(x), sizes).mean(axes, keepdims=True)
    difference = zero_outside(x - pivot, sizes)
    n = _area(x, sizes) * (x.shape[3] if 3 in axes else 1)
    return *moments_about(pivot, difference, partial(jnp.sum, axis=axes, keepdims=True), n), n


def moments_about(
    pivot: Float[Array, "b 1 1 _"],
    difference: Float[Array, "b h w c"],
    summed: Callable[[Float[Array, "b h w c"]], Float[Array, "b 1 1 _"]],
    n: Float[Array, "_ 1 1 _"] | float,
) -> tuple[Float[Array, "b 1 1 _"], Float[Array, "b 1 1 _"]]:
    """Mean and biased variance of `n` values by their `difference` from a `pivot`, which `summed` sums."""
    mean = summed(difference) / n
    variance = summed(jnp.square(difference)) / n - jnp.square(mean)
    return mean + pivot, jnp.maximum(variance, 0.0)


def some_pixels(x: Float[Array, "b h w c"], sizes: Sizes, side: int = 8) -> Float[Array, "b n n c"]:
    """`side` x `side` pixels spread evenly over each sample, the same ones on any canvas."""
    places = 2 * jnp.arange(side) + 1
    if sizes is None:
        rows, columns = (places * n // (2 * side) for n in x.shape[1:3])
        return x[:, rows[:, None], columns]
    rows, columns = (places * sizes[:, i, None] // (2 * side) for i in (0, 1))
    return jax.vmap(lambda x, rows, columns: x[rows[:, None], columns])(x, rows, columns)


def _area(x: Float[Array, "b h w c"], sizes: Sizes) -> Float[Array, "b 1 1 1"] | float:
    """Pixels of each sample: a number, or (b, 1, 1, 1). Not an integer, which a large canvas would overflow."""
    if sizes is None:
        return float(x.shape[1] * x.shape[2])
    return sizes.astype(full_precision(x.dtype)).prod(1)[:, None, None, None]
