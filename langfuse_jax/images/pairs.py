"""Which visible image belongs to which infrared image: the one with the same file stem."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32

from langfuse_jax.errors import UserError
from langfuse_jax.images.files import EXTENSIONS, MAX_SIDE, Limits, header_size, read_infrared, read_visible
from langfuse_jax.runtime.threads import ahead, default_threads, pool

# Luma and chroma (None: gray) of a visible image, and an infrared image. Those of a list differ in size.
Sources = tuple[Float32[np.ndarray, "_ _"], Float32[np.ndarray, "_ _ 2"] | None, Float32[np.ndarray, "_ _"]]


class Pair(NamedTuple):
    """One scene seen twice."""

    stem: str
    visible: Path
    infrared: Path


class FusedPair(NamedTuple):
    """One scene seen twice, and what each of some methods made of it."""

    stem: str
    visible: Path
    infrared: Path
    fused: tuple[Path, ...]


def match_pairs(visible_folder: str | os.PathLike, infrared_folder: str | os.PathLike) -> tuple[list[Pair], list[Path]]:
    """The pairs of two folders, sorted by stem, and the images in either folder that have no partner.

    `night/7.jpg` and `thermal/7.PNG` are a pair; sub-folders, hidden files and files that are no images by their
    extension are skipped. Raises UserError for a missing folder, one without images, two images of one stem in
    one folder, the same folder given twice, and folders without a single pair.

    >>> from langfuse_jax.examples.night_scene import write_night_scenes
    >>> write_night_scenes("scenes", 2, 48, 64)
    >>> pairs, alone = match_pairs("scenes/visible", "scenes/infrared")
    >>> [pair.stem for pair in pairs], alone
    (['0', '1'], [])
    """
    visible, infrared = by_stem(visible_folder, "visible"), by_stem(infrared_folder, "infrared")
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


def match_fused(
    fused_folders: Mapping[str, str | os.PathLike],
    visible_folder: str | os.PathLike,
    infrared_folder: str | os.PathLike,
) -> tuple[list[FusedPair], list[str]]:
    """The scenes that both sources and every method have, sorted by stem, and a line for each scene that they have not.

    `fused_folders` maps a method to its folder. A stem counts as it is: `7_fused.png` is not `7.png`. Raises UserError
    as `match_pairs` does, and where no scene is in all folders.

    >>> from langfuse_jax.examples.night_scene import write_night_scenes
    >>> write_night_scenes("scenes", 2, 48, 64)
    >>> scenes, problems = match_fused({"mine": "scenes/infrared"}, "scenes/visible", "scenes/infrared")
    >>> [scene.stem for scene in scenes], problems
    (['0', '1'], [])
    """
    folders = {
        visible_folder: by_stem(visible_folder, "visible"),
        infrared_folder: by_stem(infrared_folder, "infrared"),
    }
    if os.path.samefile(visible_folder, infrared_folder):
        raise UserError(f"{visible_folder}: is given as both the visible and the infrared folder; they must differ")
    folders |= {folder: by_stem(folder, "fused") for folder in fused_folders.values()}
    everywhere = set.intersection(*(set(images) for images in folders.values()))
    if not everywhere:
        raise UserError(_no_scene(folders))
    problems = []
    for stem in sorted(set().union(*folders.values()) - everywhere):
        having = next(images[stem] for images in folders.values() if stem in images)
        lacking = [str(folder) for folder, images in folders.items() if stem not in images]
        problems.append(f"{having}: left out, no image of that stem in {' nor in '.join(lacking)}")
    scenes = [
        FusedPair(
            stem,
            folders[visible_folder][stem],
            folders[infrared_folder][stem],
            tuple(folders[folder][stem] for folder in fused_folders.values()),
        )
        for stem in sorted(everywhere)
    ]
    return scenes, problems


def _no_scene(folders: Mapping[str | os.PathLike, Mapping[str, Path]]) -> str:
    """Which folders have nothing in common, with two files that may have been meant to match."""
    (first, its_images), *others = folders.items()
    for folder, images in others:
        if not images.keys() & its_images.keys():
            alike = [(a, b) for a in its_images for b in images if a in b or b in a]
            a, b = max(
                alike, key=lambda names: min(map(len, names)), default=(next(iter(its_images)), next(iter(images)))
            )
            return (
                f"{first} and {folder}: no file of one has the stem of a file of the other, such as "
                f"{its_images[a].name} and {images[b].name}; name them alike up to the ending"
            )
    return f"{', '.join(map(str, folders))}: no stem is in all of these folders; name the images of a scene alike"


def by_stem(folder: str | os.PathLike, role: str) -> dict[str, Path]:
    """The images of a folder by their stems, sorted; `role` is what the errors call them. Raises as `match_pairs`.

    >>> from langfuse_jax.examples.night_scene import write_night_scenes
    >>> write_night_scenes("scenes", 2, 48, 64)
    >>> by_stem("scenes/visible", "visible")["1"].name
    '1.png'
    """
    folder = Path(folder)
    if not folder.is_dir():
        problem = "is not a folder" if folder.exists() else "no such folder"
        raise UserError(f"{folder}: {problem}; give the folder of {role} images")
    images: dict[str, Path] = {}
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


def read_pair(pair: Pair, limits: Limits | None = None, max_side: int | None = MAX_SIDE) -> Sources:
    """Luma and chroma (None for gray) of the visible image, and the infrared image; see `images.files.read_infrared`.

    Raises UserError, naming both files, where they differ in size, and as the readers do.

    >>> from langfuse_jax.examples.night_scene import write_night_scenes
    >>> write_night_scenes("scenes", 2, 48, 64)
    >>> luma, chroma, infrared = read_pair(match_pairs("scenes/visible", "scenes/infrared")[0][0])
    >>> luma.shape, chroma.shape, infrared.shape
    ((48, 64), (48, 64, 2), (48, 64))
    """
    luma, chroma = read_visible(pair.visible, max_side)
    infrared = read_infrared(pair.infrared, limits, max_side)
    check_sizes({pair.visible: luma.shape, pair.infrared: infrared.shape})
    return luma, chroma, infrared


def scan_sizes(
    scenes: Sequence[FusedPair], failed: Callable[[FusedPair, UserError], None]
) -> dict[FusedPair, tuple[int, int] | None]:
    """Height and width of scenes by the headers of their files, without those whose images differ: they go to `failed`.

    None stands for a scene whose header cannot be read: what is wrong is said when the file is read.

    Example::

        scenes, _ = match_fused({"mine": "FUSED"}, "VIS", "IR")
        sizes = scan_sizes(scenes, failed=lambda scene, error: print(error))
    """
    sizes = {}
    with pool(default_threads()) as workers:
        for scene, future in ahead(workers, _header_sizes, scenes, 64):
            known = {path: size for path, size in future.result().items() if size}
            try:
                check_sizes(known)
            except UserError as error:
                failed(scene, error)
            else:
                sizes[scene] = known.get(scene.visible)
    return sizes


def _header_sizes(scene: FusedPair) -> dict[Path, tuple[int, int] | None]:
    return {path: header_size(path) for path in (scene.visible, scene.infrared, *scene.fused)}


def check_sizes(sizes: Mapping[Path, tuple[int, int]]) -> None:
    """Raises UserError, naming two files, unless all are of one size (height, width).

    >>> check_sizes({Path("a.png"): (48, 64), Path("b.png"): (64, 48)})
    Traceback (most recent call last):
        ...
    langfuse_jax.errors.UserError: a.png is 64x48 and b.png is 48x64 pixels: they must be ...
    """
    for path, (height, width) in sizes.items():
        first, (h, w) = next(iter(sizes.items()))
        if (height, width) != (h, w):
            raise UserError(
                f"{first} is {w}x{h} and {path} is {width}x{height} pixels: they must be of one size; "
                "register and crop or resize one of them"
            )
