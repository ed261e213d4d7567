"""Layers of the fusion network: convolutions, transposed convolutions, norms. Channels last, parameters float32."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from langfuse_jax.models.convolution import conv, conv_transpose

kernel_init = nn.initializers.normal(0.02)


class Conv(nn.Module):
    """Convolution with a bias: (b, h, w, in) -> (b, h', w', features). `reflect` and `zeros` pad every side first."""

    features: int
    size: int
    stride: int = 1
    reflect: int = 0
    zeros: int = 0
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 d"]:
        kernel = self.param("kernel", kernel_init, (self.size, self.size, x.shape[-1], self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        x = x.astype(self.dtype)
        if self.reflect:
            x = reflect_pad(x, self.reflect)
        return conv(x, kernel.astype(self.dtype), self.stride, self.zeros) + bias.astype(self.dtype)


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
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        gamma = self.param("gamma", nn.initializers.uniform(1.0), (x.shape[-1],))
        beta = self.param("beta", nn.initializers.zeros, (x.shape[-1],))
        mean, variance = _moments(x, (1, 2, 3))
        n = x.shape[1] * x.shape[2] * x.shape[3]
        # The floor keeps the root's gradient finite for a constant input.
        std = jnp.sqrt(jnp.maximum(variance * (n / (n - 1)), 1e-12))
        scale = gamma / (std + 1e-5)
        return (x * scale + (beta - mean * scale)).astype(x.dtype)


def instance_norm(x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
    """Zero mean, unit (biased) variance of each sample's channel over (h, w); eps 1e-5 inside the root."""
    mean, variance = _moments(x, (1, 2))
    scale = jax.lax.rsqrt(variance + 1e-5)
    return (x * scale - mean * scale).astype(x.dtype)


def adaptive_instance_norm(
    x: Float[Array, "b h w c"], shift: Float[Array, "b c"], scale: Float[Array, "b c"]
) -> Float[Array, "b h w c"]:
    """`instance_norm(x) * scale + shift` with a scale and shift for each sample's channel."""
    mean, variance = _moments(x, (1, 2))
    scale = jax.lax.rsqrt(variance + 1e-5) * scale[:, None, None]
    return (x * scale + (shift[:, None, None] - mean * scale)).astype(x.dtype)


def reflect_pad(x: Float[Array, "b h w c"], width: int) -> Float[Array, "b h2 w2 c"]:
    """Mirror `width` pixels across every side, the border pixel itself not repeated."""
    return jnp.pad(x, ((0, 0), (width, width), (width, width), (0, 0)), mode="reflect")


def _moments(x, axes):
    """Mean and biased variance over `axes` (kept), in float32 whatever the dtype of x, read in one pass.

    Sums are of differences from the sample's first pixel, so that a mean far from zero costs no digits.
    """
    x = x.astype(jnp.float32)
    corner = tuple(slice(0, 1) if axis in axes else slice(None) for axis in range(x.ndim))
    pivot = jax.lax.stop_gradient(x[corner])
    difference = x - pivot
    mean = difference.mean(axes, keepdims=True)
    variance = jnp.square(difference).mean(axes, keepdims=True) - jnp.square(mean)
    return mean + pivot, jnp.maximum(variance, 0.0)
