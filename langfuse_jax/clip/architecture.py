"""The vision tower of a CLIP without its weights: for what is compiled before there are any."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import CLIPConfig

from langfuse_jax.clip.folder import read_config
from langfuse_jax.clip.pretrained import COMPACT
from langfuse_jax.errors import UserError
from langfuse_jax.models.clip import MEAN, STD, VisionTower, towers

_LARGE = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
# What OpenAI's CLIPs change of transformers' default, which is ViT-B/32.
_OPENAI: Mapping[str, Mapping[str, Any]] = {
    "openai/clip-vit-base-patch32": {},
    "openai/clip-vit-base-patch16": {"vision_config": {"patch_size": 16}},
    "openai/clip-vit-large-patch14": {"vision_config": {**_LARGE, "patch_size": 14}, "projection_dim": 768},
    "openai/clip-vit-large-patch14-336": {
        "vision_config": {**_LARGE, "patch_size": 14, "image_size": 336},
        "projection_dim": 768,
    },
}


def vision_tower(name: str = "") -> VisionTower:
    """The tower that `Clip.load(name)` would have: of the package (""), a folder's, or one of OpenAI's by its hub id.

    Nothing is downloaded. Raises UserError for other ids, and for a folder without a configuration.

    >>> vision_tower("openai/clip-vit-base-patch16").patch_size, vision_tower().image_size < 224
    (16, True)
    """
    if name in _OPENAI:
        return towers(CLIPConfig(**_OPENAI[name]))[0]
    folder = Path(name).expanduser() if name else COMPACT
    if not folder.is_dir():
        raise UserError(
            f"config.clip: {name} is no folder, and its architecture is not known without it; give a folder with its "
            f"configuration, or one of {', '.join(_OPENAI)}"
        )
    config, mean, std = read_config(folder)
    return towers(config, mean or MEAN, std or STD)[0]
