"""State dicts of torch's zip files (torch >= 1.6) as numpy arrays, without torch and without running what they hold."""

import os
import pickle
import zipfile
from collections import OrderedDict

import numpy as np

from langfuse_jax.errors import UserError

_DTYPES = {
    "DoubleStorage": np.float64,
    "FloatStorage": np.float32,
    "HalfStorage": np.float16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
}


def load_state_dict(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Tensors by name. Raises UserError for a file of another kind, a damaged one, and one with more than tensors."""
    try:
        with zipfile.ZipFile(path) as archive:
            (index,) = (name for name in archive.namelist() if name.endswith("/data.pkl"))
            with archive.open(index) as file:
                loaded = _Unpickler(file, archive, index.removesuffix("data.pkl")).load()
    except Exception as error:  # pickles of unknown origin fail in any way there is
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path}: not a torch file with a plain state dict ({reason}); save it again as one") from error
    if not isinstance(loaded, dict) or not all(isinstance(value, np.ndarray) for value in loaded.values()):
        raise UserError(f"{path}: holds more than the tensors of a state dict; save `model.state_dict()` alone")
    return dict(loaded)


class _Unpickler(pickle.Unpickler):
    """Builds arrays, and nothing but them."""

    def __init__(self, file, archive, folder):
        super().__init__(file)
        self._archive, self._folder = archive, folder

    def find_class(self, module, name):
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        known = {
            ("collections", "OrderedDict"): OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2"): _tensor,
            ("torch._utils", "_rebuild_parameter"): lambda data, *_: data,
        }
        if (module, name) not in known:
            raise pickle.UnpicklingError(f"{module}.{name} is no part of a state dict")
        return known[module, name]

    def persistent_load(self, pid):
        _, dtype, key, *_ = pid
        return np.frombuffer(self._archive.read(f"{self._folder}data/{key}"), np.dtype(dtype).newbyteorder("<"))


def _tensor(storage, offset, shape, strides, *_):
    # Checked by hand: as_strided would read beyond the storage without a word.
    last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    if offset < 0 or min((*shape, *strides), default=0) < 0 or (0 not in shape and last >= storage.size):
        raise pickle.UnpicklingError("a tensor reaches beyond its storage")
    bytes_ = [stride * storage.itemsize for stride in strides]
    return np.lib.stride_tricks.as_strided(storage[offset:], shape, bytes_).copy()
