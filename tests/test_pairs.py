"""Pairs by file stem."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from langfuse_jax.errors import UserError
from langfuse_jax.images import pairs as module
from langfuse_jax.images.pairs import FusedPair, Pair, match_pairs, read_pair, scan_sizes


def folders(tmp_path, visible, infrared):
    for folder, names in (("vi", visible), ("ir", infrared)):
        (tmp_path / folder).mkdir()
        for name in names:
            (tmp_path / folder / name).touch()
    return tmp_path / "vi", tmp_path / "ir"


def test_pairs_by_stem_of_any_extension(tmp_path):
    vi, ir = folders(
        tmp_path,
        ["b.JPG", "a.v1.png", "lone.tif", "notes.txt", ".a.png"],
        ["a.v1.TIFF", "b.webp", "c.bmp", "Thumbs.db"],
    )
    (vi / "c.png").mkdir()
    pairs, alone, _ = match_pairs(vi, str(ir))
    assert pairs == [Pair("a.v1", vi / "a.v1.png", ir / "a.v1.TIFF"), Pair("b", vi / "b.JPG", ir / "b.webp")]
    assert alone == [ir / "c.bmp", vi / "lone.tif"]


@pytest.mark.parametrize(
    ("visible", "infrared", "message"),
    [
        (["a.png", "a.jpg"], ["a.png"], r"vi/a\.jpg and .*vi/a\.png: two images of one stem"),
        (["a.png"], ["a.txt"], r"ir: has no infrared images"),
        (["a.png"], ["b.png"], r"vi and .*ir: no file of one has the stem"),
    ],
)
def test_bad_folders(tmp_path, visible, infrared, message):
    with pytest.raises(UserError, match=message):
        match_pairs(*folders(tmp_path, visible, infrared))


def test_missing_and_equal_folders(tmp_path):
    vi, ir = folders(tmp_path, ["a.png"], ["a.png"])
    with pytest.raises(UserError, match=r"none: no such folder; give the folder of infrared images"):
        match_pairs(vi, tmp_path / "none")
    with pytest.raises(UserError, match=r"a\.png: is not a folder; give the folder of visible images"):
        match_pairs(vi / "a.png", ir)
    with pytest.raises(UserError, match="as both"):
        match_pairs(vi, ir / ".." / "vi")


def test_a_pair_that_only_exif_makes_one_size(tmp_path):
    """What `fuse` reads as a pair, `evaluate` does not leave out by the headers."""
    exif = Image.Exif()
    exif[0x0112] = 6
    paths = tmp_path / "visible.png", tmp_path / "infrared.webp", tmp_path / "fused.png"
    for path, shape, kept in zip(paths, ((40, 56), (40, 56), (56, 40)), (exif, exif, None), strict=True):
        Image.fromarray(np.zeros(shape, np.uint8)).save(path, exif=kept)
    scene = FusedPair("0", paths[0], paths[1], paths[2:])
    assert scan_sizes([scene], failed=lambda scene, error: pytest.fail(str(error))) == {scene: (56, 40)}
    assert read_pair(Pair("0", *paths[:2]))[0].shape == (56, 40)


def test_folders_are_listed_as_often_for_many_images_without_a_partner(tmp_path, monkeypatch):
    lists = []
    for name, real in (("listdir", os.listdir), ("scandir", os.scandir)):
        monkeypatch.setattr(os, name, lambda *path, real=real: lists.append(path) or real(*path))

    def listings(count):
        """How often folders are listed to pair so many images and 0.png, and to say why they are alone."""
        (tmp_path / str(count)).mkdir()
        visible = [f"{number}.png" for number in range(count + 1)]
        vi, ir = folders(tmp_path / str(count), visible, ["0.png", "1.raw", "2.v1.raw"])
        lists.clear()
        lines = match_pairs(vi, ir).why_alone((vi, ir))
        assert len(lines) == count
        assert [line.split("/")[-1] for line in lines if "not read" in line] == [
            "1.raw ends in .raw, which is not read",
            "2.v1.raw ends in .raw, which is not read",
        ]
        return len(lists)

    assert listings(50) == listings(5)


def test_names_that_may_have_been_meant_are_sought_among_some():
    compared = []

    class Name(str):
        def __contains__(self, other):
            compared.append(other)
            return super().__contains__(other)

    def comparisons(count):
        compared.clear()
        sides = [{Name(f"{side}{number}"): Path(f"{side}{number}.png") for number in range(count)} for side in "ab"]
        assert "such as a0.png and b0.png" in module._no_scene([*zip(("vi", "fused"), sides, strict=True)])
        return len(compared)

    assert comparisons(2) == 8
    assert comparisons(400) == comparisons(320)
