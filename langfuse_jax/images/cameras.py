"""Files of thermal cameras: the counts behind the picture that a JPEG shows."""

import io
from collections.abc import Iterator

import numpy as np
from jaxtyping import UInt16
from PIL import Image

from langfuse_jax.images import flir
from langfuse_jax.images.flir import Frame, smoother_order

_START, _END, _SCAN = b"\xff\xd8", 0xD9, 0xDA
_DJI_SEGMENTS = (0xE3, 0xE4)  # whichever holds two bytes for each pixel
_LEAST_FRAME = 2 * 160 * 120  # bytes of the smallest thermal frame


def thermal_frame(content: bytes) -> Frame | None:
    """What a radiometric JPEG of FLIR or DJI, or the first frame of an FFF or SEQ file, measured; None for others.

    Raises ValueError where a file says that it has a thermal frame and it cannot be read.
    """
    if flir.is_flir(content):
        return next(flir.read_frames(content))
    found = list(segments(content))
    if inside := flir.in_jpeg(found):
        return next(flir.read_frames(inside))
    counts = _dji_counts(content, found)
    return None if counts is None else Frame(counts)


def photo_beside(frame: Frame) -> Image.Image | None:
    """What of the embedded photo the thermal frame shows, in RGB at the photo's resolution; None without a photo.

    Where the file does not say how the two lie, the whole photo is taken; where the frame shows more than the photo, it
    is black there. Raises OSError for a damaged photo.
    """
    if frame.photo is None:
        return None
    with Image.open(io.BytesIO(frame.photo)) as file:
        photo: Image.Image = file
        if file.format == "PNG" and file.mode == "RGB":  # FLIR keeps luma and chroma in the three channels of PNGs
            photo = Image.merge("YCbCr", file.split())
        return photo.convert("RGB").crop(_box(frame, photo.size))


def photo_size(frame: Frame) -> tuple[int, int] | None:
    """(height, width) of `photo_beside`, without its pixels."""
    if frame.photo is None:
        return None
    with Image.open(io.BytesIO(frame.photo)) as photo:
        left, top, right, bottom = _box(frame, photo.size)
    return bottom - top, right - left


def _box(frame: Frame, size: tuple[int, int]) -> tuple[int, int, int, int]:
    width, height = size
    if frame.placement is None:
        return 0, 0, width, height
    scale, right, down = frame.placement
    half_width, half_height = width / scale / 2, height / scale / 2
    x, y = width / 2 + right, height / 2 + down
    box = round(x - half_width), round(y - half_height), round(x + half_width), round(y + half_height)
    if box[2] <= 0 or box[3] <= 0 or box[0] >= width or box[1] >= height:  # which no camera means
        return 0, 0, width, height
    return box


def segments(content: bytes) -> Iterator[tuple[int, bytes]]:
    """(marker, payload) of each segment of a JPEG up to the pixels; none where `content` is no JPEG.

    >>> list(segments(bytes.fromhex("ffd8 ffe3 0004 0102 ffda")))
    [(227, b'\\x01\\x02')]
    """
    at = len(_START) if content.startswith(_START) else len(content)
    while at + 4 <= len(content) and content[at] == 0xFF:
        marker = content[at + 1]
        if marker in (_SCAN, _END):
            return
        length = int.from_bytes(content[at + 2 : at + 4], "big")
        yield marker, content[at + 4 : at + 2 + length]
        at += 2 + length


def unread_bytes(content: bytes) -> int:
    """Bytes that a JPEG of DJI holds where others hold their thermal frame, and that are none; 0 for other files."""
    found = list(segments(content))
    if not any(b"DJI" in payload for marker, payload in found if marker == 0xE1):
        return 0
    held = max(sum(len(payload) for marker, payload in found if marker == kind) for kind in _DJI_SEGMENTS)
    return held if held >= _LEAST_FRAME and _dji_counts(content, found) is None else 0


def _dji_counts(content: bytes, found: list[tuple[int, bytes]]) -> UInt16[np.ndarray, "h w"] | None:
    """The thermal frame of a DJI JPEG, as large as its picture or half as wide and high."""
    if not any(b"DJI" in payload for marker, payload in found if marker == 0xE1):
        return None
    with Image.open(io.BytesIO(content)) as image:
        width, height = image.size
    for kind in _DJI_SEGMENTS:
        raw = b"".join(payload for marker, payload in found if marker == kind)
        for scale in (1, 2):
            if len(raw) == 2 * (width // scale) * (height // scale):
                return smoother_order(np.frombuffer(raw, "<u2").reshape(height // scale, width // scale))
    return None
