"""Folders as a user meets them: going on after any end, formats, and what stops a run."""

import errno
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from langfuse_jax import UserError, fuse_folders
from langfuse_jax.cli import main
from langfuse_jax.commands import flags as command_flags
from langfuse_jax.images import files as images
from langfuse_jax.images.files import write_png
from langfuse_jax.inference.finished import RECORD
from langfuse_jax.inference.fuser import Fuser
from langfuse_jax.weights.fingerprint import fingerprint_of

ASSETS = Path(images.__file__).parents[1] / "assets"

PAIRS = 24


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Two dozen ragged pairs, up to 40 x 48; every fourth in gray. One program serves them all, as one canvas does."""
    root, rng = tmp_path_factory.mktemp("pairs"), np.random.default_rng(0)
    for i in range(PAIRS):
        h, w = rng.integers(33, 41), rng.integers(33, 49)
        write_png(root / "vi" / f"{i:02}.png", rng.integers(0, 256, (h, w, 3) if i % 4 else (h, w), np.uint8))
        write_png(root / "ir" / f"{i:02}.png", rng.integers(0, 256, (h, w), np.uint8))
    return root


@pytest.fixture
def sources(folders):
    return ["--visible", str(folders / "vi"), "--infrared", str(folders / "ir")]


@pytest.fixture(scope="module")
def expected(folders):
    """The fused images one by one, 0-255."""
    fuser = Fuser.load()
    pairs = {i: [np.asarray(Image.open(folders / role / f"{i}.png")) for role in ("vi", "ir")] for i in names()}
    return {i: 255 * fuser(*pair) for i, pair in pairs.items()}


@pytest.fixture
def fuse(capsys, sources):
    def run(*argv):
        status = main(["fuse", *sources, *map(str, argv)])
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return status, out, err

    return run


def names():
    return [f"{i:02}" for i in range(PAIRS)]


def assert_whole(folder, expected):
    """Every PNG there is readable to its end and right within a gray level; returns their stems."""
    for path in folder.glob("*.png"):
        np.testing.assert_allclose(np.asarray(Image.open(path)), expected[path.stem], atol=1.01)
    return sorted(path.stem for path in folder.glob("*.png"))


def test_a_ragged_folder_is_fused_as_one_by_one(tmp_path, fuse, expected):
    status, out, err = fuse("--out", tmp_path, "--verbose")
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == "canvas 40x48: 24 images" and lines[-1] == f"fused 24 of 24 into {tmp_path}"
    waste = float(lines[1].removeprefix("waste: ").split("%")[0])
    pixels = sum(image.shape[0] * image.shape[1] for image in expected.values())
    assert waste == pytest.approx(100 * (24 * 40 * 48 / pixels - 1), abs=0.06)
    assert lines[2].startswith("programs: ")
    assert assert_whole(tmp_path, expected) == names()


def test_what_is_there_is_passed_over(tmp_path, fuse, expected):
    assert fuse("--out", tmp_path)[0] == 0
    for i in ("03", "17"):
        (tmp_path / f"{i}.png").unlink()
    there = set(tmp_path.glob("*.png"))
    for path in (*there, tmp_path / RECORD):
        os.utime(path, (0, 0))
    status, out, _ = fuse("--out", tmp_path)
    assert (status, out) == (0, f"fused 2 of 24 into {tmp_path}; 22 were there already (--overwrite redoes them)\n")
    assert assert_whole(tmp_path, expected) == names()
    assert all(path.stat().st_mtime == 0 for path in there)
    assert fuse("--out", tmp_path)[1].startswith("fused 0 of 24 into")
    # Without its sheet a pair is not finished.
    assert fuse("--out", tmp_path, "--sheet")[1] == f"fused 24 of 24 into {tmp_path}\n"
    assert fuse("--out", tmp_path, "--overwrite")[1] == f"fused 24 of 24 into {tmp_path}\n"
    assert all(path.stat().st_mtime > 0 for path in there)
    assert fuse("--out", tmp_path, "--format", "tif")[1] == f"fused 24 of 24 into {tmp_path}\n"


def test_what_an_interrupted_overwrite_left_is_redone(tmp_path, fuse, expected):
    """The record is that of the new settings from the first image on; the images before it are not."""
    assert fuse("--out", tmp_path)[0] == 0
    old = sorted(tmp_path.glob("*.png"))[:20]
    for path in old:
        os.utime(path, (0, 0))
    assert fuse("--out", tmp_path)[1].startswith("fused 20 of 24 into")
    assert assert_whole(tmp_path, expected) == names()


def test_nothing_to_do_needs_no_jax(tmp_path, fuse, sources):
    assert fuse("--out", tmp_path)[0] == 0
    program = "import sys; from langfuse_jax.cli import main; print(main(sys.argv[1:]), 'jax' in sys.modules)"
    argv = ["fuse", *sources, "--out", str(tmp_path)]
    done = subprocess.run([sys.executable, "-c", program, *argv], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "0 False" and "24 were there already" in done.stdout


def test_what_others_made_is_not_taken_for_finished(tmp_path, fuse, expected):
    """Broken files, images of other settings, and those of which there is no record."""
    assert fuse("--out", tmp_path)[0] == 0
    (tmp_path / "03.png").write_bytes(b"")
    (tmp_path / "04.png").write_bytes((tmp_path / "04.png").read_bytes()[:-100])
    write_png(tmp_path / "05.png", np.zeros((32, 32)))
    assert fuse("--out", tmp_path)[1].startswith("fused 3 of 24 into")
    assert assert_whole(tmp_path, expected) == names()
    for flags, told in (
        (["--gray"], "gray false, now true"),
        (["--bits", "16"], "bits 8, now 16"),
        (["--infrared-range", "0,200"], "infrared_range not given, now [0.0, 200.0]"),
    ):
        status, out, err = fuse("--out", tmp_path, *flags)
        assert (status, out) == (2, "") and err.count("\n") == 1
        assert f"was fused with other settings ({told}); give --overwrite" in err
    assert fuse("--out", tmp_path, "--gray", "--overwrite")[0] == 0 == fuse("--out", tmp_path, "--gray")[0]
    (tmp_path / ".langfuse_jax.json").unlink()
    status, _, err = fuse("--out", tmp_path, "--gray")
    assert status == 2 and "has 00.png and 23 more, and no record" in err


def test_stale_sheets_are_redone(tmp_path, fuse):
    assert fuse("--out", tmp_path, "--sheet")[0] == 0
    assert fuse("--out", tmp_path, "--gray", "--overwrite")[0] == 0
    assert fuse("--out", tmp_path, "--gray", "--sheet")[1].startswith("fused 24 of 24")
    assert fuse("--out", tmp_path, "--gray", "--sheet")[1].startswith("fused 0 of 24")


def test_a_sentence_may_be_longer_than_a_name(tmp_path, fuse):
    goal = " and ".join(["a bright image"] * 20)
    assert fuse("--out", tmp_path, "--goal", goal)[0] == 0
    assert fuse("--out", tmp_path, "--goal", goal)[1].startswith("fused 0 of 24")


def test_another_model_is_another_setting(tmp_path, folders, expected):
    fuser = Fuser.load()
    other = Fuser(jax.tree.map(lambda leaf: leaf * 1.01, fuser.params))
    for _ in range(2):
        fuse_folders(folders / "vi", folders / "ir", tmp_path, load_fuser=lambda: fuser)
    with pytest.raises(UserError, match=f"weights {fuser.fingerprint}, now {other.fingerprint}"):
        fuse_folders(folders / "vi", folders / "ir", tmp_path, load_fuser=lambda: other)
    assert fingerprint_of(ASSETS / "steered") == fuser.fingerprint


def test_in_python(tmp_path, folders, expected, capsys):
    """The function of the command: the result says what was done, and stderr what could not be."""
    vi = tmp_path / "vi"
    shutil.copytree(folders / "vi", vi)
    (vi / "05.png").write_text("no image")
    (vi / "07.png").rename(vi / "seven.png")
    fuser = Fuser.load()
    result = fuse_folders(vi, folders / "ir", tmp_path / "out", load_fuser=lambda: fuser, batch_size=2, sheet=True)
    assert (result.fused, result.skipped, result.failed) == (22, 0, ["05", "07", "seven"])
    assert result.process == (0, 1) and result.work.images.total() == 22
    assert assert_whole(tmp_path / "out", expected) == [i for i in names() if i not in ("05", "07")]
    out, err = capsys.readouterr()
    assert out == "" and sorted(line.split(":")[1].split("/")[-1] for line in err.splitlines()) == [
        "05.png",
        "07.png",
        "seven.png",
    ]
    (vi / "05.png").unlink()
    result = fuse_folders(vi, folders / "ir", tmp_path / "out", load_fuser=lambda: fuser)
    assert (result.fused, result.skipped, result.work) == (0, 22, None)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"format": "gif"}, "--format gif: is none of png, jpg"),
        ({"format": "jpg", "bits": 16}, "--bits 16: JPEG holds 8 bits"),
        ({"canvases": 0}, "--canvases 0: must be at least 1"),
        ({"batch_size": 0}, "--batch-size 0: must be at least 1"),
    ],
)
def test_options_that_mean_nothing_in_python(tmp_path, folders, options, message):
    with pytest.raises(UserError, match=message):
        fuse_folders(
            folders / "vi", folders / "ir", tmp_path / "o", load_fuser=lambda: pytest.fail("called"), **options
        )
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize("form", ["jpg", "tiff", "webp"])
def test_formats(tmp_path, fuse, form, expected):
    assert fuse("--out", tmp_path, "--format", form)[0] == 0
    assert sorted(path.name for path in tmp_path.glob("[!.]*")) == [f"{i}.{form}" for i in names()]
    image = Image.open(tmp_path / f"05.{form}")
    difference = np.abs(np.asarray(image) - expected["05"])
    assert difference.mean() < 6 if form == "jpg" else difference.max() < 1.01


def test_sixteen_bits(tmp_path, fuse, expected):
    assert fuse("--out", tmp_path, "--bits", 16)[0] == 0
    image = np.asarray(Image.open(tmp_path / "04.png"))
    assert image.dtype == np.uint16
    np.testing.assert_allclose(image / 257, expected["04"], atol=0.03)


def test_infrared_range(tmp_path, fuse, folders, capsys):
    deep = tmp_path / "deep"
    deep.mkdir()
    for i in names()[:4]:
        image = np.asarray(Image.open(folders / "ir" / f"{i}.png")).astype(np.uint16)
        Image.fromarray(27000 + 4 * image).save(deep / f"{i}.tif")
    argv = ["fuse", "--visible", str(folders / "vi"), "--infrared", str(deep), "--out"]
    assert main([*argv, str(tmp_path / "range"), "--infrared-range", "27000,28020"]) == 1
    assert capsys.readouterr().out.startswith("fused 4 of 24; failed: 04, 05,")
    assert fuse("--out", tmp_path / "eight")[0] == 0
    for i in names()[:4]:
        a, b = (np.asarray(Image.open(tmp_path / name / f"{i}.png")).astype(int) for name in ("range", "eight"))
        assert np.abs(a - b).max() <= 1


def test_large_images_ask_for_the_flag(tmp_path, fuse, expected, monkeypatch):
    monkeypatch.setattr(command_flags, "MAX_SIDE", 46)
    large = [i for i in names() if max(expected[i].shape) > 46]
    status, out, err = fuse("--out", tmp_path)
    assert (status, out) == (1, f"fused {PAIRS - len(large)} of {PAIRS}; failed: {', '.join(large)}\n")
    assert err.count("\n") == len(large) > 0 and "pixels; sides over 46 are refused: make it smaller" in err
    status, out, _ = fuse("--out", tmp_path, "--allow-large")
    assert status == 0 and out.startswith(f"fused {len(large)} of {PAIRS} into")
    assert assert_whole(tmp_path, expected) == names()


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--format", "gif"], "--format gif: is none of png, jpg"),
        (["--format", "jpg", "--bits", "16"], "--bits 16: JPEG holds 8 bits; choose PNG or TIFF"),
        (["--infrared-range", "5"], "--infrared-range 5: give two numbers LOW,HIGH"),
        (["--infrared-range", "9,5"], "--infrared-range 9,5: give two numbers LOW,HIGH"),
        (["--infrared-range", "0,nan"], "--infrared-range 0,nan: give two numbers LOW,HIGH"),
        (["--canvases", "0"], "--canvases 0: must be at least 1"),
        (["--batch-size", "-1"], "--batch-size -1: must be at least 1"),
        (["--distributed"], "--distributed: JAX finds no cluster"),
    ],
)
def test_flags_that_mean_nothing(tmp_path, fuse, flags, told):
    status, out, err = fuse("--out", tmp_path / "o", *flags)
    assert (status, out) == (2, "") and err.count("\n") == 1 and told in err
    assert not (tmp_path / "o").exists()


def test_unwritable_folders_are_told_of_before_the_work(tmp_path, fuse, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path)
    monkeypatch.setattr(Fuser, "load", None)
    status, _, err = fuse("--out", tmp_path / "o" / "p")
    assert status == 2 and err.count("\n") == 1
    assert f"--out {tmp_path / 'o' / 'p'}: cannot be written ({tmp_path} cannot be written)" in err


def test_a_full_disk_ends_in_one_line(tmp_path, fuse, monkeypatch):
    save = Image.Image.save

    def full(image, file, **options):
        if len(list((tmp_path / "o").glob("*.png"))) > 8:
            raise OSError(errno.ENOSPC, "No space left on device")
        save(image, file, **options)

    monkeypatch.setattr(Image.Image, "save", full)
    status, out, err = fuse("--out", tmp_path / "o")
    assert (status, out) == (2, "") and err.count("\n") == 1
    assert "cannot be written (No space left on device)" in err and "the same command resumes from there" in err
    done = len(list((tmp_path / "o").glob("*.png")))
    assert 8 < done < 18
    monkeypatch.undo()
    assert fuse("--out", tmp_path / "o")[1].startswith(f"fused {24 - done} of 24 into")


def test_a_real_limit_of_the_file_size_ends_in_one_line(tmp_path, sources):
    """The kernel itself refuses to write past 1024 bytes of a file."""
    command = [sys.executable, "-m", "langfuse_jax", "fuse", *sources, "--out", str(tmp_path / "o")]
    limited = ["bash", "-c", 'ulimit -f 1 && exec "$@"', "limited", *command]
    done = subprocess.run(limited, capture_output=True, text=True)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.count("\n") == 1 and "cannot be written (File too large)" in done.stderr
    assert not any(path.stat().st_size > 1024 for path in (tmp_path / "o").iterdir())
    assert not list((tmp_path / "o").glob("*.tmp"))


def test_two_processes_share_the_folder(tmp_path, fuse, expected, monkeypatch):
    """Each takes every other pair; they know of each other's number alone."""
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    for i in (1, 0):
        monkeypatch.setattr(jax, "process_index", lambda i=i: i)
        assert fuse("--out", tmp_path) == (0, f"fused 12 of 12 into {tmp_path} as process {i} of 2\n", "")
        assert assert_whole(tmp_path, expected) == (names()[1::2] if i else names())


@pytest.mark.slow
def test_two_real_processes_share_the_folder(tmp_path, sources, expected):
    program = """if True:
        import sys, jax
        jax.distributed.initialize(sys.argv[1], 2, int(sys.argv[2]))
        from langfuse_jax.cli import main
        sys.exit(main(sys.argv[3:]))
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    argv = ["fuse", *sources, "--out", str(tmp_path)]
    started = [
        subprocess.Popen([sys.executable, "-c", program, address, str(i), *argv], stdout=subprocess.PIPE, text=True)
        for i in range(2)
    ]
    told = [process.communicate(timeout=240)[0] for process in started]
    assert [process.returncode for process in started] == [0, 0]
    assert told == [f"fused 12 of 12 into {tmp_path} as process {i} of 2\n" for i in range(2)]
    assert assert_whole(tmp_path, expected) == names()


def test_killed_at_any_moment(tmp_path, folders, sources):
    """SIGKILL twenty times, each amid the work: what is there is whole, and the last run completes the set.

    Moments are counted in calls, not by the clock, so that they are the same on any machine at any load. All is as ever
    but the network, a mean of the two sources in its place, since it has no part in this.
    """
    expected = {}
    for i in names():
        luma, chroma = images.read_visible(folders / "vi" / f"{i}.png")
        mean = (luma + images.read_infrared(folders / "ir" / f"{i}.png")) / 2
        expected[i] = 255 * (mean if chroma is None else images.ycbcr_to_rgb(mean, chroma))
    # A fork of a process that has JAX imported, but no device yet, starts in no time.
    program = """if True:
        import os, sys, threading
        from langfuse_jax.images import canvas
        from langfuse_jax.runtime import compilation
        from langfuse_jax.inference import folders as folder
        from langfuse_jax.inference import fuser
        from langfuse_jax.inference import stream
        from langfuse_jax.cli import main
        fuser.Fuser.load = lambda *_, **__: fuser.Fuser({}, {"pad_multiple": 8})
        fuser.Fuser.program = lambda *_: lambda visible, infrared, sizes: (visible + infrared) / 2
        def end_after(images, calls):
            def watch(frame, event, function):
                nonlocal images, calls
                if images > 0:
                    images -= event == "c_return" and function is os.replace
                elif event.endswith("call"):
                    calls -= 1
                    if calls < 0:
                        os.kill(os.getpid(), 9)
            threading.setprofile(watch)
            sys.setprofile(watch)
        for line in sys.stdin:
            images, calls, *argv = line.split()
            child = os.fork()
            if not child:
                os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
                if calls != "all":
                    end_after(int(images), int(calls))
                os._exit(main(argv))
            print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
    """
    out, chance = tmp_path / "out", random.Random(0)
    starter = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )

    def run(*flags, moment=(0, "all")):
        """The status of a run that is killed at a `moment`: so many calls after so many images are there."""
        command = [*map(str, moment), "fuse", *sources, "--out", str(out), *flags]
        starter.stdin.write(" ".join(command) + "\n")
        starter.stdin.flush()
        return int(starter.stdout.readline())

    assert run() == 0 and assert_whole(out, expected) == names()
    partial = 0
    for i in range(20):
        if i % 2:
            for stem in chance.sample(names(), 16):
                (out / f"{stem}.png").unlink(missing_ok=True)
        elif i % 4 == 0:
            shutil.rmtree(out, ignore_errors=True)
        # Each fifth in the start-up, the others amid the work.
        moment = (0, chance.randrange(20000)) if i % 5 == 4 else (chance.randint(1, 10), chance.randrange(1000))
        assert run(*([] if i % 2 else ["--overwrite"]), moment=moment) == -signal.SIGKILL
        partial += 0 < len(assert_whole(out, expected)) < PAIRS
    assert partial >= 10
    (out / "00.png").unlink(missing_ok=True)
    assert run() == 0 and assert_whole(out, expected) == names()
    assert sorted(path.name for path in out.iterdir()) == [".langfuse_jax.json", *(f"{i}.png" for i in names())]
    starter.stdin.close()
    assert starter.wait() == 0
