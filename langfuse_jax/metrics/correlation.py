"""Linear correlation with the sources: SCD and CC."""

import jax
import jax.numpy as jnp

from langfuse_jax.metrics.region import Images, Maps, Scores, Sizes, centred, gray, ratio, total


@jax.jit
def sum_of_correlations_of_differences(
    fused: Images, visible: Images, infrared: Images, *, sizes: Sizes = None
) -> Scores:
    """SCD = r(F - B, A) + r(F - A, B), r Pearson's correlation, A and B the sources.

    Range [-2, 2], higher is better. A correlation with a constant (F equal to a source up to a constant, or a constant
    source) is 0 here and NaN in the published scripts, which otherwise agree. Aslantas and Bendes, AEU 2015.

    >>> visible, infrared = jnp.array([[[0, 1], [0, 1]]]), jnp.array([[[0, 0], [1, 1]]])
    >>> sum_of_correlations_of_differences(visible + infrared, visible, infrared).round(3).tolist()
    [2.0]
    """
    f, v, i = gray(sizes, fused, visible, infrared)
    return _correlation(f - v, i, sizes) + _correlation(f - i, v, sizes)


@jax.jit
def correlation_coefficient(fused: Images, visible: Images, infrared: Images, *, sizes: Sizes = None) -> Scores:
    """CC = (r(A, F) + r(B, F)) / 2, r Pearson's correlation.

    Range [-1, 1], higher is better; a correlation with a constant image is 0. The average of the sources is hard to
    beat. The same in all published scripts. Deshmukh and Bhosale, Int. J. Image Process. 2010.

    >>> image = jnp.array([[[0, 1], [2, 3]]])
    >>> [correlation_coefficient(image, image, other).round(3).tolist() for other in (image, 3 - image)]
    [[1.0], [0.0]]
    """
    f, v, i = gray(sizes, fused, visible, infrared)
    return (_correlation(v, f, sizes) + _correlation(i, f, sizes)) / 2


def _correlation(x: Maps, y: Maps, sizes: Sizes) -> Scores:
    x, y = centred(x, sizes), centred(y, sizes)
    power = jnp.sqrt(total(x * x, sizes)) * jnp.sqrt(total(y * y, sizes))
    return ratio(total(x * y, sizes), power)
