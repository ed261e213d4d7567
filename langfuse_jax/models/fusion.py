"""The fusion network: a visible and an infrared image in, one fused image out.

Two content encoders and two style encoders (one of each per source) feed a decoder whose residual blocks are
modulated by the styles. It is the network of "Infrared and visible image fusion with language-driven loss"
(arXiv 2402.16267), 5 776 977 parameters, layer for layer, so its published weights fit
(`langfuse_jax.weights.ldfusion`).
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import cast

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from langfuse_jax.models import blocks
from langfuse_jax.models.clamp import clamp_to_unit
from langfuse_jax.models.convolution import conv
from langfuse_jax.models.layers import (
    Conv,
    ConvTranspose,
    LayerNorm,
    Sizes,
    adaptive_instance_norm,
    full_precision,
    global_mean,
    in_full,
    instance_norm,
    joint_conv,
    reflect_pad,
    zero_outside,
)

MIN_SIDE = 32


class FusionNet(nn.Module):
    """`FusionNet().apply(params, visible, infrared)`: fused luminance in [0, 1], of the shape of its inputs.

    Both inputs are (b, h, w, 1) floats in [0, 1], any h, w >= 32. Convolutions run in `dtype`; parameters, statistics
    and the result are float32, or float64 like `dtype`. Raises ValueError for smaller images.

    With `looped`, layers that are alike but for their weights (the encoders of both sources, residual blocks in a row)
    are one program in a loop, once there are weights: compiling takes half the time, and the numbers are the same.
    With `blocked` the layers of few channels, once there are weights, run on blocks of pixels (`models.blocks`), which
    TPUs have room for: the numbers are the same but for their rounding.

    With `sizes` (b, 2), integers that may be traced, the inputs are canvases: sample i is the top-left `sizes[i]` =
    (height, width) pixels of them, at least 32 each. It is fused as it would be alone, whatever is outside; the result
    is zero there.

    >>> import jax
    >>> image = jax.ShapeDtypeStruct((1, 48, 64, 1), jnp.float32)
    >>> fused, params = jax.eval_shape(FusionNet().init_with_output, jax.random.key(0), image, image)
    >>> fused.shape, sum(leaf.size for leaf in jax.tree.leaves(params))
    ((1, 48, 64, 1), 5776977)
    """

    dtype: DTypeLike = jnp.float32
    looped: bool = False
    blocked: bool = False

    def setup(self) -> None:
        self.content_visible = ContentEncoder(self.dtype)
        self.content_infrared = ContentEncoder(self.dtype)
        self.style_visible = StyleEncoder(self.dtype)
        self.style_infrared = StyleEncoder(self.dtype)
        self.decoder = Decoder(self.dtype, self.looped, self.blocked)

    def __call__(
        self, visible: Float[Array, "b h w 1"], infrared: Float[Array, "b h w 1"], sizes: Sizes = None
    ) -> Float[Array, "b h w 1"]:
        h, w = visible.shape[1:3]
        if h < MIN_SIDE or w < MIN_SIDE:
            raise ValueError(f"images of {h}x{w} pixels are too small: the fusion network needs {MIN_SIDE} per side")
        visible, infrared = zero_outside(visible, sizes), zero_outside(infrared, sizes)
        codes: Sequence[tuple[Array, Array]] = (
            self._codes_in_a_loop(visible, infrared, sizes)
            if _runs_in_loops(self)
            else (
                _encode(self.content_visible, self.style_visible, visible, sizes, _runs_in_blocks(self)),
                _encode(self.content_infrared, self.style_infrared, infrared, sizes, _runs_in_blocks(self)),
            )
        )
        content, style = (jnp.concatenate(code, -1) for code in zip(*codes, strict=True))
        return zero_outside(self.decoder(content, style, (h, w), sizes), sizes)

    def _codes_in_a_loop(
        self, visible: Float[Array, "b h w 1"], infrared: Float[Array, "b h w 1"], sizes: Sizes
    ) -> list[tuple[Float[Array, "b h2 w2 128"], Float[Array, "b 8"]]]:
        params = self.variables["params"]
        encoders = [_stacked(params[f"{part}_visible"], params[f"{part}_infrared"]) for part in ("content", "style")]

        def encode(source: tuple[PyTree, PyTree, Array]) -> tuple[Array, Array]:
            content, style, image = source
            both = {"params": {"content": content, "style": style}}
            return cast(
                tuple[Array, Array], Encoders(self.dtype, True, self.blocked, parent=None).apply(both, image, sizes)
            )

        content, style = jax.lax.map(encode, (*encoders, jnp.stack([visible, infrared])))
        return [(content[0], style[0]), (content[1], style[1])]

    def styles(
        self, visible: Float[Array, "b h w 1"], infrared: Float[Array, "b h w 1"], sizes: Sizes = None
    ) -> tuple[Float[Array, "b 8"], Float[Array, "b 8"]]:
        """The style codes of the two sources."""
        visible, infrared = zero_outside(visible, sizes), zero_outside(infrared, sizes)
        return (
            self.style_visible(self.style_visible.stem(visible, sizes), sizes),
            self.style_infrared(self.style_infrared.stem(infrared, sizes), sizes),
        )


@partial(jax.jit, static_argnums=0)
def fresh_params(net: nn.Module, key: PRNGKeyArray) -> PyTree:
    """What `net.init` draws, of a network that fuses as `FusionNet` does: by a single program, of whatever size its
    images will be.

    >>> shapes = jax.eval_shape(partial(fresh_params, FusionNet()), jax.random.key(0))
    >>> sum(leaf.size for leaf in jax.tree.leaves(shapes))
    5776977
    """
    image = jnp.zeros((1, MIN_SIDE, MIN_SIDE, 1))
    return net.init(key, image, image)


def _encode(
    content: "ContentEncoder", style: "StyleEncoder", image: Float[Array, "b h w 1"], sizes: Sizes, blocked: bool
) -> tuple[Float[Array, "b h2 w2 128"], Float[Array, "b 8"]]:
    """Content and style of one source. The stems of both see the same pixels: one convolution costs less than two."""
    if blocked:
        return _encode_in_blocks(content, style, image, sizes)
    stems = joint_conv([content.stem, style.stem], image, sizes)
    return content(stems[..., :16], sizes), style(stems[..., 16:], sizes)


def _encode_in_blocks(
    content: "ContentEncoder", style: "StyleEncoder", image: Float[Array, "b h w 1"], sizes: Sizes
) -> tuple[Float[Array, "b h2 w2 128"], Float[Array, "b 8"]]:
    """The same where a tile half full of channels costs as much as a full one: by convolutions of both encoders."""
    stems, downs = (content.stem, style.stem), zip(content.down, style.down, strict=True)
    kernels, biases = zip(*(stem.weights(1) for stem in stems), strict=True)
    padded = reflect_pad(image.astype(content.dtype), content.stem.reflect, sizes)
    x = blocks.stem(padded, jnp.concatenate(kernels, -1)) + blocks.repeated(jnp.concatenate(biases))
    x = nn.relu(blocks.instance_norm_of_half(x, blocks.within(x, sizes, image.shape[1:3]), sizes))
    features = [stem.features for stem in stems]
    for i, pair in enumerate(downs):
        kernels, biases = zip(*(down.weights(n) for down, n in zip(pair, features, strict=True)), strict=True)
        features, kernel = [down.features for down in pair], blocks.side_by_side(*kernels)
        x = (conv(x, kernel, 2, 1) if i else blocks.down(x, kernel)) + jnp.concatenate(biases)
        sizes = _halved(sizes)
        of_content, of_style = jnp.split(x, features[:1], -1)
        x = nn.relu(jnp.concatenate([instance_norm(of_content, sizes), zero_outside(of_style, sizes)], -1))
    of_content, of_style = jnp.split(x, features[:1], -1)
    return content.residual(of_content, sizes), style.pooled(of_style, sizes)


def _stacked(*trees: PyTree) -> PyTree:
    """The arrays of trees that are alike, along a new first axis."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


class Encoders(nn.Module):
    """Content and style of one source, see `FusionNet.looped`."""

    dtype: DTypeLike = jnp.float32
    looped: bool = False
    blocked: bool = False

    def setup(self) -> None:
        self.content = ContentEncoder(self.dtype, self.looped)
        self.style = StyleEncoder(self.dtype)

    def __call__(
        self, image: Float[Array, "b h w 1"], sizes: Sizes = None
    ) -> tuple[Float[Array, "b h2 w2 128"], Float[Array, "b 8"]]:
        return _encode(self.content, self.style, image, sizes, self.blocked)


class ContentEncoder(nn.Module):
    """What is where: the `stem` of an image (b, h, w, 16) -> (b, h//8, w//8, 128), instance-normalised throughout."""

    dtype: DTypeLike = jnp.float32
    looped: bool = False

    def setup(self) -> None:
        self.stem = Conv(16, 7, reflect=3, dtype=self.dtype)
        self.down = [Conv(features, 4, stride=2, zeros=1, dtype=self.dtype) for features in (32, 64, 128)]
        self.block = [ResidualBlock(self.dtype) for _ in range(2)]

    def __call__(self, x: Float[Array, "b h w 16"], sizes: Sizes = None) -> Float[Array, "b h2 w2 128"]:
        x = nn.relu(instance_norm(x, sizes))
        for down in self.down:
            x, sizes = down(x), _halved(sizes)
            x = nn.relu(instance_norm(x, sizes))
        return self.residual(x, sizes)

    def residual(self, x: Float[Array, "b h w 128"], sizes: Sizes) -> Float[Array, "b h w 128"]:
        """The blocks at the end."""
        norms = [instance_norm, instance_norm]
        if _runs_in_loops(self):
            return _blocks_in_a_loop(self, x, lambda _: norms, None, sizes)
        for block in self.block:
            x = block(x, norms, sizes)
        return x


class StyleEncoder(nn.Module):
    """How it looks overall: the `stem` of an image (b, h, w, 16) -> (b, 8). Without norms, which remove a style."""

    dtype: DTypeLike = jnp.float32

    def setup(self) -> None:
        self.stem = Conv(16, 7, reflect=3, dtype=self.dtype)
        self.down = [Conv(features, 4, stride=2, zeros=1, dtype=self.dtype) for features in (32, 64, 64)]
        self.head = Conv(8, 1, dtype=full_precision(self.dtype))

    def __call__(self, x: Float[Array, "b h w 16"], sizes: Sizes = None) -> Float[Array, "b 8"]:
        x = nn.relu(x)
        for down in self.down:
            x, sizes = nn.relu(down(zero_outside(x, sizes))), _halved(sizes)
        return self.pooled(x, sizes)

    def pooled(self, x: Float[Array, "b h w 64"], sizes: Sizes) -> Float[Array, "b 8"]:
        """The code, from the last map."""
        return self.head(global_mean(x, sizes))[:, 0, 0]


class ResidualBlock(nn.Module):
    """x + norm(conv(relu(norm(conv(x))))), 3x3 reflect-padded; the two norms are given as functions."""

    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], norms: Sequence[Callable[..., Array]], sizes: Sizes = None
    ) -> Float[Array, "b h w c"]:
        channels = x.shape[-1]
        y = nn.relu(norms[0](Conv(channels, 3, reflect=1, dtype=self.dtype, name="conv_0")(x, sizes), sizes=sizes))
        return x + norms[1](Conv(channels, 3, reflect=1, dtype=self.dtype, name="conv_1")(y, sizes), sizes=sizes)


def _runs_in_loops(module: "FusionNet | ContentEncoder | Decoder") -> bool:
    """Flax draws parameters layer by layer: loops need them to be there."""
    return module.looped and not module.is_initializing()


def _runs_in_blocks(module: "FusionNet | Decoder") -> bool:
    """As `_runs_in_loops`."""
    return module.blocked and not module.is_initializing()


def _blocks_in_a_loop(
    module: nn.Module,
    x: Float[Array, "b h w c"],
    norms: Callable[[PyTree], Sequence[Callable[..., Array]]],
    modulation: PyTree,
    sizes: Sizes,
) -> Float[Array, "b h w c"]:
    """The two residual blocks of `module`; `norms` makes those of a block from its part of `modulation`."""
    params = module.variables["params"]

    def step(x: Array, block: tuple[PyTree, PyTree]) -> tuple[Array, None]:
        made = ResidualBlock(module.dtype, parent=None).apply({"params": block[0]}, x, norms(block[1]), sizes)
        return cast(Array, made), None

    return jax.lax.scan(step, x, (_stacked(params["block_0"], params["block_1"]), modulation))[0]


class Decoder(nn.Module):
    """Content (b, h//8, w//8, 256) and style (b, 16) -> image (b, h, w, 1) in [0, 1], (h, w) given as `shape`.

    Three transposed convolutions make 8 (h//8) + 21 rows; their norms see all of them, the image keeps the first h.
    """

    dtype: DTypeLike = jnp.float32
    looped: bool = False
    blocked: bool = False

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b h2 w2 256"],
        style: Float[Array, "b 16"],
        shape: tuple,  # symbolic in an export
        sizes: Sizes = None,
    ) -> Float[Array, "b h w 1"]:
        # Block, norm, (shift, scale), channel.
        modulation = StyleMLP(name="mlp")(style).reshape(-1, 2, 2, 2, 256)
        for _ in range(3):
            sizes = _halved(sizes)

        def norms(modulation: Float[Array, "b 2 2 c"]) -> list[Callable[..., Array]]:
            return [
                partial(adaptive_instance_norm, shift=modulation[:, j, 0], scale=modulation[:, j, 1]) for j in range(2)
            ]

        if _runs_in_loops(self):
            x = _blocks_in_a_loop(self, x, norms, jnp.moveaxis(modulation, 1, 0), sizes)
        else:
            for i in range(2):
                x = ResidualBlock(self.dtype, name=f"block_{i}")(x, norms(modulation[:, i]), sizes)
        for i, features in enumerate((128, 64, 32)):
            if i == 2 and _runs_in_blocks(self):
                return clamp_to_unit(jnp.tanh(in_full(self._last_in_blocks(x, shape, sizes))))
            x = ConvTranspose(features, 5, dtype=self.dtype, name=f"up_{i}")(x)
            sizes = None if sizes is None else 2 * sizes + 3
            x = nn.relu(LayerNorm(name=f"up_norm_{i}")(x, sizes))
        # The network reflects 3 pixels at every edge, but at least 14 rows lie between the image and the lower edge.
        x = jnp.pad(x[:, : shape[0] + 3, : shape[1] + 3], ((0, 0), (3, 0), (3, 0), (0, 0)), mode="reflect")
        x = Conv(1, 7, dtype=self.dtype, name="head")(x)
        return clamp_to_unit(jnp.tanh(in_full(x)))

    def _last_in_blocks(
        self, x: Float[Array, "b h2 w2 64"], shape: tuple[int, int], sizes: Sizes
    ) -> Float[Array, "b h w 1"]:
        """The last two convolutions, as `__call__` has them."""
        params = self.variables["params"]
        up, head = (jax.tree.map(lambda leaf: leaf.astype(self.dtype), params[name]) for name in ("up_2", "head"))
        h, w = (2 * n + 3 for n in x.shape[1:3])
        x = blocks.up(x.astype(self.dtype), up["kernel"]) + blocks.repeated(up["bias"])
        sizes = None if sizes is None else 2 * sizes + 3
        inside = blocks.within(x, sizes, (h, w))
        x = nn.relu(blocks.layer_norm(x, params["up_norm_2"], inside, sizes))
        return blocks.head(x, head["kernel"], shape) + head["bias"]


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
            dense = nn.Dense(features, kernel_init=init, bias_init=init, precision="highest", name=f"dense_{i}")
            x = dense(nn.relu(x) if i else x)
        return x


def _symmetric_uniform(bound: float) -> Callable[..., Array]:
    def init(key: PRNGKeyArray, shape: Sequence[int], dtype: DTypeLike = jnp.float32) -> Array:
        return nn.initializers.uniform(2 * bound)(key, shape, dtype) - bound

    return init


def _halved(sizes: Sizes) -> Sizes:
    """Sizes after a convolution of 4x4, stride 2, on a map padded by 1."""
    return None if sizes is None else sizes // 2
