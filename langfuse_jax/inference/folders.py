"""Fusing two folders: a stream of pairs in, an image file for each out, resumed from where an earlier run stopped."""

import hashlib
import json
import math
import os
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from jaxtyping import Float32

from langfuse_jax.errors import UserError, WrongType, one_line, print_warning
from langfuse_jax.images.canvas import Size, plan, smallest
from langfuse_jax.images.encoding import check_format, write_image
from langfuse_jax.images.files import (
    MAX_SIDE,
    Limits,
    header_size,
    infrared_limits,
    infrared_size,
    write_png,
    ycbcr_to_rgb,
)
from langfuse_jax.images.naming import SAME, Convention
from langfuse_jax.images.pairs import Pair, Sources, match_pairs, pair_size, read_pair
from langfuse_jax.images.reading import Reading
from langfuse_jax.images.remarks import CHECKED_PAIRS, Remarks
from langfuse_jax.images.sheet import side_by_side
from langfuse_jax.inference.finished import check_record, finished_pairs, write_record
from langfuse_jax.runtime.atomic import check_writable, remove_leftovers
from langfuse_jax.runtime.bars import progress_bar, write_beside
from langfuse_jax.runtime.html import html_table
from langfuse_jax.runtime.threads import default_threads

if TYPE_CHECKING:  # JAX: not before the folders are known to be right
    from langfuse_jax.alignment.transform import Alignment
    from langfuse_jax.inference.fuser import Fuser
    from langfuse_jax.inference.stream import Work

_MOST = 4096  # images in a batch
_SCANNED = 512  # headers looked at, spread evenly over the folder, to choose canvases


@dataclass
class FusedFolders:
    """What `fuse_folders` did.

    Attributes:
      fused: pairs fused.
      skipped: pairs whose outputs were there already.
      failed: stems, sorted, of pairs that could not be read and of images without a partner.
      process: the index of this process and how many share the folders.
      convention: how the files of a pair are named.
      work: what was computed on which canvas; None where nothing was left to fuse.
      programs: as `runtime.compilation.count_programs` counts them.
    """

    fused: int = 0
    skipped: int = 0
    failed: list[str] = field(default_factory=list)
    process: tuple[int, int] = (0, 1)
    convention: Convention = SAME
    work: "Work | None" = None
    programs: dict[str, int] = field(default_factory=dict)

    def _repr_html_(self) -> str:
        """For a notebook: the counts, and the pairs that failed by their stems."""
        rows = [["fused", str(self.fused)], ["there already", str(self.skipped)]]
        rows.append(["failed", ", ".join([str(len(self.failed)), *self.failed])])
        rows += [["process", "{} of {}".format(*self.process)]] if self.process[1] > 1 else []
        return html_table(rows, title="Fused folders")


def fuse_folders(
    visible: str | os.PathLike | None,
    infrared: str | os.PathLike,
    out: str | os.PathLike,
    *,
    load_fuser: "Callable[[], Fuser] | None" = None,
    format: str = "png",
    bits: int = 8,
    gray: bool = False,
    sheet: bool = False,
    infrared_range: Limits | Literal["folder"] | None = None,
    max_side: int | None = MAX_SIDE,
    invert_infrared: bool = False,
    resize: Literal["visible", "infrared"] | None = None,
    alignment: "Alignment | Mapping[str, Alignment] | None" = None,
    to: Literal["visible", "infrared"] = "visible",
    outside: Literal["crop", "visible"] = "crop",
    check: bool = True,
    overwrite: bool = False,
    made_by: Mapping[str, Any] | None = None,
    pair_by: Convention | None = None,
    canvases: int = 4,
    batch_size: int | None = None,
    tile: int | None = None,
    distributed: bool = False,
) -> FusedFolders:
    """Fuses the pairs of two folders, which match by file stem, into the folder `out`.

    A pair that cannot be fused is reported in a line on stderr and the others are fused. The outputs appear whole or
    not at all, so that a run that was stopped can be repeated and does what is left.

    Args:
        pair_by: how the files of a pair are named; by default it is found out, see `images.pairs.match_pairs`.
        visible: None where the files of `infrared` are those of a camera that keeps a photo beside its thermal frame.
        load_fuser: gives the `Fuser`; called once the folders are known to be right (with `made_by`, once there is
            a pair to fuse); by default the fusion network of the package.
        format: "png", "jpg", "tiff", "webp" or "bmp".
        bits: 8, or 16 as PNG or TIFF.
        gray: write the fused luma alone, without the chroma of the visible image.
        sheet: also write infrared | visible | fused side by side into `out`/sheets.
        infrared_range: raw values of the infrared files that become black and white, see `images.files.read_infrared`;
            "folder" takes the same for all files, of up to 512 of them nearly the lowest and the highest.
        max_side: pixels a side over which images are refused; None for any size.
        invert_infrared: the infrared images are negatives, in which hot is black.
        resize: whose size the other image of a pair is brought to; by default they must agree.
        alignment: of the two cameras, as `align` finds it, or of each pair by its stem; by default the images of a pair
            must lie over each other.
        to: the grid of the fused images, with an alignment.
        outside: "crop" to what both cameras show, or keep the "visible" image where there is no infrared.
        check: warn where the images of the first pairs do not seem to lie over each other.
        overwrite: fuse pairs whose outputs are there again.
        made_by: what tells this fuser from others, as JSON can hold it; by default the fingerprint of its weights. Kept
            in `out` with the settings above that change pixels: what was fused with others is not taken for finished.
        canvases: sizes to which images are padded, at most: each is a program to compile.
        batch_size: images at a time; by default 1 on a CPU, else up to 16.
        tile: pixels a side of tiles, in which large pairs are fused one after the other, see `Fuser.__call__`.
        distributed: join the JAX processes of a cluster. Of n processes each takes every n-th pair.

    Raises:
        UserError: where no pair can be fused, an image cannot be written, or `out` has images of other settings.

    Example::

        result = fuse_folders("VIS", "IR", "FUSED", load_fuser=lambda: Fuser.load(model="ldfusion"))
        result.fused, result.failed
    """
    out = output_folder(out)
    check_counts(canvases=canvases, batch_size=batch_size)
    check_format(format, bits)
    matching = match_pairs(visible, infrared, pair_by)
    pairs, alone, convention = matching
    sheets = out / "sheets" if sheet else None
    for folder in (out, *([sheets] if sheets else [])):
        for source in (visible or infrared, infrared):
            if folder.exists() and folder.samefile(source):
                where = "is" if folder == out else f"has its sheets in {folder}, which is"
                raise UserError(
                    f"--out {out}: {where} a folder of source images, which it would overwrite; choose another one"
                )
        check_writable(folder)
        remove_leftovers(folder)
    index, count = _processes(distributed)  # before a fuser, which starts JAX
    if load_fuser is None or made_by is None:
        fuser = (load_fuser or _default_fuser)()
        load_fuser, made_by = (lambda: fuser), {"weights": fuser.fingerprint}
    limits = _folder_limits(pairs, max_side) if infrared_range == "folder" else infrared_range
    made_by = {**made_by, "gray": gray, "bits": bits, "infrared_range": limits}
    made_by |= {"invert_infrared": invert_infrared or None, "resize": resize}
    made_by |= {"pair_by": None if convention == SAME else str(convention)}
    checked = [pair.stem for pair in pairs[:CHECKED_PAIRS]] if check and alignment is None else []
    remarks = Remarks(print_warning, check=checked)
    reading = Reading(
        limits,
        max_side,
        found=infrared_range == "folder",
        invert=invert_infrared,
        resize=resize,
        remarks=remarks,
        alignment=alignment,
        to=to,
        outside=outside,
    )
    made_by |= {"alignment": _alignment_record(reading)}
    _check_alignment(pairs, reading)
    if not overwrite:
        check_record(out, made_by, [f"{pair.stem}.{format}" for pair in pairs])
    own_pairs = pairs[index::count]
    finished = set() if overwrite else finished_pairs(own_pairs, out, f".{format}", sheets, reading)
    left = [pair for pair in own_pairs if pair.stem not in finished]
    result = FusedFolders(skipped=len(own_pairs) - len(left), process=(index, count), convention=convention)

    def report(stem: str, problem: object) -> None:
        write_beside(f"langfuse-jax: {one_line(problem)}")
        result.failed.append(stem)

    def read(pair: Pair) -> Sources:
        return read_pair(pair, reading)

    def read_failed(pair: Pair, error: UserError) -> None:
        report(pair.stem, error)
        advance(0)

    def write(pair: Pair, sources: Sources, fused: Float32[np.ndarray, "h w"]) -> None:
        with progress.get_lock():
            record()
        beside = sheets / f"{pair.stem}.png" if sheets else None
        write_fused(out / f"{pair.stem}.{format}", sources, fused, sheet=beside, gray=gray, bits=bits)
        advance(1)

    @cache
    def record() -> None:
        """Before the first image: whatever stops the run, its images are known for what they are."""
        write_record(out, made_by, anew=overwrite)

    def advance(fused: int) -> None:
        with progress.get_lock():
            result.fused += fused
            progress.update()

    if index == 0:
        for path, line in zip(alone, matching.why_alone((visible or infrared, infrared)), strict=True):
            report(path.stem, line)
    if left:
        from langfuse_jax.inference.memory import check_memory
        from langfuse_jax.inference.stream import fuse_stream, fuse_tiled_stream, program_pixels
        from langfuse_jax.runtime.compilation import count_programs

        fuser = load_fuser()
        result.programs = count_programs()
        if tile:
            fuser.check_tile(tile)
        expected = _expected(pairs, left, fuser, canvases, program_pixels(), reading)
        if used := [canvas for canvas, count in expected.items() if count]:
            waiting = 0 if tile else 4 * default_threads()  # pairs in the queues of readers and writers
            check_memory(fuser.net, max(used, key=math.prod), batch_size or 1, tile=tile, waiting=waiting)
        progress = progress_bar(len(left), unit="pair")
        try:
            if tile:
                result.work = fuse_tiled_stream(fuser, left, read, write, tile=tile, failed=read_failed)
            else:
                result.work = fuse_stream(
                    fuser,
                    left,
                    read,
                    write,
                    canvases=expected,
                    batch_size=batch_size,
                    threads=default_threads(),
                    failed=read_failed,
                )
        except UserError as error:
            again = "the same command without --overwrite" if overwrite else "the same command"
            raise UserError(f"{error}; {result.fused} pairs are fused, {again} resumes from there") from error
        finally:
            progress.close()
        remarks.finish(inverted=invert_infrared)
    result.failed.sort()
    return result


def check_counts(**counts: int | None) -> None:
    """Raises UserError, naming the flag, for a count under 1 or beyond what any machine has memory for."""
    for name, count in counts.items():
        flag = f"--{name.replace('_', '-')}"
        if count is not None and (isinstance(count, bool) or not isinstance(count, (int, np.integer))):
            raise WrongType(f"{flag} {count!r}: is no whole number; give an int")
        if count is not None and count < 1:
            raise UserError(f"{flag} {count}: must be at least 1")
        if count is not None and count > _MOST:
            raise UserError(f"{flag} {count}: is more than {_MOST}; lower {flag}")


def _processes(distributed: bool) -> tuple[int, int]:
    """(index, count) of the JAX processes that share the work; JAX is not imported to learn that there is one."""
    if distributed:
        from langfuse_jax.runtime.distributed import join_cluster

        # Whoever is done first waits for the others before it ends: a day, not five minutes.
        join_cluster(required=True, shutdown_seconds=86400)
    jax = sys.modules.get("jax")
    return (jax.process_index(), jax.process_count()) if jax else (0, 1)


def _default_fuser() -> "Fuser":
    from langfuse_jax.inference.fuser import Fuser

    return Fuser.load()


def _expected(
    pairs: Sequence[Pair], left: Sequence[Pair], fuser: "Fuser", limit: int, worth: float, reading: Reading
) -> dict[Size, int]:
    """The canvases of a folder, and how many of the pairs that are left will be on each.

    They are chosen for all pairs, so that a resumed run uses the programs of the run before.
    """
    sizes = _some_sizes(pairs, fuser, reading)
    canvases = plan(sizes, limit, worth * len(sizes) / len(pairs)) if sizes else []
    sizes = _some_sizes(left, fuser, reading)
    counts = Counter(smallest(canvases, size) for size in sizes)
    return {canvas: -(-counts[canvas] * len(left) // max(1, len(sizes))) for canvas in canvases}


def _some_sizes(pairs: Sequence[Pair], fuser: "Fuser", reading: Reading) -> list[Size]:
    step = -(-len(pairs) // _SCANNED)
    return [fuser.extended_size(size) for pair in pairs[::step] if (size := pair_size(pair, reading))]


def _alignment_record(reading: Reading) -> dict[str, Any] | None:
    """What of an alignment changes pixels, as JSON can hold it."""
    alignment = reading.alignment
    if alignment is None:
        return None
    each = alignment if isinstance(alignment, Mapping) else {"": alignment}
    matrices = {stem: one.matrix.round(9).tolist() for stem, one in sorted(each.items())}
    digest = hashlib.sha256(json.dumps(matrices).encode()).hexdigest()[:12]
    return {"matrices": digest, "to": reading.to, "outside": reading.outside}


def _check_alignment(pairs: Sequence[Pair], reading: Reading) -> None:
    """Raises UserError where one alignment for all pairs leaves no overlap, or fits the size of none of them."""
    if reading.alignment is None or isinstance(reading.alignment, Mapping):
        return
    reading.alignment.window(reading.to, reading.outside)
    problem = None
    for pair in pairs[:_SCANNED]:
        sizes = header_size(pair.visible), infrared_size(pair.infrared)
        if sizes[0] is None or sizes[1] is None or pair.visible == pair.infrared:
            return  # whatever is wrong is said when the files are read
        try:
            reading.alignment.check(sizes[0], sizes[1])
        except UserError as error:
            problem = problem or UserError(f"{pair.visible} and {pair.infrared}: {error}")
        else:
            return
    if problem:
        raise problem


def _folder_limits(pairs: Sequence[Pair], max_side: int | None) -> Limits | None:
    """Limits for all of a folder's counts: the twentieth of the lower ones and of the upper ones of up to 512 files."""
    found = []
    for pair in pairs[:: -(-len(pairs) // _SCANNED)]:
        with suppress(UserError):  # which is reported when the pair is read
            found.append(infrared_limits(pair.infrared, max_side))
    known = [limits for limits in found if limits is not None]
    if not known:
        return None
    low, high = float(np.quantile([a for a, _ in known], 0.05)), float(np.quantile([b for _, b in known], 0.95))
    return (low, high) if low < high else None


def write_fused(
    path: Path,
    sources: Sources,
    fused: Float32[np.ndarray, "h w"],
    *,
    sheet: Path | None = None,
    gray: bool = False,
    bits: int = 8,
) -> None:
    """Writes fused luma with the chroma of `sources` (unless `gray`), and `sheet`, the three side by side, if given."""
    luma, chroma, infrared = sources
    visible, image = luma, fused
    if chroma is not None:
        image = fused if gray else ycbcr_to_rgb(fused, chroma)
    if sheet:
        visible = luma if chroma is None else ycbcr_to_rgb(luma, chroma)
        write_png(sheet, side_by_side([infrared, visible, image]))
    write_image(path, image, bits)


def output_folder(path: str | os.PathLike) -> Path:
    """The folder that --out names; it is made when the first image is written."""
    out = Path(path)
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out}: is a file, and here a folder is needed; choose another name")
    return out
