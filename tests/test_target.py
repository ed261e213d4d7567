"""The classical fusion that the package's networks and its CLIP take for a good one."""

import numpy as np
import pytest

from langfuse_jax.classical.target import stretched, target_fuse


@pytest.fixture
def pair():
    """A texture that the visible image shows, and a hot spot that only the infrared does."""
    y, x = np.mgrid[:96, :128].astype(np.float32)
    visible = 0.4 + 0.12 * (np.sin(x / 2) > 0) + 0.05 * np.cos(y / 9)
    infrared = 0.2 + 0.6 * np.exp(-((y - 40) ** 2 + (x - 90) ** 2) / 60)
    return visible.astype(np.float32), infrared.astype(np.float32)


def test_it_keeps_the_texture_of_the_one_and_the_target_of_the_other(pair):
    visible, infrared = pair
    fused = target_fuse(visible, infrared)
    assert fused.shape == visible.shape and fused.dtype == np.float32 and 0 <= fused.min() and fused.max() <= 1
    assert fused[38:43, 88:93].mean() > fused[38:43, 20:60].mean() + 0.15
    far = np.s_[8:88, 8:60]
    assert np.corrcoef(fused[far].ravel(), visible[far].ravel())[0, 1] > 0.95
    assert fused[far].std() > visible[far].std()


def test_two_flat_images_stay_flat():
    flat = np.full((64, 64), 0.3, np.float32)
    fused = target_fuse(flat, flat)
    assert np.isfinite(fused).all() and np.ptp(fused) < 1e-3


def test_the_same_image_twice_is_that_image_but_for_its_contrast(pair):
    visible, _ = pair
    fused = target_fuse(visible, visible)
    assert np.corrcoef(fused.ravel(), visible.ravel())[0, 1] > 0.99


def test_stretching_moves_percentiles_part_of_the_way():
    image = np.linspace(0.3, 0.7, 10001, dtype=np.float32).reshape(73, 137)
    half = stretched(image, 0.5)
    low, high = np.percentile(image, [1, 99])
    gain = 1 / ((1 - 0.5 * (1 - high)) - 0.5 * low)
    assert half.std() == pytest.approx(gain * image.std(), rel=1e-3)
    assert stretched(0.4 + image / 100, 1.0).std() == pytest.approx(2.5 * image.std() / 100, rel=1e-3)  # at most
