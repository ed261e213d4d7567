"""Training batches from scenes: shuffled, cropped, batched and split between processes by grain."""

import grain
import numpy as np
from absl import flags
from grain.multiprocessing import MultiprocessingOptions
from jaxtyping import Float
from PIL import Image

from langfuse_jax.data.scenes import NamedScenes
from langfuse_jax.errors import UserError

# Crops that are flat in both sources teach nothing: they are drawn again, at most this often.
_FLAT = 0.05
_DRAWS = 10


def random_crop(
    visible: Float[np.ndarray, "h w"],
    infrared: Float[np.ndarray, "h w"],
    size: int,
    rng: np.random.Generator,
    *,
    zoom: float = 1.0,
    **others: Float[np.ndarray, "h w"],
) -> dict[str, Float[np.ndarray, "s s 1"]]:
    """The same random size x size window of both, and of others, reflect-padded where the image is smaller.

    A window whose standard deviation is below 0.05 in both is drawn again, at most ten times. With a `zoom` above 1 the
    window's side is drawn between size and zoom x size (log-uniform, as far as the image reaches) and what it shows is
    shrunk to size: instance norms see the contrasts of a whole scene in it, where a plain crop shows a part.
    """
    side = size
    if zoom > 1:
        widest = max(size, min(zoom * size, *visible.shape))
        side = round(size * float(np.exp(rng.uniform(0, np.log(widest / size)))))
    images = {"visible": visible, "infrared": infrared, **others}
    missing = [max(0, side - n) for n in visible.shape]
    if any(missing):
        border = [(n // 2, n - n // 2) for n in missing]
        images = {role: np.pad(image, border, mode="reflect") for role, image in images.items()}
    for _ in range(_DRAWS):
        top, left = (rng.integers(0, n - side + 1) for n in images["visible"].shape)
        crops = {role: image[top : top + side, left : left + side] for role, image in images.items()}
        if any(crops[role].std() >= _FLAT for role in ("visible", "infrared")):
            break
    return {role: _shrunk(crop.astype(np.float32), size)[..., None] for role, crop in crops.items()}


def _shrunk(crop: Float[np.ndarray, "n n"], size: int) -> Float[np.ndarray, "s s"]:
    """Antialiased, to size x size; bicubic, whose overshoot is cut off."""
    if len(crop) == size:
        return crop
    return np.asarray(Image.fromarray(crop).resize((size, size), Image.Resampling.BICUBIC)).clip(0, 1)


class TrainingData:
    """An endless, seeded stream of batches, of which each process takes its share.

    The stream is the same however many processes and workers there are: every epoch has each scene once, in an order
    of its own, and batch k is made of the same crops. Of its `batch_size` samples process i of n takes the i-th, the
    (i + n)-th and so on, so the shares are disjoint and cover the epoch.

    Args:
        scenes: to draw from; each visible and infrared.
        crop: side of the windows.
        zoom: how many times as wide the widest windows are that are shrunk to it, see `random_crop`.
        batch_size: of all processes together.
        process: (index, count) of this process.
        workers: processes that read; 0 for threads of this one.
        threads: that read in this process, or in each worker.

    Raises UserError for a batch larger than the dataset, and one that the processes cannot share.
    """

    def __init__(
        self,
        scenes: NamedScenes,
        *,
        crop: int,
        batch_size: int,
        seed: int,
        zoom: float = 1.0,
        process: tuple[int, int] = (0, 1),
        workers: int = 0,
        threads: int = 2,
    ):
        index, count = process
        if workers < 0:
            raise UserError(f"config.data.workers: {workers} is no number of processes; use 0 for none")
        if len(scenes) < batch_size:
            raise UserError(
                f"config.batch_size: {batch_size} is more than the {len(scenes)} pairs of config.data.train"
            )
        if batch_size % count:
            raise UserError(f"config.batch_size: {batch_size} cannot be shared by {count} processes; use a multiple")
        self._scenes, self._workers, self._threads = scenes, workers, threads
        order = grain.MapDataset.range(len(scenes)).seed(seed).shuffle().repeat()
        self._order = order[index::count]
        self._size = batch_size // count
        place = np.arange(index, batch_size, count, dtype=np.int32)
        self._batches = (
            order.map(scenes.__getitem__)
            .random_map(lambda images, rng: random_crop(images[0], images[1], crop, rng, zoom=zoom))[index::count]
            .batch(self._size, drop_remainder=True)
            .map(lambda batch: {**batch, "place": place})
        )

    def names(self, batch: int) -> list[str]:
        """The scenes of this process's share of a batch, by the batch's number."""
        return [self._scenes.name(int(self._order[batch * self._size + i])) for i in range(self._size)]

    def batches(self, first: int = 0) -> grain.DatasetIterator:
        """grain's iterator over the batches from number `first` on, to be closed where there are workers.

        A batch is {"visible", "infrared"}, (b, crop, crop, 1) in [0, 1], with "place", (b,) int32: where
        each sample stands in the whole batch of all processes.
        """
        options = grain.ReadOptions(num_threads=self._threads, prefetch_buffer_size=4 * self._threads)
        batches = self._batches[first:].to_iter_dataset(options)
        if self._workers:
            if not flags.FLAGS.is_parsed():  # grain asks for flags of its own, which this command does not have
                flags.FLAGS.mark_as_parsed()
            batches = batches.mp_prefetch(MultiprocessingOptions(num_workers=self._workers, per_worker_buffer_size=2))
        return iter(batches)
