"""The package's own weights follow words: on the command line, in Python, in folders and in videos."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from PIL import Image

from langfuse_jax import Fuser, TextEmbeddings, UserError
from langfuse_jax.cli import main
from langfuse_jax.examples.night_scene import night_scene, write_night_scenes
from langfuse_jax.images.files import write_png


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pair")
    for role, image in zip(("visible", "infrared"), night_scene(96, 128), strict=True):
        write_png(folder / f"{role}.png", image)
    return folder


@pytest.fixture
def fused(pair, tmp_path, capsys):
    """What the command makes of the pair with more flags, in gray; its status and what it says."""

    def run(*flags):
        out = tmp_path / "out.png"
        arguments = ["--visible", pair / "visible.png", "--infrared", pair / "infrared.png", "--out", out, "--gray"]
        status = main(["fuse", *map(str, (*arguments, *flags))])
        err = capsys.readouterr().err
        return (np.asarray(Image.open(out)).astype(float) if status == 0 else None), status, err

    return run


def test_words_reach_the_picture(fused):
    default, bright, dark = (fused(*flags)[0] for flags in ((), ("--goal", "a bright image"), ("--goal", "dark")))
    assert dark.mean() + 20 < default.mean() < bright.mean() - 20
    half = fused("--goal", "a bright image", "--strength", "0.5")[0]
    assert default.mean() < half.mean() < bright.mean()
    np.testing.assert_array_equal(fused("--goal", "a bright image", "--strength", "0")[0], default)


def test_goals_blend(fused):
    bright, both, mostly_dark = (
        fused(*flags)[0].mean()
        for flags in (
            ("--goal", "a bright image"),
            ("--goal", "a bright image", "--goal", "a dark image"),
            ("--goal", "a bright image", "--goal", "a dark image", "--weights", "1", "3"),
        )
    )
    assert mostly_dark < both < bright


def test_an_embedding_stands_for_its_sentence(fused, tmp_path):
    text = tmp_path / "bright.npz"
    assert main(["embed", "--goal", "a bright image", "--out", str(text)]) == 0
    np.testing.assert_array_equal(fused("--goal", text)[0], fused("--goal", "a bright image")[0])


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (("--goal", "a zebra"), "zebra"),
        (("--strength", "0.5"), "--strength: is of a --goal"),
        (("--weights", "1"), "--weights: is of a --goal"),
        (("--goal", "a bright image", "--weights", "1", "2"), "--weights"),
        (("--goal", "a bright image", "--strength", "9"), "--strength 9.0: is not within 4"),
        (("--goal", "a bright image", "--model", "ldfusion"), "follow no words"),
        (("--model", "none"), "--model none: is none of steered, ldfusion"),
    ],
)
def test_what_cannot_be_followed_is_refused(fused, flags, line):
    _, status, err = fused(*flags)
    assert status == 2 and err.count("\n") == 1 and line in err


def test_unknown_words_are_named(fused):
    image, status, err = fused("--goal", "a bright image of a zebra")
    assert status == 0 and image is not None and "zebra" in err and err.count("\n") == 1


def test_another_clips_embedding_is_refused(fused, tmp_path):
    text = tmp_path / "other.npz"
    assert main(["embed", "--goal", "a bright image", "--out", str(text)]) == 0
    own = TextEmbeddings.load(text)
    dataclasses.replace(own, fingerprint="000000000000").save(text)
    _, status, err = fused("--goal", text)
    assert status == 2 and "000000000000" in err


def test_a_folder_of_other_words_is_refused(tmp_path, capsys):
    write_night_scenes(tmp_path / "scenes", 2, 48, 64)
    sources = [text for role in ("visible", "infrared") for text in (f"--{role}", str(tmp_path / "scenes" / role))]
    arguments = ["fuse", *sources, "--out", str(tmp_path / "out")]
    assert main([*arguments, "--goal", "a bright image"]) == 0
    before = [path.read_bytes() for path in sorted((tmp_path / "out").glob("*.png"))]
    assert main([*arguments, "--goal", "a bright image"]) == 0
    assert "2 were there already" in capsys.readouterr().out
    assert main([*arguments, "--goal", "a dark image"]) == 2
    err = capsys.readouterr().err
    assert "goal" in err and "--overwrite" in err and err.count("\n") == 1
    assert main([*arguments, "--goal", "a dark image", "--overwrite"]) == 0
    after = [path.read_bytes() for path in sorted((tmp_path / "out").glob("*.png"))]
    assert all(a != b for a, b in zip(before, after, strict=True))


def test_videos_follow_words(tmp_path):
    av = pytest.importorskip("av")
    write_night_scenes(tmp_path / "scenes", 2, 48, 64)
    levels = []
    for goal in ("a bright image", "a dark image"):
        out = tmp_path / "out.mp4"
        sources = [str(tmp_path / "scenes" / role) for role in ("visible", "infrared")]
        arguments = ["--visible", sources[0], "--infrared", sources[1], "--out", str(out), "--goal", goal]
        assert main(["fuse", "--video", *arguments]) == 0
        with av.open(str(out)) as container:
            levels.append(np.mean([frame.to_ndarray(format="gray").mean() for frame in container.decode(video=0)]))
    assert levels[0] > levels[1] + 20


def test_in_python():
    visible, infrared = night_scene(96, 128)
    fuser = Fuser.load()
    assert sum(leaf.size for leaf in jax.tree.leaves(fuser.params)) <= 300_000
    default, bright = fuser(visible, infrared), fuser(visible, infrared, goal="a bright image")
    np.testing.assert_array_equal(fuser.towards("a bright image")(visible, infrared), bright)
    assert bright.mean() > default.mean() + 0.08
    explained = fuser.towards("a bright image").explain(visible, infrared)
    gray = fuser(visible, infrared, goal="a bright image") @ np.array([0.299, 0.587, 0.114], np.float32)
    assert np.abs(explained.fused - gray).mean() < 0.02  # but for what is clipped to RGB
    with pytest.raises(UserError, match=r"strength: 0\.5, but there is no goal"):
        fuser(visible, infrared, strength=0.5)
    with pytest.raises(UserError, match="one pair at a time"):
        fuser.explain(np.stack([visible] * 2), np.stack([infrared] * 2)[..., None])


def test_former_names_are_taken():
    for former, name in (("student", "steered"), ("fusion", "ldfusion")):
        assert Fuser.load(model=former).fingerprint == Fuser.load(model=name).fingerprint
    assert json.dumps(Fuser.load().metadata["clip"]) and Fuser.load(model="ldfusion").metadata.get("goal") is None


def test_an_explanation_is_drawn():
    pytest.importorskip("matplotlib")
    from langfuse_jax.analysis.figures import plot_explanation

    picture = plot_explanation(Fuser.load().explain(*night_scene(48, 64)))
    assert min(picture.size) > 200 and np.asarray(picture.convert("L")).std() > 10
