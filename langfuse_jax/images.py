"""Image files and arrays: read as floats in [0, 1], split luma from chroma, write PNGs."""

import os
import warnings

import numpy as np
from jaxtyping import Float, Float32, Shaped
from PIL import Image, ImageOps, UnidentifiedImageError

from langfuse_jax.atomic import atomic_write
from langfuse_jax.errors import UserError

EXTENSIONS = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
MIN_SIDE = 32  # the fusion network's smallest height and width

PathLike = str | os.PathLike

# Pillow warns of damage in lines of its own before it raises; the error says it once.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")


def rgb_to_ycbcr(
    rgb: Float[np.ndarray, "*batch h w 3"],
) -> tuple[Float[np.ndarray, "*batch h w"], Float[np.ndarray, "*batch h w 2"]]:
    """Luma Y in [0, 1] and chroma (Cb, Cr) in [-0.5, 0.5] of RGB in [0, 1]: ITU-R BT.601 at full range, as in JPEG."""
    red, blue = rgb[..., 0], rgb[..., 2]
    luma = rgb @ np.array([0.299, 0.587, 0.114], rgb.dtype)
    return luma, np.stack([(blue - luma) / 1.772, (red - luma) / 1.402], axis=-1)


def ycbcr_to_rgb(
    luma: Float[np.ndarray, "*batch h w"], chroma: Float[np.ndarray, "*batch h w 2"]
) -> Float[np.ndarray, "*batch h w 3"]:
    """The inverse of `rgb_to_ycbcr`, clipped to [0, 1]: another luma may leave the RGB cube with the old chroma."""
    red = luma + 1.402 * chroma[..., 1]
    blue = luma + 1.772 * chroma[..., 0]
    green = (luma - 0.299 * red - 0.114 * blue) / 0.587
    return np.clip(np.stack([red, green, blue], axis=-1), 0, 1)


def to_unit(pixels: Shaped[np.ndarray, "..."], name: PathLike) -> Float32[np.ndarray, "..."]:
    """uint8 / 255, uint16 / 65535, or floats in [0, 1] as they are: always float32 in [0, 1].

    Raises UserError, naming `name`, for other types and for values that are not finite or outside [0, 1].
    """
    kind = pixels.dtype.newbyteorder("=")
    if kind in (np.uint8, np.uint16):
        return pixels.astype(np.float32) / np.float32(np.iinfo(kind).max)
    # ml_dtypes' bfloat16 is no numpy.floating, and its kind is V.
    if kind.kind != "f" and kind.name != "bfloat16":
        raise UserError(f"{name}: pixels are {kind}; give uint8, uint16 or floats in [0, 1]")
    values = pixels.astype(np.float32)
    if not np.isfinite(values).all():
        raise UserError(f"{name}: has values that are not finite; replace NaN and infinity first")
    # Rounding in somebody's own conversion may pass the bounds by a little.
    if values.size and (values.min() < -1e-5 or values.max() > 1 + 1e-5):
        low, high = values.min(), values.max()
        raise UserError(f"{name}: floats run from {low:.4g} to {high:.4g}; scale them to [0, 1]")
    return np.clip(values, 0, 1)


def read_infrared(path: PathLike) -> Float32[np.ndarray, "h w"]:
    """An infrared image file as gray in [0, 1]; one stored in colour gives its luma. Raises as `read_visible`."""
    return read_visible(path)[0]


def read_visible(path: PathLike) -> tuple[Float32[np.ndarray, "h w"], Float32[np.ndarray, "h w 2"] | None]:
    """A visible image file as luma in [0, 1] and chroma (`rgb_to_ycbcr`), or None for the chroma of a gray image.

    8 bits count as /255 and 16 bits as /65535 (float TIFFs are in [0, 1]); alpha is dropped, palettes are looked up
    and the EXIF orientation is applied. Raises UserError, naming the file, when it is missing, damaged, no image, or
    has a side under 32 pixels.
    """
    pixels = to_unit(_decode(path), path)
    height, width = pixels.shape[:2]
    if min(height, width) < MIN_SIDE:
        raise UserError(f"{path}: is {width}x{height} pixels; both sides must be at least {MIN_SIDE}")
    return (pixels, None) if pixels.ndim == 2 else rgb_to_ycbcr(pixels)


def _decode(path):
    """Pixels of a file, (h, w) or (h, w, 3), in uint8, uint16 or float32."""
    try:
        with Image.open(path) as file:
            image = ImageOps.exif_transpose(file)
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such image file; check the path") from error
    except UnidentifiedImageError as error:
        raise UserError(f"{path}: is not an image that can be read; replace it by a PNG, JPEG or TIFF") from error
    except Exception as error:  # a damaged file makes Pillow's decoders raise errors of nearly any kind
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{path}: cannot be read ({reason}); replace the file by an intact copy") from error
    if image.mode == "I":
        pixels = np.asarray(image)
        if pixels.min() < 0 or pixels.max() > 65535:
            raise UserError(f"{path}: holds integers beyond 16 bits; save it with 8 or 16 bits per pixel")
        return pixels.astype(np.uint16)
    if image.mode == "F" or image.mode.startswith("I;16"):
        return np.asarray(image)
    return np.asarray(image.convert("L" if image.mode in ("1", "L", "LA", "La") else "RGB"))


def to_uint8(image: Shaped[np.ndarray, "..."]) -> Shaped[np.ndarray, "..."]:
    """Floats in [0, 1], clipped and rounded to 0-255; uint8 stays as it is."""
    if image.dtype == np.uint8:
        return image
    return np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)


def write_png(path: PathLike, image: Shaped[np.ndarray, "h w"] | Shaped[np.ndarray, "h w 3"]) -> None:
    """Writes a gray or RGB image, uint8 or floats in [0, 1], as an 8-bit PNG that appears whole or not at all.

    Makes the folder if it is missing; raises UserError, naming the file, where it cannot be written.
    """
    with atomic_write(path) as file:
        Image.fromarray(to_uint8(image)).save(file, format="PNG")
