"""A work directory for one process, or one cluster, at a time."""

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path

from langfuse_jax.errors import UserError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_NAME = ".lock"


@contextmanager
def locked(workdir: str | os.PathLike) -> Iterator[None]:
    """Holds `workdir`, a folder that exists, for this process alone; a second holder gets UserError.

    The operating system releases a lock with its process, however that ends: none is ever stale. Where the file system
    or the system has no locks, nothing is held.

    >>> Path("runs").mkdir()
    >>> with locked("runs"):
    ...     with locked("runs"):
    ...         pass
    Traceback (most recent call last):
        ...
    langfuse_jax.errors.UserError: runs: is in use by process ...; wait until it ends, or choose another folder
    """
    path = Path(workdir) / _NAME
    file = _open(path) if fcntl else None
    try:
        yield
    finally:
        if file:
            path.unlink(missing_ok=True)  # before the lock is released: afterwards it might be another process's
            file.close()


def _open(path: Path) -> FileIO | None:
    """The locked file, with the holder's name in it; None where there are no locks."""
    while True:
        try:
            file = open(path, "a+b", buffering=0)
        except OSError as error:
            raise UserError(
                f"{path}: cannot be written ({error.strerror or error}); choose a writable place"
            ) from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            holder = file.read(200).decode(errors="replace").strip() or "another process"
            file.close()
            raise UserError(
                f"{path.parent}: is in use by {holder}; wait until it ends, or choose another folder"
            ) from error
        except OSError:
            file.close()
            path.unlink(missing_ok=True)
            return None
        if _is(path, file):
            break
        file.close()  # its holder has just removed it
    with suppress(OSError):  # a full disk: it is held without a name
        file.truncate(0)
        file.write(f"process {os.getpid()} on {platform.node()}".encode())
    return file


def _is(path: Path, file: FileIO) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False
