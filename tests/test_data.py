"""Crops, affine views and patches against scipy and numbers worked by hand."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from langfuse_jax.data import scenes as scenes_module
from langfuse_jax.data.pipeline import TrainingData, random_crop
from langfuse_jax.data.scenes import Scenes, list_scenes, read_scene
from langfuse_jax.errors import UserError
from langfuse_jax.training.augmentation.affine import SLOPES, random_affine, sample_views
from langfuse_jax.training.augmentation.tiles import sample_in_tiles
from langfuse_jax.training.augmentation.windows import Windows, augment_pairs, cut_patches, random_windows


@pytest.fixture
def folder(tmp_path):
    """Five random pairs, some smaller than a crop."""
    rng = np.random.default_rng(0)
    for role in ("visible", "infrared"):
        (tmp_path / "set" / role).mkdir(parents=True)
        for i in range(5):
            pixels = rng.integers(0, 256, (40 + 8 * i, 70), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "set" / role / f"{i}.png")
    return str(tmp_path / "set")


def test_affine_views_equal_scipy():
    image = np.random.default_rng(1).uniform(size=(50, 60)).astype(np.float32)
    matrices = random_affine(jax.random.key(0), 3)
    centre, side, size = np.array([[25.0, 30.0], [20.0, 24.0], [30.0, 36.0]], np.float32), 32.0, 24
    views = jax.jit(sample_views, static_argnames="size")(
        jnp.asarray(image)[..., None], matrices, size=size, centre=jnp.asarray(centre), side=side
    )[..., 0]
    axis = (np.arange(size) + 0.5) / size - 0.5
    for view, matrix, middle in zip(views, np.asarray(matrices, np.float64), centre, strict=True):
        y, x = np.meshgrid(axis, axis, indexing="ij")
        within = np.einsum("ij,jyx->iyx", matrix, np.stack([y, x, np.ones_like(y)]))
        expected = ndimage.map_coordinates(image, middle[:, None, None] + side * within - 0.5, order=1, mode="nearest")
        expected[(np.abs(within) > 0.5).any(axis=0)] = 0
        np.testing.assert_allclose(view, expected, atol=1e-4)


@pytest.mark.parametrize(("size", "height", "width"), [(40, 40, 40), (24, 60, 50), (48, 20, 33)])
def test_samples_as_matrix_products_equal_scipy(size, height, width):
    """Of the steepest views there are, whose tiles reach over as much of an image as any; and their gradient."""
    rng = np.random.default_rng(5)
    image = rng.uniform(size=(height, width, 2)).astype(np.float32)
    matrices = np.array([[[1, s * 0.0871, 0.1], [s * 0.1746, 1.0076, 0]] for s in (-1, 1)], np.float32)
    axis = (np.arange(size) + 0.5) / size - 0.5
    grid = np.stack([*np.meshgrid(axis, axis, indexing="ij"), np.ones((size, size))])
    y, x = np.moveaxis(np.einsum("nij,jyx->niyx", matrices, grid), 1, 0)
    y, x = ((0.5 + z) * length - 0.5 for z, length in ((y, height), (x, width)))
    y, x = y.clip(0, height - 1).astype(np.float32), x.clip(0, width - 1).astype(np.float32)
    sample = jax.jit(partial(sample_in_tiles, step=max(height, width) / size, slopes=SLOPES))
    found = sample(jnp.asarray(image), y, x)
    for view in range(2):
        for channel in range(2):
            expected = ndimage.map_coordinates(image[..., channel], np.stack([y[view], x[view]]), order=1)
            np.testing.assert_allclose(found[view, :, :, channel], expected, atol=1e-5)
    # The map is linear, so the inner product with a cotangent is that of the image with the gradient.
    cotangent = rng.normal(size=found.shape).astype(np.float32)
    gradient = jax.grad(lambda image: (sample(image, y, x) * cotangent).sum())(jnp.asarray(image))
    np.testing.assert_allclose((gradient * image).sum(), (found * cotangent).sum(), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("longest", [38.4, 20.0])
def test_windows_may_be_as_long_as_their_bound(longest, monkeypatch):
    """The form for TPUs, made for windows that are no longer, of the steepest views at the corners of an image."""
    image = jnp.asarray(np.random.default_rng(6).uniform(size=(48, 48, 1)), jnp.float32)
    matrices = jnp.asarray([[[1, s * 0.0871, 0.1], [s * 0.1746, 1.0076, 0]] for s in (-1, 1)], jnp.float32)
    middle = jnp.asarray([[longest / 2] * 2, [48 - longest / 2] * 2])
    views = partial(sample_views, image, matrices, size=48, centre=middle, side=longest, longest=longest)
    expected = views()
    monkeypatch.setattr(jax.lax, "platform_dependent", lambda *operands, tpu, **_: tpu(*operands))
    np.testing.assert_allclose(views(), expected, atol=1e-5)


def test_affine_ranges():
    matrices = np.asarray(random_affine(jax.random.key(3), 4000), np.float64)
    forward = np.linalg.inv(matrices[:, :, :2])
    enlargement = np.sqrt(np.linalg.det(forward))
    assert 1.0 <= enlargement.min() < 1.01 and 1.49 < enlargement.max() <= 1.5
    # Where the middle of the input is shown: shifted in y only, by at most a tenth of the side.
    shown = np.einsum("nij,nj->ni", forward, -matrices[:, :, 2])
    assert 0.099 < np.abs(shown[:, 0]).max() <= 0.1 + 1e-6
    np.testing.assert_allclose(shown[:, 1], 0, atol=1e-6)
    # A vertical line leans by rotation and shear, a horizontal one by rotation alone (y, x order: the second column).
    rotation = np.degrees(np.arctan2(forward[:, 0, 1], forward[:, 1, 1]))
    assert 4.9 < np.abs(rotation).max() <= 5 + 1e-4
    lean = np.degrees(np.arctan2(forward[:, 1, 0], forward[:, 0, 0])) + rotation
    assert 4.9 < np.abs(lean).max() <= 5.2


def test_patches_are_ordered_by_image_then_window():
    images = jnp.arange(3.0).reshape(3, 1, 1, 1) + jnp.zeros((3, 40, 40, 1))
    still = jnp.tile(jnp.eye(2, 3)[None], (2, 1, 1))
    windows = Windows(still, jnp.array([[10.0, 10.0], [20.0, 20.0]]), jnp.array(16.0))
    patches = cut_patches(images, windows, 8)
    assert patches.shape == (3, 2, 8, 8, 1)
    np.testing.assert_allclose(patches.mean((2, 3, 4)), [[0, 0], [1, 1], [2, 2]], atol=1e-6)


def test_windows_stay_inside_and_have_the_published_sides():
    windows = jax.vmap(lambda key: random_windows(key, 7, 224))(jax.random.split(jax.random.key(0), 200))
    half = windows.side[:, None, None] / 2
    assert (windows.centre - half >= -1e-3).all() and (windows.centre + half <= 224 + 1e-3).all()
    assert 112 <= windows.side.min() < 115 and 176 < windows.side.max() <= 179.2


def test_a_pair_is_augmented_alike():
    visible = jnp.asarray(np.random.default_rng(2).uniform(size=(2, 32, 32, 1)), jnp.float32)
    a, b = jax.jit(augment_pairs)(jax.random.split(jax.random.key(1), 2), visible, 0.5 * visible)
    np.testing.assert_allclose(b, 0.5 * a, atol=1e-6)
    assert not np.allclose(a, visible)


def test_crop_reflects_small_images():
    image = np.arange(12.0, dtype=np.float32).reshape(3, 4) / 12
    crop = random_crop(image, image, 5, np.random.default_rng(0))["visible"][..., 0]
    np.testing.assert_array_equal(crop[1:4, :4], image)
    np.testing.assert_array_equal(crop[0, :4], image[1])


def test_flat_crops_are_drawn_again():
    image = np.zeros((64, 640), np.float32)
    image[:, :64] = np.random.default_rng(0).uniform(size=(64, 64))
    crops = [random_crop(image, 0 * image, 32, np.random.default_rng(seed))["visible"] for seed in range(50)]
    lively = np.mean([crop.std() >= 0.05 for crop in crops])
    # One draw hits the lively tenth with probability 0.15, ten draws with 0.8.
    assert lively > 0.6


def test_zoomed_crops_show_more_of_the_scene():
    ramp = np.tile(np.linspace(0, 1, 200, dtype=np.float32), (160, 1))
    spans = []
    for seed in range(40):
        pair = random_crop(ramp, 1 - ramp, 40, np.random.default_rng(seed), zoom=8.0)
        visible = pair["visible"][..., 0]
        assert visible.shape == (40, 40) and visible.dtype == np.float32
        np.testing.assert_allclose(pair["infrared"][..., 0], 1 - visible, atol=1e-5)
        # A shrunk ramp is a ramp, as many times as steep as its window is wide; antialiasing bends its ends alone.
        slopes = 199 * np.diff(visible[20, 3:-3])
        np.testing.assert_allclose(slopes, slopes.mean(), rtol=0.1)  # some filters are a pixel wider
        spans.append(slopes.mean())
    # From the crop's own 40 pixels to all 160 rows, as many in each octave.
    assert 0.99 < min(spans) < 1.1 and 3.6 < max(spans) < 4.02
    assert 12 <= sum(span < 2 for span in spans) <= 28
    small = random_crop(ramp[:30, :30], ramp[:30, :30], 40, np.random.default_rng(0), zoom=8.0)
    assert small["visible"].shape == (40, 40, 1)


def _data(*folders, scenes=None, seed=0, batch_size=2, **values):
    scenes = scenes or Scenes([scene for folder in folders for scene in list_scenes(folder)])
    return TrainingData(scenes, crop=48, batch_size=batch_size, seed=seed, **values)


def test_batches_are_seeded_and_resume(folder):
    def batches(seed):
        return _data(folder, seed=seed).batches()

    first, again, other = batches(0), batches(0), batches(1)
    taken = [next(first) for _ in range(6)]
    assert taken[0]["visible"].shape == (2, 48, 48, 1) and taken[0]["visible"].dtype == np.float32
    for batch in taken[:3]:
        np.testing.assert_array_equal(next(again)["infrared"], batch["infrared"])
    assert not np.array_equal(next(other)["visible"], taken[0]["visible"])
    resumed = _data(folder).batches(3)
    for batch in taken[3:]:
        np.testing.assert_array_equal(next(resumed)["visible"], batch["visible"])


def test_processes_share_every_batch_and_cover_the_epoch(folder):
    whole = _data(folder, batch_size=4)
    shares = [_data(folder, batch_size=4, process=(i, 2)) for i in range(2)]
    together, *parts = (data.batches() for data in (whole, *shares))
    for _ in range(3):
        batch = next(together)
        for index, part in enumerate(parts):
            found = next(part)
            for name in ("visible", "infrared"):
                np.testing.assert_array_equal(batch[name][index::2], found[name])
            assert found["place"].tolist() == [index, index + 2] == batch["place"][index::2].tolist()
    # Five epochs of five scenes are twenty-five samples: six batches and one more.
    seen = [name for batch in range(6) for share in shares for name in share.names(batch)]
    assert all(count in (4, 5) for count in (seen.count(name) for name in set(seen))) and len(set(seen)) == 5
    first_epoch = [whole.names(0)[i] for i in range(4)] + whole.names(1)[:1]
    assert len(set(first_epoch)) == 5 and first_epoch != sorted(first_epoch)


def test_worker_processes_give_the_same_batches_from_any_place(folder):
    plain, workers = _data(folder).batches(), _data(folder, workers=2).batches(2)
    for _ in range(2):
        next(plain)
    for _ in range(3):
        np.testing.assert_array_equal(next(workers)["visible"], next(plain)["visible"])
    workers.close()


def test_scenes_are_decoded_once_as_memory_allows(folder, monkeypatch):
    reads = []
    monkeypatch.setattr(scenes_module, "read_scene", lambda scene: (reads.append(scene), read_scene(scene))[1])
    listed = list_scenes(folder)
    for megabytes, expected in ((1, 5), (0, 15)):
        reads.clear()
        scenes = Scenes(listed, cache_mb=megabytes)
        for i in [*range(5)] * 3:
            np.testing.assert_array_equal(scenes[i][0], read_scene(listed[i])[0])
        assert len(reads) == expected


def test_bad_training_folders(folder, tmp_path):
    with pytest.raises(UserError, match=r"config\.batch_size: 9 is more than the 5 pairs"):
        _data(folder, batch_size=9)
    with pytest.raises(UserError, match=r"config\.batch_size: 3 cannot be shared by 2 processes"):
        _data(folder, batch_size=3, process=(0, 2))
    with pytest.raises(UserError, match=r"config\.data\.workers: -1"):
        _data(folder, workers=-1)
    with pytest.raises(UserError, match="absent"):
        list_scenes(tmp_path / "absent")
    with pytest.raises(UserError, match=r"set/visible: no folders of visible and infrared"):
        list_scenes(tmp_path / "set" / "visible")
    (tmp_path / "set" / "infrared" / "3.png").unlink()
    with pytest.raises(UserError, match=r"3\.png"):
        list_scenes(folder)


def test_a_pair_of_two_sizes_is_named_while_training(folder, tmp_path):
    Image.new("L", (64, 64)).save(tmp_path / "set" / "infrared" / "2.png")
    batches = _data(folder).batches()
    with pytest.raises(UserError, match=r"2\.png.*must be of one size"):
        for _ in range(5):
            next(batches)


def test_unreadable_scenes_are_skipped_by_name_up_to_the_limit(folder, tmp_path, capsys):
    (tmp_path / "set" / "visible" / "2.png").write_bytes(b"no image")
    listed = list_scenes(folder)
    scenes = Scenes(listed, max_unreadable=1)
    for _ in range(2):
        np.testing.assert_array_equal(scenes[2][0], read_scene(listed[3])[0])
    assert scenes.name(2).endswith("set/visible/3")
    error = capsys.readouterr().err
    assert error.count("2.png") == 1 and "skipped (1 of at most 1)" in error
    (tmp_path / "set" / "visible" / "4.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"4\.png.*; 2 could not be read before, and config\.data\.max_unreadable"):
        scenes[4]
    # In a worker process the limit ends the training too.
    batches = _data(scenes=Scenes(listed, max_unreadable=1), workers=1).batches()
    with pytest.raises(UserError, match=r"max_unreadable allows 1"):
        for _ in range(6):
            next(batches)
    batches.close()
