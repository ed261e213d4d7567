"""What a model is trained on: its scenes, and the record of them that is kept with its weights."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from langfuse_jax._version import __version__
from langfuse_jax.data.prepared import Record
from langfuse_jax.data.scenes import check_crop, list_scenes
from langfuse_jax.images.pairs import Pair
from langfuse_jax.training.checkpoints import plain
from langfuse_jax.training.configs import texts


def training_folders(config: ConfigDict) -> list[str]:
    """The folders of `config.data.train`.

    >>> training_folders(ConfigDict({"data": {"root": "data", "train": ("roadscene", "msrs")}}))
    ['data/roadscene', 'data/msrs']
    """
    return [str(Path(config.data.root) / name) for name in texts(config.data.train)]


def training_scenes(config: ConfigDict) -> list[Pair | Record]:
    """The scenes of all these folders. Raises UserError where there are none, or all are smaller than the crop.

    Example::

        scenes = Scenes(training_scenes(load_config("smoke", ["--config.data.root=DATA"])))
    """
    scenes = [scene for folder in training_folders(config) for scene in list_scenes(folder)]
    check_crop(scenes, config.crop)
    return scenes


def provenance(
    config: ConfigDict, command: str, scenes: Sequence[Pair | Record], steps: int, **more: Any
) -> dict[str, Any]:
    """What is kept with the weights: the command and config, the data, the day and version, and `more`.

    Example::

        save_fusion("runs/mine", params, metadata=provenance(config, "langfuse-jax train ...", scenes, 250))
    """
    return {
        "command": command,
        "config": plain(config),
        "data": {"folders": training_folders(config), "pairs": len(scenes)},
        "date": datetime.now(UTC).date().isoformat(),
        "langfuse_jax": __version__,
        **more,
        "steps": steps,
    }
