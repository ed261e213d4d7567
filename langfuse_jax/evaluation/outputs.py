"""Files of scores: which can be written, and what is in them."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from langfuse_jax.errors import UserError
from langfuse_jax.evaluation.plot import FORMATS, draw, load_matplotlib
from langfuse_jax.evaluation.table import ScoreTable, as_csv, as_json, as_latex, as_markdown
from langfuse_jax.images.files import EXTENSIONS
from langfuse_jax.images.pairs import FusedPair
from langfuse_jax.runtime.atomic import atomic_write, check_writable

KINDS = ("csv", "json", "markdown", "latex", "plot")


def check_outputs(outputs: Mapping[str, Path], scenes: Iterable[FusedPair], folders: Iterable[Path] = ()) -> None:
    """Raises UserError, by the flag, for files that cannot be written, and for images that they would replace.

    These are the images of `scenes`, those in `folders`, and, but for a plot, every file that is named as an image.

    Example::

        check_outputs({"csv": Path("scores.csv"), "plot": Path("scores.pdf")}, scenes)
    """
    read = {os.path.realpath(folder) for folder in folders}
    taken = {os.path.realpath(path) for scene in scenes for path in (scene.visible, scene.infrared, *scene.fused)}
    for kind, path in outputs.items():
        if path.is_dir():
            raise UserError(f"--{kind} {path}: is a folder; give a file's name")
        if os.path.realpath(path) in taken:
            raise UserError(f"--{kind} {path}: is another file of this command; choose another name")
        is_image = path.suffix.lower() in EXTENSIONS and os.path.isfile(path)
        if is_image and (kind != "plot" or os.path.realpath(path.parent) in read):
            raise UserError(f"--{kind} {path}: would replace an image; choose another name")
        taken.add(os.path.realpath(path))
        check_writable(path.parent, f"--{kind}")
    if plot := outputs.get("plot"):
        if plot.suffix[1:].lower() not in FORMATS:
            raise UserError(f"--plot {plot}: is of no known kind; end it in .{', .'.join(FORMATS)}")
        load_matplotlib()


def write_outputs(outputs: Mapping[str, Path], table: ScoreTable, about: Mapping[str, Any], title: str) -> None:
    """Writes each file of `outputs`, by their `KINDS`, whole or not at all.

    Example::

        write_outputs({"csv": Path("scores.csv")}, table, {}, "21 images")
    """
    contents = {
        "csv": lambda: as_csv(table),
        "json": lambda: as_json(table, about),
        "markdown": lambda: as_markdown(table),
        "latex": lambda: f"% {title}, mean and standard deviation\n{as_latex(table)}",
    }
    for kind, path in outputs.items():
        if kind == "plot":
            content = draw(table, title, path.suffix[1:].lower())
        else:
            content = contents[kind]().encode(errors="surrogateescape")
        with atomic_write(path) as file:
            file.write(content)
