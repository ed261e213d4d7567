"""Language scores: worked by hand, against the tower itself, and blind to what lies outside an image."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from langfuse_jax import Clip
from langfuse_jax.clip.words import embed
from langfuse_jax.evaluation.language import LANGUAGE_SCORES, embed_images, language_scores
from langfuse_jax.losses import Words, language_driven_loss


@pytest.fixture(scope="module")
def clip():
    return Clip.load()


def test_worked_by_hand():
    visible, infrared, goal = 2 * jnp.eye(3)
    fused = jnp.stack([goal, visible, 3 * (goal + visible)])
    scores = language_scores(
        fused, jnp.tile(visible, (3, 1)), jnp.tile(infrared, (3, 1)), Words(goal, visible, infrared)
    )
    assert list(scores) == list(LANGUAGE_SCORES)
    half = 0.5**0.5
    np.testing.assert_allclose(scores["cos_goal"], [1, 0, half], atol=1e-6)
    np.testing.assert_allclose(scores["cos_visible"], [0, 1, half], atol=1e-6)
    np.testing.assert_allclose(scores["cos_infrared"], [0, 0, 0], atol=1e-6)
    # From the visible image: (1/√2 - 1, 0, 1/√2) against (-1, 0, 1); from infrared (1/√2, -1, 1/√2) against (0, -1, 1).
    last = 1 - 0.5 * 1 / np.sqrt((half - 1) ** 2 + half**2) / np.sqrt(2) - 0.5 * (1 + half) / np.sqrt(2) / np.sqrt(2)
    # The visible image itself: no step from it (1/2), and from infrared (1, -1, 0) against (0, -1, 1) (1/4).
    np.testing.assert_allclose(scores["LDL"], [0, 0.75, last], atol=1e-6)


def test_a_vector_without_length_has_no_cosine():
    zero, one = jnp.zeros((1, 3)), jnp.ones((1, 3))
    scores = language_scores(zero, one, one, Words(*jnp.ones((3, 3))))
    assert [float(value[0]) for value in scores.values()] == [1, 0, 0, 0]


@pytest.mark.parametrize("size", [(50, 70), (96, 96), (200, 131), (97, 300)])
def test_embeddings_are_those_of_the_tower(clip, size):
    image = np.random.default_rng(0).integers(0, 256, (2, *size), np.uint8)
    expected = clip.encode_image(np.repeat(image[..., None] / np.float32(255), 3, axis=-1))
    found = embed_images(clip.vision, clip.params["vision"], image)
    np.testing.assert_allclose(found, expected, atol=5e-4)  # of values up to 3


def test_what_lies_outside_an_image_has_no_effect(clip):
    rng = np.random.default_rng(1)
    sizes = np.array([(50, 70), (120, 33), (128, 136)], np.int32)
    images = [rng.integers(0, 256, size, np.uint8) for size in sizes]
    canvases = rng.integers(0, 256, (3, 128, 136), np.uint8)
    for canvas, image in zip(canvases, images, strict=True):
        canvas[: image.shape[0], : image.shape[1]] = image
    together = embed_images(clip.vision, clip.params["vision"], canvases, sizes)
    for image, found in zip(images, together, strict=True):
        alone = embed_images(clip.vision, clip.params["vision"], image[None])[0]
        np.testing.assert_allclose(found, alone, atol=5e-4)


def test_scores_are_the_loss_and_can_be_differentiated(clip):
    rng = np.random.default_rng(2)
    images = rng.integers(0, 256, (3, 64, 80), np.uint8)
    colours = np.repeat(images[:, None, ..., None] / np.float32(255), 3, axis=-1)
    fused, visible, infrared = map(clip.encode_image, colours)
    words = embed(clip).words
    ours = embed_images(clip.vision, clip.params["vision"], images)[:, None]
    scores = language_scores(*ours, words)
    np.testing.assert_allclose(scores["LDL"], language_driven_loss(fused, visible, infrared, words), atol=1e-5)
    unit = fused[0] / jnp.linalg.norm(fused[0])
    np.testing.assert_allclose(scores["cos_infrared"][0], unit @ words.infrared, atol=1e-5)

    def loss(image):
        first = embed_images(clip.vision, clip.params["vision"], image)
        return language_scores(first, ours[1], ours[2], words)["LDL"][0]

    slope = jax.jit(jax.grad(loss))(images[:1].astype(np.float32))
    assert np.isfinite(slope).all() and np.abs(slope).max() > 0
