"""Alignment as a user meets it: `align`, `fuse`, `evaluate`, videos and the page."""

import re

import numpy as np
import pytest
from misaligned import corner_error, rig_pair, rig_warp, write_rig
from PIL import Image
from videos import read_video, write_video

from langfuse_jax import Alignment, Fuser
from langfuse_jax.cli import main
from langfuse_jax.commands.align import _remove_alignment
from langfuse_jax.images.pairs import Pair, pair_size, read_pair
from langfuse_jax.images.reading import Reading
from langfuse_jax.page.load import load_pair
from langfuse_jax.page.mistakes import Mistake

SIZE = (320, 240)  # of the infrared images
WARP = rig_warp(scale=0.95, degrees=2, shift=(20, -12), infrared_size=SIZE)


@pytest.fixture(scope="module")
def rig(tmp_path_factory):
    """A folder with VI (640x480) and IR (320x240) of two pairs, and the true alignment."""
    folder = tmp_path_factory.mktemp("rig")
    write_rig(folder, WARP, 2, SIZE)
    Alignment(np.linalg.inv(WARP), (640, 480), SIZE).save(folder / "true.json")
    return folder


@pytest.fixture
def command(capsys):
    def run(*argv):
        status = main([*map(str, argv)])
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return status, out, err

    return run


def _sources(rig, name=None):
    folders = [rig / role if name is None else rig / role / name for role in ("VI", "IR")]
    return ["--visible", folders[0], "--infrared", folders[1]]


def test_align_then_fuse_then_evaluate(rig, tmp_path, command):
    found, picture, fused = tmp_path / "rig.json", tmp_path / "rig.png", tmp_path / "F"
    status, out, err = command("align", *_sources(rig), "--out", found, "--plot", picture)
    assert (status, err) == (0, "") and "accepted: " in out and "of 2 pairs agree" in out and f"wrote {found}" in out
    alignment = Alignment.load(found)
    assert alignment.pairs == 2 and corner_error(alignment, WARP) < 3
    assert np.asarray(Image.open(picture)).shape[2] == 3

    status, out, err = command("fuse", *_sources(rig), "--alignment", found, "--out", fused)
    assert (status, err) == (0, "") and out == f"fused 2 of 2 into {fused}\n"
    width, height = alignment.window()[2:]
    assert Image.open(fused / "0.png").size == (width, height) != (640, 480)
    luma, chroma, infrared = read_pair(Pair("0", rig / "VI/0.png", rig / "IR/0.png"), Reading(alignment=alignment))
    assert luma.shape == chroma.shape[:2] == infrared.shape == (height, width)
    gray = Fuser.load()(luma, infrared)
    shown = np.asarray(Image.open(fused / "0.png").convert("L"), float)
    assert np.abs(shown - 255 * gray).mean() < 1.5  # but for colours that leave the cube

    again = command("fuse", *_sources(rig), "--alignment", found, "--out", fused)
    assert again[0] == 0 and "2 were there already" in again[1]
    other = command("fuse", *_sources(rig), "--alignment", rig / "true.json", "--out", fused)
    assert other[0] == 2 and "was fused with other settings (alignment" in other[2]

    scored = command("evaluate", "--fused", fused, *_sources(rig), "--alignment", found, "--metrics", "EN,CC")
    assert scored[0] == 0 and "2 images" in scored[1]
    wrong = command("evaluate", "--fused", fused, *_sources(rig), "--metrics", "EN")
    assert wrong[0] == 2 and "must be of one size" in wrong[2]


def test_each_pair_has_an_alignment_of_its_own(rig, tmp_path, command):
    folder = tmp_path / "own"
    folder.mkdir()
    Alignment.load(rig / "true.json").save(folder / "0.json")
    status, _, err = command("fuse", *_sources(rig), "--alignment", folder, "--out", tmp_path / "F")
    assert status == 1 and "1: has no alignment" in err
    assert sorted(path.name for path in (tmp_path / "F").glob("*.png")) == ["0.png"]


def test_each_reports_what_is_refused(rig, tmp_path, command):
    for role in ("VI", "IR"):
        (tmp_path / role).mkdir()
    visible, infrared = rig_pair(WARP, size=SIZE)
    Image.fromarray(visible).save(tmp_path / "VI/good.png")
    Image.fromarray(infrared).save(tmp_path / "IR/good.png")
    Image.fromarray(visible).save(tmp_path / "VI/bad.png")
    Image.new("L", SIZE, 7).save(tmp_path / "IR/bad.png")
    status, out, err = command("align", *_sources(tmp_path), "--each", "--out", tmp_path / "own")
    assert status == 1 and "aligned 1 of 2 pairs" in out and "refused: bad" in out
    assert err.startswith("langfuse-jax: bad: the infrared image is constant; align")
    assert [path.name for path in (tmp_path / "own").iterdir()] == ["good.json"]
    assert corner_error(Alignment.load(tmp_path / "own/good.json"), WARP) < 4


def test_only_alignments_are_removed(tmp_path):
    """What --each leaves behind of a pair that it refuses now: labels of another program stay."""
    Alignment(np.eye(3), (64, 48), (64, 48)).save(tmp_path / "ours.json")
    (tmp_path / "labels.json").write_text('{"shapes": []}')
    for name in ("ours", "labels", "none"):
        _remove_alignment(tmp_path / f"{name}.json")
    assert [path.name for path in tmp_path.iterdir()] == ["labels.json"]


def test_fuse_aligns_on_the_fly_and_on_either_grid(rig, tmp_path, command):
    pair = _sources(rig, "0.png")
    status, out, err = command("fuse", *pair, "--align", "--out", tmp_path / "a.png", "--to", "infrared")
    assert status == 0 and err.startswith("accepted: ") and out == f"wrote {tmp_path / 'a.png'}\n"
    width, height = Image.open(tmp_path / "a.png").size
    assert 0.7 * SIZE[0] < width <= SIZE[0] and 0.7 * SIZE[1] < height <= SIZE[1]

    whole = ("--alignment", rig / "true.json", "--outside", "visible", "--out", tmp_path / "b.png")
    status, _, err = command("fuse", *pair, *whole)
    assert (status, err) == (0, "")
    fused, visible = (np.asarray(Image.open(path).convert("L"), int) for path in (tmp_path / "b.png", rig / "VI/0.png"))
    assert fused.shape == visible.shape == (480, 640)
    reading = Reading(alignment=Alignment.load(rig / "true.json"), outside="visible")
    luma, _, thermal = read_pair(Pair("0", rig / "VI/0.png", rig / "IR/0.png"), reading)
    corner = np.s_[:8, :8]  # that no infrared pixel reaches
    np.testing.assert_array_equal(luma[corner], thermal[corner])
    assert np.abs(luma - thermal).mean() > 0.05
    assert np.abs(fused - 255 * Fuser.load()(luma, thermal)).mean() < 1.5


def test_a_video_is_aligned(rig, tmp_path, command):
    frames = [[np.asarray(Image.open(rig / role / f"{n}.png")) for n in (0, 1)] for role in ("VI", "IR")]
    write_video(tmp_path / "v.mp4", frames[0] * 2)
    write_video(tmp_path / "i.mp4", frames[1] * 2)
    sources = ["--visible", tmp_path / "v.mp4", "--infrared", tmp_path / "i.mp4"]
    status, _, _ = command("align", *sources, "--out", tmp_path / "v.json", "--pairs", 1)
    assert status == 0 and corner_error(Alignment.load(tmp_path / "v.json"), WARP) < 4
    command(
        "fuse", "--video", *sources, "--alignment", rig / "true.json", "--out", tmp_path / "f.mkv", "--codec", "ffv1"
    )
    _, fused = read_video(tmp_path / "f.mkv")
    assert fused.shape[:3] == (4, *Alignment.load(rig / "true.json").window()[:1:-1])


def test_pairs_that_lie_apart_are_remarked_once(tmp_path, command):
    write_rig(tmp_path, rig_warp(scale=1, degrees=0, shift=(25, 10)), 2)
    status, _, err = command("fuse", *_sources(tmp_path), "--out", tmp_path / "F")
    assert status == 0 and err.count("\n") == 1
    assert re.search(r"out of register by about 2[5-9] pixels; align them \(`langfuse-jax align`", err)
    assert command("fuse", *_sources(tmp_path), "--out", tmp_path / "F", "--overwrite", "--no-check")[2] == ""


def test_an_alignment_that_fits_no_pair_ends_before_anything_is_fused(rig, tmp_path, command):
    Alignment(np.eye(3), (640, 480), (64, 48)).save(tmp_path / "small.json")
    status, out, err = command("fuse", *_sources(rig), "--alignment", tmp_path / "small.json", "--out", tmp_path / "F")
    assert (status, out) == (2, "") and "the alignment is for 64x48" in err and err.count("\n") == 1
    assert not (tmp_path / "F").exists()


def test_registered_pairs_are_not_remarked(tmp_path, command):
    write_rig(tmp_path, np.eye(3), 1)
    assert command("fuse", *_sources(tmp_path, "0.png"), "--out", tmp_path / "f.png")[2] == ""


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--to", "infrared"], "--to infrared: requires --alignment or --align"),
        (["--outside", "crop"], "--outside crop: requires --alignment"),
        (["--align", "--alignment", "true.json"], "--align: finds what --alignment gives"),
        (["--align", "--resize", "visible"], "--resize: does nothing with an alignment"),
        (["--align", "--no-check"], "--no-check: does nothing with an alignment"),
        (["--align", "--to", "infrared", "--outside", "visible"], "--outside visible: keeps the whole visible image"),
        (["--alignment", "none.json"], "--alignment none.json: no such file"),
        (["--alignment", "VI"], "--alignment VI: has no .json files"),
        (["--alignment", "small.json"], "the infrared image is 320x240 pixels, and the alignment is for 64x48"),
        (["--alignment", "away.json"], "leaves no overlap"),
    ],
)
def test_wrong_flags_of_fuse(rig, monkeypatch, command, flags, message):
    monkeypatch.chdir(rig)
    Alignment(np.eye(3), (640, 480), (64, 48)).save("small.json")
    Alignment(np.array([[1.0, 0, 9000], [0, 1, 0], [0, 0, 1]]), (640, 480), SIZE).save("away.json")
    status, out, err = command("fuse", *_sources(rig, "0.png"), *flags, "--out", "never.png")
    assert (status, out) == (2, "") and message in err and err.count("\n") == 1
    assert not (rig / "never.png").exists()


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--visible", "VI/0.png", "--infrared", "gone.png", "--out", "o.json"], "--infrared gone.png: no such file"),
        (["--visible", "VI/0.png", "--infrared", "IR", "--out", "o.json"], "one is a file and the other a folder"),
        (["--visible", "VI/0.png", "--infrared", "VI/0.png", "--out", "o.json"], "both --visible and --infrared"),
        (["--infrared", "IR/0.png", "--out", "o.json"], "--visible: is missing"),
        (["--visible", "VI/0.png", "--infrared", "IR/0.png", "--out", "o.txt"], "must end in .json"),
        (["--visible", "VI", "--infrared", "IR", "--out", "o.json", "--pairs", "0"], "--pairs 0: must be at least 1"),
        (["--visible", "VI", "--infrared", "IR", "--out", "o", "--each", "--plot", "p.png"], "do nothing with --each"),
        (["--visible", "VI", "--infrared", "IR", "--out", "o.json", "--each"], "must be a folder with --each"),
        (["--visible", "VI/0.png", "--infrared", "IR/0.png", "--out", "o", "--each"], "--each: is for folders"),
        (["--visible", "VI/0.png", "--infrared", "IR/0.png", "--out", "o.json", "--plot", "p.gif"], "no known image"),
        (
            ["--visible", "VI/0.png", "--infrared", "IR/0.png", "--out", "o.json", "--plot", "IR/0.png"],
            "--plot IR/0.png: is a source",
        ),
        (
            ["--visible", "VI", "--infrared", "IR", "--out", "o.json", "--plot", "VI/0.png"],
            "--plot VI/0.png: lies in a folder of source images",
        ),
        (["--visible", "VI", "--infrared", "IR", "--out", "VI", "--each"], "--out VI: is a folder of source images"),
        (["--visible", "VI/0.png", "--infrared", "IR/0.png", "--out", "o.json", "--pairs", "2"], "--pairs 2: is for"),
        (["--visible", "VI/0.png", "--infrared", "IR/0.png", "--out", "o.json", "--pair-by", "*_a,*_b"], "--pair-by"),
    ],
)
def test_wrong_flags_of_align(rig, monkeypatch, command, argv, message):
    monkeypatch.chdir(rig)
    before = sorted(rig.rglob("*"))
    status, out, err = command("align", *argv)
    assert (status, out) == (2, "") and message in err and err.count("\n") == 1
    assert sorted(rig.rglob("*")) == before


def test_pairs_of_several_sizes_are_no_rig(rig, tmp_path, command):
    for role in ("VI", "IR"):
        (tmp_path / role).mkdir()
        for n in (0, 1):
            with Image.open(rig / role / f"{n}.png") as image:
                image.resize((image.width // (n + 1), image.height // (n + 1))).save(tmp_path / role / f"{n}.png")
    status, _, err = command("align", *_sources(tmp_path), "--out", tmp_path / "o.json")
    assert status == 2 and "1: its visible image is 320x240 pixels and that of 0 640x480" in err and "--each" in err


def test_the_page_aligns(rig):
    sources = str(rig / "VI/0.png"), str(rig / "IR/0.png")
    loaded = load_pair(*sources, align=True)
    assert loaded.verdict.startswith("Alignment accepted: ")
    assert loaded.luma.shape == loaded.infrared.shape != (480, 640)
    with pytest.raises(Mistake, match="must be of one size"):
        load_pair(*sources)


def test_the_size_is_known_without_the_pixels(rig):
    alignment = Alignment.load(rig / "true.json")
    pair = Pair("0", rig / "VI/0.png", rig / "IR/0.png")
    for to, outside in (("visible", "crop"), ("visible", "visible"), ("infrared", "crop")):
        reading = Reading(alignment=alignment, to=to, outside=outside)
        assert pair_size(pair, reading) == read_pair(pair, reading)[0].shape
