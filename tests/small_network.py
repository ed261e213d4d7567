"""A small network for tests that are of the fusion network's layers but not of its size."""

import flax.linen as nn
import jax.numpy as jnp

from langfuse_jax.models.layers import (
    Conv,
    ConvTranspose,
    LayerNorm,
    adaptive_instance_norm,
    global_mean,
    instance_norm,
    zero_outside,
)


class SmallNet(nn.Module):
    """A layer of each kind of `FusionNet`, for canvases too, which compiles in a tenth of its time.

    It has no kinks, at which two roundings of one number have different slopes: silu in place of ReLU, no clip.
    """

    @nn.compact
    def __call__(self, visible, infrared, sizes=None):
        h, w = visible.shape[1:3]
        x = zero_outside(jnp.concatenate([visible, infrared], -1), sizes)
        shift, scale = jnp.split(nn.Dense(32)(global_mean(x, sizes)[:, 0, 0]), 2, -1)
        half, full = (None, None) if sizes is None else (sizes // 2, 2 * (sizes // 2) + 3)
        x = nn.silu(instance_norm(Conv(8, 4, stride=2, zeros=1)(x), half))
        x = nn.silu(adaptive_instance_norm(Conv(16, 3, reflect=1)(x, half), shift, scale, half))
        x = nn.silu(LayerNorm()(ConvTranspose(8, 5)(x), full))
        x = jnp.pad(x[:, : h + 2, : w + 2], ((0, 0), (2, 0), (2, 0), (0, 0)), mode="reflect")
        return zero_outside(nn.sigmoid(Conv(1, 5)(x)), sizes)
