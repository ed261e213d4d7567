"""JAX's persistent compilation cache, on by default: a program is compiled once on a machine, not once a run."""

import hashlib
import logging
import os
import platform
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

import jax
import jaxlib
import platformdirs

from langfuse_jax.errors import UserError

FLAG, VARIABLE = "--compilation-cache", "LANGFUSE_JAX_COMPILATION_CACHE"


def keep_programs(choice: str | None = None) -> str | None:
    """Switches the cache on and returns its folder, or None where it is off.

    The folder is the first of: `choice`, the environment variable LANGFUSE_JAX_COMPILATION_CACHE (either may be "off"),
    JAX's own setting (JAX_COMPILATION_CACHE_DIR), and langfuse_jax in the user's cache folder. In all but JAX's
    own, programs of differing machines stay apart: those of another processor may not run. Raises UserError for a
    folder that was given and cannot be written; without the default one, programs are compiled anew each time.

    Example::

        keep_programs()  # before the first program is compiled
        keep_programs("off")
    """
    source = FLAG if choice else VARIABLE
    choice = choice or os.environ.get(VARIABLE)
    if choice == "off":
        jax.config.update("jax_enable_compilation_cache", False)
        return None
    for option, variable, value in (
        ("jax_persistent_cache_min_compile_time_secs", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", 0.0),
        ("jax_persistent_cache_min_entry_size_bytes", "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", -1),
    ):
        if variable not in os.environ:
            jax.config.update(option, value)
    # An entry that cannot be read or kept costs a compilation, and no more.
    warnings.filterwarnings("ignore", message="Error (reading|writing) persistent compilation cache")
    if not choice and (configured := _folder()):
        return configured
    root = Path(choice) if choice else platformdirs.user_cache_path("langfuse_jax", appauthor=False, opinion=False)
    folder = root / f"jaxlib-{jaxlib.__version__}-{_machine()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".{os.getpid()}.tmp"
        probe.touch()
        probe.unlink()
    except OSError as error:
        if choice:
            reason = error.strerror or error
            raise UserError(f"{source} {choice}: cannot be written ({reason}); give a folder, or off") from error
        return None
    jax.config.update("jax_compilation_cache_dir", str(folder))
    _replace_damaged_entries()
    return str(folder)


def programs_folder() -> Path | None:
    """The folder of the cache where it is on.

    >>> programs_folder() is None or programs_folder().is_absolute()
    True
    """
    config: Any = jax.config  # whose values are attributes made at run time
    folder = _folder()
    return Path(folder) if folder and config.jax_enable_compilation_cache else None


def _replace_damaged_entries() -> None:
    """Has an entry that cannot be read, as of a run that was killed while it wrote it, replaced without a word.

    JAX warns of such an entry, compiles, and leaves the damaged file where it is.
    """
    logger = logging.getLogger("jax._src.compiler")
    if not any(isinstance(each, _Misses) for each in logger.filters):
        logger.addFilter(_Misses(logger.getEffectiveLevel()))
        logger.setLevel(logging.DEBUG)  # at which JAX says that it has to compile, and by which key it looked


class _Misses(logging.Filter):
    """Removes the file of an entry that JAX could not load, before it writes a new one; hides records under `level`."""

    def __init__(self, level: int):
        super().__init__()
        self._level = level

    def filter(self, record: logging.LogRecord) -> bool:
        if str(record.msg).startswith("PERSISTENT COMPILATION CACHE MISS") and isinstance(record.args, tuple):
            with suppress(OSError):  # an entry of another user stays
                Path(_folder(), f"{record.args[1]}-cache").unlink(missing_ok=True)
        return record.levelno >= self._level


def count_programs() -> dict[str, int]:
    """A dictionary that counts from now on: "programs" made ready, and those of them "loaded" from the cache.

    Example::

        counts = count_programs()
        Fuser.load()(visible, infrared)
        print(counts["programs"] - counts["loaded"], "compiled")
    """
    counts = {"programs": 0, "loaded": 0}

    def made(event: str, duration_secs: float, **_: Any) -> None:
        if event == "/jax/core/compile/backend_compile_duration":  # of one that is loaded, too
            counts["programs"] += 1

    def loaded(event: str, **_: Any) -> None:
        if event == "/jax/compilation_cache/cache_hits":
            counts["loaded"] += 1

    jax.monitoring.register_event_duration_secs_listener(made)
    jax.monitoring.register_event_listener(loaded)
    return counts


def _folder() -> Any:
    """JAX's setting, a path or None."""
    config: Any = jax.config  # whose values are attributes made at run time
    return config.jax_compilation_cache_dir


def _machine() -> str:
    """A short name for what a compiled program may rely on: the processor and its instruction sets."""
    facts = {platform.machine(), platform.processor()}
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            facts |= {line for line in file if line.startswith(("flags", "Features", "model name"))}
    return hashlib.sha256("".join(sorted(facts)).encode()).hexdigest()[:12]
