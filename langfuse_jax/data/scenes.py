"""The scenes to train on, by number: decoded once where memory allows, and skipped where they cannot be read."""

import math
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32

from langfuse_jax.data.layouts import part_pairs
from langfuse_jax.data.prepared import Record, is_prepared, prepared_records, read_record, record_size
from langfuse_jax.errors import UserError, one_line
from langfuse_jax.images.canvas import Size
from langfuse_jax.images.files import header_size
from langfuse_jax.images.pairs import Pair, read_pair
from langfuse_jax.runtime.bars import write_beside

GrayPair = tuple[Float32[np.ndarray, "h w"], Float32[np.ndarray, "h w"]]


def list_scenes(folder: str | Path, part: str = "train") -> Sequence[Pair | Record]:
    """The scenes of one part of a dataset, in order of their names, or all of them where it has no such part.

    The rule: a folder with `VERSION/dataset_info.json` inside is a dataset prepared by `langfuse-jax data build`, any
    other is a folder of pairs (`layouts.find_parts`). Raises UserError where it is neither, empty or unpaired.

    >>> from langfuse_jax.examples.night_scene import write_night_scenes
    >>> write_night_scenes("data/roads/train", 2, 48, 64)
    >>> [scene.stem for scene in list_scenes("data/roads")]
    ['0', '1']
    """
    folder = Path(folder)
    return prepared_records(folder, part) if is_prepared(folder) else part_pairs(folder, part)


def read_scene(scene: Pair | Record) -> GrayPair:
    """Visible luma and infrared in [0, 1]. Raises UserError, naming the files or the record.

    >>> from langfuse_jax.examples.night_scene import write_night_scenes
    >>> write_night_scenes("data/roads", 1, 48, 64)
    >>> [image.shape for image in read_scene(list_scenes("data/roads")[0])]
    [(48, 64), (48, 64)]
    """
    if isinstance(scene, Record):
        return read_record(scene)
    luma, _, infrared = read_pair(scene)
    return luma, infrared


def scene_size(scene: Pair | Record) -> Size:
    """(height, width) of a scene: by the header of its visible image, or, where that does not tell, by reading it.

    Raises UserError as `read_scene`.

    >>> from langfuse_jax.examples.night_scene import write_night_scenes
    >>> write_night_scenes("data/roads", 1, 48, 64)
    >>> scene_size(list_scenes("data/roads")[0])
    (48, 64)
    """
    size = record_size(scene) if isinstance(scene, Record) else header_size(scene.visible)
    return size or read_scene(scene)[0].shape


def check_crop(scenes: Iterable[Pair | Record], crop: int) -> None:
    """Raises UserError where a crop is larger, in both directions, than every scene.

    >>> from langfuse_jax.examples.night_scene import write_night_scenes
    >>> write_night_scenes("data/roads", 1, 48, 64)
    >>> check_crop(list_scenes("data/roads"), 64)
    """
    largest = 0, 0
    for scene in scenes:
        try:
            size = scene_size(scene)
        except UserError:  # reported when it is its turn
            continue
        if max(size) >= crop:
            return
        largest = max(largest, size, key=math.prod)
    if any(largest):
        raise UserError(
            f"config.crop: {crop} is larger than every image of config.data.train, of which the largest is "
            f"{largest[1]}x{largest[0]}; use {min(largest) // 8 * 8} or less"
        )


@runtime_checkable
class NamedScenes(Protocol):
    """What a training run draws from: images by number, as many as there are, and what to call each scene."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> tuple[np.ndarray, ...]: ...

    def name(self, index: int) -> str: ...


class Scenes(Sequence):
    """Decoded scenes by number, for grain: `scenes[i]` is visible luma and infrared in [0, 1], (h, w) each.

    Scenes are kept in memory as they are first read, until `cache_mb` megabytes are full: nothing is thrown out again,
    as in a shuffled epoch every scene is as likely to be next. The place of a scene that cannot be read is taken by the
    next one that can, so that batches stay full and reproducible; it is named on stderr, and when there are more than
    `max_unreadable` of them UserError is raised. Each reading process keeps its own memory and its own count.

    >>> from langfuse_jax.examples.night_scene import write_night_scenes
    >>> write_night_scenes("data/roads", 2, 48, 64)
    >>> scenes = Scenes(list_scenes("data/roads"))
    >>> len(scenes), scenes[1][0].shape, scenes.name(1)
    (2, (48, 64), 'data/roads/visible/1')
    """

    def __init__(self, scenes: Sequence[Pair | Record], *, cache_mb: int = 1024, max_unreadable: int = 0):
        self._scenes = list(scenes)
        self._cache_bytes = cache_mb * 2**20
        self._max_unreadable = min(max_unreadable, len(self._scenes) - 1)
        self._start()

    def _start(self) -> None:
        self._kept: dict[int, GrayPair] = {}
        self._free = self._cache_bytes
        self._unreadable: dict[int, str] = {}
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:  # for a worker process
        return {name: vars(self)[name] for name in ("_scenes", "_cache_bytes", "_max_unreadable")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._start()

    def __len__(self) -> int:
        return len(self._scenes)

    def __getitem__(self, index: int) -> GrayPair:  # type: ignore[override]  # no slices
        return self._read(index)[1]

    def name(self, index: int) -> str:
        """What to call scene `index`: its dataset and its stem; those of the scene that takes its place, if any."""
        scene = self._scenes[self._read(index)[0]]
        folder = scene.folder.parent.name if isinstance(scene, Record) else scene.visible.parent
        return f"{folder}/{scene.stem}"

    def _read(self, index: int) -> tuple[int, GrayPair]:
        while True:
            if index in self._kept:
                return index, self._kept[index]
            if index not in self._unreadable:
                try:
                    pair = read_scene(self._scenes[index])
                except UserError as error:
                    self._skip(index, error)
                else:
                    self._keep(index, pair)
                    return index, pair
            index = (index + 1) % len(self)

    def _keep(self, index: int, pair: GrayPair) -> None:
        size = sum(image.nbytes for image in pair)
        with self._lock:
            if index not in self._kept and size <= self._free:
                self._free -= size
                self._kept[index] = pair

    def _skip(self, index: int, error: UserError) -> None:
        with self._lock:
            if index in self._unreadable:
                return
            if len(self._unreadable) == self._max_unreadable:
                if not self._max_unreadable:
                    raise error
                names = ", ".join(self._scenes[i].stem for i in self._unreadable)
                raise UserError(
                    f"{error}; {names} could not be read before, and config.data.max_unreadable allows "
                    f"{self._max_unreadable}: mend them"
                ) from error
            self._unreadable[index] = str(error)
            count = f"{len(self._unreadable)} of at most {self._max_unreadable}"
            write_beside(f"langfuse-jax: warning: {one_line(error)}; skipped ({count})")
