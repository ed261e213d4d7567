"""`langfuse-jax export`: the network and its weights in one file, for programs that have JAX but not this package."""

import math
from collections.abc import Callable
from typing import cast

import jax
import jax.numpy as jnp
from jax import export
from jaxtyping import Array, Float, Int

from langfuse_jax.images.canvas import shown_pixels
from langfuse_jax.inference.fuser import Fuser
from langfuse_jax.models.fusion import MIN_SIDE
from langfuse_jax.models.layers import zero_outside
from langfuse_jax.models.steered import TILE_MULTIPLE, SteeredNet

PLATFORMS = ("cpu", "cuda", "tpu")
Canvas = Float[Array, "b h w 1"]


def export_fusion(fuser: Fuser) -> bytearray:
    """A serialised `jax.export` artefact of `(visible, infrared, sizes) -> fused`, weights inside, for `PLATFORMS`.

    The arguments are those of the fuser's network on canvases: two float32 (b, H, W, 1) in [0, 1] and int32 (b, 2)
    heights and widths, for any b and any H and W of at least 32 that are multiples of 8 (of the steered network: 16)
    and of "pad_multiple" of its metadata. Samples are seen as `Fuser.extend` has it. The steered network takes a fourth
    argument, float32 (d,): the unit embedding of the goal, as `langfuse-jax embed` writes it
    (`numpy.load(...)["goal"]`); that of the default sentence gives the default picture.

    Example::

        Path("model.stablehlo").write_bytes(export_fusion(Fuser.load()))
    """
    net, params = fuser.net, fuser.params
    pad_multiple, worn_edge = fuser.metadata.get("pad_multiple", 1), fuser.metadata.get("worn_edge", 0)
    step = math.lcm(8, pad_multiple, TILE_MULTIPLE if isinstance(net, SteeredNet) else 1)
    scope = export.SymbolicScope([f"h >= {-(-MIN_SIDE // step)}", f"w >= {-(-MIN_SIDE // step)}"])
    batch, height, width = export.symbolic_shape(f"b, {step}*h, {step}*w", scope=scope)
    canvas = jax.ShapeDtypeStruct((batch, height, width, 1), jnp.float32)
    sizes = jax.ShapeDtypeStruct((batch, 2), jnp.int32)

    def fuse(visible: Canvas, infrared: Canvas, sizes: Int[Array, "b 2"], *words: Float[Array, "b d"]) -> Canvas:
        padded = -(-sizes // pad_multiple) * pad_multiple
        visible, infrared = (_extended(image, sizes, worn_edge) for image in (visible, infrared))
        fused = net.apply(params, visible, infrared, padded, *words)
        return zero_outside(cast(Array, fused), sizes)

    program: Callable[..., Canvas] = fuse
    arguments = [canvas, canvas, sizes]
    if isinstance(net, SteeredNet):
        default = jnp.asarray(fuser.default_goal)

        def program(visible: Canvas, infrared: Canvas, sizes: Int[Array, "b 2"], goal: Float[Array, " d"]) -> Canvas:
            direction = jnp.broadcast_to(goal - default, (visible.shape[0], *default.shape))
            return fuse(visible, infrared, sizes, direction)

        arguments.append(jax.ShapeDtypeStruct(default.shape, jnp.float32))
    return export.export(jax.jit(program), platforms=PLATFORMS)(*arguments).serialize()


def _extended(x: Float[Array, "b h w 1"], sizes: Int[Array, "b 2"], worn: int) -> Float[Array, "b h w 1"]:
    """`x` with what lies below and right of each sample replaced by its reflection, and its `worn` edge mended."""
    for axis in (1, 2):
        source = shown_pixels(jnp.arange(x.shape[axis]), sizes[:, axis - 1, None] - 1, worn)
        x = jnp.take_along_axis(x, jnp.expand_dims(source, (2, 3) if axis == 1 else (1, 3)), axis)
    return x
