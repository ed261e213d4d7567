"""Infrared-visible image fusion whose training objective is written in words."""

from importlib import import_module

from langfuse_jax._version import __version__

# Public names, imported on first use so that `langfuse-jax --help` need not wait for JAX.
_HOME = {
    "Clip": "langfuse_jax.clip.pretrained",
    "CutPrompt": "langfuse_jax.errors",
    "FusionNet": "langfuse_jax.models.fusion",
    "Fuser": "langfuse_jax.inference.fuser",
    "StudentNet": "langfuse_jax.models.student",
    "TextEmbeddings": "langfuse_jax.clip.words",
    "UserError": "langfuse_jax.errors",
}

__all__ = ["Clip", "CutPrompt", "Fuser", "FusionNet", "StudentNet", "TextEmbeddings", "UserError", "__version__"]


def __getattr__(name):
    if name not in _HOME:
        raise AttributeError(f"module 'langfuse_jax' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__():
    return sorted(__all__)
