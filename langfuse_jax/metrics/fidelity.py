"""Visual information fidelity."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Num

from langfuse_jax.metrics.region import Sizes, gray, halve, ratio, shrink, total
from langfuse_jax.metrics.windows import gaussian, local_covariance, local_mean

_NOISE = 2.0  # variance of the visual noise, on 0-255
_NOTHING = 1e-10  # a variance below this is none


@jax.jit
def visual_information_fidelity(
    fused: Num[Array, "b h w"], visible: Num[Array, "b h w"], infrared: Num[Array, "b h w"], *, sizes: Sizes = None
) -> Float[Array, " b"]:
    """VIF = v(A, F) + v(B, F), the pixel-domain VIFp of Sheikh and Bovik over 4 scales:

        v = sum log(1 + g^2 s / (sv + 2)) / sum log(1 + s / 2),  g = cov / s,  sv = var F - g cov

    with s the variance of a source in a Gaussian window of 17, 9, 5, 3 pixels (sigma a fifth of it), and each scale
    the one before smoothed and every second pixel of it. Papers print it as VIF or VIFF, yet it is not the VIFF of Han
    et al. 2013, a different quantity. Range about [0, 2], higher is better; 2 for identical images, above where F has
    more contrast than a source; a source without detail adds 0 (NaN in the scripts), and so does a scale for which the
    image is too small; 17 pixels a side are the least. It hangs on the scale of the values: 0-255, not 0-1. The same
    in CDDFuse, Tang and every convention. Sheikh and Bovik, IEEE Trans. Image Process. 2006.
    """
    f, v, i = gray(sizes, fused, visible, infrared)
    kept = lost = 0
    sources = [[v, 0.0, 0.0], [i, 0.0, 0.0]]
    for scale, taps in enumerate((17, 9, 5, 3)):
        window = gaussian(taps, taps / 5)
        if scale:
            if min(f.shape[1:]) < taps:
                break
            f, *smooth = (local_mean(x, window)[:, ::2, ::2] for x in (f, sources[0][0], sources[1][0]))
            for source, x in zip(sources, smooth, strict=True):
                source[0] = x
            sizes = halve(shrink(sizes, taps - 1))
        if min(f.shape[1:]) < taps:
            break
        left = shrink(sizes, taps - 1)
        for source in sources:
            kept, whole = _information(f, source[0], window)
            source[1] += total(kept, left)
            source[2] += total(whole, left)
    return sum(ratio(kept, whole) for _, kept, whole in sources)


def _information(fused, source, window):
    s, t, covariance = (local_covariance(x, y, window) for x, y in ((source, source), (fused, fused), (source, fused)))
    gain = covariance / (s + _NOTHING)
    rest = t - gain * covariance
    flat = s < _NOTHING
    gain, rest, s = jnp.where(flat, 0, gain), jnp.where(flat, t, rest), jnp.where(flat, 0, s)
    lost = t < _NOTHING
    gain, rest = jnp.where(lost, 0, gain), jnp.where(lost, 0, rest)
    rest = jnp.maximum(jnp.where(gain < 0, t, rest), _NOTHING)
    gain = jnp.maximum(gain, 0)
    return jnp.log1p(gain * gain * s / (rest + _NOISE)), jnp.log1p(s / _NOISE)
