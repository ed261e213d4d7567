"""`langfuse-jax export`: the network and its weights in one file, for programs that have JAX but not this package."""

import math
from typing import cast

import jax
import jax.numpy as jnp
from jax import export
from jaxtyping import Array, Float, Int

from langfuse_jax.images.canvas import shown_pixels
from langfuse_jax.models.fusion import MIN_SIDE
from langfuse_jax.models.layers import zero_outside
from langfuse_jax.models.student import TILE_MULTIPLE, StudentNet
from langfuse_jax.weights.fusion import network

PLATFORMS = ("cpu", "cuda", "tpu")


def export_fusion(params: dict, pad_multiple: int = 1, worn_edge: int = 0) -> bytearray:
    """A serialised `jax.export` artefact of `(visible, infrared, sizes) -> fused`, weights inside, for `PLATFORMS`.

    The arguments are those of its `network` on canvases: two float32 (b, H, W, 1) in [0, 1] and int32 (b, 2) heights
    and widths, for any b and any H and W that are multiples of 8 (a student: 16) and of `pad_multiple` from 32. Samples
    are reflected at the lower and right edge to multiples of `pad_multiple` before they are fused, and their
    `worn_edge` outermost pixels skipped, as `Fuser.extend` does.

    Example::

        Path("model.stablehlo").write_bytes(export_fusion(Fuser.load().params, pad_multiple=8, worn_edge=2))
    """
    net = network(params)
    step = math.lcm(8, pad_multiple, TILE_MULTIPLE if isinstance(net, StudentNet) else 1)
    scope = export.SymbolicScope([f"h >= {-(-MIN_SIDE // step)}", f"w >= {-(-MIN_SIDE // step)}"])
    batch, height, width = export.symbolic_shape(f"b, {step}*h, {step}*w", scope=scope)
    canvas = jax.ShapeDtypeStruct((batch, height, width, 1), jnp.float32)
    sizes = jax.ShapeDtypeStruct((batch, 2), jnp.int32)

    @jax.jit
    def fuse(
        visible: Float[Array, "b h w 1"], infrared: Float[Array, "b h w 1"], sizes: Int[Array, "b 2"]
    ) -> Float[Array, "b h w 1"]:
        padded = -(-sizes // pad_multiple) * pad_multiple
        visible, infrared = (_extended(image, sizes, worn_edge) for image in (visible, infrared))
        fused = net.apply(params, visible, infrared, padded)
        return zero_outside(cast(Array, fused), sizes)

    return export.export(fuse, platforms=PLATFORMS)(canvas, canvas, sizes).serialize()


def _extended(x: Float[Array, "b h w 1"], sizes: Int[Array, "b 2"], worn: int) -> Float[Array, "b h w 1"]:
    """`x` with what lies below and right of each sample replaced by its reflection, and its `worn` edge mended."""
    for axis in (1, 2):
        source = shown_pixels(jnp.arange(x.shape[axis]), sizes[:, axis - 1, None] - 1, worn)
        x = jnp.take_along_axis(x, jnp.expand_dims(source, (2, 3) if axis == 1 else (1, 3)), axis)
    return x
