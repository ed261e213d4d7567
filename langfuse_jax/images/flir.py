"""What FLIR's cameras write into JPEG, FFF and SEQ files: raw counts, the photo beside them, and how the two lie.

The layout is the one that ExifTool documents (FLIR.pm): segments of a JPEG hold the parts of an FFF file, which is a
directory of records; a SEQ file is one FFF file after the other.
"""

import io
import struct
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt16
from PIL import Image

_MAGIC = (b"FFF\0", b"AFF\0")
_RAW, _PHOTO, _PICTURE_IN_PICTURE = 0x01, 0x0E, 0x2A
_RECORD, _HEADER = 32, 32  # bytes of a directory's entry, and before the pixels of a record
_PNG, _JPEG = b"\x89PNG", b"\xff\xd8"


class Placement(NamedTuple):
    """How the thermal image lies in the photo: `scale` times smaller, its middle (right, down) photo pixels away."""

    scale: float
    right: int
    down: int


class Frame(NamedTuple):
    """A thermal frame: counts, larger where it is hotter; an encoded photo (JPEG or PNG) and its placement, if any."""

    counts: UInt16[np.ndarray, "h w"]
    photo: bytes | None = None
    placement: Placement | None = None


def in_jpeg(segments: list[tuple[int, bytes]]) -> bytes:
    """The FFF file in the segments (marker, payload) of a JPEG; empty where there is none."""
    parts = {payload[6]: payload[8:] for marker, payload in segments if marker == 0xE1 and payload[:5] == b"FLIR\0"}
    return b"".join(parts[number] for number in sorted(parts))


def is_flir(start: bytes) -> bool:
    """Whether a file that begins so is an FFF or SEQ file."""
    return start[:4] in _MAGIC


def count_frames(content: bytes) -> int:
    """The number of frames in an FFF or SEQ file."""
    return len(_starts(content))


def read_frames(content: bytes) -> Iterator[Frame]:
    """The frames of an FFF or SEQ file in order. Raises ValueError where one cannot be read."""
    starts = _starts(content)
    for start, end in zip(starts, [*starts[1:], len(content)], strict=True):
        yield _frame(content[start:end])


def _starts(content: bytes) -> list[int]:
    magic, starts = content[:4], []
    at = content.find(magic)
    while at >= 0:
        if _order(content, at):
            starts.append(at)
        at = content.find(magic, at + 4)
    return starts


def _order(content: bytes, start: int) -> str:
    """The byte order of a header by its version, which is from 100 to 199; empty where there is none."""
    version = content[start + 20 : start + 24]
    return next(
        (order for order in "><" if len(version) == 4 and 100 <= struct.unpack(f"{order}I", version)[0] < 200), ""
    )


def _frame(content: bytes) -> Frame:
    order = _order(content, 0)
    if not order:
        raise ValueError("no FFF header")
    directory, count = struct.unpack_from(f"{order}II", content, 24)
    counts = photo = placement = None
    for number in range(count):
        entry = directory + number * _RECORD
        (kind,) = struct.unpack_from(f"{order}H", content, entry)
        at, length = struct.unpack_from(f"{order}II", content, entry + 12)
        record = content[at : at + length]
        if kind == _RAW and counts is None:
            counts = _counts(record)
        elif kind == _PHOTO and photo is None and len(record) > _HEADER:
            photo = record[_HEADER:]
        elif kind == _PICTURE_IN_PICTURE and len(record) >= 8:
            placement = _placement(record)
    if counts is None:
        raise ValueError("no thermal record")
    return Frame(counts, photo, placement)


def _own_order(record: bytes) -> str:
    """The byte order of a record, whose first number is 2."""
    return "<" if record[:2] == b"\2\0" else ">"


def _counts(record: bytes) -> UInt16[np.ndarray, "h w"]:
    order = _own_order(record)
    width, height = struct.unpack_from(f"{order}HH", record, 2)
    pixels = record[_HEADER:]
    if pixels.startswith(_PNG):  # whose 16 bits most cameras write with the wrong end first
        with Image.open(io.BytesIO(pixels)) as image:
            return smoother_order(np.asarray(image).astype(np.uint16))
    if pixels[:2] == _JPEG:  # JPEG-LS, of CSQ files
        import imagecodecs

        return np.asarray(imagecodecs.jpegls_decode(pixels)).astype(np.uint16)
    if len(pixels) < 2 * width * height:
        raise ValueError(f"{len(pixels)} bytes for {width}x{height} pixels; compressed frames are not read")
    return smoother_order(np.frombuffer(pixels, "<u2", width * height).reshape(height, width))


def smoother_order(counts: UInt16[np.ndarray, "h w"]) -> UInt16[np.ndarray, "h w"]:
    """`counts` or, if neighbours are then more alike, `counts` with its two bytes exchanged: a scene is smooth.

    >>> ramp = np.arange(1000, 1400, dtype=np.uint16).reshape(20, 20)
    >>> np.array_equal(smoother_order(ramp.byteswap()), ramp)
    True
    """
    swapped = counts.byteswap()
    steps = [np.abs(np.diff(order.astype(np.int32), axis=1)).mean() for order in (counts, swapped)]
    return swapped if steps[1] < steps[0] else counts


def swapped_if_smoother(counts: UInt16[np.ndarray, "h w"]) -> UInt16[np.ndarray, "h w"] | None:
    """`counts` with exchanged bytes, where that makes neighbours ten times more alike; else None.

    8 bits in the upper byte of 16 stay as they are.

    >>> ramp = np.arange(1000, 1400, dtype=np.uint16).reshape(20, 20)
    >>> swapped_if_smoother(ramp) is None, np.array_equal(swapped_if_smoother(ramp.byteswap()), ramp)
    (True, True)
    """
    swapped = counts.byteswap()
    as_is, other = (float(np.abs(np.diff(order.astype(np.int32), axis=1)).mean()) for order in (counts, swapped))
    return swapped if swapped.max() > 255 and 10 * other < as_is else None


def _placement(record: bytes) -> Placement | None:
    for order in "<>":
        scale, right, down = struct.unpack_from(f"{order}fhh", record)
        if 0.2 < scale < 10:
            return Placement(float(scale), right, down)
    return None
