"""Words at run time: what a sentence is to the steered network, and who may say it."""

import jax
import numpy as np
import pytest

from langfuse_jax import Clip, Fuser, UnknownWords, UserError
from langfuse_jax.clip.words import embed
from langfuse_jax.inference.goals import goal_direction
from langfuse_jax.models.fusion import fresh_params
from langfuse_jax.models.steered import SteeredNet


@pytest.fixture(scope="module")
def clip():
    return Clip.load()


@pytest.fixture(scope="module")
def metadata(clip):
    return {"clip": {"name": "compact", "fingerprint": clip.fingerprint}, "goal": embed(clip).goal.tolist()}


@pytest.fixture(scope="module")
def fuser(clip, metadata):
    """Random weights to which words matter."""
    params = jax.device_get(fresh_params(SteeredNet(embedding=clip.vision.embedding), jax.random.key(0)))
    params["params"]["words_1"]["kernel"] = params["params"]["words_1"]["kernel"] * 50
    return Fuser(params, metadata)


@pytest.fixture(scope="module")
def pair():
    return np.random.default_rng(0).random((2, 48, 64), np.float32)


def test_a_direction_is_a_step_from_the_default_goal(clip, metadata):
    default = np.float32(metadata["goal"])
    bright, dark = (embed(clip, goal=[text]).goal for text in ("a bright image", "a dark image"))
    one = goal_direction(default, metadata["clip"], ["a bright image"], clip=clip)
    np.testing.assert_allclose(one, bright - default, atol=1e-6)
    half = goal_direction(default, metadata["clip"], ["a bright image"], strength=0.5, clip=clip)
    np.testing.assert_allclose(half, 0.5 * one, atol=1e-6)
    blend = goal_direction(default, metadata["clip"], ["a bright image", "a dark image"], weights=[3, 1], clip=clip)
    mixed = 3 * bright + dark
    np.testing.assert_allclose(blend, mixed / np.linalg.norm(mixed) - default, atol=1e-6)
    saved = goal_direction(default, metadata["clip"], [embed(clip, goal=["a bright image"])])
    np.testing.assert_allclose(saved, one, atol=1e-6)


def test_words_change_the_picture_and_strength_0_does_not(fuser, pair):
    default = fuser(*pair)
    assert np.abs(fuser(*pair, goal="a bright image") - default).mean() > 1e-3
    np.testing.assert_array_equal(fuser(*pair, goal="a bright image", strength=0.0), default)
    steered = fuser.towards("a bright image", strength=0.7)
    np.testing.assert_array_equal(steered(*pair), fuser(*pair, goal="a bright image", strength=0.7))
    np.testing.assert_array_equal(fuser(*pair), default)  # the fuser itself is as it was


def test_an_unknown_word_is_named_and_nonsense_refused(fuser):
    with pytest.warns(UnknownWords, match="never taught zebra"):
        fuser.towards("a bright zebra")
    with pytest.raises(UserError, match="--goal 'zebra'"):
        fuser.towards("zebra")


@pytest.mark.parametrize(
    ("goals", "more", "says"),
    [
        ([], {}, "--goal: is missing"),
        (["a bright image"], {"weights": [1, 2]}, "--weights .* each of 1 goals"),
        (["a bright image"], {"weights": [0]}, "--weights .* positive"),
        (["a bright image"], {"weights": [float("nan")]}, "--weights .* positive"),
        (["a bright image"], {"strength": 70.0}, "--strength 70.0: is not within 4"),
        (["a bright image"], {"strength": float("nan")}, "--strength nan"),
    ],
)
def test_what_cannot_be_meant(metadata, goals, more, says):
    with pytest.raises(UserError, match=says):
        goal_direction(np.float32(metadata["goal"]), metadata["clip"], goals, **more)


def test_another_clips_embedding_is_refused(clip, metadata):
    other = metadata | {"clip": {"name": "other", "fingerprint": "0123456789ab"}}
    with pytest.raises(UserError, match=f"compact \\({clip.fingerprint}\\).*listen to other \\(0123456789ab\\)"):
        goal_direction(np.float32(other["goal"]), other["clip"], ["a bright image"], clip=clip)


def test_weights_that_follow_no_words(pair):
    with pytest.raises(UserError, match="follow no words at run time"):
        Fuser.load(model="ldfusion")(*pair, goal="a bright image")
