"""`langfuse-jax train --profile N`: a trace of some steps, for TensorBoard's profile plugin or xprof."""

from pathlib import Path

import jax
from jaxtyping import PyTree


class Trace:
    """While it is entered, writes a trace of `count` steps from step `first` on into `folder`; of none for 0."""

    def __init__(self, folder: Path, first: int, count: int):
        self._folder, self._steps = folder, range(first, first + count)
        self._running = False

    def __enter__(self) -> "Trace":
        return self

    def before(self, step: int, state: PyTree) -> None:
        """To be called before every step, with what the step before gives."""
        if (step in self._steps) != self._running:
            jax.block_until_ready(state)
            self._switch()

    def _switch(self) -> None:
        self._running = not self._running
        jax.profiler.start_trace(str(self._folder)) if self._running else jax.profiler.stop_trace()

    def __exit__(self, *_: object) -> None:
        if self._running:
            self._switch()
