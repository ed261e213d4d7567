"""Files that appear whole or not at all, and the folders they go into."""

import errno
import io
import os
import platform
import re
import stat
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NoReturn

from langfuse_jax.errors import UserError

_OPEN = re.compile(r"/dev/(stdin|stdout|stderr|fd/\d+)|/proc/[^/]+/fd/\d+")  # names of what a process has opened
_swept: set[Path] = set()  # folders that this process has cleared of what a killed one left


@contextmanager
def atomic_write(path: str | os.PathLike) -> Iterator[BinaryIO]:
    """Yields a binary file; when the block ends without an error, that file becomes `path`, in one step.

    The bytes go to a temporary name in the same folder (made if it is missing), which is removed on any failure, and
    are on the disk before `path` is replaced: it is never half written, and keeps its old content until the new one
    is complete. What a killed process left there before is removed. A link is replaced, not what it leads to. What is
    no regular file, as /dev/stdout or a pipe, is written to at the end. Raises UserError, naming `path`, where the
    folder cannot be written or the disk is full.

    >>> with atomic_write("notes/hello.txt") as file:
    ...     file.write(b"hello")
    5
    >>> Path("notes/hello.txt").read_text()
    'hello'
    """
    path = Path(path)
    try:
        if _is_stream(path):
            memory = io.BytesIO()
            yield memory
            _write_stream(path, memory.getbuffer())
            return
        temporary = path.parent / f".{_host()}-{os.getpid()}-{uuid.uuid4().hex}.tmp"
        path.parent.mkdir(parents=True, exist_ok=True)
        if (folder := path.parent.resolve()) not in _swept:
            _swept.add(folder)
            remove_leftovers(folder)
        raw = io.FileIO(temporary, "xb")
        try:
            with _Written(raw) as file:
                yield file
                file.flush()  # a full disk may show only when the last bytes are written
                os.fsync(raw.fileno())
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"{path}: cannot be written ({reason}); choose a writable place with free space") from error


class _Written(io.BufferedWriter):
    """A file whose every write is checked: libraries that ask for its number write past Python, and past errors."""

    def fileno(self) -> NoReturn:
        raise io.UnsupportedOperation("fileno")


def _is_stream(path: Path) -> bool:
    """Whether `path` is there and no regular file, or leads to an open one, as /dev/stdout does."""
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return False
    if not stat.S_ISREG(mode):
        return not stat.S_ISDIR(mode)
    for _ in range(40):  # as many links as the system follows
        if _OPEN.fullmatch(str(path.absolute())):
            return True
        if not path.is_symlink():
            return False
        path = path.parent / os.readlink(path)
    return False


def _write_stream(path: Path, content: memoryview) -> None:
    """Writes to a pipe or a device; to this process's own output through that, whose place in the file is shared."""
    for own in (sys.stdout, sys.stderr):
        try:
            own.flush()
            if os.path.samestat(os.stat(path), os.fstat(own.fileno())):
                with io.FileIO(os.dup(own.fileno()), "wb") as stream:
                    return _write_all(stream, content)
        except (AttributeError, OSError, ValueError):  # closed, or none of the system
            continue
    with open(path, "ab", buffering=0) as stream:
        _write_all(stream, content)


def _write_all(stream: io.RawIOBase, content: memoryview) -> None:
    while content:
        content = content[stream.write(content) or 0 :]


def make_folder(path: str | os.PathLike) -> None:
    """Makes a folder and those above it, if missing. Raises UserError, naming `path`, where that is not allowed."""
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{path}: cannot be made ({error.strerror or error}); choose a writable place") from error


def check_writable(folder: Path, flag: str = "--out") -> None:
    """Raises UserError where files in `folder`, or the folder, cannot be made; the disk may still be full later."""
    above = folder.absolute()
    while not os.path.lexists(above) and above != above.parent:
        above = above.parent
    if not os.path.isdir(above) or not os.access(above, os.W_OK | os.X_OK):
        reason = f"{above} cannot be written" if os.path.isdir(above) else f"{above} is a file"
        raise UserError(f"{flag} {folder}: cannot be written ({reason}); choose a writable place")


@contextmanager
def full_disk_reported(folder: str | os.PathLike) -> Iterator[None]:
    """Raises UserError, naming `folder`, where its disk turns out to be full in the block."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
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
    try:
        for path in Path(folder).glob(".*.tmp"):
            if (match := pattern.fullmatch(path.name)) and not _alive(int(match[1])):
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
