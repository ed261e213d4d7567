"""`langfuse-jax fuse`: a pair of files, two folders of them, two videos, or the example in; images or a video out."""

import argparse
import math
import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from langfuse_jax.commands.flags import add_compilation_cache, add_model
from langfuse_jax.errors import UserError
from langfuse_jax.images.encoding import FORMATS, check_format, check_output
from langfuse_jax.images.files import LUMA, MAX_SIDE, write_png
from langfuse_jax.images.pairs import Pair, read_pair
from langfuse_jax.images.sheet import side_by_side
from langfuse_jax.inference.folders import FusedFolders, check_counts, fuse_folders, output_folder, write_fused
from langfuse_jax.runtime.atomic import check_writable

if TYPE_CHECKING:
    from langfuse_jax.inference.fuser import Fuser


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of the sub-command."""
    parser.add_argument("--visible", metavar="A", help="visible image, or a folder of them; or a video")
    parser.add_argument("--infrared", metavar="B", help="infrared image, or a folder with the same file stems")
    parser.add_argument(
        "--out", metavar="C", required=True, help="fused image or video, or the folder for fused images"
    )
    parser.add_argument("--example", action="store_true", help="fuse a night scene that the package draws itself")
    parser.add_argument("--checkpoint", metavar="DIR", help="trained model (default: the weights in the package)")
    add_model(parser, "default: fusion; student with --video")
    parser.add_argument("--sheet", action="store_true", help="also write infrared | visible | fused side by side")
    parser.add_argument("--gray", action="store_true", help="write the fused luminance alone, without chroma")
    parser.add_argument(
        "--format", metavar="F", help="png (default), jpg, tiff, webp or bmp; for one file its ending says so"
    )
    parser.add_argument("--bits", type=int, choices=(8, 16), default=8, help="bits per value; 16 as png or tiff")
    parser.add_argument(
        "--infrared-range",
        metavar="LOW,HIGH",
        help="raw values of the infrared files that become black and white (default: for 16 bits the 0.5 and 99.5 "
        "percentiles of each image, for 8 bits 0,255)",
    )
    parser.add_argument("--allow-large", action="store_true", help="fuse images of more than 8192 pixels a side too")
    parser.add_argument(
        "--overwrite", action="store_true", help="fuse again the pairs of a folder that are there already"
    )
    parser.add_argument("--verbose", action="store_true", help="say which canvases and programs a folder took")
    parser.add_argument("--canvases", type=int, metavar="N", default=4, help="sizes a folder is padded to, at most (4)")
    parser.add_argument(
        "--batch-size", type=int, metavar="N", help="images at a time (default: 1 on a CPU, else up to 16)"
    )
    add_compilation_cache(parser)
    parser.add_argument(
        "--distributed", action="store_true", help="join the JAX processes of a cluster; each takes a share"
    )
    parser.add_argument("--video", action="store_true", help="A and B are videos, or folders of frames; C is a video")
    parser.add_argument("--fps", metavar="R", help="frames per second where A and B are folders (25)")


def run(args: argparse.Namespace) -> int:
    """Runs the sub-command: 0 when all is fused, 1 when some pairs of a folder are not; else raises UserError."""
    _check_values(args)
    if args.example:
        if args.visible or args.infrared:
            raise UserError("--example: draws its own images; leave out --visible and --infrared")
        return _fuse_example(args)
    for flag, path in (("--visible", args.visible), ("--infrared", args.infrared)):
        if not path:
            raise UserError(f"{flag}: is missing; give --visible and --infrared, or --example alone")
        if not os.path.exists(path):
            raise UserError(f"{flag} {path}: no such file or folder; check the path")
    if args.video:
        return _fuse_videos(args)
    if os.path.isdir(args.visible) != os.path.isdir(args.infrared):
        raise UserError(
            f"--visible {args.visible} and --infrared {args.infrared}: one is a file and the other a folder; "
            "give two files or two folders"
        )
    if not os.path.isdir(args.visible):
        return _fuse_files(args)
    return _fuse_folders(args)


def _check_values(args: argparse.Namespace) -> None:
    """Replaces the texts of flags by what they mean, and refuses those that mean nothing."""
    check_counts(canvases=args.canvases, batch_size=args.batch_size)
    if args.infrared_range is not None:
        try:
            low, high = map(float, args.infrared_range.split(","))
        except ValueError:
            low = high = math.nan
        if not -math.inf < low < high < math.inf:
            raise UserError(f"--infrared-range {args.infrared_range}: give two numbers LOW,HIGH, the low one first")
        args.infrared_range = low, high
    if args.format is not None:
        args.format = args.format.lower().lstrip(".")
    check_format("png" if args.format is None else args.format, args.bits)
    args.max_side = None if args.allow_large else MAX_SIDE
    if args.allow_large:
        Image.MAX_IMAGE_PIXELS = None  # Pillow has a limit of its own


def _load_fuser(args: argparse.Namespace) -> "Fuser":
    # JAX: not before the flags are known to be right.
    from langfuse_jax.inference.fuser import Fuser
    from langfuse_jax.runtime.compilation import keep_programs

    keep_programs(args.compilation_cache)
    return Fuser.load(args.checkpoint, model=args.model)


def _fuse_folders(args: argparse.Namespace) -> int:
    result = fuse_folders(
        args.visible,
        args.infrared,
        args.out,
        load_fuser=partial(_load_fuser, args),
        format=args.format or "png",
        bits=args.bits,
        gray=args.gray,
        sheet=args.sheet,
        infrared_range=args.infrared_range,
        max_side=args.max_side,
        overwrite=args.overwrite,
        canvases=args.canvases,
        batch_size=args.batch_size,
        distributed=args.distributed,
    )
    if args.verbose:
        _print_work(result)
    index, count = result.process
    line = f"fused {result.fused} of {result.fused + result.skipped + len(result.failed)}"
    line += "" if result.failed else f" into {Path(args.out)}"
    line += f" as process {index} of {count}" if count > 1 else ""
    if result.skipped:
        line += f"; {result.skipped} were there already (--overwrite redoes them)"
    line += f"; failed: {', '.join(result.failed)}" if result.failed else ""
    print(line)
    return 1 if result.failed else 0


def _print_work(result: FusedFolders) -> None:
    """What --verbose says."""
    if not result.work:
        return
    for (height, width), images in sorted(result.work.images.items()):
        print(f"canvas {height}x{width}: {images} images")
    if result.work.pixels:
        waste = result.work.canvas_pixels / result.work.pixels - 1
        print(f"waste: {100 * waste:.1f}% more pixels computed than the images have")
    made, loaded = result.programs["programs"], result.programs["loaded"]
    print(f"programs: {made - loaded} compiled, {loaded} loaded from the cache")


def _fuse_videos(args: argparse.Namespace) -> int:
    from langfuse_jax.inference.video import fuse_video

    flags = {"--sheet": args.sheet, "--format": args.format, "--bits 16": args.bits == 16}
    for flag, given in {**flags, "--distributed": args.distributed}.items():
        if given:
            raise UserError(f"{flag}: is for images; leave it out with --video")
    if args.checkpoint is None and args.model is None:
        args.model = "student"  # which keeps up with a camera
    frames = fuse_video(
        args.visible,
        args.infrared,
        args.out,
        load_fuser=partial(_load_fuser, args),
        fps=args.fps,
        gray=args.gray,
        infrared_range=args.infrared_range,
        max_side=args.max_side,
        batch_size=args.batch_size,
    )
    print(f"fused {frames} frames into {Path(args.out)}")
    return 0


def _fuse_example(args: argparse.Namespace) -> int:
    from langfuse_jax.examples.night_scene import night_scene

    out = output_folder(args.out)
    if out.suffix and not out.exists():
        raise UserError(f"--out {out}: is to be a folder for four images; leave the ending {out.suffix} out")
    fuser = _load_fuser(args)
    visible, infrared = night_scene()
    fused = fuser(visible, infrared)
    if args.gray:
        fused = fused @ LUMA
    images = {"infrared": infrared, "visible": visible, "fused": fused}
    images["sheet"] = side_by_side(list(images.values()))
    for name, image in images.items():
        write_png(out / f"{name}.png", image)
    print(f"wrote {out / 'sheet.png'} (infrared | visible | fused), and each of the three beside it")
    return 0


def _fuse_files(args: argparse.Namespace) -> int:
    pair = Pair(Path(args.visible).stem, Path(args.visible), Path(args.infrared))
    out = Path(args.out)
    if out.is_dir() or not out.suffix or args.out.endswith(os.sep):
        out = output_folder(args.out) / f"{pair.stem}.{args.format or 'png'}"
    elif args.format and FORMATS.get(out.suffix[1:].lower()) != FORMATS[args.format]:
        raise UserError(f"--format {args.format}: and the ending of --out {out} differ; leave --format out")
    check_output(out, args.bits, "--out")
    for source in pair[1:]:
        if out.exists() and out.samefile(source):
            raise UserError(f"--out {out}: is the source image {source}; choose another name")
    check_writable(out.parent)
    luma, chroma, infrared = read_pair(pair, args.infrared_range, args.max_side)
    fused = _load_fuser(args)(luma, infrared)
    sheet = out.with_name(f"{out.stem}_sheet.png") if args.sheet else None
    write_fused(out, (luma, chroma, infrared), fused, sheet=sheet, gray=args.gray, bits=args.bits)
    print(f"wrote {out}" + (f" and {sheet}" if sheet else ""))
    return 0
