"""Structural similarity: SSIM."""

from functools import partial

import jax
from jaxtyping import Array, Float, Num

from langfuse_jax.metrics.region import Sizes, gray, mean, padded, shrink
from langfuse_jax.metrics.windows import gaussian, triple_moments, uniform


@partial(jax.jit, static_argnames="convention")
def structural_similarity(
    fused: Num[Array, "b h w"],
    visible: Num[Array, "b h w"],
    infrared: Num[Array, "b h w"],
    *,
    sizes: Sizes = None,
    convention: str = "cddfuse",
) -> Float[Array, " b"]:
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
    means, variances, covariances = triple_moments(*images, window)
    c1, c2 = (0.01 * span) ** 2, (0.03 * span) ** 2

    def similarity(source):
        mf, ms = means[0], means[source]
        luminance = (2 * mf * ms + c1) / (mf * mf + ms * ms + c1)
        shared, apart = covariances[source - 1], variances[0] + variances[source]
        return mean(luminance * (2 * correction * shared + c2) / (correction * apart + c2), left)

    both = similarity(1) + similarity(2)
    return both / 2 if convention == "tang" else both
