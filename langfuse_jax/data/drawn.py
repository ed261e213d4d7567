"""Batches that are drawn by their number, for training runs that go through no list of scenes."""

import grain
import numpy as np


class DrawnBatches:
    """Numbered batches, made in a thread beside the device. Subclasses give `batch`."""

    def batch(self, number: int) -> dict[str, np.ndarray]:
        """The arrays of a batch by name: the same whenever they are asked for."""
        raise NotImplementedError

    def batches(self, first: int) -> grain.DatasetIterator:
        """grain's iterator from batch number `first` on."""
        numbers = grain.MapDataset.range(2**31)[first:]
        return iter(numbers.map(self.batch).to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=4)))

    def names(self, batch: int) -> list[str]:
        """What is drawn by a number has no name but it."""
        return [f"of batch {batch}"]
