"""Files as FLIR's cameras write them, made for tests."""

import io
import struct

import numpy as np
from PIL import Image

RAW, PHOTO, PLACEMENT = 0x01, 0x0E, 0x2A


def counts_of(height=40, width=48):
    y, x = np.mgrid[:height, :width]
    return (14000 + 20 * y + 5 * x).astype(np.uint16)


def encoded(image, kind):
    file = io.BytesIO()
    Image.fromarray(image).save(file, kind)
    return file.getvalue()


def raw_record(counts, *, png=False):
    header = struct.pack("<HHH", 2, counts.shape[1], counts.shape[0]).ljust(32, b"\0")
    return header + (encoded(counts.byteswap(), "PNG") if png else counts.astype("<u2").tobytes())


def fff(records, order=">"):
    """A directory of (type, bytes) as FLIR writes it."""
    start = 64 + 32 * len(records)
    head = b"FFF\0".ljust(20, b"\0") + struct.pack(f"{order}III", 101, 64, len(records))
    entries, body = b"", b""
    for kind, content in records:
        entries += struct.pack(f"{order}HHIIII", kind, 0, 0, 0, start + len(body), len(content)).ljust(32, b"\0")
        body += content
    return head.ljust(64, b"\0") + entries + body


def with_segments(jpeg, parts):
    """A JPEG with segments (marker, payload) after its start."""
    added = b"".join(bytes([0xFF, marker]) + struct.pack(">H", len(part) + 2) + part for marker, part in parts)
    return jpeg[:2] + added + jpeg[2:]


def flir_jpeg(content, size=(96, 80), part=1000):
    pieces = [content[i : i + part] for i in range(0, len(content), part)]
    parts = [(0xE1, b"FLIR\0\1" + bytes([i, len(pieces) - 1]) + piece) for i, piece in enumerate(pieces)]
    picture = encoded(np.full((size[1], size[0], 3), 90, np.uint8), "JPEG")
    return with_segments(picture, parts[::-1])  # their own numbers are their order
