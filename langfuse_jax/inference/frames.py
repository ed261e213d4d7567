"""Frames to fuse, read when they are asked for: of videos, folders, FLIR sequences and multi-page TIFFs."""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, Generic, TypeVar

import numpy as np
from jaxtyping import Float32, Shaped

from langfuse_jax.errors import UserError, reason
from langfuse_jax.images import flir
from langfuse_jax.images.files import (
    LUMA,
    MIN_SIDE,
    Limits,
    check_sides,
    infrared_limits,
    known_values,
    limits_of_frames,
    read_infrared,
    read_visible,
    rgb_to_ycbcr,
    thermal_limits,
    thermal_to_unit,
    to_unit,
    visible_to_unit,
    without_colour,
)
from langfuse_jax.images.palettes import colourful, levels_in
from langfuse_jax.images.reading import Reading
from langfuse_jax.images.remarks import Remarks
from langfuse_jax.images.tiff import TiffPixels, own_pages, page_pixels

_LOOKED_AT = 25  # first frames, for the limits of all
_CLOSED = 250  # first frames that may be of one value throughout
_SEQUENCES = (".seq", ".csq", ".fff")  # of FLIR
_TIFF = (".tif", ".tiff")

Gray = Float32[np.ndarray, "h w"]
Visible = tuple[Gray, Float32[np.ndarray, "h w 2"] | None]  # luma and chroma
Frame = TypeVar("Frame", Gray, Visible)
Decoded = Iterator[tuple[Fraction | None, Any, int]]  # when, PyAV's frame, its quarter turns counterclockwise


@dataclass(frozen=True)
class Source(Generic[Frame]):
    """A source of frames.

    Attributes:
        path: of the video, the folder or the file of several frames.
        frames: (seconds from the first one, frame), in order; no time where the source has none.
        rate: frames per second, where the source says.
        length: the number of frames, where it is known before they are read.
        colours: PyAV's colour tags, of a video.
        sound: whether the video has any.
        even: whether its frames are evenly spaced, by what the video says of itself.
    """

    path: Path
    frames: Iterator[tuple[Fraction | None, Frame]]
    rate: Fraction | None = None
    length: int | None = None
    colours: dict[str, int] = field(default_factory=dict)
    sound: bool = False
    even: bool = True


def open_visible(path: Path, files: list[Path], reading: Reading) -> Source[Visible]:
    """The visible frames of a video, a multi-page TIFF, or the `files` of a folder. Raises UserError, naming it."""
    if path.is_dir():
        return Source(path, ((None, read_visible(file, reading.max_side)) for file in files), length=len(files))
    if path.suffix.lower() in _TIFF:
        length, pages = _tiff_pages(path, reading.max_side)
        return Source(path, ((None, _visible_page(page.pixels, path)) for page in pages), length=length)
    return _open_video(path, reading.max_side, MIN_SIDE, _visible_frames)


def open_infrared(path: Path, files: list[Path], reading: Reading) -> Source[Gray]:
    """The infrared frames of a video, a FLIR sequence, a multi-page TIFF, or the `files` of a folder, in [0, 1].

    Without `reading.limits`, all frames of counts have those of one of the first (`images.files.limits_of_frames`).
    Raises UserError, naming the file.
    """
    if path.is_dir():
        return Source(path, _infrared_files(files, reading), length=len(files))
    if path.suffix.lower() in _SEQUENCES:
        content = path.read_bytes()
        if not flir.is_flir(content):
            raise UserError(f"{path}: is no FLIR sequence that can be read; export it as a video or as frames")
        counts: Iterator[Shaped[np.ndarray, "h w"]] = _flir_frames(content, path, reading)
        shown = _with_limits(counts, reading.limits, path)
        return Source(path, ((None, image) for image in shown), length=flir.count_frames(content))
    if path.suffix.lower() in _TIFF:
        length, pages = _tiff_pages(path, reading.max_side, reading.min_infrared_side)
        shown = _with_limits(_gray_pages(pages, path, reading.remarks), reading.limits, path)
        return Source(path, ((None, image) for image in shown), length=length)
    return _open_video(path, reading.max_side, reading.min_infrared_side, partial(_infrared_frames, reading))


def pyav() -> ModuleType:
    """PyAV. Raises UserError where it is missing."""
    try:
        import av
    except ModuleNotFoundError as error:
        raise UserError('--video: needs PyAV; install it with pip install "langfuse-jax[video]"') from error
    return av


def _open_video(
    path: Path,
    max_side: int | None,
    min_side: int,
    frames: Callable[[Decoded, Path], Iterator[tuple[Fraction | None, Frame]]],
) -> Source[Frame]:
    av = pyav()
    try:
        container = av.open(path)
        if not container.streams.video:
            raise UserError(f"{path}: has no video in it; give a video or a folder of frames")
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        context = stream.codec_context
        check_sides(path, context.width, context.height, max_side, min_side)
        colours = {name: getattr(context, name) for name in ("colorspace", "color_primaries", "color_trc")}
    except av.FFmpegError as error:
        raise UserError(f"{path}: cannot be read as a video ({error.strerror}); convert it to MP4") from error
    decoded = _decoded(container, stream, path)
    length, sound = stream.frames or None, bool(container.streams.audio)
    rate, nominal = stream.average_rate, stream.guessed_rate
    even = not rate or not nominal or abs(rate - nominal) <= rate / 1000
    return Source(path, frames(decoded, path), rate, length, colours, sound, even)


def _decoded(container: Any, stream: Any, path: Path) -> Decoded:
    first = None
    try:
        with container:
            for frame in container.decode(stream):
                time = None if frame.pts is None else frame.pts * frame.time_base
                first = time if first is None else first
                yield None if time is None or first is None else time - first, frame, round(frame.rotation / 90)
    except pyav().FFmpegError as error:
        raise UserError(
            f"{path}: cannot be read to its end ({error.strerror}); replace it by an intact copy"
        ) from error


def _visible_frames(decoded: Decoded, path: Path) -> Iterator[tuple[Fraction | None, Visible]]:
    for time, frame, turns in decoded:
        # As luma and chroma at full range, whatever matrix the video's colours have.
        planes = frame.to_ndarray(format="gray" if _is_gray(frame) else "yuvj444p")
        if planes.ndim == 2:
            yield time, (to_unit(np.rot90(planes, turns), path), None)
        else:
            chroma = np.moveaxis(planes[1:], 0, -1).astype(np.float32)
            yield time, (to_unit(np.rot90(planes[0], turns), path), np.rot90((chroma - 128) / 255, turns))


def _infrared_frames(reading: Reading, decoded: Decoded, path: Path) -> Iterator[tuple[Fraction | None, Gray]]:
    times: list[Fraction | None] = []
    coloured = False

    def pixels() -> Iterator[Shaped[np.ndarray, "..."]]:
        nonlocal coloured
        for number, (time, frame, turns) in enumerate(decoded):
            times.append(time)
            deep = _is_gray(frame) and frame.format.components[0].bits > 8
            if not coloured and not _is_gray(frame) and number < _CLOSED:  # the first frames may be black
                coloured = colourful(frame.to_ndarray(format="rgb24"))
            kind = "gray16le" if deep else "rgb24" if coloured else "gray"
            yield np.rot90(frame.to_ndarray(format=kind), turns)

    for number, image in enumerate(_with_limits(_gray_frames(pixels(), path, reading.remarks), reading.limits, path)):
        yield times[number], image


def _is_gray(frame: Any) -> bool:
    return len(frame.format.components) == 1 and frame.format.name != "pal8"


def _infrared_files(files: list[Path], reading: Reading) -> Iterator[tuple[None, Gray]]:
    limits = reading.limits
    if limits is None:
        found = [
            infrared_limits(path, reading.max_side, min_side=reading.min_infrared_side) for path in files[:_LOOKED_AT]
        ]
        counts = [one for one in found if one is not None]
        limits = limits_of_frames(counts) if counts else None
    for path in files:
        yield (
            None,
            read_infrared(
                path,
                limits,
                reading.max_side,
                found=reading.limits is None,
                min_side=reading.min_infrared_side,
                remarks=reading.remarks,
            ),
        )


def _with_limits(
    frames: Iterator[Shaped[np.ndarray, "h w"]], limits: Limits | None, path: Path
) -> Iterator[Float32[np.ndarray, "h w"]]:
    """Raw frames in [0, 1]: 8 bits as they are, counts by `limits` or those of one of the first frames."""
    first = list(itertools.islice(frames, _LOOKED_AT)) if limits is None else []
    if counts := [thermal_limits(pixels) for pixels in first if pixels.dtype != np.uint8]:
        while counts[-1][0] == counts[-1][1] and len(first) < _CLOSED and (pixels := next(frames, None)) is not None:
            first.append(pixels)
            counts.append(thermal_limits(pixels))
        limits = limits_of_frames(counts)
    for pixels in itertools.chain(first, frames):
        yield to_unit(pixels, path) if limits is None else thermal_to_unit(pixels, limits)


def _flir_frames(content: bytes, path: Path, reading: Reading) -> Iterator[Shaped[np.ndarray, "h w"]]:
    frames = flir.read_frames(content)
    for number in itertools.count():
        try:
            frame = next(frames)
        except StopIteration:
            return
        except Exception as error:  # damaged frames make decoders raise errors of many kinds
            raise UserError(
                f"{path}: its frame {number} cannot be read ({reason(error)}); export it as frames"
            ) from error
        check_sides(path, frame.counts.shape[1], frame.counts.shape[0], reading.max_side, reading.min_infrared_side)
        yield frame.counts


def _tiff_pages(path: Path, max_side: int | None, min_side: int = MIN_SIDE) -> tuple[int, Iterator[TiffPixels]]:
    """The number of images in a TIFF, and each as `images.tiff` gives it."""
    import tifffile

    try:
        with tifffile.TiffFile(path) as file:
            count = len(own_pages(file))
    except Exception as error:  # a damaged file makes it raise errors of many kinds
        raise UserError(f"{path}: cannot be read as a TIFF ({reason(error)}); replace it by an intact copy") from error

    def pages() -> Iterator[TiffPixels]:
        with tifffile.TiffFile(path) as file:
            for number, page in enumerate(own_pages(file)):
                try:
                    found = page_pixels(page, path)
                except UserError:
                    raise
                except Exception as error:
                    raise UserError(
                        f"{path}: its page {number} cannot be read ({reason(error)}); replace it by an intact copy"
                    ) from error
                check_sides(path, found.pixels.shape[1], found.pixels.shape[0], max_side, min_side)
                yield found

    return count, pages()


def _visible_page(pixels: Shaped[np.ndarray, "..."], path: Path) -> Visible:
    unit = visible_to_unit(pixels, path)
    return (unit, None) if unit.ndim == 2 else rgb_to_ycbcr(unit)


def _gray_pages(
    pages: Iterator[TiffPixels], path: Path, remarks: Remarks | None
) -> Iterator[Shaped[np.ndarray, "h w"]]:
    def checked() -> Iterator[Shaped[np.ndarray, "..."]]:
        for pixels, _, nodata in pages:
            if pixels.dtype != np.uint8 and (pixels.ndim != 2 or pixels.dtype.kind not in "uif"):
                raise UserError(f"{path}: has pages of {pixels.dtype} in {pixels.ndim} dimensions; save them as gray")
            yield known_values(path, pixels, nodata, remarks) if pixels.ndim == 2 else pixels

    return _gray_frames(checked(), path, remarks)


def _gray_frames(
    frames: Iterator[Shaped[np.ndarray, "..."]], path: Path, remarks: Remarks | None
) -> Iterator[Shaped[np.ndarray, "h w"]]:
    """Frames of infrared in gray: those in colour by the palette of the first of them, else by their luma."""
    name, decided = None, False
    for pixels in frames:
        if pixels.ndim == 2:
            yield pixels
        elif name is not None:
            yield levels_in(pixels, name)
        elif decided:
            yield np.rint(pixels @ LUMA).astype(np.uint8)
        else:
            gray, name = without_colour(path, pixels, remarks)
            decided = colourful(pixels)
            yield gray
