"""The training of the compact CLIP: its images, its sentences, its losses, and a whole small run."""

import json
import shutil
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
from PIL import Image
from recorded_keys import RecordedKeys

from langfuse_jax import Clip
from langfuse_jax.classical.pyramid import (
    collapse,
    enhance,
    equalise,
    gaussian_blur,
    hot_targets,
    laplacian_pyramid,
    pyramid_fuse,
)
from langfuse_jax.cli import main
from langfuse_jax.compact_clip.batches import GRADED, PER_SCENE, CameraScenes, cut
from langfuse_jax.compact_clip.cameras import _any, _typical, other_cameras
from langfuse_jax.compact_clip.concepts import AXES, CONCEPTS, INDEX
from langfuse_jax.compact_clip.degradations import FAILURES, degrade
from langfuse_jax.compact_clip.facts import GOALS, facts
from langfuse_jax.compact_clip.initialisation import convolutional_start, whitening_patches
from langfuse_jax.compact_clip.loss import (
    balanced_sigmoid_loss,
    directional_cosines,
    meaning_loss,
    naming_loss,
    order_loss,
    ranking_loss,
    spread_loss,
    strength_loss,
    token_loss,
)
from langfuse_jax.compact_clip.scenes import VARIANTS, Scene, inside_black_border, load_scenes
from langfuse_jax.compact_clip.train import draw_params
from langfuse_jax.losses import Words, language_driven_loss
from langfuse_jax.models.clip import TextTower, VisionTower
from langfuse_jax.runtime.workdir_lock import locked


def pair(rng, shape=(90, 110)):
    """A textured visible image and an infrared one with a single hot spot where the visible shows nothing."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    visible = 0.3 + 0.2 * (np.sin(x / 3) > 0) + 0.02 * rng.standard_normal(shape)
    infrared = 0.2 + 0.6 * np.exp(-((y - 40) ** 2 + (x - 70) ** 2) / 60) + 0.01 * rng.standard_normal(shape)
    return [np.clip(image, 0, 1).astype(np.float32) for image in (visible, infrared)]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Two cameras with two synthetic pairs each, and two of one to judge by."""
    root, rng = tmp_path_factory.mktemp("pairs"), np.random.default_rng(0)
    for camera, count in (("one", 2), ("two", 2), ("held", 1), ("again", 1)):
        for number in range(count):
            for role, image in zip(("visible", "infrared"), pair(rng), strict=True):
                (root / camera / role).mkdir(parents=True, exist_ok=True)
                Image.fromarray(np.uint8(image * 255)).save(root / camera / role / f"{number}.png")
    return root


@pytest.mark.parametrize("sigma", [0.5, 1.5, 3.0])
def test_gaussian_blur_equals_scipy(sigma):
    image = np.random.default_rng(0).random((40, 51), np.float32)
    expected = scipy.ndimage.gaussian_filter(image, sigma, mode="mirror", radius=max(1, int(3 * sigma + 0.5)))
    np.testing.assert_allclose(gaussian_blur(image, sigma), expected, atol=1e-5)


def test_wide_blur_is_near_scipy():
    image = gaussian_blur(np.random.default_rng(0).random((120, 150), np.float32), 3.0)
    expected = scipy.ndimage.gaussian_filter(image, 9.0)
    assert np.abs(gaussian_blur(image, 9.0) - expected)[20:-20, 20:-20].max() < 0.3 * np.abs(expected - image).max()


@pytest.mark.parametrize("shape", [(64, 64), (61, 47)])
def test_pyramid_is_exact(shape):
    image = np.random.default_rng(0).random(shape, np.float32)
    pyramid = laplacian_pyramid(image, 3)
    assert len(pyramid) == 4 and pyramid[-1].shape == tuple(-(-side // 8) for side in shape)
    np.testing.assert_allclose(collapse(pyramid), image, atol=1e-5)


def test_fusion_keeps_hot_targets_and_texture():
    visible, infrared = pair(np.random.default_rng(1))
    fused, saliency = pyramid_fuse(visible, infrared), hot_targets(infrared)
    assert saliency[40, 70] > 0.9 and np.median(saliency) < 0.1
    assert fused[38:43, 68:73].mean() > visible[38:43, 68:73].mean() + 0.2
    far = np.s_[5:85, 5:40]
    assert np.corrcoef(fused[far].ravel(), visible[far].ravel())[0, 1] > 0.95
    assert fused.dtype == np.float32 and fused.min() >= 0 and fused.max() <= 1


def test_enhancement():
    image = 0.1 + 0.4 * gaussian_blur(np.random.default_rng(0).random((90, 80), np.float32), 1.0)
    strong = enhance(image, contrast=0.3, sharpness=0.4, brightness=0.45)
    assert strong.std() > 2 * image.std() and abs(strong.mean() - 0.45) < 0.12
    # A flat histogram is what equalisation makes when nothing caps it.
    flat = equalise((image - image.min()) / np.ptp(image), limit=1e9)
    assert np.abs(np.histogram(flat, 4, (0, 1))[0] / flat.size - 0.25).max() < 0.12


def test_failures_fail_as_named():
    patch = enhance(pair(np.random.default_rng(1))[0][:80, :80], contrast=0.2, sharpness=0.2, brightness=0.45)
    gradient = lambda image: np.abs(np.diff(image, axis=0)).mean()  # noqa: E731
    made = {name: degrade(patch, name, np.random.default_rng(0)) for name in FAILURES}
    for name, image in made.items():
        assert image.shape == patch.shape and image.dtype == np.float32, name
        assert image.min() >= 0 and image.max() <= 1 and np.abs(image - patch).mean() > 0.004, name
        np.testing.assert_array_equal(image, degrade(patch, name, np.random.default_rng(0)))
    assert gradient(made["blurry"]) < 0.6 * gradient(patch) < gradient(made["noisy"])
    assert made["dark"].mean() < 0.22 and made["overexposed"].mean() > 0.7
    assert made["washed_out"].std() < 0.06
    np.testing.assert_allclose(made["inverted"], 1 - patch, atol=1e-6)


def test_facts_of_a_batch(folders):
    cameras = [load_scenes(folders / name) for name in ("one", "two")]
    batch, again = (CameraScenes(cameras, seed=0).batch(3, count=4, side=24) for _ in range(2))
    np.testing.assert_array_equal(batch.images, again.images)
    assert batch.images.shape == (4 * PER_SCENE, 24, 24) and batch.known.shape == (4 * PER_SCENE, len(CONCEPTS))
    assert batch.strengths.shape == (4, GRADED, len(AXES)) and len(batch.drawn) == 4
    scene = batch.known.reshape(4, PER_SCENE, -1)
    assert (scene[:, :2, INDEX["natural"]] == [1, 0]).all()
    assert (scene[:, 2, INDEX["goal"]] == 1).all() and (scene[..., INDEX["goal"]] == 1).sum() == 4
    # The modality is known of sources by other cameras alone, which come before those of known strength.
    modality = scene[:, : PER_SCENE - GRADED, [INDEX["visible"], INDEX["infrared"]]]
    assert (modality[:, :-12] == -1).all() and (scene[:, -GRADED:, INDEX["visible"]] == -1).all()
    assert (modality[:, -12:, 0] == 6 * [1, 0]).all()
    assert (modality[:, -12:, 1] == 6 * [0, 1]).all()


def test_cameras_have_equal_shares_whatever_their_size():
    """Three cameras of one, two and seven scenes, in batches of two, which is fewer than the cameras."""
    layers = np.zeros((1, 2, 2), np.uint8)
    cameras = [[Scene(f"{name}{i}", layers) for i in range(count)] for name, count in (("a", 1), ("b", 2), ("c", 7))]
    scenes = CameraScenes(cameras, seed=0)
    drawn = [scene.name for number in range(21) for scene in scenes.scenes(number, 2)]
    assert [sum(scene[0] == name for scene in drawn) for name in "abc"] == [14, 14, 14]
    # A camera's scenes are all drawn before one of them is drawn again.
    assert [drawn.count(f"c{i}") for i in range(7)] == 7 * [2] and drawn.count("b0") == 7
    assert [scene.name for scene in scenes.scenes(3, 2)] == drawn[6:8]


def test_black_borders_are_cut_and_black_scenes_are_kept():
    image = np.full((200, 300), 0.4, np.float32)
    image[:2], image[:, -3:] = 0.0, 0.01
    rows, columns = inside_black_border(image)
    assert image[rows, columns].shape == (198, 297) and image[rows, columns].min() > 0.3
    image[:90] = 0.0
    assert inside_black_border(image)[0] == slice(4, 200)


@pytest.mark.parametrize("make", [_any, _typical])
def test_other_cameras_differ_in_all_but_what_is_seen(make):
    y, x = np.mgrid[:48, :48].astype(np.float32) / 48
    visible, infrared = x, (x * y > 0.3).astype(np.float32)
    rng, seen = np.random.default_rng(0), []
    for _ in range(80):
        pair = np.stack(make(visible, infrared, rng))
        seen.append((*pair.mean((1, 2)), *pair.std((1, 2)), np.corrcoef(pair[1].ravel(), infrared.ravel())[0, 1]))
    seen = np.array(seen)
    alike = np.isclose(seen[:, 0], seen[:, 1]) & np.isclose(seen[:, 2], seen[:, 3], rtol=1e-3)
    assert 10 < alike.sum() < 60
    assert (np.ptp(seen[:, :2], axis=0) > 0.2).all() and (np.ptp(seen[:, 2:4], axis=0) > 0.05).all()
    assert (seen[:, 4] > 0.2).all()  # whatever is warm stays brighter
    if make is _any:
        assert (seen[~alike, 3] < 0.081).all()  # the others have a flat infrared


def test_other_cameras_keep_the_range_and_some_pairs_as_they_were_taken():
    y, x = np.mgrid[:48, :48].astype(np.float32) / 48
    colours, infrared = np.stack([x, y, x * y]), (x * y > 0.3).astype(np.float32)
    rng, taken = np.random.default_rng(0), 0
    for _ in range(80):
        pair = np.stack(other_cameras(colours, infrared, rng))
        assert pair.shape == (2, 48, 48) and pair.dtype == np.float32 and 0 <= pair.min() and pair.max() <= 1
        taken += len(np.unique(pair[1])) == 2  # an image of two levels, without blur and noise
    assert 15 < taken < 50
    flat = other_cameras(np.full((3, 24, 24), 0.5, np.float32), np.full((24, 24), 0.5, np.float32), rng)
    assert np.isfinite(flat).all()


def _vision(heads):
    return VisionTower(
        image_size=60, patch_size=10, width=16 * heads, layers=2, heads=heads, hidden=32, activation="quick_gelu",
        epsilon=1e-5, embedding=16,
    )  # fmt: skip


@pytest.mark.parametrize("heads", [3, 9])
def test_each_head_starts_by_looking_at_its_neighbour(heads):
    vision, images = _vision(heads), jax.random.uniform(jax.random.key(1), (4, 60, 60, 3), minval=0.45, maxval=0.55)
    params = convolutional_start(vision.init(jax.random.key(0), images)["params"], vision)
    embedding, captured = vision.apply(
        {"params": params}, images, capture_intermediates=lambda m, _: m.name in ("query", "key")
    )
    assert np.isfinite(embedding).all()
    outputs = captured["intermediates"]["block_0"]["attention"]
    query, key = (
        outputs[name]["__call__"][0].reshape(4, 37, heads, -1).swapaxes(1, 2)[:, :, 1:] for name in ("query", "key")
    )
    looked_at = np.argmax(query @ key.swapaxes(2, 3), axis=-1).reshape(4, heads, 6, 6)
    y, x = np.mgrid[1:5, 1:5]  # places with neighbours on all sides
    for head in range(heads):
        down, right = divmod(head, 3)
        hit = looked_at[:, head, 1:5, 1:5] == (y + down - 1) * 6 + x + right - 1
        assert hit.mean() > 0.9, (head, hit.mean())


def test_a_tower_of_a_single_patch_starts_without_waves():
    vision, images = _vision(3).clone(patch_size=60), jax.random.uniform(jax.random.key(1), (1, 60, 60, 3))
    drawn = vision.init(jax.random.key(0), images)["params"]
    started = convolutional_start(drawn, vision)
    np.testing.assert_array_equal(started["position_embedding"], drawn["position_embedding"])
    assert np.isfinite(vision.apply({"params": started}, images)).all()


def test_whitening_patches_are_orthogonal_cosines():
    kernel = whitening_patches(6, 40)
    assert kernel.shape == (6, 6, 3, 40) and not kernel[..., 36:].any()
    np.testing.assert_array_equal(kernel[:, :, 0], kernel[:, :, 2])
    gram = np.einsum("yxi,yxj->ij", kernel[:, :, 0, :36], kernel[:, :, 0, :36])
    np.testing.assert_allclose(gram - np.diag(np.diag(gram)), 0, atol=1e-12)
    np.testing.assert_allclose(kernel[:, :, 0, 0], 0.1 / 3 / 6)  # the mean, dampened
    strength = np.sqrt(np.diag(gram))
    assert (np.diff(strength) > -1e-12).all() and strength[-1] == pytest.approx(np.hypot(5, 5) / 9)


def test_facts():
    patch = np.tile(np.linspace(0.2, 0.8, 24, dtype=np.float32), (24, 1))
    patch = patch + 0.05 * (np.indices(patch.shape).sum(0) % 2).astype(np.float32)  # with detail
    goal = dict(zip(CONCEPTS, facts("goal", patch, targets=0.1), strict=True))
    assert (goal["goal"], goal["salient"], goal["blurry"], goal["dark"], goal["fused"]) == (1, 1, 0, 0, 1)
    assert (goal["noisy"], goal["hidden"], goal["sharp"], goal["hazy"], goal["thermal"]) == (0, 0, 1, 0, -1)
    glare = dict(zip(CONCEPTS, facts("visible", patch, failure="overexposed"), strict=True))
    assert (glare["glaring"], glare["exposed"], glare["noisy"]) == (1, 0, 0)
    dark = dict(zip(CONCEPTS, facts("visible", patch / 8, failure="dark"), strict=True))
    assert (dark["dark"], dark["goal"], dark["clear"], dark["fused"], dark["salient"]) == (1, 0, 0, -1, -1)


@pytest.mark.parametrize(("variant", "failure"), [("visible_enhanced", None), ("goal", "inverted")])
def test_without_anything_hot_some_images_are_neither_good_nor_bad(variant, failure):
    patch = np.tile(np.linspace(0.2, 0.8, 24, dtype=np.float32), (24, 1))
    goal = [facts(variant, patch, failure=failure, targets=hot)[INDEX["goal"]] for hot in (0.0, 0.1)]
    assert goal == [-1, 0]


def test_window_is_the_same_in_all_layers(folders):
    scene = load_scenes(folders / "one")[0]
    scene = scene._replace(layers=np.stack([scene.layers[0]] * len(scene.layers)))
    window = cut(scene, np.random.default_rng(0), 24)
    assert window.shape == (len(VARIANTS) + 4, 24, 24) and (window == window[:1]).all()
    assert set(GOALS) < set(VARIANTS)


def test_balanced_loss_by_hand():
    logits = jnp.array([[2.0, 0.0], [-1.0, 5.0], [0.5, 1.0]])
    known = jnp.array([[1, 1], [0, -1], [0, 1]], jnp.int8)
    softplus = lambda x: np.log1p(np.exp(x))  # noqa: E731
    # The second column has no false pair and does not count.
    expected = softplus(-2.0) + (softplus(-1.0) + softplus(0.5)) / 2
    assert jax.jit(balanced_sigmoid_loss)(logits, known) == pytest.approx(expected, rel=1e-6)
    tokens = jnp.repeat(logits[:, None], 5, axis=1)
    assert token_loss(tokens[..., :1], known[:, :1]) == pytest.approx(expected, rel=1e-6)


def test_naming_loss_by_hand():
    logits, known = jnp.array([[1.0, 2.0, 0.0, 9.0]]), jnp.array([[1, 1, 0, -1]], jnp.int8)
    expected = -np.mean([np.log(np.exp(1) / (np.exp(1) + 1)), np.log(np.exp(2) / (np.exp(2) + 1))])
    assert jax.jit(naming_loss)(logits, known) == pytest.approx(expected, rel=1e-6)
    nothing = jnp.array([[-1, 0, 0, -1]], jnp.int8)
    assert np.isfinite(jax.grad(naming_loss)(logits, nothing)).all() and naming_loss(logits, nothing) == 0


def test_ranking_loss_by_hand():
    """Pairs are taken within scenes of two images; the second sentence has one in no scene but the second."""
    logits = jnp.array([[2.0, 0.0], [-1.0, 5.0], [0.5, 1.0], [1.5, -2.0]])
    known = jnp.array([[1, 1], [0, -1], [0, 0], [1, 1]], jnp.int8)
    softplus = lambda x: np.log1p(np.exp(x))  # noqa: E731
    first = (softplus(-1.0 - 2.0) + softplus(0.5 - 1.5)) / 2
    second = softplus(1.0 - -2.0)
    loss = jax.jit(ranking_loss, static_argnames="per_scene")(logits, known, per_scene=2)
    assert loss == pytest.approx((first + second) / 2, rel=1e-6)
    assert ranking_loss(logits, jnp.ones_like(known), 2) == 0


def test_spread_loss_by_hand():
    """Unit vectors at 0, 60 and 90 degrees; the first two claim the same."""
    sentences = jnp.array([[1.0, 0.0], [0.5, 0.75**0.5], [0.0, 1.0]])
    claims = jnp.array([[True, False], [True, False], [False, True]])
    expected = np.mean([0.0, (0.75**0.5 - 0.3) ** 2, (0.75**0.5 - 0.3) ** 2])
    apart = np.eye(2, dtype=bool)
    assert spread_loss(sentences, claims, apart, largest=0.3) == pytest.approx(expected, rel=1e-5)
    assert spread_loss(sentences, claims, np.ones((2, 2), bool), largest=0.3) == 0  # all are related


def test_meaning_loss_by_hand():
    """The sentence that claims both lies at 30 degrees from the middle of two references at right angles."""
    references = jnp.eye(2)
    claims = jnp.array([[True, False], [True, True]])
    at = np.deg2rad([20.0, 45.0 + 30.0])
    sentences = jnp.stack([np.cos(at), np.sin(at)], axis=1)
    expected = 1 - np.mean(np.cos(np.deg2rad([20.0, 30.0])))
    assert jax.jit(meaning_loss)(sentences, claims, references) == pytest.approx(expected, rel=1e-4)
    assert not np.any(jax.grad(meaning_loss, argnums=2)(sentences, claims, references))


def test_strength_loss_leaves_out_what_is_unknown():
    levels, strengths = jnp.array([[[0.5, 9.0], [-1.0, 0.25]]]), jnp.array([[[1.0, jnp.nan], [-1.0, 0.75]]])
    assert jax.jit(strength_loss)(levels, strengths) == pytest.approx((0.25 + 0 + 0.25) / 3)
    gradient = jax.grad(strength_loss)(levels, strengths)
    np.testing.assert_allclose(gradient, [[[-1 / 3, 0], [0, -1 / 3]]], rtol=1e-6)
    assert strength_loss(levels, jnp.full_like(levels, jnp.nan)) == 0


def test_order_loss_by_hand():
    """Of three patches two pairs differ enough; one is in the right order, the other is not."""
    logits = jnp.array([[[1.0, 7.0], [3.0, 5.0], [0.0, 2.0]]])
    strengths = jnp.array([[[0.0, jnp.nan], [0.5, jnp.nan], [0.6, jnp.nan]]])
    softplus = lambda x: np.log1p(np.exp(x))  # noqa: E731
    expected = (0.5 * softplus(1.0 - 3.0) + 0.6 * softplus(1.0 - 0.0)) / 1.1
    assert jax.jit(order_loss)(logits, strengths) == pytest.approx(expected, rel=1e-6)
    assert np.isfinite(jax.grad(order_loss)(logits, strengths)).all()


def test_directions_are_those_of_the_language_driven_loss():
    rng = np.random.default_rng(0)
    images, texts = rng.standard_normal((3, 4, 8)), rng.standard_normal((3, 8))
    images, texts = (jnp.float32(x / np.linalg.norm(x, axis=-1, keepdims=True)) for x in (images, texts))
    cosines = jax.jit(directional_cosines)(images[:, 2:], images[:, 0], images[:, 1], texts, texts[0], texts[1])
    loss = language_driven_loss(images[:, 3], images[:, 0], images[:, 1], Words(texts[2], texts[0], texts[1]))
    np.testing.assert_allclose(1 - cosines[:, 1, 2], loss, atol=1e-5)


def test_each_part_starts_from_a_key_of_its_own():
    """No key of both towers and the heads is used twice, and no two parts begin with the same numbers."""
    vision = VisionTower(16, 8, len(CONCEPTS), 0, 2, 32, "gelu", 1e-5, 16)
    text = TextTower(len(CONCEPTS), 5, len(CONCEPTS), 0, 2, 32, "gelu", 1e-5, 16, 19)
    keys = RecordedKeys()
    params = jax.jit(partial(draw_params, vision=vision, text=text))(keys.key(0))
    assert keys.drawn() == 10 and keys.reused() == {}
    drawn = [leaf for leaf in jax.tree.leaves(params) if np.std(leaf) and leaf.ndim > 1]
    alike = [(a, b) for i, a in enumerate(drawn) for b in drawn[:i] if a.shape == b.shape]
    assert len(alike) == 4 and not any(np.array_equal(a, b) for a, b in alike)


def test_training_is_a_reproducible_command(folders, tmp_path, capsys):
    def run(out, *more):
        config = {
            "data.root": folders,
            "data.train": ("one", "two"),
            "data.validation": "held",
            "data.unseen": "again",
            "data.left_out": "(('two',),)",
            "steps": 3,
            "steps_left_out": 1,
            "log.every": 1,
            "checkpoint.every": 2,
            "optimizer.warmup_steps": 1,
            "scenes_per_batch": 2,
            "model.embedding": 16,
            "model.vision.image_size": 24,
            "model.vision.patch_size": 8,
            "model.vision.hidden_size": 24,
            "model.vision.num_attention_heads": 2,
            "model.vision.intermediate_size": 32,
            "model.vision.num_hidden_layers": 1,
            "model.text.hidden_size": 16,
            "model.text.intermediate_size": 32,
            "model.text.num_hidden_layers": 1,
        }
        flags = [f"--config.{key}={value}" for key, value in config.items()]
        return main(["train-clip", "--config", "compact_clip", "--out", str(out), *flags, *more])

    def train(out, *more):
        assert run(out, *more) == 0
        return Clip.load(out)

    first = train(tmp_path / "a")
    printed = capsys.readouterr().out
    assert "| lowest modality AUC | at least 0.8 |" in printed and "largest cosine" in printed
    assert "| held (development) |" in printed and "| two (left out) |" in printed
    report = json.loads((tmp_path / "a" / "report.json").read_text())
    assert report["fingerprint"] == first.fingerprint and report["accepted"] is False
    assert report["parameters"] == sum(leaf.size for leaf in jax.tree.leaves(first.params))
    assert [list(report[part]) for part in ("left_out", "unseen", "development")] == [["two"], ["again"], ["held"]]
    assert set(report["unseen"]["again"]["quality"]) < set(FAILURES)
    without = json.loads((tmp_path / "a" / "left_out" / "two" / "training.json").read_text())
    assert without["data"]["train"] == ["one"] and without["steps"] == 1
    assert first.unknown_words("a dark zebra") == ["zebra"]
    card = (tmp_path / "a" / "README.md").read_text()
    assert "langfuse-jax train-clip --config compact_clip" in card and "| one | 2 | not given |" in card
    assert not [file for file in (tmp_path / "a").iterdir() if file.name.startswith(".")]
    # Stopped after its second step, it resumes to the same model.
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    shutil.rmtree(tmp_path / "b" / "checkpoints" / "3")
    (tmp_path / "b" / "model.safetensors").unlink()
    alone = ("--config.data.left_out=()", "--config.data.unseen=()")
    assert train(tmp_path / "b", "--override", *alone).fingerprint == first.fingerprint
    assert f"{tmp_path / 'b'}: resuming from step 2" in capsys.readouterr().err
    steps = [[json.loads(line) for line in (tmp_path / n / "metrics.jsonl").read_text().splitlines()] for n in "ab"]
    assert [line["step"] for line in steps[0]] == [0, 1, 2] and steps[0][2]["gradient_norm"] > 0
    assert steps[0][2]["loss"] == steps[1][2]["loss"]
    with locked(tmp_path / "b"):
        assert run(tmp_path / "b") == 2
    assert f"{tmp_path / 'b'}: is in use by process" in capsys.readouterr().err
    assert train(tmp_path / "c", "--config.seed=1", *alone).fingerprint != first.fingerprint


def test_bad_input(tmp_path, capsys):
    flags = [f"--config.data.root={tmp_path / 'none'}", "--out", str(tmp_path / "out")]
    assert main(["train-clip", "--config", "compact_clip", *flags]) == 2
    assert "no such folder" in capsys.readouterr().err
    stranger = "--config.data.left_out=(('kaist',),)"
    assert main(["train-clip", "--config", "compact_clip", *flags, stranger]) == 2
    printed = capsys.readouterr().err
    assert "config.data.left_out: kaist is not among" in printed and '--config.data.left_out="()"' in printed
    every = "--config.data.train=('a',)", "--config.data.left_out=(('a',),)"
    assert main(["train-clip", "--config", "compact_clip", *flags, *every]) == 2
    assert "config.data.left_out: ('a',) leaves no camera" in capsys.readouterr().err
    assert main(["train-clip", "--config", "compact_clip", *flags, "--config.data.unseen=msrs"]) == 2
    assert "config.data.unseen: msrs is in config.data.train" in capsys.readouterr().err
    assert main(["train-clip", "--config", "compact_clip", "--out", "x", "--config.sceens=3"]) == 2
    assert "sceens" in capsys.readouterr().err
    wide = "--config.model.vision.hidden_size=128"  # not a multiple of the config's 9 heads
    assert main(["train-clip", "--config", "compact_clip", "--out", str(tmp_path / "wide"), wide]) == 2
    printed = capsys.readouterr().err
    assert "hidden_size=128" in printed and "num_attention_heads" in printed and not (tmp_path / "wide").exists()
