"""The table of metrics, and all of them at once."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Num

from langfuse_jax.errors import BadPixels, UserError, WrongType
from langfuse_jax.metrics.correlation import correlation_coefficient, sum_of_correlations_of_differences
from langfuse_jax.metrics.edges import edge_preservation, fusion_artifacts
from langfuse_jax.metrics.error import (
    mean_squared_error,
    peak_signal_to_noise_ratio,
    root_mean_squared_error,
)
from langfuse_jax.metrics.feature_information import feature_mutual_information
from langfuse_jax.metrics.fidelity import visual_information_fidelity
from langfuse_jax.metrics.gradients import average_gradient, edge_intensity, spatial_frequency, standard_deviation
from langfuse_jax.metrics.information import cross_entropy, entropy, mutual_information, normalised_mutual_information
from langfuse_jax.metrics.perception import chen_blum, chen_varshney
from langfuse_jax.metrics.region import Images, Scores, Sizes
from langfuse_jax.metrics.structure import multi_scale_structural_similarity, structural_similarity

CONVENTIONS = ("cddfuse", "tang", "vifb", "corrected")
_ROUNDING = 0.01  # of a level, that somebody's own conversion may pass the bounds by
USUAL = ("EN", "SD", "SF", "AG", "MI", "SCD", "VIF", "Qabf", "SSIM")


class Metric(NamedTuple):
    """One metric: its function and how to read it.

    >>> METRICS["MSE"].title, METRICS["MSE"].higher_is_better, METRICS["SSIM"].min_side
    ('mean squared error', False, 11)
    """

    function: Callable[..., Array]
    higher_is_better: bool
    title: str
    unit: str  # or range
    needs_sources: bool = True  # function(fused, visible, infrared), else function(fused)
    takes_convention: bool = False
    min_side: int = 2  # pixels


METRICS = {
    "EN": Metric(entropy, True, "entropy", "bits", needs_sources=False),
    "SD": Metric(standard_deviation, True, "standard deviation", "gray levels", needs_sources=False),
    "SF": Metric(
        spatial_frequency, True, "spatial frequency", "gray levels", needs_sources=False, takes_convention=True
    ),
    "AG": Metric(average_gradient, True, "average gradient", "gray levels", needs_sources=False, takes_convention=True),
    "EI": Metric(edge_intensity, True, "edge intensity", "gray levels", needs_sources=False),
    "MI": Metric(mutual_information, True, "mutual information", "nats or bits", takes_convention=True),
    "NMI": Metric(normalised_mutual_information, True, "normalised mutual information", "0 to 2"),
    "SCD": Metric(sum_of_correlations_of_differences, True, "sum of the correlations of differences", "-2 to 2"),
    "VIF": Metric(visual_information_fidelity, True, "visual information fidelity", "about 0 to 2", min_side=17),
    "Qabf": Metric(edge_preservation, True, "edge preservation", "0 to 0.98", takes_convention=True, min_side=3),
    "SSIM": Metric(structural_similarity, True, "structural similarity", "-2 to 2", takes_convention=True, min_side=11),
    "MS-SSIM": Metric(
        multi_scale_structural_similarity, True, "multi-scale structural similarity", "0 to 1", min_side=44
    ),
    "CC": Metric(correlation_coefficient, True, "correlation coefficient", "-1 to 1"),
    "MSE": Metric(mean_squared_error, False, "mean squared error", "squared gray levels", takes_convention=True),
    "RMSE": Metric(root_mean_squared_error, False, "root mean squared error", "gray levels", takes_convention=True),
    "PSNR": Metric(peak_signal_to_noise_ratio, True, "peak signal-to-noise ratio", "dB", takes_convention=True),
    "CE": Metric(cross_entropy, False, "cross entropy", "bits"),
    "Nabf": Metric(fusion_artifacts, False, "fusion artifacts", "0 to 1", takes_convention=True, min_side=3),
    "Qcb": Metric(chen_blum, True, "Chen-Blum", "0 to 1"),
    "Qcv": Metric(chen_varshney, False, "Chen-Varshney", "squared gray levels"),
    **{
        name: Metric(
            partial(feature_mutual_information, feature=feature),
            True,
            f"feature mutual information, {what}",
            "about 0 to 1",
            takes_convention=True,
            min_side=3,
        )
        for name, feature, what in (
            ("FMI", "pixel", "pixels"),
            ("FMI-gradient", "gradient", "gradients"),
            ("FMI-DCT", "dct", "cosine transform"),
            ("FMI-wavelet", "wavelet", "wavelet transform"),
        )
    },
}


def evaluate(
    fused: Num[Array | np.ndarray, "..."],
    visible: Num[Array | np.ndarray, "..."],
    infrared: Num[Array | np.ndarray, "..."],
    *,
    sizes: Int[Array | np.ndarray, "b 2"] | None = None,
    metrics: Sequence[str] = USUAL,
    convention: str = "cddfuse",
) -> dict[str, Float[Array, " b"]] | dict[str, float]:
    """The metrics of fused images by name; one program is compiled for each shape and choice of metrics.

    Args:
        fused, visible, infrared: gray images in 0-255 (integers or floats), all (b, h, w) or all (h, w).
        sizes: (b, 2) true heights and widths of (b, h, w) images that lie in the upper left corner of a larger canvas;
            each value is that of the image cut out.
        metrics: names from `METRICS`.
        convention: "cddfuse" (comparable with most papers), "tang", "vifb", or "corrected" (for new work).

    Returns:
        (b,) arrays by name, in the order of `metrics`; floats for single (h, w) images.

    Raises:
        UserError: for an unknown metric or convention, images that differ in size or are not (b, h, w) or (h, w), and
            images too small for one of the metrics; BadPixels, a kind of it, for values that are not gray levels
            0-255: outside that range, not finite, or floats in [0, 1].

    >>> visible, infrared = np.float32([[0, 20], [0, 20]]), np.float32([[0, 0], [20, 20]])
    >>> scores = evaluate((visible + infrared) / 2, visible, infrared, metrics=("SD", "CC", "SCD"))
    >>> {name: round(value, 3) for name, value in scores.items()}
    {'SD': 7.071, 'CC': 0.707, 'SCD': 1.414}
    """
    for name in metrics:
        if name not in METRICS:
            raise UserError(f"metric {name}: is unknown; choose among {', '.join(METRICS)}")
    if convention not in CONVENTIONS:
        raise UserError(f"convention {convention}: is unknown; choose among {', '.join(CONVENTIONS)}")
    for role, image in (("fused", fused), ("visible", visible), ("infrared", infrared)):
        if not isinstance(image, (jax.Array, np.ndarray)):
            raise WrongType(f"{role}: is a {type(image).__name__}; give a numpy or JAX array of gray levels 0-255")
        if not (jnp.issubdtype(image.dtype, jnp.integer) or jnp.issubdtype(image.dtype, jnp.floating)):
            raise WrongType(f"{role}: holds {image.dtype}; give gray levels 0-255, as integers or floats")
    if fused.ndim not in (2, 3):
        raise UserError(f"images of {fused.shape}: are no gray images; give three of (h, w) or of (b, h, w)")
    if fused.ndim == 3 and fused.shape[-1] == 3:
        raise UserError(f"images of {fused.shape}: are in colour; give gray images, such as their luma")
    if not fused.shape == visible.shape == infrared.shape:
        raise UserError(
            f"images of {fused.shape}, {visible.shape} and {infrared.shape}: differ in size; give three of one size"
        )
    sides = fused.shape[-2:] if sizes is None or isinstance(sizes, jax.core.Tracer) else np.min(sizes, axis=0)
    for name in metrics:
        if min(sides) < METRICS[name].min_side:
            raise UserError(
                f"metric {name}: needs {METRICS[name].min_side} pixels a side and a given image is "
                f"{sides[0]} x {sides[1]}; leave the metric or the image out"
            )
    for role, image in (("fused", fused), ("visible", visible), ("infrared", infrared)):
        _check_levels(role, image, sizes)
    images = [jnp.asarray(x) for x in (fused, visible, infrared)]
    if images[0].ndim == 3:
        sizes = None if sizes is None else jnp.asarray(sizes, jnp.int32)
        values = _evaluate(*images, sizes, tuple(metrics), convention)
        return {name: values[name] for name in metrics}  # compiled functions sort the keys of what they return
    values = _evaluate(*(x[None] for x in images), None, tuple(metrics), convention)
    return {name: float(values[name][0]) for name in metrics}


def _check_levels(role: str, image: Array | np.ndarray, sizes: Array | np.ndarray | None) -> None:
    """Raises BadPixels for what are no gray levels within an image's size, where values are known."""
    if isinstance(image, jax.core.Tracer) or isinstance(sizes, jax.core.Tracer) or image.dtype == np.uint8:
        return
    pixels = np.asarray(image)
    for region in (
        [pixels] if sizes is None else [x[:h, :w] for x, (h, w) in zip(pixels, np.asarray(sizes), strict=True)]
    ):
        if not region.size:
            continue
        low, high = float(region.min()), float(region.max())
        if not np.isfinite(low + high):
            raise BadPixels(f"{role}: has values that are not finite; replace NaN and infinity first")
        if low < -_ROUNDING or high > 255 + _ROUNDING:
            raise BadPixels(f"{role}: runs from {low:.6g} to {high:.6g}; scale it to gray levels 0-255")
        if 0 < high <= 1 and (region != np.round(region)).any():
            raise BadPixels(f"{role}: runs from {low:.3g} to {high:.3g}; multiply it by 255, to gray levels 0-255")


@partial(jax.jit, static_argnames=("metrics", "convention"))
def _evaluate(
    fused: Images, visible: Images, infrared: Images, sizes: Sizes, metrics: tuple[str, ...], convention: str
) -> dict[str, Scores]:
    values = {}
    for name in metrics:
        metric = METRICS[name]
        images = (fused, visible, infrared) if metric.needs_sources else (fused,)
        chosen = {"convention": convention} if metric.takes_convention else {}
        values[name] = metric.function(*images, sizes=sizes, **chosen)
    return values
