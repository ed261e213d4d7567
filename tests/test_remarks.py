"""What is said of inputs that are probably not meant as they are, what is undone, and `--resize` and folder limits."""

import io

import numpy as np
import pytest
from PIL import Image

from langfuse_jax import UserError, fuse_folders
from langfuse_jax.cli import main
from langfuse_jax.images import files as images
from langfuse_jax.images.pairs import Pair, read_pair, resampled
from langfuse_jax.images.palettes import colourful, palette, without_palette
from langfuse_jax.images.reading import Reading
from langfuse_jax.images.remarks import Remarks, local_skewness

Y, X = np.mgrid[:48, :64]
PEOPLE = np.full((48, 64), 60, np.uint8)
for row, column in ((20, 10), (22, 40), (24, 55)):
    PEOPLE[row : row + 7, column : column + 3] = 230
RAMP = (4 * X).astype(np.uint8)


def heard(read):
    said = []
    remarks = Remarks(lambda remark: said.append(str(remark)))
    result = read(remarks)
    remarks.finish()
    return result, said


def saved(path, pixels, **options):
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return path


@pytest.mark.parametrize("name", ["iron", "rainbow", "jet", "hot", "inferno", "magma", "plasma", "turbo", "viridis"])
@pytest.mark.parametrize("quality", [None, 90])
def test_false_colour_is_undone(tmp_path, name, quality):
    gray = (255 * np.exp(-((X - 30) ** 2 + (Y - 20) ** 2) / 800)).astype(np.uint8)
    options = {"quality": quality, "subsampling": 0} if quality else {}
    path = saved(tmp_path / f"a.{'jpg' if quality else 'png'}", palette(name)[gray], **options)
    infrared, said = heard(lambda remarks: images.read_infrared(path, remarks=remarks))
    assert np.abs(255 * infrared - gray).mean() < (4 if quality else 0.6)
    assert said == [f"{path}: is in false colour (palette {name}); converted back to gray"]


def test_colours_of_no_palette_are_remarked(tmp_path):
    photo = np.stack([4 * X, 5 * Y, 255 - 4 * X], -1).astype(np.uint8)
    assert colourful(photo) and without_palette(photo) is None
    infrared, visible = saved(tmp_path / "ir.png", photo), saved(tmp_path / "vi.png", RAMP)
    _, said = heard(lambda remarks: read_pair(Pair("a", visible, infrared), Reading(remarks=remarks)))
    assert len(said) == 2 and "unknown colour palette" in said[0] and "are the two swapped?" in said[1]
    assert not heard(lambda remarks: read_pair(Pair("a", infrared, visible), Reading(remarks=remarks)))[1]


def test_exchanged_bytes_are_put_right(tmp_path):
    counts = (7000 + 3 * X + 5 * Y).astype(np.uint16)
    right, swapped = saved(tmp_path / "a.png", counts), saved(tmp_path / "b.png", counts.byteswap())
    (first, silent), (second, said) = (
        heard(lambda remarks, path=path: images.read_infrared(path, remarks=remarks)) for path in (right, swapped)
    )
    np.testing.assert_array_equal(first, second)
    assert not silent and said == [f"{swapped}: is byte-swapped 16-bit data; swapped back"]
    shifted = saved(tmp_path / "c.png", RAMP.astype(np.uint16) << 8)  # 8 bits in the upper byte are as they should be
    assert not heard(lambda remarks: images.read_infrared(shifted, remarks=remarks))[1]


def test_polarity(tmp_path):
    assert local_skewness(PEOPLE / np.float32(255)) > 1
    normal, negative = saved(tmp_path / "a.png", PEOPLE), saved(tmp_path / "b.png", 255 - PEOPLE)
    assert not heard(lambda remarks: images.read_infrared(normal, remarks=remarks))[1]
    (said,) = heard(lambda remarks: images.read_infrared(negative, remarks=remarks))[1]
    assert "--invert-infrared" in said
    visible = saved(tmp_path / "vi.png", RAMP)
    read = [read_pair(Pair("a", visible, path), Reading(invert=path == negative))[2] for path in (normal, negative)]
    np.testing.assert_allclose(*read, atol=1e-6)


def test_limits_beyond_the_values_and_missing_values(tmp_path):
    path = saved(tmp_path / "a.png", (7000 + X).astype(np.uint16))
    (said,) = heard(lambda remarks: images.read_infrared(path, (100, 200), remarks=remarks))[1]
    assert said == f"{path}: 100% of its pixels lie outside the limits 100 and 200; its values run from 7000 to 7063"
    kelvin = (290 + X / 4).astype(np.float32)
    kelvin[:, :16] = np.nan
    path = saved(tmp_path / "k.tif", kelvin)
    (said,) = heard(lambda remarks: images.read_infrared(path, remarks=remarks))[1]
    assert "no value in 25.0% of the pixels; the visible image is kept there" in said


def test_one_image_twice(tmp_path):
    pair = Pair("a", saved(tmp_path / "a.png", RAMP), saved(tmp_path / "b.png", RAMP))
    (said,) = heard(lambda remarks: read_pair(pair, Reading(remarks=remarks)))[1]
    assert said == f"{pair.visible} and {pair.infrared} are the same image"


def folders(root, infrared):
    for number, pixels in enumerate(infrared):
        saved(root / "ir" / f"{number}.png", pixels)
        saved(root / "vi" / f"{number}.png", RAMP)
    return root / "vi", root / "ir"


def test_each_kind_once_a_run(tmp_path, capsys):
    jet = palette("jet")[PEOPLE]
    deep = 7000 + PEOPLE.astype(np.uint16)
    visible, infrared = folders(tmp_path, [jet, jet, PEOPLE, PEOPLE, PEOPLE, deep])
    result = fuse_folders(visible, infrared, tmp_path / "out")
    err = capsys.readouterr().err
    assert result.fused == 6
    assert err.count("palette jet") == 1 and "5.png: is more than 8 bits deep, the 5 others are 8-bit" in err
    assert err.count("\n") == 2


def test_limits_of_a_folder(tmp_path, monkeypatch):
    frames = [(7000 + low + X).astype(np.uint16) for low in (0, 100, 200)]
    visible, infrared = folders(tmp_path, frames)
    seen = []
    monkeypatch.setattr(
        "langfuse_jax.inference.folders.read_pair",
        lambda pair, reading: seen.append(reading.limits) or read_pair(pair, reading),
    )
    fuse_folders(visible, infrared, tmp_path / "out", infrared_range="folder")
    own = [images.thermal_limits(frame) for frame in frames]
    low, high = np.quantile([a for a, _ in own], 0.05), np.quantile([b for _, b in own], 0.95)
    assert set(seen) == {(low, high)} and len(seen) == 3
    arguments = ["fuse", "--visible", str(visible), "--infrared", str(infrared), "--out", str(tmp_path / "out")]
    assert main([*arguments, "--infrared-range", "auto-folder"]) == 0  # finished, and so left as they are
    assert len(seen) == 3
    assert main(arguments) == 2


@pytest.mark.parametrize("size", [(12, 16), (24, 32), (192, 256)])
def test_resize(tmp_path, size):
    visible = saved(tmp_path / "v.png", np.stack([RAMP, RAMP, 255 - RAMP], -1))
    thermal = np.asarray(Image.fromarray(RAMP).resize(size[::-1], Image.Resampling.BICUBIC))
    pair = Pair("v", visible, saved(tmp_path / "i.png", thermal))
    with pytest.raises(UserError, match=r"--resize"):
        read_pair(pair)
    luma, chroma, infrared = read_pair(pair, Reading(resize="visible"))
    assert luma.shape == infrared.shape == chroma.shape[:2] == (48, 64)
    assert np.abs(255 * infrared - RAMP)[8:-8, 8:-8].mean() < 3
    if min(size) >= 32:
        luma, chroma, infrared = read_pair(pair, Reading(resize="infrared"))
        assert luma.shape == infrared.shape == chroma.shape[:2] == size
    odd = Pair("v", visible, saved(tmp_path / "odd.png", np.zeros((40, 64), np.uint8)))
    with pytest.raises(UserError, match="differ in shape"):
        read_pair(odd, Reading(resize="visible"))


def test_what_is_missing_stays_missing_when_resized():
    image = np.full((32, 32), 0.25, np.float32)
    image[:16] = np.nan
    large = resampled(image, (64, 64))
    assert np.isnan(large[:31]).all() and np.isfinite(large[33:]).all()
    np.testing.assert_allclose(large[33:], 0.25, atol=1e-6)


def test_heic(tmp_path, monkeypatch):
    heif = pytest.importorskip("pillow_heif")
    heif.register_heif_opener()
    photo = np.stack([4 * X, 5 * Y, 100 + 0 * X], -1).astype(np.uint8)
    path = tmp_path / "a.heic"
    Image.fromarray(photo).save(path, quality=95)
    luma, chroma = images.read_visible(path)
    assert luma.shape == (48, 64) and np.abs(images.ycbcr_to_rgb(luma, chroma) - photo / 255).mean() < 0.02
    assert images.header_size(path) == (48, 64)
    monkeypatch.setitem(__import__("sys").modules, "pillow_heif", None)
    with pytest.raises(UserError, match=r"langfuse-jax\[cameras\]"):
        images.read_visible(path)


def test_what_a_folder_has_beside_images_is_named(tmp_path, capsys):
    visible, infrared = folders(tmp_path, [RAMP, RAMP])
    (infrared / "1.png").rename(infrared / "1.raw")
    fuse_folders(visible, infrared, tmp_path / "out")
    assert (
        f"{visible / '1.png'}: unpaired, {infrared / '1.raw'} ends in .raw, which is not read"
        in capsys.readouterr().err
    )
    for path in infrared.iterdir():
        path.rename(path.with_suffix(".raw"))
    with pytest.raises(UserError, match=r"no infrared images \(it has \.raw\)"):
        fuse_folders(visible, infrared, tmp_path / "out")


def test_infrared_sizes_are_those_of_counts(tmp_path):
    from flir_files import RAW, counts_of, fff, raw_record

    path = tmp_path / "a.fff"
    path.write_bytes(fff([(RAW, raw_record(counts_of(40, 48)))]))
    assert images.infrared_size(path) == (40, 48) == images.read_infrared(path).shape
    assert images.infrared_size(io.BytesIO(b"")) is None
