"""TIFF files of every kind, read by tifffile: gray or RGB as it is meant, in the numbers that the file holds."""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Shaped
from PIL import Image

from langfuse_jax.errors import UserError

if TYPE_CHECKING:  # a quarter of a second, for TIFFs alone
    from tifffile import TiffFile, TiffPage

_REDUCED, _MASK = 1, 4  # bits of NewSubfileType: pages that are no image of their own
# How the pixels of a file lie, by its orientation (TIFF 6.0): (transposed, rows reversed, columns reversed).
_TURNS = {
    1: (0, 0, 0),
    2: (0, 0, 1),
    3: (0, 1, 1),
    4: (0, 1, 0),
    5: (1, 0, 0),
    6: (1, 0, 1),
    7: (1, 1, 1),
    8: (1, 1, 0),
}
_GRAY, _RGB, _PALETTE, _YCBCR = (1,), (2,), (3,), (6,)
_WHITE_IS_ZERO = 0
_CONVERTED = (6, 7, 33007, 34892)  # JPEG, of which tifffile makes RGB
_NODATA = 42113  # GDAL's tag


class TiffPixels(NamedTuple):
    """Pixels of a TIFF.

    Attributes:
        pixels: (h, w) or (h, w, 3), of any integer or float type; black is the least.
        bits: of a sample, as the file says.
        nodata: the value that stands for none, where the file says one.
    """

    pixels: Shaped[np.ndarray, "h w"] | Shaped[np.ndarray, "h w 3"]
    bits: int
    nodata: float | None


def tiff_size(file: "TiffFile", name: object) -> tuple[int, int]:
    """(height, width) as `tiff_pixels` gives them. Raises UserError as that does."""
    page = _page(file, name)
    height, width = page.imagelength, page.imagewidth
    return (width, height) if _turn(page)[0] else (height, width)


def tiff_pixels(file: "TiffFile", name: object) -> TiffPixels:
    """The only image of an open TIFF, as `page_pixels` gives it. Raises UserError, naming `name`, for several."""
    return page_pixels(_page(file, name), name)


def page_pixels(page: "TiffPage", name: object) -> TiffPixels:
    """A page of a TIFF: palettes looked up, alpha dropped, turned as the file says, black at the least.

    Raises UserError, naming `name`, for colours that are neither gray, RGB, YCbCr nor a palette.
    """
    photometric = int(page.photometric)
    pixels = page.asarray()
    axes = page.axes
    if "S" in axes and axes.index("S") < axes.index("Y"):  # a plane for each sample
        pixels = np.moveaxis(pixels, axes.index("S"), -1)
    if pixels.dtype == bool:
        pixels = pixels.astype(np.uint8) * np.uint8(255)
    if pixels.dtype.kind not in "uif" or pixels.ndim not in (2, 3):
        raise UserError(f"{name}: is a TIFF of {pixels.dtype} in {pixels.ndim} dimensions; save it as gray or RGB")
    if photometric in _PALETTE and page.colormap is not None:
        if pixels.ndim == 3:  # alpha beside the index
            pixels = pixels[..., 0]
        colours = page.colormap >> 8 if page.colormap.max() > 255 else page.colormap
        pixels = np.moveaxis(colours.astype(np.uint8)[:, pixels], 0, -1)
    elif photometric == _WHITE_IS_ZERO:
        pixels = _inverted(pixels, page.bitspersample, name)
    elif photometric in _YCBCR and int(page.compression) not in _CONVERTED:
        pixels = np.asarray(Image.fromarray(pixels, "YCbCr").convert("RGB"))
    elif photometric not in (*_GRAY, *_RGB, *_YCBCR):
        kind = getattr(page.photometric, "name", photometric)
        raise UserError(f"{name}: is a TIFF of {kind} colours; save it as gray or RGB")
    if pixels.dtype == np.uint8 and photometric in (*_GRAY, _WHITE_IS_ZERO) and 1 < page.bitspersample < 8:
        pixels = np.rint(pixels * (255 / (2**page.bitspersample - 1))).astype(np.uint8)
    if pixels.ndim == 3:
        pixels = pixels[..., :3] if pixels.shape[-1] >= 3 else pixels[..., 0]
    transposed, rows, columns = _turn(page)
    if transposed:
        pixels = pixels.swapaxes(0, 1)
    pixels = pixels[:: -1 if rows else 1, :: -1 if columns else 1]
    native = pixels.dtype.newbyteorder("=")
    return TiffPixels(np.ascontiguousarray(pixels, native), int(page.bitspersample), _nodata(page))


def own_pages(file: "TiffFile") -> "list[TiffPage]":
    """The pages of an open TIFF that are images of their own, and no thumbnails or masks."""
    pages = (page.aspage() for page in file.pages)
    return [page for page in pages if not int(getattr(page, "subfiletype", 0) or 0) & (_REDUCED | _MASK)]


def _page(file: "TiffFile", name: object) -> "TiffPage":
    pages = own_pages(file)
    if len(pages) != 1:
        raise UserError(
            f"{name}: is a TIFF of {len(pages)} images; save one of them, or fuse them as frames with --video"
        )
    return pages[0]


def _turn(page: "TiffPage") -> tuple[int, int, int]:
    tag = page.tags.get("Orientation")
    return _TURNS.get(int(tag.value) if tag is not None else 1, _TURNS[1])


def _inverted(pixels: np.ndarray, bits: int, name: object) -> np.ndarray:
    if pixels.dtype.kind != "u":
        raise UserError(f"{name}: is a TIFF of {pixels.dtype} in which 0 is white; save it with 0 as black")
    return pixels.dtype.type(min(2**bits - 1, np.iinfo(pixels.dtype).max)) - pixels if bits > 1 else 255 - pixels


def _nodata(page: "TiffPage") -> float | None:
    tag = page.tags.get(_NODATA)
    try:
        return None if tag is None else float(str(tag.value).strip("\x00 "))
    except ValueError:
        return None
