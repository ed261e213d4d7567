"""Training pairs from folders: shuffled, cropped and batched by grain."""

from collections.abc import Sequence
from pathlib import Path

import grain
import numpy as np
from jaxtyping import Float

from langfuse_jax.errors import UserError
from langfuse_jax.pairs import Pair, match_pairs, read_pair

# Crops that are flat in both sources teach nothing: they are drawn again, at most this often.
_FLAT = 0.05
_DRAWS = 10


def folder_pairs(folders: Sequence[str]) -> list[Pair]:
    """All pairs of folders that each hold `visible` and `infrared`. Raises UserError for an unpaired image."""
    pairs = []
    for folder in folders:
        found, unpaired = match_pairs(Path(folder) / "visible", Path(folder) / "infrared")
        if unpaired:
            raise UserError(f"{unpaired[0]}: no image of that stem on the other side; add it or take this one away")
        pairs += found
    return pairs


def read_gray_pair(pair: Pair) -> tuple[Float[np.ndarray, "h w"], Float[np.ndarray, "h w"]]:
    """Visible luma and infrared in [0, 1]; see `pairs.read_pair`."""
    luma, _, infrared = read_pair(pair)
    return luma, infrared


def random_crop(
    visible: Float[np.ndarray, "h w"], infrared: Float[np.ndarray, "h w"], size: int, rng: np.random.Generator
) -> dict[str, Float[np.ndarray, "s s 1"]]:
    """The same random size x size window of both, reflect-padded where the image is smaller.

    A window whose standard deviation is below 0.05 in both is drawn again, at most ten times.
    """
    pair = np.stack([visible, infrared], axis=-1).astype(np.float32)
    missing = [max(0, size - n) for n in pair.shape[:2]]
    if any(missing):
        pair = np.pad(pair, [*((n // 2, n - n // 2) for n in missing), (0, 0)], mode="reflect")
    for _ in range(_DRAWS):
        top, left = (rng.integers(0, n - size + 1) for n in pair.shape[:2])
        crop = pair[top : top + size, left : left + size]
        if (crop.std(axis=(0, 1)) >= _FLAT).any():
            break
    return {"visible": crop[..., :1], "infrared": crop[..., 1:]}


def training_batches(
    folders: Sequence[str], *, crop: int, batch_size: int, seed: int, threads: int = 2
) -> tuple[grain.IterDataset, int]:
    """An endless, seeded, checkpointable dataset of {"visible", "infrared"} (b, crop, crop, 1) in [0, 1].

    Returns:
        The dataset and the number of pairs. Raises UserError where there are fewer pairs than the batch asks for.
    """
    pairs = folder_pairs(folders)
    if len(pairs) < batch_size:
        raise UserError(f"config.batch_size: {batch_size} is more than the {len(pairs)} pairs of {', '.join(folders)}")
    dataset = (
        grain.MapDataset.source(pairs)
        .seed(seed)
        .shuffle()
        .repeat()
        .map(read_gray_pair)
        .random_map(lambda pair, rng: random_crop(*pair, crop, rng))
        .batch(batch_size, drop_remainder=True)
    )
    return dataset.to_iter_dataset(grain.ReadOptions(num_threads=threads, prefetch_buffer_size=4 * threads)), len(pairs)
