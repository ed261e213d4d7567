"""TIFF files of every kind: read as they are meant, or refused by name."""

import io

import numpy as np
import pytest
import tifffile

from langfuse_jax.errors import BadPixels, UserError
from langfuse_jax.images.files import header_size, read_infrared, read_visible, thermal_to_unit
from langfuse_jax.images.pairs import filled

GRAY = np.linspace(0, 255, 48 * 64).reshape(48, 64).astype(np.uint8)
RGB = np.stack([GRAY, GRAY[::-1], 255 - GRAY], -1)


@pytest.fixture
def written(tmp_path):
    """Writes a TIFF and gives its path."""

    def write(pixels, **options):
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.tif"
        tifffile.imwrite(path, pixels, **options)
        return path

    return write


@pytest.mark.parametrize(
    ("pixels", "options"),
    [
        (GRAY, {}),
        (255 - GRAY, {"photometric": "miniswhite"}),
        (GRAY, {"tile": (16, 16), "compression": "zlib"}),
        (GRAY.astype(">u2") * 257, {"byteorder": ">"}),
        (65535 - GRAY.astype(np.uint16) * 257, {"photometric": "miniswhite"}),
        (np.stack([GRAY, np.full_like(GRAY, 9)], -1), {"photometric": "minisblack", "extrasamples": ["unassalpha"]}),
        (GRAY.astype(np.float64) / 255, {}),
        (GRAY.astype(np.float16) / np.float16(255), {}),
    ],
)
def test_gray_is_the_same_however_it_is_stored(written, pixels, options):
    path = written(pixels, **options)
    luma, chroma = read_visible(path)
    assert chroma is None and header_size(path) == luma.shape == (48, 64)
    np.testing.assert_allclose(luma, GRAY / 255, atol=1e-3)


@pytest.mark.parametrize("planar", [False, True])
def test_colours_lie_in_any_plane(written, planar):
    pixels, config = (np.moveaxis(RGB, -1, 0), "separate") if planar else (RGB, "contig")
    luma, chroma = read_visible(written(pixels, photometric="rgb", planarconfig=config))
    np.testing.assert_allclose(luma, RGB @ [0.299, 0.587, 0.114] / 255, atol=1e-5)
    assert chroma.shape == (48, 64, 2)
    palette = np.random.default_rng(0).integers(0, 256, (3, 256)).astype(np.uint16) * 257
    luma, _ = read_visible(written(GRAY, photometric="palette", colormap=palette))
    np.testing.assert_allclose(luma, (palette.T[GRAY] / 65535) @ [0.299, 0.587, 0.114], atol=1e-5)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_it_is_turned_as_it_says(written, orientation):
    upright = {
        1: GRAY, 2: GRAY[:, ::-1], 3: GRAY[::-1, ::-1], 4: GRAY[::-1],
        5: GRAY.T, 6: np.rot90(GRAY, -1), 7: np.rot90(GRAY.T, 2), 8: np.rot90(GRAY),
    }[orientation]  # fmt: skip
    path = written(GRAY, extratags=[(274, "H", 1, orientation, True)])
    assert header_size(path) == upright.shape
    np.testing.assert_allclose(read_visible(path)[0], upright / 255, atol=1e-6)


@pytest.mark.parametrize("kind", ["int16", "int32", "uint32", "float32", "float64"])
def test_infrared_of_any_numbers_is_shown_by_its_percentiles(written, kind):
    celsius = (GRAY.astype(np.float64) / 4 - 20).astype(kind) if kind != "uint32" else GRAY.astype(kind) * 1000
    np.testing.assert_allclose(read_infrared(written(celsius)), thermal_to_unit(celsius), atol=1e-6)


@pytest.mark.parametrize(("top", "white"), [(255, 255), (900, 1023), (4000, 4095), (60000, 65535)])
def test_visible_integers_are_as_deep_as_their_brightest_pixel(written, top, white):
    pixels = np.linspace(0, top, 48 * 64).reshape(48, 64).astype(np.uint16)
    np.testing.assert_allclose(read_visible(written(pixels))[0], pixels / white, atol=1e-5)


def test_where_there_is_no_infrared_the_visible_image_is_kept(written):
    kelvin = 280 + GRAY.astype(np.float32) / 25
    kelvin[:10, :20] = np.nan
    infrared = read_infrared(written(kelvin))
    assert np.isnan(infrared[:10, :20]).all() and np.isfinite(infrared[10:]).all()
    np.testing.assert_array_equal(filled(infrared, np.float32(GRAY / 255))[:10, :20], np.float32(GRAY / 255)[:10, :20])
    counts = GRAY.astype(np.uint16) + 7000
    counts[0, :5] = 0
    infrared = read_infrared(written(counts, extratags=[(42113, "s", 0, "0", True)]))
    assert np.isnan(infrared[0, :5]).all() and np.isnan(infrared).sum() == 5


@pytest.mark.parametrize(
    ("pixels", "options", "message"),
    [
        (np.stack([GRAY] * 3), {"photometric": "minisblack"}, "is a TIFF of 3 images; .* frames with --video"),
        (np.stack([RGB[..., 0]] * 4, -1), {"photometric": "separated"}, "is a TIFF of SEPARATED colours"),
        (GRAY.astype(np.float32), {"photometric": "miniswhite"}, "is a TIFF of float32 in which 0 is white"),
        (GRAY.astype(np.complex64), {}, "is a TIFF of complex64"),
    ],
)
def test_what_is_no_image_is_refused_by_name(written, pixels, options, message):
    path = written(pixels, **options)
    for read in (read_visible, read_infrared):
        with pytest.raises(UserError, match=f"{path.name}: {message}"):
            read(path)


def test_visible_numbers_that_mean_nothing(written):
    with pytest.raises(BadPixels, match="holds integers beyond 16 bits"):
        read_visible(written(GRAY.astype(np.int32) - 5))
    with pytest.raises(BadPixels, match="floats run from"):
        read_visible(written(GRAY.astype(np.float32)))


def test_a_page_beside_the_image_is_no_image_of_its_own(tmp_path):
    path = tmp_path / "thumbnail.tif"
    with tifffile.TiffWriter(path) as file:
        file.write(GRAY)
        file.write(GRAY[::4, ::4], subfiletype=1)
    assert read_visible(path)[0].shape == (48, 64)


def test_a_cut_file_is_refused(written):
    path = written(GRAY, compression="zlib")
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(UserError, match=f"{path.name}: cannot be read"):
        read_visible(path)
    assert header_size(io.BytesIO(b"II*\0")) is None


def test_limits_hold_for_eight_bits_with_no_data_too(written):
    levels = np.tile(np.arange(64, dtype=np.uint8) * 4, (48, 1))
    path = written(levels, extratags=[(42113, "s", 0, "0", True)])
    image = read_infrared(path, limits=(20, 200))
    assert np.isnan(image[:, 0]).all()
    np.testing.assert_allclose(image[0, 1:], np.clip((levels[0, 1:] - 20.0) / 180, 0, 1), atol=1e-6)
    np.testing.assert_allclose(read_infrared(path)[0, 1:], levels[0, 1:] / 255, atol=1e-6)
