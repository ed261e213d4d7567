"""Metrics of infrared-visible fusion: one pure function each, and `evaluate` for several at once."""

from langfuse_jax.metrics.correlation import correlation_coefficient, sum_of_correlations_of_differences
from langfuse_jax.metrics.edges import edge_preservation, fusion_artifacts
from langfuse_jax.metrics.error import mean_squared_error, peak_signal_to_noise_ratio, root_mean_squared_error
from langfuse_jax.metrics.feature_information import feature_mutual_information
from langfuse_jax.metrics.fidelity import visual_information_fidelity
from langfuse_jax.metrics.gradients import average_gradient, edge_intensity, spatial_frequency, standard_deviation
from langfuse_jax.metrics.information import cross_entropy, entropy, mutual_information, normalised_mutual_information
from langfuse_jax.metrics.perception import chen_blum, chen_varshney
from langfuse_jax.metrics.structure import multi_scale_structural_similarity, structural_similarity
from langfuse_jax.metrics.table import CONVENTIONS, METRICS, USUAL, Metric, evaluate

__all__ = [
    "CONVENTIONS",
    "METRICS",
    "USUAL",
    "Metric",
    "average_gradient",
    "chen_blum",
    "chen_varshney",
    "correlation_coefficient",
    "cross_entropy",
    "edge_intensity",
    "edge_preservation",
    "entropy",
    "evaluate",
    "feature_mutual_information",
    "fusion_artifacts",
    "mean_squared_error",
    "multi_scale_structural_similarity",
    "mutual_information",
    "normalised_mutual_information",
    "peak_signal_to_noise_ratio",
    "root_mean_squared_error",
    "spatial_frequency",
    "standard_deviation",
    "structural_similarity",
    "sum_of_correlations_of_differences",
    "visual_information_fidelity",
]
