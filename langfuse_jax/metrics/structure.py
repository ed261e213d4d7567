"""Structural similarity: SSIM and MS-SSIM."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from langfuse_jax.metrics.region import Images, Maps, Scores, Sizes, gray, halve, mean, padded, replicate, shrink
from langfuse_jax.metrics.windows import gaussian, triple_moments, uniform


@partial(jax.jit, static_argnames="convention")
def structural_similarity(
    fused: Images, visible: Images, infrared: Images, *, sizes: Sizes = None, convention: str = "cddfuse"
) -> Scores:
    """SSIM(F, A) + SSIM(F, B), each the mean over windows of

        (2 mx my + C1)(2 cov + C2) / ((mx^2 + my^2 + C1)(vx + vy + C2)),  C1 = (0.01 L)^2, C2 = (0.03 L)^2

    ============  ===========================  ===  =========  =======================
    convention    window                       L    border     both sources
    ============  ===========================  ===  =========  =======================
    "cddfuse"     7 x 7, cov over N - 1        2    inside     sum (CDDFuse)
    "tang"        Gaussian 11 x 11, sigma 1.5  1    repeated   mean (Tang)
    "vifb"        Gaussian 11 x 11, sigma 1.5  255  inside     sum (VIFB; Wang 2004)
    "corrected"   7 x 7, cov over N - 1        255  inside     sum (IF-FILM)
    ============  ===========================  ===  =========  =======================

    Range [-2, 2] ("tang" [-1, 1]), higher is better; identical images give the maximum, constant ones too where their
    levels agree. Unreliable with L = 2 or 1 on 0-255 data ("cddfuse", "tang"): the constants all but vanish, so noise
    in flat areas decides. Needs as many pixels a side as the window. Wang et al., IEEE Trans. Image Process. 2004.

    >>> from langfuse_jax.examples.night_scene import night_scene
    >>> image = jnp.asarray(night_scene(48, 64)[1])[None]
    >>> [round(structural_similarity(fused, image, image).item(), 3) for fused in (image, image // 2)]
    [2.0, 1.269]
    """
    images = gray(sizes, fused, visible, infrared)
    window = gaussian(11, 1.5) if convention in ("tang", "vifb") else uniform(7)
    if convention == "tang":
        images = tuple(padded(x, sizes, len(window) // 2) for x in images)
        left = sizes
    else:
        left = shrink(sizes, len(window) - 1)
    n = len(window) ** 2
    correction = 1 if convention in ("tang", "vifb") else n / (n - 1)
    span = {"cddfuse": 2, "tang": 1}.get(convention, 255)
    means, variances, covariances = triple_moments(images[0], images[1], images[2], window)
    c1, c2 = (0.01 * span) ** 2, (0.03 * span) ** 2

    def against(source: int) -> Scores:
        mf, ms = means[0], means[source]
        luminance = (2 * mf * ms + c1) / (mf * mf + ms * ms + c1)
        shared, apart = covariances[source - 1], variances[0] + variances[source]
        return mean(luminance * (2 * correction * shared + c2) / (correction * apart + c2), left)

    both = against(1) + against(2)
    return both / 2 if convention == "tang" else both


_SCALE_WEIGHTS = np.array([0.0448, 0.2856, 0.3001]) / (0.0448 + 0.2856 + 0.3001)
_LARGEST_POWER = 10.0


@jax.jit
def multi_scale_structural_similarity(
    fused: Images, visible: Images, infrared: Images, *, sizes: Sizes = None
) -> Scores:
    """MS-SSIM in the form of MEF-SSIM: prod over 3 scales of q^(.0448, .2856, .3001, of sum 1), each scale the mean of

        q = (2 cov(R, F) + C) / (var R + var F + C),  C = (0.03 * 255)^2,  in Gaussian windows of 11 x 11, sigma 1.5

    R is the patch that one would wish for in F: the sources' patches less their means, weighted by their contrasts to
    a power that grows with their agreement, brought to the larger contrast. A single score against both sources,
    without a luminance term. Range [0, 1], higher is better; 1 for identical and for constant images; a negative scale
    counts as 0. Needs 44 pixels a side. Equals Tang's script; not comparable with the five-scale MS-SSIM of Wang et al.
    that other papers quote. The same in every convention. Ma, Zeng and Wang, IEEE Trans. Image Process. 2015.

    >>> from langfuse_jax.examples.night_scene import night_scene
    >>> image = jnp.asarray(night_scene(48, 64)[1])[None]
    >>> [round(multi_scale_structural_similarity(fused, image, image).item(), 3) for fused in (image, image // 2)]
    [1.0, 0.834]
    """
    images = gray(sizes, fused, visible, infrared)
    score = jnp.ones(fused.shape[0], images[0].dtype)
    for scale, weight in enumerate(_SCALE_WEIGHTS):
        if scale:
            images = tuple(_half(x, sizes) for x in images)
            sizes = halve(sizes)
        score *= jnp.maximum(mean(_preserved_structure(*images), shrink(sizes, 10)), 0) ** weight
    return score


def _half(image: Maps, sizes: Sizes) -> Float[Array, "b hh ww"]:
    """Means of 2 x 2 pixels, the last row and column repeated where the size is odd."""
    image = jnp.pad(replicate(image, sizes), ((0, 0), (0, 1), (0, 1)), mode="edge")
    image = image[:, :-1:2] + image[:, 1::2]
    return (image[:, :, :-1:2] + image[:, :, 1::2]) / 4


def _preserved_structure(fused: Maps, a: Maps, b: Maps) -> Float[Array, "b hh ww"]:
    _, (va, vb, _), (cab, _) = triple_moments(a, b, b, uniform(11))
    _, (wf, wa, wb), (waf, wbf) = triple_moments(fused, a, b, gaussian(11, 1.5))
    _, _, (wab, _) = triple_moments(a, b, b, gaussian(11, 1.5))
    tiny = np.finfo(np.float64).eps

    def norm(square: Array) -> Array:
        return 11 * jnp.sqrt(jnp.maximum(square, 0))

    contrast_a, contrast_b = norm(va) + 0.001, norm(vb) + 0.001
    agreement = (norm(va + vb + 2 * cab) + tiny) / (norm(va) + norm(vb) + tiny)
    # Where the power reaches its largest value the tangent is still far from its pole.
    power = jnp.tan(np.pi / 2 * jnp.minimum(agreement, 2 / np.pi * np.arctan(_LARGEST_POWER)))
    weight_a, weight_b = ((x / 11) ** power + tiny for x in (contrast_a, contrast_b))
    p, q = (x / (weight_a + weight_b) / y for x, y in ((weight_a, contrast_a), (weight_b, contrast_b)))
    length = norm(p * p * va + q * q * vb + 2 * p * q * cab)
    gain = jnp.where(length > 0, jnp.maximum(contrast_a, contrast_b) / jnp.where(length > 0, length, 1), 1)
    wished = gain * gain * (p * p * wa + q * q * wb + 2 * p * q * wab)
    shared = gain * (p * waf + q * wbf)
    c = (0.03 * 255) ** 2
    return (2 * shared + c) / (wished + wf + c)
