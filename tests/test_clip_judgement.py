"""The numbers of a compact CLIP against its limits."""

import numpy as np
import pytest
import scipy.stats

from langfuse_jax.compact_clip.judgement import Limit, format_report, limits
from langfuse_jax.compact_clip.report import auc, rank_correlation


def numbers(modality, **more):
    return {
        "windows": 8,
        "modality_auc": modality,
        "goal_auc": 0.9,
        "detailed_auc": 0.8,
        "quality_accuracy": 0.91,
        "composition_auc": 0.85,
        "goal_against": {"visible_enhanced": 0.8},
        "order": {"brightness": 0.97},
        "order_pooled": {"brightness": 0.6},
    } | more


REPORT = {
    "sentences": {"largest_cosine": 0.2, "negations": 0.95},
    "development": {"one": numbers(0.95)},
    "unseen": {"two": numbers(0.75, order={"brightness": 0.6, "haze": 0.9})},
    "left_out": {"three": numbers(0.99)},
}


def test_limits_are_of_means_of_unseen_cameras():
    by_name = {limit.name: limit for limit in limits(REPORT)}
    assert by_name["modality AUC, development"].value == pytest.approx(0.95)
    assert by_name["modality AUC, unseen cameras"].value == pytest.approx((0.75 + 0.99) / 2)
    assert not by_name["modality AUC, unseen cameras"].reached  # 0.87
    assert by_name["modality AUC, lowest of unseen cameras"].value == 0.75
    assert by_name["order by brightness, unseen cameras"].value == pytest.approx((0.6 + 0.97) / 2)
    assert by_name["order by haze, unseen cameras"].value == 0.9  # of the one set that has it
    assert "order by noise, unseen cameras" not in by_name
    assert by_name["largest cosine of two of the three sentences"].reached


def test_a_limit_may_be_at_most():
    assert Limit("cosine", 0.3, 0.35, at_most=True).reached and not Limit("cosine", 0.4, 0.35, at_most=True).reached
    assert Limit("auc", 0.9, 0.9).reached and not Limit("auc", 0.89, 0.9).reached


def test_the_report_is_three_tables():
    lines = format_report(REPORT).splitlines()
    assert "| modality AUC, lowest of unseen cameras | 0.750 | >= 0.8 | **missed** |" in lines
    assert "| one (development) | 8 | 0.95 | 0.90 | 0.80 |  | 0.91 | 0.85 | 0.80 |  |  |" in lines
    (order,) = [line for line in lines if line.startswith("| two | 0.60 (0.60)")]
    assert order.endswith("|  | 0.90 () |  |")
    for block in "\n".join(lines).split("\n\n"):
        assert len({line.count("|") for line in block.splitlines()}) == 1


def test_no_unseen_camera_no_limit_of_it():
    alone = dict(REPORT, unseen={}, left_out={})
    assert not any("unseen" in limit.name for limit in limits(alone))


def test_auc_equals_the_rank_test():
    rng = np.random.default_rng(0)
    scores, positive = rng.integers(0, 9, 60).astype(float), rng.random(60) < 0.3
    statistic = scipy.stats.mannwhitneyu(scores[positive], scores[~positive]).statistic
    assert auc(scores, positive) == pytest.approx(statistic / (positive.sum() * (~positive).sum()))


def test_order_equals_spearmans_correlation():
    scores = np.random.default_rng(0).standard_normal((5, 7))
    expected = np.mean([scipy.stats.spearmanr(row, np.arange(7)).statistic for row in scores])
    assert rank_correlation(scores, np.linspace(-1, 1, 7)) == pytest.approx(expected)
