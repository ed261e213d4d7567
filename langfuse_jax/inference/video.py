"""Fusing two videos, or other sources of frames, into one video, frame by frame."""

import itertools
import os
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, NoReturn, cast

import numpy as np

from langfuse_jax.errors import UserError, print_warning
from langfuse_jax.images.canvas import Size, fit_network
from langfuse_jax.images.files import MAX_SIDE, Limits, to_uint8
from langfuse_jax.images.naming import Convention
from langfuse_jax.images.pairs import (
    NO_COLOUR,
    Pair,
    Sources,
    brought_to_one_size,
    by_stem,
    filled,
    match_pairs,
    natural_order,
)
from langfuse_jax.images.reading import Reading
from langfuse_jax.images.remarks import Remarks
from langfuse_jax.inference.encoder import Encoding, check_encoding, encoder
from langfuse_jax.inference.folders import check_counts
from langfuse_jax.inference.frames import Gray, Source, Visible, open_infrared, open_visible
from langfuse_jax.runtime.atomic import check_writable
from langfuse_jax.runtime.bars import progress_bar
from langfuse_jax.runtime.html import html_table

if TYPE_CHECKING:  # JAX: not before the sources are known to be right
    from langfuse_jax.alignment.transform import Alignment
    from langfuse_jax.inference.fuser import Fuser

_FPS = 25  # where no source has a rate
_STEP = 25  # frames between two of `some_frames`
_CUT = "cut both to one length, or give --shortest"


class FusedVideo(NamedTuple):
    """What `fuse_video` did: the number of frames fused, and the files of frames that had no partner."""

    frames: int
    unpaired: list[Path]

    def _repr_html_(self) -> str:
        """For a notebook: the count, and the names of frames without a partner."""
        alone = ", ".join([str(len(self.unpaired)), *(path.name for path in self.unpaired)])
        return html_table([["frames fused", str(self.frames)], ["without a partner", alone]], title="Fused video")


_H264 = Encoding()


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
    invert_infrared: bool = False,
    resize: Literal["visible", "infrared"] | None = None,
    alignment: "Alignment | None" = None,
    to: Literal["visible", "infrared"] = "visible",
    outside: Literal["crop", "visible"] = "crop",
    check: bool = True,
    shortest: bool = False,
    pair_by: Convention | None = None,
    encoding: Encoding = _H264,
    batch_size: int | None = None,
) -> FusedVideo:
    """Fuses two videos, folders of frames, FLIR sequences (infrared) or multi-page TIFFs into the video `out`.

    The fused video has the frames' times, the colours and the sound of the visible one. Of two videos, each visible
    frame goes with the infrared frame that is nearest in time from the first frames on; frames of two folders belong
    together by their names, and one that the other folder lacks is left out; all others by their order.

    Args:
        load_fuser: gives the `Fuser`, and is called once the sources are known to be right; by default that
            of the package, which keeps up with a camera.
        fps: frames per second of folders, such as "30000/1001"; 25 by default.
        gray: drop the colours.
        infrared_range: raw values of the infrared frames that become black and white. By default those of one of the
            first frames throughout (`images.files.limits_of_frames`), since limits that change would flicker.
        max_side: pixels a side over which frames are refused; None for any size.
        invert_infrared: the infrared frames are negatives, in which hot is black.
        resize: whose size the other frame is brought to; by default they must agree.
        alignment: of the two cameras, as `align` finds it; by default the frames must lie over each other.
        to: the grid of the fused video, with an alignment.
        outside: "crop" to what both cameras show, or keep the "visible" frame where there is no infrared.
        check: warn where the frames do not seem to lie over each other.
        pair_by: how the frames of two folders are named; by default it is found out, see `images.pairs.match_pairs`.
        shortest: end with the source that ends first; by default both must be as long.
        encoding: codec and rate factor.
        batch_size: frames at a time; by default 1 on a CPU, else up to 16.

    Raises:
        UserError: where they cannot be fused or PyAV is missing; then nothing is written.

    Example::

        fuse_video("colour.mp4", "thermal.mp4", "fused.mp4")
    """
    check_counts(batch_size=batch_size)
    out = Path(out)
    check_encoding(out, encoding)
    for path in (visible, infrared):
        if out.exists() and out.samefile(path):
            raise UserError(f"--out {out}: is a source; choose another name")
    check_writable(out.parent)
    remarks = Remarks(print_warning, check=(Path(visible).stem,) if check and alignment is None else ())
    reading = Reading(
        infrared_range,
        max_side,
        invert=invert_infrared,
        resize=resize,
        remarks=remarks,
        alignment=alignment,
        to=to,
        outside=outside,
    )
    named, unpaired = _frames_by_name(Path(visible), Path(infrared), pair_by)
    colour = open_visible(Path(visible), named[0], reading)
    thermal = open_infrared(Path(infrared), named[1], reading)
    rate = _rate(fps, colour, thermal)
    if not shortest:
        _check_lengths(colour, thermal)
    times: list[Fraction] = []
    read = _paired(colour, thermal, rate, reading, times, shortest=shortest)
    first = cast(Sources, read(0))  # which raises where there is none
    from langfuse_jax.inference.fuser import Fuser
    from langfuse_jax.inference.memory import check_memory
    from langfuse_jax.inference.stream import fuse_stream

    fuser = (load_fuser or Fuser.load)()

    def failed(_: int, error: UserError) -> NoReturn:
        raise error

    height, width = first[0].shape
    waiting = 4  # frames in the queues of reader and writer
    check_memory(fuser.net, (height, width), batch_size or 1, waiting=waiting, may_tile=False)
    canvas = fit_network(fuser.extended_size((height, width)))
    length = colour.length or thermal.length
    with (
        progress_bar(length, unit="frame") as progress,
        encoder(out, (height, width), rate, colour.colours, encoding, colour.path if colour.sound else None) as encode,
    ):

        def write(number: int, sources: Sources, fused: Gray) -> None:
            planes = np.full((3, height, width), 128, np.uint8)
            planes[0] = to_uint8(fused)
            if sources[1] is not None and not gray:
                planes[1:] = np.rint(np.moveaxis(sources[1], -1, 0) * 255 + 128).clip(0, 255)
            encode(planes, times[number])
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
    remarks.finish(inverted=invert_infrared)
    return FusedVideo(work.images[canvas], unpaired)


def _frames_by_name(
    visible: Path, infrared: Path, pair_by: Convention | None
) -> tuple[tuple[list[Path], list[Path]], list[Path]]:
    """The frames of each source that is a folder, in order; of two folders the pairs, and what has no partner."""
    if visible.is_dir() and infrared.is_dir():
        matching = match_pairs(visible, infrared, pair_by)
        pairs = sorted(matching.pairs, key=lambda pair: natural_order(pair.stem))
        unpaired = sorted(matching.alone, key=lambda path: natural_order(path.stem))
        return ([pair.visible for pair in pairs], [pair.infrared for pair in pairs]), unpaired
    if pair_by is not None:
        raise UserError(f"--pair-by {pair_by}: is for two folders of frames; leave it out")
    found = [
        by_stem(path, role) if path.is_dir() else {} for path, role in ((visible, "visible"), (infrared, "infrared"))
    ]
    ordered = [[frames[stem] for stem in sorted(frames, key=natural_order)] for frames in found]
    return (ordered[0], ordered[1]), []


def _rate(asked: str | int | float | None, visible: Source[Visible], infrared: Source[Gray]) -> Fraction:
    """Frames per second of the fused video: the visible source's, the infrared's, or what was asked for."""
    known = visible.rate or infrared.rate
    if known is None:
        try:
            # By way of a float, for Fraction works out every digit of an exponent.
            rate = Fraction(str(asked)) if "/" in str(asked) else Fraction(_FPS if asked is None else float(asked))
        except (ValueError, ZeroDivisionError, OverflowError):
            rate = Fraction(0)
        if not Fraction(1, 1000) <= rate <= 1000:
            raise UserError(f"--fps {asked}: give frames per second from 0.001 to 1000, such as 25 or 30000/1001")
        return rate.limit_denominator(100000)
    if asked is not None:
        raise UserError(f"--fps {asked}: is for frames without a rate; a video has its own, leave it out")
    return known


def _check_lengths(visible: Source[Visible], infrared: Source[Gray]) -> None:
    """Raises UserError for sources that are known to differ in length: by frames, or in time where rates differ."""
    if not visible.length or not infrared.length:
        return
    rates = visible.rate, infrared.rate
    if rates[0] is None or rates[1] is None or _same_rate(visible, infrared):
        if visible.length != infrared.length:
            raise UserError(f"{visible.path} has {visible.length} and {infrared.path} {infrared.length} frames; {_CUT}")
        return
    seconds = visible.length / rates[0], infrared.length / rates[1]
    if abs(seconds[0] - seconds[1]) > _slack(visible, infrared):
        raise UserError(
            f"{visible.path} takes {float(seconds[0]):.2f} and {infrared.path} {float(seconds[1]):.2f} seconds; {_CUT}"
        )


def _same_rate(visible: Source[Visible], infrared: Source[Gray]) -> bool:
    rates = visible.rate, infrared.rate
    return rates[0] is not None and rates[1] is not None and abs(rates[0] - rates[1]) <= rates[0] / 1000


def _slack(visible: Source[Visible], infrared: Source[Gray]) -> Fraction:
    """How much longer than the other, in seconds, a source may be: a frame and a half of the slower."""
    return Fraction(3, 2) / min(rate for rate in (visible.rate, infrared.rate) if rate)


def _paired(
    visible: Source[Visible],
    infrared: Source[Gray],
    rate: Fraction,
    reading: Reading,
    times: list[Fraction],
    *,
    shortest: bool,
) -> Callable[[int], Sources | None]:
    """A function of the frame's number that reads the next of both: (luma, chroma, infrared), or None at the end.

    It appends to `times` when each frame is to be shown.
    """
    size: Size | None = None
    pair = Pair(visible.path.stem, visible.path, infrared.path)
    next_of_both = _next_of_both(visible, infrared, rate, times, shortest=shortest)

    def read(number: int) -> Sources | None:
        nonlocal size
        sources = next_of_both(number)
        if sources is None:
            return None
        if reading.remarks is not None and not infrared.path.is_dir():  # files are looked at when they are read
            reading.remarks.saw_infrared(infrared.path, sources[2], counts=True)
        luma, chroma, thermal = brought_to_one_size(sources, reading, pair)
        size = size or luma.shape
        for path, image in ((visible.path, luma), (infrared.path, thermal)):
            if image.shape != size:
                raise UserError(
                    f"{path}: its frame {number} is {image.shape[1]}x{image.shape[0]} pixels where {size[1]}x"
                    f"{size[0]} are expected: all frames must be of one size; give --resize visible or infrared "
                    "where both show the same, else register and crop them"
                )
        if reading.remarks is not None:
            if number == 0 and not infrared.path.is_dir():
                _compare(reading.remarks, visible.path, (luma, chroma, thermal), infrared.path)
            reading.remarks.saw_pair(pair.stem, luma, thermal)
        return luma, chroma, filled(1 - thermal if reading.invert else thermal, luma)

    return read


def _next_of_both(
    visible: Source[Visible], infrared: Source[Gray], rate: Fraction, times: list[Fraction], *, shortest: bool
) -> Callable[[int], Sources | None]:
    """As `_paired`, with the frames as they are."""
    timed = visible.rate and infrared.rate and not (visible.even and infrared.even and _same_rate(visible, infrared))
    nearest = _Nearest(infrared, _slack(visible, infrared)) if timed else None

    def read(number: int) -> Sources | None:
        time, colour = next(visible.frames, (None, None))
        if colour is None:
            thermal = nearest.left() if nearest else next(infrared.frames, (None, None))[1]
        else:
            time = Fraction(number) / rate if time is None else time
            thermal = nearest.to(time) if nearest else next(infrared.frames, (None, None))[1]
        if colour is None or thermal is None:
            if number and (shortest or (colour is None and thermal is None)):
                return None
            ended = visible.path if colour is None else infrared.path
            raise UserError(f"{ended}: ends after {number} frames, the other one does not; {_CUT}")
        times.append(cast(Fraction, time))
        luma, chroma = colour
        return luma, chroma, thermal

    return read


def _compare(remarks: Remarks, visible: Path, first: Sources, infrared: Path) -> None:
    """Remarks on two sources whose first frames seem to be swapped, or one."""
    luma, chroma, thermal = first
    if np.abs(luma - thermal).mean() < 1 / 255:
        remarks("same", f"{visible} and {infrared} show the same")
    if str(infrared) in remarks.coloured and (chroma is None or np.abs(chroma).max() < NO_COLOUR):
        remarks("swapped", f"{infrared} is in colour and {visible} is not: are the two swapped?")


def some_frames(
    visible: str | os.PathLike, infrared: str | os.PathLike, reading: Reading, count: int
) -> list[tuple[int, Sources]]:
    """Up to `count` frames of two videos that belong together, every 25th from the first on, by their numbers.

    Sources are those of `fuse_video`, and frames go together as there; they are not brought to one size.

    Example::

        frames = some_frames("colour.mp4", "thermal.mp4", Reading(), 5)
    """
    named, _ = _frames_by_name(Path(visible), Path(infrared), None)
    colour = open_visible(Path(visible), named[0], reading)
    thermal = open_infrared(Path(infrared), named[1], reading)
    read = _next_of_both(colour, thermal, _rate(None, colour, thermal), [], shortest=True)
    found = []
    for number in range(_STEP * (count - 1) + 1):
        if (sources := read(number)) is None:
            break
        if number % _STEP == 0:
            found.append((number, sources))
    return found


class _Nearest:
    """The frame of a source that is nearest in time, for times that rise."""

    def __init__(self, source: Source[Gray], slack: Fraction):
        self._frames = ((time, frame) for time, frame in source.frames if time is not None)
        self._slack = slack
        self._here, self._next = next(self._frames, None), next(self._frames, None)

    def to(self, time: Fraction) -> Gray | None:
        """None once the source has ended."""
        while self._next is not None and self._here is not None and self._next[0] - time <= time - self._here[0]:
            self._here, self._next = self._next, next(self._frames, None)
        if self._here is None or (self._next is None and time - self._here[0] > self._slack):
            return None
        return self._here[1]

    def left(self) -> Gray | None:
        """A frame that lies so far beyond the last time asked for that it should have had a partner."""
        ended = self._here[0] if self._here is not None else Fraction(0)
        while self._next is not None:
            if self._next[0] - ended > self._slack:
                return self._next[1]
            self._next = next(self._frames, None)
        return None
