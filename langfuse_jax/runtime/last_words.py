"""What JAX's runtime says on stderr, with one clear line for what it says when it ends its process.

Where a process of a cluster dies, JAX's runtime ends the others from a thread of its own, with a report and a stack
trace, and runs no Python any more. So another process, this file, stands between the runtime and stderr.
"""

import os
import re
import signal
import subprocess
import sys

_FATAL = b"JAX distributed service detected fatal errors"


def shorten() -> None:
    """Sends what this process's libraries write to stderr through `copy` in a small process of its own.

    What Python writes goes where it went.
    """
    sys.stderr.flush()
    here = os.dup(2)
    reading, writing = os.pipe()
    copier = subprocess.Popen([sys.executable, "-I", "-S", __file__], stdin=reading, stderr=here)
    os.dup2(writing, 2)
    os.close(reading)
    os.close(writing)
    copier.returncode = 0  # it ends after this process, which is not to wait for it
    if sys.stderr is sys.__stderr__:  # not a notebook's
        sys.stderr = os.fdopen(here, "w", buffering=1, errors="backslashreplace")


def copy(lines, out) -> None:
    """Copies lines to `out`, up to the runtime's fatal report: of that and all after it one line is left."""
    report: list[bytes] = []
    for line in lines:
        if report or _FATAL in line:
            report.append(line)
            if line.startswith(b"***"):  # the stack trace
                break
        else:
            out.write(line)
            out.flush()
    if report:
        gone = [line.strip().decode() for line in report if re.fullmatch(rb"\d+\s*", line)]
        if any(b"leader task" in line for line in report):
            gone = ["0"]
        who = f"process {', '.join(gone)}" if gone else "another process"
        out.write(
            f"langfuse-jax: error: {who} is gone or out of reach, and so this one ends; start all of them again: "
            "what is done is kept, a training goes on from its last checkpoint\n".encode()
        )
        out.flush()
        for _ in lines:
            pass


if __name__ == "__main__":
    for stop in (signal.SIGINT, signal.SIGTERM):  # which schedulers and terminals send to all processes of a job
        signal.signal(stop, signal.SIG_IGN)
    copy(sys.stdin.buffer, sys.stderr.buffer)
