"""What the 256-level histograms of images tell: entropy, mutual information, cross entropy."""

from functools import partial, reduce

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from langfuse_jax.metrics.region import Images, Scores, Sizes, blank, inside, ratio

LEVELS = 256


@jax.jit
def entropy(fused: Images, *, sizes: Sizes = None) -> Scores:
    """EN, entropy of the fused image in bits: -sum p log2 p, p the histogram of its 256 levels.

    Values are rounded and clipped to levels 0-255. Range [0, 8], higher is better; 0 for a constant image. Noise raises
    it. Roberts et al., J. Appl. Remote Sens. 2008. The same in all published scripts.

    >>> image = jnp.array([[[0, 85], [170, 255]]])
    >>> entropy(image).tolist()
    [2.0]
    """
    return _entropy(_histogram(_levels(fused), sizes))


@partial(jax.jit, static_argnames="convention")
def mutual_information(
    fused: Images, visible: Images, infrared: Images, *, sizes: Sizes = None, convention: str = "cddfuse"
) -> Scores:
    """MI = I(F; A) + I(F; B), I(X; Y) = sum p(x, y) log(p(x, y) / (p(x) p(y))) over 256 x 256 levels.

    "cddfuse", "vifb": nats, as their scripts. "corrected": bits, which is nats / ln 2. "tang": bits, I = H(X) + H(Y)
    - H(X, Y) with levels 254 and 255 one in the joint histogram alone, as its script has it (up to 0.7 % too high).
    Range [0, 2 H(F)], higher is better; 0 for a constant fused image. Not normalised, so images with a high entropy
    score high; a plain maximum of the sources beats most methods. Qu, Zhang and Yan, Electron. Lett. 2002.

    >>> image = jnp.array([[[0, 85], [170, 255]]])
    >>> mutual_information(image, image, image, convention="corrected").round(3).tolist()
    [4.0]
    """
    f, v, i = (_levels(x) for x in (fused, visible, infrared))
    joint = [_histogram(f, sizes, x) for x in (v, i)]
    nats = reduce(jnp.add, map(_information, joint))
    if convention == "tang":
        nats += reduce(jnp.add, map(_merged_excess, joint))
    return nats if convention in ("cddfuse", "vifb") else nats / np.log(2)


@jax.jit
def normalised_mutual_information(fused: Images, visible: Images, infrared: Images, *, sizes: Sizes = None) -> Scores:
    """NMI = 2 (I(F; A) + I(F; B)) / (H(A) + H(B)), no unit.

    Range [0, 2], 2 for three identical images, higher is better; 0 where both sources are constant.
    As IVIF_ZOO computes it; others divide each term by its own entropies (Hossny et al., Electron. Lett. 2008).

    >>> image = jnp.array([[[0, 85], [170, 255]]])
    >>> normalised_mutual_information(image, image, image).round(3).tolist()
    [2.0]
    """
    f, v, i = (_levels(x) for x in (fused, visible, infrared))
    bits = reduce(jnp.add, (_information(_histogram(f, sizes, x)) for x in (v, i))) / np.log(2)
    return ratio(2 * bits, reduce(jnp.add, (_entropy(_histogram(x, sizes)) for x in (v, i))))


@jax.jit
def cross_entropy(fused: Images, visible: Images, infrared: Images, *, sizes: Sizes = None) -> Scores:
    """CE = (D(A, F) + D(B, F)) / 2, D(X, F) = sum p_X log2(p_X / p_F) in bits, over levels that both images have.

    Range up to log2(h w), lower is better; 0 for identical histograms and for constant images. Unreliable: levels that
    F lacks are left out, so it is too low (even below 0) exactly where F lost a source's levels. Equals VIFB's script;
    the same in every convention. Bulanon, Burks and Alchanatis, Biosyst. Eng. 2009.

    >>> image = jnp.array([[[0, 85], [170, 255]]])
    >>> cross_entropy(image, image, image).tolist()
    [0.0]
    """
    f, v, i = (_histogram(_levels(x), sizes) for x in (fused, visible, infrared))

    def divergence(source: Float[Array, "b n"]) -> Scores:
        both = (source > 0) & (f > 0)
        p, q = (jnp.where(both, _probability(counts), 1) for counts in (source, f))
        return jnp.sum(jnp.where(both, p * jnp.log2(p / q), 0), axis=1)

    return (divergence(v) + divergence(i)) / 2


def _levels(images: Images) -> Int[Array, "b h w"]:
    """0 to 255, whatever the values: beyond them lie the next image's levels."""
    if jnp.issubdtype(images.dtype, jnp.integer):
        return jnp.clip(images, 0, min(LEVELS - 1, jnp.iinfo(images.dtype).max)).astype(jnp.int32)
    # NaN may stand outside a true size: what it is cast to is clipped too.
    return jnp.clip(jnp.round(images).astype(jnp.int32), 0, LEVELS - 1)


def _histogram(
    levels: Int[Array, "b h w"], sizes: Sizes, others: Int[Array, "b h w"] | None = None
) -> Float[Array, "b *levels"]:
    """Counts (b, 256), or of both images' levels (b, 256, 256)."""
    b = levels.shape[0]
    levels = blank(levels, sizes)
    shape = (LEVELS,) if others is None else (LEVELS, LEVELS)
    if others is not None:
        levels = levels * LEVELS + blank(others, sizes)
    bins = LEVELS ** len(shape)
    index = (levels + bins * jnp.arange(b)[:, None, None]).ravel()
    counted = 1 if sizes is None else inside(levels, sizes).ravel().astype(jnp.int32)
    counts = jnp.zeros(b * bins, jnp.int32).at[index].add(counted, mode="promise_in_bounds")
    return counts.reshape(b, *shape).astype(jnp.result_type(float))


def _probability(counts: Float[Array, "b *levels"]) -> Float[Array, "b *levels"]:
    return counts / jnp.maximum(jnp.sum(counts, axis=tuple(range(1, counts.ndim)), keepdims=True), 1)


def _entropy(counts: Float[Array, "b n"]) -> Scores:
    p = _probability(counts)
    return 0 - jnp.sum(p * jnp.log2(jnp.where(p > 0, p, 1)), axis=1)


def _information(counts: Float[Array, "b n n"]) -> Scores:
    """Mutual information in nats; term by term, as a difference of entropies would lose digits."""
    p = _probability(counts)
    q = jnp.sum(p, axis=2, keepdims=True) * jnp.sum(p, axis=1, keepdims=True)
    return jnp.sum(p * jnp.log(jnp.where(p > 0, p / jnp.where(q > 0, q, 1), 1)), axis=(1, 2))


def _merged_excess(counts: Float[Array, "b n n"]) -> Scores:
    """By how many nats the joint entropy falls if levels 254 and 255 are one."""

    def nats(p: Float[Array, "b ..."]) -> Scores:
        return -jnp.sum(p * jnp.log(jnp.where(p > 0, p, 1)), axis=tuple(range(1, p.ndim)))

    p = _probability(counts)
    low = LEVELS - 2
    rows, columns, corner = p[:, low:, :low], p[:, :low, low:], p[:, low:, low:]
    apart = nats(rows) + nats(columns) + nats(corner)
    return apart - nats(rows.sum(axis=1)) - nats(columns.sum(axis=2)) - nats(corner.sum(axis=(1, 2))[:, None])
