"""Alignment: known transforms found, what cannot be aligned refused, and images laid where the transform says."""

import json
import subprocess
import sys

import cv2
import numpy as np
import pytest
from misaligned import corner_error, rig_pair, rig_warp
from PIL import Image

from langfuse_jax import Alignment, UserError, align
from langfuse_jax.alignment import MODELS
from langfuse_jax.alignment import fit as fits
from langfuse_jax.alignment.check import displacement
from langfuse_jax.alignment.features import doubled_angles
from langfuse_jax.alignment.fit import fit
from langfuse_jax.alignment.geometry import moved, stretching
from langfuse_jax.alignment.patches import Matches
from langfuse_jax.errors import WrongType
from langfuse_jax.examples.night_scene import night_scene
from langfuse_jax.images.files import rgb_to_ycbcr, to_unit


@pytest.fixture(scope="module")
def scene():
    """Visible luma and infrared of a drawn scene, in [0, 1]."""
    visible, infrared = night_scene(240, 320)
    return rgb_to_ycbcr(to_unit(visible, "v"))[0], to_unit(infrared, "i")


@pytest.mark.parametrize(
    ("warp", "size"),
    [
        pytest.param(rig_warp(), (640, 480), id="one size"),
        pytest.param(rig_warp(scale=0.9, degrees=-4, infrared_size=(320, 240)), (320, 240), id="half size"),
        # The infrared camera sees 0.45 of the visible one's width: beyond the first search.
        pytest.param(rig_warp(scale=1 / 0.45, degrees=1, shift=(40, 20)), (640, 480), id="narrow"),
    ],
)
def test_a_known_transform_is_found(warp, size):
    visible, infrared = rig_pair(warp, size=size)
    found = align(visible, infrared)
    assert found.accepted and found.reason == ""
    assert (found.visible_size, found.infrared_size) == ((640, 480), size)
    assert found.inliers >= 50 and found.residual_px < 3
    assert corner_error(found, warp) < 3


def test_the_polarity_and_the_units_of_infrared_make_no_difference():
    warp = rig_warp(degrees=-2)
    visible, infrared = rig_pair(warp)
    inverse = align(visible, 30000 - 40 * infrared.astype(np.int32))
    assert inverse.accepted and corner_error(inverse, warp) < 3


def test_a_rig_is_aligned_by_all_its_pairs_and_strays_are_left_out():
    warp = rig_warp(scale=0.95, shift=(-25, 10))
    pairs = [rig_pair(warp, seed=seed) for seed in (0, 1)]
    stray = rig_pair(warp, seed=2)[0], rig_pair(rig_warp(shift=(60, 35)), seed=2)[1]  # taken at another moment
    found = align(*zip(*pairs, stray, strict=True))
    assert found.accepted and found.pairs == 2
    assert corner_error(found, warp) < 2


def test_frames_of_a_closed_shutter_are_left_out():
    warp = rig_warp(scale=0.95)
    visible, infrared = rig_pair(warp)
    found = align([visible, visible], [np.full_like(infrared, 9), infrared])
    assert found.accepted and found.pairs == 1 and corner_error(found, warp) < 3


def test_a_rig_none_of_whose_pairs_agrees_is_refused(monkeypatch):
    monkeypatch.setattr("langfuse_jax.alignment.rig._members", lambda found: [False] * len(found.pair_inliers))
    visible, infrared = rig_pair(rig_warp())
    found = align([visible, visible], [infrared, infrared])
    assert not found.accepted and "no pair agrees" in found.reason


def test_what_cannot_be_aligned_is_refused():
    visible, infrared = rig_pair(np.eye(3))
    mirrored = align(visible, infrared[:, ::-1])
    assert not mirrored.accepted and "50 are needed" in mirrored.reason
    with pytest.raises(UserError, match="was refused"):
        mirrored.apply(np.zeros((480, 640), np.float32), np.zeros((480, 640), np.float32))


def test_a_pattern_that_repeats_is_refused():
    y, x = np.mgrid[0:480, 0:640]
    grid = ((x % 40 < 4) | (y % 40 < 4)).astype(np.float32)
    found = align(grid, np.roll(1 - grid, 13, axis=1))
    assert not found.accepted and "may repeat" in found.reason


@pytest.mark.parametrize(
    ("visible", "infrared", "message"),
    [
        (np.zeros((48, 64)), np.eye(64), "the visible image is constant"),
        (np.eye(64), np.full((48, 64), np.nan), "the infrared image is constant"),
        ([np.eye(64)], [np.eye(64), np.eye(64)], "give as many of each"),
        ([np.eye(64), np.eye(48)], [np.eye(64), np.eye(64)], "those of one rig have one size"),
        ([], [], "no visible image"),
        (np.eye(64), np.zeros((1, 64)), "nothing can be matched"),
    ],
)
def test_what_is_no_rig(visible, infrared, message):
    with pytest.raises(UserError, match=message):
        align(visible, infrared)


def test_arrays_that_are_no_images():
    for wrong in (np.zeros((4, 4, 2)), np.zeros(5), np.zeros((4, 4), complex)):
        with pytest.raises(WrongType, match="visible"):
            align(wrong, np.eye(64))
    with pytest.raises(UserError, match="--model rigid"):
        align(np.eye(64), np.eye(64), model="rigid")


def test_features_equal_an_edge_of_known_direction():
    """A ramp along 30 degrees has doubled angle 60 everywhere, whichever end is bright."""
    y, x = np.mgrid[0:64, 0:64].astype(np.float32)
    ramp = np.cos(np.pi / 6) * x + np.sin(np.pi / 6) * y
    for image in (ramp, 100 - ramp):
        inner = doubled_angles(image.astype(np.float32))[8:-8, 8:-8]
        np.testing.assert_allclose(np.rad2deg(np.angle(inner)), 60, atol=0.01)
        np.testing.assert_allclose(np.abs(inner), 1 / 2.5, atol=0.01)  # |g| / (|g| + mean + half the mean)


def _places():
    return np.stack(np.meshgrid(np.arange(0.0, 320, 16), np.arange(0.0, 240, 16)), -1).reshape(-1, 2)


@pytest.mark.parametrize("model", MODELS)
def test_fit_recovers_a_transform_among_outliers(model):
    rng = np.random.default_rng(1)
    true = {
        "similarity": np.array([[2.0, -0.1, 30], [0.1, 2.0, -9], [0, 0, 1]]),
        "affine": np.array([[2.02, -0.1, 30], [0.1, 2.0, -9], [0, 0, 1]]),
        "homography": np.array([[2.0, -0.1, 30], [0.1, 2.0, -9], [2e-5, -1e-5, 1]]),
    }[model]
    source = _places()
    target = moved(true, source)
    wrong = rng.random(len(source)) < 0.3
    target[wrong] += rng.uniform(-200, 200, (int(wrong.sum()), 2))
    found = fit(Matches(source, target), model, (320, 240))
    assert found.inliers.sum() >= (~wrong).sum() - 1
    np.testing.assert_allclose(moved(found.matrix, source[~wrong]), moved(true, source[~wrong]), atol=0.25)


def test_a_homography_shrinks_towards_a_similarity():
    """Ten noisy matches on a line say nothing of perspective: the prior does."""
    rng = np.random.default_rng(2)
    source = np.stack([np.linspace(20, 300, 10), 100 + rng.normal(0, 3, 10)], -1)
    found = fit(Matches(source, source + rng.normal(0, 1, source.shape)), "homography", (320, 240))
    far = np.array([[160.0, 230.0]])
    assert np.linalg.norm(moved(found.matrix, far) - far) < 8


def test_slopes_of_the_fit_equal_differences():
    rng = np.random.default_rng(3)
    values, points = rng.normal(0, 0.05, 8), rng.uniform(-1, 1, (5, 2))

    def place(values):
        return moved(fits._homography(values), points)

    homogeneous = np.column_stack([points, np.ones(5)]) @ fits._homography(values).T
    slopes = fits._slopes(*points.T, homogeneous[:, 2], place(values))
    for k in range(8):
        step = 1e-6 * np.eye(8)[k]
        np.testing.assert_allclose(slopes[..., k], (place(values + step) - place(values - step)) / 2e-6, atol=1e-8)


@pytest.mark.parametrize("to", ["visible", "infrared"])
def test_apply_lays_a_ramp_where_the_matrix_says(to):
    """Linear images survive bicubic resampling, so that each pixel has a known value."""
    matrix = np.array([[1.5, 0.1, 12.0], [-0.1, 1.5, 20.0], [0, 0, 1]])
    alignment = Alignment(matrix, (200, 160), (90, 70))
    v = np.stack(np.meshgrid(np.arange(200.0), np.arange(160.0)), -1).astype(np.float32)
    i = np.stack(np.meshgrid(np.arange(90.0), np.arange(70.0)), -1).astype(np.float32)
    left, top, width, height = alignment.window(to)
    for axis in (0, 1):
        visible, infrared = alignment.apply(v, i[..., axis].copy(), to=to)
        assert visible.shape[:2] == infrared.shape == (height, width)
        at = np.stack(np.meshgrid(np.arange(left, left + width), np.arange(top, top + height)), -1).reshape(-1, 2)
        inner = np.s_[6:-6, 6:-6]
        if to == "visible":
            expected = moved(np.linalg.inv(matrix), at.astype(float))[:, axis].reshape(height, width)
            np.testing.assert_allclose(infrared[inner], expected[inner], atol=0.05)
            np.testing.assert_array_equal(visible, v[top : top + height, left : left + width])
        else:
            expected = moved(matrix, at.astype(float))[:, axis].reshape(height, width)
            np.testing.assert_allclose(visible[inner][..., axis], expected[inner], atol=0.2)  # averaged before
        assert not np.isnan(infrared).any() and not np.isnan(visible).any()


def test_a_whole_shift_is_exact_and_nan_stays():
    rng = np.random.default_rng(4)
    image = rng.random((48, 64), np.float32)
    image[10, 20] = np.nan
    shifted = Alignment(np.array([[1.0, 0, 5], [0, 1, -3], [0, 0, 1]]), (64, 48), (64, 48))
    visible, infrared = shifted.apply(np.zeros((48, 64), np.float32), image, outside="visible")
    known = np.full((48, 64), np.nan, np.float32)
    known[:45, 5:] = image[3:, :59]
    assert np.isnan(infrared[7, 25]) and np.isnan(infrared[:, :5]).all() and np.isnan(infrared[45:]).all()
    away = np.ones((48, 64), bool)
    away[4:11, 22:29] = False  # where the missing value was filled before it was resampled
    np.testing.assert_allclose(infrared[away], known[away], atol=1e-5)
    assert visible.shape == (48, 64)


def test_the_crop_is_the_largest_rectangle():
    """Of a square turned by 45 degrees within a larger one: half its diagonal a side."""
    half = 100 * np.sqrt(2)
    outline = np.array([[150, 150 - half], [150 + half, 150], [150, 150 + half], [150 - half, 150]])
    matrix = cv2.getPerspectiveTransform(
        np.float32([[0, 0], [199, 0], [199, 199], [0, 199]]), outline.astype(np.float32)
    )
    _, _, width, height = Alignment(matrix, (400, 400), (200, 200)).window()
    assert abs(width * height - half**2) < 0.03 * half**2


def test_colours_stay_in_their_range():
    """Bicubic weights overshoot at edges: luma never leaves [0, 1], nor chroma its own range."""
    sharp = np.zeros((96, 96, 3), np.float32)
    sharp[:, 48:] = (1, 0.4, -0.4)
    laid, _ = Alignment(np.diag([1.05, 1.05, 1]), (96, 96), (90, 90)).apply(
        sharp, np.zeros((90, 90), np.float32), to="infrared"
    )
    np.testing.assert_allclose(laid.min((0, 1)), [0, 0, -0.4], atol=1e-6)
    np.testing.assert_allclose(laid.max((0, 1)), [1, 0.4, 0], atol=1e-6)


def test_a_small_infrared_image_fits_a_large_grid():
    small = Alignment(np.diag([10.0, 10, 1]), (320, 240), (32, 24))
    assert small.apply(np.zeros((240, 320), np.float32), np.zeros((24, 32), np.float32))[1].shape == (231, 311)
    with pytest.raises(UserError, match="overlap of 32x24"):
        small.window("infrared")


def test_alignments_that_cannot_be_applied(tmp_path):
    images = np.zeros((64, 64), np.float32), np.zeros((64, 64), np.float32)
    far = Alignment(np.array([[1.0, 0, 500], [0, 1, 0], [0, 0, 1]]), (64, 64), (64, 64))
    for outside in ("crop", "visible"):
        with pytest.raises(UserError, match="leaves no overlap"):
            far.apply(*images, outside=outside)
    little = Alignment(np.array([[1.0, 0, 50], [0, 1, 0], [0, 0, 1]]), (64, 64), (64, 64))
    with pytest.raises(UserError, match="overlap of 14x64 pixels"):
        little.apply(*images)
    with pytest.raises(UserError, match="the visible image is 64x64 pixels, and the alignment is for 32x64"):
        Alignment(np.eye(3), (32, 64), (64, 64)).apply(*images)
    with pytest.raises(UserError, match="--outside visible"):
        Alignment(np.eye(3), (64, 64), (64, 64)).apply(*images, to="infrared", outside="visible")


def test_the_file_has_the_documented_keys_and_comes_back(tmp_path):
    written = Alignment(np.diag([2.0, 2, 1]), (128, 96), (64, 48), "affine", 5, 321, 1.25)
    written.save(tmp_path / "rig.json")
    keys = json.loads((tmp_path / "rig.json").read_text())
    assert keys["matrix"] == [[2, 0, 0], [0, 2, 0], [0, 0, 1]] and keys["version"] == 1
    assert keys["visible_size"] == [128, 96] and keys["infrared_size"] == [64, 48]
    assert (keys["model"], keys["pairs"], keys["inliers"], keys["residual_px"]) == ("affine", 5, 321, 1.25)
    assert keys["accepted"] is True
    read = Alignment.load(tmp_path / "rig.json")
    assert read.as_dict() == written.as_dict()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"matrix": [[1, 0], [0, 1]]}, "is no alignment"),
        ({"matrix": [[-1, 0, 64], [0, 1, 0], [0, 0, 1]]}, "mirrors"),
        ({"matrix": [[1, 0, 0], [0, 0, 0], [0, 0, 1]]}, "no inverse"),
        ({"matrix": [[1, 0, 0], [0, 1, 0], [-0.1, 0, 1]]}, "folds"),
        ({"visible_size": [64.5, 48]}, "is no size"),
        ({"visible_size": None}, "is no alignment"),
        ({"version": 9}, "its version is 9"),
        ({"inliers": float("inf")}, "is no alignment"),
        ({"visible_size": [1e999, 5]}, "is no alignment"),
    ],
)
def test_files_that_are_no_alignment(change, message, tmp_path):
    content = Alignment(np.eye(3), (64, 48), (64, 48)).as_dict() | change
    (tmp_path / "rig.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=message) as caught:
        Alignment.load(tmp_path / "rig.json")
    assert str(tmp_path / "rig.json") in str(caught.value)


def test_lacking_keys_and_other_files(tmp_path):
    (tmp_path / "rig.json").write_text('{"matrix": [[1, 0, 0], [0, 1, 0], [0, 0, 1]]}')
    with pytest.raises(UserError, match="lacks 'visible_size'"):
        Alignment.load(tmp_path / "rig.json")
    (tmp_path / "list.json").write_text("[1, 2]")
    with pytest.raises(UserError, match="is no alignment"):
        Alignment.load(tmp_path / "list.json")


def test_displacement(scene):
    luma, infrared = scene
    assert displacement(luma, infrared) < 1
    for pixels in (5, 12):
        assert displacement(luma, np.roll(infrared, pixels, axis=1)) == pytest.approx(pixels, abs=1.5)
    larger = cv2.warpPerspective(infrared, np.diag([1.1, 1.1, 1.0]), (320, 240))
    assert displacement(luma, larger) > 5
    assert displacement(luma, np.zeros_like(luma)) == 0
    assert displacement(np.random.default_rng(0).random((240, 320), np.float32), infrared) == 0


def test_stretching_keeps_the_edges():
    matrix = stretching((10, 8), (40, 24))
    np.testing.assert_allclose(moved(matrix, np.array([[-0.5, -0.5], [9.5, 7.5]])), [[-0.5, -0.5], [39.5, 23.5]])


def test_without_opencv_the_extra_is_named(tmp_path):
    program = (
        "import sys; sys.modules['cv2'] = None\n"
        "from langfuse_jax import *\n"  # whose names do not need it
        "from langfuse_jax.cli import main\n"
        "sys.exit(main(['align', '--visible', 'a.png', '--infrared', 'b.png', '--out', 'c.json']))"
    )
    for name in ("a.png", "b.png"):
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 64), np.uint8)).save(tmp_path / name)
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert run.returncode == 2 and 'pip install "langfuse-jax[align]"' in run.stderr and "Traceback" not in run.stderr
