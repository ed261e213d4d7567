"""Watches for steps that cannot be used and for training runs that learn nothing any more."""

from collections.abc import Callable, Mapping

from jax import Array

from langfuse_jax.errors import UserError
from langfuse_jax.runtime.bars import write_beside
from langfuse_jax.training.parallel import on_host

# Standard deviation of fused crops, in [0, 1], below which they show nothing: an eighth of a gray level.
CONSTANT = 0.0005


class Guard:
    """Reads what a step reports one step behind the device, so that the device need not wait.

    Args:
        max_skipped: updates skipped in a row, because loss or gradient are not finite, that end the training run.
        max_dead: steps in a row with a gradient of exactly zero, or with constant fused images, that end it.
        names: what the samples of a step are called.
        last_checkpoint: a place to go back to, in words, or None.
    """

    def __init__(
        self,
        max_skipped: int,
        max_dead: int,
        *,
        names: Callable[[int], list[str]],
        last_checkpoint: Callable[[], str | None],
    ):
        self._max_skipped, self._max_dead = max_skipped, max_dead
        self._names, self._last_checkpoint = names, last_checkpoint
        self._pending: tuple[int, dict[str, Array]] | None = None
        self._dead = 0

    def watch(self, step: int, metrics: Mapping[str, Array]) -> None:
        """Takes the metrics of the step just dispatched, and looks at the step before. Raises as `look`."""
        self.look()
        names = ("skipped_in_a_row", "gradient_norm", "fused_std")
        self._pending = step, {name: metrics[name] for name in names if name in metrics}

    def look(self) -> None:
        """Names a step that was skipped, on stderr. Raises UserError where a limit is reached."""
        if self._pending is None:
            return
        (step, pending), self._pending = self._pending, None
        values = on_host(pending)
        if skipped := int(values["skipped_in_a_row"]):
            self._look_at_skipped(step, skipped)
        zero, constant = values["gradient_norm"] == 0, values.get("fused_std", 1.0) < CONSTANT
        self._dead = self._dead + 1 if zero or constant else 0
        if self._dead >= self._max_dead:
            what = "the gradient is exactly zero" if zero else "the fused images are constant"
            raise UserError(
                f"step {step}: {what}, for {self._dead} steps in a row (config.guard.max_dead): this training run "
                f"learns nothing any more; last checkpoint: {self._last_checkpoint() or 'none'}. Start again in "
                "another folder with a lower config.optimizer.learning_rate, more config.optimizer.warmup_steps, or, "
                "for the fusion network, config.init=lossless"
            )

    def _look_at_skipped(self, step: int, count: int) -> None:
        samples = ", ".join(self._names(step))
        if count < self._max_skipped:
            write_beside(
                f"langfuse-jax: warning: step {step}: loss or gradient is not finite; its update is skipped ({count} "
                f"in a row, {self._max_skipped} end the training run); samples {samples}"
            )
            return
        checkpoint = self._last_checkpoint() or "there is none"
        raise UserError(
            f"step {step}: loss or gradient is not finite for {count} steps in a row (config.guard.max_skipped); "
            f"samples {samples}; last good checkpoint: {checkpoint}. Lower config.optimizer.learning_rate, set "
            "config.optimizer.gradient_clip or take bad samples away, and resume with --override"
        )
