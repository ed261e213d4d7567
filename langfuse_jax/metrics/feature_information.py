"""Feature mutual information (FMI): what a window of the fused image's features tells of the sources' windows."""

from collections.abc import Sequence
from functools import partial, reduce

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from langfuse_jax.metrics.gradients import slope
from langfuse_jax.metrics.region import Images, Maps, Scores, Sizes, gray, mean, shrink
from langfuse_jax.metrics.transforms import cosine_transform, meyer_transform

_Cells = Sequence[Maps]  # of nine

_FEATURES = {
    "pixel": lambda image, sizes: (image, sizes),
    "gradient": lambda image, sizes: (slope(image, sizes, 2), sizes),
    "dct": cosine_transform,
    "wavelet": meyer_transform,
}
# A window of coefficients that differ by less than this, in gray levels, holds rounding errors: it is flat.
_NOISE = {"dct": 0.01, "wavelet": 0.01}


@partial(jax.jit, static_argnames=("convention", "feature"))
def feature_mutual_information(
    fused: Images,
    visible: Images,
    infrared: Images,
    *,
    sizes: Sizes = None,
    convention: str = "cddfuse",
    feature: str = "pixel",
) -> Scores:
    """FMI = mean over windows of (n(F, A) + n(F, B)) / 2, n(X, Y) = 2 (H(X) + H(Y) - H(X, Y)) / (H(X) + H(Y)).

    The 3 x 3 features of a window, less their least and over their sum, count as probabilities p of nine cells (flat
    windows as 1/9 each), counted down the columns. Joint probabilities are

        c m(X, Y) / r + (1 - c / r) p_X p_Y

    with c Pearson's correlation of the p, m the joint distribution of the same p in which both go together (where
    c < 0: one up, one down) and r the correlation of cell numbers in m. n is 1 for equal and for two flat windows.

    `feature`: "pixel"; "gradient", the differences across as `numpy.gradient` has them; "dct", the coefficients of the
    whole image (dct2); "wavelet", those of dwt2 with "dmey" (never compared with MATLAB's own; float32 keeps 4 digits).
    All but "corrected" as the author's fast FMI, which compares the infrared image first and then the visible one with
    the already stretched fused window: swapped sources score differently, by some 1e-4. "corrected" compares both with
    the fused window itself. Tang's "FMI_pixel" is none of these: it leaves the author's default, edges. Range about
    [0, 1], higher is better, 1 for identical images, constant ones included. Unreliable: a flat window scores 1 with
    every flat one and about 0 with others; coefficients that differ by less than 0.01, of which the script compares
    rounding errors, count as flat here; a plain maximum of the sources scores high. Haghighat, Aghagolzadeh and
    Seyedarabi, Comput. Electr. Eng. 2011; Haghighat and Razian, AICT 2014.

    >>> from langfuse_jax.examples.night_scene import night_scene
    >>> image = jnp.asarray(night_scene(48, 64)[1])[None]
    >>> [round(feature_mutual_information(fused, image, image).item(), 3) for fused in (image, image // 2)]
    [1.0, 0.894]
    """
    maps = [_FEATURES[feature](x, sizes) for x in gray(sizes, fused, visible, infrared)]
    windows = [_cells(x) for x, _ in maps]
    f, v, i = windows
    stretched = [jnp.stack(_stretched(x, _NOISE.get(feature, 0.0))) for x in windows]
    stretched = jax.lax.optimization_barrier(stretched)
    equal_visible, equal_infrared = _equal(f, v), _equal(f, i)
    if convention != "corrected":
        equal_visible = jnp.where(equal_infrared, equal_visible, _equal(stretched[0], v))
    flat = [jnp.min(x, axis=0) == 1 for x in stretched]
    certain = [equal | (flat[0] & flat[k]) for k, equal in ((1, equal_visible), (2, equal_infrared))]
    f, v, i = (x / jnp.sum(x, axis=0) for x in stretched)
    # Both sources in one batch: half as much to compile.
    information = _normalised_information(list(jnp.concatenate([v, i], axis=1)), list(jnp.concatenate([f, f], axis=1)))
    information = jnp.where(jnp.concatenate(certain), 1, information)
    of_visible, of_infrared = jnp.split(information, 2)
    return mean((of_visible + of_infrared) / 2, shrink(maps[0][1], 2))


def _cells(image: Maps) -> list[Float[Array, "b hh ww"]]:
    """The 9 values of each window, columns first: (b, h - 2, w - 2) each."""
    h, w = (n - 2 for n in image.shape[1:])
    return [image[:, y : y + h, x : x + w] for x in range(3) for y in range(3)]


def _equal(x: _Cells | Float[Array, "9 b h w"], y: _Cells) -> Bool[Array, "b h w"]:
    return reduce(jnp.logical_and, (a == b for a, b in zip(x, y, strict=True)))


def _stretched(cells: _Cells, noise: float) -> list[Maps]:
    """From 0 to 1; ones in a flat window."""
    least = reduce(jnp.minimum, cells)
    span = reduce(jnp.maximum, cells) - least
    varied = span > noise
    return [jnp.where(varied, (x - least) / jnp.where(varied, span, 1), 1) for x in cells]


def _normalised_information(p: _Cells, q: _Cells) -> Maps:
    """n(X, Y) of probabilities of nine cells each; 0 where neither has entropy."""
    apart = [[x - 1 / 9 for x in z] for z in (p, q)]
    power = _inner(apart[0], apart[0]) * _inner(apart[1], apart[1])
    correlation = jnp.where(power > 0, _inner(*apart) / jnp.sqrt(jnp.where(power > 0, power, 1)), 0)
    # The lower Frechet bound of X and Y is the upper one of X and Y counted backwards, and entropy knows no order.
    q = [jnp.where(correlation < 0, b, a) for a, b in zip(q, q[::-1], strict=True)]
    upto_p, upto_q = _cumulative(p), _cumulative(q)
    covariance = reduce(jnp.add, (jnp.minimum(x, y) - x * y for x in upto_p for y in upto_q))
    usable = covariance > 0
    spread = _spread(p) * _spread(q)
    dependence = jnp.where(usable, jnp.abs(correlation) * spread / jnp.where(usable, covariance, 1), 0)
    marginal = -reduce(jnp.add, (_x_log_x(x) for x in (*p, *q)))

    rows = jnp.stack([jnp.zeros_like(dependence), *upto_p[:-1]]), jnp.stack(upto_p), jnp.stack(p)
    below_q = [jnp.zeros_like(dependence), *upto_q[:-1]]
    dependence, q, below_q, upto_q, rows = jax.lax.optimization_barrier((dependence, q, below_q, upto_q, rows))

    def add_row(k: Int[Array, ""], joint: Maps) -> Maps:
        below, upto, mass = (row[k] for row in rows)
        for y, low, high in zip(q, below_q, upto_q, strict=True):
            together = jnp.maximum(jnp.minimum(upto, high) - jnp.maximum(below, low), 0)
            joint -= _x_log_x(dependence * together + (1 - dependence) * mass * y)
        return joint

    joint = jax.lax.fori_loop(0, len(p), add_row, jnp.zeros_like(dependence))
    return jnp.where(marginal > 0, 2 * (marginal - joint) / jnp.where(marginal > 0, marginal, 1), 0)


def _inner(x: _Cells, y: _Cells) -> Maps:
    return reduce(jnp.add, (a * b for a, b in zip(x, y, strict=True)))


def _cumulative(p: _Cells) -> list[Maps]:
    sums = [p[0]]
    for x in p[1:-1]:
        sums.append(sums[-1] + x)
    return [*sums, jnp.ones_like(p[0])]


def _spread(p: _Cells) -> Maps:
    """Standard deviation of the cell's number."""
    middle = reduce(jnp.add, (k * x for k, x in enumerate(p)))
    return jnp.sqrt(reduce(jnp.add, (jnp.square(k - middle) * x for k, x in enumerate(p))))


def _x_log_x(x: Maps) -> Maps:
    # A dependence above 1 makes cells negative: the script takes the logarithm's real part.
    return x * jnp.log2(jnp.where(x == 0, 1, jnp.abs(x)))
