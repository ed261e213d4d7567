"""The weights that come with the package."""

import importlib.resources
from pathlib import Path

from langfuse_jax.errors import UserError

MODELS = ("steered", "ldfusion")  # the first is the default
_FORMER = {"fusion": "ldfusion", "student": "steered"}  # names of version 0.1, and what takes their place


def packaged_folder(model: str | None = None) -> Path:
    """The folder of a model of the package, of the default one without a name. Raises UserError for an unknown name.

    >>> packaged_folder("ldfusion").name, packaged_folder("student").name
    ('ldfusion', 'steered')
    """
    name = MODELS[0] if model is None else _FORMER.get(model, model)
    if name not in MODELS:
        raise UserError(f"--model {model}: is none of {', '.join(MODELS)}")
    return Path(str(importlib.resources.files("langfuse_jax"))) / "assets" / name
