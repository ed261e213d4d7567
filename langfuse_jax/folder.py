"""`langfuse-jax fuse`: a pair of files, two folders of them, or the example in; PNGs out."""

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tqdm import tqdm

from langfuse_jax.errors import UserError
from langfuse_jax.images import write_png, ycbcr_to_rgb
from langfuse_jax.pairs import Pair, match_pairs, read_pair
from langfuse_jax.sheet import side_by_side


def fuse_command(args) -> int:
    """Runs the sub-command: 0 when all is fused, 1 when some pairs of a folder are not; else raises UserError."""
    if args.example:
        if args.visible or args.infrared:
            raise UserError("--example: draws its own images; leave out --visible and --infrared")
        return _fuse_example(args)
    for flag, path in (("--visible", args.visible), ("--infrared", args.infrared)):
        if not path:
            raise UserError(f"{flag}: is missing; give --visible and --infrared, or --example alone")
        if not os.path.exists(path):
            raise UserError(f"{flag} {path}: no such file or folder; check the path")
    if os.path.isdir(args.visible) != os.path.isdir(args.infrared):
        raise UserError(
            f"--visible {args.visible} and --infrared {args.infrared}: one is a file and the other a folder; "
            "give two files or two folders"
        )
    return _fuse_folders(args) if os.path.isdir(args.visible) else _fuse_files(args)


def _load_fuser(args):
    from langfuse_jax.fuser import Fuser  # JAX: not before the flags are known to be right

    return Fuser.load(args.checkpoint)


def _fuse_example(args):
    from langfuse_jax.example import night_scene

    out = _output_folder(args.out)
    if out.suffix and not out.exists():
        raise UserError(f"--out {out}: is to be a folder for four images; leave the ending {out.suffix} out")
    fuser = _load_fuser(args)
    visible, infrared = night_scene()
    fused = fuser(visible, infrared)
    if args.gray:
        fused = fused @ [0.299, 0.587, 0.114]
    images = {"infrared": infrared, "visible": visible, "fused": fused}
    images["sheet"] = side_by_side(list(images.values()))
    for name, image in images.items():
        write_png(out / f"{name}.png", image)
    print(f"wrote {out / 'sheet.png'} (infrared | visible | fused), and each of the three beside it")
    return 0


def _fuse_files(args):
    pair = Pair(Path(args.visible).stem, Path(args.visible), Path(args.infrared))
    out = Path(args.out)
    if out.is_dir() or not out.suffix or args.out.endswith(os.sep):
        out = _output_folder(args.out) / f"{pair.stem}.png"
    elif out.suffix.lower() != ".png":
        raise UserError(f"--out {out}: the fused image is a PNG; name a file ending in .png, or a folder ending in /")
    for source in pair[1:]:
        if out.exists() and out.samefile(source):
            raise UserError(f"--out {out}: is the source image {source}; choose another name")
    fuser = _load_fuser(args)
    sheet = out.with_name(f"{out.stem}_sheet.png") if args.sheet else None
    _fuse_pair(fuser, read_pair(pair), out, sheet, args.gray)
    print(f"wrote {out}" + (f" and {sheet}" if sheet else ""))
    return 0


def _fuse_folders(args):
    out = _output_folder(args.out)
    pairs, alone = match_pairs(args.visible, args.infrared)
    for source in (args.visible, args.infrared):
        if out.exists() and out.samefile(source):
            raise UserError(f"--out {out}: is a folder of source images, which it would overwrite; choose another one")
    fuser = _load_fuser(args)
    failed = []

    def report(stem, problem):
        tqdm.write(f"langfuse-jax: {problem}", file=sys.stderr)
        failed.append(stem)

    for path in alone:
        report(path.stem, f"{path}: unpaired, no image of that stem in the other folder")
    # One pair is decoded while the device works on the one before it.
    with ThreadPoolExecutor(1) as reader:
        following = reader.submit(read_pair, pairs[0])
        for i, pair in enumerate(tqdm(pairs, disable=None, unit="pair")):
            current = following
            if i + 1 < len(pairs):
                following = reader.submit(read_pair, pairs[i + 1])
            try:
                images = current.result()
            except UserError as error:
                report(pair.stem, error)
                continue
            sheet = out / "sheets" / f"{pair.stem}.png" if args.sheet else None
            _fuse_pair(fuser, images, out / f"{pair.stem}.png", sheet, args.gray)
    total = len(pairs) + len(alone)
    names = f"; failed: {', '.join(sorted(failed))}" if failed else f" into {out}"
    print(f"fused {total - len(failed)} of {total}{names}")
    return 1 if failed else 0


def _fuse_pair(fuser, images, out, sheet, gray):
    luma, chroma, infrared = images
    fused = fuser(luma, infrared)
    visible = luma
    if chroma is not None:
        visible = ycbcr_to_rgb(luma, chroma)
        fused = fused if gray else ycbcr_to_rgb(fused, chroma)
    write_png(out, fused)
    if sheet:
        write_png(sheet, side_by_side([infrared, visible, fused]))


def _output_folder(path):
    """The folder that --out names; it is made when the first image is written."""
    out = Path(path)
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out}: is a file, and here a folder is needed; choose another name")
    return out
