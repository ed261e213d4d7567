"""The fusion network: a visible and an infrared image in, one fused image out.

Two content encoders and two style encoders (one of each per source) feed a decoder whose residual blocks are
modulated by the styles. It is the network of "Infrared and visible image fusion with language-driven loss"
(arXiv 2402.16267), 5 776 977 parameters, layer for layer, so its published weights fit (`langfuse_jax.convert.fusion`).
"""

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from langfuse_jax.models.layers import (
    Conv,
    ConvTranspose,
    LayerNorm,
    adaptive_instance_norm,
    instance_norm,
)

MIN_SIDE = 32


class FusionNet(nn.Module):
    """`FusionNet().apply(params, visible, infrared)`: fused luminance in [0, 1], of the shape of its inputs.

    Both inputs are (b, h, w, 1) floats in [0, 1], any h, w >= 32. Convolutions run in `dtype`; parameters, statistics
    and the result are float32. Raises ValueError for smaller images.
    """

    dtype: DTypeLike = jnp.float32

    def setup(self):
        self.content_visible = ContentEncoder(self.dtype)
        self.content_infrared = ContentEncoder(self.dtype)
        self.style_visible = StyleEncoder(self.dtype)
        self.style_infrared = StyleEncoder(self.dtype)
        self.decoder = Decoder(self.dtype)

    def __call__(self, visible: Float[Array, "b h w 1"], infrared: Float[Array, "b h w 1"]) -> Float[Array, "b h w 1"]:
        h, w = visible.shape[1:3]
        if min(h, w) < MIN_SIDE:
            raise ValueError(f"images of {h}x{w} pixels are too small: the fusion network needs {MIN_SIDE} per side")
        content = jnp.concatenate([self.content_visible(visible), self.content_infrared(infrared)], -1)
        style = jnp.concatenate(self.styles(visible, infrared), -1)
        return self.decoder(content, style)[:, :h, :w]

    def styles(
        self, visible: Float[Array, "b h w 1"], infrared: Float[Array, "b h w 1"]
    ) -> tuple[Float[Array, "b 8"], Float[Array, "b 8"]]:
        """The style codes of the two sources."""
        return self.style_visible(visible), self.style_infrared(infrared)


class ContentEncoder(nn.Module):
    """What is where: (b, h, w, 1) -> (b, h//8, w//8, 128), instance-normalised throughout."""

    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b h w 1"]) -> Float[Array, "b h2 w2 128"]:
        x = nn.relu(instance_norm(Conv(16, 7, reflect=3, dtype=self.dtype, name="stem")(x)))
        for i, features in enumerate((32, 64, 128)):
            x = Conv(features, 4, stride=2, zeros=1, dtype=self.dtype, name=f"down_{i}")(x)
            x = nn.relu(instance_norm(x))
        for i in range(2):
            x = ResidualBlock(self.dtype, name=f"block_{i}")(x, [instance_norm, instance_norm])
        return x


class StyleEncoder(nn.Module):
    """How it looks overall: (b, h, w, 1) -> (b, 8). No norms: they would remove what a style is."""

    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b h w 1"]) -> Float[Array, "b 8"]:
        x = nn.relu(Conv(16, 7, reflect=3, dtype=self.dtype, name="stem")(x))
        for i, features in enumerate((32, 64, 64)):
            x = nn.relu(Conv(features, 4, stride=2, zeros=1, dtype=self.dtype, name=f"down_{i}")(x))
        x = x.astype(jnp.float32).mean((1, 2), keepdims=True)
        return Conv(8, 1, name="head")(x)[:, 0, 0]


class ResidualBlock(nn.Module):
    """x + norm(conv(relu(norm(conv(x))))), 3x3 reflect-padded; the two norms are given as functions."""

    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], norms: list) -> Float[Array, "b h w c"]:
        channels = x.shape[-1]
        y = nn.relu(norms[0](Conv(channels, 3, reflect=1, dtype=self.dtype, name="conv_0")(x)))
        return x + norms[1](Conv(channels, 3, reflect=1, dtype=self.dtype, name="conv_1")(y))


class Decoder(nn.Module):
    """Content (b, h, w, 256) and style (b, 16) -> image (b, 8h+21, 8w+21, 1) in [0, 1]."""

    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b h w 256"], style: Float[Array, "b 16"]) -> Float[Array, "b h2 w2 1"]:
        # Block, norm, (shift, scale), channel.
        modulation = StyleMLP(name="mlp")(style).reshape(-1, 2, 2, 2, 256)
        for i in range(2):
            norms = [_modulated_norm(modulation[:, i, j]) for j in range(2)]
            x = ResidualBlock(self.dtype, name=f"block_{i}")(x, norms)
        for i, features in enumerate((128, 64, 32)):
            x = ConvTranspose(features, 5, dtype=self.dtype, name=f"up_{i}")(x)
            x = nn.relu(LayerNorm(name=f"up_norm_{i}")(x))
        x = Conv(1, 7, reflect=3, dtype=self.dtype, name="head")(x)
        return jnp.clip(jnp.tanh(x.astype(jnp.float32)), 0.0, 1.0)


class StyleMLP(nn.Module):
    """Styles of both sources (b, 16) -> the shifts and scales of the decoder's four norms (b, 2048)."""

    @nn.compact
    def __call__(self, style: Float[Array, "b 16"]) -> Float[Array, "b 2048"]:
        x = style
        for i, features in enumerate((256, 256, 2048)):
            # Uniform within 1/sqrt(fan-in), biases too: with zero biases every scale would start at zero,
            # and a residual block with zero scales has no gradient for its convolutions.
            bound = x.shape[-1] ** -0.5
            init = _symmetric_uniform(bound)
            x = nn.Dense(features, kernel_init=init, bias_init=init, name=f"dense_{i}")(nn.relu(x) if i else x)
        return x


def _symmetric_uniform(bound):
    def init(key, shape, dtype=jnp.float32):
        return nn.initializers.uniform(2 * bound)(key, shape, dtype) - bound

    return init


def _modulated_norm(shift_scale):
    def norm(x):
        return adaptive_instance_norm(x, shift_scale[:, 0], shift_scale[:, 1])

    return norm
