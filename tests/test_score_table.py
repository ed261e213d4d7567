"""The table of scores: means, ranks, and the text of each kind of file."""

import csv
import io
import json
import re

import numpy as np
import pytest

from langfuse_jax.evaluation.table import ScoreTable, as_csv, as_json, as_latex, as_markdown, as_text

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
    lines = as_text(table).splitlines()
    assert [line.split("  ")[0].strip() for line in lines[1:]] == ["EN ↑", "MSE ↓", "cos", "Qabf ↑", "mean rank"]
    assert lines[0].split() == ["A", "B_2", "C|3"]
    assert re.split("  +", lines[1]) == ["EN ↑", "6.500 ± 0.500 (1)", "5.500 ± 0.500 (2)", "4.000 ± 0.000 (3)"]
    assert "150 ± 50 (2)" in lines[2] and "20 ± 10 (1)" in lines[2] and "1000 ± 0 (3)" in lines[2]
    assert "(" not in lines[3] and lines[5].split() == ["mean", "rank", "1.33", "1.33", "2.33"]
    starts = [lines[0].index(word) for word in ("A", "B_2", "C|3")]
    assert all(line[start - 1] == " " != line[start] for line in lines for start in starts)


def test_one_method_has_no_ranks_and_one_image_no_deviation():
    table = ScoreTable(["A"], ["1"], COLUMNS, VALUES[:1, :1])
    for text in (as_text(table), as_markdown(table), as_latex(table)):
        assert "rank" not in text.lower() and "±" not in text and "pm" not in text and "**" not in text
        assert "7.000" in text and "textbf" not in text
    assert "rank" not in as_csv(table) and "rank" not in as_json(table, {})


def test_markdown(table):
    lines = as_markdown(table).splitlines()
    assert lines[0] == "| method | EN ↑ | MSE ↓ | cos | Qabf ↑ | mean rank |"
    assert lines[1] == "|---|---|---|---|---|---|"
    assert lines[2] == (
        "| A | **6.500 ± 0.500** (1) | 150 ± 50 (2) | 0.2000 ± 0.1000 | **0.5000 ± 0.0000** (1) | 1.33 |"
    )
    assert lines[4].startswith(r"| C\|3 | 4.000 ± 0.000 (3) |")
    assert lines[6] == "| image | method | EN ↑ | MSE ↓ | cos | Qabf ↑ |"
    assert lines[8:10] == ["| 1 | A | 7.000 | 100 | 0.1000 | 0.5000 |", "| 1 | B_2 | 5.000 | 10 | 0.2000 | 0.5000 |"]
    assert len(lines) == 8 + 2 * 3


def test_latex(table):
    lines = as_latex(table).splitlines()
    assert lines[0] == r"\begin{tabular}{lccccc}" and lines[-1] == r"\end{tabular}"
    assert lines[2] == r"Method & EN $\uparrow$ & MSE $\downarrow$ & cos & Qabf $\uparrow$ & Mean rank \\"
    assert lines[4] == (
        r"A & \textbf{6.500} $\pm$ 0.500 & \underline{150} $\pm$ 50 & 0.2000 $\pm$ 0.1000 "
        r"& \textbf{0.5000} $\pm$ 0.0000 & 1.33 \\"
    )
    assert lines[5].startswith(r"B\_2 & \underline{5.500} $\pm$ 0.500 & \textbf{20} $\pm$ 10 ")


def test_csv(table):
    rows = list(csv.DictReader(io.StringIO(as_csv(table))))
    assert len(rows) == 3 * (2 + 3)
    assert list(rows[0].values()) == ["A", "image", "1", "7.0", "100.0", "0.1", "0.5"]
    assert [row["kind"] for row in rows[:5]] == ["image", "image", "mean", "std", "rank"]
    assert (rows[4]["MSE"], rows[4]["cos"], rows[4]["image"]) == ("2.0", "", "")


def test_json(table):
    told = json.loads(as_json(table, {"convention": "tang"}))
    assert told["convention"] == "tang" and list(told["methods"]) == ["A", "B_2", "C|3"]
    assert told["methods"]["A"]["images"]["2"] == {"EN": 6.0, "MSE": 200.0, "cos": 0.3, "Qabf": 0.5}
    assert told["methods"]["A"]["rank"] == {"EN": 1, "MSE": 2, "cos": None, "Qabf": 1}
    assert told["methods"]["A"]["mean_rank"] == pytest.approx(4 / 3)
