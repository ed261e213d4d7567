"""What tells weights from others: a digest of their values, computed without JAX."""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

_FILE = "fusion.safetensors"


def fingerprint(tensors: Mapping[str, np.ndarray]) -> str:
    """Twelve hexadecimal digits that change with any value, by flat names; float16 and float32 count alike.

    >>> fingerprint({"a/b": np.zeros(3, np.float16)}) == fingerprint({"a/b": np.zeros(3, np.float32)})
    True
    """
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(np.asarray(tensors[name], np.float32).tobytes())
    return digest.hexdigest()[:12]


def fingerprint_of(folder: str | os.PathLike) -> str:
    """That of the weights in a folder; of one with checkpoints alone, its name and the newest of them.

    What is wrong with a folder is reported when it is loaded.

    Example::

        fingerprint_of("runs/mine")
    """
    import safetensors.numpy

    folder = Path(folder)
    try:
        return fingerprint(safetensors.numpy.load_file(folder / _FILE))
    except Exception:
        names = [path.name for path in folder.glob("checkpoints/[0-9]*")]
        steps = [name for name in names if name.isascii() and name.isdecimal()]
        return f"{folder.resolve()} at {max(steps, key=int, default='no checkpoint')}"
