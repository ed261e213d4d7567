"""The drawn night scene and the sheets, by what they must show."""

import numpy as np
import pytest

from langfuse_jax.examples.drawing import box, convex, cover, limb, soften
from langfuse_jax.examples.night_scene import night_scene
from langfuse_jax.images.sheet import grid, side_by_side


def test_night_scene_is_dark_with_warm_people():
    visible, infrared = night_scene()
    assert visible.shape == (480, 640, 3) and infrared.shape == (480, 640)
    assert visible.dtype == infrared.dtype == np.uint8
    luma = visible @ [0.299, 0.587, 0.114]
    warm = infrared > 185
    assert 20 < luma.mean() < 70 and luma.max() > 230  # dark, with lamps in it
    assert 0.003 < warm.mean() < 0.03  # people and a few hot parts of cars
    assert infrared[:60, 200:400].mean() < 40  # cold sky
    # People hide in the visible image: hardly any contrast to what is around them, against a lot in the infrared.
    rows, places = np.s_[268:288], ((np.s_[370:381], np.s_[338:352]), (np.s_[86:99], np.s_[110:123]))
    for torso, beside in places:
        assert np.ptp([infrared[rows, torso].mean(), infrared[rows, beside].mean()]) > 90
        assert np.ptp([luma[rows, torso].mean(), luma[rows, beside].mean()]) < 25


def test_night_scene_depends_on_seed_and_size_alone():
    first, again, other = night_scene(64, 96), night_scene(64, 96), night_scene(64, 96, seed=1)
    for a, b, c in zip(first, again, other, strict=True):
        assert a.shape[:2] == (64, 96)
        np.testing.assert_array_equal(a, b)
        assert (a != c).mean() > 0.2


def test_shapes_worked_by_hand():
    u, v = np.array([3.0, 0.0, 5.0]), np.array([0.0, 1.0, 0.0])
    np.testing.assert_allclose(box(u, v, 0, 0, 2, 1, 0.0), [1, 0, 3])
    np.testing.assert_allclose(limb(u, v, (0, 0), (4, 0), 1.0, 1.0), [-1, 0, 0])
    np.testing.assert_allclose(convex(u, v, [(-2, -1), (-2, 1), (2, 1), (2, -1)]), [1, 0, 3], atol=1e-12)
    np.testing.assert_allclose(cover(np.array([-2.0, -0.5, 0.0, 2.0]), 2.0), [1, 0.75, 0.5, 0])


def test_soften_equals_scipy():
    ndimage = pytest.importorskip("scipy.ndimage")
    image = np.random.default_rng(0).random((20, 30))
    np.testing.assert_allclose(soften(image, 1.0), ndimage.gaussian_filter(image, 1.0, mode="nearest", truncate=3))


def test_grid_puts_each_image_in_the_middle_of_its_tile():
    dark, gray = np.zeros((40, 60, 3), np.uint8), np.full((20, 30), 0.5)
    sheet = grid([[dark, gray, gray], [gray, dark, dark]], None)
    assert sheet.shape == (84, 188, 3) and sheet.dtype == np.uint8
    assert (sheet[:40, :60] == 0).all() and (sheet[44:, 64:124] == 0).all()
    assert (sheet[10:30, 79:109] == 128).all() and (sheet[:10, 64:124] == 255).all()
    titled = grid(
        [[dark, gray, gray], [gray, dark, dark]], None, title="a title of more words than one line of it holds"
    )
    added = len(titled) - len(sheet)
    assert (
        added > 2 * 10
        and (titled[added:] == sheet).all()
        and all((row < 255).any() for row in (titled[:15], titled[15:30]))
    )


def test_captions_stand_above():
    images = [np.full((48, 100), 0.2)] * 3
    plain, labelled = side_by_side(images, None), side_by_side(images)
    assert labelled.shape[1] == plain.shape[1] == 308
    top = labelled.shape[0] - plain.shape[0]
    np.testing.assert_array_equal(labelled[top:], plain)
    for left in (0, 104, 208):
        assert (labelled[:top, left : left + 100] < 128).any()
    np.testing.assert_array_equal(side_by_side([np.zeros((8, 8))] * 3)[-8:], side_by_side([np.zeros((8, 8))] * 3, None))
