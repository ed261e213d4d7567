"""Files that appear whole or not at all, and the folders they go into."""

import errno
import os
import platform
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from langfuse_jax.errors import UserError


@contextmanager
def atomic_write(path: str | os.PathLike) -> Iterator[BinaryIO]:
    """Yields a binary file; when the block ends without an error, that file becomes `path`, in one step.

    The bytes go to a temporary name in the same folder (made if it is missing), which is removed on any failure, so
    `path` is never half written and keeps its old content until the new one is complete. Raises UserError, naming
    `path`, where the folder cannot be written or the disk is full.

    >>> with atomic_write("notes/hello.txt") as file:
    ...     file.write(b"hello")
    5
    >>> Path("notes/hello.txt").read_text()
    'hello'
    """
    path = Path(path)
    temporary = path.parent / f".{_host()}-{os.getpid()}-{uuid.uuid4().hex}.tmp"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "xb") as file:
            try:
                yield file
                file.close()  # a full disk may show only when the last bytes are flushed
                os.replace(temporary, path)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"{path}: cannot be written ({reason}); choose a writable place with free space") from error


def make_folder(path: str | os.PathLike) -> None:
    """Makes a folder and those above it, if missing. Raises UserError, naming `path`, where that is not allowed."""
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{path}: cannot be made ({error.strerror or error}); choose a writable place") from error


def check_writable(folder: Path, flag: str = "--out") -> None:
    """Raises UserError where files in `folder`, or the folder, cannot be made; the disk may still be full later."""
    above = folder.absolute()
    while not above.exists():
        above = above.parent
    if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
        reason = f"{above} cannot be written" if above.is_dir() else f"{above} is a file"
        raise UserError(f"{flag} {folder}: cannot be written ({reason}); choose a writable place")


@contextmanager
def full_disk_reported(folder: str | os.PathLike) -> Iterator[None]:
    """Raises UserError, naming `folder`, where its disk turns out to be full in the block."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise UserError(
            f"{folder}: cannot be written ({error.strerror}); its last checkpoint stays usable: free space there and "
            "run the same command again"
        ) from error


def remove_leftovers(folder: str | os.PathLike) -> None:
    """Removes what `atomic_write` left in a folder when its process was killed; files of living processes stay."""
    if os.name != "posix":  # elsewhere there is no harmless way to ask whether a process lives
        return
    pattern = re.compile(rf"\.{re.escape(_host())}-(\d+)-[0-9a-f]{{32}}\.tmp")
    for path in Path(folder).glob(".*.tmp"):
        if (match := pattern.fullmatch(path.name)) and not _alive(int(match[1])):
            try:
                path.unlink(missing_ok=True)
            except OSError:  # harmless, and what it hinders will say so itself
                return


def _host() -> str:
    return re.sub(r"[^A-Za-z0-9.]", "", platform.node())[:40] or "host"


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
