"""Fusing two folders: a stream of pairs in, an image file for each out, resumed from where an earlier run stopped."""

import os
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float32
from tqdm import tqdm

from langfuse_jax.errors import UserError
from langfuse_jax.images.canvas import Size, plan, smallest
from langfuse_jax.images.encoding import check_format, write_image
from langfuse_jax.images.files import MAX_SIDE, Limits, header_size, write_png, ycbcr_to_rgb
from langfuse_jax.images.pairs import Pair, Sources, match_pairs, read_pair
from langfuse_jax.images.sheet import side_by_side
from langfuse_jax.runtime.atomic import check_writable, remove_leftovers
from langfuse_jax.runtime.threads import default_threads

if TYPE_CHECKING:  # JAX: not before the folders are known to be right
    from langfuse_jax.inference.fuser import Fuser
    from langfuse_jax.inference.stream import Work

_SCANNED = 512  # headers looked at, spread evenly over the folder, to choose canvases


@dataclass
class FusedFolders:
    """What `fuse_folders` did.

    Attributes:
      fused: pairs fused.
      skipped: pairs whose outputs were there already.
      failed: stems, sorted, of pairs that could not be read and of images without a partner.
      process: the index of this process and how many share the folders.
      work: what was computed on which canvas; None where nothing was left to fuse.
      programs: as `runtime.compilation.count_programs` counts them.
    """

    fused: int = 0
    skipped: int = 0
    failed: list[str] = field(default_factory=list)
    process: tuple[int, int] = (0, 1)
    work: "Work | None" = None
    programs: dict[str, int] = field(default_factory=dict)


def fuse_folders(
    visible: str | os.PathLike,
    infrared: str | os.PathLike,
    out: str | os.PathLike,
    *,
    load_fuser: "Callable[[], Fuser] | None" = None,
    format: str = "png",
    bits: int = 8,
    gray: bool = False,
    sheet: bool = False,
    infrared_range: Limits | None = None,
    max_side: int | None = MAX_SIDE,
    overwrite: bool = False,
    canvases: int = 4,
    batch_size: int | None = None,
    distributed: bool = False,
) -> FusedFolders:
    """Fuses the pairs of two folders, which match by file stem, into the folder `out`.

    A pair that cannot be fused is reported in a line on stderr and the others are fused. The outputs appear whole or
    not at all, so that a run that was stopped can be repeated and does what is left.

    Args:
        load_fuser: gives the `Fuser`, and is called once there is a pair to fuse; the fusion network of the package.
        format: "png", "jpg", "tiff", "webp" or "bmp".
        bits: 8, or 16 as PNG or TIFF.
        gray: write the fused luma alone, without the chroma of the visible image.
        sheet: also write infrared | visible | fused side by side into `out`/sheets.
        infrared_range: raw values of the infrared files that become black and white, see `images.files.read_infrared`.
        max_side: pixels a side over which images are refused; None for any size.
        overwrite: fuse pairs whose outputs are there again.
        canvases: sizes to which images are padded, at most: each is a program to compile.
        batch_size: images at a time; by default 1 on a CPU, else up to 16.
        distributed: join the JAX processes of a cluster. Of n processes each takes every n-th pair.

    Raises:
        UserError: where no pair can be fused, or an image cannot be written.

    Example::

        result = fuse_folders("VIS", "IR", "FUSED", load_fuser=lambda: Fuser.load(model="student"))
        result.fused, result.failed
    """
    out = output_folder(out)
    check_counts(canvases=canvases, batch_size=batch_size)
    check_format(format, bits)
    pairs, alone = match_pairs(visible, infrared)
    for source in (visible, infrared):
        if out.exists() and out.samefile(source):
            raise UserError(f"--out {out}: is a folder of source images, which it would overwrite; choose another one")
    check_writable(out)
    outputs = {out: f".{format}", out / "sheets": ".png"} if sheet else {out: f".{format}"}
    for folder in outputs:
        remove_leftovers(folder)
    index, count = _processes(distributed)
    own_pairs, alone = pairs[index::count], alone if index == 0 else []
    finished = set() if overwrite else set.intersection(*(_stems(*output) for output in outputs.items()))
    left = [pair for pair in own_pairs if pair.stem not in finished]
    result = FusedFolders(skipped=len(own_pairs) - len(left), process=(index, count))
    progress = tqdm(total=len(left), disable=None if left else True, unit="pair")

    def report(stem: str, problem: object) -> None:
        tqdm.write(f"langfuse-jax: {problem}", file=sys.stderr)
        result.failed.append(stem)

    def read(pair: Pair) -> Sources:
        return read_pair(pair, infrared_range, max_side)

    def read_failed(pair: Pair, error: UserError) -> None:
        report(pair.stem, error)
        advance(0)

    def write(pair: Pair, sources: Sources, fused: Float32[np.ndarray, "h w"]) -> None:
        beside = out / "sheets" / f"{pair.stem}.png" if sheet else None
        write_fused(out / f"{pair.stem}.{format}", sources, fused, sheet=beside, gray=gray, bits=bits)
        advance(1)

    def advance(fused: int) -> None:
        with progress.get_lock():
            result.fused += fused
            progress.update()

    for path in alone:
        report(path.stem, f"{path}: unpaired, no image of that stem in the other folder")
    if left:
        from langfuse_jax.inference.fuser import Fuser
        from langfuse_jax.inference.stream import fuse_stream, program_pixels
        from langfuse_jax.runtime.compilation import count_programs

        fuser = (load_fuser or Fuser.load)()
        result.programs = count_programs()
        try:
            result.work = fuse_stream(
                fuser,
                left,
                read,
                write,
                canvases=_expected(pairs, left, fuser, canvases, program_pixels()),
                batch_size=batch_size,
                threads=default_threads(),
                failed=read_failed,
            )
        except UserError as error:
            raise UserError(f"{error}; {result.fused} pairs are fused, the same command resumes from there") from error
        finally:
            progress.close()
    result.failed.sort()
    return result


def check_counts(**counts: int | None) -> None:
    """Raises UserError, naming the flag, for a count under 1."""
    for name, count in counts.items():
        if count is not None and count < 1:
            raise UserError(f"--{name.replace('_', '-')} {count}: must be at least 1")


def _processes(distributed: bool) -> tuple[int, int]:
    """(index, count) of the JAX processes that share the work; JAX is not imported to learn that there is one."""
    if distributed:
        from langfuse_jax.runtime.distributed import join_cluster

        # Whoever is done first waits for the others before it ends: a day, not five minutes.
        join_cluster(required=True, shutdown_seconds=86400)
    jax = sys.modules.get("jax")
    return (jax.process_index(), jax.process_count()) if jax else (0, 1)


def _stems(folder: Path, ending: str) -> set[str]:
    """The stems of the files of one kind in a folder that may not be there yet."""
    if not folder.is_dir():
        return set()
    with os.scandir(folder) as entries:
        return {entry.name.removesuffix(ending) for entry in entries if entry.name.endswith(ending)}


def _expected(pairs: Sequence[Pair], left: Sequence[Pair], fuser: "Fuser", limit: int, worth: float) -> dict[Size, int]:
    """The canvases of a folder, and how many of the pairs that are left will be on each.

    They are chosen for all pairs, so that a resumed run uses the programs of the run before.
    """
    sizes = _some_sizes(pairs, fuser)
    canvases = plan(sizes, limit, worth * len(sizes) / len(pairs)) if sizes else []
    sizes = _some_sizes(left, fuser)
    counts = Counter(smallest(canvases, size) for size in sizes)
    return {canvas: -(-counts[canvas] * len(left) // max(1, len(sizes))) for canvas in canvases}


def _some_sizes(pairs: Sequence[Pair], fuser: "Fuser") -> list[Size]:
    step = -(-len(pairs) // _SCANNED)
    return [fuser.extended_size(size) for pair in pairs[::step] if (size := header_size(pair.visible))]


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
