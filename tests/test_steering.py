"""The steered network's training: pictures of words, goals, batches, the loss, and a whole small run."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from quick_training import draw_scenes, metrics
from safetensors.numpy import save_file
from transformers import CLIPConfig

from langfuse_jax import Clip, Fuser, TextEmbeddings, UserError
from langfuse_jax.analysis.periodicity import periodicity
from langfuse_jax.classical.pyramid import gaussian_blur, hot_targets
from langfuse_jax.classical.target import target_fuse
from langfuse_jax.cli import main
from langfuse_jax.clip.tensors import tensors_from_params
from langfuse_jax.clip.words import GOAL
from langfuse_jax.compact_clip.tokenizer import make_tokenizer, save_tokenizer
from langfuse_jax.data.scenes import Scenes, list_scenes
from langfuse_jax.examples.night_scene import night_scene
from langfuse_jax.images.files import rgb_to_ycbcr, to_unit
from langfuse_jax.losses import Words, language_driven_loss
from langfuse_jax.losses.ssim import ssim
from langfuse_jax.losses.total import published_terms
from langfuse_jax.models.clip import VisionTower, init_params, towers
from langfuse_jax.models.statistics import pair_statistics
from langfuse_jax.models.steered import SteeredNet
from langfuse_jax.steering.glare import glare_opened
from langfuse_jax.steering.goals import Goals, goals_of_vocabulary, listed_goals
from langfuse_jax.steering.loss import steering_loss
from langfuse_jax.steering.pictures import PICTURED, Layers, picture
from langfuse_jax.steering.scenes import SteeredScenes, SteeringData, steered_scene
from langfuse_jax.training.objective import Frozen


@pytest.fixture(scope="module")
def pair():
    visible, infrared = night_scene(192, 256)
    return rgb_to_ycbcr(to_unit(visible, "visible"))[0], to_unit(infrared, "infrared")


@pytest.fixture(scope="module")
def layers(pair):
    visible, infrared = pair
    return Layers(visible, infrared, target_fuse(visible, infrared), np.asarray(hot_targets(infrared)))


def gradient(image):
    return np.abs(np.diff(image, axis=0)).mean() + np.abs(np.diff(image, axis=1)).mean()


def like(image, source):
    return np.corrcoef(image.ravel(), source.ravel())[0, 1]


def contrast_of_targets(image, layers):
    return np.average(image, weights=layers.hot) - np.average(image, weights=1 - layers.hot)


def background(image, layers):
    return np.average(np.abs(image - gaussian_blur(image, 3.0)), weights=1 - np.clip(2 * layers.hot, 0, 1))


MEANT = {
    "visible": (lambda image, layers: like(image, layers.visible), 1),
    "infrared": (lambda image, layers: like(image, layers.infrared), 1),
    "natural": (lambda image, layers: like(image, layers.visible), 1),
    "thermal": (lambda image, layers: like(image, layers.infrared), 1),
    "salient": (contrast_of_targets, 1),
    "hidden": (contrast_of_targets, -1),
    "detailed": (background, 1),
    "quiet": (background, -1),
    "sharp": (lambda image, _: gradient(image), 1),
    "blurry": (lambda image, _: gradient(image), -1),
    "clean": (lambda image, _: np.median(np.abs(image - gaussian_blur(image, 1.0))), -1),
    "clear": (lambda image, _: np.median(gaussian_blur((image - gaussian_blur(image, 6.0)) ** 2, 6.0)), 1),
    "exposed": (lambda image, _: (image > 0.95).mean() + (image < 0.05).mean(), -1),
    "contrasty": (lambda image, _: image.std(), 1),
    "flat": (lambda image, _: image.std(), -1),
    "hazy": (lambda image, _: np.quantile(image, 0.05), 1),
    "glaring": (lambda image, _: (image > 0.95).mean(), 1),
    "bright": (lambda image, _: image.mean(), 1),
    "dark": (lambda image, _: image.mean(), -1),
}


def test_every_picture_shows_its_word_and_more_of_it_more(layers):
    assert {*MEANT, "goal", "fused"} == PICTURED.keys()  # these two are what the target is
    np.testing.assert_array_equal(picture(layers, ["goal", "fused"]), layers.target)
    for concept, (statistic, sign) in MEANT.items():
        steps = [sign * statistic(picture(layers, [concept], strength), layers) for strength in (0.0, 0.5, 1.0)]
        assert steps[0] < steps[1] < steps[2], (concept, steps)
        np.testing.assert_allclose(picture(layers, [concept], 0.0), layers.target, atol=2e-6)
    with pytest.raises(KeyError, match="zebra"):
        picture(layers, ["zebra"])


def test_two_words_show_in_one_picture(layers):
    both = picture(layers, ["salient", "dark"])
    assert both.mean() < 0.8 * layers.target.mean()
    assert contrast_of_targets(both, layers) > contrast_of_targets(picture(layers, ["dark"]), layers)


def test_glare_is_opened_by_night_alone():
    y, x = np.mgrid[:128, :160]
    lamp = np.exp(-((((y - 64) ** 2 + (x - 80) ** 2) / 900) ** 2))
    visible = np.float32(np.clip(0.1 + 1.2 * lamp, 0, 1))
    infrared = np.float32(0.3 + 0.6 * (np.hypot(y - 64, x - 80) < 6))
    opened = glare_opened(visible, infrared)
    assert (
        opened[64, 80] > opened[64, 66] + 0.1 and visible[64, 80] == visible[64, 66] == 1
    )  # the hot spot in the glare
    np.testing.assert_array_equal(opened[:16], visible[:16])
    day = np.float32(np.clip(visible + 0.5, 0, 1))
    np.testing.assert_array_equal(glare_opened(day, infrared), day)


GOALS = Goals(
    ["a bright image", "a dark image with people that stand out", "a zebra"],
    [("bright",), ("dark", "salient"), ()],
    np.eye(4, dtype=np.float32)[:3],
)
DEFAULT = np.eye(4, dtype=np.float32)[3]


def data_of(scene, **process):
    return SteeringData([scene], GOALS, DEFAULT, crop=64, batch_size=64, seed=0, **process)


@pytest.fixture(scope="module")
def scene(pair):
    return steered_scene(*pair)


@pytest.fixture(scope="module")
def data(scene):
    return data_of(scene)


def test_a_batch_is_the_same_whenever_it_is_asked_for(data, scene):
    first, again = data.batch(3), next(data.batches(3))
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert not np.array_equal(first["visible"], data.batch(4)["visible"])
    shares = [data_of(scene, process=(i, 2)).batch(3) for i in range(2)]
    for name, whole in first.items():
        np.testing.assert_array_equal(np.stack([share[name] for share in shares], 1).reshape(whole.shape), whole)


def test_samples_are_of_the_default_or_of_a_goal(data, scene):
    batch = data.batch(0)
    default = batch["steered"] == 0
    assert 0.2 < default.mean() < 0.6
    np.testing.assert_array_equal(batch["goal"][default], np.tile(DEFAULT, (default.sum(), 1)))
    assert (batch["anchored"][default] == 1).all()
    unknown = (batch["goal"][:, 2] > 0.01) & (batch["goal"][:, :2] < 0.01).all(1)
    assert unknown.any() and (batch["anchored"][unknown] < 0.5).all()
    assert (~default & (batch["goal"][:, 3] > 0.05)).any()  # of less than whole strength: between default and goal


def test_what_is_wanted_lies_where_the_crop_does(data, scene):
    """The target of default samples, and for a bright one a picture that is brighter than the target of its place."""
    layers = scene.layers.astype(np.float32) / 255
    batch = data.batch(0)
    for i in range(12):
        visible, wanted = (batch[name][i, ..., 0] for name in ("visible", "wanted"))
        window = next(
            (slice(y, y + 64), slice(x, x + 64), slice(None, None, step))
            for y in range(layers.shape[1] - 63)
            for x in range(layers.shape[2] - 63)
            for step in (1, -1)
            if np.array_equal(layers[0, y : y + 64, x : x + 64][:, ::step], visible)
        )
        target = layers[2][window[0], window[1]][:, window[2]]
        if not batch["steered"][i] or batch["anchored"][i] == np.float32(0.25):
            np.testing.assert_array_equal(wanted, target)
        elif batch["goal"][i, 0] > 0.99:
            assert (wanted >= target - 1e-6).all() and wanted.mean() > target.mean() + 0.03


def test_scenes_are_shown_in_sizes_and_tones(tmp_path):
    draw_scenes(tmp_path, seeds=(0,))
    sources = Scenes(list_scenes(tmp_path / "night"))
    scenes = SteeredScenes(sources, copies=1, zoom=4.0, crop=32, cache_mb=1, seed=0)
    shapes = [scenes[i].layers.shape[1:] for i in range(len(scenes))]
    assert shapes == 2 * [(48, 64), (32, 43), (32, 43)]  # as far as a crop fits
    assert not np.array_equal(scenes[0].layers[0], scenes[3].layers[0]) and scenes[0] is scenes[0]
    forgetful = SteeredScenes(sources, copies=1, zoom=4.0, crop=32, cache_mb=0, seed=0)
    np.testing.assert_array_equal(forgetful[4].layers, scenes[4].layers)
    # Statistics are those of what the network is shown.
    visible, infrared = (jnp.asarray(layer, jnp.float32)[None, ..., None] / 255 for layer in scenes[1].layers[:2])
    np.testing.assert_allclose(scenes[1].statistics, pair_statistics(visible, infrared)[0], atol=1e-6)


def test_goals_that_contradict_each_other_are_not_mixed():
    assert not GOALS.agree(0, 1) and GOALS.agree(1, 1) and GOALS.agree(2, 2)
    assert not GOALS.agree(0, 2)  # what one claims is known, of the other it is not
    looks = Goals(("a", "b"), (("natural",), ("infrared",)), GOALS.embeddings[:2])
    assert not looks.agree(0, 1)


def test_sentences_of_the_vocabulary_claim_what_they_are_labelled_with():
    clip = Clip.load()
    goals = goals_of_vocabulary(clip, 0)
    assert {concept for concepts in goals.concepts for concept in concepts} == PICTURED.keys()
    assert not any(clip.unknown_words(s.split(" of a ")[0].split(" of the ")[0]) for s in goals.sentences[:3])
    np.testing.assert_allclose(np.linalg.norm(goals.embeddings, axis=1), 1, rtol=1e-5)
    for sentence, concepts in zip(goals.sentences, goals.concepts, strict=True):
        if concepts == ("bright",):
            assert "slightly" not in sentence
    with pytest.raises(UserError, match="--goal 'zebra'"):
        listed_goals(clip, ["a dark image", "zebra"])


@pytest.fixture(scope="module")
def small():
    """A network, a tower and a batch that are compiled quickly."""
    rng = np.random.default_rng(0)
    net, vision = (
        SteeredNet(embedding=4),
        VisionTower(
            image_size=16,
            patch_size=8,
            width=8,
            layers=1,
            heads=1,
            hidden=8,
            activation="quick_gelu",
            epsilon=1e-5,
            embedding=4,
        ),
    )
    images = jnp.asarray(rng.random((4, 3, 64, 64, 1)), jnp.float32)
    params = net.init(jax.random.key(0), images[0], images[1])
    tower = vision.init(jax.random.key(1), jnp.zeros((1, 16, 16, 3)))["params"]
    batch = {
        "visible": images[0],
        "infrared": images[1],
        "wanted": images[2],
        "anchored": jnp.array([1.0, 1.0, 0.25]),
        "goal": jnp.asarray(np.eye(4)[[3, 0, 1]], jnp.float32),
        "steered": jnp.array([0.0, 1.0, 1.0]),
        "statistics": pair_statistics(images[0], images[1]),
    }
    frozen = Frozen(tower, Words(jnp.asarray(DEFAULT), *jnp.eye(4)[:2]), None)
    loss = partial(steering_loss, net=net, vision=vision, patches=2, fraction=(0.5, 0.8))
    return loss, params, batch, frozen


def test_terms_count_the_samples_that_they_are_of(small):
    loss, params, batch, frozen = small
    weights = {"guide": 1.0, "anchor": 1.0, "whole": 1.0, "patch": 1.0, "goal": 1.0}
    total, terms = jax.jit(partial(loss, weights=weights))(params, batch, jax.random.key(0), frozen)
    assert total == pytest.approx(sum(float(terms[name]) for name in weights), rel=1e-5)
    fused = jax.jit(loss.keywords["net"].apply)(
        params, batch["visible"], batch["infrared"], None, batch["goal"] - DEFAULT, batch["statistics"]
    )
    error = np.asarray(fused - batch["wanted"])[..., 0]
    steps = np.abs(np.diff(error, axis=1)).mean((1, 2)) + np.abs(np.diff(error, axis=2)).mean((1, 2))
    distance = np.abs(error).mean((1, 2)) + 2 * steps
    distance += (1 - np.asarray(ssim(fused[..., 0], batch["wanted"][..., 0]))) / 2
    assert terms["guide"] == pytest.approx(distance[0] / 3, rel=1e-4)
    assert terms["anchor"] == pytest.approx((distance[1] + 0.25 * distance[2]) / 3, rel=1e-4)
    only = jax.jit(partial(loss, weights={"guide": 2.0}))(params, batch, jax.random.key(0), frozen)
    assert only[1].keys() == {"guide", "fused_std"} and float(only[0]) == pytest.approx(
        2 * float(terms["guide"]), rel=1e-5
    )


def test_every_parameter_hears_the_words(small):
    loss, params, batch, frozen = small
    weights = {"whole": 1.0, "patch": 1.0, "goal": 1.0}
    total = partial(loss, weights=weights)
    gradient = jax.jit(jax.grad(lambda p: total(p, batch, jax.random.key(0), frozen)[0]))(params)
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
        assert np.isfinite(leaf).all() and np.abs(leaf).max() > 0, path


def test_every_sample_has_words_of_its_own():
    rng = np.random.default_rng(0)
    fused, visible, infrared, goals = jnp.asarray(rng.normal(size=(4, 3, 8)))
    patches = jnp.asarray(rng.normal(size=(3, 2, 8)))
    words = Words(goals, visible[0], infrared[0])
    terms = published_terms(
        lambda: (fused, visible, infrared),
        lambda: (patches, jnp.ones((3, 2))),
        words,
        lambda: 0.0,
        {"whole": 1.0, "patch": 1.0},
    )
    values = {name: float(value()) for name, _, value in terms if name in ("whole", "patch")}
    of_one = [words._replace(goal=goal) for goal in goals]
    whole = [
        language_driven_loss(fused[i : i + 1], visible[i : i + 1], infrared[i : i + 1], of_one[i]) for i in range(3)
    ]
    patch = [
        language_driven_loss(patches[i, p][None], visible[i : i + 1], infrared[i : i + 1], of_one[i])
        for i in range(3)
        for p in range(2)
    ]
    assert values["whole"] == pytest.approx(np.mean(whole), rel=1e-5)
    assert values["patch"] == pytest.approx(np.mean(patch), rel=1e-5)


@pytest.mark.parametrize("period", [2, 4, 8, 16])
def test_a_pattern_is_found_at_every_period(period):
    rng = np.random.default_rng(period)
    smooth = np.asarray(gaussian_blur(rng.random((192, 256)).astype(np.float32), 2.0)) + 0.01 * rng.normal(
        size=(192, 256)
    )
    y, x = np.mgrid[:192, :256]
    wave = 0.01 * np.sign(np.sin(2 * np.pi * (y + 0.5) / period)) * np.sign(np.sin(2 * np.pi * (x + 0.5) / period))
    assert periodicity(smooth + wave) > 1.3 * periodicity(smooth)
    with pytest.raises(ValueError, match="smaller than a block"):
        periodicity(smooth[:40])


FLAGS = {
    "data.train": "('night',)",
    "data.validation": "night",
    "crop": 64,
    "batch_size": 2,
    "augment.copies": 1,
    "patches.count": 1,
    "optimizer.warmup_steps": 1,
    "checkpoint.every": 2,
    "log.every": 1,
    "sheet.every": 2,
    "sheet.pairs": 1,
    "sheet.goals": "a dark image",
}


def train(root, workdir, **more):
    values = {**FLAGS, "data.root": root, **{name.replace("__", "."): value for name, value in more.items()}}
    flags = [f"--config.{name}={value}" for name, value in values.items()]
    return main(["train", "--config", "words", "--workdir", str(workdir), "--override", *flags])


@pytest.mark.slow
def test_a_training_run_resumes_and_its_model_remembers_its_words(tmp_path, capsys):
    draw_scenes(tmp_path, seeds=(0, 1))
    assert train(tmp_path, tmp_path / "whole", steps=4) == 0
    assert train(tmp_path, tmp_path / "parts", steps=2) == 0 and train(tmp_path, tmp_path / "parts", steps=4) == 0
    whole, parts = (metrics(tmp_path / name) for name in ("whole", "parts"))
    assert {"guide", "whole", "patch", "goal"} <= whole[0].keys()
    # The rate of the first two steps is that of a shorter run: only what does not depend on it is the same.
    assert [line["step"] for line in parts] == [0, 1, 2, 3] and parts[0]["loss"] == whole[0]["loss"]
    with Image.open(tmp_path / "whole" / "sheets" / "step_000004.png") as sheet:
        assert sheet.width == 5 * 64 + 4 * 4  # infrared, visible, before, after, and the goal of `sheet.goals`
    told = capsys.readouterr().out
    for text in (GOAL, "a dark image"):
        assert f"language loss of the goal {text!r}: " in told
    fuser = Fuser.load(tmp_path / "whole")
    assert fuser.metadata["clip"]["fingerprint"] == Clip.load().fingerprint
    assert np.linalg.norm(fuser.towards("a dark image").direction) > 0.1
    with pytest.raises(UserError, match="finish the training run"):
        Fuser.load(tmp_path / "whole" / "checkpoints" / "4").towards("a dark image")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("goals", "zebra", "--goal 'zebra'"),
        ("sheet.goals", "zebra", "--goal 'zebra'"),
        ("patches.fraction", "(0.5,)", "config.patches.fraction: (0.5,) is no range"),
        ("prompts.goal", "a dark image", "config.prompts.goal: the guide"),
        ("batch_size", "0", "config.batch_size: 0 is too small"),
    ],
)
def test_what_cannot_be_trained_ends_in_one_line(tmp_path, capsys, key, value, message):
    draw_scenes(tmp_path, seeds=(0,))
    assert train(tmp_path, tmp_path / "w", **{key: value}) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert len(error) == 1 and message in error[0] and not (tmp_path / "w").exists()


@pytest.mark.slow
def test_a_clip_of_openais_size_steers_by_sentences_of_ones_own(tmp_path, capsys):
    """ViT-B/32 with random weights: training, fusing towards any sentence, and no other CLIP's embedding."""
    sentences = ["a zebra on a crossing", "fog over the harbour", "a warm engine"]
    folder = tmp_path / "clip"
    tokenizer = make_tokenizer(["clear", *" ".join(sentences).split()])
    config = CLIPConfig(
        text_config={"vocab_size": len(tokenizer), "eos_token_id": tokenizer.eos_token_id},
        vision_config={"patch_size": 32},
        projection_dim=512,
    )
    config.save_pretrained(folder)
    params = jax.jit(lambda key: init_params(*towers(config), key))(jax.random.key(0))
    half = jax.tree.map(lambda leaf: np.asarray(leaf, np.float16), params)
    save_file(tensors_from_params(half), folder / "model.safetensors")
    save_tokenizer(tokenizer, folder)
    (tmp_path / "goals.txt").write_text("\n".join(sentences))
    draw_scenes(tmp_path, seeds=(0,))
    own = {"clip": str(folder), "goals": str(tmp_path / "goals.txt"), "sheet.goals": "fog"}
    assert train(tmp_path, tmp_path / "w", steps=2, **own) == 0, capsys.readouterr().err
    assert metrics(tmp_path / "w")[1]["gradient_norm"] > 0
    fuser = Fuser.load(tmp_path / "w")
    assert fuser.net.embedding == 512 and fuser.metadata["clip"]["name"] == str(folder)
    assert np.linalg.norm(fuser.towards("a zebra in fog").direction) > 0.01
    assert main(["embed", "--goal", "a dark image", "--out", str(tmp_path / "compact.npz")]) == 0
    with pytest.raises(UserError, match="CLIP"):
        fuser.towards(TextEmbeddings.load(tmp_path / "compact.npz"))
