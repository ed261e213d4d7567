"""Images of differing sizes on one canvas: each is fused as it would be alone."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import procedural_weights
from small_network import SmallNet

from langfuse_jax.models.fusion import FusionNet, fresh_params
from langfuse_jax.models.layers import LayerNorm, adaptive_instance_norm, global_mean, instance_norm, reflect_pad
from langfuse_jax.runtime.compilation import count_programs
from langfuse_jax.weights.ldfusion import fusion_from_torch

fuse = jax.jit(FusionNet().apply)
SIZES = [(32, 71), (37, 42)]  # few, as each is a program of its own when alone
CANVAS = 40, 72


@pytest.fixture(scope="module")
def params():
    return fusion_from_torch(*procedural_weights.encoder_decoder(2024))


def draw_pairs(sizes, seed):
    """One (visible, infrared) per size, (2, h, w, 1), no two alike in level and contrast."""
    rng = np.random.default_rng(seed)
    return [rng.uniform(0, rng.uniform(0.2, 1.0, (2, 1, 1, 1)), (2, h, w, 1)).astype(np.float32) for h, w in sizes]


def on_canvas(pairs, canvas, outside):
    """The pairs in the top-left corners of two canvases that hold `outside` elsewhere."""
    stack = np.full((2, len(pairs), *canvas, 1), outside, np.float32)
    for i, pair in enumerate(pairs):
        stack[:, i, : pair.shape[1], : pair.shape[2]] = pair
    return jnp.asarray(stack)


def assert_as_alone(fused, pairs, params):
    fused = np.array(fused)
    for got, pair in zip(fused, pairs, strict=True):
        h, w = pair.shape[1:3]
        np.testing.assert_allclose(got[:h, :w], fuse(params, pair[0][None], pair[1][None])[0], atol=3e-4)
        got[:h, :w] = 0
        assert not got.any()


@settings(max_examples=5)
@given(sizes=st.permutations(SIZES), outside=st.sampled_from([0.0, 0.7, np.nan, np.inf]), seed=st.integers(0, 99))
def test_each_sample_is_fused_as_alone(params, sizes, outside, seed):
    """Sizes in any order, on a canvas (a multiple of 8) that holds them, with anything around them."""
    pairs = draw_pairs(sizes, seed)
    fused = fuse(params, *on_canvas(pairs, CANVAS, outside), jnp.array(sizes))
    assert_as_alone(fused, pairs, params)


@pytest.mark.parametrize(
    ("size", "canvas"), [(SIZES[0], (37, 73)), pytest.param(SIZES[1], SIZES[1], marks=pytest.mark.slow)]
)
def test_a_canvas_without_margin_and_one_of_any_size(params, size, canvas):
    """The image may fill the canvas; a canvas need not be a multiple of 8 either."""
    pairs = draw_pairs([size], 0)
    assert_as_alone(fuse(params, *on_canvas(pairs, canvas, np.nan), jnp.array([size])), pairs, params)


def test_order_of_the_batch_changes_nothing(params):
    canvases, sizes = on_canvas(draw_pairs(SIZES, 1), CANVAS, 0.3), jnp.array(SIZES)
    want = fuse(params, *canvases, sizes)[::-1]
    np.testing.assert_allclose(fuse(params, *canvases[:, ::-1], sizes[::-1]), want, atol=1e-4)


def test_sizes_are_traced(params):
    """One program serves every size."""
    canvases = on_canvas(draw_pairs([CANVAS] * 2, 2), CANVAS, 0.0)
    every = SIZES, [SIZES[1]] * 2, SIZES[::-1]
    fuse(params, *canvases, np.int32(SIZES))
    counts = count_programs()
    fused = [fuse(params, *canvases, np.int32(sizes)) for sizes in every]
    assert counts["programs"] == 0
    for sizes, images in zip(every, fused, strict=True):
        pairs = [np.asarray(canvases[:, i, :h, :w]) for i, (h, w) in enumerate(sizes)]
        assert_as_alone(images, pairs, params)


@pytest.mark.parametrize("net", [SmallNet(), pytest.param(FusionNet(), marks=pytest.mark.slow)], ids=["small", "whole"])
def test_gradient_equals_that_of_the_images_alone(net, params, monkeypatch):
    """Of a network without kinks, at which two roundings of one number have different slopes."""
    monkeypatch.setattr(nn, "relu", nn.silu)
    sizes = [SIZES[1]] * 2
    pairs = draw_pairs(sizes, 3)
    canvases = on_canvas(pairs, (48, 48), np.nan)
    together = jnp.asarray(pairs).swapaxes(0, 1)
    goals = [np.random.default_rng(i).random((*shape, 1), np.float32) for i, shape in enumerate(sizes)]
    if isinstance(net, FusionNet):
        params = jax.tree.map(jnp.asarray, params)
        params["params"]["decoder"]["head"]["kernel"] *= 0.1
        fused = jax.jit(net.apply)(params, *together)
        assert 0.01 < fused.min() and fused.max() < 0.99  # nothing is clipped
    else:
        params = fresh_params(net, jax.random.key(0))

    @jax.jit
    @jax.grad
    def ragged(params):
        fused = net.apply(params, *canvases, jnp.array(sizes))
        return sum(
            jnp.square(image[: goal.shape[0], : goal.shape[1]] - goal).sum()
            for image, goal in zip(fused, goals, strict=True)
        )

    @jax.jit
    @jax.grad
    def alone(params):
        return sum(
            jnp.square(image - goal).sum() for image, goal in zip(net.apply(params, *together), goals, strict=True)
        )

    got, want = ragged(params), alone(params)
    norm = np.sqrt(sum(np.square(leaf).sum() for leaf in jax.tree.leaves(want)))
    assert norm > 1
    for (path, theirs), ours in zip(jax.tree.leaves_with_path(want), jax.tree.leaves(got), strict=True):
        error = np.linalg.norm(np.asarray(ours - theirs))
        assert error <= 1e-3 * np.linalg.norm(np.asarray(theirs)) + 1e-5 * norm, path


@settings(max_examples=20)
@given(h=st.integers(5, 9), w=st.integers(5, 12), width=st.integers(1, 3))
def test_reflect_pad_at_the_edge_of_each_sample(h, w, width):
    x = np.random.default_rng(h * w).normal(size=(2, 9, 12, 3)).astype(np.float32)
    got = jax.jit(reflect_pad, static_argnums=1)(jnp.asarray(x), width, jnp.array([[h, w], [9, 5]]))
    for padded, sample, (height, columns) in zip(got, x, [(h, w), (9, 5)], strict=True):
        want = np.pad(sample[:height, :columns], ((width, width), (width, width), (0, 0)), mode="reflect")
        np.testing.assert_array_equal(padded[: height + 2 * width, : columns + 2 * width], want)


@pytest.mark.parametrize(
    "layer",
    [
        instance_norm,
        partial(adaptive_instance_norm, shift=jnp.full((1, 4), 2.0), scale=jnp.full((1, 4), 3.0)),
        LayerNorm().bind({"params": {"gamma": jnp.arange(4.0), "beta": jnp.ones(4)}}),
        global_mean,
    ],
)
def test_statistics_of_the_sample_alone(layer):
    x = np.random.default_rng(0).normal(5, 2, (1, 9, 12, 4)).astype(np.float32)
    x[:, 7:], x[:, :, 5:] = np.nan, np.inf
    got = np.array(layer(jnp.asarray(x), sizes=jnp.array([[7, 5]])))
    want = np.asarray(layer(jnp.asarray(x[:, :7, :5])))
    h, w = want.shape[1:3]
    np.testing.assert_allclose(got[:, :h, :w], want, atol=1e-5)
    got[:, :h, :w] = 0
    assert not got.any()
