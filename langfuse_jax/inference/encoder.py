"""Writing a fused video: frames by their times, and the sound of the visible video beside them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8

from langfuse_jax.errors import InputRemark, UserError, print_warning
from langfuse_jax.images.canvas import Size
from langfuse_jax.inference.frames import pyav
from langfuse_jax.runtime.atomic import atomic_write

CONTAINERS = {".mp4": "mp4", ".mov": "mov", ".mkv": "matroska"}
CODECS = {"h264": "libx264", "hevc": "libx265", "ffv1": "ffv1"}
CRF = 16  # of h264 and hevc: no loss that the eye sees
_TICKS = 90000  # a second


class Encoding(NamedTuple):
    """How a video is written: one of CODECS, and the rate factor of those that lose (lower is better)."""

    codec: str = "h264"
    crf: int | None = None


def check_encoding(path: Path, encoding: Encoding) -> None:
    """Raises UserError for endings, codecs and rate factors that do not go together."""
    if path.suffix.lower() not in CONTAINERS or path.is_dir():
        raise UserError(f"--out {path}: must be a video file ending in {', '.join(CONTAINERS)}")
    if encoding.codec not in CODECS:
        raise UserError(f"--codec {encoding.codec}: is none of {', '.join(CODECS)}")
    if encoding.codec == "ffv1":
        if path.suffix.lower() != ".mkv":
            raise UserError(f"--codec ffv1: is for .mkv; name --out {path.stem}.mkv")
        if encoding.crf is not None:
            raise UserError(f"--crf {encoding.crf}: is for h264 and hevc, ffv1 loses nothing; leave it out")
    elif encoding.crf is not None and not 0 <= encoding.crf <= 51:
        raise UserError(f"--crf {encoding.crf}: give 0 (no loss) to 51")


@contextmanager
def encoder(
    path: Path,
    size: Size,
    rate: Fraction,
    colours: dict[str, int],
    encoding: Encoding,
    sound: Path | None = None,
) -> Iterator[Callable[[UInt8[np.ndarray, "3 h w"], Fraction], None]]:
    """A function that encodes planes Y, Cb, Cr (full range) at a time in seconds; the file appears when all is done.

    `sound` is a video whose sound is copied as far as the frames go; where the container does not hold its kind, that
    is reported. Raises UserError where it cannot be encoded.
    """
    av = pyav()
    height, width = size
    with atomic_write(path) as file:
        container = av.open(file, "w", format=CONTAINERS[path.suffix.lower()])
        try:
            options = {} if encoding.codec == "ffv1" else {"crf": str(CRF if encoding.crf is None else encoding.crf)}
            if encoding.codec == "hevc":
                options["x265-params"] = "log-level=error"
            stream = container.add_stream(CODECS[encoding.codec], rate=rate, options=options)
            stream.width, stream.height = width, height
            halves = width % 2 == height % 2 == 0 and encoding.codec != "ffv1"  # 420 halves the sides
            stream.pix_fmt = "yuv420p" if halves else "yuv444p"
            if encoding.codec == "ffv1":  # at full range, or 256 levels would become 220
                stream.codec_context.color_range = 2
            stream.codec_context.time_base = Fraction(1, _TICKS)
            for name, value in colours.items():
                setattr(stream.codec_context, name, value)
            lossy = encoding.codec != "ffv1"
            copy_sound = _sound_copier(container, sound, path) if sound else None

            def encode(planes: UInt8[np.ndarray, "3 h w"], time: Fraction) -> None:
                frame = av.VideoFrame.from_ndarray(planes, format="yuvj444p" if lossy else "yuv444p")
                frame.pts, frame.time_base = round(time * _TICKS), Fraction(1, _TICKS)
                container.mux(stream.encode(frame))
                if copy_sound:
                    copy_sound(time + 1 / rate)

            yield encode
            container.mux(stream.encode())
            container.close()
        except av.FFmpegError as error:
            raise UserError(f"{path}: cannot be encoded ({error.strerror})") from error
        finally:
            with suppress(Exception):
                container.close()


def _sound_copier(container: Any, source: Path, path: Path) -> Callable[[Fraction], None] | None:
    """A function that copies the sound of `source` up to a time; None where the container does not hold its kind."""
    taken = pyav().open(source)
    audio = taken.streams.audio[0]
    if audio.codec.name not in container.supported_codecs:
        print_warning(InputRemark(f"{source}: its sound ({audio.codec.name}) does not go into {path.suffix}: left out"))
        return None
    copy = container.add_stream_from_template(audio)
    video = taken.streams.video[0]
    start = (video.start_time or 0) * video.time_base
    packets = (packet for packet in taken.demux(audio) if packet.pts is not None)
    waiting: list[Any] = []

    def until(time: Fraction) -> None:
        while (packet := waiting.pop() if waiting else next(packets, None)) is not None:
            at = packet.pts * packet.time_base - start
            if at > time:
                waiting.append(packet)
                return
            if at + (packet.duration or 0) * packet.time_base < 0:  # one that ends at 0 primes the decoder
                continue
            shift = round(start / packet.time_base)
            packet.pts -= shift
            packet.dts = packet.pts if packet.dts is None else packet.dts - shift
            packet.stream = copy
            container.mux(packet)

    return until
