"""The random cameras that the compact CLIP is trained with."""

import numpy as np
import pytest
import scipy.stats

from langfuse_jax.data.clip_cameras import dressed_as, lighting, optics, other_camera, tone
from langfuse_jax.data.pyramid_fusion import gaussian_blur


@pytest.fixture
def patch():
    noise = np.random.default_rng(0).random((48, 48)).astype(np.float32)
    return np.clip(0.5 + 4 * (gaussian_blur(noise, 2.0) - 0.5), 0, 1).astype(np.float32)


def test_tone_keeps_order_and_ends(patch):
    rng = np.random.default_rng(1)
    for _ in range(20):
        toned = tone(patch, rng)
        assert scipy.stats.spearmanr(patch.ravel(), toned.ravel())[0] > 0.999
        assert np.allclose(tone(np.eye(2, dtype=np.float32), rng), np.eye(2))
    assert np.abs(toned - patch).max() > 0.01


def test_lighting_is_a_ramp(patch):
    ramp = lighting(np.ones_like(patch), np.random.default_rng(2))
    assert np.ptp(ramp) > 0.02 and ramp.min() > 0.64 and ramp.max() < 1.36
    assert np.abs(np.diff(ramp, 2, axis=0)).max() < 1e-5 and np.abs(np.diff(ramp, 2, axis=1)).max() < 1e-5


def test_optics_blur_or_sharpen(patch):
    rng = np.random.default_rng(3)
    gradients = np.array([np.abs(np.diff(optics(patch, rng), axis=0)).mean() for _ in range(20)])
    before = np.abs(np.diff(patch, axis=0)).mean()
    assert (gradients < before).any() and (gradients > before).any()


def test_other_camera_stays_an_image_of_the_same_thing(patch):
    rng = np.random.default_rng(4)
    taken = [other_camera(patch, rng) for _ in range(30)]
    assert all(x.dtype == np.float32 and x.min() >= 0 and x.max() <= 1 for x in taken)
    assert min(np.corrcoef(patch.ravel(), x.ravel())[0, 1] for x in taken) > 0.7
    assert max(np.abs(x - patch).mean() for x in taken) > 0.1


@pytest.mark.parametrize("sigma", [1.0, 4.0])
def test_dressed_as_has_the_other_histogram_and_its_own_content(patch, sigma):
    other = gaussian_blur(np.random.default_rng(5).random((48, 48)).astype(np.float32), sigma)
    dressed = dressed_as(patch, other)
    assert np.array_equal(np.sort(dressed.ravel()), np.sort(other.ravel()))
    assert scipy.stats.spearmanr(patch.ravel(), dressed.ravel())[0] > 0.8

    def sharpness(x):
        return np.abs(np.diff(x, axis=0)).mean() / x.std()

    before, after = (abs(np.log(sharpness(x) / sharpness(other))) for x in (patch, dressed))
    assert after < before
