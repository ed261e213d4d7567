"""`langfuse-jax align`: the transform between the two cameras of a rig, in a file for `fuse` and `evaluate`."""

import argparse
import os
from contextlib import suppress
from pathlib import Path

from langfuse_jax.alignment import MODELS
from langfuse_jax.commands.flags import add_allow_large, add_pair_by, allowed_side, check_sources, given_convention
from langfuse_jax.errors import UserError, one_line
from langfuse_jax.images.encoding import check_output, write_image
from langfuse_jax.runtime.atomic import check_writable
from langfuse_jax.runtime.bars import progress_bar, write_beside


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of the sub-command."""
    parser.description = (
        "Finds the one transform from the infrared pixels of a rig to its visible ones, from several of its pairs; "
        "sizes and fields of view may differ. What cannot be aligned is refused with the reason and status 2. Requires "
        "the extra [align]."
    )
    parser.add_argument(
        "--visible",
        metavar="A",
        help="visible image, folder of them, or video (not needed for files of cameras that keep a photo)",
    )
    parser.add_argument("--infrared", metavar="B", required=True, help="infrared image, folder of them, or video")
    parser.add_argument(
        "--out", metavar="C", required=True, help="JSON file to write; with --each, a folder for one file a pair"
    )
    parser.add_argument(
        "--model",
        choices=MODELS,
        default="homography",
        help="of the transform (homography, with shear and perspective kept small unless the matches need them)",
    )
    parser.add_argument("--pairs", type=int, metavar="N", help="number of pairs to use, spread evenly over folders (5)")
    parser.add_argument("--each", action="store_true", help="align each pair of two folders separately")
    parser.add_argument(
        "--plot", metavar="FILE", help="draw both images as a checkerboard, and their edges, before and after"
    )
    add_pair_by(parser)
    add_allow_large(parser)


def run(args: argparse.Namespace) -> int:
    """Runs the sub-command: 0 when all is aligned, 1 when some pairs of --each are not; else raises UserError."""
    from langfuse_jax.inference.rigs import is_video

    videos = any(path is not None and is_video(path) for path in (args.visible, args.infrared))
    check_sources(args.visible, args.infrared, frames=videos)
    folders = os.path.isdir(args.infrared)
    if args.pairs is not None and args.pairs < 1:
        raise UserError(f"--pairs {args.pairs}: must be at least 1")
    if args.pair_by and (not folders or args.visible is None):
        raise UserError(f"--pair-by {args.pair_by}: is for two folders; leave it out")
    if args.each and (args.pairs is not None or args.plot):
        raise UserError("--pairs and --plot: do nothing with --each; leave them out")
    if args.each and not folders:
        raise UserError("--each: is for folders of images; leave it out with single files")
    if args.pairs is not None and not folders and not videos:
        raise UserError(f"--pairs {args.pairs}: is for folders and videos; leave it out with single images")
    if args.plot:
        check_output(args.plot, 8, "--plot")
    args.max_side = allowed_side(args.allow_large)
    return _align_each(args) if args.each else _align_rig(args)


def _align_rig(args: argparse.Namespace) -> int:
    out = Path(args.out)
    if out.is_dir() or out.suffix.lower() != ".json":
        raise UserError(f"--out {out}: must end in .json; with --each it is a folder")
    for flag, written in (("--out", out), *([("--plot", Path(args.plot))] if args.plot else [])):
        _refuse_sources(args, flag, written)
        check_writable(written.parent, flag)
    from langfuse_jax.inference.rigs import PAIRS, align_rig

    with progress_bar(None, unit="step", leave=False) as progress:
        alignment, pair = align_rig(
            args.visible,
            args.infrared,
            count=args.pairs or PAIRS,
            model=args.model,
            pair_by=given_convention(args),
            max_side=args.max_side,
            progress=progress.update,
        )
    described = alignment.describe()
    if args.plot:
        from langfuse_jax.alignment.picture import before_and_after

        write_image(Path(args.plot), before_and_after(pair.visible, pair.infrared, alignment), 8)
    alignment.save(out)
    print(described)
    print(one_line(f"wrote {out}" + (f" and {args.plot}" if args.plot else "")))
    return 0


def _refuse_sources(args: argparse.Namespace, flag: str, written: Path) -> None:
    """Raises UserError where a file that is to be written is a source, or lies among sources."""
    if written.is_dir():
        raise UserError(f"{flag} {written}: is a folder; give the name of a file")
    for source in filter(None, (args.visible, args.infrared)):
        if written.exists() and os.path.samefile(written, source):
            raise UserError(f"{flag} {written}: is a source; choose another name")
        if os.path.isdir(source) and written.parent.exists() and os.path.samefile(written.parent, source):
            raise UserError(f"{flag} {written}: lies in a folder of source images; choose another folder")


def _remove_alignment(path: Path) -> None:
    """Removes a file that this command wrote; others of that name stay."""
    from langfuse_jax.alignment.transform import Alignment

    with suppress(UserError):
        Alignment.load(path)
        path.unlink()


def _align_each(args: argparse.Namespace) -> int:
    out = Path(args.out)
    if (out.suffix and not out.is_dir()) or (out.exists() and not out.is_dir()):
        raise UserError(f"--out {out}: must be a folder with --each; choose a name without an ending")
    for source in filter(None, (args.visible, args.infrared)):
        if out.exists() and os.path.samefile(out, source):
            raise UserError(f"--out {out}: is a folder of source images; choose another one")
    check_writable(out)
    from langfuse_jax.inference.rigs import align_pairs, list_rig, read_rig_pair

    pairs = list_rig(args.visible, args.infrared, given_convention(args))
    failed = []
    with progress_bar(len(pairs), unit="pair") as progress:
        for pair in pairs:
            try:
                alignment = align_pairs([read_rig_pair(pair, args.max_side)], model=args.model)
                line = alignment.describe().splitlines()[0]
                alignment.save(out / f"{pair.stem}.json")
                write_beside(one_line(f"{pair.stem}: {line}"), on_stdout=True)
            except UserError as error:
                write_beside(f"langfuse-jax: {one_line(error)}")
                failed.append(pair.stem)
                _remove_alignment(out / f"{pair.stem}.json")  # of an earlier run: it is not trusted any more
            progress.update()
    done = len(pairs) - len(failed)
    line = f"aligned {done} of {len(pairs)} pairs" + (f" into {out}" if done else "")
    print(one_line(line + (f"; refused: {', '.join(failed)}" if failed else "")))
    return 1 if failed else 0
