"""Image files and arrays: read as floats in [0, 1], split luma from chroma, write PNGs."""

import io
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple, cast

import numpy as np
from jaxtyping import Float, Float32, Shaped, UInt8
from PIL import ExifTags, Image, ImageFile, ImageOps, UnidentifiedImageError

from langfuse_jax.errors import BadPixels, UserError, reason
from langfuse_jax.images.cameras import Frame, thermal_frame, unread_bytes
from langfuse_jax.images.flir import swapped_if_smoother
from langfuse_jax.images.palettes import colourful, without_palette
from langfuse_jax.images.remarks import Remarks
from langfuse_jax.images.tiff import tiff_pixels, tiff_size
from langfuse_jax.runtime.atomic import atomic_write

if TYPE_CHECKING:
    from tifffile import TiffFile

EXTENSIONS = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".heic", ".heif", ".fff")
MIN_SIDE = 32  # the fusion network's smallest height and width
MAX_SIDE = 8192  # larger images need gigabytes for every layer: refused unless asked for
PNG_LEVEL = 4  # of zlib: against its usual 6, files 8% larger in 40% of the time
PERCENTILES = (0.5, 99.5)  # of raw infrared counts: what is shown as 0 and as 1
_EDGE_ROWS = 4  # at either edge, that may be no part of the scene
_BEYOND = 0.9  # share of the pixels beyond given limits from which that is remarked
_DEPTHS = (8, 10, 12, 14, 16)  # bits that cameras have
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_HEIF = (b"ftypheic", b"ftypheix", b"ftyphevc", b"ftypmif1", b"ftypmsf1")  # behind four bytes of length

PathLike = str | os.PathLike | io.BytesIO  # of a file in memory, errors show str()
Limits = tuple[int | float, int | float]  # raw values that become 0 and 1
# The PNG chunks in which Pillow finds an orientation.
_ORIENTED = (b"eXIf", b"tEXtRaw profile type exif\0", b"zTXtRaw profile type exif\0", b"iTXtXML:com.adobe.xmp\0")
LUMA = np.array([0.299, 0.587, 0.114])  # of red, green and blue, by BT.601

# Pillow warns of damage in lines of its own before it raises; the error says it once.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
# Our own limit on the sides is stricter than the one it warns of.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


def rgb_to_ycbcr(
    rgb: Float[np.ndarray, "*batch h w 3"],
) -> tuple[Float[np.ndarray, "*batch h w"], Float[np.ndarray, "*batch h w 2"]]:
    """Luma Y in [0, 1] and chroma (Cb, Cr) in [-0.5, 0.5] of RGB in [0, 1]: ITU-R BT.601 at full range, as in JPEG.

    >>> luma, chroma = rgb_to_ycbcr(np.array([[[1.0, 0.0, 0.0]]]))
    >>> luma.round(3).tolist(), chroma.round(3).tolist()
    ([[0.299]], [[[-0.169, 0.5]]])
    """
    red, blue = rgb[..., 0], rgb[..., 2]
    luma = rgb @ LUMA.astype(rgb.dtype)
    return luma, np.stack([(blue - luma) / 1.772, (red - luma) / 1.402], axis=-1)


def ycbcr_to_rgb(
    luma: Float[np.ndarray, "*batch h w"], chroma: Float[np.ndarray, "*batch h w 2"]
) -> Float[np.ndarray, "*batch h w 3"]:
    """The inverse of `rgb_to_ycbcr`, clipped to [0, 1]: another luma may leave the RGB cube with the old chroma.

    >>> ycbcr_to_rgb(np.array([[0.299]]), np.array([[[-0.169, 0.5]]])).round(2).tolist()
    [[[1.0, 0.0, 0.0]]]
    """
    red = luma + 1.402 * chroma[..., 1]
    blue = luma + 1.772 * chroma[..., 0]
    green = (luma - 0.299 * red - 0.114 * blue) / 0.587
    return np.clip(np.stack([red, green, blue], axis=-1), 0, 1)


def to_unit(pixels: Shaped[np.ndarray, "..."], name: PathLike) -> Float32[np.ndarray, "..."]:
    """uint8 / 255, uint16 / 65535, or floats in [0, 1] as they are: always float32 in [0, 1].

    Raises BadPixels, a UserError, naming `name`, for other types and for values that are not finite or outside [0, 1].

    >>> to_unit(np.array([0, 51, 255], np.uint8), "pixels").astype(float).round(3).tolist()
    [0.0, 0.2, 1.0]
    """
    kind = pixels.dtype.newbyteorder("=")
    if kind in (np.uint8, np.uint16):
        return pixels.astype(np.float32) / np.float32(np.iinfo(kind).max)
    # ml_dtypes' bfloat16 is no numpy.floating, and its kind is V.
    if kind.kind != "f" and kind.name != "bfloat16":
        raise BadPixels(f"{name}: pixels are {kind}; give uint8, uint16 or floats in [0, 1]")
    values = pixels.astype(np.float32)
    if not np.isfinite(values).all():
        raise BadPixels(f"{name}: has values that are not finite; replace NaN and infinity first")
    # Rounding in somebody's own conversion may pass the bounds by a little.
    if values.size and (values.min() < -1e-5 or values.max() > 1 + 1e-5):
        low, high = values.min(), values.max()
        raise BadPixels(f"{name}: floats run from {low:.4g} to {high:.4g}; scale them to [0, 1]")
    return np.clip(values, 0, 1)


def thermal_to_unit(counts: Shaped[np.ndarray, "h w"], limits: Limits | None = None) -> Float32[np.ndarray, "h w"]:
    """Raw thermal counts as float32 in [0, 1]: `limits` (low, high) become 0 and 1, and what lies beyond is clipped.

    Without `limits`, they are the 0.5 and 99.5 percentiles of the image, as `thermal_limits` takes them, since a camera
    uses a small part of its 16 bits. An image of one value is 0 throughout. NaN stays NaN.

    >>> thermal_to_unit(np.array([[6900, 7250, 8000]], np.uint16), limits=(7000, 8000)).tolist()
    [[0.0, 0.25, 1.0]]
    """
    low, high = thermal_limits(counts) if limits is None else limits
    span = max(high - low, np.finfo(np.float32).tiny)
    # In float64, for counts of 32 bits differ by less than float32 tells apart.
    return np.clip((counts.astype(np.float64) - low) / span, 0, 1).astype(np.float32)


def thermal_limits(counts: Shaped[np.ndarray, "h w"]) -> Limits:
    """What `thermal_to_unit` takes for 0 and 1 in an image: PERCENTILES, or its extremes where those two are equal.

    Up to four rows at the upper and the lower edge that have nothing in common with the scene, as telemetry and black
    bars, have no say, and neither has NaN. (0, 1) where there is nothing.

    >>> counts = np.tile(np.arange(1001, dtype=np.uint16), (20, 1))
    >>> counts[-1] = 65535
    >>> thermal_limits(counts)
    (5.0, 995.0)
    """
    scene = counts[_scene_rows(counts)]
    known = scene[np.isfinite(scene)]
    if not known.size:
        return 0.0, 1.0
    low, high = np.percentile(known, PERCENTILES)
    return (float(low), float(high)) if low < high else (float(known.min()), float(known.max()))


def _scene_rows(counts: Shaped[np.ndarray, "h w"]) -> slice:
    """All rows but those at the edges from which it is a leap to the next one: 20 times the usual step of two rows."""
    if len(counts) <= 4 * _EDGE_ROWS:
        return slice(None)
    steps = np.array([_step(*counts[row : row + 2]) for row in range(len(counts) - 1)])
    leaps = steps > 20 * np.median(steps) + 1
    upper, lower = np.flatnonzero(leaps[:_EDGE_ROWS]), np.flatnonzero(leaps[::-1][:_EDGE_ROWS])
    return slice(upper.max() + 1 if upper.size else 0, len(counts) - (lower.max() + 1 if lower.size else 0))


def _step(one: Shaped[np.ndarray, " w"], next_one: Shaped[np.ndarray, " w"]) -> float:
    differences = np.abs(one.astype(np.float64) - next_one)
    known = differences[np.isfinite(differences)]
    return float(np.median(known)) if known.size else 0.0


def limits_of_frames(limits: Sequence[Limits]) -> Limits:
    """Those that a whole video is shown by: of the first frame with at least half of the widest span of all.

    A closed shutter, with which thermal cameras begin, has next to none.

    >>> limits_of_frames([(7000, 7010), (6800, 7400), (6700, 7500)])
    (6800, 7400)
    """
    spans = sorted(high - low for low, high in limits)
    alone = len(spans) > 2 and spans[-1] > 4 * spans[-2] > 0  # of a frame that was damaged
    widest = spans[-2] if alone else spans[-1]
    return next(one for one in limits if widest / 2 <= one[1] - one[0] <= widest)


def read_infrared(
    path: PathLike,
    limits: Limits | None = None,
    max_side: int | None = MAX_SIDE,
    *,
    found: bool = False,
    min_side: int = MIN_SIDE,
    remarks: Remarks | None = None,
) -> Float32[np.ndarray, "h w"]:
    """An infrared image file as gray in [0, 1], NaN where it has no infrared; one stored in colour gives its luma.

    8 bits count as /255, and floats that are all in [0, 1] as they are; other integers and floats, as counts, Celsius
    or kelvin, as `thermal_to_unit` has them. Of radiometric JPEGs (FLIR, DJI) and FFF files the counts are taken, not
    the picture. With `limits`, every file is mapped by these raw values instead, whatever its type; with limits that
    were `found` in other files, those of counts alone. NaN, infinity and what a TIFF declares as no data are no
    infrared. Known palettes of false colour (`images.palettes`) are undone, and so are 16 bits whose bytes are
    exchanged. `remarks` hears of what is probably not meant. Raises as `read_visible`, and for colour beyond 8 bits.

    >>> Image.fromarray(np.linspace(7000, 8000, 1200).astype(np.uint16).reshape(30, 40).repeat(2, 0)).save("counts.png")
    >>> infrared = read_infrared("counts.png", limits=(7000, 8000))
    >>> infrared.shape, infrared.min().round(3).item(), infrared.max().round(3).item()
    ((60, 40), 0.0, 1.0)
    """
    raw, levels = _raw_infrared(path, max_side, min_side, remarks)
    counts = not levels and _is_counts(raw)
    if not counts and (limits is None or found):
        image = raw.astype(np.float32) / (255 if levels else 1)
    else:
        image = thermal_to_unit(raw, limits)
    if remarks is not None and not isinstance(path, io.BytesIO):
        if limits is not None and not found and (beyond := float(((image <= 0) | (image >= 1)).mean())) > _BEYOND:
            low, high = np.nanmin(raw), np.nanmax(raw)
            remarks(
                "limits",
                f"{path}: {100 * beyond:.0f}% of its pixels lie outside the limits {limits[0]:g} and {limits[1]:g}; "
                f"its values run from {low:g} to {high:g}",
            )
        remarks.saw_infrared(Path(path), image, counts=counts)
    return image


def infrared_limits(path: PathLike, max_side: int | None = MAX_SIDE, *, min_side: int = MIN_SIDE) -> Limits | None:
    """The limits that `read_infrared` takes for a file of counts; None for others.

    >>> Image.new("L", (40, 32)).save("gray.png")
    >>> infrared_limits("gray.png") is None
    True
    """
    raw, levels = _raw_infrared(path, max_side, min_side)
    return thermal_limits(raw) if not levels and _is_counts(raw) else None


def _raw_infrared(
    path: PathLike, max_side: int | None, min_side: int = MIN_SIDE, remarks: Remarks | None = None
) -> tuple[Shaped[np.ndarray, "h w"], bool]:
    """What a file holds, uint8 or float64 with NaN for no infrared, and whether it is gray levels of 8 bits."""
    if (frame := camera_frame(path)) is not None:
        height, width = frame.counts.shape
        check_sides(path, width, height, max_side, min_side)
        return frame.counts.astype(np.float64), False
    decoded = _decode(path, max_side, min_side)
    if remarks is not None and not isinstance(path, io.BytesIO) and (unread := unread_bytes(Path(path).read_bytes())):
        remarks(
            "unread", f"{path}: has {unread} bytes of thermal data in an unknown layout; its picture is taken instead"
        )
    pixels = decoded.pixels
    if decoded.truncated or (pixels.ndim == 3 and pixels.dtype != np.uint8):  # the scene is in the low bits
        raise UserError(f"{path}: is infrared of 16 bits in colour; save it as gray of 16 bits")
    if pixels.ndim == 3:
        return without_colour(path, pixels, remarks)[0], True
    return known_values(path, pixels, decoded.nodata, remarks), pixels.dtype == np.uint8


def known_values(
    path: PathLike, pixels: Shaped[np.ndarray, "h w"], nodata: float | None, remarks: Remarks | None
) -> Shaped[np.ndarray, "h w"]:
    """Gray infrared as it was decoded: uint8 as it is, all else as float64 with NaN where there is no infrared.

    >>> known_values("a.tif", np.array([[1.0, -9999.0]]), -9999.0, None).tolist()
    [[1.0, nan]]
    """
    if pixels.dtype == np.uint8 and nodata is None:
        return pixels
    if pixels.dtype == np.uint16 and (swapped := swapped_if_smoother(pixels)) is not None:
        pixels = swapped
        if remarks is not None:
            remarks("bytes", f"{path}: is byte-swapped 16-bit data; swapped back")
    raw = pixels.astype(np.float64)
    raw[~np.isfinite(raw)] = np.nan
    if nodata is not None:
        raw[pixels == nodata] = np.nan
    return raw


def without_colour(
    path: PathLike, pixels: UInt8[np.ndarray, "h w 3"], remarks: Remarks | None
) -> tuple[UInt8[np.ndarray, "h w"], str | None]:
    """Infrared stored in colour as gray, and the palette of false colour that was undone for it; else by its luma.

    >>> without_colour("gray.png", np.full((32, 32, 3), 7, np.uint8), None)[1] is None
    True
    """
    if colourful(pixels):
        if (found := without_palette(pixels)) is not None:
            if remarks is not None:
                remarks("palette", f"{path}: is in false colour (palette {found[0]}); converted back to gray")
            return found[1], found[0]
        if remarks is not None:
            remarks.coloured.add(str(path))
            remarks(
                "colour",
                f"{path}: is infrared in an unknown colour palette, so hot may look cold; save it in gray",
            )
    return np.rint(pixels @ LUMA).astype(np.uint8), None


def camera_frame(path: PathLike) -> Frame | None:
    """What a radiometric JPEG, or the first frame of an FFF or SEQ file, holds; None for other files, and missing ones.

    Raises UserError, naming the file, where its thermal frame cannot be read.

    >>> Image.new("L", (40, 32)).save("gray.png")
    >>> camera_frame("gray.png") is None
    True
    """
    try:
        content = path.getvalue() if isinstance(path, io.BytesIO) else Path(path).read_bytes()
    except OSError:
        return None  # what is wrong is said when it is decoded
    try:
        return thermal_frame(content)
    except MemoryError:
        raise
    except Exception as error:  # a damaged file makes decoders raise errors of nearly any kind
        why = "it has none" if isinstance(error, StopIteration) else reason(error)
        raise UserError(f"{path}: its thermal frame cannot be read ({why}); export it as a 16-bit TIFF") from error


def _is_counts(raw: Shaped[np.ndarray, "h w"]) -> bool:
    if raw.dtype == np.uint8:
        return False
    known = raw[np.isfinite(raw)]
    return bool(known.size) and not (0 <= known.min() and known.max() <= 1)


def read_visible(
    path: PathLike, max_side: int | None = MAX_SIDE
) -> tuple[Float32[np.ndarray, "h w"], Float32[np.ndarray, "h w 2"] | None]:
    """A visible image file as luma in [0, 1] and chroma (`rgb_to_ycbcr`), or None for the chroma of a gray image.

    8 bits count as /255 (floats are in [0, 1]); of deeper integers white is 2^b - 1, where b is the depth that the file
    declares if it is below 16, else the least of 8, 10, 12, 14 and 16 that holds the brightest pixel. Alpha is dropped,
    palettes are looked up and the orientation is applied. Raises UserError, naming the file, when it is missing,
    damaged, no image, or has a side under 32 or over `max_side` pixels (None: any size), which is checked before it is
    decoded.

    >>> write_png("red.png", np.broadcast_to([1.0, 0.0, 0.0], (32, 40, 3)))
    >>> luma, chroma = read_visible("red.png")
    >>> round(luma[0, 0].item(), 3), chroma.shape
    (0.299, (32, 40, 2))
    """
    decoded = _decode(path, max_side)
    unit = visible_to_unit(decoded.pixels, path, decoded.bits)
    return (unit, None) if unit.ndim == 2 else rgb_to_ycbcr(unit)


def visible_to_unit(
    pixels: Shaped[np.ndarray, "..."], name: PathLike, bits: int | None = None
) -> Float32[np.ndarray, "..."]:
    """Visible pixels of any depth as float32 in [0, 1], by the rule of `read_visible`; `bits` are the file's.

    >>> visible_to_unit(np.array([0, 1023], np.uint16), "ten bits").tolist()
    [0.0, 1.0]
    """
    if pixels.dtype.kind in "ui" and pixels.dtype != np.uint8:
        if pixels.min() < 0 or pixels.max() > 65535:
            raise BadPixels(f"{name}: holds integers beyond 16 bits; save it with 8 or 16 bits per pixel")
        depth = next(b for b in _DEPTHS if pixels.max() < 2**b)
        if bits is not None and 8 < bits < 16:
            depth = bits
        pixels = np.minimum(pixels.astype(np.float32) / np.float32(2**depth - 1), 1)
    return to_unit(pixels, name)


def header_size(path: PathLike) -> tuple[int, int] | None:
    """(height, width) that the readers will give, without decoding the pixels; None where it cannot be had.

    >>> write_png("gray.png", np.zeros((32, 40)))
    >>> header_size("gray.png")
    (32, 40)
    """
    try:
        with _opened(path) as file:
            if isinstance(file, ImageFile.ImageFile):
                width, height = file.size
                return (width, height) if _orientation(file) in (5, 6, 7, 8) else (height, width)
            return tiff_size(file, path)
    except Exception:  # whatever is wrong is said when the file is read
        return None


def infrared_size(path: PathLike) -> tuple[int, int] | None:
    """(height, width) that `read_infrared` will give; None where it cannot be had.

    Files of thermal cameras are read for it: their frames are smaller than the pictures that they show.

    >>> write_png("gray.png", np.zeros((32, 40)))
    >>> infrared_size("gray.png")
    (32, 40)
    """
    try:
        frame = camera_frame(path)
    except UserError:  # which is said when the file is read
        return None
    return header_size(path) if frame is None else frame.counts.shape


def opens_whole(path: PathLike) -> bool:
    """Whether a file is an image that can be decoded to its last pixel.

    >>> write_png("gray.png", np.zeros((32, 40)))
    >>> opens_whole("gray.png"), opens_whole("none.png")
    (True, False)
    """
    try:
        with Image.open(path) as file:
            file.load()
    except Exception:  # missing, a folder, cut, no image
        return False
    return True


def _orientation(file: ImageFile.ImageFile) -> int:
    """The orientation by which `exif_transpose` will turn the pixels: Pillow's, for whatever kind of file."""
    # Without EXIF before the pixels of a PNG, Pillow decodes them to look behind.
    read = file.getexif if file.format != "PNG" or _has_late_exif(file) else partial(Image.Image.getexif, file)
    return read().get(ExifTags.Base.Orientation, 1)


def _has_late_exif(file: ImageFile.ImageFile) -> bool:
    """Whether one of a PNG's chunks may hold an orientation; passes from head to head of them."""
    stream = cast(BinaryIO, file.fp)
    place = stream.tell()
    stream.seek(8)
    found = False
    while not found and len(head := stream.read(40)) >= 8:
        found = head[4:].startswith(_ORIENTED)
        stream.seek(int.from_bytes(head[:4]) + 12 - len(head), os.SEEK_CUR)
    stream.seek(place)
    return found


class _Decoded(NamedTuple):
    """Pixels of a file, in the numbers that it holds; and whether Pillow cut 16 bits to 8."""

    pixels: Shaped[np.ndarray, "h w"] | Shaped[np.ndarray, "h w 3"]
    bits: int
    nodata: float | None = None
    truncated: bool = False


@contextmanager
def _opened(path: PathLike) -> Iterator["ImageFile.ImageFile | TiffFile"]:
    """A TIFF opened by tifffile, which reads every kind of them; all other images by Pillow."""
    with ExitStack() as stack:
        stream = path if isinstance(path, io.BytesIO) else stack.enter_context(open(path, "rb"))
        start = stream.read(12)
        is_tiff = start[:4] in _TIFF
        stream.seek(0)
        if start[4:] in _HEIF:
            _know_heif(path)
        if is_tiff:
            import tifffile  # a quarter of a second

            yield stack.enter_context(tifffile.TiffFile(stream))
        else:
            yield stack.enter_context(Image.open(stream))


def _know_heif(path: PathLike) -> None:
    """Makes Pillow read HEIC. Raises UserError where what that takes is missing."""
    try:
        import pillow_heif
    except ModuleNotFoundError as error:
        raise UserError(f'{path}: is HEIC; install what reads it with pip install "langfuse-jax[cameras]"') from error
    pillow_heif.register_heif_opener()


def _decode(path: PathLike, max_side: int | None, min_side: int = MIN_SIDE) -> _Decoded:
    try:
        with _opened(path) as file:
            if not isinstance(file, ImageFile.ImageFile):
                height, width = tiff_size(file, path)
                check_sides(path, width, height, max_side, min_side)
                found = tiff_pixels(file, path)
                return _Decoded(found.pixels, found.bits, found.nodata)
            width, height = file.size
            check_sides(path, width, height, max_side, min_side)
            truncated = bool(file.tile) and ";16" in str(file.tile[0][3])
            image = ImageOps.exif_transpose(file)
    except UserError:
        raise
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such image file; check the path") from error
    except UnidentifiedImageError as error:
        raise UserError(f"{path}: is not an image that can be read; replace it by a PNG, JPEG or TIFF") from error
    except Image.DecompressionBombError as error:
        raise UserError(f"{path}: has more than {2 * (Image.MAX_IMAGE_PIXELS or 0)} pixels; {_ALLOW}") from error
    except MemoryError:
        raise
    except Exception as error:  # a damaged file makes decoders raise errors of nearly any kind
        raise UserError(f"{path}: cannot be read ({reason(error)}); replace the file by an intact copy") from error
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        pixels = np.asarray(image)
        return _Decoded(pixels, 8 * pixels.dtype.itemsize)
    pixels = np.asarray(image.convert("L" if image.mode in ("1", "L", "LA", "La") else "RGB"))
    return _Decoded(pixels, 8, truncated=truncated)


_ALLOW = "make it smaller, or give `langfuse-jax fuse` the flag --allow-large"


def check_sides(path: PathLike, width: int, height: int, max_side: int | None, min_side: int = MIN_SIDE) -> None:
    """Raises UserError, naming `path`, for sides under `min_side` or over `max_side` pixels.

    >>> check_sides("small.png", 16, 40, None)
    Traceback (most recent call last):
        ...
    langfuse_jax.errors.UserError: small.png: is 16x40 pixels; both sides must be at least 32...
    """
    if min(height, width) < min_side:
        raise UserError(
            f"{path}: is {width}x{height} pixels; both sides must be at least {min_side} (an infrared image with a "
            "larger visible one: --resize visible)"
        )
    if max_side is not None and max(height, width) > max_side:
        raise UserError(f"{path}: is {width}x{height} pixels; sides over {max_side} are refused: {_ALLOW}")


def to_uint8(image: Shaped[np.ndarray, "..."]) -> Shaped[np.ndarray, "..."]:
    """Floats in [0, 1], clipped and rounded to 0-255; uint8 stays as it is.

    >>> to_uint8(np.array([0.0, 0.5, 2.0])).tolist()
    [0, 128, 255]
    """
    return image if image.dtype == np.uint8 else _quantise(image, 255, np.uint8)


def to_uint16(image: Float[np.ndarray, "..."]) -> Shaped[np.ndarray, "..."]:
    """Floats in [0, 1], clipped and rounded to 0-65535.

    >>> to_uint16(np.array([0.0, 0.5, 1.0])).tolist()
    [0, 32768, 65535]
    """
    return _quantise(image, 65535, np.uint16)


def _quantise(image: Shaped[np.ndarray, "..."], top: int, dtype: type) -> Shaped[np.ndarray, "..."]:
    return np.rint(np.clip(image, 0, 1) * top).astype(dtype)


def write_png(path: str | os.PathLike, image: Shaped[np.ndarray, "h w"] | Shaped[np.ndarray, "h w 3"]) -> None:
    """Writes a gray or RGB image, uint8 or floats in [0, 1], as an 8-bit PNG that appears whole or not at all.

    Makes the folder if it is missing; raises UserError, naming the file, where it cannot be written.

    >>> write_png("half.png", np.full((32, 40), 0.5))
    >>> Image.open("half.png").getpixel((0, 0))
    128
    """
    with atomic_write(path) as file:
        Image.fromarray(to_uint8(image)).save(file, format="PNG", compress_level=PNG_LEVEL)
