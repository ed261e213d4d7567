"""Patches of known strength: what they measure, and what is known of them."""

import numpy as np
import pytest

from langfuse_jax.compact_clip.batches import GRADED, graded
from langfuse_jax.compact_clip.concepts import AXES, CONCEPTS, INDEX
from langfuse_jax.compact_clip.facts import facts_of_strengths
from langfuse_jax.compact_clip.scenes import VARIANTS
from langfuse_jax.compact_clip.strengths import draw_setting, drawable, independent, reached, with_strengths

STRENGTHS = np.linspace(-1, 1, 5)


@pytest.fixture(scope="module")
def window():
    """The layers of a scene: a texture, and a hot spot that only the infrared shows."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:48, :48].astype(np.float32)
    visible = 0.4 + 0.15 * (np.sin(x / 2) > 0) + 0.05 * rng.random((48, 48))
    hot = np.exp(-((y - 20) ** 2 + (x - 30) ** 2) / 40)
    infrared = 0.2 + 0.7 * hot + 0.002 * y
    layers = np.stack([*(visible for _ in range(len(VARIANTS) + 3)), hot]).astype(np.float32)
    layers[VARIANTS.index("infrared")] = infrared
    return layers


def ladder(window, axis):
    setting = draw_setting(np.random.default_rng(3))._replace(base="visible", matched=False, place=(0.2, 0.2))
    return np.stack([with_strengths(window, {axis: float(strength)}, setting) for strength in STRENGTHS])


def gradient(patch):
    return np.abs(np.diff(patch, axis=1)).mean()


def test_each_axis_moves_what_it_is_called_by(window):
    hot = window[-1] > 0.5
    far = window[-1] < 0.05
    measures = {
        "brightness": np.mean,
        "contrast": np.std,
        "sharpness": gradient,
        "noise": lambda patch: np.abs(np.diff(patch, axis=0)).mean(),
        "look": lambda patch: np.corrcoef(patch.ravel(), window[1].ravel())[0, 1],
        "targets": lambda patch: patch[hot].mean() - patch[far].mean(),
        "background": lambda patch: patch[far].std(),
        "haze": lambda patch: -patch.std(),
        "exposure": lambda patch: patch.max(),
    }
    assert list(measures) == list(AXES)
    for axis, measure in measures.items():
        patches = ladder(window, axis)
        assert patches.dtype == np.float32 and patches.min() >= 0 and patches.max() <= 1
        values = [float(measure(patch)) for patch in patches]
        assert (np.diff(values) > -1e-4).all() and values[-1] > values[0], (axis, values)
    np.testing.assert_allclose(ladder(window, "brightness").mean((1, 2)), 0.5 + 0.4 * STRENGTHS, atol=2e-3)
    np.testing.assert_allclose(ladder(window, "contrast")[0].std(), 0.03, rtol=1e-3)
    np.testing.assert_allclose(ladder(window, "look")[[0, -1]], window[:2], atol=1e-6)
    np.testing.assert_allclose(ladder(window, "haze")[0], window[0], atol=1e-6)


def test_axes_that_change_each_other_are_never_drawn_together(window):
    assert independent("look", "noise") and not independent("look", "look") and not independent("haze", "contrast")
    assert independent("contrast", "haze") == independent("haze", "contrast")
    assert "targets" in drawable(0.1) and "targets" not in drawable(0.0) and "targets" not in drawable(0.5)
    for seed in range(20):
        patches, known, strengths, concepts = graded(window, np.random.default_rng(seed))
        assert len(patches) == len(known) == GRADED
        (first, second) = np.flatnonzero(~np.isnan(strengths).all(0))
        assert independent(list(AXES)[first], list(AXES)[second])
        assert np.isfinite(strengths[:, [first, second]]).all() and np.abs(strengths[:, first]).max() <= 1
        # One of the corners is what the sentence drawn for it says.
        sought = [concept for concept in concepts if concept not in ("clean", "clear", "exposed")]  # which are measured
        measured = {"dark", "bright", "flat", "contrasty"} & set(sought)
        assert measured or any(all(row[INDEX[concept]] == 1 for concept in sought) for row in known)


def known_of(strengths, patch, base="visible"):
    return dict(zip(CONCEPTS, facts_of_strengths(strengths, patch, base), strict=True))


RAMP = np.tile(np.linspace(0.2, 0.8, 24, dtype=np.float32), (24, 1))


def test_facts_of_strengths():
    known = known_of({"sharpness": -0.8, "targets": 0.1}, RAMP)
    assert (known["blurry"], known["sharp"], known["salient"], known["hidden"], known["goal"]) == (1, 0, -1, -1, 0)
    known = known_of({"targets": 0.6}, RAMP)
    assert (known["salient"], known["hidden"], known["goal"], known["visible"]) == (1, 0, -1, -1)


def test_nothing_added_is_not_yet_good():
    """A scene may be hazy, noisy or glaring by itself."""
    noisy = RAMP + 0.1 * np.random.default_rng(0).standard_normal(RAMP.shape).astype(np.float32)
    assert (known_of({"noise": -1.0}, RAMP)["clean"], known_of({"noise": -1.0}, noisy)["clean"]) == (1, -1)
    clear = [known_of({"haze": -1.0}, patch, base)["clear"] for patch, base in ((RAMP, "visible"), (RAMP, "infrared"))]
    assert clear == [1, -1] and known_of({"haze": -1.0}, RAMP / 5, "visible")["clear"] == -1
    lamp = RAMP.copy()
    lamp[:8] = 1.0
    assert (known_of({"exposure": -1.0}, RAMP)["exposed"], known_of({"exposure": -1.0}, lamp)["exposed"]) == (1, 0)


def test_brightness_and_contrast_are_what_they_are_in_the_end():
    black = np.clip(RAMP - 0.4, 0, 1)
    got = reached({"brightness": 0.9, "contrast": 0.9, "noise": 0.3}, black)
    assert got["brightness"] == pytest.approx((black.mean() - 0.5) / 0.4) and got["noise"] == 0.3
    assert got["contrast"] == pytest.approx(2 * np.log(black.std() / 0.03) / np.log(10) - 1, rel=1e-5)
    assert reached({"brightness": 0.0}, np.ones_like(RAMP))["brightness"] == 1.0
