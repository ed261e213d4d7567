"""The steered network: Laplacian bands of both sources, weighed pixel by pixel, and words that move the weights.

It draws no detail itself. What it decides are coefficients: the tone of each source, which source each band takes and
how strongly, where the infrared lifts the visible light, and a shade that is added to the coarsest level alone. A
sentence acts through the direction of its embedding from that of the default sentence, which scales and shifts the
channels that decide (FiLM: Perez et al., 2018): without a direction the picture is that of the default sentence, and
twice the direction pulls twice as strongly.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from langfuse_jax.models.bands import activity, double, half, repeat_beyond
from langfuse_jax.models.clamp import clamp_to_unit
from langfuse_jax.models.layers import Conv, Sizes, zero_outside
from langfuse_jax.models.statistics import pair_statistics

LEVELS = 4
TILE_MULTIPLE = 2**LEVELS  # pixels; tiles start at multiples of it
REACH = 128  # pixels that a fused pixel depends on, beside the statistics; a multiple of TILE_MULTIPLE

_QUARTER, _CONTEXT = 32, 48  # channels
FILMED = {"quarter_0": _QUARTER, "context_0": _CONTEXT, "context_1": _CONTEXT, "context_2": _CONTEXT,
           "quarter_1": _QUARTER, "quarter_2": _QUARTER}  # fmt: skip
# Numbers that hold for the whole image.
GLOBAL = (
    "visible_stretch", "visible_curve", "infrared_stretch", "infrared_curve", "contrast", "offset", "curve",
    *(f"sharing_{level}" for level in range(LEVELS)), "noise_0", "noise_1",
)  # fmt: skip
# What brings the statistics of a source, seven quantiles, gradient and noise, to about -1 to 1.
CENTRE = np.array([0.4] * 7 + [0.02, 0.01], np.float32)
SCALE = np.array([2.0] * 7 + [40.0, 80.0], np.float32)
MOST = 4.0  # of the raw numbers of curves and contrasts
EPSILON = 0.004  # a gray level: activity below it is none


class Coefficients(NamedTuple):
    """What the network decided.

    Attributes:
        share: for each band, finest first, how much of it comes from the infrared, 0 to 1, at the band's resolution.
        boost: for each band, by what it is multiplied, at a quarter of the resolution.
        base: how much of the sixteenth-resolution base comes from the infrared, 0 to 1.
        shade: what is added to the base.
        lift: where the infrared lifts the picture (to 1) or the visible light replaces it (to -1), at a quarter.
        whole: the numbers of the whole image by name, (b,) each.
    """

    share: list[Float[Array, "b _ _ 1"]]
    boost: Float[Array, "b h4 w4 4"]
    base: Float[Array, "b _ _ 1"]
    shade: Float[Array, "b _ _ 1"]
    lift: Float[Array, "b h4 w4 1"]
    whole: dict[str, Float[Array, " b"]]


class SteeredNet(nn.Module):
    """`SteeredNet().apply(params, visible, infrared, words=direction)`: fused luminance in [0, 1].

    Arguments and canvases as in `FusionNet`: (b, h, w, 1) floats in [0, 1], and `sizes` (b, 2) for samples smaller than
    the map. `words` (b, embedding) is the goal's unit embedding minus the default goal's; None is the default goal.
    `statistics` are those of `pair_statistics`, for tiles: of the whole image; by default they are of what is given.

    >>> import jax
    >>> image = jax.ShapeDtypeStruct((1, 48, 64, 1), jnp.float32)
    >>> fused, params = jax.eval_shape(SteeredNet().init_with_output, jax.random.key(0), image, image)
    >>> fused.shape
    (1, 48, 64, 1)
    """

    embedding: int = 96
    dtype: DTypeLike = jnp.float32

    def __call__(
        self,
        visible: Float[Array, "b h w 1"],
        infrared: Float[Array, "b h w 1"],
        sizes: Sizes = None,
        words: Float[Array, "b d"] | None = None,
        statistics: Float[Array, "b 18"] | None = None,
    ) -> Float[Array, "b h w 1"]:
        return self.explain(visible, infrared, sizes, words, statistics)[0]

    @nn.compact
    def explain(
        self,
        visible: Float[Array, "b h w 1"],
        infrared: Float[Array, "b h w 1"],
        sizes: Sizes = None,
        words: Float[Array, "b d"] | None = None,
        statistics: Float[Array, "b 18"] | None = None,
    ) -> tuple[Float[Array, "b h w 1"], Coefficients]:
        """The fused image and the coefficients that it is made with."""
        height, width = visible.shape[1:3]
        cells = None if sizes is None else -(-sizes // TILE_MULTIPLE)

        def at(level: int) -> Sizes:
            """The samples' sizes in whole cells, at a level of the pyramid."""
            return None if cells is None else cells * 2 ** (LEVELS - level)

        if statistics is None:
            statistics = pair_statistics(visible, infrared, sizes)
        film, whole = self._decided_by_the_whole(statistics, words)

        def filmed(name: str, x: Float[Array, "b h w c"], level: int) -> Float[Array, "b h w c"]:
            scale, shift = film[name]
            x = nn.relu(x * (1 + scale[:, None, None]) + shift[:, None, None])
            return zero_outside(x, at(level))

        def conv(name: str, x: Float[Array, "b h w c"], features: int, size: int = 3) -> Float[Array, "b h w d"]:
            zeros = (size - 1) // 2
            start = nn.initializers.he_normal()
            return Conv(features, size, zeros=zeros, dtype=self.dtype, kernel_init=start, name=name)(x)

        sources = []
        for name, source, first in (("visible", visible, 0), ("infrared", infrared, 9)):
            source = _whole_cells(repeat_beyond(source, sizes))
            low, high = (_spread(statistics[:, first + i]) for i in (0, 6))
            amount = _spread(whole[f"{name}_stretch"])
            low, high = amount * low, 1 - amount * (1 - high)
            source = clamp_to_unit((source - low) / jnp.maximum(high - low, 0.4))
            sources.append(_curved(source, _spread(whole[f"{name}_curve"])))
        bands = [_bands(source, at) for source in sources]
        (visible_bands, visible_base), (infrared_bands, infrared_base) = bands
        active = [[activity(band, at(level)) for level, band in enumerate(b)] for b, _ in bands]
        logs = [[jnp.log(a + EPSILON) for a in one] for one in active]

        quarter = [_blocks(source, 4) for source in sources]
        quarter += [_mean(one[1], 2) for one in logs] + [one[2] for one in logs]
        x = zero_outside(jnp.concatenate(quarter, -1), at(2))
        x = filmed("quarter_0", conv("quarter_0", x, _QUARTER, 1), 2)
        deep = filmed("context_0", conv("context_0", _mean(x, 4), _CONTEXT), LEVELS)
        deep = filmed("context_1", conv("context_1", deep, _CONTEXT), LEVELS)
        deep = filmed("context_2", conv("context_2", deep, _CONTEXT), LEVELS)
        back = repeat_beyond(conv("context_3", deep, _QUARTER, 1), at(LEVELS))
        x = filmed("quarter_1", conv("quarter_1", zero_outside(x + double(double(back)), at(2)), _QUARTER), 2)
        x = filmed("quarter_2", conv("quarter_2", x, _QUARTER), 2)
        maps = repeat_beyond(conv("maps", x, 2 * LEVELS + 1, 1).astype(jnp.float32), at(2))
        base_maps = repeat_beyond(conv("base", deep, 2, 1).astype(jnp.float32), at(LEVELS))

        towards = [maps[..., level : level + 1] for level in range(LEVELS)]
        towards = [double(double(towards[0])), double(towards[1]), towards[2], half(towards[3])]
        boost = jnp.exp(1.2 * jnp.tanh(0.3 * maps[..., LEVELS : 2 * LEVELS]))
        boosts = [boost[..., level : level + 1] for level in range(LEVELS)]
        boosts = [double(double(boosts[0])), double(boosts[1]), boosts[2], half(boosts[3])]
        lift = jnp.tanh(0.5 * maps[..., 2 * LEVELS :])
        mix = nn.sigmoid(base_maps[..., :1] - 1)

        shade = 0.3 * jnp.tanh(0.3 * base_maps[..., 1:])
        fused = visible_base + mix * (infrared_base - visible_base) + shade
        shares: list[Float[Array, "b _ _ 1"]] = []
        for level in reversed(range(LEVELS)):
            rate = _spread(whole[f"sharing_{level}"])
            share = nn.sigmoid(rate * (logs[1][level] - logs[0][level]) + towards[level])
            shares.insert(0, share)
            band = visible_bands[level] + share * (infrared_bands[level] - visible_bands[level])
            if level < 2:
                chosen = active[0][level] + share * (active[1][level] - active[0][level])
                noise = _spread(whole[f"noise_{level}"])
                band = band * chosen / (chosen + noise)
            fused = double(fused) + boosts[level] * band
            if level == 2:
                visible_light, heat = (_to_quarter(source, at) for source in sources)
                raised = nn.relu(lift) * nn.relu(heat - fused)
                fused = fused + raised + nn.relu(-lift) * (visible_light - fused)
            fused = repeat_beyond(fused, at(level))
        contrast, offset = _spread(whole["contrast"]), _spread(whole["offset"])
        fused = clamp_to_unit(0.5 + contrast * (fused - 0.5) + offset)
        fused = _curved(fused, _spread(whole["curve"]))
        result = zero_outside(fused[:, :height, :width], sizes)
        return result, Coefficients(shares, boost, mix, shade, lift, whole)

    def _decided_by_the_whole(
        self, statistics: Float[Array, "b 18"], words: Float[Array, "b d"] | None
    ) -> tuple[dict[str, tuple[Float[Array, "b c"], Float[Array, "b c"]]], dict[str, Float[Array, " b"]]]:
        """FiLM's scales and shifts by layer, and the numbers of the whole image."""
        count = 2 * sum(FILMED.values()) + len(GLOBAL)
        centred = (statistics - np.tile(CENTRE, 2)) * np.tile(SCALE, 2)
        small = nn.initializers.normal(0.01)
        # The default rounds products to fewer digits on GPU and TPU.
        dense = partial(nn.Dense, precision="highest")
        seen = nn.relu(dense(32, name="statistics_0")(centred))
        numbers = dense(count, kernel_init=small, name="statistics_1")(seen)
        if words is None:
            words = jnp.zeros((statistics.shape[0], self.embedding))
        # Without biases: no direction moves nothing, and half a direction half as much.
        said = nn.relu(dense(64, use_bias=False, name="words_0")(words))
        gate = 1 + dense(64, kernel_init=small, name="words_gate")(seen)
        numbers += dense(count, use_bias=False, kernel_init=small, name="words_1")(said * gate)
        film, start = {}, 0
        for name, channels in FILMED.items():
            film[name] = numbers[:, start : start + channels], numbers[:, start + channels : start + 2 * channels]
            start += 2 * channels
        raw = {name: numbers[:, start + i] for i, name in enumerate(GLOBAL)}
        return film, {name: _in_range(name, value) for name, value in raw.items()}


def _in_range(name: str, x: Float[Array, " b"]) -> Float[Array, " b"]:
    """What a raw number means, for any words: beyond bounds that no picture needs it stays there."""
    if name.endswith("stretch"):
        return nn.sigmoid(x + 1)
    if name.startswith("sharing"):
        return nn.softplus(x + 2)
    if name.startswith("noise"):
        return 0.02 * nn.softplus(jnp.clip(x, -MOST, MOST) - 3)
    if name == "contrast":
        return jnp.exp(jnp.clip(x, -MOST, MOST))
    return jnp.clip(x, -MOST, MOST)  # curves, offset


def _curved(x: Float[Array, "b h w 1"], strength: Float[Array, "b 1 1 1"]) -> Float[Array, "b h w 1"]:
    """A rising curve from 0 to 1, that brightens where `strength` is positive: x / (x + (1 - x) exp(-strength))."""
    return x / (x + (1 - x) * jnp.exp(-strength))


def _spread(x: Float[Array, " b"]) -> Float[Array, "b 1 1 1"]:
    return x[:, None, None, None]


def _whole_cells(x: Float[Array, "b h w 1"]) -> Float[Array, "b h2 w2 1"]:
    return jnp.pad(x, ((0, 0), *((0, -side % TILE_MULTIPLE) for side in x.shape[1:3]), (0, 0)), mode="edge")


def _bands(source: Float[Array, "b h w 1"], at: Callable[[int], Sizes]) -> tuple[list[Float[Array, "b _ _ 1"]], Array]:
    """The Laplacian bands of a source, finest first, and its base at a sixteenth of the resolution."""
    bands = []
    for level in range(LEVELS):
        small = half(source, at(level + 1))
        bands.append(source - double(small, at(level)))
        source = small
    return bands, source


def _to_quarter(source: Float[Array, "b h w 1"], at: Callable[[int], Sizes]) -> Float[Array, "b h4 w4 1"]:
    return half(half(source, at(1)), at(2))


def _blocks(x: Float[Array, "b h w 1"], side: int) -> Float[Array, "b h2 w2 d"]:
    """Blocks of side x side pixels as channels."""
    b, h, w, _ = x.shape
    x = x.reshape(b, h // side, side, w // side, side).swapaxes(2, 3)
    return x.reshape(b, h // side, w // side, side * side)


def _mean(x: Float[Array, "b h w c"], side: int) -> Float[Array, "b h2 w2 c"]:
    b, h, w, c = x.shape
    return x.reshape(b, h // side, side, w // side, side, c).mean((2, 4))
