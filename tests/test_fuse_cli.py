"""`langfuse-jax fuse` as a user meets it: what is written, what is said, and the exit status."""

import subprocess
import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from langfuse_jax.cli import main
from langfuse_jax.images import files as images
from langfuse_jax.inference import memory
from langfuse_jax.inference.fuser import Fuser
from langfuse_jax.models.steered import SteeredNet
from langfuse_jax.weights.fusion import save_fusion


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A network of the quickly compiled kind."""
    folder = tmp_path_factory.mktemp("checkpoint")
    image, rng = jnp.zeros((1, 32, 32, 1)), np.random.default_rng(3)
    tree = jax.eval_shape(SteeredNet().init, jax.random.key(0), image, image)
    params = jax.tree.map(lambda leaf: rng.normal(0, 0.05, leaf.shape), tree)
    save_fusion(folder, params, dtype=np.float32, metadata={})
    return folder


@pytest.fixture
def pairs(tmp_path):
    """Two folders with the pairs a (colour), b (gray), c (16-bit infrared), 32 x 40 pixels."""
    rng = np.random.default_rng(0)
    for name in ("a", "b", "c"):
        shape = (32, 40, 3) if name == "a" else (32, 40)
        images.write_png(tmp_path / "vi" / f"{name}.png", rng.integers(0, 256, shape, np.uint8))
    for name in ("a", "b"):
        images.write_png(tmp_path / "ir" / f"{name}.png", rng.integers(0, 256, (32, 40), np.uint8))
    Image.fromarray(rng.integers(0, 65536, (32, 40)).astype(np.uint16)).save(tmp_path / "ir" / "c.tif")
    return tmp_path


@pytest.fixture
def fuse(checkpoint, capsys):
    def run(*argv):
        status = main(["fuse", *map(str, argv), "--checkpoint", str(checkpoint)])
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return status, out, err

    return run


def shape(path):
    return np.asarray(Image.open(path)).shape


def test_two_files(pairs, fuse, checkpoint):
    sources = ["--visible", pairs / "vi" / "a.png", "--infrared", pairs / "ir" / "a.png"]
    assert fuse(*sources, "--out", pairs / "out" / "x.PNG", "--sheet")[0] == 0
    assert shape(pairs / "out" / "x_sheet.png")[2] == 3 and shape(pairs / "out" / "x_sheet.png")[1] == 3 * 40 + 2 * 4
    expected = Fuser.load(checkpoint)(*(np.asarray(Image.open(path)) for path in (sources[1], sources[3])))
    np.testing.assert_allclose(np.asarray(Image.open(pairs / "out" / "x.PNG")), 255 * expected, atol=0.6)
    status, out, err = fuse(*sources, "--out", pairs / "folder", "--gray")
    assert (status, err) == (0, "") and f"wrote {pairs / 'folder' / 'a.png'}\n" == out
    assert shape(pairs / "folder" / "a.png") == (32, 40)
    assert len(list(pairs.rglob("*.tmp"))) == 0


def test_two_folders(pairs, fuse):
    status, out, err = fuse("--visible", pairs / "vi", "--infrared", pairs / "ir", "--out", pairs / "out", "--sheet")
    assert (status, err) == (0, "") and out == f"fused 3 of 3 into {pairs / 'out'}\n"
    assert [shape(pairs / "out" / f"{name}.png") for name in "abc"] == [(32, 40, 3), (32, 40), (32, 40)]
    assert sorted(path.name for path in (pairs / "out" / "sheets").iterdir()) == ["a.png", "b.png", "c.png"]


def test_bad_pairs_are_reported_and_the_others_fused(pairs, fuse):
    rng = np.random.default_rng(1)
    vi, ir = pairs / "vi", pairs / "ir"
    whole = (vi / "a.png").read_bytes()
    for name in ("cut", "empty", "small", "sizes"):
        (vi / f"{name}.png").write_bytes(whole)
        images.write_png(ir / f"{name}.png", rng.random((32, 40)))
    (vi / "cut.png").write_bytes(whole[: len(whole) // 2])
    (ir / "empty.png").write_bytes(b"")
    images.write_png(ir / "small.png", rng.random((31, 40)))
    images.write_png(ir / "sizes.png", rng.random((40, 32)))
    images.write_png(vi / "lone1.png", rng.random((32, 40)))
    images.write_png(ir / "lone2.png", rng.random((32, 40)))
    status, out, err = fuse("--visible", vi, "--infrared", ir, "--out", pairs / "out")
    assert status == 1
    assert out.splitlines()[-1] == "fused 3 of 9; failed: cut, empty, lone1, lone2, sizes, small"
    assert sorted(path.name for path in (pairs / "out").glob("[!.]*")) == ["a.png", "b.png", "c.png"]
    lines = err.splitlines()
    assert len(lines) == 6
    for told in (
        f"{vi / 'cut.png'}: cannot be read (",
        f"{ir / 'empty.png'}: is not an image",
        f"{ir / 'small.png'}: is 40x31 pixels; both sides must be at least 32",
        f"{vi / 'sizes.png'} is 40x32 and {ir / 'sizes.png'} is 32x40 pixels",
        f"{vi / 'lone1.png'}: unpaired",
        f"{ir / 'lone2.png'}: unpaired",
    ):
        assert sum(told in line for line in lines) == 1, told


def test_no_pair_left_is_still_status_one(pairs, fuse):
    for path in (pairs / "vi").iterdir():
        path.write_text("")
    status, out, _ = fuse("--visible", pairs / "vi", "--infrared", pairs / "ir", "--out", pairs / "out")
    assert (status, out) == (1, "fused 0 of 3; failed: a, b, c\n")
    assert not (pairs / "out").exists()


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ("--visible {t}/vi/a.png --out {t}/o", "--infrared: is missing"),
        ("--infrared {t}/ir/a.png --out {t}/o", "--visible: is missing"),
        ("--out {t}/o", "or --example alone"),
        ("--example --visible {t}/vi --out {t}/o", "leave it out with --example"),
        ("--example --out {t}/vi/a.png", "vi/a.png: is a file, and here a folder is needed"),
        ("--example --out {t}/o.png", "o.png: is to be a folder"),
        ("--visible {t}/none --infrared {t}/ir --out {t}/o", "--visible {t}/none: no such file or folder"),
        ("--visible {t}/vi --infrared {t}/none.png --out {t}/o", "--infrared {t}/none.png: no such file or folder"),
        ("--visible {t}/vi --infrared {t}/ir/a.png --out {t}/o", "one is a file and the other a folder"),
        ("--visible {t}/vi --infrared {t}/empty --out {t}/o", "{t}/empty: has no infrared images"),
        ("--visible {t}/vi --infrared {t}/ir --out {t}/vi/a.png", "--out {t}/vi/a.png: is a file"),
        ("--visible {t}/vi --infrared {t}/ir --out {t}/ir", "--out {t}/ir: is a folder of source images"),
        (
            "--visible {t}/vi/a.png --infrared {t}/ir/a.png --out {t}/o.gif",
            "--out {t}/o.gif: is of no known image format",
        ),
        ("--visible {t}/vi/a.png --infrared {t}/ir/a.png --out {t}/vi", "{t}/vi/a.png: is the source image"),
        ("--visible {t}/vi/a.png --infrared {t}/bad.png --out {t}/o.png", "{t}/bad.png: is not an image"),
        ("--visible {t}/vi/a.png --infrared {t}/big.png --out {t}/o.png", "a.png is 40x32 and {t}/big.png is 50x50"),
        ("--visible {t}/vi/a.png --infrared {t}/ir/a.png --out {t}/bad.png/o.png", "cannot be written"),
        ("--visible {t}/vi/a.png --infrared {t}/ir/a.png --out {t}/o --checkpoint {t}/vi", "{t}/vi: has neither"),
        ("--visible {t}/vi/a.png --infrared {t}/ir/a.png --out {t}/o --checkpoint {t}/x", "{t}/x: no such folder"),
        ("--visible {t}/vi --infrared {t}/ir --out {t}/o --model steered", "--model steered: is for weights of the"),
    ],
)
def test_users_errors_are_one_line_and_status_two(pairs, checkpoint, capsys, argv, message):
    (pairs / "empty").mkdir()
    (pairs / "bad.png").write_text("no image")
    images.write_png(pairs / "big.png", np.zeros((50, 50)))
    before = {path: path.stat().st_mtime_ns for path in pairs.rglob("*")}
    assert main(["fuse", "--checkpoint", str(checkpoint), *argv.format(t=pairs).split()]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and err.startswith("langfuse-jax: error: ")
    assert message.format(t=pairs) in err
    assert {path: path.stat().st_mtime_ns for path in pairs.rglob("*")} == before


def test_missing_default_weights_name_the_remedy(pairs, capsys, monkeypatch):
    monkeypatch.setattr("importlib.resources.files", lambda package: pairs)
    arguments = ["--visible", str(pairs / "vi"), "--infrared", str(pairs / "ir"), "--out", str(pairs / "out")]
    assert main(["fuse", *arguments]) == 2
    assert "has no default weights; give --checkpoint" in capsys.readouterr().err


def test_example(tmp_path, capsys, monkeypatch):
    """By the default weights."""
    from langfuse_jax.examples import night_scene as example

    monkeypatch.setattr(example, "night_scene", partial(example.night_scene, 48, 64))  # compiled in seconds
    assert main(["fuse", "--example", "--out", str(tmp_path / "new")]) == 0
    out, err = capsys.readouterr()
    assert err == "" and str(tmp_path / "new" / "sheet.png") in out
    shapes = {path.name: shape(path) for path in (tmp_path / "new").iterdir()}
    assert shapes.pop("sheet.png")[1:] == (3 * 64 + 2 * 4, 3)
    assert shapes == {"visible.png": (48, 64, 3), "infrared.png": (48, 64), "fused.png": (48, 64, 3)}
    expected = 255 * Fuser.load()(*example.night_scene())
    np.testing.assert_allclose(np.asarray(Image.open(tmp_path / "new" / "fused.png")), expected, atol=0.6)
    assert main(["fuse", "--example", "--gray", "--out", str(tmp_path / "gray")]) == 0
    assert shape(tmp_path / "gray" / "fused.png") == (48, 64)


def test_flags_are_checked_before_jax_is_imported(tmp_path):
    program = "import sys; from langfuse_jax.cli import main; print(main(sys.argv[1:]), 'jax' in sys.modules)"
    argv = ["fuse", "--visible", str(tmp_path), "--out", "x"]
    done = subprocess.run([sys.executable, "-c", program, *argv], capture_output=True, text=True, check=True)
    assert done.stdout == "2 False\n" and "--infrared: is missing" in done.stderr


@pytest.mark.shared
def test_real_pairs_of_three_cameras(shared, tmp_path, fuse):
    for camera, visible, infrared in (
        ("msrs", "2.png", "2.png"),
        ("vifb", "fight.jpg", "fight.jpg"),
    ):
        source = shared / "data" / camera
        status, _, _ = fuse(
            "--visible", source / "visible" / visible, "--infrared", source / "infrared" / infrared, "--out", tmp_path
        )
        assert status == 0
        expected = Image.open(source / "visible" / visible)
        fused = Image.open(tmp_path / f"{visible.split('.')[0]}.png")
        assert fused.size == expected.size and fused.mode == expected.mode


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--example", "--visible", "vi/a.png"], "--visible: is for a single pair or folders of images or --video"),
        (["--example", "--sheet"], "--sheet: is for a single pair or folders of images; leave it out with --example"),
        (["PAIR", "--overwrite"], "--overwrite: is for folders of images; leave it out with a single pair"),
        (["PAIR", "--pair-by", "*_vi,*_ir"], "--pair-by: is for folders of images"),
        (["PAIR", "--batch-size", "2"], "--batch-size: is for folders of images or --video"),
        (["PAIR", "--canvases", "4"], "--canvases: is for folders of images"),
        (["PAIR", "--fps", "25"], "--fps: is for --video; leave it out with a single pair"),
        (["FOLDERS", "--crf", "20"], "--crf: is for --video; leave it out with folders of images"),
        (["FOLDERS", "--tile", "64", "--canvases", "2"], "--canvases and --batch-size: do nothing with --tile"),
        (["FOLDERS", "--video", "--tile", "64"], "--tile: is for a single pair or folders of images"),
        (["FOLDERS", "--video", "--bits", "16"], "--bits: is for a single pair or folders of images"),
    ],
)
def test_flags_that_would_do_nothing_are_refused(pairs, fuse, monkeypatch, flags, message):
    monkeypatch.chdir(pairs)
    sources = {
        "PAIR": ["--visible", "vi/a.png", "--infrared", "ir/a.png"],
        "FOLDERS": ["--visible", "vi", "--infrared", "ir"],
    }
    status, out, err = fuse("--out", "o", *[word for flag in flags for word in sources.get(flag, [flag])])
    assert (status, out) == (2, "") and err.count("\n") == 1 and message in err


def test_tiles(pairs, fuse):
    """A pair and a folder in tiles, narrower than the images, are what they are as a whole."""
    a = ["--visible", pairs / "vi" / "a.png", "--infrared", pairs / "ir" / "a.png"]
    folders = ["--visible", pairs / "vi", "--infrared", pairs / "ir", "--verbose"]
    for name, flags in {"whole": [], "tiled": ["--tile", "16"]}.items():
        assert fuse(*a, "--out", pairs / f"{name}.png", *flags)[0] == 0
        status, out, _ = fuse(*folders, "--out", pairs / name, *flags)
        assert status == 0 and "fused 3 of 3" in out
    assert "canvas 32x48: 3 images" in out
    for one, other in [("whole.png", "tiled.png"), *((f"whole/{n}.png", f"tiled/{n}.png") for n in "abc")]:
        images = [np.asarray(Image.open(pairs / name)).astype(int) for name in (one, other)]
        assert np.abs(images[0] - images[1]).max() <= 1


def test_one_file_that_cannot_be_read_does_not_stop_a_folder(pairs, fuse):
    (pairs / "ir" / "b.png").unlink()
    (pairs / "ir" / "b.png").symlink_to(pairs / "gone.png")
    status, out, err = fuse("--visible", pairs / "vi", "--infrared", pairs / "ir", "--out", pairs / "o")
    assert status == 1 and "fused 2 of 3" in out and err.count("\n") == 1 and "b.png: no such image file" in err


def test_flags_without_a_visible_image(pairs, fuse):
    for flag, value in (("--resize", "visible"), ("--pair-by", "*_vi,*_ir")):
        status, _, err = fuse("--infrared", pairs / "ir", "--out", pairs / "o", flag, value)
        assert status == 2 and err.count("\n") == 1 and f"{flag} {value}: does nothing with the photos" in err


def test_more_than_the_free_memory_is_refused(pairs, fuse, monkeypatch):
    monkeypatch.setattr(memory, "_free_memory", lambda: 2**20)
    for sources in (["vi/a.png", "ir/a.png"], ["vi", "ir"]):
        visible, infrared = (pairs / source for source in sources)
        status, out, err = fuse("--visible", visible, "--infrared", infrared, "--out", pairs / "o")
        assert (status, out) == (2, "") and err.count("\n") == 1
        assert "pixels take about 0.5 GiB of memory, and 0.0 are free" in err
        assert not (pairs / "o").exists()
