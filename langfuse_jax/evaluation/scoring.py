"""Scores of many fused images: read in threads beside the device, on a few canvases, with bounded memory."""

from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future

import jax
import numpy as np
from jaxtyping import Array, Float, Int32, UInt8

from langfuse_jax.errors import UserError
from langfuse_jax.images.canvas import Size, default_batch, plan, smallest
from langfuse_jax.images.files import read_infrared, read_visible, to_uint8
from langfuse_jax.images.pairs import FusedPair, check_sizes
from langfuse_jax.runtime.threads import ahead, default_threads, pool

# (fused, visible, infrared, sizes) -> scores by name: gray images on canvases, and their true heights and widths.
Score = Callable[
    [UInt8[np.ndarray, "b h w"], UInt8[np.ndarray, "b h w"], UInt8[np.ndarray, "b h w"], Int32[np.ndarray, "b 2"]],
    Mapping[str, Float[Array, " b"]],
]
Failed = Callable[[FusedPair, UserError], None]

CANVASES = 4  # sizes that ragged images are padded to, at most
# What it takes to make the programs of a canvas ready, as pixels that could be scored in that time. On two CPU cores 20
# million for the nine usual metrics where they have to be compiled, fewer where they are loaded.
_PROGRAM_PIXELS = {"cpu": 1e7}
_PROGRAM_PIXELS_ELSEWHERE = 1e9
_QUEUED = 2  # batches on the device: one that runs, and one that waits so that the device need not


def read_scene(scene: FusedPair) -> list[UInt8[np.ndarray, "h w"]]:
    """The visible, the infrared and the fused images of a scene as gray levels 0-255; colour gives its luma (BT.601).

    Deeper images are rounded to 8 bits, as the published scripts see them. Raises UserError, naming the file, where one
    cannot be read or their sizes differ, and BadPixels for NaN and values out of range.

    >>> from pathlib import Path
    >>> from langfuse_jax.examples.night_scene import write_night_scenes
    >>> write_night_scenes("scenes", 1, 48, 64)
    >>> visible, infrared = Path("scenes/visible/0.png"), Path("scenes/infrared/0.png")
    >>> [image.dtype.name for image in read_scene(FusedPair("0", visible, infrared, (infrared,)))]
    ['uint8', 'uint8', 'uint8']
    """
    paths = [scene.visible, scene.infrared, *scene.fused]
    images = [read_infrared(path) if path == scene.infrared else read_visible(path)[0] for path in paths]
    check_sizes({path: image.shape for path, image in zip(paths, images, strict=True)})
    return [to_uint8(image) for image in images]


def score_scenes(
    sizes: Mapping[FusedPair, Size | None], score: Score, failed: Failed
) -> Iterator[tuple[FusedPair, list[dict[str, float]]]]:
    """(scene, scores of each of its fused images) in no certain order; `sizes` as `pairs.scan_sizes` gives them.

    Scenes that cannot be read go to `failed`. Programs for up to `CANVASES` canvases are compiled at once, beside
    reading; there are about three batches of each canvas and two scenes a thread in memory at a time.

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
    batches = {canvas: default_batch(canvas, images[canvas]) for canvas in canvases}
    # Canvas by canvas: the first one's images are scored while the others' programs are compiled.
    jobs = sorted(sizes, key=lambda scene: canvases.index(homes[scene]) if scene in homes else len(canvases))
    threads = default_threads()
    with pool(threads) as readers, pool(max(1, len(canvases))) as compilers:
        programs = {canvas: compilers.submit(_warm, score, canvas, batch) for canvas, batch in batches.items()}
        decoded = _decoded(ahead(readers, read_scene, jobs, 2 * threads), failed)
        yield from _gathered(_computed(_rows(decoded, canvases, batches), programs, score))


def _warm(score, canvas, batch):
    """Has the programs of a canvas compiled."""
    blank = np.zeros((batch, *canvas), np.uint8)
    score(blank, blank, blank, np.tile(np.int32(canvas), (batch, 1)))


def _decoded(ahead, failed):
    for scene, future in ahead:
        try:
            yield scene, future.result()
        except UserError as error:
            failed(scene, error)


def _rows(decoded, canvases, batches):
    """(canvas, batch size, rows) whenever a canvas has a batch of rows (scene, method, images), and what is left."""
    waiting: dict[Size, list] = {}
    for scene, (visible, infrared, *fused) in decoded:
        canvas = smallest(canvases, visible.shape)
        for method, image in enumerate(fused):
            rows = waiting.setdefault(canvas, [])
            rows.append((scene, method, (image, visible, infrared)))
            if len(rows) == batches.get(canvas, 1):
                yield canvas, len(rows), waiting.pop(canvas)
    for canvas, rows in waiting.items():
        yield canvas, batches[canvas], rows


def _computed(batches, programs: Mapping[Size, Future], score):
    """(scene, method, scores) of each row; the device has the next batch before this one is waited for."""
    running: deque[tuple] = deque()
    for canvas, size, rows in batches:
        if canvas in programs:
            programs[canvas].result()
        filled = rows + [rows[-1]] * (size - len(rows))  # a batch that is not full is filled up by copies
        images = (_place([row[2][role] for row in filled], canvas) for role in range(3))
        true = np.array([row[2][0].shape for row in filled], np.int32)
        running.append((rows, score(*images, true)))
        if len(running) == _QUEUED:
            yield from _values(*running.popleft())
    for rows, scores in running:
        yield from _values(rows, scores)


def _place(images, canvas):
    batch = np.zeros((len(images), *canvas), np.uint8)
    for empty, image in zip(batch, images, strict=True):
        empty[: image.shape[0], : image.shape[1]] = image
    return batch


def _values(rows, scores):
    columns = {name: np.asarray(values) for name, values in scores.items()}
    for i, (scene, method, _) in enumerate(rows):
        yield scene, method, {name: float(values[i]) for name, values in columns.items()}


def _gathered(computed):
    """(scene, scores of each method) once a scene has them all."""
    waiting: dict[FusedPair, dict[int, dict[str, float]]] = {}
    for scene, method, scores in computed:
        methods = waiting.setdefault(scene, {})
        methods[method] = scores
        if len(methods) == len(scene.fused):
            del waiting[scene]
            yield scene, [methods[i] for i in range(len(methods))]
