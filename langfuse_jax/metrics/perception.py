"""Metrics after models of human contrast sensitivity: Qcb and Qcv."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Complex, Float, Inexact, Int

from langfuse_jax.metrics.gradients import sobel
from langfuse_jax.metrics.region import Images, Maps, Scores, Sizes, blank, gray, inside, mean, ratio
from langfuse_jax.metrics.windows import local_mean

_BLOCK = 16


@jax.jit
def chen_blum(fused: Images, visible: Images, infrared: Images, *, sizes: Sizes = None) -> Scores:
    """Qcb = mean(l_A Q_A + l_B Q_B), Q_X = min(P_X, P_F) / max(P_X, P_F), l_X = P_X^2 / (P_A^2 + P_B^2).

    P = c^3 / (c^2 + 0.0001) masks the local contrast c = |G2 x / G4 x - 1| of images stretched to 0-255 and filtered by
    exp(-(r / 15.387)^2) - 0.7622 exp(-(r / 1.3456)^2), r in steps of 1/15 cycle per image; G2, G4 Gaussians of sigma 2
    and 4 on 31 x 31 pixels, zero padded. Range [0, 1], higher is better; 1 for identical images. A constant image has
    no contrast: agreement is 1 with another constant one, else 0. The stretch hides changes of brightness and contrast.
    Equals VIFB's script (which gives NaN for constants); the same in every convention. Chen and Blum, Image Vis.
    Comput. 2009.

    >>> from langfuse_jax.examples.night_scene import night_scene
    >>> image = jnp.asarray(night_scene(48, 64)[1])[None]
    >>> [round(chen_blum(fused, image, image).item(), 3) for fused in (image, image // 2)]
    [1.0, 0.943]
    """
    images = [_stretched(x, sizes) for x in gray(sizes, fused, visible, infrared)]
    f, a, b = (_masked_contrast(x, sizes) for x in images)

    def agreement(x: Maps) -> Maps:
        larger = jnp.maximum(x, f)
        return jnp.where(larger > 0, ratio(jnp.minimum(x, f), larger), 1)

    salient = a * a + b * b
    weight = jnp.where(salient > 0, ratio(a * a, salient), 0.5)
    return mean(weight * agreement(a) + (1 - weight) * agreement(b), sizes)


@jax.jit
def chen_varshney(fused: Images, visible: Images, infrared: Images, *, sizes: Sizes = None) -> Scores:
    """Qcv = sum(s_A D_A + s_B D_B) / sum(s_A + s_B) over blocks of 16 x 16 pixels, of images stretched to 0-255.

    s_X is the sum of the fifth powers of the Sobel magnitude, D_X the mean square of X - F filtered by 2.6 (0.0192 +
    0.144 r) exp(-(0.144 r)^1.1), r in steps of 1/4 cycle per image; blocks over the border are filled with zeros.
    Range [0, 65025], lower is better; 0 for identical images and where no source has an edge. Unreliable: the fifth
    power lets few blocks decide. Equals VIFB's script (its real part); the same in every convention. Chen and Varshney,
    Inf. Fusion 2007.

    >>> from langfuse_jax.examples.night_scene import night_scene
    >>> image = jnp.asarray(night_scene(48, 64)[1])[None]
    >>> [round(chen_varshney(fused, image, image).item(), 1) for fused in (image, image // 2)]
    [0.0, 0.5]
    """
    f, v, i = (_stretched(x, sizes) for x in gray(sizes, fused, visible, infrared))
    above = below = jnp.zeros(fused.shape[0], f.dtype)
    for source in (v, i):
        x, y = sobel(jnp.pad(source, ((0, 0), (1, 1), (1, 1))))
        power = (x * x + y * y) / 255**2  # scaled: a fifth power strains float32
        salience = _block_sums(blank(power * power * jnp.sqrt(power), sizes))
        filtered = _filtered(
            source - f, sizes, lambda r: 2.6 * (0.0192 + 0.144 * r) * jnp.exp(-((0.144 * r) ** 1.1)), 4
        )
        difference = _block_sums(blank(filtered * filtered, sizes)) / _BLOCK**2
        above += jnp.sum(salience * difference, axis=(1, 2))
        below += jnp.sum(salience, axis=(1, 2))
    return ratio(above, below)


def _stretched(image: Maps, sizes: Sizes) -> Maps:
    """Whole levels, the least 0 and the largest 255; a constant image is 0."""
    within = inside(image, sizes)
    least = jnp.min(jnp.where(within, image, jnp.inf), axis=(1, 2), keepdims=True)
    span = jnp.max(jnp.where(within, image, -jnp.inf), axis=(1, 2), keepdims=True) - least
    # Halves are rounded up, as XLA's division alone would not see to: of whole levels, others are 1/510 or more away.
    return blank(jnp.floor((image - least) / jnp.where(span > 0, span, 1) * 255 + 0.5005), sizes)


def _masked_contrast(image: Maps, sizes: Sizes) -> Maps:
    def sensitivity(r: Maps) -> Maps:
        return jnp.exp(-((r / 15.3870) ** 2)) - 0.7622 * jnp.exp(-((r / 1.3456) ** 2))

    image = jnp.pad(blank(_filtered(image, sizes, sensitivity, 15), sizes), ((0, 0), (15, 15), (15, 15)))
    at = np.arange(-15, 16)
    windows = ((np.exp(-(at**2) / (2 * s * s)) / np.sqrt(2 * np.pi * s * s)).tolist() for s in (2, 4))
    near, far = (local_mean(image, window) for window in windows)
    contrast = jnp.where(far == 0, 0, jnp.abs(ratio(near, far) - 1))
    return contrast**3 / (contrast**2 + 0.0001)


def _filtered(image: Maps, sizes: Sizes, response: Callable[[Maps], Maps], steps: int) -> Maps:
    """The image with each frequency of k cycles down and l across times response(hypot(k, l) / steps)."""
    frequencies = []
    for axis in (1, 2):
        at = jnp.arange(image.shape[axis])
        n = image.shape[axis] if sizes is None else sizes[:, axis - 1, None]
        frequencies.append(jnp.broadcast_to(jnp.where(at < (n + 1) // 2, at, at - n), (image.shape[0], at.size)))
    rows, columns = (k.astype(image.dtype) / steps for k in frequencies)
    gain = response(jnp.hypot(rows[:, :, None], columns[:, None, :]))
    if sizes is None:
        return jnp.fft.ifft2(jnp.fft.fft2(image) * gain).real
    # No FFT has a traced length: products with the DFT's matrices do.
    down, across = (_fourier(image.shape[axis], sizes[:, axis - 1], image.dtype) for axis in (1, 2))

    def product(*matrices: Inexact[Array, "b _ _"]) -> Inexact[Array, "b _ _"]:
        return jnp.einsum("bik,bkl,blj->bij", *matrices, precision="highest")

    spectrum = product(down, image.astype(down.dtype), across) * gain
    n = jnp.prod(sizes.astype(image.dtype), axis=1)[:, None, None]
    return product(down.conj(), spectrum, across.conj()).real / n


def _fourier(length: int, n: Int[Array, " b"], dtype: DTypeLike) -> Complex[Array, "b n n"]:
    """exp(-2 pi i j k / n) for each n of a batch; 0 where j or k is not below n. Symmetric."""
    at, n = jnp.arange(length), n[:, None, None]
    turns = (at[:, None] * at % n).astype(dtype) / n.astype(dtype)
    return jnp.where((at[:, None] < n) & (at < n), jnp.exp(-2j * np.pi * turns), 0)


def _block_sums(maps: Maps) -> Float[Array, "b rows columns"]:
    b, h, w = maps.shape
    maps = jnp.pad(maps, ((0, 0), (0, -h % _BLOCK), (0, -w % _BLOCK)))
    return maps.reshape(b, -(-h // _BLOCK), _BLOCK, -(-w // _BLOCK), _BLOCK).sum(axis=(2, 4))
