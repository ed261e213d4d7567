"""Visual information fidelity."""

import jax
import jax.numpy as jnp

from langfuse_jax.metrics.region import Images, Maps, Scores, Sizes, blank, gray, halve, ratio, shrink, total
from langfuse_jax.metrics.windows import gaussian, local_mean, triple_moments

_NOISE = 2.0  # variance of the visual noise, on 0-255
_NOTHING = 1e-10  # a variance below this is none


@jax.jit
def visual_information_fidelity(fused: Images, visible: Images, infrared: Images, *, sizes: Sizes = None) -> Scores:
    """VIF = v(A, F) + v(B, F), the pixel-domain VIFp of Sheikh and Bovik over 4 scales:

        v = sum log(1 + g^2 s / (sv + 2)) / sum log(1 + s / 2),  g = cov / s,  sv = var F - g cov

    with s the variance of a source in a Gaussian window of 17, 9, 5, 3 pixels (sigma a fifth of it), and each scale
    the one before smoothed and every second pixel of it. Papers print it as VIF or VIFF, yet it is not the VIFF of Han
    et al. 2013, a different quantity. Range about [0, 2], higher is better; 2 for identical images, above where F has
    more contrast than a source; a constant source or F adds 0 (NaN in the scripts), and so does a scale for which the
    image is too small; 17 pixels a side are the least. It hangs on the scale of the values: 0-255, not 0-1. The same
    in CDDFuse, Tang and every convention. Sheikh and Bovik, IEEE Trans. Image Process. 2006.

    >>> from langfuse_jax.examples.night_scene import night_scene
    >>> image = jnp.asarray(night_scene(48, 64)[1])[None]
    >>> [round(visual_information_fidelity(fused, image, image).item(), 3) for fused in (image, image // 2)]
    [2.0, 1.442]
    """
    # Variances know no shift, and what is left of a constant image has exactly none.
    images = [blank(x - x[:, :1, :1], sizes) for x in gray(sizes, fused, visible, infrared)]
    nothing = jnp.zeros(fused.shape[0], images[0].dtype)
    kept, whole = [nothing, nothing], [nothing, nothing]
    for taps in (17, 9, 5, 3):
        window = gaussian(taps, taps / 5)
        if taps < 17:
            images = [x[:, ::2, ::2] for x in jnp.split(local_mean(jnp.concatenate(images), window), 3)]
            sizes = halve(shrink(sizes, taps - 1))
        if min(images[0].shape[1:]) < taps:
            break
        left = shrink(sizes, taps - 1)
        _, variances, covariances = triple_moments(images[0], images[1], images[2], window)
        for source in (0, 1):
            conveyed, available = _information(variances[source + 1], variances[0], covariances[source])
            kept[source] += total(conveyed, left)
            whole[source] += total(available, left)
    return ratio(kept[0], whole[0]) + ratio(kept[1], whole[1])


def _information(s: Maps, t: Maps, covariance: Maps) -> tuple[Maps, Maps]:
    """Of a source's variance s, the fused image's t: what F shows of the source, and what there is, per window."""
    gain = covariance / (s + _NOTHING)
    rest = t - gain * covariance
    flat = s < _NOTHING
    gain, rest, s = jnp.where(flat, 0, gain), jnp.where(flat, t, rest), jnp.where(flat, 0, s)
    lost = t < _NOTHING
    gain, rest = jnp.where(lost, 0, gain), jnp.where(lost, 0, rest)
    rest = jnp.maximum(jnp.where(gain < 0, t, rest), _NOTHING)
    gain = jnp.maximum(gain, 0)
    return jnp.log1p(gain * gain * s / (rest + _NOISE)), jnp.log1p(s / _NOISE)
