"""Watches for steps whose loss or gradient is not finite: they are named, and too many in a row end a training."""

import sys
from collections.abc import Callable

from jax import Array
from tqdm import tqdm

from langfuse_jax.errors import UserError


class Guard:
    """Reads the count of skipped updates one step behind the device, so that the device need not wait.

    Args:
        limit: skipped updates in a row that end the training.
        names: what the samples of a step are called.
        last_checkpoint: a place to go back to, in words, or None.
    """

    def __init__(self, limit: int, *, names: Callable[[int], list[str]], last_checkpoint: Callable[[], str | None]):
        self._limit, self._names, self._last_checkpoint = limit, names, last_checkpoint
        self._pending: tuple[int, Array] | None = None

    def watch(self, step: int, skipped_in_a_row: Array) -> None:
        """Takes what the step just dispatched counts, and looks at the step before. Raises as `look`."""
        self.look()
        self._pending = step, skipped_in_a_row

    def look(self) -> None:
        """Names a step that was skipped, on stderr. Raises UserError where that makes `limit` in a row."""
        if self._pending is None:
            return
        (step, skipped), self._pending = self._pending, None
        if not (count := int(skipped)):
            return
        samples = ", ".join(self._names(step))
        if count < self._limit:
            tqdm.write(
                f"langfuse-jax: warning: step {step}: loss or gradient is not finite; its update is skipped ({count} "
                f"in a row, {self._limit} end the training); samples {samples}",
                file=sys.stderr,
            )
            return
        checkpoint = self._last_checkpoint() or "there is none"
        raise UserError(
            f"step {step}: loss or gradient is not finite for {count} steps in a row (config.max_skipped); samples "
            f"{samples}; last good checkpoint: {checkpoint}. Lower config.learning_rate, set config.gradient_clip or "
            "take bad samples away, and go on with --override"
        )
