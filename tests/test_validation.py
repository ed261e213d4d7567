"""Validation during training: which crops, how many at a time, how many scenes in memory; with cheap losses."""

import weakref
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import quick_training
from jax.sharding import Mesh

from langfuse_jax import Clip, UserError
from langfuse_jax.data.pipeline import random_crop
from langfuse_jax.data.scenes import list_scenes, read_scene
from langfuse_jax.images.canvas import border_rule, extend
from langfuse_jax.models.fusion import FusionNet
from langfuse_jax.training import sheets, shown, validation
from langfuse_jax.training.configs import load_config
from langfuse_jax.training.objective import Frozen, Recipe

FROZEN = Frozen({}, None, None)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    quick_training.draw_scenes(root, range(5))
    return root


@pytest.fixture
def alive(monkeypatch):
    """Counts reads, and the most decoded scenes that lived at once."""
    counts = SimpleNamespace(now=0, most=0, reads=0)

    def ended():
        counts.now -= 1

    def read(scene):
        pair = read_scene(scene)
        weakref.finalize(pair[0], ended)
        counts.now, counts.reads = counts.now + 1, counts.reads + 1
        counts.most = max(counts.most, counts.now)
        return pair

    monkeypatch.setattr(validation, "read_scene", read)
    monkeypatch.setattr(shown, "read_scene", read)
    return counts


@pytest.fixture
def validate(root, monkeypatch):
    """validate(settings) -> mean of the visible crops, each times a number drawn for its scene; and crops at a time."""

    def loss(params, batch, key, frozen, *, net, vision, recipe):
        draw = jax.vmap(lambda place: jax.random.uniform(jax.random.fold_in(key, place)))(batch["place"])
        return (draw * batch["visible"].mean((1, 2, 3))).mean(), {"drawn": draw.mean()}

    def run(**settings):
        values = {"data.validation": "night", "steps": 1, **settings}
        config = load_config(str(quick_training.CONFIG), quick_training.overrides(root, **values))
        mesh = Mesh(np.array(jax.devices()[:1]), ("data",))
        found = validation.make_validation(config, FusionNet(), Clip.load().vision, Recipe({}), mesh)({}, FROZEN)
        return found, {len(numbers) for numbers in sizes}

    def crops(scenes, numbers, config):
        sizes.append(numbers)
        return drawn(scenes, numbers, config)

    sizes, drawn = [], validation._crops
    monkeypatch.setattr(validation, "fusion_loss", loss)
    monkeypatch.setattr(validation, "_crops", crops)
    return run


def test_three_pairs_are_three_crops_of_three_scenes(root, validate, alive):
    found, sizes = validate(batch_size=4, validation__pairs=3)
    expected = []
    for number in (0, 2, 4):
        pair = read_scene(list_scenes(root / "night")[number])
        crop = random_crop(*pair, 32, np.random.default_rng([0, number]))["visible"]
        expected.append(jax.random.uniform(jax.random.fold_in(jax.random.key(0), number)) * crop.mean())
    np.testing.assert_allclose(found["loss"], np.mean(expected), rtol=1e-6)
    assert sizes == {3} and alive.reads == 2 * 3  # once to see that they can be read


def test_each_scene_of_a_small_dataset_counts_once(validate):
    all_of_them, sizes = validate(batch_size=4, validation__pairs=16)
    assert sizes == {3}  # two parts, of which the second has one to fill up
    assert validate(batch_size=4, validation__pairs=5)[0] == all_of_them


@pytest.mark.parametrize(("batch_size", "accumulate"), [(1, 1), (2, 1), (4, 2), (4, 1), (256, 1)])
def test_the_number_does_not_depend_on_the_batch(validate, batch_size, accumulate):
    found, sizes = validate(batch_size=batch_size, memory__accumulate=accumulate, validation__pairs=5)
    np.testing.assert_allclose(found["loss"], validate(batch_size=3, validation__pairs=5)[0]["loss"], rtol=1e-6)
    assert max(sizes) <= min(batch_size // accumulate, 5)


def test_no_scene_stays_decoded(root, validate, alive):
    validate(batch_size=4, validation__pairs=5)
    assert alive.reads == 10 and alive.most <= 2 and alive.now == 0


def test_scores_and_sheets_keep_no_scene(root, alive, tmp_path, monkeypatch):
    values = {"data.validation": "night", "scores.every": 1, "scores.metrics": "('SD',)", "sheet.pairs": 2}
    config = load_config(str(quick_training.CONFIG), quick_training.overrides(root, **values))
    monkeypatch.setattr(FusionNet, "apply", lambda self, params, visible, infrared, sizes: (visible + infrared) / 2)
    (scores,) = validation.make_scores(config, FusionNet())
    assert alive.reads == 0
    found = scores.take({}, 0, {"crop": 32})
    scenes = [
        [extend(image, **border_rule(32)) for image in read_scene(scene)] for scene in list_scenes(root / "night")
    ]
    means = [np.round(255 * np.mean(pair, 0)).std() for pair in scenes]
    np.testing.assert_allclose(found["SD"], np.mean(means), rtol=1e-5)
    assert alive.reads == 5 and alive.most <= 2 and alive.now == 0
    pairs, sentence = shown.shown_pairs(config, lambda _: {}), shown.Sentence("a bright image", np.ones(3, np.float32))
    (sheet,) = sheets.make_sheet(tmp_path, pairs, [sentence], {}, every=3)
    assert alive.reads == 7 and alive.now == 0
    monkeypatch.setattr(shown, "Fuser", lambda params, metadata, direction: lambda visible, infrared: visible)
    assert sheet.take({}, 7, {"crop": 32}) == tmp_path / "step_000007.png" and (tmp_path / "step_000007.png").exists()
    assert sheets.make_sheet(tmp_path, pairs, [sentence], {}, every=0) == []
    assert alive.reads == 9 and alive.most <= 3 and alive.now == 0


def test_scenes_that_cannot_be_read_are_told_at_once(root, tmp_path, validate):
    quick_training.draw_scenes(tmp_path, range(3))
    path = tmp_path / "night" / "visible" / "1.png"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(UserError, match=r"1\.png: cannot be read"):
        validate(**{"data.root": tmp_path, "validation.pairs": 3})


def test_what_fills_up_may_be_not_finite(root, monkeypatch):
    """Black crops have no mean to divide by."""
    monkeypatch.setattr(
        validation, "fusion_loss", lambda p, batch, *_, **__: ((batch["visible"] / batch["visible"].mean()).mean(), {})
    )
    values = {"data.validation": "night", "validation.pairs": 5, "batch_size": 3}
    config = load_config(str(quick_training.CONFIG), quick_training.overrides(root, **values))
    mesh = Mesh(np.array(jax.devices()[:1]), ("data",))
    validate = validation.make_validation(config, FusionNet(), Clip.load().vision, Recipe({}), mesh)
    np.testing.assert_allclose(validate({"w": jnp.zeros(1)}, FROZEN)["loss"], 1, rtol=1e-6)
