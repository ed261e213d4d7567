"""Image files and arrays: read as floats in [0, 1], split luma from chroma, write PNGs."""

import io
import os
import warnings
from functools import partial
from typing import BinaryIO, cast

import numpy as np
from jaxtyping import Float, Float32, Shaped
from PIL import ExifTags, Image, ImageFile, ImageOps, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile

from langfuse_jax.errors import BadPixels, UserError
from langfuse_jax.runtime.atomic import atomic_write

EXTENSIONS = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
MIN_SIDE = 32  # the fusion network's smallest height and width
MAX_SIDE = 8192  # larger images need gigabytes for every layer: refused unless asked for
PNG_LEVEL = 4  # of zlib: against its usual 6, files 8% larger in 40% of the time
PERCENTILES = (0.5, 99.5)  # of a 16-bit infrared image: what is shown as 0 and as 1

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

    Without `limits`, they are the 0.5 and 99.5 percentiles of the image (its extremes where those two are equal), since
    a camera uses a small part of its 16 bits. An image of one value is 0 throughout.

    >>> thermal_to_unit(np.array([[6900, 7250, 8000]], np.uint16), limits=(7000, 8000)).tolist()
    [[0.0, 0.25, 1.0]]
    """
    low, high = thermal_limits(counts) if limits is None else limits
    span = max(high - low, np.finfo(np.float32).tiny)
    return np.clip((counts.astype(np.float32) - np.float32(low)) / np.float32(span), 0, 1)


def thermal_limits(counts: Shaped[np.ndarray, "h w"]) -> Limits:
    """What `thermal_to_unit` takes for 0 and 1 in an image.

    >>> thermal_limits(np.arange(1001, dtype=np.uint16)[None])
    (5.0, 995.0)
    """
    low, high = np.percentile(counts, PERCENTILES)
    return (float(low), float(high)) if low < high else (float(counts.min()), float(counts.max()))


def read_infrared(
    path: PathLike, limits: Limits | None = None, max_side: int | None = MAX_SIDE
) -> Float32[np.ndarray, "h w"]:
    """An infrared image file as gray in [0, 1]; one stored in colour gives its luma.

    8 bits count as /255, 16 bits as `thermal_to_unit` has them, float TIFFs are in [0, 1]. With `limits`, every
    file is mapped by these raw values instead, whatever its type. Raises as `read_visible`, and for colour of 16 bits.

    >>> Image.fromarray(np.linspace(7000, 8000, 1200).astype(np.uint16).reshape(30, 40).repeat(2, 0)).save("counts.png")
    >>> infrared = read_infrared("counts.png", limits=(7000, 8000))
    >>> infrared.shape, infrared.min().round(3).item(), infrared.max().round(3).item()
    ((60, 40), 0.0, 1.0)
    """
    pixels, truncated = _decode(path, max_side)
    if truncated:  # the scene is in the low bits
        raise UserError(f"{path}: is infrared of 16 bits in colour; save it as gray of 16 bits")
    if limits is None and pixels.dtype.itemsize != 2:
        image = to_unit(pixels, path)
        return image if image.ndim == 2 else rgb_to_ycbcr(image)[0]
    if pixels.ndim == 3:
        pixels = pixels @ LUMA
    if not np.isfinite(pixels).all():
        raise BadPixels(f"{path}: has values that are not finite; replace NaN and infinity first")
    return thermal_to_unit(pixels, limits)


def infrared_limits(path: PathLike, max_side: int | None = MAX_SIDE) -> Limits | None:
    """The limits that `read_infrared` takes for a file of 16 bits; None for others.

    >>> Image.new("L", (40, 32)).save("gray.png")
    >>> infrared_limits("gray.png") is None
    True
    """
    pixels = _decode(path, max_side)[0]
    return thermal_limits(pixels) if pixels.dtype.itemsize == 2 else None


def read_visible(
    path: PathLike, max_side: int | None = MAX_SIDE
) -> tuple[Float32[np.ndarray, "h w"], Float32[np.ndarray, "h w 2"] | None]:
    """A visible image file as luma in [0, 1] and chroma (`rgb_to_ycbcr`), or None for the chroma of a gray image.

    8 bits count as /255 and 16 bits as /65535 (float TIFFs are in [0, 1]); alpha is dropped, palettes are looked up
    and the EXIF orientation is applied. Raises UserError, naming the file, when it is missing, damaged, no image, or
    has a side under 32 or over `max_side` pixels (None: any size), which is checked before it is decoded.

    >>> write_png("red.png", np.broadcast_to([1.0, 0.0, 0.0], (32, 40, 3)))
    >>> luma, chroma = read_visible("red.png")
    >>> round(luma[0, 0].item(), 3), chroma.shape
    (0.299, (32, 40, 2))
    """
    pixels = to_unit(_decode(path, max_side)[0], path)
    return (pixels, None) if pixels.ndim == 2 else rgb_to_ycbcr(pixels)


def header_size(path: PathLike) -> tuple[int, int] | None:
    """(height, width) that the readers will give, without decoding the pixels; None where it cannot be had.

    >>> write_png("gray.png", np.zeros((32, 40)))
    >>> header_size("gray.png")
    (32, 40)
    """
    try:
        with Image.open(path) as file:
            width, height = _stored_size(file)
            turned = _orientation(file) in (5, 6, 7, 8)
    except Exception:  # whatever is wrong is said when the file is read
        return None
    return (width, height) if turned else (height, width)


def _stored_size(file: ImageFile.ImageFile) -> tuple[int, int]:
    """Width and height of the pixels in the file, before they are turned."""
    # Of a TIFF, Pillow's newer versions show the size that turning will give, older ones do not.
    return (file.tag_v2[256], file.tag_v2[257]) if isinstance(file, TiffImageFile) else file.size


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


def _decode(
    path: PathLike, max_side: int | None
) -> tuple[Shaped[np.ndarray, "h w"] | Shaped[np.ndarray, "h w 3"], bool]:
    """Pixels of a file, (h, w) or (h, w, 3), in uint8, uint16 or float32; and whether Pillow cut 16 bits to 8."""
    try:
        with Image.open(path) as file:
            width, height = file.size
            check_sides(path, width, height, max_side)
            if isinstance(file, TiffImageFile):
                file.filename = ""  # by its name Pillow maps the file into memory, with the sides of the turned image
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
    except Exception as error:  # a damaged file makes Pillow's decoders raise errors of nearly any kind
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{path}: cannot be read ({reason}); replace the file by an intact copy") from error
    if image.mode == "I":
        pixels = np.asarray(image)
        if pixels.min() < 0 or pixels.max() > 65535:
            raise BadPixels(f"{path}: holds integers beyond 16 bits; save it with 8 or 16 bits per pixel")
        return pixels.astype(np.uint16), False
    if image.mode == "F" or image.mode.startswith("I;16"):
        return np.asarray(image), False
    return np.asarray(image.convert("L" if image.mode in ("1", "L", "LA", "La") else "RGB")), truncated


_ALLOW = "make it smaller, or give `langfuse-jax fuse` the flag --allow-large"


def check_sides(path: PathLike, width: int, height: int, max_side: int | None) -> None:
    """Raises UserError, naming `path`, for sides under 32 or over `max_side` pixels.

    >>> check_sides("small.png", 16, 40, None)
    Traceback (most recent call last):
        ...
    langfuse_jax.errors.UserError: small.png: is 16x40 pixels; both sides must be at least 32
    """
    if min(height, width) < MIN_SIDE:
        raise UserError(f"{path}: is {width}x{height} pixels; both sides must be at least {MIN_SIDE}")
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
