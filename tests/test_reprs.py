"""What notebooks show of fusers and results: the numbers, as HTML whose text is escaped."""

import io
import re
from html import unescape
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from langfuse_jax import Alignment, Clip, Fuser
from langfuse_jax.analysis.picker import GoalPicker
from langfuse_jax.clip.words import EXAMPLE_GOALS, embed
from langfuse_jax.evaluation.folders import Evaluation
from langfuse_jax.evaluation.table import ScoreTable
from langfuse_jax.examples.night_scene import night_scene
from langfuse_jax.inference.folders import FusedFolders
from langfuse_jax.inference.fuser import Explanation
from langfuse_jax.inference.video import FusedVideo

NASTY = "<img src=x onerror=alert(1)> & co"


def cells(shown):
    """The text of each cell, row by row."""
    return [
        [unescape(re.sub("<[^>]*>", "", cell)) for cell in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row)]
        for row in re.findall(r"<tr>(.*?)</tr>", shown._repr_html_())
    ]


def rows(shown):
    return {first: rest for first, *rest in cells(shown)}


@pytest.fixture(scope="module")
def fuser():
    return Fuser.load()


def test_a_fuser_says_what_it_is(fuser):
    found = rows(fuser)
    assert found["network"] == ["steered"] and found["precision"] == ["float32"]
    assert found["parameters"] == [f"{sum(np.size(leaf) for leaf in _leaves(fuser.params)):,}"]
    assert "compact" in found["follows words"][0] and found["towards"] == ["the default sentence"]
    assert repr(fuser) == "<Fuser: steered>"


def _leaves(tree):
    return [leaf for each in tree.values() for leaf in _leaves(each)] if isinstance(tree, dict) else [tree]


def test_a_fuser_says_which_words_it_follows(fuser):
    assert rows(fuser.towards("a bright image", "a sharp image", strength=0.5))["towards"] == [
        "a bright image + a sharp image (strength 0.5)"
    ]
    steered = fuser.towards(f"a bright image {NASTY}", report=lambda remark: None)
    assert "<img" not in steered._repr_html_() and NASTY in rows(steered)["towards"][0]
    assert rows(Fuser(fuser.params, fuser.metadata, np.ones(96, np.float32)))["towards"] == ["another direction"]
    plain = rows(Fuser.load(model="ldfusion"))
    assert plain["network"] == ["LDFusion's"] and plain["follows words"] == ["no"] and "towards" not in plain


def test_scores_are_a_board_with_the_best_in_bold():
    values = np.array([[[7.0, 2.0], [7.2, 2.0]], [[6.5, 1.0], [6.1, 1.0]]])
    table = ScoreTable((NASTY, "average"), ("7", "8"), {"EN": True, "MSE": False}, values)
    assert cells(table) == [
        ["", "EN ↑", "MSE ↓", "mean rank"],
        [NASTY, "7.100 ± 0.100 (1)", "2.000 ± 0.000 (2)", "1.50"],
        ["average", "6.300 ± 0.200 (2)", "1.000 ± 0.000 (1)", "1.50"],
    ]
    board = Evaluation(table, [f"{NASTY} is left out"], {"convention": "cddfuse"})
    html = board._repr_html_()
    assert re.findall("<b>(.*?)</b>", html) == ["7.100 ± 0.100 (1)", "1.000 ± 0.000 (1)"]
    assert "2 images, convention cddfuse" in html and "<img" not in html
    assert cells(board)[-1] == [f"{NASTY} is left out"]
    one = ScoreTable(("mine",), ("7",), {"EN": True}, np.array([[[7.0]]]))
    assert cells(one) == [["", "EN ↑"], ["mine", "7.000"]]


def test_an_alignment_says_what_it_rests_on():
    found = Alignment(np.diag([2.0, 2.0, 1.0]), (160, 96), (64, 48), pairs=3, inliers=99, residual_px=0.51)
    assert rows(found)["verdict"] == ["accepted"] and rows(found)["scale"] == ["2.000"]
    assert rows(found)["rests on"] == ["99 patches of 3 pairs"] and rows(found)["median residual"] == [
        "0.5 visible pixels"
    ]
    refused = Alignment(np.zeros((3, 3)), (160, 96), (64, 48), residual_px=np.inf, accepted=False, reason=NASTY)
    assert rows(refused)["verdict"] == [f"refused: {NASTY}"] and "scale" not in rows(refused)
    assert "<img" not in refused._repr_html_()


def test_counts_of_folders_and_videos_name_what_failed():
    folders = rows(FusedFolders(fused=3, skipped=2, failed=[NASTY]))
    assert folders == {"fused": ["3"], "there already": ["2"], "failed": [f"1, {NASTY}"]}
    assert rows(FusedFolders(process=(1, 4)))["process"] == ["1 of 4"]
    assert rows(FusedVideo(25, [Path("7.png")])) == {"frames fused": ["25"], "without a partner": ["1, 7.png"]}


def test_sentences_are_shown_with_their_cosines():
    texts = embed(Clip.load(), goal=["a bright image", "a sharp image"])
    assert rows(texts)["goal"] == ["a bright image | a sharp image"]
    assert float(rows(texts)["visible, goal"][0]) == pytest.approx(texts.cosines()["visible", "goal"], abs=0.005)


def test_an_explanation_is_a_picture():
    dark, bands = np.zeros((48, 64), np.float32), np.zeros((4, 48, 64), np.float32)
    png = Explanation(dark + 0.5, bands + 1, bands, dark, dark, dark)._repr_png_()
    middle = np.asarray(Image.open(io.BytesIO(png)).convert("L"))[-24, 32::68]
    assert middle.tolist() == [128, 255, 255, 0]  # fused, two shares of bands, the shades


def test_a_picker_shows_pictures_of_goals_without_ipywidgets(fuser, monkeypatch):
    monkeypatch.setattr("langfuse_jax.analysis.picker.find_spec", lambda name: None)
    picker = GoalPicker(fuser, *night_scene(48, 64))
    assert set(picker._repr_mimebundle_()) == {"image/jpeg", "text/plain"}
    means = [picker.fuse(EXAMPLE_GOALS[0], strength).mean() for strength in (0, 0.5, 1)]
    assert means == sorted(means) and means[2] > means[0] + 0.1
    np.testing.assert_allclose(picker.fuse("a dark image"), fuser(*night_scene(48, 64), goal="a dark image"), atol=1e-5)
    assert "zebra" in picker.remarks("a bright zebra")[0]


@pytest.mark.notebook
def test_a_picker_follows_its_fields(fuser):
    pytest.importorskip("ipywidgets")
    picker = GoalPicker(fuser, *night_scene(48, 64))
    box = picker.widget()
    first = box.picture.value
    box.strength.value = 0.0
    second = box.picture.value
    box.examples.value = "a dark image"
    assert box.goal.value == "a dark image" and box.picture.value == second  # strength 0 is the default picture
    box.strength.value = 1.0
    assert len({first, second, box.picture.value}) == 3
    last = box.picture.value
    box.goal.value = f"zebra {NASTY}"
    assert "zebra" in box.said.value and "<img" not in box.said.value and box.picture.value == last
    box.goal.value = "a bright image"
    assert not box.said.value and box.picture.value != last
    assert "application/vnd.jupyter.widget-view+json" in picker._repr_mimebundle_()
