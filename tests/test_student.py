"""The student network: local, and so the same on canvases and in tiles."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from langfuse_jax.errors import UserError
from langfuse_jax.inference.fuser import Fuser
from langfuse_jax.models.fusion import fresh_params
from langfuse_jax.models.student import REACH, TILE_MULTIPLE, StudentNet


@pytest.fixture(scope="module")
def params():
    """Fresh ones, with biases that are not zero, so that what lies outside a sample would show."""
    fresh = fresh_params(StudentNet(), jax.random.key(0))
    keys = iter(jax.random.split(jax.random.key(1), 100))
    return jax.tree.map(lambda x: x if x.ndim > 1 else 0.2 * jax.random.normal(next(keys), x.shape), fresh)


@pytest.fixture(scope="module")
def apply():
    return jax.jit(StudentNet().apply)


def _pair(h, w, seed=0):
    return jnp.asarray(np.random.default_rng(seed).uniform(size=(2, 1, h, w, 1)), jnp.float32)


def test_it_has_at_most_60_000_parameters(params):
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) <= 60_000


@pytest.mark.parametrize("size", [(32, 32), (45, 61), (33, 80)])
def test_a_canvas_changes_nothing(params, apply, size):
    """Each sample is fused as alone, whatever is beside it, and the rest is zero."""
    h, w = size
    visible, infrared = _pair(h, w)
    alone = apply(params, visible, infrared)
    canvases = np.full((2, 2, 72, 104, 1), np.nan, np.float32)
    canvases[0, :, :h, :w], canvases[1, :, :h, :w] = visible, infrared
    fused = np.array(apply(params, *canvases, jnp.array([size, size])))
    np.testing.assert_allclose(fused[:, :h, :w], np.repeat(alone, 2, 0), atol=2e-5)
    fused[:, :h, :w] = 0
    np.testing.assert_array_equal(fused, 0)


def test_a_pixel_reaches_no_further_than_it_says(params, apply):
    visible, infrared = _pair(256, 256)
    changed = visible.at[:, 128:130, 128:130].multiply(-1)
    difference = np.abs(apply(params, changed, infrared) - apply(params, visible, infrared))[0, ..., 0]
    rows, columns = np.nonzero(difference)
    furthest = max(np.abs(rows - 128).max(), np.abs(columns - 128).max())
    assert TILE_MULTIPLE < furthest <= REACH


def test_it_starts_near_the_average(apply):
    visible, infrared = _pair(64, 64)
    fused = apply(fresh_params(StudentNet(), jax.random.key(3)), visible, infrared)
    assert np.abs(fused - (visible + infrared) / 2).mean() < 0.15


def test_every_parameter_has_a_finite_gradient(params):
    visible, infrared = _pair(48, 48)
    grads = jax.jit(jax.grad(lambda p: jnp.square(StudentNet().apply(p, visible, infrared) - visible).sum()))(params)
    for path, leaf in jax.tree_util.tree_leaves_with_path(grads):
        assert np.isfinite(leaf).all() and np.abs(leaf).max() > 0, path


@pytest.mark.parametrize("size", [(250, 333), (96, 32)])
def test_tiles_make_the_same_image(params, size):
    """In colour too, and where the last tile is narrow."""
    rng = np.random.default_rng(4)
    visible, infrared = rng.uniform(size=(*size, 3)).astype(np.float32), rng.uniform(size=size).astype(np.float32)
    fuser = Fuser(params)
    np.testing.assert_allclose(fuser(visible, infrared, tile=64), fuser(visible, infrared), atol=3e-5)


def test_tiles_are_refused_where_they_would_lie(params):
    image = np.zeros((64, 64), np.float32)
    with pytest.raises(UserError, match="tile: 40 pixels; give a multiple of 16"):
        Fuser(params)(image, image, tile=40)
    with pytest.raises(UserError, match="tile: 64, but the fusion network needs the whole image"):
        Fuser({})(image, image, tile=64)
