"""The steered network: bands, canvases, words and statistics."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from langfuse_jax.errors import UserError
from langfuse_jax.inference.fuser import Fuser
from langfuse_jax.models.bands import activity, double, half
from langfuse_jax.models.statistics import PLACES, QUANTILES, pair_statistics
from langfuse_jax.models.steered import REACH, TILE_MULTIPLE, SteeredNet


def pair(shape, seed=0):
    keys = jax.random.split(jax.random.key(seed))
    return [jax.random.uniform(key, (1, *shape, 1)) for key in keys]


@pytest.fixture(scope="module")
def params():
    """With words that matter: what starts small is drawn at full size."""
    drawn = SteeredNet(embedding=8).init(jax.random.key(0), *pair((32, 32)))
    key = jax.random.key(1)
    larger = jax.tree.map(lambda leaf: leaf + 0.2 * jax.random.normal(key, leaf.shape), drawn)
    return {"params": {**drawn["params"], "words_1": larger["params"]["words_1"], "maps": larger["params"]["maps"]}}


def test_half_and_double_equal_their_taps():
    x = np.random.default_rng(0).random(6)
    edges = np.pad(x, 1, mode="edge")
    halved = [np.dot([1, 3, 3, 1], edges[2 * i : 2 * i + 4]) / 8 for i in range(3)]
    row = jnp.float32(x).reshape(1, 1, 6, 1)
    np.testing.assert_allclose(half(jnp.tile(row, (1, 2, 1, 1)))[0, 0, :, 0], halved, rtol=1e-5)
    doubled = np.stack([0.75 * x + 0.25 * edges[:-2], 0.75 * x + 0.25 * edges[2:]], 1).ravel()
    np.testing.assert_allclose(double(row)[0, 0, :, 0], doubled, rtol=1e-5)
    spread = np.convolve(np.pad(x, 2, mode="edge"), [1 / 16, 1 / 4, 3 / 8, 1 / 4, 1 / 16], "valid")
    np.testing.assert_allclose(activity(-row)[0, 0, :, 0], spread, rtol=1e-5)


def test_statistics_measure_the_pair():
    noise = 0.05 * jax.random.normal(jax.random.key(0), (1, 200, 300, 1))
    ramp = jnp.broadcast_to(jnp.linspace(0, 1, 300)[None, None, :, None], (1, 200, 300, 1))
    values = np.asarray(pair_statistics(ramp, 0.5 + noise))[0]
    np.testing.assert_allclose(values[:7], QUANTILES, atol=0.03)
    assert values[7] == pytest.approx(1 / 299 / 2, rel=1e-2) and values[8] == pytest.approx(0, abs=1e-5)
    assert values[9 + 8] == pytest.approx(0.05, rel=0.1)  # the noise level, of PLACES * PLACES places
    assert PLACES == 64


def test_an_image_is_fused_alike_on_every_canvas(params):
    with jax.enable_x64(True):
        exact = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), params)
        net, direction = SteeredNet(embedding=8, dtype=jnp.float64), jnp.linspace(-1, 1, 8)[None]
        visible, infrared = (image.astype(jnp.float64) for image in pair((45, 70)))
        alone, of_alone = jax.jit(partial(net.apply, method="explain"))(exact, visible, infrared, None, direction)
        canvases = [jnp.full((1, 96, 128, 1), jnp.nan).at[:, :45, :70].set(image) for image in (visible, infrared)]
        canvas = jax.jit(net.apply)(exact, *canvases, jnp.array([[45, 70]]), direction)
        np.testing.assert_allclose(canvas[:, :45, :70], alone, atol=1e-12)
        assert not canvas[:, 45:].any() and not canvas[:, :, 70:].any()
        assert [share.shape[1] for share in of_alone.share] == [48, 24, 12, 6]
        assert all(0 <= share.min() and share.max() <= 1 for share in of_alone.share)


def test_no_words_are_the_default_and_words_change_the_picture(params):
    apply, (visible, infrared) = jax.jit(SteeredNet(embedding=8).apply), pair((32, 48))
    silent = apply(params, visible, infrared, None, jnp.zeros((1, 8)))
    np.testing.assert_allclose(apply(params, visible, infrared), silent, atol=1e-5)
    steered = [apply(params, visible, infrared, None, s * jnp.ones((1, 8))) for s in (0.01, 0.02)]
    first, second = (np.abs(image - silent).mean() for image in steered)
    assert first > 1e-5 and second == pytest.approx(2 * first, rel=0.1)  # twice the direction, twice the change


def test_statistics_given_for_a_part_are_those_of_the_whole(params):
    apply, (visible, infrared) = jax.jit(SteeredNet(embedding=8).apply), pair((64, 64))
    whole = pair_statistics(visible, infrared)
    found = apply(params, visible, infrared)
    np.testing.assert_allclose(apply(params, visible, infrared, None, None, whole), found, atol=1e-5)
    assert np.abs(apply(params, visible, infrared, None, None, whole + 0.1) - found).max() > 1e-3


def test_gradients_are_finite_where_nothing_happens(params):
    net, flat = SteeredNet(embedding=8), jnp.zeros((1, 32, 32, 1))
    grads = jax.jit(jax.grad(lambda p: net.apply(p, flat, flat, None, jnp.ones((1, 8))).sum()))(params)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))


def test_a_pixel_reaches_no_further_than_it_says(params):
    net, (visible, infrared) = SteeredNet(embedding=8), pair((320, 320))
    whole = pair_statistics(visible, infrared)
    apply = jax.jit(lambda image: net.apply(params, image, infrared, None, None, whole))
    changed = visible.at[:, 160:162, 160:162].set(1 - visible[:, 160:162, 160:162])
    rows, columns = np.nonzero(np.asarray(apply(changed) - apply(visible))[0, ..., 0])
    furthest = max(np.abs(rows - 160).max(), np.abs(columns - 160).max())
    assert TILE_MULTIPLE < furthest <= REACH


@pytest.mark.parametrize("size", [(250, 333), (96, 32)])
def test_tiles_make_the_same_image(params, size):
    """In colour too, and where the last tile is narrow."""
    rng = np.random.default_rng(4)
    visible, infrared = rng.uniform(size=(*size, 3)).astype(np.float32), rng.uniform(size=size).astype(np.float32)
    fuser = Fuser(params)
    np.testing.assert_allclose(fuser(visible, infrared, tile=64), fuser(visible, infrared), atol=3e-5)


def test_tiles_are_refused_where_they_would_lie(params):
    image = np.zeros((64, 64), np.float32)
    with pytest.raises(UserError, match="--tile 40: give a multiple of 16"):
        Fuser(params)(image, image, tile=40)
    with pytest.raises(UserError, match="--tile 64: LDFusion's network needs the whole image"):
        Fuser({})(image, image, tile=64)
