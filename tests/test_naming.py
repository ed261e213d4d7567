"""Which files are a pair, by the names that cameras and datasets give them."""

import numpy as np
import pytest

from langfuse_jax.errors import UserError
from langfuse_jax.images.files import write_png
from langfuse_jax.images.naming import SAME, Convention, find_convention, parse_convention
from langfuse_jax.images.pairs import match_fused, match_pairs

NAMES = {
    "*_vi,*_ir": (["a_vi", "b_vi"], ["a_ir", "b_ir"]),
    "*_RGB,*_PreviewData": (["00001_RGB"], ["00001_PreviewData"]),
    "*_W,*_T": (["DJI_7_W", "DJI_8_W"], ["DJI_7_T", "DJI_8_T"]),
    "*_V,*_T": (["DJI_7_V"], ["DJI_7_T"]),
    "*_rgb,*_thermal": (["x-1_rgb"], ["x-1_thermal"]),
    "*_visible,*_lwir": (["I01_visible"], ["I01_lwir"]),
    "visible_*,infrared_*": (["visible_3"], ["infrared_3"]),
    "*,*_ir": (["3", "4"], ["3_ir", "4_ir"]),
    "*,*": (["3", "4_vi"], ["3", "4_ir"]),
}


@pytest.mark.parametrize("expected", NAMES)
def test_conventions_are_found(expected):
    found = find_convention(*NAMES[expected])
    assert str(found) == expected and parse_convention(expected) == found


def test_both_roles_in_one_folder():
    names = ["DJI_7_W", "DJI_7_T", "DJI_8_W", "DJI_8_T"]
    assert str(find_convention(names, names, one_folder=True)) == "*_W,*_T"
    assert find_convention(["a", "b"], ["a", "b"], one_folder=True) is None
    with pytest.raises(UserError, match=r"two ways, x_V with x_T \(--pair-by \*_V,\*_T\) or x_W with x_T"):
        find_convention(["x_W", "x_V", "x_T"], ["x_W", "x_V", "x_T"], one_folder=True)


@pytest.mark.parametrize("text", ["vi,ir", "*_vi", "*_vi,*_ir,*", "**,*"])
def test_what_is_no_convention(text):
    with pytest.raises(UserError, match=r"--pair-by .*a \* for the scene in each"):
        parse_convention(text)


def _folder(root, *names):
    for name in names:
        write_png(root / f"{name}.png", np.zeros((32, 32)))
    return root


def test_folders_are_paired_and_scored_by_what_names_share(tmp_path):
    visible, infrared = _folder(tmp_path / "v", "a_vi", "b_vi", "c"), _folder(tmp_path / "i", "a_ir", "b_ir")
    pairs, alone, convention = match_pairs(visible, infrared)
    assert [(pair.stem, pair.visible.stem) for pair in pairs] == [("a", "a_vi"), ("b", "b_vi")]
    assert [path.stem for path in alone] == ["c"] and convention == Convention("*_vi", "*_ir")
    scenes, problems = match_fused({"mine": _folder(tmp_path / "f", "a", "b")}, visible, infrared)
    assert [scene.stem for scene in scenes] == ["a", "b"]
    assert problems == [f"{visible / 'c.png'}: left out, it is not named as *_vi,*_ir"]
    mixed = _folder(tmp_path / "mixed", "7", "7_ir", "8")  # of which 7_ir is no visible scene of its own
    scenes, problems = match_fused({"mine": _folder(tmp_path / "h", "7", "8")}, mixed, mixed)
    assert [(s.visible.stem, s.infrared.stem) for s in scenes] == [("7", "7_ir")]
    assert len(problems) == 1 and "8.png: left out, no image of that stem in" in problems[0]
    one = _folder(tmp_path / "one", "1_W", "1_T", "2_T")
    pairs, alone, _ = match_pairs(one, one)
    assert [pair.infrared.stem for pair in pairs] == ["1_T"] and [path.stem for path in alone] == ["2_T"]
    scenes, problems = match_fused({"mine": _folder(tmp_path / "g", "1", "3")}, one, one)
    assert [(s.stem, s.visible.stem) for s in scenes] == [("1", "1_W")] and len(problems) == 2
    given = match_fused({"mine": tmp_path / "f"}, visible, infrared, Convention("*_vi", "*_ir"))
    assert [scene.stem for scene in given[0]] == ["a", "b"]
    with pytest.raises(UserError, match="i: no file is named as its side of a pair; change --pair-by"):
        match_fused({"mine": tmp_path / "f"}, visible, infrared, Convention("*_vi", "*_T"))
    with pytest.raises(UserError, match="its names do not tell the two apart; give --pair-by"):
        match_pairs(visible, visible / ".." / "v", SAME)
    with pytest.raises(UserError, match="no file of one has the stem"):
        match_pairs(visible, infrared, Convention("*_W", "*_T"))
