"""Which visible image belongs to which infrared image: the one with the same file stem."""

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32
from PIL import Image

from langfuse_jax.errors import UserError, reason
from langfuse_jax.images.cameras import photo_beside, photo_size
from langfuse_jax.images.files import (
    EXTENSIONS,
    camera_frame,
    check_sides,
    header_size,
    infrared_size,
    read_infrared,
    read_visible,
    rgb_to_ycbcr,
    thermal_to_unit,
    to_unit,
)
from langfuse_jax.images.naming import SAME, Convention, find_convention
from langfuse_jax.images.reading import AS_THEY_ARE, Reading
from langfuse_jax.images.remarks import Remarks
from langfuse_jax.runtime.threads import ahead, default_threads, pool

NO_COLOUR = 0.03  # of chroma, that compression leaves in a gray image
_COMPARED = 300  # names of a folder, each with each of another, to find two that may have been meant to match

# Luma and chroma (None: gray) of a visible image, and an infrared image. Those of a list differ in size.
Sources = tuple[Float32[np.ndarray, "_ _"], Float32[np.ndarray, "_ _ 2"] | None, Float32[np.ndarray, "_ _"]]
_Scenes = tuple[str | os.PathLike, Mapping[str, Path]]  # a folder, and its files by stem or by scene


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


class Matching(NamedTuple):
    """The pairs of two folders, sorted by stem; the images that have no partner; and how they were named."""

    pairs: list[Pair]
    alone: list[Path]
    convention: Convention

    def why_alone(self, folders: Iterable[str | os.PathLike]) -> list[str]:
        """A line on each image without a partner; it names a file of that stem which is no image that is read."""
        others = {folder: _unread_by_stem(folder) for folder in map(Path, folders)} if self.alone else {}
        return [self._why(path, others) for path in self.alone]

    def _why(self, path: Path, others: Mapping[Path, Mapping[str, Path]]) -> str:
        for folder, unread in others.items():
            if folder != path.parent and (other := unread.get(path.stem)):
                return f"{path}: unpaired, {other} ends in {other.suffix}, which is not read"
        if self.convention != SAME:
            return f"{path}: unpaired, no partner by {self.convention}"
        return f"{path}: unpaired, no image of that stem in the other folder"


def _unread_by_stem(folder: Path) -> dict[str, Path]:
    """The first file that is no image by its ending, for each stem that it may be meant to have."""
    unread: dict[str, Path] = {}
    for other in sorted(folder.iterdir()):
        if other.suffix.lower() in EXTENSIONS or not other.is_file():
            continue
        for dot in re.finditer(r"\.", other.name):  # 7.raw and 7.v1.raw may both be meant as 7
            unread.setdefault(other.name[: dot.start()], other)
    return unread


def match_pairs(
    visible_folder: str | os.PathLike | None,
    infrared_folder: str | os.PathLike,
    convention: Convention | None = None,
) -> Matching:
    """The pairs of two folders, or of one with both roles, by the names of their files.

    Without a visible folder each infrared file, of a camera that keeps a photo beside its frame, is a pair of its own.

    `night/7.jpg` and `thermal/7.PNG` are a pair; where no stems are equal, `images.naming.find_convention` looks for
    `7_vi.jpg` and `7_ir.jpg` and the like, unless a `convention` is given. The stem of a pair is what its names share.
    Sub-folders, hidden files and files that are no images by their extension are skipped. Raises UserError for a
    missing folder, one without images, two images of one stem in one folder, and folders without a single pair.

    >>> from langfuse_jax.examples.night_scene import write_night_scenes
    >>> write_night_scenes("scenes", 2, 48, 64)
    >>> pairs, alone, convention = match_pairs("scenes/visible", "scenes/infrared")
    >>> [pair.stem for pair in pairs], alone, str(convention)
    (['0', '1'], [], '*,*')
    """
    if visible_folder is None:
        own = by_stem(infrared_folder, "infrared")
        return Matching([Pair(stem, path, path) for stem, path in own.items()], [], SAME)
    visible, infrared = by_stem(visible_folder, "visible"), by_stem(infrared_folder, "infrared")
    found = _convention((visible_folder, visible), (infrared_folder, infrared), convention)
    first, second = _by_scene(visible, found or SAME, "visible"), _by_scene(infrared, found or SAME, "infrared")
    both = first.keys() & second.keys() if found else set()
    if not both:
        raise UserError(
            f"{visible_folder} and {infrared_folder}: no file of one has the stem of a file of the other; "
            "name both images of a pair alike, such as 7.jpg and 7.png, or give --pair-by"
        )
    taken = {path for scene in both for path in (first[scene], second[scene])}
    alone = sorted({*visible.values(), *infrared.values()} - taken, key=lambda path: path.stem)
    return Matching([Pair(scene, first[scene], second[scene]) for scene in sorted(both)], alone, found or SAME)


def match_fused(
    fused_folders: Mapping[str, str | os.PathLike],
    visible_folder: str | os.PathLike,
    infrared_folder: str | os.PathLike,
    convention: Convention | None = None,
) -> tuple[list[FusedPair], list[str]]:
    """The scenes that both sources and every method have, sorted by stem, and a line for each scene that they have not.

    `fused_folders` maps a method to its folder. The sources' names are read as `match_pairs` reads them, those of fused
    images count as they are: `7_fused.png` is not `7.png`. Raises UserError as `match_pairs` does, and where no scene
    is in all folders.

    >>> from langfuse_jax.examples.night_scene import write_night_scenes
    >>> write_night_scenes("scenes", 2, 48, 64)
    >>> scenes, problems = match_fused({"mine": "scenes/infrared"}, "scenes/visible", "scenes/infrared")
    >>> [scene.stem for scene in scenes], problems
    (['0', '1'], [])
    """
    folders, problems = _sources_by_scene(visible_folder, infrared_folder, convention)
    folders += [(folder, by_stem(folder, "fused")) for folder in fused_folders.values()]
    everywhere = set.intersection(*(set(images) for _, images in folders))
    if not everywhere:
        raise UserError(_no_scene(folders))
    for stem in sorted({stem for _, images in folders for stem in images} - everywhere):
        having = next(images[stem] for _, images in folders if stem in images)
        lacking = [str(folder) for folder, images in folders if stem not in images]
        problems.append(f"{having}: left out, no image of that stem in {' nor in '.join(lacking)}")
    (_, visible), (_, infrared), *fused = folders
    scenes = [
        FusedPair(stem, visible[stem], infrared[stem], tuple(images[stem] for _, images in fused))
        for stem in sorted(everywhere)
    ]
    return scenes, problems


def _sources_by_scene(
    visible_folder: str | os.PathLike, infrared_folder: str | os.PathLike, convention: Convention | None
) -> tuple[list[_Scenes], list[str]]:
    """Both source folders with their files by their scenes, and a line for each file that is named as none.

    A scene is a stem, or what names share as they are found to be given. In one folder the partner of a file is no
    scene of its own.
    """
    visible, infrared = by_stem(visible_folder, "visible"), by_stem(infrared_folder, "infrared")
    found = _convention((visible_folder, visible), (infrared_folder, infrared), convention) or SAME
    first, second = _by_scene(visible, found, "visible"), _by_scene(infrared, found, "infrared")
    both = first.keys() & second.keys()
    paired = {path for scene in both for path in (first[scene], second[scene])}
    sides = [
        {scene: path for scene, path in side.items() if scene in both or path not in paired} for side in (first, second)
    ]
    named = {*first.values(), *second.values()}
    others = sorted({*visible.values(), *infrared.values()} - named)
    problems = [f"{path}: left out, it is not named as {found}" for path in others]
    return [(visible_folder, sides[0]), (infrared_folder, sides[1])], problems


def _by_scene(images: Mapping[str, Path], convention: Convention, role: str) -> dict[str, Path]:
    """The files of a role by the scenes that their stems name."""
    return {scene: path for stem, path in images.items() if (scene := convention.scene(stem, role)) is not None}


def _convention(first: _Scenes, second: _Scenes, given: Convention | None) -> Convention | None:
    """How the files of two folders are named, by their stems; None where no reading pairs any."""
    (visible_folder, visible), (infrared_folder, infrared) = first, second
    one_folder = os.path.samefile(visible_folder, infrared_folder)
    try:
        found = given or find_convention([*visible], [*infrared], one_folder=one_folder)
    except UserError as error:
        raise UserError(f"{visible_folder} and {infrared_folder}: {error}") from error
    if one_folder and found in (None, SAME):
        raise UserError(
            f"{visible_folder}: is given as both the visible and the infrared folder, and its names do not tell "
            "the two apart; give --pair-by, as *_vi,*_ir"
        )
    return found


def _no_scene(folders: Sequence[_Scenes]) -> str:
    """Which folders have nothing in common, with two files that may have been meant to match."""
    (first, its_images), *others = folders
    for folder, images in others:
        if not its_images or not images:
            return f"{folder if its_images else first}: no file is named as its side of a pair; change --pair-by"
        if not images.keys() & its_images.keys():
            some, more = (list(islice(names, _COMPARED)) for names in (its_images, images))
            alike = [(a, b) for a in some for b in more if a in b or b in a]
            a, b = max(
                alike, key=lambda names: min(map(len, names)), default=(next(iter(its_images)), next(iter(images)))
            )
            return (
                f"{first} and {folder}: no file of one has the stem of a file of the other, such as "
                f"{its_images[a].name} and {images[b].name}; name them alike up to the ending"
            )
    names = ", ".join(str(folder) for folder, _ in folders)
    return f"{names}: no stem is in all of these folders; name the images of a scene alike"


def natural_order(name: str) -> list[tuple[bool, int, str]]:
    """A key that sorts names as people count: frame 10 comes after frame 9.

    >>> sorted(["f10", "f9", "f²"], key=natural_order)
    ['f9', 'f10', 'f²']
    """
    parts = re.split(r"([0-9]+)", name)
    return [(True, int(part), "") if i % 2 else (False, 0, part) for i, part in enumerate(parts)]


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
        names = sorted(entry.name for entry in entries if entry.name.lower().endswith(EXTENSIONS) and _is_file(entry))
    for name in names:
        path = folder / name
        if path.suffix.lower() not in EXTENSIONS or name.startswith("."):
            continue
        if path.stem in images:
            raise UserError(f"{images[path.stem]} and {path}: two images of one stem; rename or remove one of them")
        images[path.stem] = path
    if not images:
        others = sorted({path.suffix.lower() for path in folder.iterdir() if path.suffix and path.is_file()})
        has = f" (it has {' '.join(others)})" if others else ""
        raise UserError(f"{folder}: has no {role} images{has}; expected files ending in {' '.join(EXTENSIONS)}")
    return images


def _is_file(entry: os.DirEntry) -> bool:
    """False for folders; a link that leads nowhere, or to itself, is named when it is read."""
    try:
        return entry.is_file() or (entry.is_symlink() and not entry.is_dir())
    except OSError:
        return True


def read_pair(pair: Pair, reading: Reading = AS_THEY_ARE) -> Sources:
    """Luma and chroma (None for gray) of the visible image, and the infrared image; see `images.files.read_infrared`.

    Where there is no infrared, the visible luma takes its place. A pair of one file is that of a thermal camera which
    keeps a photo beside its frame: the visible image is what the frame shows of it, and the frame is enlarged to it.

    Raises UserError, naming both files, where they differ in size (with `resize`: in shape), and as the readers do.

    >>> from langfuse_jax.examples.night_scene import write_night_scenes
    >>> write_night_scenes("scenes", 2, 48, 64)
    >>> luma, chroma, infrared = read_pair(match_pairs("scenes/visible", "scenes/infrared")[0][0])
    >>> luma.shape, chroma.shape, infrared.shape
    ((48, 64), (48, 64, 2), (48, 64))
    """
    luma, chroma, infrared = brought_to_one_size(read_sources(pair, reading), reading, pair)
    check_sizes({pair.visible: luma.shape, pair.infrared: infrared.shape})
    if reading.remarks is not None:
        reading.remarks.saw_pair(pair.stem, luma, infrared)
    return luma, chroma, filled(1 - infrared if reading.invert else infrared, luma)


def read_sources(pair: Pair, reading: Reading = AS_THEY_ARE) -> Sources:
    """Both images of a pair as the cameras took them: they may differ in size, and infrared be NaN.

    Raises UserError as the readers do.

    >>> from langfuse_jax.examples.night_scene import write_night_scenes
    >>> write_night_scenes("scenes", 1, 48, 64)
    >>> read_sources(match_pairs("scenes/visible", "scenes/infrared")[0][0])[2].shape
    (48, 64)
    """
    if pair.visible == pair.infrared:
        return _read_camera_pair(pair.infrared, reading)
    luma, chroma = read_visible(pair.visible, reading.max_side)
    infrared = read_infrared(
        pair.infrared,
        reading.limits,
        reading.max_side,
        found=reading.found,
        min_side=reading.min_infrared_side,
        remarks=reading.remarks,
    )
    if reading.remarks is not None:
        _compare(pair, chroma, reading.remarks)
    return luma, chroma, infrared


def pair_size(pair: Pair, reading: Reading = AS_THEY_ARE) -> tuple[int, int] | None:
    """(height, width) that `read_pair` will give, without the pixels; None where it cannot be had.

    >>> from langfuse_jax.examples.night_scene import write_night_scenes
    >>> write_night_scenes("scenes", 1, 48, 64)
    >>> pair_size(match_pairs("scenes/visible", "scenes/infrared").pairs[0])
    (48, 64)
    """
    if reading.alignment is not None:
        try:
            alignment = reading.alignment_of(pair.stem)
            assert alignment is not None
            _, _, width, height = alignment.window(reading.to, reading.outside)
        except UserError:  # which is said when the pair is read
            return None
        return height, width
    resize = reading.resize
    if pair.visible != pair.infrared:
        return infrared_size(pair.infrared) if resize == "infrared" else header_size(pair.visible)
    try:
        frame = camera_frame(pair.infrared)
        return None if frame is None else photo_size(frame)
    except Exception:  # whatever is wrong is said when the file is read
        return None


def _compare(pair: Pair, chroma: Float32[np.ndarray, "h w 2"] | None, remarks: Remarks) -> None:
    """Remarks on two files that seem to be swapped, or one."""
    alike = pair.visible.stat().st_size == pair.infrared.stat().st_size
    if alike and pair.visible.read_bytes() == pair.infrared.read_bytes():
        remarks("same", f"{pair.visible} and {pair.infrared} are the same image")
    elif str(pair.infrared) in remarks.coloured and (chroma is None or np.abs(chroma).max() < NO_COLOUR):
        remarks("swapped", f"{pair.infrared} is in colour and {pair.visible} is not: are the two swapped?")


def brought_to_one_size(sources: Sources, reading: Reading, pair: Pair) -> Sources:
    """Sources that lie over each other: aligned, or one resampled, as `reading` says.

    Raises UserError, naming the files of `pair`, where the alignment is for other sizes or resampling distorts.

    >>> sources = np.ones((48, 64), np.float32), None, np.ones((24, 32), np.float32)
    >>> pair = Pair("1", Path("v.png"), Path("i.png"))
    >>> brought_to_one_size(sources, Reading(resize="visible"), pair)[2].shape
    (48, 64)
    """
    luma, chroma, infrared = sources
    paths = pair[1:]
    if (alignment := reading.alignment_of(pair.stem)) is not None:
        visible = luma if chroma is None else np.concatenate([luma[..., None], chroma], -1)
        try:
            visible, infrared = alignment.apply(visible, infrared, to=reading.to, outside=reading.outside)
        except UserError as error:
            raise UserError(f"{paths[0]} and {paths[1]}: {error}") from error
        return (visible, None, infrared) if chroma is None else (visible[..., 0], visible[..., 1:], infrared)
    if pair.visible == pair.infrared:  # of a camera, whose photo was cut to what its frame shows
        return luma, chroma, resampled(infrared, luma.shape).clip(0, 1)
    if reading.resize is None or luma.shape == infrared.shape:
        return sources
    (height, width), (h, w) = luma.shape, infrared.shape
    if abs(height / h * w / width - 1) > max(0.01, 1 / min(h, w, height, width)):
        raise UserError(
            f"{paths[0]} is {width}x{height} and {paths[1]} is {w}x{h} pixels: they differ in shape, so that "
            "--resize would distort one; crop them to one field of view"
        )
    if reading.resize == "visible":
        return luma, chroma, resampled(infrared, luma.shape).clip(0, 1)
    if chroma is not None:
        chroma = np.stack([resampled(np.ascontiguousarray(chroma[..., k]), (h, w)) for k in range(2)], axis=-1)
    return resampled(luma, (h, w)).clip(0, 1), chroma, infrared


def resampled(image: Float32[np.ndarray, "_ _"], size: tuple[int, int]) -> Float32[np.ndarray, "_ _"]:
    """An image in `size` (height, width): bicubic, with what is smaller averaged; NaN stays where most of it was.

    >>> resampled(np.float32([[0, 1], [0, 1]]), (4, 4)).shape
    (4, 4)
    """

    def resize(values: Float32[np.ndarray, "_ _"]) -> Float32[np.ndarray, "_ _"]:
        return np.asarray(Image.fromarray(values).resize(size[::-1], Image.Resampling.BICUBIC))

    unknown = np.isnan(image)
    if not unknown.any():
        return resize(image)
    fill = float(np.nanmean(image)) if not unknown.all() else 0.0
    values = resize(np.where(unknown, np.float32(fill), image))
    return np.where(resize(unknown.astype(np.float32)) > 0.5, np.float32(np.nan), values)


def _read_camera_pair(path: Path, reading: Reading) -> Sources:
    frame = camera_frame(path)
    if frame is None or frame.photo is None:
        what = "is no radiometric file of a camera" if frame is None else "has no photo beside its thermal frame"
        raise UserError(f"--visible: is missing, and {path} {what}; give --visible too")
    try:
        photo = photo_beside(frame)
        assert photo is not None
        visible = to_unit(np.asarray(photo), path)
    except Exception as error:  # a damaged photo makes decoders raise errors of nearly any kind
        raise UserError(f"{path}: the photo in it cannot be read ({reason(error)}); give --visible too") from error
    check_sides(path, photo.width, photo.height, reading.max_side)
    luma, chroma = rgb_to_ycbcr(visible)
    infrared = thermal_to_unit(frame.counts, reading.limits)
    if reading.remarks is not None:
        reading.remarks.saw_infrared(path, infrared, counts=True)
    return luma, chroma, infrared


def filled(infrared: Float32[np.ndarray, "h w"], luma: Float32[np.ndarray, "h w"]) -> Float32[np.ndarray, "h w"]:
    """`infrared` with the visible luma where it is NaN, so that the visible image is kept there.

    >>> filled(np.float32([[np.nan, 0.5]]), np.float32([[0.25, 0.25]])).tolist()
    [[0.25, 0.5]]
    """
    unknown = np.isnan(infrared)
    return np.where(unknown, luma, infrared) if unknown.any() else infrared


def scan_sizes(
    scenes: Sequence[FusedPair], failed: Callable[[FusedPair, UserError], None], reading: Reading = AS_THEY_ARE
) -> dict[FusedPair, tuple[int, int] | None]:
    """Height and width of scenes by the headers of their files, without those whose images differ: they go to `failed`.

    Sources that `reading` aligns count with the size that they then have.

    None stands for a scene whose header cannot be read: what is wrong is said when the file is read.

    Example::

        scenes, _ = match_fused({"mine": "FUSED"}, "VIS", "IR")
        sizes = scan_sizes(scenes, failed=lambda scene, error: print(error))
    """
    sizes = {}
    with pool(default_threads()) as workers:
        for scene, future in ahead(workers, partial(_header_sizes, reading), scenes, 64):
            known = {path: size for path, size in future.result().items() if size}
            try:
                check_sizes(known)
            except UserError as error:
                failed(scene, error)
            else:
                sizes[scene] = known.get(scene.visible)
    return sizes


def _header_sizes(reading: Reading, scene: FusedPair) -> dict[Path, tuple[int, int] | None]:
    sizes = {path: header_size(path) for path in (scene.visible, *scene.fused)}
    if reading.alignment is not None:
        return {**sizes, scene.visible: pair_size(Pair(*scene[:3]), reading)}
    return {scene.visible: sizes[scene.visible], scene.infrared: infrared_size(scene.infrared), **sizes}


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
                "crop them to one field of view; `langfuse-jax fuse` brings them to one size with --resize"
            )
