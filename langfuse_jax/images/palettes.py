"""Palettes in which cameras and programs show infrared images, and what they were drawn from."""

from functools import cache

import numpy as np
from jaxtyping import Float32, UInt8

# Evenly spaced colours from cold to hot, in hexadecimal: FLIR's as its files hold them, others as programs draw them.
_COLOURS = {
    "iron": "001f25 480b8d 8f11a1 c12e7f e05745 f18516 f4b40c efda49 e1efef",
    "rainbow": "111350 104497 0f71d2 48a343 c7c90e eaae1c eb363f e9636e ecd6bf",
    "jet": "000080 0000ff 0080ff 00ffff 80ff80 ffff00 ff8000 ff0000 800000",
    "hot": "0b0000 350000 5f0000 890000 b30000 dd0000 ff0800 ff3200 ff5c00 ff8600 ffb000 ffda00 ffff07 "
    "ffff46 ffff85 ffffc4 ffffff",
    "inferno": "000004 0b0724 210c4a 3d0965 57106e 71196e 8a226a a32c61 bc3754 d24644 e45a31 f1731d f98e09 "
    "fcac11 f9cb35 f2ea69 fcffa4",
    "magma": "000004 0a0822 1d1147 36106b 51127c 6a1c81 832681 9c2e7f b73779 d0416f e75263 f56b5c fc8961 "
    "fea772 fec488 fde2a3 fcfdbf",
    "plasma": "0d0887 310597 4c02a1 6600a7 7e03a8 9511a1 aa2395 bc3587 cc4778 da5a6a e66c5c f0804e f89540 "
    "fdac33 fdc527 f8df25 f0f921",
    "turbo": "30123b 4040a2 466be3 4294ff 28bceb 18ddc2 32f298 6dfe62 a4fc3c cdec34 eecf3a fdac34 fb7e21 "
    "eb500e d02f05 a91601 7a0403",
    "viridis": "440154 48186a 472d7b 424086 3b528b 33638d 2c728e 26828e 21918c 1fa088 28ae80 3fbc73 5ec962 "
    "84d44b addc30 d8e219 fde725",
}
_COLOURFUL = 12  # mean difference of the largest and the least of a pixel's three values, beyond which it has colour
_TIGHT, _ALMOST_ALL = 9.0, 24.0  # distances to the palette's nearest colour: the median's, and that of nine in ten
_STEP = 4  # levels to which colours are rounded before they are looked up


def colourful(pixels: UInt8[np.ndarray, "h w 3"]) -> bool:
    """Whether an RGB image has more colour than compression leaves in a gray one.

    >>> colourful(np.full((4, 4, 3), 100, np.uint8))
    False
    """
    return bool(np.mean(np.ptp(pixels, axis=2)) > _COLOURFUL)


def without_palette(pixels: UInt8[np.ndarray, "h w 3"]) -> tuple[str, UInt8[np.ndarray, "h w"]] | None:
    """The name of the palette that an RGB image is drawn in, and the gray levels that it was drawn from.

    None where no known palette has nearly all of its colours: half of the pixels within 9 levels of one, nine in ten
    within 24.

    >>> ramp = np.arange(256, dtype=np.uint8)[None].repeat(4, 0)
    >>> name, gray = without_palette(palette("jet")[ramp])
    >>> name, int(np.abs(gray.astype(int) - ramp).max())
    ('jet', 0)
    """
    packed = (pixels // _STEP).astype(np.uint32) @ np.array([1, 64, 64 * 64], np.uint32)
    codes, counts = np.unique(packed, return_counts=True)
    colours = np.stack([codes % 64, codes // 64 % 64, codes // 4096], 1).astype(np.float32) * _STEP + (_STEP - 1) / 2
    best = None
    for name in _COLOURS:
        nearest = np.sqrt(_nearest(colours, name)[1])
        order = np.argsort(nearest)
        reached = np.cumsum(counts[order]) / pixels[..., 0].size
        half, almost = (float(nearest[order][np.searchsorted(reached, share)]) for share in (0.5, 0.9))
        if half <= _TIGHT and almost <= _ALMOST_ALL and (best is None or almost < best[0]):
            best = almost, name
    return None if best is None else (best[1], levels_in(pixels, best[1]))


def levels_in(pixels: UInt8[np.ndarray, "h w 3"], name: str) -> UInt8[np.ndarray, "h w"]:
    """The gray level of each pixel's nearest colour in a palette.

    >>> levels_in(palette("jet")[[[10, 20]]], "jet").tolist()
    [[10, 20]]
    """
    exact, inverse = np.unique(pixels.reshape(-1, 3), axis=0, return_inverse=True)
    return _nearest(exact.astype(np.float32), name)[0][inverse.reshape(pixels.shape[:2])]


@cache
def palette(name: str) -> UInt8[np.ndarray, "256 3"]:
    """256 colours from cold to hot."""
    points = np.array([list(bytes.fromhex(colour)) for colour in _COLOURS[name].split()], np.float32)
    at = np.linspace(0, len(points) - 1, 256)
    return np.rint(np.stack([np.interp(at, np.arange(len(points)), points[:, k]) for k in range(3)], 1)).astype(
        np.uint8
    )


def _nearest(
    colours: Float32[np.ndarray, "n 3"], name: str
) -> tuple[UInt8[np.ndarray, " n"], Float32[np.ndarray, " n"]]:
    """Which of a palette's colours is nearest to each, and the squared distance; in parts that fit into memory."""
    drawn = palette(name).astype(np.float32)
    indices, squares = [], []
    for part in np.array_split(colours, -(-len(colours) // 4096)):
        distances = ((part[:, None] - drawn) ** 2).sum(2)
        indices.append(distances.argmin(1).astype(np.uint8))
        squares.append(distances.min(1))
    return np.concatenate(indices), np.concatenate(squares)
