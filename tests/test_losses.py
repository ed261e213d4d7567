"""The losses against the published numbers and numbers worked by hand."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from langfuse_jax.losses import (
    Words,
    feature_bank,
    grid_loss,
    informative,
    language_driven_loss,
    patch_entropy,
    perceptual_loss,
    similarity_loss,
    total_loss,
)
from langfuse_jax.losses.patches import count_by_products


@pytest.fixture(scope="module")
def reference(data_folder):
    return dict(np.load(data_folder / "loss_reference.npz"))


def _words(reference):
    return Words(*(jnp.asarray(reference[f"text_{role}"], jnp.float32) for role in Words._fields))


def _images(reference):
    return [jnp.asarray(reference[f"image_{role}"], jnp.float32) for role in ("fused", "visible", "infrared")]


def test_terms_equal_the_published_numbers(reference):
    patches, selected = (jnp.asarray(reference[k], jnp.float32) for k in ("patch_fused", "patch_selected"))
    total, terms = jax.jit(total_loss)(*_images(reference), patches, selected, _words(reference))
    for name, published in (("whole", "global"), ("patch", "patch"), ("similarity", "similarity")):
        np.testing.assert_allclose(terms[name], reference[f"loss_{published}"], rtol=1e-5)
    np.testing.assert_allclose(total, reference["total"], rtol=1e-5)


def test_gradients_equal_the_published_numbers(reference):
    fused, visible, infrared = _images(reference)
    patches, selected = (jnp.asarray(reference[k], jnp.float32) for k in ("patch_fused", "patch_selected"))

    def loss(fused, patches):
        return total_loss(fused, visible, infrared, patches, selected, _words(reference))[0]

    got = jax.jit(jax.grad(loss, argnums=(0, 1)))(fused, patches)
    for gradient, name in zip(got, ("grad_image_fused", "grad_patch_fused"), strict=True):
        expected = reference[name]
        np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())


def test_direction_worked_by_hand():
    visible, infrared, goal = jnp.eye(3)
    loss = language_driven_loss(
        jnp.stack([5 * goal, 2 * visible, infrared]),
        jnp.stack([visible] * 3),
        jnp.stack([infrared] * 3),
        Words(goal, 3 * visible, infrared),
    )
    # At a source: no direction from it (1/2), and 60 degrees between (visible - infrared) and (goal - infrared): 1/4.
    np.testing.assert_allclose(loss, [0.0, 0.75, 0.75], atol=1e-6)


def test_similarity_worked_by_hand():
    loss = similarity_loss(jnp.array([[3.0, 0.0]]), jnp.array([[1.0, 0.0]]), jnp.array([[0.0, 2.0]]))
    np.testing.assert_allclose(loss, [0.5], atol=1e-6)


@pytest.mark.parametrize("case", ["fused is a source", "goal is a source", "zero embedding"])
def test_zero_directions_are_finite(case):
    a, b, goal = jnp.eye(3)
    fused = {"fused is a source": a, "goal is a source": goal, "zero embedding": 0 * goal}[case]
    goal = a if case == "goal is a source" else goal

    def loss(fused):
        return language_driven_loss(fused[None], a[None], b[None], Words(goal, a, b)).sum()

    value, gradient = jax.jit(jax.value_and_grad(loss))(fused)
    assert np.isfinite(value) and np.isfinite(gradient).all()


def test_filtered_patches_contribute_zero_and_still_count(reference):
    fused, visible, infrared = _images(reference)
    patches = jnp.asarray(reference["patch_fused"], jnp.float32)
    words = _words(reference)
    every, none, first = (
        total_loss(fused, visible, infrared, patches, jnp.arange(12.0) < n, words)[1]["patch"] for n in (12, 0, 1)
    )
    one = language_driven_loss(patches[:1], visible[:1], infrared[:1], words)
    assert none == 0 and every > first
    np.testing.assert_allclose(first, one[0] / 12, rtol=1e-6)


def test_entropy_equals_the_published_numbers(reference):
    images = jnp.asarray(reference["entropy_images"]).transpose(0, 2, 3, 1)
    np.testing.assert_allclose(jax.jit(patch_entropy)(images), reference["entropy"], rtol=1e-5, atol=1e-6)


def test_entropy_worked_by_hand():
    halves = jnp.concatenate([jnp.zeros((1, 4, 8, 1)), jnp.ones((1, 4, 8, 1))], axis=1)
    outside = halves * 3 - 1.5
    np.testing.assert_allclose(patch_entropy(jnp.concatenate([halves, outside])), [1.0, 0.0], atol=1e-6)


def test_bins_are_counted_by_products_too():
    rng = np.random.default_rng(3)
    bins, inside = rng.integers(0, 256, (3, 500)), rng.random((3, 500)) < 0.7
    found = jax.jit(count_by_products)(jnp.asarray(bins), jnp.asarray(inside))
    expected = [np.bincount(row[kept], minlength=256) for row, kept in zip(bins, inside, strict=True)]
    assert np.array_equal(found, expected)


def test_a_patch_counts_only_if_both_sources_are_rich():
    rich = jnp.asarray(np.random.default_rng(0).uniform(size=(1, 64, 64, 1)), jnp.float32)
    flat = jnp.full_like(rich, 0.5)
    assert informative(jnp.concatenate([rich, rich, flat]), jnp.concatenate([rich, flat, flat])).tolist() == [
        True,
        False,
        False,
    ]


def test_perceptual_loss_worked_by_hand():
    def features(x):
        return x, 2 * x[:, :1]

    fused, visible, infrared = (jnp.full((1, 2, 1, 1), v) for v in (0.5, 0.25, 0.75))
    np.testing.assert_allclose(perceptual_loss(features, fused, visible, infrared), 0.25**2 + 0.5**2, rtol=1e-6)


def test_feature_bank_asks_for_the_stronger_edge_and_the_mean_level():
    ramp = jnp.linspace(0, 1, 64)
    flat, edge = (
        jnp.full((1, 64, 64, 1), 0.3),
        jnp.broadcast_to((ramp > 0.5)[None, None, :, None] * 1.0, (1, 64, 64, 1)),
    )

    measure = jax.jit(partial(perceptual_loss, feature_bank))

    def loss(fused):
        return measure(fused, flat, edge)

    assert loss(edge) < loss(0.5 * edge + 0.15) < loss(flat)
    level = jnp.full((1, 64, 64, 1), 0.5)
    grey = [measure(jnp.full_like(level, v), level - 0.2, level + 0.2) for v in (0.3, 0.5, 0.7)]
    assert grey[1] < grey[0] and grey[1] < grey[2]


def _folded(image):
    """The mean 8 x 8 block less its mean, block by block."""
    h, w = (side // 8 * 8 for side in image.shape)
    blocks = [image[y : y + 8, x : x + 8] for y in range(0, h, 8) for x in range(0, w, 8)]
    mean = np.mean(blocks, axis=0).ravel()
    return mean - mean.mean()


def test_grid_loss_is_what_least_squares_leaves():
    rng = np.random.default_rng(0)
    visible, infrared = rng.uniform(size=(2, 2, 27, 43))
    fused = 0.7 * visible + 0.4 * infrared + 0.1 * rng.uniform(size=visible.shape)
    expected = []
    for f, v, i in zip(fused, visible, infrared, strict=True):
        sources = np.stack([_folded(v), _folded(i)], 1)
        rest = _folded(f) - sources @ np.linalg.lstsq(sources, _folded(f), rcond=None)[0]
        expected.append(np.sqrt(np.square(rest).mean()))
    images = [jnp.asarray(x[..., None], jnp.float32) for x in (fused, visible, infrared)]
    np.testing.assert_allclose(jax.jit(grid_loss)(*images), np.mean(expected), rtol=1e-4, atol=1.1e-5)


def test_grid_loss_sees_grids_and_no_scenes():
    rows, columns = jnp.arange(64.0)[:, None], jnp.arange(96.0)
    # Whole waves in the image, whatever their height at a place of a block.
    scene = (jnp.sin(6 * np.pi * rows / 64) * jnp.cos(10 * np.pi * columns / 96) / 2 + 0.5)[None, ..., None]
    flat = jnp.full_like(scene, 0.5)
    grid = jnp.where((columns % 8 == 0) | (rows % 8 == 0), 0.02, 0.0)[None, ..., None]
    one = 0.02 * np.sqrt(15 / 64 * 49 / 64)  # its standard deviation over a block
    np.testing.assert_allclose(grid_loss(flat + grid, scene, flat), one, rtol=0.01)
    np.testing.assert_allclose(grid_loss(0.6 * scene + 0.2 + grid, scene, flat), one, rtol=0.01)
    # A grid that a source has may stay, stronger or weaker, and what it lacks has a finite gradient.
    assert grid_loss(0.5 * (scene + grid), scene + grid, flat) < 1e-5
    gradient = jax.grad(grid_loss)(flat, flat, flat)
    assert jnp.isfinite(gradient).all() and not gradient.any()
