"""`langfuse-jax fuse`: a pair of files, two folders of them, two videos, or the example in; images or a video out."""

import argparse
import hashlib
import math
import os
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langfuse_jax.commands.flags import (
    add_alignment,
    add_allow_large,
    add_compilation_cache,
    add_model,
    add_pair_by,
    allowed_side,
    check_sources,
    given_convention,
    load_alignment,
)
from langfuse_jax.errors import UserError, one_line, print_warning
from langfuse_jax.images.encoding import FORMATS, check_format, check_output
from langfuse_jax.images.files import LUMA, write_png
from langfuse_jax.images.naming import SAME
from langfuse_jax.images.pairs import Pair, read_pair
from langfuse_jax.images.reading import Reading
from langfuse_jax.images.remarks import Remarks
from langfuse_jax.images.sheet import side_by_side
from langfuse_jax.inference.encoder import CODECS, CRF, Encoding
from langfuse_jax.inference.folders import FusedFolders, check_counts, fuse_folders, output_folder, write_fused
from langfuse_jax.runtime.atomic import check_writable
from langfuse_jax.weights.fingerprint import fingerprint_of
from langfuse_jax.weights.packaged import packaged_folder

if TYPE_CHECKING:
    from langfuse_jax.alignment.transform import Alignment
    from langfuse_jax.inference.fuser import Fuser

# Where each flag acts that does not act everywhere.
_EXAMPLE, _PAIR, _FOLDER, _VIDEO = "--example", "a single pair", "folders of images", "--video"
_ACTS_ON = {
    "visible": (_PAIR, _FOLDER, _VIDEO),
    "infrared": (_PAIR, _FOLDER, _VIDEO),
    "sheet": (_PAIR, _FOLDER),
    "format": (_PAIR, _FOLDER),
    "bits": (_PAIR, _FOLDER),
    "infrared-range": (_PAIR, _FOLDER, _VIDEO),
    "invert-infrared": (_PAIR, _FOLDER, _VIDEO),
    "resize": (_PAIR, _FOLDER, _VIDEO),
    "allow-large": (_PAIR, _FOLDER, _VIDEO),
    "tile": (_PAIR, _FOLDER),
    "pair-by": (_FOLDER, _VIDEO),
    "alignment": (_PAIR, _FOLDER, _VIDEO),
    "align": (_PAIR, _FOLDER, _VIDEO),
    "to": (_PAIR, _FOLDER, _VIDEO),
    "outside": (_PAIR, _FOLDER, _VIDEO),
    "no-check": (_PAIR, _FOLDER, _VIDEO),
    "overwrite": (_FOLDER,),
    "verbose": (_FOLDER,),
    "canvases": (_FOLDER,),
    "distributed": (_FOLDER,),
    "batch-size": (_FOLDER, _VIDEO),
    "fps": (_VIDEO,),
    "shortest": (_VIDEO,),
    "codec": (_VIDEO,),
    "crf": (_VIDEO,),
}
_AUTO_FOLDER = "auto-folder"
_MOST = 3e38  # of a raw value: what float32 holds


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of the sub-command."""
    parser.add_argument(
        "--visible",
        metavar="A",
        help="visible image, or a folder of them; or a video (not needed for files of cameras that keep a photo)",
    )
    parser.add_argument("--infrared", metavar="B", help="infrared image, or a folder with the same file stems")
    parser.add_argument(
        "--out", metavar="C", required=True, help="fused image or video, or the folder for fused images"
    )
    parser.add_argument("--example", action="store_true", help="fuse a night scene that the package draws itself")
    parser.add_argument("--checkpoint", metavar="DIR", help="trained model (default: the weights in the package)")
    add_model(parser)
    parser.add_argument(
        "--goal",
        metavar="TEXT",
        action="append",
        help='what the picture is to be, such as "a bright image", or a file of `langfuse-jax embed`; repeated, goals '
        "are blended (default: the sentence that the weights were trained with)",
    )
    parser.add_argument("--strength", metavar="S", type=float, default=1.0, help="of the goal: 0 none, 1 all of it (1)")
    parser.add_argument("--weights", metavar="W", type=float, nargs="+", help="of several goals (default: alike)")
    parser.add_argument("--clip", metavar="C", help="that encodes the goals (default: the one that the weights name)")
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
        "percentiles of each image, for 8 bits 0,255), or auto-folder for the same ones in all files of a folder",
    )
    parser.add_argument(
        "--invert-infrared", action="store_true", help="the infrared images are negatives: hot is black in them"
    )
    parser.add_argument(
        "--resize",
        choices=("visible", "infrared"),
        help="bring the other image of a pair to the size of this one, where both show the same",
    )
    add_pair_by(parser)
    add_alignment(parser)
    parser.add_argument(
        "--align", action="store_true", help="find the alignment first, as `langfuse-jax align` does from 5 pairs"
    )
    parser.add_argument(
        "--no-check", action="store_true", help="do not look whether the images of a pair lie over each other"
    )
    add_allow_large(parser)
    parser.add_argument(
        "--overwrite", action="store_true", help="fuse again the pairs of a folder that are there already"
    )
    parser.add_argument("--verbose", action="store_true", help="say which canvases and programs a folder took")
    parser.add_argument("--canvases", type=int, metavar="N", help="sizes a folder is padded to, at most (4)")
    parser.add_argument(
        "--batch-size", type=int, metavar="N", help="images at a time (default: 1 on a CPU, else up to 16)"
    )
    parser.add_argument(
        "--tile", type=int, metavar="N", help="fuse large images in tiles of N pixels a side, such as 1024: same result"
    )
    add_compilation_cache(parser)
    parser.add_argument(
        "--distributed", action="store_true", help="join the JAX processes of a cluster; each takes a share"
    )
    parser.add_argument("--video", action="store_true", help="A and B are videos, or folders of frames; C is a video")
    parser.add_argument("--fps", metavar="R", help="frames per second where A and B have no rate (25)")
    parser.add_argument("--shortest", action="store_true", help="with --video: end with the source that ends first")
    parser.add_argument("--codec", choices=[*CODECS], help="with --video: h264 (default), hevc or, lossless, ffv1")
    parser.add_argument(
        "--crf", type=int, metavar="N", help=f"with --video: quality of h264 and hevc, lower is better ({CRF})"
    )


def run(args: argparse.Namespace) -> int:
    """Runs the sub-command: 0 when all is fused, 1 when some pairs of a folder are not; else raises UserError."""
    _check_values(args)
    if args.example:
        _check_flags(args, _EXAMPLE)
        return _fuse_example(args)
    for flag, path in (("--visible", args.visible), ("--infrared", args.infrared)):
        if path is None and (flag == "--infrared" or args.video):
            raise UserError(f"{flag}: is missing; give --visible and --infrared, or --example alone")
    check_sources(args.visible, args.infrared, frames=args.video)
    _check_flags(args, _VIDEO if args.video else _FOLDER if os.path.isdir(args.infrared) else _PAIR)
    if args.visible is None:
        for flag, given in (("--resize", args.resize), ("--pair-by", args.pair_by)):
            if given:
                raise UserError(f"{flag} {given}: does nothing with the photos that cameras keep; leave it out")
    if args.video:
        return _fuse_videos(args)
    return _fuse_folders(args) if os.path.isdir(args.infrared) else _fuse_files(args)


def _check_flags(args: argparse.Namespace, job: str) -> None:
    """Raises UserError for a flag that does nothing in `job`."""
    for flag, jobs in _ACTS_ON.items():
        value = getattr(args, flag.replace("-", "_"))
        if job not in jobs and not (value is None or value is False or (flag == "bits" and value == 8)):
            raise UserError(f"--{flag}: is for {' or '.join(jobs)}; leave it out with {job}")
    if args.infrared_range == "folder" and job != _FOLDER:
        raise UserError(f"--infrared-range {_AUTO_FOLDER}: is for folders of images; leave it out with {job}")
    if args.tile is not None and (args.canvases, args.batch_size) != (None, None):
        raise UserError("--canvases and --batch-size: do nothing with --tile; leave them out")


def _check_values(args: argparse.Namespace) -> None:
    """Replaces the texts of flags by what they mean, and refuses those that mean nothing."""
    check_counts(canvases=args.canvases, batch_size=args.batch_size)
    if args.infrared_range == _AUTO_FOLDER:
        args.infrared_range = "folder"
    elif args.infrared_range is not None:
        try:
            low, high = map(float, args.infrared_range.split(","))
        except ValueError:
            low = high = math.nan
        if not -_MOST < low < high < _MOST:
            raise UserError(f"--infrared-range {args.infrared_range}: give two numbers LOW,HIGH, the low one first")
        args.infrared_range = low, high
    if args.format is not None:
        args.format = args.format.lower().lstrip(".")
    if not args.goal:
        for flag, given in (("--strength", args.strength != 1), ("--weights", args.weights), ("--clip", args.clip)):
            if given:
                raise UserError(f"{flag}: is of a --goal; give one, or leave it out")
    elif args.clip and all(map(_is_text_file, args.goal)):
        raise UserError("--clip: encodes sentences, and every --goal is a file that is encoded already; leave it out")
    if args.alignment and args.align:
        raise UserError("--align: finds what --alignment gives; leave one of the two out")
    for flag, given in (("--to", args.to), ("--outside", args.outside)):
        if given and not (args.alignment or args.align):
            raise UserError(f"{flag} {given}: requires --alignment or --align; give one, or leave it out")
    if args.alignment or args.align:
        for flag, given in (("--resize", args.resize), ("--no-check", args.no_check)):
            if given:
                raise UserError(f"{flag}: does nothing with an alignment; leave it out")
    if args.to == "infrared" and args.outside == "visible":
        raise UserError("--outside visible: keeps the whole visible image, which --to infrared crops; leave one out")
    check_format("png" if args.format is None else args.format, args.bits)
    args.max_side = allowed_side(args.allow_large)


def _load_fuser(args: argparse.Namespace) -> "Fuser":
    # JAX: not before the flags are known to be right.
    from langfuse_jax.inference.fuser import Fuser
    from langfuse_jax.runtime.compilation import keep_programs

    keep_programs(args.compilation_cache)
    fuser = Fuser.load(args.checkpoint, model=args.model)
    if not args.goal:
        return fuser
    from langfuse_jax.clip.pretrained import Clip
    from langfuse_jax.clip.words import TextEmbeddings

    clip = Clip.load(args.clip) if args.clip else None
    goals = [TextEmbeddings.load(goal) if _is_text_file(goal) else goal for goal in args.goal]
    return fuser.towards(*goals, strength=args.strength, weights=args.weights, clip=clip, report=print_warning)


def _is_text_file(goal: str) -> bool:
    """Whether a --goal names a file of `langfuse-jax embed`, and is no sentence."""
    return goal.endswith(".npz")


def _made_by(args: argparse.Namespace) -> dict[str, Any]:
    """What tells this command's fuser from others, without JAX: its weights, and the words that it follows."""
    made_by: dict[str, Any] = {"weights": fingerprint_of(args.checkpoint or packaged_folder(args.model))}
    if args.goal:
        made_by["goal"] = [
            f"{goal} {hashlib.sha256(Path(goal).read_bytes()).hexdigest()[:12]}" if _is_text_file(goal) else goal
            for goal in args.goal
        ]
        made_by |= {"strength": args.strength, "goal_weights": args.weights, "clip": args.clip}
    return made_by


def _fuse_folders(args: argparse.Namespace) -> int:
    result = fuse_folders(
        args.visible,
        args.infrared,
        args.out,
        load_fuser=partial(_load_fuser, args),
        made_by=_made_by(args),
        format=args.format or "png",
        bits=args.bits,
        gray=args.gray,
        sheet=args.sheet,
        infrared_range=args.infrared_range,
        max_side=args.max_side,
        invert_infrared=args.invert_infrared,
        resize=args.resize,
        **_alignment_options(args),
        overwrite=args.overwrite,
        canvases=4 if args.canvases is None else args.canvases,
        batch_size=args.batch_size,
        tile=args.tile,
        distributed=args.distributed,
        pair_by=given_convention(args),
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
    if result.convention != SAME:
        line += f"; paired by {result.convention}"
    print(one_line(line))
    return 1 if result.failed else 0


def _alignment_options(args: argparse.Namespace) -> dict[str, Any]:
    """What `fuse_folders` and `fuse_video` take of the flags on alignment."""
    return {
        "alignment": _alignment(args),
        "to": args.to or "visible",
        "outside": args.outside or "crop",
        "check": not args.no_check,
    }


def _alignment(args: argparse.Namespace) -> "Alignment | dict[str, Alignment] | None":
    if not args.align:
        alignment = load_alignment(args.alignment)
        if args.video and isinstance(alignment, dict):
            raise UserError(f"--alignment {args.alignment}: is a folder, and the frames of a video have one alignment")
        return alignment
    from langfuse_jax.inference.rigs import align_rig

    alignment, _ = align_rig(args.visible, args.infrared, pair_by=given_convention(args), max_side=args.max_side)
    print(alignment.describe(), file=sys.stderr)
    return alignment


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

    result = fuse_video(
        args.visible,
        args.infrared,
        args.out,
        load_fuser=partial(_load_fuser, args),
        fps=args.fps,
        gray=args.gray,
        infrared_range=args.infrared_range,
        max_side=args.max_side,
        invert_infrared=args.invert_infrared,
        resize=args.resize,
        **_alignment_options(args),
        shortest=args.shortest,
        pair_by=given_convention(args),
        encoding=Encoding(args.codec or "h264", args.crf),
        batch_size=args.batch_size,
    )
    for path in result.unpaired:
        print(f"langfuse-jax: {one_line(path)}: unpaired, no frame of that name in the other folder", file=sys.stderr)
    print(f"fused {result.frames} frames into {one_line(Path(args.out))}")
    return 1 if result.unpaired else 0


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
    print(one_line(f"wrote {out / 'sheet.png'} (infrared | visible | fused), and each of the three beside it"))
    return 0


def _fuse_files(args: argparse.Namespace) -> int:
    visible = Path(args.visible or args.infrared)
    pair = Pair(visible.stem, visible, Path(args.infrared))
    out = Path(args.out)
    if out.is_dir() or not out.suffix or args.out.endswith(os.sep):
        out = output_folder(args.out) / f"{pair.stem}.{args.format or 'png'}"
    elif args.format and FORMATS.get(out.suffix[1:].lower()) != FORMATS[args.format]:
        raise UserError(f"--format {args.format}: and the ending of --out {out} differ; leave --format out")
    check_output(out, args.bits, "--out")
    sheet = out.with_name(f"{out.stem}_sheet.png") if args.sheet else None
    for written in (out, *([sheet] if sheet else [])):
        for source in pair[1:]:
            if written.exists() and written.samefile(source):
                raise UserError(f"--out {written}: is the source image {source}; choose another name")
    check_writable(out.parent)
    options = _alignment_options(args)
    check = options.pop("check") and options["alignment"] is None
    remarks = Remarks(print_warning, check=(pair.stem,) if check else ())
    reading = Reading(
        args.infrared_range, args.max_side, invert=args.invert_infrared, resize=args.resize, remarks=remarks, **options
    )
    luma, chroma, infrared = read_pair(pair, reading)
    remarks.finish(inverted=args.invert_infrared)
    from langfuse_jax.inference.memory import check_memory, device_errors  # JAX: not before the images are read

    fuser = _load_fuser(args)
    check_memory(fuser.net, luma.shape, tile=args.tile)
    with device_errors():
        fused = fuser(luma, infrared, tile=args.tile)
    write_fused(out, (luma, chroma, infrared), fused, sheet=sheet, gray=args.gray, bits=args.bits)
    print(one_line(f"wrote {out}" + (f" and {sheet}" if sheet else "")))
    return 0
