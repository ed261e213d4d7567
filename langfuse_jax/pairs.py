"""Which visible image belongs to which infrared image: the one with the same file stem."""

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32

from langfuse_jax.errors import UserError
from langfuse_jax.images import EXTENSIONS, MAX_SIDE, Limits, read_infrared, read_visible


class Pair(NamedTuple):
    """One scene seen twice."""

    stem: str
    visible: Path
    infrared: Path


def match_pairs(visible_folder: str | os.PathLike, infrared_folder: str | os.PathLike) -> tuple[list[Pair], list[Path]]:
    """The pairs of two folders, sorted by stem, and the images in either folder that have no partner.

    `night/7.jpg` and `thermal/7.PNG` are a pair; sub-folders, hidden files and files that are no images by their
    extension are passed over. Raises UserError for a missing folder, one without images, two images of one stem in
    one folder, the same folder given twice, and folders without a single pair.
    """
    visible, infrared = _by_stem(visible_folder, "visible"), _by_stem(infrared_folder, "infrared")
    if os.path.samefile(visible_folder, infrared_folder):
        raise UserError(f"{visible_folder}: is given as both the visible and the infrared folder; they must differ")
    both = visible.keys() & infrared.keys()
    if not both:
        raise UserError(
            f"{visible_folder} and {infrared_folder}: no file of one has the stem of a file of the other; "
            "name both images of a pair alike, such as 7.jpg and 7.png"
        )
    alone = [path for images in (visible, infrared) for stem, path in images.items() if stem not in both]
    alone.sort(key=lambda path: path.stem)
    return [Pair(stem, visible[stem], infrared[stem]) for stem in sorted(both)], alone


def _by_stem(folder, role):
    folder = Path(folder)
    if not folder.is_dir():
        problem = "is not a folder" if folder.exists() else "no such folder"
        raise UserError(f"{folder}: {problem}; give the folder of {role} images")
    images = {}
    with os.scandir(folder) as entries:  # which knows files from folders without asking for each
        names = sorted(entry.name for entry in entries if entry.name.lower().endswith(EXTENSIONS) and entry.is_file())
    for name in names:
        path = folder / name
        if path.suffix.lower() not in EXTENSIONS or name.startswith("."):
            continue
        if path.stem in images:
            raise UserError(f"{images[path.stem]} and {path}: two images of one stem; rename or remove one of them")
        images[path.stem] = path
    if not images:
        raise UserError(f"{folder}: has no {role} images; expected files ending in {' '.join(EXTENSIONS)}")
    return images


def read_pair(
    pair: Pair, limits: Limits | None = None, max_side: int | None = MAX_SIDE
) -> tuple[Float32[np.ndarray, "h w"], Float32[np.ndarray, "h w 2"] | None, Float32[np.ndarray, "h w"]]:
    """Luma and chroma (None for gray) of the visible image, and the infrared image; see `images.read_infrared`.

    Raises UserError, naming both files, where they differ in size, and as the readers do.
    """
    luma, chroma = read_visible(pair.visible, max_side)
    infrared = read_infrared(pair.infrared, limits, max_side)
    if luma.shape != infrared.shape:
        sizes = [f"{image.shape[1]}x{image.shape[0]}" for image in (luma, infrared)]
        raise UserError(
            f"{pair.visible} is {sizes[0]} and {pair.infrared} is {sizes[1]} pixels: they must be of one size; "
            "register and crop or resize one of them"
        )
    return luma, chroma, infrared
