"""Scenes of other contrasts and brightnesses, as other cameras would see them."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32

from langfuse_jax.data.scenes import NamedScenes
from langfuse_jax.training.augmentation.fade import mixed


class FadedScenes(Sequence):
    """All of `scenes` as they are, then `copies` times more, every time faded otherwise: n (1 + copies) scenes.

    Scene i + n k is the k-th copy of scene i, each of its sources faded as by `fade`, by `seed` and its number: the
    same whenever it is read. Threads may read; numpy alone computes.

    >>> from langfuse_jax.data.scenes import Scenes, list_scenes
    >>> from langfuse_jax.examples.night_scene import write_night_scenes
    >>> write_night_scenes("data/roads", 2, 48, 64)
    >>> faded = FadedScenes(Scenes(list_scenes("data/roads")), copies=1, most=0.7, seed=0)
    >>> len(faded), bool(faded[0][0].std() > faded[2][0].std()), faded.name(2)
    (4, True, 'data/roads/visible/0')
    """

    def __init__(self, scenes: NamedScenes, *, copies: int, most: float, seed: int):
        self._scenes, self._copies, self._most, self._seed = scenes, copies, most, seed

    def __len__(self) -> int:
        return len(self._scenes) * (1 + self._copies)

    def __getitem__(  # type: ignore[override]  # no slices
        self, index: int
    ) -> tuple[Float32[np.ndarray, "h w"], Float32[np.ndarray, "h w"]]:
        visible, infrared = self._scenes[index % len(self._scenes)]
        if index < len(self._scenes):
            return visible, infrared
        draws = np.random.default_rng((self._seed, index)).random((2, 2, 1, 1), np.float32)
        visible, infrared = mixed(np.stack([visible, infrared]), draws, np.float32(self._most))
        return visible, infrared

    def name(self, index: int) -> str:
        """What to call scene `index`, see `Scenes.name`."""
        return self._scenes.name(index % len(self._scenes))
