"""Where the two images of a scene lie in a folder: the layouts in which datasets of pairs are handed around."""

import os
from pathlib import Path

from langfuse_jax.errors import UserError
from langfuse_jax.images.files import EXTENSIONS
from langfuse_jax.images.pairs import Pair, match_pairs

# Folder names, in small letters; `crop_lr_visible` and `cropinfrared` are RoadScene's own.
VISIBLE = ("visible", "vi", "vis", "crop_lr_visible")
INFRARED = ("infrared", "ir", "cropinfrared")
PARTS = ("train", "test")


def find_parts(folder: str | os.PathLike) -> dict[str, tuple[Path, Path]]:
    """The visible and the infrared folder of each part of a dataset: of "train" and "test", or of "train" alone.

    Three layouts, whatever the case of the names: `visible/` and `infrared/` (or vi, vis; ir) with images; the same
    with `train/` and `test/` inside (LLVIP); or inside `train/` and `test/` (MSRS). Raises UserError, naming the
    folder, for anything else, and where two folders of one role lie side by side.

    >>> from langfuse_jax.examples.night_scene import write_night_scenes
    >>> write_night_scenes("data/train", 1, 48, 64)
    >>> {part: [folder.name for folder in folders] for part, folders in find_parts("data").items()}
    {'train': ['visible', 'infrared']}
    """
    folder = Path(folder)
    if not folder.is_dir():
        problem = "is not a folder" if folder.exists() else "no such folder"
        raise UserError(f"{folder}: {problem}; give a folder of pairs, with visible/ and infrared/ inside")
    if roles := _roles(folder):
        visible, infrared = (_folders(role) for role in roles)
        if any(_has_images(role) for role in roles) or not any(part in visible for part in PARTS):
            return {"train": roles}
        both = [part for part in PARTS if part in visible and part in infrared]
        parts = {part: (visible[part], infrared[part]) for part in both}
    else:
        folders = _folders(folder)
        parts = {part: roles for part in PARTS if part in folders and (roles := _roles(folders[part]))}
    if not parts:
        raise UserError(
            f"{folder}: no folders of visible and infrared images in it; expected visible/ and infrared/ (or vi, vis; "
            "ir), alone, inside train/ and test/, or with train/ and test/ inside"
        )
    return parts


def part_pairs(folder: str | os.PathLike, part: str) -> list[Pair]:
    """The pairs of one part of a folder, sorted by stem; all of them where the folder has no such part.

    Raises UserError as `find_parts`, and for an image without a partner.

    >>> from langfuse_jax.examples.night_scene import write_night_scenes
    >>> write_night_scenes("data", 2, 48, 64)
    >>> [pair.stem for pair in part_pairs("data", "test")]
    ['0', '1']
    """
    parts = find_parts(folder)
    return paired(*parts.get(part, parts[next(iter(parts))]))


def paired(visible: Path, infrared: Path) -> list[Pair]:
    """All pairs of two folders, sorted by stem. Raises UserError for an image without a partner; see `match_pairs`.

    >>> from langfuse_jax.examples.night_scene import write_night_scenes
    >>> write_night_scenes("scenes", 2, 48, 64)
    >>> [pair.stem for pair in paired(Path("scenes/visible"), Path("scenes/infrared"))]
    ['0', '1']
    """
    pairs, alone = match_pairs(visible, infrared)
    if alone:
        raise UserError(f"{alone[0]}: no image of that stem on the other side; add it or take this one away")
    return pairs


def _roles(folder: Path) -> tuple[Path, Path] | None:
    """The visible and the infrared folder in a folder, or None."""
    inside = _folders(folder)
    found = [[inside[name] for name in names if name in inside] for names in (VISIBLE, INFRARED)]
    for folders in found:
        if len(folders) > 1:
            raise UserError(f"{folders[0]} and {folders[1]}: which of them is meant? Move one of them away")
    return (found[0][0], found[1][0]) if all(found) else None


def _folders(folder: Path) -> dict[str, Path]:
    """The folders in a folder by their names in small letters."""
    with os.scandir(folder) as entries:
        return {entry.name.lower(): Path(entry.path) for entry in entries if entry.is_dir()}


def _has_images(folder: Path) -> bool:
    with os.scandir(folder) as entries:
        return any(entry.name.lower().endswith(EXTENSIONS) for entry in entries)
