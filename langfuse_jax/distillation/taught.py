"""Scenes with what a teacher makes of them, kept on disk."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn, cast

import jax
import numpy as np
from jaxtyping import Float16, Float32
from tqdm import tqdm

from langfuse_jax.data.scenes import NamedScenes
from langfuse_jax.errors import UserError
from langfuse_jax.images.canvas import MAX_BATCH, plan
from langfuse_jax.inference.fuser import Fuser
from langfuse_jax.inference.stream import fuse_stream, program_pixels
from langfuse_jax.runtime.atomic import atomic_write, make_folder
from langfuse_jax.runtime.threads import ahead, pool

_CANVASES = 4
_THREADS = 2


class TaughtScenes(Sequence):
    """`taught[i]`: visible luma, infrared and the teacher's fused image, (h, w) each, in [0, 1].

    What the teacher makes of the whole scenes is computed once, by `teach`, and kept in a folder of its own (named by
    its weights) in `folder`, as float16: a training run may be stopped and resumed, and no number of scenes fills the
    memory. A file is named by the pixels that the teacher sees, so it serves these sources whatever their number, and
    no others. Threads may read.

    Args:
        scenes: to fuse. One that cannot be read is skipped as `Scenes` does it.
        teacher: the fuser.
        folder: where the teacher's images go. Several datasets may share it.

    >>> from langfuse_jax.data.scenes import Scenes, list_scenes
    >>> from langfuse_jax.examples.night_scene import write_night_scenes
    >>> write_night_scenes("data/roads", 1, 48, 64)
    >>> taught = TaughtScenes(Scenes(list_scenes("data/roads")), Fuser.load(model="student"), "kept")
    >>> taught.teach()
    >>> [image.shape for image in taught[0]]
    [(48, 64), (48, 64), (48, 64)]
    """

    def __init__(self, scenes: NamedScenes, teacher: Fuser, folder: str | Path):
        self._scenes, self._teacher = scenes, teacher
        self._folder = Path(folder) / f"teacher_{fingerprint(teacher.params)}"
        self._paths: dict[int, Path] = {}

    def path(self, index: int) -> Path:
        """The file of what the teacher makes of scene `index`: another one for other sources."""
        if index not in self._paths:
            visible, infrared = self._scenes[index]
            digest = hashlib.sha256(repr(visible.shape).encode())
            for image in (visible, infrared):
                digest.update(self._teacher.extend(image).tobytes())
            self._paths[index] = self._folder / f"{digest.hexdigest()[:32]}.npy"
        return self._paths[index]

    def teach(self) -> None:
        """Fuses, by the teacher, the scenes that the folder lacks. Raises UserError where it cannot be written."""
        make_folder(self._folder)
        with pool(_THREADS) as workers:
            found = ahead(workers, self.path, range(len(self)), 2 * _THREADS)
            paths = {future.result(): i for i, future in tqdm(found, total=len(self), disable=None, desc="sources")}
        missing = [i for path, i in paths.items() if not path.is_file()]
        if not missing:
            return
        teacher = self._teacher
        sizes = [teacher.extended_size(self._scenes[i][0].shape) for i in missing]
        canvases = dict.fromkeys(plan(sizes, _CANVASES, program_pixels()), MAX_BATCH)

        def write(index: int, _: tuple, fused: Float32[np.ndarray, "h w"]) -> None:
            with atomic_write(self.path(index)) as file:
                np.save(file, fused.astype(np.float16))
            progress.update()

        def failed(index: int, error: UserError) -> NoReturn:
            raise error

        def read(index: int) -> tuple[Float32[np.ndarray, "h w"], None, Float32[np.ndarray, "h w"]]:
            visible, infrared = self._scenes[index]
            return visible, None, infrared

        with tqdm(total=len(missing), disable=None, unit="image", desc="teacher") as progress:
            fuse_stream(teacher, missing, read, write, canvases=canvases, threads=_THREADS, failed=failed)

    def __len__(self) -> int:
        return len(self._scenes)

    def __getitem__(  # type: ignore[override]  # no slices
        self, index: int
    ) -> tuple[Float32[np.ndarray, "h w"], Float32[np.ndarray, "h w"], Float16[np.ndarray, "h w"]]:
        visible, infrared = self._scenes[index]
        path = self.path(index)
        try:
            taught = np.load(path, mmap_mode="r")
        except (OSError, ValueError) as error:
            raise UserError(f"{path}: cannot be read ({error}); remove it, and it is made anew") from error
        if taught.shape != visible.shape:
            raise UserError(f"{path}: is of another size than its scene; remove it, and it is made anew")
        return visible, infrared, taught

    def name(self, index: int) -> str:
        """What to call scene `index`, see `Scenes.name`."""
        return self._scenes.name(index)


def fingerprint(params: dict) -> str:
    """Eight hexadecimal digits that other parameters do not share.

    >>> fingerprint({"a": np.ones(1)}) == fingerprint({"a": np.ones(1)}) != fingerprint({"a": np.zeros(1)})
    True
    """
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(params):
        digest.update(np.asarray(cast(jax.Array, leaf)).tobytes())
    return digest.hexdigest()[:8]
