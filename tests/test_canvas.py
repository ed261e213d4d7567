"""Canvases: few, large enough, and little wasted."""

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from langfuse_jax.images.canvas import default_batch, fit_network, place, plan, smallest

SIZES = st.lists(st.tuples(st.integers(32, 9000), st.integers(32, 9000)), min_size=1, max_size=40)


@given(SIZES, st.integers(1, 6))
def test_every_size_fits_on_one_of_few(sizes, limit):
    canvases = plan(sizes, limit)
    assert 1 <= len(canvases) <= limit
    for size in sizes:
        canvas = smallest(canvases, size)
        assert canvas in canvases and canvas[0] >= size[0] and canvas[1] >= size[1]
        assert canvas[0] % 8 == canvas[1] % 8 == 0


def test_the_cheapest_mergers_are_made():
    # 30 and 32 are one canvas of 32; 40 joins 32 (8 * 40 pixels for each of two images), 96 stays alone.
    assert plan([(30, 40), (32, 40), (40, 40), (96, 40)], 2) == [(40, 40), (96, 40)]
    assert plan([(32, 64), (64, 32)] * 3 + [(64, 40)], 2) == [(64, 40), (32, 64)]
    assert plan([(32, 64), (64, 32)], 1) == [(64, 64)]


def test_canvases_that_save_too_little_are_merged():
    sizes = [(32, 64)] * 10 + [(32, 72)]
    assert plan(sizes, 4) == [(32, 64), (32, 72)]
    assert plan(sizes, 4, worth=10.0 * 32 * 8 - 1) == [(32, 64), (32, 72)]
    assert plan(sizes, 4, worth=10.0 * 32 * 8) == [(32, 72)]


def test_many_sizes_are_planned_quickly():
    sizes = [(32 + i, 40 + 7 * i % 1000) for i in range(512)]
    assert len(plan(sizes, 4)) == 4


@given(st.integers(32, 20000), st.integers(32, 20000))
def test_a_new_canvas_holds_its_image_without_many_others(height, width):
    canvas = smallest([(32, 32)], (height, width))
    for side, true in zip(canvas, (height, width), strict=True):
        assert true <= side < max(1.25 * true, true + 8) and side % 8 == 0
        mantissa = side
        while mantissa % 2 == 0:
            mantissa //= 2
        assert mantissa <= 7 or side < 64
    assert fit_network((height, width)) == tuple(-(-side // 8) * 8 for side in (height, width))


def test_images_are_placed_in_the_corner():
    images = [np.full((2, 3), 0.5, np.float32), np.ones((4, 1), np.float32)]
    batch = place(images, (8, 8))
    assert batch.shape == (2, 8, 8, 1) and batch.dtype == np.float32
    for canvas, image in zip(batch, images, strict=True):
        np.testing.assert_array_equal(canvas[: image.shape[0], : image.shape[1], 0], image)
        assert canvas.sum() == image.sum()


@pytest.mark.shared
def test_sixty_ragged_pairs_need_four_canvases(shared):
    files = sorted((shared / "data" / "roadscene" / "visible").iterdir())
    for count, limit in ((60, 1.16), (171, 1.27)):
        sizes = [Image.open(path).size[::-1] for path in files[:count]]
        canvases = plan(sizes, 4)
        assert len(canvases) == 4
        padded = sum(np.prod(smallest(canvases, size)) for size in sizes)
        assert padded / sum(np.prod(size) for size in sizes) < limit


def test_batches_of_an_accelerator(monkeypatch):
    assert default_batch((480, 640), 100) == 1
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert default_batch((480, 640), 100) == 16
    assert default_batch((480, 640), 3) == 4
    assert default_batch((1080, 1920), 100) == 8
    assert default_batch((8192, 8192), 100) == 1
