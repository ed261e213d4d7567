"""Files of tensors: .safetensors, and torch's pickles (.pt, .pth, .bin), which need the extra [torch]."""

import io
import warnings
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError

from langfuse_jax.errors import UserError
from langfuse_jax.runtime.atomic import atomic_write

# Some trainers keep the state dict beside their optimizer's.
_WRAPPERS = ("state_dict", "model")


def read_tensors(path: str | Path) -> dict[str, np.ndarray]:
    """The tensors of a .safetensors file or of a torch state dict, by name.

    Prefixes "module." of DistributedDataParallel are taken off. torch's pickles are read with weights_only: nothing in
    them is run. Raises UserError, naming the file, for one that is missing, damaged or not a state dict, and without
    torch.

    Example::

        {name: tensor.shape for name, tensor in read_tensors("encoder.pth").items()}
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file; give a .safetensors file or a torch state dict (.pt, .pth, .bin)")
    if path.suffix == ".safetensors":
        try:
            tensors = safetensors.numpy.load_file(path)
        except (OSError, SafetensorError, KeyError, ValueError, TypeError) as error:
            raise UserError(f"{path}: not a readable safetensors file ({_line(error)}); copy it again") from error
    else:
        tensors = _read_torch(path)
    if tensors and all(name.startswith("module.") for name in tensors):
        tensors = {name.removeprefix("module."): tensor for name, tensor in tensors.items()}
    return tensors


def write_tensors(
    files: Mapping[str | Path, Mapping[str, np.ndarray]], beside: Mapping[str | Path, bytes] | None = None
) -> None:
    """Writes {path: {name: array}}, as .safetensors or torch state dicts by the ending, and {path: bytes} beside them.

    All files are written, or none. Raises UserError, naming the path.

    Example::

        write_tensors({"model.pth": {"weight": np.zeros((2, 3), np.float32)}}, {"model.pth.json": b"{}"})
    """
    contents = {path: _content(path, tensors) for path, tensors in files.items()} | dict(beside or {})
    for path in contents:
        if Path(path).is_dir():
            raise UserError(f"{path}: is a folder; give the name of a file")
    with ExitStack() as stack:
        opened = [(stack.enter_context(atomic_write(path)), content) for path, content in contents.items()]
        for file, content in opened:
            file.write(content)


def _content(path: str | Path, tensors: Mapping[str, np.ndarray]) -> bytes:
    if Path(path).suffix == ".safetensors":
        return safetensors.numpy.save({name: np.ascontiguousarray(value) for name, value in tensors.items()})
    torch, file = _torch(path), io.BytesIO()
    torch.save({name: torch.from_numpy(np.array(value)) for name, value in tensors.items()}, file)
    return file.getvalue()


def _torch(path: str | Path) -> ModuleType:
    try:
        import torch
    except ImportError as error:
        raise UserError(
            f"{path}: torch's files need torch; pip install 'langfuse-jax[torch]', or use a .safetensors file"
        ) from error
    return torch


def _read_torch(path: Path) -> dict[str, np.ndarray]:
    torch = _torch(path)
    try:
        with warnings.catch_warnings():  # torch's advice on old pickles would bury the one line a user needs
            warnings.simplefilter("ignore")
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises half a dozen types for a damaged file, pickle its own
        if "Weights only load failed" in str(error):
            reason = "damaged, or it holds other objects than tensors, which are not run"
            raise UserError(
                f"{path}: not a torch state dict ({reason}); write it with torch.save(model.state_dict(), FILE)"
            ) from error
        raise UserError(f"{path}: damaged or not a torch file ({_line(error)}); copy it again") from error
    for key in _WRAPPERS:
        if isinstance(state, Mapping) and isinstance(state.get(key), Mapping):
            state = state[key]
    if isinstance(state, Mapping):
        others = [
            f"{name!r} is a {type(value).__name__}"
            for name, value in state.items()
            if not (isinstance(name, str) and isinstance(value, torch.Tensor))
        ]
    else:
        others = [f"it is a {type(state).__name__}"]
    if others:
        raise UserError(
            f"{path}: not a torch state dict ({others[0]}); write it with torch.save(model.state_dict(), FILE)"
        )
    # numpy has no bfloat16 of its own; float32 holds it exactly.
    kept = ((name, tensor.detach()) for name, tensor in state.items())
    return {name: (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy() for name, tensor in kept}


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:160] or type(error).__name__
