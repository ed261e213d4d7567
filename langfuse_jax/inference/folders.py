"""Fusing two folders: a stream of pairs in, an image file for each out, and on from where an earlier run stopped."""

import os
import sys
from collections import Counter
from pathlib import Path

from tqdm import tqdm

from langfuse_jax.errors import UserError
from langfuse_jax.images.canvas import plan, smallest
from langfuse_jax.images.encoding import write_image
from langfuse_jax.images.files import header_size, write_png, ycbcr_to_rgb
from langfuse_jax.images.pairs import match_pairs, read_pair
from langfuse_jax.images.sheet import side_by_side
from langfuse_jax.runtime.atomic import check_writable, remove_leftovers
from langfuse_jax.runtime.threads import default_threads

_SCANNED = 512  # headers looked at, spread evenly over the folder, to choose canvases


def fuse_folders(args, load_fuser, processes) -> int:
    """Fuses two folders by the flags of the command: 0 when all is fused, 1 when some pairs are not.

    Pairs whose outputs are there are passed over, unless --overwrite is given. Of n processes each takes every n-th
    pair. Raises UserError where no pair can be fused, or written.
    """
    out, ending = output_folder(args.out), f".{args.format or 'png'}"
    pairs, alone = match_pairs(args.visible, args.infrared)
    for source in (args.visible, args.infrared):
        if out.exists() and out.samefile(source):
            raise UserError(f"--out {out}: is a folder of source images, which it would overwrite; choose another one")
    check_writable(out)
    outputs = {out: ending, out / "sheets": ".png"} if args.sheet else {out: ending}
    for folder in outputs:
        remove_leftovers(folder)
    index, count = processes()
    share, alone = pairs[index::count], alone if index == 0 else []
    finished = set() if args.overwrite else set.intersection(*(_stems(*output) for output in outputs.items()))
    left = [pair for pair in share if pair.stem not in finished]
    progress = tqdm(total=len(left), disable=None if left else True, unit="pair")
    failed, fused_count = [], 0

    def report(stem, problem):
        tqdm.write(f"langfuse-jax: {problem}", file=sys.stderr)
        failed.append(stem)

    def read(pair):
        return read_pair(pair, args.infrared_range, args.max_side)

    def read_failed(pair, error):
        report(pair.stem, error)
        advance(0)

    def write(pair, sources, fused):
        sheet = out / "sheets" / f"{pair.stem}.png" if args.sheet else None
        write_fused(out / f"{pair.stem}{ending}", sources, fused, sheet, args)
        advance(1)

    def advance(fused):
        nonlocal fused_count
        with progress.get_lock():
            fused_count += fused
            progress.update()

    for path in alone:
        report(path.stem, f"{path}: unpaired, no image of that stem in the other folder")
    if left:
        fuser = load_fuser()
        from langfuse_jax.inference.stream import fuse_stream, program_pixels
        from langfuse_jax.runtime.compilation import count_programs

        programs = count_programs()
        canvases = _expected(pairs, left, fuser, args.canvases, program_pixels())
        try:
            work = fuse_stream(
                fuser,
                left,
                read,
                write,
                canvases=canvases,
                batch_size=args.batch_size,
                threads=default_threads(),
                failed=read_failed,
            )
        except UserError as error:
            raise UserError(f"{error}; {fused_count} pairs are fused, the same command goes on from there") from error
        finally:
            progress.close()
        if args.verbose:
            _tell(work, programs)
    line = f"fused {fused_count} of {len(share) + len(alone)}"
    line += "" if failed else f" into {out}"
    line += f" as process {index} of {count}" if count > 1 else ""
    if len(left) < len(share):
        line += f"; {len(share) - len(left)} were there already (--overwrite redoes them)"
    line += f"; failed: {', '.join(sorted(failed))}" if failed else ""
    print(line)
    return 1 if failed else 0


def _stems(folder, ending):
    """The stems of the files of one kind in a folder that may not be there yet."""
    if not folder.is_dir():
        return set()
    with os.scandir(folder) as entries:
        return {entry.name.removesuffix(ending) for entry in entries if entry.name.endswith(ending)}


def _expected(pairs, left, fuser, limit, worth):
    """The canvases of a folder, and how many of the pairs that are left will be on each.

    They are chosen for all pairs, so that a run that goes on uses the programs of the run before.
    """
    sizes = _some_sizes(pairs, fuser)
    canvases = plan(sizes, limit, worth * len(sizes) / len(pairs)) if sizes else []
    sizes = _some_sizes(left, fuser)
    counts = Counter(smallest(canvases, size) for size in sizes)
    return {canvas: -(-counts[canvas] * len(left) // max(1, len(sizes))) for canvas in canvases}


def _some_sizes(pairs, fuser):
    step = -(-len(pairs) // _SCANNED)
    return [fuser.extended_size(size) for pair in pairs[::step] if (size := header_size(pair.visible))]


def _tell(work, programs):
    """What --verbose is to say of a stream."""
    for (height, width), images in sorted(work.images.items()):
        print(f"canvas {height}x{width}: {images} images")
    if work.pixels:
        waste = work.canvas_pixels / work.pixels - 1
        print(f"waste: {100 * waste:.1f}% more pixels computed than the images have")
    print(f"programs: {programs['programs'] - programs['loaded']} compiled, {programs['loaded']} loaded from the cache")


def write_fused(path, sources, fused, sheet, args):
    """Writes fused luma with the chroma of `sources` (unless --gray), and the sheet, if it has a path."""
    luma, chroma, infrared = sources
    visible = luma
    if chroma is not None:
        fused = fused if args.gray else ycbcr_to_rgb(fused, chroma)
    if sheet:
        visible = luma if chroma is None else ycbcr_to_rgb(luma, chroma)
        write_png(sheet, side_by_side([infrared, visible, fused]))
    write_image(path, fused, args.bits)


def output_folder(path):
    """The folder that --out names; it is made when the first image is written."""
    out = Path(path)
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out}: is a file, and here a folder is needed; choose another name")
    return out
