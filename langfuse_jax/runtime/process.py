"""The process that a command runs in: streams that may be closed, and signals that end it."""

import errno
import io
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

TERMINATED = 128 + signal.SIGTERM  # the status that shells give a process that SIGTERM ended
INTERRUPTED = 128 + signal.SIGINT
_GOOGLE = "0x1ae0"  # its number among makers of PCI devices


def quiet_libtpu() -> None:
    """Keeps TPU's compiler, where `plan` has brought it to a machine without chips, from reporting that there are none.

    It looks for them in every process that imports JAX. Any names will do; those that are given stay. Where there is a
    device of their maker, nothing is set.
    """
    vendors = Path("/sys/bus/pci/devices").glob("*/vendor")
    if not any(vendor.read_text().strip() == _GOOGLE for vendor in vendors):
        os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
        os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-4")


def mend_streams() -> None:
    """Makes stdin, stdout and stderr usable, whatever the process was started with.

    A closed one is opened on nothing: a file of the command would else get its number, and what libraries print.
    Text that nobody reads (`| head`) or that a full disk cannot take is dropped, and the work goes on.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # which takes the lowest free number
    for name, number in (("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))
        elif stream is getattr(sys, f"__{name}__") and isinstance(stream, io.TextIOWrapper):
            setattr(sys, name, _tolerant(stream, number))


def _tolerant(stream: io.TextIOWrapper, number: int) -> io.TextIOWrapper:
    stream.flush()
    return io.TextIOWrapper(
        io.BufferedWriter(_Tolerant(number, "wb", closefd=False)),
        encoding=stream.encoding,
        errors=stream.errors,
        line_buffering=stream.line_buffering or number == 2,
    )


class _Tolerant(io.FileIO):
    """A stream whose failed writes are dropped."""

    def write(self, content) -> int:  # type: ignore[no-untyped-def]  # any buffer
        try:
            return super().write(content) or 0
        except OSError as error:
            if error.errno not in (errno.EPIPE, errno.ENOSPC, errno.EIO, errno.EBADF, errno.EFBIG):
                raise
            return len(memoryview(content).cast("B"))


@contextmanager
def ended_by_sigterm() -> Iterator[None]:
    """While in the block, SIGTERM ends it by SystemExit with status TERMINATED, so that temporary files are removed."""
    if threading.current_thread() is not threading.main_thread():  # which alone may take signals
        yield
        return

    def end(number: int, frame: FrameType | None) -> None:
        raise SystemExit(TERMINATED)

    previous = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
