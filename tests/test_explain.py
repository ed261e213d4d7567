"""Baselines, loss maps and the figures of the notebooks."""

import json

import numpy as np
import pytest

from langfuse_jax import Clip, UserError
from langfuse_jax.analysis.explain import embed_gray, loss_map, losses_by_goal, text_plane
from langfuse_jax.analysis.figures import plot_loss_map, plot_matrix, plot_plane, plot_training
from langfuse_jax.classical.baselines import BASELINES, write_baselines
from langfuse_jax.clip.words import GOAL, embed
from langfuse_jax.examples.night_scene import night_scene, write_night_scenes
from langfuse_jax.images.files import read_visible, rgb_to_ycbcr, to_unit


@pytest.fixture(scope="module")
def clip():
    return Clip.load()


@pytest.fixture(scope="module")
def pair():
    visible, infrared = night_scene(120, 160)
    return rgb_to_ycbcr(to_unit(visible, "visible"))[0], to_unit(infrared, "infrared")


def loss(fused, visible, infrared, texts):
    """The formula, with numpy."""
    total = 0.0
    for image, words in ((visible, texts.visible), (infrared, texts.infrared)):
        a, b = fused - image, texts.goal - words
        total += (1 - a @ b / np.linalg.norm(a) / np.linalg.norm(b)) / 2
    return total


def test_the_plane_keeps_the_directions_of_the_words(clip):
    texts = embed(clip)
    plane = text_plane(texts)
    for source in (texts.visible, texts.infrared):
        direction = texts.goal - source
        assert np.linalg.norm(plane @ direction) == pytest.approx(np.linalg.norm(direction), rel=1e-5)
    across = plane @ (texts.infrared - texts.visible)
    assert across[0] > 0 and abs(across[1]) < 1e-5


def test_maps_and_tables_have_the_loss(clip, pair):
    texts, fused = embed(clip), BASELINES["Laplacian pyramid"](*pair)
    losses = loss_map(clip, texts, fused, *pair, side=64, stride=32, threshold=0.0)
    assert losses.shape == (2, 4)
    patch, *sources = embed_gray(clip, [fused[32:96, 64:128], *pair])
    assert losses[1, 2] == pytest.approx(loss(patch, *sources, texts), abs=1e-4)
    assert np.isnan(loss_map(clip, texts, fused, *pair, side=64, stride=32, threshold=8.0)).all()
    goals = [GOAL, "a blurry image"]
    table = losses_by_goal(clip, goals, {"one": fused, "two": pair[0]}, *pair)
    assert table.shape == (2, 2)
    assert table[1, 0] == pytest.approx(
        loss(embed_gray(clip, [fused])[0], *sources, embed(clip, goal=[goals[1]])), abs=1e-4
    )
    for picture in (
        plot_plane(clip, texts, *pair, {"pyramid": fused}),
        plot_loss_map(fused, losses, side=64, stride=32),
        plot_matrix(table, goals, ["one", "two"], "title"),
    ):
        assert min(picture.size) > 100 and np.asarray(picture).std() > 10


def test_baselines_by_hand():
    visible, infrared = np.zeros((32, 32), np.float32), np.full((32, 32), 0.5, np.float32)
    values = {name: method(visible, infrared).mean() for name, method in BASELINES.items()}
    assert values == pytest.approx({"average": 0.25, "elementwise max": 0.5, "Laplacian pyramid": 0.25}, abs=1e-6)


def test_folders_of_scenes_and_baselines(tmp_path):
    write_night_scenes(tmp_path / "drawn", 2, 48, 64)
    write_baselines(tmp_path / "drawn/visible", tmp_path / "drawn/infrared", tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out" / "pyramid").iterdir()) == ["0.png", "1.png"]
    maximum = read_visible(tmp_path / "out/maximum/1.png")[0]
    sources = [read_visible(tmp_path / "drawn" / role / "1.png")[0] for role in ("visible", "infrared")]
    np.testing.assert_allclose(maximum, np.maximum(*sources), atol=0.51 / 255)
    with pytest.raises(UserError, match="nowhere"):
        write_baselines(tmp_path / "nowhere", tmp_path / "drawn/infrared", tmp_path / "out")


def test_curves_of_training_runs(tmp_path):
    """One with the published terms and one with a guide alone: a panel for each term that either has."""
    published = {"loss": 1.0, "whole": 1.0, "patch": 1.0, "similarity": 0.5, "perceptual": 0.1, "gradient_norm": 2.0}
    guided = {"loss": 1.0, "guide": 1.0, "gradient_norm": 2.0}
    for name, terms in (("a", published), ("b", guided)):
        (tmp_path / name).mkdir()
        lines = [json.dumps({"step": step, **terms}) for step in range(3)]
        (tmp_path / name / "metrics.jsonl").write_text("\n".join(lines))
    heights = [plot_training(*(tmp_path / name for name in names)).size[1] for names in ("b", "a", "ab")]
    assert heights[0] * 3 == heights[1] / 2 * 3 == heights[2]  # one, two and three rows of panels
