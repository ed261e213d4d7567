"""SIGTERM, by which machines are taken back: save, and end with a status that says so."""

import signal
import threading

import jax
from jax.experimental import multihost_utils


class PreemptionWatch:
    """While it is entered, SIGTERM no longer ends the process: `reached` tells of it.

    In several processes JAX's own coordination service listens for SIGTERM, and all processes agree on the step.
    """

    def __enter__(self) -> "PreemptionWatch":
        self._heard = threading.Event()
        self._previous = None
        # Python takes handlers in its main thread alone.
        if jax.process_count() == 1 and threading.current_thread() is threading.main_thread():
            self._previous = signal.signal(signal.SIGTERM, lambda *_: self._heard.set())
        return self

    def reached(self, step: int) -> bool:
        """Whether to save and stop before `step`; to be asked before every step, by all processes."""
        if jax.process_count() > 1:
            return multihost_utils.reached_preemption_sync_point(step)
        return self._heard.is_set()

    def __exit__(self, *_: object) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGTERM, self._previous)
