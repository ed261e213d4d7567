"""Flags that several sub-commands share."""

import argparse
import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from langfuse_jax.errors import UserError
from langfuse_jax.images.files import MAX_SIDE
from langfuse_jax.images.naming import Convention, parse_convention

if TYPE_CHECKING:
    from langfuse_jax.alignment.transform import Alignment


def add_model(parser: argparse.ArgumentParser) -> None:
    """--model."""
    parser.add_argument(
        "--model",
        metavar="M",
        help="which weights of the package: steered, which follows words (default), or ldfusion, the published network",
    )


def add_pair_by(parser: argparse.ArgumentParser) -> None:
    """--pair-by."""
    parser.add_argument(
        "--pair-by",
        metavar="VIS,IR",
        help="how the source files of a pair are named, as *_vi,*_ir (default: equal stems, else it is detected)",
    )


def given_convention(args: argparse.Namespace) -> Convention | None:
    """What --pair-by says; None where it is not given."""
    return parse_convention(args.pair_by) if args.pair_by else None


def add_alignment(parser: argparse.ArgumentParser) -> None:
    """--alignment, --to and --outside."""
    parser.add_argument(
        "--alignment",
        metavar="FILE",
        help="alignment file of `langfuse-jax align`, or the folder that `align --each` wrote",
    )
    parser.add_argument("--to", choices=("visible", "infrared"), help="with an alignment: grid of the result (visible)")
    parser.add_argument(
        "--outside",
        choices=("crop", "visible"),
        help="with an alignment: crop to the overlap (default), or keep the visible image alone outside it",
    )


def load_alignment(path: str | None) -> "Alignment | dict[str, Alignment] | None":
    """What --alignment names: one for all pairs, or those of a folder by the stems of their pairs."""
    if path is None:
        return None
    from langfuse_jax.alignment.transform import Alignment  # OpenCV is an extra

    if not os.path.isdir(path):
        return _trusted(Alignment.load(path), path)
    files = sorted(file for file in Path(path).glob("*.json") if not file.name.startswith("."))
    if not files:
        raise UserError(f"--alignment {path}: has no .json files; give what `langfuse-jax align --each` wrote")
    return {file.stem: _trusted(Alignment.load(file), file) for file in files}


def _trusted(alignment: "Alignment", path: str | Path) -> "Alignment":
    if not alignment.accepted:
        raise UserError(f"--alignment {path}: was refused ({alignment.reason}); align other pairs of this rig")
    return alignment


def add_allow_large(parser: argparse.ArgumentParser) -> None:
    """--allow-large."""
    parser.add_argument("--allow-large", action="store_true", help="take images of more than 8192 pixels a side too")


def allowed_side(allow_large: bool) -> int | None:
    """Pixels a side over which images are refused."""
    if not allow_large:
        return MAX_SIDE
    Image.MAX_IMAGE_PIXELS = None  # Pillow has a limit of its own
    return None


def check_sources(visible: str | None, infrared: str, *, frames: bool = False) -> None:
    """Raises UserError for sources that are missing, that are one file, or (but for `frames`) a file and a folder.

    One folder may hold both, by their names; `visible` is None for cameras that keep a photo.
    """
    for flag, path in (("--visible", visible), ("--infrared", infrared)):
        if path is not None and not os.path.exists(path):
            raise UserError(f"{flag} {path}: no such file or folder; check the path")
    if visible is None:
        return
    if not frames and os.path.isdir(visible) != os.path.isdir(infrared):
        raise UserError(
            f"--visible {visible} and --infrared {infrared}: one is a file and the other a folder; "
            "give two files or two folders"
        )
    if os.path.isfile(visible) and os.path.samefile(visible, infrared):
        raise UserError(f"{visible}: is given as both --visible and --infrared; they must differ")


def add_compilation_cache(parser: argparse.ArgumentParser) -> None:
    """--compilation-cache."""
    parser.add_argument(
        "--compilation-cache",
        metavar="DIR",
        help="folder that keeps compiled programs, or off (default: $LANGFUSE_JAX_COMPILATION_CACHE, "
        "$JAX_COMPILATION_CACHE_DIR, or langfuse_jax in the user's cache folder)",
    )


def add_config(parser: argparse.ArgumentParser, example: str) -> None:
    """--config, whose values other flags may override (the command gets them as `args.overrides`), and --override."""
    parser.add_argument(
        "--config", required=True, metavar="NAME", help=f"a config of the package such as {example}, or a file's path"
    )
    parser.add_argument("--override", action="store_true", help="resume in a folder that another config began")
    parser.epilog = "Any value of the config can be overridden: --config.x=y"
    parser.set_defaults(takes_overrides=True)


def command_line(args: argparse.Namespace, folder: str) -> str:
    """What makes the same once more: a sub-command with its config, its folder (by the flag `folder`) and overrides."""
    words = ["--config", args.config, f"--{folder}", getattr(args, folder), *args.overrides]
    return shlex.join(["langfuse-jax", args.command, *words])
