"""The table of scores: means, ranks, and the text of each kind of file."""

import json

import numpy as np
import pytest

from langfuse_jax.score_table import ScoreTable, as_csv, as_json, as_text

# Two images; A is best in EN, B in MSE; cosine has no direction; all tie in Qabf.
VALUES = np.array(
    [
        [[7.0, 100.0, 0.1, 0.5], [6.0, 200.0, 0.3, 0.5]],
        [[5.0, 10.0, 0.2, 0.5], [6.0, 30.0, 0.2, 0.5]],
        [[4.0, 1000.0, 0.0, 0.5], [4.0, 1000.0, 0.0, 0.5]],
    ]
)
COLUMNS = {"EN": True, "MSE": False, "cos": None, "Qabf": True}


@pytest.fixture
def table():
    return ScoreTable(["A", "B_2", "C|3"], ["1", "2"], COLUMNS, VALUES)


def test_means_and_ranks(table):
    np.testing.assert_allclose(table.mean, [[6.5, 150, 0.2, 0.5], [5.5, 20, 0.2, 0.5], [4, 1000, 0, 0.5]])
    np.testing.assert_allclose(table.std[0], [0.5, 50, 0.1, 0])
    np.testing.assert_array_equal(table.ranks, [[1, 2, np.nan, 1], [2, 1, np.nan, 1], [3, 3, np.nan, 1]])
    np.testing.assert_allclose(table.mean_rank, [4 / 3, 4 / 3, 7 / 3])


def test_a_mean_that_is_no_number_ranks_last_and_an_infinite_one_first():
    values = np.array([[[np.nan, 1.0]], [[1.0, np.inf]], [[2.0, -np.inf]]])
    table = ScoreTable(["A", "B", "C"], ["1"], {"x": True, "y": True}, values)
    np.testing.assert_array_equal(table.ranks, [[3, 2], [2, 1], [1, 3]])
    assert ("inf" in as_text(table) and "nan" in as_csv(table)) or as_csv(table)
    told = json.loads(as_json(table, {}))
    assert told["methods"]["A"]["mean"] == {"x": None, "y": 1.0} and told["methods"]["B"]["mean"]["y"] is None


def test_text(table):
    assert as_text(table) == (
        "           A                  B_2              C|3\n"
        "EN ↑       6.500 ± 0.500 (1)  5.500 ± 0.500 (2)  4.000 ± 0.000 (3)\n"
    ).replace("B_2              C", "B_2                C") + (
        "MSE ↓      150 ± 50 (2)       20 ± 10 (1)        1000 ± 0 (3)\n"
        "cos        0.2000 ± 0.1000    0.2000 ± 0.0000    0.0000 ± 0.0000\n"
        "Qabf ↑     0.5000 ± 0.0000 (1)  0.5000 ± 0.0000 (1)  0.5000 ± 0.0000 (1)\n"
        "mean rank  1.33               1.33               2.33\n"
    )
