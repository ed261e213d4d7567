"""Where the two images of a scene lie in a folder: the layouts in which datasets of pairs are handed around."""

import os
from collections.abc import Iterable
from pathlib import Path

from langfuse_jax.errors import UserError
from langfuse_jax.images.files import EXTENSIONS
from langfuse_jax.images.naming import find_convention
from langfuse_jax.images.pairs import Pair, by_stem, match_pairs

# Folder names, in small letters; `crop_lr_visible` and `cropinfrared` are RoadScene's own.
VISIBLE = ("visible", "vi", "vis", "rgb", "color", "crop_lr_visible")
INFRARED = ("infrared", "ir", "thermal", "lwir", "cropinfrared")
PARTS = {"train": ("train",), "test": ("test", "val", "valid", "validation")}  # and their folders' names


def find_parts(folder: str | os.PathLike) -> dict[str, tuple[Path, Path]]:
    """The visible and the infrared folder of each part of a dataset: of "train" and "test", or of "train" alone.

    Four layouts, whatever the case of the names: `visible/` and `infrared/` (or vi, vis; ir) with images; the same
    with `train/` and `test/` inside (LLVIP); or inside `train/` and `test/` (MSRS); or the images of both roles in one
    folder, for each part or alone, told apart by their names (`images.naming`). Without `test/`, `val/` takes its
    place. Raises UserError, naming the folder, for anything else, for a part on one side alone, and where two folders
    of one role lie side by side.

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
        visible, infrared = (_parts(role) for role in roles)
        if any(_has_images(role) for role in roles) or not visible:
            return {"train": roles}
        for part in visible.keys() ^ infrared.keys():
            raise UserError(f"{visible.get(part) or infrared.get(part)}: the other side has no such part; add it")
        parts = {part: (visible[part], infrared[part]) for part in visible}
    else:
        parts = {}
        for part, inside in _parts(folder).items():
            if (roles := _roles(inside) or _mixed(inside)) is None:
                raise UserError(f"{inside}: has no visible/ and infrared/ inside; add them, or take it away")
            parts[part] = roles
    if not parts and (mixed := _mixed(folder)):
        return {"train": mixed}
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
    pairs, alone, _ = match_pairs(visible, infrared)
    if alone:
        raise UserError(f"{alone[0]}: no image of that stem on the other side; add it or take this one away")
    return pairs


def _roles(folder: Path) -> tuple[Path, Path] | None:
    """The visible and the infrared folder in a folder, or None."""
    inside = _folders(folder)
    found = [[inside[name] for name in names if name in inside] for names in (VISIBLE, INFRARED)]
    _check_alone(found)
    return (found[0][0], found[1][0]) if all(found) else None


def _mixed(folder: Path) -> tuple[Path, Path] | None:
    """The folder as that of both roles, where it has images whose names tell the two apart, or None."""
    if not _has_images(folder):
        return None
    stems = [*by_stem(folder, "visible and infrared")]
    return (folder, folder) if find_convention(stems, stems, one_folder=True) else None


def _parts(folder: Path) -> dict[str, Path]:
    """The folders of the parts in a folder."""
    inside = _folders(folder)
    found = {part: [inside[name] for name in names if name in inside] for part, names in PARTS.items()}
    return {part: folders[0] for part, folders in found.items() if folders}  # test/ before val/


def _check_alone(found: Iterable[list[Path]]) -> None:
    for folders in found:
        if len(folders) > 1:
            raise UserError(f"{folders[0]} and {folders[1]}: which of them is meant? Move one of them away")


def _folders(folder: Path) -> dict[str, Path]:
    """The folders in a folder by their names in small letters."""
    with os.scandir(folder) as entries:
        return {entry.name.lower(): Path(entry.path) for entry in entries if os.path.isdir(entry.path)}


def _has_images(folder: Path) -> bool:
    with os.scandir(folder) as entries:
        return any(entry.name.lower().endswith(EXTENSIONS) for entry in entries)
