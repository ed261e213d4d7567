"""Fusing two videos, or two folders of frames, into one video, frame by frame."""

import itertools
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Generic, NoReturn, TypeVar, cast

import numpy as np
from jaxtyping import Float32, UInt8
from tqdm import tqdm

from langfuse_jax.errors import UserError
from langfuse_jax.images.canvas import Size, fit_network
from langfuse_jax.images.files import (
    EXTENSIONS,
    MAX_SIDE,
    Limits,
    check_sides,
    infrared_limits,
    read_infrared,
    read_visible,
    thermal_limits,
    thermal_to_unit,
    to_uint8,
    to_unit,
)
from langfuse_jax.images.pairs import Sources
from langfuse_jax.inference.folders import check_counts
from langfuse_jax.runtime.atomic import atomic_write, check_writable

if TYPE_CHECKING:  # JAX: not before the sources are known to be right
    from langfuse_jax.inference.fuser import Fuser

CONTAINERS = {".mp4": "mp4", ".mov": "mov", ".mkv": "matroska"}
_FPS = 25  # of folders of frames
_CUT = "cut both to one length"
_RATE_FACTOR = "16"  # of x264: no loss that the eye sees

Gray = Float32[np.ndarray, "h w"]
Visible = tuple[Gray, Float32[np.ndarray, "h w 2"] | None]  # luma and chroma
Frame = TypeVar("Frame", Gray, Visible)
Decoded = Iterator[tuple[Any, int]]  # PyAV's frames, and by how many quarter turns counterclockwise they are shown


@dataclass(frozen=True)
class _Source(Generic[Frame]):
    """A video or a folder: frames, decoded when asked for, their rate and number where known, and a video's colours."""

    path: Path
    frames: Iterator[Frame]
    rate: Fraction | None
    length: int | None
    colours: dict[str, int]


def fuse_video(
    visible: str | os.PathLike,
    infrared: str | os.PathLike,
    out: str | os.PathLike,
    *,
    load_fuser: "Callable[[], Fuser] | None" = None,
    fps: str | int | float | None = None,
    gray: bool = False,
    infrared_range: Limits | None = None,
    max_side: int | None = MAX_SIDE,
    batch_size: int | None = None,
) -> int:
    """Fuses two videos, or two folders of frames, into the video `out`; gives the number of its frames.

    The fused video has the rate of its sources, the colours of the visible one, H.264 and no sound.

    Args:
        load_fuser: gives the `Fuser`, and is called once the sources are known to be right; by default the student of
            the package, which keeps up with a camera.
        fps: frames per second of folders, such as "30000/1001"; 25 by default.
        gray: drop the colours.
        infrared_range: raw values of the infrared frames that become black and white. By default those of
            `images.files.read_infrared` for the first frame throughout, since limits that change would flicker.
        max_side: pixels a side over which frames are refused; None for any size.
        batch_size: frames at a time; by default 1 on a CPU, else up to 16.

    Raises:
        UserError: where they cannot be fused or PyAV is missing; then nothing is written.

    Example::

        fuse_video("colour.mp4", "thermal.mp4", "fused.mp4")
    """
    check_counts(batch_size=batch_size)
    out = Path(out)
    if out.suffix.lower() not in CONTAINERS or out.is_dir():
        raise UserError(f"--out {out}: is to be a video; name a file ending in {', '.join(CONTAINERS)}")
    for path in (visible, infrared):
        if out.exists() and out.samefile(path):
            raise UserError(f"--out {out}: is a source; choose another name")
    check_writable(out.parent)
    colour = _source(Path(visible), max_side, partial(_visible_files, max_side), _visible_frames)
    thermal = _source(
        Path(infrared),
        max_side,
        partial(_infrared_files, infrared_range, max_side),
        partial(_infrared_frames, infrared_range),
    )
    rate = _rate(fps, colour, thermal)
    if colour.length and thermal.length and colour.length != thermal.length:
        raise UserError(f"{colour.path} has {colour.length} and {thermal.path} {thermal.length} frames; {_CUT}")
    read = _paired(colour, thermal)
    first = cast(Sources, read(0))  # which raises where there is none
    from langfuse_jax.inference.fuser import Fuser
    from langfuse_jax.inference.stream import fuse_stream

    fuser = (load_fuser or partial(Fuser.load, model="student"))()

    def failed(_: int, error: UserError) -> NoReturn:
        raise error

    height, width = first[0].shape
    canvas = fit_network(fuser.extended_size((height, width)))
    length = colour.length or thermal.length
    with (
        tqdm(total=length, disable=None, unit="frame") as progress,
        _encoder(out, (height, width), rate, colour.colours) as encode,
    ):

        def write(number: int, sources: Sources, fused: Gray) -> None:
            planes = np.full((3, height, width), 128, np.uint8)
            planes[0] = to_uint8(fused)
            if sources[1] is not None and not gray:
                planes[1:] = np.rint(np.moveaxis(sources[1], -1, 0) * 255 + 128).clip(0, 255)
            encode(planes, number)
            progress.update()

        work = fuse_stream(
            fuser,
            itertools.count(),
            lambda number: read(number) if number else first,
            write,
            canvases={canvas: length or 1},
            batch_size=batch_size,
            threads=1,  # so that frames stay in order
            failed=failed,
        )
    return work.images[canvas]


def _pyav() -> ModuleType:
    try:
        import av
    except ModuleNotFoundError as error:
        raise UserError('--video: needs PyAV; install it with pip install "langfuse-jax[video]"') from error
    return av


def _source(
    path: Path,
    max_side: int | None,
    files: Callable[[list[Path]], Iterator[Frame]],
    frames: Callable[[Decoded, Path], Iterator[Frame]],
) -> _Source[Frame]:
    """The frames of a folder, by `files`, or of a video, by `frames`."""
    if path.is_dir():
        names = [p for p in path.iterdir() if p.suffix.lower() in EXTENSIONS and not p.name.startswith(".")]
        if not names:
            raise UserError(f"{path}: has no frames; expected files ending in {' '.join(EXTENSIONS)}")
        # 10.png comes after 9.png.
        names.sort(key=lambda p: [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", p.name)])
        return _Source(path, files(names), None, len(names), {})
    av = _pyav()
    try:
        container = av.open(path)
        if not container.streams.video:
            raise UserError(f"{path}: has no video in it; give a video or a folder of frames")
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        context = stream.codec_context
        check_sides(path, context.width, context.height, max_side)
        colours = {name: getattr(context, name) for name in ("colorspace", "color_primaries", "color_trc")}
    except av.FFmpegError as error:
        raise UserError(f"{path}: cannot be read as a video ({error.strerror}); convert it to MP4") from error
    decoded = _decoded(container, stream, path)
    return _Source(path, frames(decoded, path), stream.average_rate, stream.frames or None, colours)


def _decoded(container: Any, stream: Any, path: Path) -> Decoded:
    try:
        with container:
            for frame in container.decode(stream):
                yield frame, round(frame.rotation / 90)
    except _pyav().FFmpegError as error:
        raise UserError(
            f"{path}: cannot be read to its end ({error.strerror}); replace it by an intact copy"
        ) from error


def _visible_files(max_side: int | None, paths: list[Path]) -> Iterator[Visible]:
    for path in paths:
        yield read_visible(path, max_side)


def _infrared_files(limits: Limits | None, max_side: int | None, paths: list[Path]) -> Iterator[Gray]:
    limits = limits or infrared_limits(paths[0], max_side)
    for path in paths:
        yield read_infrared(path, limits, max_side)


def _visible_frames(decoded: Decoded, path: Path) -> Iterator[Visible]:
    for frame, turns in decoded:
        # As luma and chroma at full range, whatever matrix the video's colours have.
        planes = frame.to_ndarray(format="gray" if _is_gray(frame) else "yuvj444p")
        if planes.ndim == 2:
            yield to_unit(np.rot90(planes, turns), path), None
        else:
            chroma = np.moveaxis(planes[1:], 0, -1).astype(np.float32)
            yield to_unit(np.rot90(planes[0], turns), path), np.rot90((chroma - 128) / 255, turns)


def _infrared_frames(limits: Limits | None, decoded: Decoded, path: Path) -> Iterator[Gray]:
    for frame, turns in decoded:
        deep = _is_gray(frame) and frame.format.components[0].bits > 8
        pixels = np.rot90(frame.to_ndarray(format="gray16le" if deep else "gray"), turns)
        if deep and limits is None:
            limits = thermal_limits(pixels)
        yield to_unit(pixels, path) if limits is None else thermal_to_unit(pixels, limits)


def _is_gray(frame: Any) -> bool:
    return len(frame.format.components) == 1 and frame.format.name != "pal8"


def _rate(asked: str | int | float | None, visible: _Source[Visible], infrared: _Source[Gray]) -> Fraction:
    rates = [source.rate for source in (visible, infrared) if source.rate]
    if not rates:
        try:
            rate = Fraction(asked or _FPS)
        except (ValueError, ZeroDivisionError):
            rate = Fraction(0)
        if not 0 < rate <= 1000:
            raise UserError(f"--fps {asked}: give frames per second, such as 25 or 30000/1001")
        return rate.limit_denominator(100000)
    if asked:
        raise UserError(f"--fps {asked}: is for folders of frames; a video has its own rate, leave it out")
    if abs(rates[0] - rates[-1]) > rates[0] / 1000:
        raise UserError(
            f"{visible.path} has {float(rates[0]):.3f} and {infrared.path} {float(rates[1]):.3f} frames per second: "
            "they must be of one rate; convert one of them"
        )
    return rates[0]


def _paired(visible: _Source[Visible], infrared: _Source[Gray]) -> Callable[[int], Sources | None]:
    """A function of the frame's number that reads the next of both: (luma, chroma, infrared), or None at the end."""
    size: Size | None = None

    def read(number: int) -> Sources | None:
        nonlocal size
        colour, thermal = next(visible.frames, None), next(infrared.frames, None)
        if colour is None and thermal is None and number:
            return None
        if colour is None or thermal is None:
            ended = visible.path if colour is None else infrared.path
            raise UserError(f"{ended}: ends after {number} frames, the other one does not; {_CUT}")
        luma, chroma = colour
        size = size or luma.shape
        for path, image in ((visible.path, luma), (infrared.path, thermal)):
            if image.shape != size:
                raise UserError(
                    f"{path}: its frame {number} is {image.shape[1]}x{image.shape[0]} pixels where {size[1]}x"
                    f"{size[0]} are expected: all frames must be of one size; register and crop or resize them"
                )
        return luma, chroma, thermal

    return read


@contextmanager
def _encoder(
    path: Path, size: Size, rate: Fraction, colours: dict[str, int]
) -> Iterator[Callable[[UInt8[np.ndarray, "3 h w"], int], None]]:
    """A function that encodes planes Y, Cb, Cr (full range) as frame `number`; the file appears when all is done."""
    av = _pyav()
    height, width = size
    with atomic_write(path) as file:
        container = av.open(file, "w", format=CONTAINERS[path.suffix.lower()])
        try:
            stream = container.add_stream("libx264", rate=rate, options={"crf": _RATE_FACTOR})
            stream.width, stream.height = width, height
            stream.pix_fmt = "yuv420p" if width % 2 == height % 2 == 0 else "yuv444p"  # 420 halves the sides
            for name, value in colours.items():
                setattr(stream.codec_context, name, value)

            def encode(planes: UInt8[np.ndarray, "3 h w"], number: int) -> None:
                frame = av.VideoFrame.from_ndarray(planes, format="yuvj444p")
                frame.pts, frame.time_base = number, 1 / rate
                container.mux(stream.encode(frame))

            yield encode
            container.mux(stream.encode())
            container.close()
        except av.FFmpegError as error:
            raise UserError(f"{path}: cannot be encoded ({error.strerror})") from error
        finally:
            with suppress(Exception):
                container.close()
