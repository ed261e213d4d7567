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
    "sentences": {"largest_cosine": 0.2, "negations": 0.95, "new_sentences": 0.7},
    "development": {"one": numbers(0.95)},
    "left_out": {"three": numbers(0.99)},
    "unseen": {"two": numbers(0.75, order={"brightness": 0.6, "haze": 0.9}), "four": numbers(0.85)},
}


def test_limits_are_of_the_means_of_each_part():
    found = {(limit.name, limit.part): limit for limit in limits(REPORT)}
    assert found["modality AUC", "development"].value == 0.95 and found["modality AUC", "left_out"].value == 0.99
    assert found["modality AUC", "unseen"].value == pytest.approx(0.8)
    assert not found["modality AUC", "unseen"].reached
    assert found["lowest modality AUC", "unseen"].value == 0.75
    assert found["order by brightness", "unseen"].value == pytest.approx((0.6 + 0.97) / 2)
    assert found["order by haze", "unseen"].value == 0.9  # of the one set that has it
    assert ("order by noise", "unseen") not in found and ("order by haze", "left_out") not in found
    assert found["largest cosine of two of the three sentences", ""].reached
    assert not found["new sentences understood", ""].reached


def test_a_limit_may_be_at_most():
    assert Limit("cosine", 0.3, 0.35, at_most=True).reached and not Limit("cosine", 0.4, 0.35, at_most=True).reached
    assert Limit("auc", 0.9, 0.9).reached and not Limit("auc", 0.89, 0.9).reached


def test_the_report_is_three_tables():
    lines = format_report(REPORT).splitlines()
    assert "| lowest modality AUC | at least 0.8 | 0.95 | 0.99 | **0.75** |" in lines
    assert "| new sentences understood | at least 0.8 | **0.70** | **0.70** | **0.70** |" in lines
    assert "| order by haze | at least 0.8 |  |  | 0.90 |" in lines
    near = REPORT | {"sentences": {**REPORT["sentences"], "largest_cosine": 0.3547}}  # a limit missed by little
    assert "| at most 0.35 | **0.355** | **0.355** | **0.355** |" in format_report(near)
    assert "| one (development) | 8 | 0.95 | 0.90 | 0.80 |  |  | 0.91 | 0.85 | 0.80 |  |  |" in lines
    (order,) = [line for line in lines if line.startswith("| two (unseen) | 0.60 (0.60)")]
    assert order.endswith("| 0.90 () |  |")
    for block in "\n".join(lines).split("\n\n"):
        assert len({line.count("|") for line in block.splitlines()}) == 1


def test_what_was_not_measured_has_no_limit():
    alone = dict(REPORT, unseen={}, left_out={})
    assert {limit.part for limit in limits(alone)} == {"", "development"}


def test_auc_equals_the_rank_test():
    rng = np.random.default_rng(0)
    scores, positive = rng.integers(0, 9, 60).astype(float), rng.random(60) < 0.3
    statistic = scipy.stats.mannwhitneyu(scores[positive], scores[~positive]).statistic
    assert auc(scores, positive) == pytest.approx(statistic / (positive.sum() * (~positive).sum()))


@pytest.mark.parametrize("levels", [1000, 3])
def test_order_equals_spearmans_correlation(levels):
    """With and without equal scores."""
    scores = np.random.default_rng(0).integers(0, levels, (5, 7)).astype(float)
    strengths = np.linspace(-1, 1, 7)
    expected = np.mean([scipy.stats.spearmanr(row, strengths).statistic for row in scores])
    assert rank_correlation(scores, strengths) == pytest.approx(expected)


def test_equal_scores_are_in_no_order():
    assert rank_correlation(np.ones((3, 7)), np.linspace(-1, 1, 7)) == 0
