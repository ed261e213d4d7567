"""`langfuse-jax evaluate`: fused images of one or several methods scored against their sources."""

import argparse
import os
import sys
from functools import partial
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING

from langfuse_jax.commands.flags import (
    add_alignment,
    add_compilation_cache,
    add_pair_by,
    given_convention,
    load_alignment,
)
from langfuse_jax.errors import UserError, print_warning
from langfuse_jax.evaluation.folders import evaluate_folders
from langfuse_jax.evaluation.outputs import KINDS
from langfuse_jax.evaluation.table import as_text

if TYPE_CHECKING:
    from langfuse_jax.clip.pretrained import Clip
    from langfuse_jax.clip.words import TextEmbeddings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of the sub-command."""
    parser.description = (
        "Scores of fused images, each and as mean +- standard deviation (population); several methods side "
        "by side with ranks. Images match by file stem, whatever their endings. Colour images are compared on Y (luma, "
        "BT.601), and all are rounded to 8 bits. A scene that one folder lacks or that cannot be read is named and "
        "left out for all methods, and the exit status is 1."
    )
    parser.add_argument(
        "--fused",
        metavar="[NAME=]F",
        required=True,
        action="append",
        help="fused image, or a folder of them; once for each method (its name: that of the folder)",
    )
    parser.add_argument("--visible", metavar="A", required=True, help="visible image, or a folder of them")
    parser.add_argument("--infrared", metavar="B", required=True, help="infrared image, or a folder of them")
    add_pair_by(parser)
    add_alignment(parser)
    parser.add_argument(
        "--metrics", metavar="M,M", help="names such as EN,SD,VIF, or all (default: EN,SD,SF,AG,MI,SCD,VIF,Qabf,SSIM)"
    )
    parser.add_argument(
        "--convention",
        choices=("cddfuse", "tang", "vifb", "corrected"),
        default="cddfuse",
        help="which published script the numbers equal (cddfuse), or corrected: without their bugs, for new work",
    )
    for kind, what in (
        ("csv", "a row for each method and image, then mean, std and rank"),
        ("json", "everything"),
        ("markdown", "tables of the means and of all images"),
        ("latex", "a tabular of the means for booktabs"),
    ):
        parser.add_argument(f"--{kind}", metavar="FILE", help=f"write {what}")
    parser.add_argument(
        "--plot", metavar="FILE.png", help="draw bars of the means, as .png, .pdf or .svg (needs the extra [plot])"
    )
    parser.add_argument("--strict", action="store_true", help="end with status 2 at the first scene to be left out")
    parser.add_argument(
        "--language",
        action="store_true",
        help="also score towards sentences in CLIP space; each of the next five flags implies it",
    )
    parser.add_argument("--clip", metavar="C", help="CLIP folder or hub id (default: the compact CLIP)")
    parser.add_argument("--text", metavar="FILE.npz", help="sentences encoded by `langfuse-jax embed`")
    for role in ("goal", "visible-text", "infrared-text"):
        name = role.removesuffix("-text")
        parser.add_argument(
            f"--{role}", metavar="TEXT", action="append", help=f"{name} sentence instead of the usual one; repeatable"
        )
    add_compilation_cache(parser)


def run(args: argparse.Namespace) -> int:
    """Runs the sub-command: 0 when all images are scored, 1 when some are left out; else raises UserError."""
    for flag, given in (("--to", args.to), ("--outside", args.outside)):
        if given and not args.alignment:
            raise UserError(f"{flag} {given}: requires --alignment; give it, or leave this out")
    for kind in KINDS:
        path = getattr(args, kind)
        if path and args.alignment and os.path.exists(path) and os.path.samefile(path, args.alignment):
            raise UserError(f"--{kind} {path}: is the file of --alignment; choose another name")
    outputs = {kind: Path(path) for kind in KINDS if (path := getattr(args, kind))}
    metrics = args.metrics if args.metrics in (None, "", "all") else [m.strip() for m in args.metrics.split(",")]
    result = evaluate_folders(
        _methods(args.fused),
        args.visible,
        args.infrared,
        metrics=metrics,
        convention=args.convention,
        load_language=partial(_load_language, args),
        outputs=outputs,
        strict=args.strict,
        pair_by=given_convention(args),
        alignment=load_alignment(args.alignment),
        to=args.to or "visible",
        outside=args.outside or "crop",
    )
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # not every terminal has arrows
    print(f"{result.title}\n\n{as_text(result.table)}", end="")
    if outputs:
        print(f"\nwrote {', '.join(map(str, outputs.values()))}")
    if result.left_out:
        print(f"langfuse-jax: {len(result.left_out)} left out, see above; exit status 1", file=sys.stderr)
    return 1 if result.left_out else 0


def _methods(arguments: list[str]) -> dict[str, str]:
    """The paths of --fused by the names of the methods: of NAME=PATH, else of the folder (or the file's stem)."""
    methods: dict[str, str] = {}
    for argument in arguments:
        name, equals, path = argument.partition("=")
        if not equals or not name or os.sep in name or os.path.exists(argument):
            path, folder = argument, Path(argument).resolve()
            name = folder.name if folder.is_dir() else folder.stem
        if not os.path.exists(path):
            raise UserError(f"--fused {path}: no such file or folder; check the path")
        if name in methods:
            raise UserError(f"--fused {methods[name]} and {path}: are both named {name}; give --fused NAME={path}")
        methods[name] = path
    return methods


def _load_language(args: argparse.Namespace) -> "tuple[Clip, TextEmbeddings] | None":
    """The CLIP and the sentences of the language scores, if they are asked for."""
    # JAX: not before the flags are known to be right.
    from langfuse_jax.runtime.compilation import keep_programs

    keep_programs(args.compilation_cache)
    sentences = {"goal": args.goal, "visible": args.visible_text, "infrared": args.infrared_text}
    if not (args.language or args.clip or args.text or any(sentences.values())):
        return None
    if args.text and any(sentences.values()):
        raise UserError(
            f"--text {args.text}: holds the sentences already; leave out --goal, --visible-text, --infrared-text"
        )
    from langfuse_jax.clip.pretrained import Clip
    from langfuse_jax.clip.words import TextEmbeddings, embed

    text = TextEmbeddings.load(args.text) if args.text else None
    clip = Clip.load(args.clip)
    if text:
        text.check(clip)
        return clip, text
    return clip, embed(clip, **{role: given for role, given in sentences.items() if given}, report=print_warning)
