"""Fusing two videos, or two folders of frames, into one video, frame by frame."""

import itertools
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8
from tqdm import tqdm

from langfuse_jax.errors import UserError
from langfuse_jax.images.canvas import fit_network
from langfuse_jax.images.files import (
    EXTENSIONS,
    check_sides,
    infrared_limits,
    read_infrared,
    read_visible,
    thermal_limits,
    thermal_to_unit,
    to_uint8,
    to_unit,
)
from langfuse_jax.runtime.atomic import atomic_write, check_writable

CONTAINERS = {".mp4": "mp4", ".mov": "mov", ".mkv": "matroska"}
_FPS = 25  # of folders of frames
_CUT = "cut both to one length"
_RATE_FACTOR = "16"  # of x264: no loss that the eye sees


class Source(NamedTuple):
    """A video or a folder: frames, decoded when asked for, their rate and number where known, and a video's colours."""

    path: Path
    frames: Iterator
    rate: Fraction | None
    count: int | None  # type: ignore[assignment]  # hides the method of tuples
    colours: dict


def fuse_video(args, load_fuser) -> int:
    """Fuses two videos by the flags of the command. Raises UserError where they cannot be; then nothing is written.

    The fused video has the rate of its sources, the colours of the visible one (unless --gray), H.264 and no sound. Raw
    thermal counts are mapped as `images.read_infrared` has it, but by the limits of the first frame throughout, since
    limits that change would flicker.
    """
    out = Path(args.out)
    _check_flags(args, out)
    visible = _source(args.visible, args, _visible_files, _visible_frames)
    infrared = _source(args.infrared, args, _infrared_files, _infrared_frames)
    rate = _rate(args.fps, visible, infrared)
    counts = [source.count for source in (visible, infrared)]
    if None not in counts and counts[0] != counts[1]:
        raise UserError(f"{visible.path} has {counts[0]} and {infrared.path} {counts[1]} frames; {_CUT}")
    read = _paired(visible, infrared)
    first = read(0)
    fuser = load_fuser()
    from langfuse_jax.inference.stream import fuse_stream  # imports JAX

    def failed(_, error):
        raise error

    height, width = first[0].shape
    canvas = fit_network(fuser.extended_size((height, width)))
    count = counts[0] or counts[1]
    with (
        tqdm(total=count, disable=None, unit="frame") as progress,
        _encoder(out, (height, width), rate, visible.colours) as encode,
    ):

        def write(number, sources, fused):
            planes = np.full((3, height, width), 128, np.uint8)
            planes[0] = to_uint8(fused)
            if sources[1] is not None and not args.gray:
                planes[1:] = np.rint(np.moveaxis(sources[1], -1, 0) * 255 + 128).clip(0, 255)
            encode(planes, number)
            progress.update()

        work = fuse_stream(
            fuser,
            itertools.count(),
            lambda number: read(number) if number else first,
            write,
            canvases={canvas: count or 1},
            batch_size=args.batch_size,
            threads=1,  # so that frames stay in order
            failed=failed,
        )
    print(f"fused {work.images[canvas]} frames into {out}")
    return 0


def _pyav():
    try:
        import av
    except ModuleNotFoundError as error:
        raise UserError('--video: needs PyAV; install it with pip install "langfuse-jax[video]"') from error
    return av


def _check_flags(args, out):
    if out.suffix.lower() not in CONTAINERS or out.is_dir():
        raise UserError(f"--out {out}: is to be a video; name a file ending in {', '.join(CONTAINERS)}")
    flags = {"--sheet": args.sheet, "--format": args.format, "--bits 16": args.bits == 16}
    for flag, given in {**flags, "--distributed": args.distributed}.items():
        if given:
            raise UserError(f"{flag}: is for images; leave it out with --video")
    for path in (args.visible, args.infrared):
        if out.exists() and out.samefile(path):
            raise UserError(f"--out {out}: is a source; choose another name")
    check_writable(out.parent)


def _source(path, args, files, frames):
    """The frames of a folder, by `files`, or of a video, by `frames`."""
    path = Path(path)
    if path.is_dir():
        names = [p for p in path.iterdir() if p.suffix.lower() in EXTENSIONS and not p.name.startswith(".")]
        if not names:
            raise UserError(f"{path}: has no frames; expected files ending in {' '.join(EXTENSIONS)}")
        # 10.png comes after 9.png.
        names.sort(key=lambda p: [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", p.name)])
        return Source(path, files(names, args), None, len(names), {})
    av = _pyav()
    try:
        container = av.open(path)
        if not container.streams.video:
            raise UserError(f"{path}: has no video in it; give a video or a folder of frames")
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        context = stream.codec_context
        check_sides(path, context.width, context.height, args.max_side)
        colours = {name: getattr(context, name) for name in ("colorspace", "color_primaries", "color_trc")}
    except av.FFmpegError as error:
        raise UserError(f"{path}: cannot be read as a video ({error.strerror}); convert it to MP4") from error
    decoded = _decoded(container, stream, path)
    return Source(path, frames(decoded, path, args), stream.average_rate, stream.frames or None, colours)


def _decoded(container, stream, path):
    """(frame, quarter turns by which it is to be shown turned counterclockwise)."""
    try:
        with container:
            for frame in container.decode(stream):
                yield frame, round(frame.rotation / 90)
    except _pyav().FFmpegError as error:
        raise UserError(
            f"{path}: cannot be read to its end ({error.strerror}); replace it by an intact copy"
        ) from error


def _visible_files(paths, args):
    for path in paths:
        yield read_visible(path, args.max_side)


def _infrared_files(paths, args):
    limits = args.infrared_range or infrared_limits(paths[0], args.max_side)
    for path in paths:
        yield read_infrared(path, limits, args.max_side)


def _visible_frames(decoded, path, args):
    for frame, turns in decoded:
        # As luma and chroma at full range, whatever matrix the video's colours have.
        planes = frame.to_ndarray(format="gray" if _is_gray(frame) else "yuvj444p")
        if planes.ndim == 2:
            yield to_unit(np.rot90(planes, turns), path), None
        else:
            chroma = np.moveaxis(planes[1:], 0, -1).astype(np.float32)
            yield to_unit(np.rot90(planes[0], turns), path), np.rot90((chroma - 128) / 255, turns)


def _infrared_frames(decoded, path, args):
    limits = args.infrared_range
    for frame, turns in decoded:
        deep = _is_gray(frame) and frame.format.components[0].bits > 8
        pixels = np.rot90(frame.to_ndarray(format="gray16le" if deep else "gray"), turns)
        if deep and limits is None:
            limits = thermal_limits(pixels)
        yield to_unit(pixels, path) if limits is None else thermal_to_unit(pixels, limits)


def _is_gray(frame):
    return len(frame.format.components) == 1 and frame.format.name != "pal8"


def _rate(asked, visible, infrared):
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


def _paired(visible, infrared):
    """A function of the frame's number that reads the next of both: (luma, chroma, infrared), or None at the end."""
    size = None

    def read(number):
        nonlocal size
        pair: list[Any] = [next(source.frames, None) for source in (visible, infrared)]
        ended = [source for source, frame in zip((visible, infrared), pair, strict=True) if frame is None]
        if len(ended) == 2 and number:
            return None
        if ended:
            raise UserError(f"{ended[0].path}: ends after {number} frames, the other one does not; {_CUT}")
        (luma, chroma), heat = pair
        size = size or luma.shape
        for source, image in ((visible, luma), (infrared, heat)):
            if image.shape != size:
                raise UserError(
                    f"{source.path}: its frame {number} is {image.shape[1]}x{image.shape[0]} pixels where {size[1]}x"
                    f"{size[0]} are expected: all frames must be of one size; register and crop or resize them"
                )
        return luma, chroma, heat

    return read


@contextmanager
def _encoder(path, size, rate, colours):
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

            def encode(planes: UInt8[np.ndarray, "3 h w"], number):
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
