"""How well edges of the sources survive, in strength and orientation (Qabf), and what F adds to them (Nabf)."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from langfuse_jax.metrics.gradients import sobel
from langfuse_jax.metrics.region import Images, Maps, Scores, Sizes, gray, mirrored, ratio, shrink, total


@partial(jax.jit, static_argnames="convention")
def edge_preservation(
    fused: Images, visible: Images, infrared: Images, *, sizes: Sizes = None, convention: str = "cddfuse"
) -> Scores:
    """Qabf = sum(Q_A g_A + Q_B g_B) / sum(g_A + g_B), with g and a magnitude and angle of the Sobel gradient and

        Q_X = 0.9994 / (1 + exp(-15 (G - 0.5))) * 0.9879 / (1 + exp(-22 (1 - |a_X - a_F| / (pi/2) - 0.8)))

    G = min(g_X, g_F) / max(g_X, g_F). "cddfuse", "tang", "vifb": as all published scripts, which do not wrap the angle
    (6 to 28 % of pixels beyond pi/2), take G = g_F where the two are equal, and pad with zeros, whose frame of strong
    edges every image preserves. "corrected": the difference wrapped at pi, G = 1 where equal, border left out; the two
    partly cancel. Range [0, 0.98], higher is better, 0.975 for identical images; 0 where neither source has an edge:
    black images, and in "corrected" all constant ones (elsewhere their frame is an edge). A plain maximum of the
    sources scores above most methods. Xydeas and Petrovic, Electron. Lett. 2000.

    >>> from langfuse_jax.examples.night_scene import night_scene
    >>> image = jnp.asarray(night_scene(48, 64)[1])[None]
    >>> [round(edge_preservation(fused, image, image).item(), 3) for fused in (image, image // 2)]
    [0.975, 0.475]
    """
    corrected = convention == "corrected"
    images = gray(sizes, fused, visible, infrared)
    if corrected:
        left = shrink(sizes, 2)
    else:
        images = tuple(jnp.pad(x, ((0, 0), (1, 1), (1, 1))) for x in images)
        left = sizes
    (xf, yf), *sources = (sobel(x) for x in images)
    power_f, angle_f = xf * xf + yf * yf, _angle(xf, yf)
    strength_f = jnp.sqrt(power_f)
    preserved = weights = jnp.zeros(fused.shape[0], power_f.dtype)
    for x, y in sources:
        power = x * x + y * y
        strength = jnp.sqrt(power)
        agreement = ratio(jnp.minimum(strength, strength_f), jnp.maximum(strength, strength_f))
        # Squares of whole gray levels are exact, so equality is too.
        agreement = jnp.where(power == power_f, 1 if corrected else strength_f, agreement)
        turn = jnp.abs(_angle(x, y) - angle_f)
        if corrected:
            turn = jnp.minimum(turn, np.pi - turn)
        quality = _sigmoid(0.9994, 15.0, agreement - 0.5) * _sigmoid(0.9879, 22.0, 1 - turn / (np.pi / 2) - 0.8)
        preserved += total(quality * strength, left)
        weights += total(strength, left)
    return ratio(preserved, weights)


@partial(jax.jit, static_argnames="convention")
def fusion_artifacts(
    fused: Images, visible: Images, infrared: Images, *, sizes: Sizes = None, convention: str = "cddfuse"
) -> Scores:
    """Nabf = sum(N ((1 - Q_A) w_A + (1 - Q_B) w_B)) / sum(w_A + w_B), N = 1 where g_F > g_A and g_F > g_B, else 0.

    g and a are magnitude and angle of Sobel / 8 on the image mirrored at its border, w = g^1.5 where g >= 2 else 0.001,

        Q_X = sqrt(0.9999 / (1 + exp(-19 (G - 0.5))) * 0.9995 / (1 + exp(-22 (T - 0.5))))

    G = min(g_X, g_F) / max(g_X, g_F), T = |1 - |a_X - a_F| / (pi/2)|. Range [0, 1], lower is better; 0 for identical
    images and for a constant F. "tang" passes its arguments in the wrong order, so that the infrared image is scored as
    the fused one against visible and fused: unreliable. All others equal the same script called in order, as in
    RFN-Nest's. Shreyamsha Kumar, Signal Image Video Process. 2013.

    >>> from langfuse_jax.examples.night_scene import night_scene
    >>> image = jnp.asarray(night_scene(48, 64)[1])[None]
    >>> [round(fusion_artifacts(fused, image, image).item(), 3) for fused in (image, image // 32 * 32)]
    [0.0, 0.013]
    """
    images = gray(sizes, fused, visible, infrared)
    f, a, b = (images[2], images[1], images[0]) if convention == "tang" else images
    (xf, yf), *sources = (tuple(s / 8 for s in sobel(mirrored(x, sizes))) for x in (f, a, b))
    power_f, angle_f = xf * xf + yf * yf, _flat_angle(xf, yf)
    strength_f = jnp.sqrt(power_f)
    lost = weights = jnp.zeros_like(power_f)
    added = jnp.ones(power_f.shape, bool)
    for x, y in sources:
        power = x * x + y * y
        strength = jnp.sqrt(power)
        agreement = ratio(jnp.minimum(strength, strength_f), jnp.maximum(strength, strength_f))
        turn = jnp.abs(1 - jnp.abs(_flat_angle(x, y) - angle_f) / (np.pi / 2))
        quality = jnp.sqrt(_sigmoid(0.9999, 19.0, agreement - 0.5) * _sigmoid(0.9995, 22.0, turn - 0.5))
        weight = jnp.where(power >= 4, strength * jnp.sqrt(strength), 0.001)
        lost += (1 - quality) * weight
        weights += weight
        added &= power_f > power
    return ratio(total(jnp.where(added, lost, 0), sizes), total(weights, sizes))


def _flat_angle(x: Maps, y: Maps) -> Maps:
    """atan(x / y); pi/2 with the sign of x where y is 0, and 0 where both are."""
    return jnp.where(y == 0, jnp.sign(x) * (np.pi / 2), jnp.arctan(x / jnp.where(y == 0, 1, y)))


def _angle(x: Maps, y: Maps) -> Maps:
    """The angle in (-pi/2, pi/2] of an edge, counted upwards: atan(-y / x), and pi/2 where x is 0."""
    return jnp.where(x == 0, np.pi / 2, jnp.arctan(-y / jnp.where(x == 0, 1, x)))


def _sigmoid(top: float, slope: float, x: Maps) -> Maps:
    return top / (1 + jnp.exp(-slope * x))
