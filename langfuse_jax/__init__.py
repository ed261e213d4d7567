"""Infrared-visible image fusion whose training objective is written in words."""

import os
from importlib import import_module

from langfuse_jax._version import __version__

TYPE_CHECKING = False  # as that of `typing`, which takes longer to import than all of this
if TYPE_CHECKING:
    from typing import Any

# In a clone langfuse_jax.configs is the folder beside this one; an installed package has it inside.
if not os.path.isdir(os.path.join(__path__[0], "configs")):
    __path__.append(os.path.dirname(__path__[0]))

# Public names, imported on first use so that `langfuse-jax --help` need not wait for JAX.
_HOME = {
    "Alignment": "langfuse_jax.alignment.transform",
    "Clip": "langfuse_jax.clip.pretrained",
    "CutPrompt": "langfuse_jax.errors",
    "FusionNet": "langfuse_jax.models.fusion",
    "Fuser": "langfuse_jax.inference.fuser",
    "SteeredNet": "langfuse_jax.models.steered",
    "TextEmbeddings": "langfuse_jax.clip.words",
    "UnknownWords": "langfuse_jax.errors",
    "UserError": "langfuse_jax.errors",
    "align": "langfuse_jax.alignment.rig",
    "evaluate_folders": "langfuse_jax.evaluation.folders",
    "fuse_folders": "langfuse_jax.inference.folders",
    "fuse_video": "langfuse_jax.inference.video",
}

__all__ = [*_HOME, "__version__"]


def __getattr__(name: str) -> "Any":
    if name not in _HOME:
        raise AttributeError(f"module 'langfuse_jax' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
