"""Cosine and wavelet transforms of images whose true size is traced: products with matrices, which no FFT allows."""

from collections.abc import Callable
from functools import partial
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from langfuse_jax.metrics.region import Maps, Sizes, blank

# MATLAB's low-pass filter "dmey", a finite approximation of Meyer's, from its middle outwards; it is symmetric.
_MEYER = (
    *(0.7445855923188063, 0.44459300275757724, -0.035087555656258346, -0.13284520043622938, 0.030655091960824263),
    *(0.0637390243228016, -0.024348745906078023, -0.03213079399021176, 0.017423434103729693, 0.015270015130934803),
    *(-0.011061496392513451, -0.006387718318497156, 0.006045814097323304, 0.002202534100911002, -0.002704672124643725),
    *(-0.0006011502343516092, 6.554305930575149e-05, -1.6312699734552807e-05, 3.20544191334478e-06),
    *(7.367572885903746e-07, -1.489549216497156e-06, 1.1307947017916706e-06, -5.506340565252278e-07),
    *(1.1783004497663934e-07, 8.200680650386481e-08, -1.0866516536735883e-07, 6.066975741351135e-08),
    *(-1.0798819539621958e-08, -1.111944952595278e-08, 8.519459636796214e-09, -1.009999956941423e-12),
)
_Length = TypeVar("_Length", int, Array)

_LOW = np.array([0, *_MEYER[:0:-1], *_MEYER])
_HIGH = _LOW[::-1] * (-1) ** np.arange(1, len(_LOW) + 1)


def cosine_transform(image: Maps, sizes: Sizes) -> tuple[Maps, Sizes]:
    """The orthonormal DCT-II in both directions (MATLAB's dct2), and its size, which is the image's."""

    def rows(length: int, n: Int[Array, ""]) -> tuple[Float[Array, "_ _"], Float[Array, " _"]]:
        at = jnp.arange(length)
        # Whole turns are left out while they are integers, so that float32 keeps the digits of what remains.
        steps = (2 * at + 1) * at[:, None] % (4 * n)
        n = n.astype(image.dtype)
        waves = jnp.cos(steps.astype(image.dtype) / (2 * n) * np.pi) * jnp.sqrt(2 / n)
        waves = jnp.where(at[:, None] == 0, jnp.sqrt(1 / n), waves)
        return jnp.where((at[:, None] < n) & (at < n), waves, 0), jnp.where(at == 0, jnp.sqrt(n), 0)

    return _product(image, sizes, rows), sizes


def meyer_transform(image: Maps, sizes: Sizes) -> tuple[Float[Array, "b hh ww"], Sizes]:
    """One step of the wavelet transform "dmey" as [cA, cH; cV, cD] of MATLAB's dwt2, and its size, some 60 larger.

    The image is mirrored at its edges (half-point), as dwt2 does by default.
    """
    taps = len(_LOW)

    def rows(
        first: Float[np.ndarray, " taps"], second: Float[np.ndarray, " taps"], length: int, n: Int[Array, ""]
    ) -> tuple[Float[Array, "_ _"], Float[Array, " _"]]:
        half, at = _half(n), jnp.arange(2 * _half(length))
        place = jnp.where(at < half, at, at - half)[:, None]
        source = (2 * place + 1 - jnp.arange(taps)) % (2 * n)
        source = jnp.minimum(source, 2 * n - 1 - source)
        weights = jnp.where(at[:, None] < half, jnp.asarray(first, image.dtype), jnp.asarray(second, image.dtype))
        matrix = jnp.zeros((at.size, length), image.dtype).at[at[:, None], source].add(weights)
        return matrix, jnp.sum(weights, axis=1)

    # cH is low across and high down, but stands where products of stacked filters are high across and low down.
    straight, crossed = (_product(image, sizes, partial(rows, *pair)) for pair in ((_LOW, _HIGH), (_HIGH, _LOW)))
    halves = _half(jnp.array([image.shape[1:]]) if sizes is None else sizes)
    top, left = (jnp.arange(n) < halves[:, k, None] for k, n in enumerate(straight.shape[1:]))
    return jnp.where(top[:, :, None] == left[:, None, :], straight, crossed), None if sizes is None else 2 * halves


def _half(n: _Length) -> _Length:
    return (n + len(_LOW) - 1) // 2


def _product(
    image: Maps, sizes: Sizes, rows: Callable[[int, Int[Array, ""]], tuple[Float[Array, "_ _"], Float[Array, " _"]]]
) -> Float[Array, "b hh ww"]:
    """The image with its columns and its rows each multiplied by a matrix: rows(length, n) for n of length pixels.

    `rows` also gives the matrix's sums along rows: a constant image is transformed exactly, without rounding.
    """
    n = jnp.array([image.shape[1:]]) if sizes is None else sizes
    (down, sums_down), (across, sums_across) = (
        jax.vmap(partial(rows, image.shape[axis + 1]))(n[:, axis]) for axis in (0, 1)
    )
    corner = image[:, :1, :1]
    rest = blank(image - corner, sizes)
    maps = jnp.matmul(jnp.matmul(down, rest, precision="highest"), across.swapaxes(1, 2), precision="highest")
    return maps + corner * sums_down[:, :, None] * sums_across[:, None, :]
