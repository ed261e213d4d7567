"""The lossless start of a training run, and the guide it learns from."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from langfuse_jax.classical.pyramid import gaussian_blur, guide_fuse, pyramid_fuse
from langfuse_jax.losses import guide_loss
from langfuse_jax.losses.ssim import ssim
from langfuse_jax.models.fusion import FusionNet
from langfuse_jax.models.lossless import lossless_init


@pytest.fixture(scope="module")
def params():
    return lossless_init(jax.random.key(1))


@pytest.fixture(scope="module")
def apply():
    return jax.jit(FusionNet().apply)


def _textures(h, w):
    """Two images with structure of all sizes, in [0, 1]."""
    rng = np.random.default_rng(7)
    images = []
    for _ in range(2):
        image = sum(
            gaussian_blur(rng.normal(size=(h, w)).astype(np.float32), sigma) * sigma for sigma in (0.6, 2.0, 6.0)
        )
        images.append((0.5 + 0.12 * (image - image.mean()) / image.std()).clip(0, 1).astype(np.float32))
    return images


def _standardised(image):
    return (image - image.mean()) / image.std()


def test_every_pixel_of_both_sources_arrives(params, apply):
    """Before tanh the fused image is a sum of both, to a few percent, down to the finest detail."""
    visible, infrared = _textures(160, 192)
    fused = np.asarray(apply(params, visible[None, ..., None], infrared[None, ..., None]))[0, ..., 0]
    inner = (slice(16, -16),) * 2
    seen = np.arctanh(fused[inner])
    assert np.isfinite(seen).all()
    columns = [_standardised(x)[inner].ravel() for x in (visible, infrared)]
    weights, *_ = np.linalg.lstsq(np.stack([*columns, np.ones_like(columns[0])], 1), seen.ravel(), rcond=None)
    assert weights[0] == pytest.approx(weights[1], rel=0.1) and weights[0] > 0.04
    rest = seen - (weights[0] * columns[0] + weights[1] * columns[1] + weights[2]).reshape(seen.shape)
    assert rest.std() < 0.15 * seen.std()

    def detail(image):
        return image - gaussian_blur(np.ascontiguousarray(image, np.float32), 1.0)

    wished = detail(_standardised(visible) + _standardised(infrared))[inner]
    assert np.corrcoef(detail(seen).ravel(), wished.ravel())[0, 1] > 0.97


@pytest.mark.slow
def test_nothing_of_it_is_dead(params):
    """Every parameter that reaches the image has a gradient, but for biases that a norm takes away."""
    visible, infrared = (jnp.asarray(x)[None, ..., None] for x in _textures(64, 64))
    grads = jax.jit(jax.grad(lambda p: guide_loss(FusionNet().apply(p, visible, infrared), visible, infrared)))(params)
    for path, leaf in jax.tree_util.tree_leaves_with_path(grads):
        name = jax.tree_util.keystr(path)
        assert np.isfinite(leaf).all(), name
        if name.endswith("['kernel']"):
            assert np.abs(leaf).max() > 0, name


def test_a_training_may_start_from_it(params, tmp_path):
    assert jax.tree.structure(params) == jax.tree.structure(
        jax.eval_shape(FusionNet().init, jax.random.key(0), *[jnp.zeros((1, 32, 32, 1))] * 2)
    )
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(params))
    again = lossless_init(jax.random.key(1))
    assert all(np.array_equal(a, b) for a, b in zip(*map(jax.tree.leaves, (params, again)), strict=True))


@pytest.mark.parametrize("fuse", [pyramid_fuse, guide_fuse])
def test_pyramid_fusion_is_one_function_for_numpy_and_jax(fuse):
    visible, infrared = _textures(67, 90)
    want = fuse(visible, infrared)
    assert isinstance(want, np.ndarray) and want.dtype == np.float32
    np.testing.assert_allclose(jax.jit(fuse)(jnp.asarray(visible), jnp.asarray(infrared)), want, atol=5e-6)


def test_guide_loss_by_numpy():
    rng = np.random.default_rng(0)
    pairs = np.stack([_textures(48, 64)] * 2, 1)
    pairs[:, 1] = pairs[::-1, 1]
    fused = rng.uniform(size=(2, 48, 64)).astype(np.float32)
    total = 0.0
    for f, v, i in zip(fused, *pairs, strict=True):
        error = f - guide_fuse(v, i)
        differences = sum(np.abs(np.diff(error, axis=axis)).mean() for axis in (0, 1))
        total += np.abs(error).mean() + 2 * differences
        total += (1 - jax.jit(ssim)(*(jnp.asarray(x)[None] for x in (f, guide_fuse(v, i)))).item()) / 2
    images = [jnp.asarray(x)[..., None] for x in (fused, *pairs)]
    loss, (slope, *sources) = jax.jit(jax.value_and_grad(guide_loss, (0, 1, 2)))(*images)
    assert loss.item() == pytest.approx(total / 2, rel=1e-4)
    assert all(not np.any(x) for x in sources) and np.any(slope)
