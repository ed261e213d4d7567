"""Files as thermal cameras write them: counts behind pictures, photos beside them, and the limits of counts."""

import struct

import numpy as np
import pytest
from flir_files import PHOTO, PLACEMENT, RAW, counts_of, encoded, fff, flir_jpeg, raw_record, with_segments
from PIL import Image

from langfuse_jax.errors import UserError
from langfuse_jax.images import flir
from langfuse_jax.images.cameras import photo_beside, segments, thermal_frame
from langfuse_jax.images.files import limits_of_frames, read_infrared, thermal_limits, thermal_to_unit
from langfuse_jax.images.pairs import Pair, pair_size, read_pair
from langfuse_jax.images.remarks import Remarks


@pytest.mark.parametrize("png", [False, True])
@pytest.mark.parametrize("order", [">", "<"])
def test_flir_jpegs_give_their_counts_and_not_their_picture(tmp_path, png, order):
    counts = counts_of()
    path = tmp_path / "ir.jpg"
    path.write_bytes(flir_jpeg(fff([(RAW, raw_record(counts, png=png))], order)))
    np.testing.assert_array_equal(thermal_frame(path.read_bytes()).counts, counts)
    np.testing.assert_array_equal(read_infrared(path), thermal_to_unit(counts))
    assert read_infrared(path, limits=(14000, 15000))[0, 0] == 0


def test_a_photo_beside_the_frame_is_the_visible_image(tmp_path):
    """Its part that the frame shows: half as wide and high, moved by (6, -4)."""
    photo = np.random.default_rng(0).integers(0, 255, (160, 192, 3)).astype(np.uint8)
    placement = struct.pack("<fhh", 2.0, 6, -4)
    # FLIR keeps luma and chroma in the channels of a PNG.
    channels = np.asarray(Image.fromarray(photo).convert("YCbCr"))
    records = [(RAW, raw_record(counts_of())), (PHOTO, bytes(32) + encoded(channels, "PNG")), (PLACEMENT, placement)]
    path = tmp_path / "flir.jpg"
    path.write_bytes(flir_jpeg(fff(records)))
    shown = photo[80 - 4 - 40 : 80 - 4 + 40, 96 + 6 - 48 : 96 + 6 + 48]
    found = np.asarray(photo_beside(thermal_frame(path.read_bytes()))).astype(int)
    assert np.abs(found - shown).max() <= 4
    pair = Pair("flir", path, path)
    luma, chroma, infrared = read_pair(pair)
    assert luma.shape == infrared.shape == pair_size(pair) == (80, 96) and chroma is not None
    np.testing.assert_allclose(luma, shown @ [0.299, 0.587, 0.114] / 255, atol=0.01)
    assert infrared[0, 0] < 0.02 and infrared[-1, -1] > 0.98  # the frame, enlarged
    alone = tmp_path / "alone.jpg"
    alone.write_bytes(flir_jpeg(fff(records[:1])))
    with pytest.raises(UserError, match=r"alone\.jpg has no photo .*give --visible"):
        read_pair(Pair("alone", alone, alone))


def test_sequences_have_frames(tmp_path):
    frames = [counts_of() + i for i in range(3)]
    content = b"".join(fff([(RAW, raw_record(counts))]) for counts in frames)
    assert flir.count_frames(content) == 3
    for frame, counts in zip(flir.read_frames(content), frames, strict=True):
        np.testing.assert_array_equal(frame.counts, counts)


@pytest.mark.parametrize(("marker", "scale"), [(0xE3, 1), (0xE3, 2), (0xE4, 1)])
def test_dji_jpegs_give_their_counts(marker, scale):
    counts = counts_of(80 // scale, 96 // scale)
    raw = counts.tobytes()
    parts = [(0xE1, b"Exif\0\0 DJI M30T")] + [(marker, raw[i : i + 5000]) for i in range(0, len(raw), 5000)]
    picture = encoded(np.zeros((80, 96, 3), np.uint8), "JPEG")
    np.testing.assert_array_equal(thermal_frame(with_segments(picture, parts)).counts, counts)
    assert thermal_frame(with_segments(picture, parts[:-1])) is None  # other lengths are no frame
    assert thermal_frame(picture) is None


def test_thermal_data_of_an_unknown_layout_are_said_to_be_left(tmp_path):
    parts = [(0xE1, b"Exif\0\0 DJI XT9"), *[(0xE3, bytes(50000))] * 2]
    (tmp_path / "t.jpg").write_bytes(with_segments(encoded(np.zeros((80, 96), np.uint8), "JPEG"), parts))
    said = []
    image = read_infrared(tmp_path / "t.jpg", remarks=Remarks(said.append))
    assert image.shape == (80, 96) and not image.any()
    assert "t.jpg: has 100000 bytes of thermal data in an unknown layout; its picture is taken" in str(said[0])


@pytest.mark.parametrize("cut", [100, 500, 3000])
def test_a_damaged_frame_is_refused_in_one_line(tmp_path, cut):
    path = tmp_path / "cut.jpg"
    path.write_bytes(flir_jpeg(fff([(RAW, raw_record(counts_of()))])[:cut]))
    with pytest.raises(UserError, match=r"cut\.jpg: its thermal frame cannot be read"):
        read_infrared(path)


def test_segments_end_where_pixels_begin():
    content = encoded(np.zeros((32, 32), np.uint8), "JPEG")
    assert all(0xC0 <= marker <= 0xFE for marker, _ in segments(content)) and not list(segments(b"\x89PNG"))
    assert not list(segments(b"\xff\xd8\xff"))


def test_limits_ignore_telemetry_and_dead_pixels():
    rng = np.random.default_rng(0)
    counts = rng.integers(7000, 7301, (120, 160)).astype(np.uint16)
    clean = thermal_limits(counts)
    counts[-2:] = rng.integers(0, 65536, (2, 160))
    counts[5, 9] = 65535
    assert abs(np.subtract(thermal_limits(counts), clean)).max() < 30
    assert thermal_limits(np.full((40, 40), 7.0)) == (7.0, 7.0)
    assert thermal_limits(np.full((40, 40), np.nan)) == (0.0, 1.0)


def test_limits_of_a_video_are_not_those_of_a_closed_shutter():
    assert limits_of_frames([(7000, 7010), (7005, 7015), (6800, 7400), (6700, 7500)]) == (6800, 7400)
    assert limits_of_frames([(5, 5)]) == (5, 5)
