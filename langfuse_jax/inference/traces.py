"""Programs traced once on a machine: what they are compiled from is kept beside what JAX compiled of them."""

import hashlib
import inspect
import threading
from collections.abc import Callable, Hashable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import jax
import jaxlib
from jax import export
from jaxtyping import PyTree

from langfuse_jax import models
from langfuse_jax.errors import UserError
from langfuse_jax.runtime.atomic import atomic_write
from langfuse_jax.runtime.compilation import programs_folder

# XLA's newer emitter of loops on CPUs takes half as long again to compile, for programs that are no faster; later
# versions have no other.
COMPILER_OPTIONS = {"xla_cpu_use_fusion_emitters": False} if jax.__version_info__ < (0, 11) else {}
_DIGEST = 32  # bytes ahead of the content of a file
_tracing = threading.Lock()  # Python traces no faster in two threads, and the first program can be compiled meanwhile


def compile_traced(function: Any, fixed: Hashable, *arguments: PyTree) -> Callable[..., Any]:
    """The program of `function(fixed, *arguments)`, a jitted function whose first argument is static.

    It takes `arguments`, of which only shapes and dtypes count here. Where programs are kept (`keep_programs`), so is
    what tracing gives, by the code of `models` and of the function's file, by `repr(fixed)` and all shapes: the next
    process, which reads it, starts a second earlier with LDFusion's network. A file that is damaged or cannot be
    written costs the tracing, and no more. What is not of `models` is traced each time: its code is not known.

    Example::

        program = compile_traced(fuse, FusionNet(), params, visible, infrared)
        fused = program(params, visible, infrared)
    """
    shapes = jax.eval_shape(lambda *leaves: leaves, *arguments)
    folder = programs_folder()
    if folder is None or not type(fixed).__module__.startswith(f"{models.__name__}."):
        return function.lower(fixed, *shapes).compile()
    path = folder / f"{_name(function, fixed, shapes)}.traced"
    with _tracing:
        traced = _read(path)
        if traced is None:
            traced = export.export(function)(fixed, *shapes)
            _write(path, traced.serialize())
        lowered = jax.jit(traced.call, compiler_options=COMPILER_OPTIONS).lower(*shapes)
    return lowered.compile()


def _read(path: Path) -> export.Exported | None:
    """What a file holds; None for one that is missing or damaged."""
    with suppress(OSError):
        content = path.read_bytes()
        if hashlib.sha256(content[_DIGEST:]).digest() == content[:_DIGEST]:
            return export.deserialize(bytearray(content[_DIGEST:]))
    return None


def _write(path: Path, content: bytes | bytearray) -> None:
    with suppress(UserError), atomic_write(path) as file:
        file.write(hashlib.sha256(content).digest() + content)


def _name(function: Any, fixed: Hashable, shapes: PyTree) -> str:
    """Differs for whatever would be traced otherwise."""
    settings: Any = jax.config  # whose values are attributes made at run time
    facts = [
        jax.__version__,
        jaxlib.__version__,
        jax.default_backend(),
        settings.jax_enable_x64,
        settings.jax_default_matmul_precision,
        fixed,
        jax.tree.structure(shapes),
        jax.tree.leaves(shapes),
        _code(inspect.getsourcefile(function.__wrapped__)),
    ]
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:32]


@cache
def _code(file: str) -> str:
    """A digest of the networks' modules and of one more file."""
    digest = hashlib.sha256()
    for path in [*sorted(Path(models.__file__).parent.glob("*.py")), Path(file)]:
        digest.update(path.read_bytes())
    return digest.hexdigest()
