"""Scores of many fused images: read in threads beside the device, on a few canvases, with bounded memory."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from functools import partial
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float, Int32, UInt8

from langfuse_jax.errors import UserError
from langfuse_jax.images.canvas import Size, place, plan, smallest
from langfuse_jax.images.files import read_infrared, read_visible, to_uint8
from langfuse_jax.images.pairs import FusedPair, Pair, brought_to_one_size, check_sizes, filled
from langfuse_jax.images.ragged import ragged_batches
from langfuse_jax.images.reading import AS_THEY_ARE, Reading
from langfuse_jax.runtime.threads import default_threads

# (fused, visible, infrared, sizes) -> scores by name: gray images on canvases, and their true heights and widths.
Score = Callable[
    [UInt8[np.ndarray, "b h w"], UInt8[np.ndarray, "b h w"], UInt8[np.ndarray, "b h w"], Int32[np.ndarray, "b 2"]],
    Mapping[str, Float[Array, " b"]],
]
Failed = Callable[[FusedPair, UserError], None]
Levels = UInt8[np.ndarray, "_ _"]

CANVASES = 4  # sizes that ragged images are padded to, at most
# What it takes to make the programs of a canvas ready, as pixels that could be scored in that time. On two CPU cores 20
# million for the nine usual metrics where they have to be compiled, fewer where they are loaded.
_PROGRAM_PIXELS = {"cpu": 1e7}
_PROGRAM_PIXELS_ELSEWHERE = 1e9


def read_gray_scene(scene: FusedPair, reading: Reading = AS_THEY_ARE) -> list[Levels]:
    """The visible, the infrared and the fused images of a scene as gray levels 0-255; colour gives its luma (BT.601).

    Sources are aligned as `reading` says. Deeper images are rounded to 8 bits, as the published scripts see them.
    Raises UserError, naming the file, where one cannot be read or their sizes differ, and BadPixels for NaN and values
    out of range.

    >>> from pathlib import Path
    >>> from langfuse_jax.examples.night_scene import write_night_scenes
    >>> write_night_scenes("scenes", 1, 48, 64)
    >>> visible, infrared = Path("scenes/visible/0.png"), Path("scenes/infrared/0.png")
    >>> [image.dtype.name for image in read_gray_scene(FusedPair("0", visible, infrared, (infrared,)))]
    ['uint8', 'uint8', 'uint8']
    """
    paths = [scene.visible, scene.infrared, *scene.fused]
    least = reading.min_infrared_side
    images = [
        read_infrared(path, min_side=least) if path == scene.infrared else read_visible(path)[0] for path in paths
    ]
    if reading.alignment is not None:
        sources = brought_to_one_size((images[0], None, images[1]), reading, Pair(*scene[:3]))
        images[:2] = sources[0], sources[2]
    check_sizes({path: image.shape for path, image in zip(paths, images, strict=True)})
    images[1] = filled(images[1], images[0])  # as it was fused
    return [to_uint8(image) for image in images]


def score_scenes(
    sizes: Mapping[FusedPair, Size | None], score: Score, failed: Failed, reading: Reading = AS_THEY_ARE
) -> Iterator[tuple[FusedPair, list[dict[str, float]]]]:
    """(scene, scores of each of its fused images) in no certain order; `sizes` as `pairs.scan_sizes` gives them.

    Scenes that cannot be read go to `failed`. Programs for up to `CANVASES` canvases are compiled at once, beside
    reading; memory is bounded as `images.ragged.ragged_batches` has it.

    Example::

        scenes, _ = match_fused({"mine": "FUSED"}, "VIS", "IR")
        sizes = scan_sizes(scenes, failed)
        score = lambda *images: evaluate(*images[:3], sizes=images[3])
        scores = {scene.stem: mine["EN"] for scene, (mine,) in score_scenes(sizes, score, failed)}
    """
    every = [size for scene, size in sizes.items() if size for _ in scene.fused]
    canvases = plan(every, CANVASES, _PROGRAM_PIXELS.get(jax.default_backend(), _PROGRAM_PIXELS_ELSEWHERE))
    homes = {scene: smallest(canvases, size) for scene, size in sizes.items() if size}
    images: Counter[Size] = Counter()
    for scene, canvas in homes.items():
        images[canvas] += len(scene.fused)
    # Canvas by canvas: the first one's images are scored while the others' programs are compiled.
    jobs = sorted(sizes, key=lambda scene: canvases.index(homes[scene]) if scene in homes else len(canvases))
    batches = ragged_batches(
        jobs,
        partial(_rows, reading),
        lambda row: row.images[0].shape,
        partial(_program, score),
        canvases={canvas: images[canvas] for canvas in canvases},
        threads=default_threads(),
        failed=failed,
    )
    waiting: dict[FusedPair, dict[int, dict[str, float]]] = {}
    with closing(batches):
        for batch in batches:
            columns = {name: np.asarray(values) for name, values in batch.output.items()}
            for i, (scene, method, _) in enumerate(batch.items):
                methods = waiting.setdefault(scene, {})
                methods[method] = {name: float(values[i]) for name, values in columns.items()}
                if len(methods) == len(scene.fused):
                    del waiting[scene]
                    yield scene, [methods[j] for j in range(len(methods))]


class _Row(NamedTuple):
    scene: FusedPair
    method: int
    images: tuple[Levels, Levels, Levels]  # fused, visible, infrared


def _rows(reading: Reading, scene: FusedPair) -> list[_Row]:
    visible, infrared, *fused = read_gray_scene(scene, reading)
    return [_Row(scene, method, (image, visible, infrared)) for method, image in enumerate(fused)]


def _program(score: Score, canvas: Size, batch: int) -> Callable[[list[_Row]], Mapping[str, Float[Array, " b"]]]:
    """`score` on a canvas, after it is compiled for it."""
    blank = np.zeros((batch, *canvas), np.uint8)
    score(blank, blank, blank, np.full((batch, 2), canvas, np.int32))

    def run(rows: list[_Row]) -> Mapping[str, Float[Array, " b"]]:
        fused, visible, infrared = (place([row.images[role] for row in rows], canvas)[..., 0] for role in range(3))
        return score(fused, visible, infrared, np.array([row.images[0].shape for row in rows], np.int32))

    return run
