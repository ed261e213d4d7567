"""JAX's processes of a cluster, joined through its own runtime; and what to do when one of them is gone."""

import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import jax

from langfuse_jax.errors import Preempted, UserError

# A process that is silent for so long is taken for dead, and the others end. JAX's own 100 s is longer than a minute.
_HEARTBEAT_SECONDS = 30


def join_cluster(
    coordinator: str | None = None,
    processes: int | None = None,
    index: int | None = None,
    *,
    required: bool = False,
    shutdown_seconds: int = 300,
) -> None:
    """Joins the processes of a cluster: those given, or those that JAX recognises, or none.

    JAX recognises Cloud TPU pods, GKE, Slurm, Open MPI and Kubernetes. To be called before JAX computes anything. Where
    one of them dies or is silent for half a minute, JAX ends the others and names it on stderr.

    Args:
        coordinator: "host:port" of process 0.
        processes: how many there are.
        index: which of them this is.
        required: that there be no cluster is an error.
        shutdown_seconds: how long a process that is done waits for the others.

    Raises:
        UserError: where some but not all of the three are given, and no cluster knows the rest; where the others cannot
            be reached; where a cluster is required and none is found.
    """
    if jax.distributed.is_initialized():
        return
    flags = {"--coordinator": coordinator, "--num-processes": processes, "--process-id": index}
    given = " ".join(f"{flag} {value}" for flag, value in flags.items() if value is not None)
    missing = [flag for flag, value in flags.items() if value is None]
    if coordinator is not None and not coordinator.rpartition(":")[2].isdigit():
        raise UserError(f"--coordinator {coordinator}: has no port; give HOST:PORT of process 0, such as 10.0.0.1:1234")
    if processes is not None and processes < 1:
        raise UserError(f"--num-processes {processes}: is no number of processes; give how many are started in all")
    if index is not None and processes is not None and not 0 <= index < processes:
        raise UserError(f"--process-id {index}: is none of {processes} processes; give 0 to {processes - 1}")
    required = required or bool(given)
    try:
        jax.distributed.initialize(
            coordinator,
            processes,
            index,
            heartbeat_timeout_seconds=_HEARTBEAT_SECONDS,
            shutdown_timeout_seconds=shutdown_seconds,
        )
    except (ValueError, RuntimeError) as error:
        if not required and _no_cluster(error):
            return
        reason = str(error).splitlines()[0].rstrip(".")
        if not given:
            flag = "--distributed: " if required else ""
            raise UserError(f"{flag}JAX finds no cluster ({reason}); leave it out for one process") from error
        remedy = f"give {', '.join(missing)} too" if missing else "check that all processes run and reach process 0"
        raise UserError(f"{given}: the processes cannot be joined ({reason}); {remedy}") from error


def _no_cluster(error: Exception) -> bool:
    """Whether JAX found no cluster, or was in use already (as in a notebook), where there is nothing to join."""
    return "coordinator_address should be defined" in str(error) or "must be called before" in str(error)


def wait_for_others(name: str) -> None:
    """Returns when all processes have called it with this name, to be used once: for work that one does alone.

    Collectives between devices give up after half a minute on CPUs; this waits for a day, or until a process dies.
    """
    if jax.process_count() > 1:
        from orbax.checkpoint import multihost  # a second, which fusing does not need

        multihost.get_barrier_sync_fn()(key=name, timeout_ms=86_400_000)


@contextmanager
def end_together(name: object) -> Iterator[None]:
    """In several processes, whatever is raised in the block ends this process at once, and so, soon, the others.

    A normal end would wait for the others, who may wait for this one. One line on stderr names what was raised, after
    the traceback where it is no user's mistake. Only Preempted passes: all processes raise it at the same step. In one
    process all pass.

    Args:
        name: what the processes were at, for the line.
    """
    try:
        yield
    except Preempted:
        raise
    except BaseException as error:
        if jax.process_count() == 1:
            raise
        if isinstance(error, UserError):
            _end(str(error), 2)
        what = type(error).__name__
        reason = " ".join(f"{what}: {error}".split())[:200] if str(error) else what
        again = "start all of them again, they resume from the last checkpoint"
        if isinstance(error, jax.errors.JaxRuntimeError):
            _end(f"{name}: this process lost the others ({reason}); {again}", 2)
        if isinstance(error, Exception):
            traceback.print_exception(error)
        _end(
            f"{name}: this process, {jax.process_index()} of {jax.process_count()}, ends with {reason}, and so the "
            f"others end; {again}",
            130 if isinstance(error, KeyboardInterrupt) else 1,
        )


def _end(problem: str, status: int) -> NoReturn:
    """Ends this process with one line, without the others, for whom a normal end would wait."""
    print(f"langfuse-jax: error: {problem}", file=sys.stderr, flush=True)
    sys.stdout.flush()
    os._exit(status)
