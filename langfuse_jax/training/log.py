"""What a training run reports while it runs: metrics.jsonl, TensorBoard and a progress bar."""

import json
import math
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from tensorboardX import summary
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog

from langfuse_jax.runtime.atomic import atomic_write
from langfuse_jax.runtime.bars import progress_bar, show_numbers
from langfuse_jax.training.parallel import on_host

_LINES = 50  # the least that a curve is drawn through


def json_line(step: int, values: Mapping[str, float]) -> str:
    """A line of a .jsonl file: the step, values to 8 digits; null for NaN and infinity, which JSON has not."""
    plain = {name: float(f"{value:.8g}") if math.isfinite(value) else None for name, value in values.items()}
    return json.dumps({"step": step, **plain}) + "\n"


def lines_before(path: Path, step: int) -> list[str]:
    """The lines of a .jsonl file of steps before `step`, without what a killed process wrote half."""
    if not path.exists():
        return []
    whole = [line for line in path.read_text().splitlines(keepends=True) if line.endswith("}\n")]
    return [line for line in whole if json.loads(line)["step"] < step]


def write_line(path: Path, step: int, values: Mapping[str, float]) -> None:
    """Adds the line of a step to a .jsonl file, dropping those of this and later steps."""
    lines = lines_before(path, step)
    with atomic_write(path) as file:
        file.write("".join([*lines, json_line(step, values)]).encode())


def log_interval(every: int, steps: int) -> int:
    """Steps from one line of metrics.jsonl to the next: `every`, or fewer where that would be less than 50 lines.

    >>> log_interval(50, 150), log_interval(50, 6000), log_interval(50, 20)
    (3, 50, 1)
    """
    return max(1, min(every, steps // _LINES))


class _Step(NamedTuple):
    number: int
    metrics: Mapping[str, Any]
    rate: Any
    kept: bool


class TrainingLog:
    """metrics.jsonl, TensorBoard's events and the progress bar, one step behind the device.

    Args:
        workdir: where both go (TensorBoard calls a run by the folder of its events); None for a process that reports
            nothing.
        start: the step that comes next. What is there of it and of later steps is dropped: they are run again.
        total: steps of the training run.
        speed: gives what is known of the speed since it was last asked.
    """

    def __init__(
        self, workdir: Path | None, start: int, total: int, speed: Callable[[], dict[str, float]] = lambda: {}
    ):
        self._quiet = workdir is None
        self._speed = speed
        self._pending: _Step | None = None
        if workdir is None:
            return
        path = workdir / "metrics.jsonl"
        lines = lines_before(path, start)
        with atomic_write(path) as file:
            file.write("".join(lines).encode())
        self._file = open(path, "a")
        # Without a thread of its own, which would hide a full disk, or wait for ever.
        self._events = EventsWriter(str(workdir / "events"))
        # TensorBoard forgets what an earlier run wrote from this step on.
        self._add(start, session_log=SessionLog(status=SessionLog.START))
        if start:
            print(f"langfuse-jax: {workdir}: resuming from step {start}", file=sys.stderr)
        self._bar = progress_bar(total, initial=start, unit="step", desc="compiling")

    def __enter__(self) -> "TrainingLog":
        return self

    def write(self, step: int, metrics: Mapping[str, Any], rate: Any, *, keep: bool) -> None:
        """Takes the metrics of a step just dispatched, and writes those of the step before.

        Those with `keep` become a line, with the speed by then.
        """
        self._flush()
        self._pending = _Step(step, metrics, rate, keep)

    def scalars(self, group: str, step: int, values: Mapping[str, float]) -> None:
        """Numbers for TensorBoard alone, as group/name."""
        if not self._quiet:
            for name, value in values.items():
                self._add(step, summary=summary.scalar(f"{group}/{name}", value))
            self._events.flush()

    def image(self, name: str, step: int, path: Path) -> None:
        """A picture for TensorBoard, from its file."""
        if not self._quiet:
            with Image.open(path) as picture:
                pixels = np.asarray(picture.convert("L"))
            self._add(step, summary=summary.image(name, pixels, dataformats="HW"))

    def _add(self, step: int, **content: Any) -> None:
        self._events.write_event(Event(step=step, wall_time=time.time(), **content))

    def _flush(self) -> None:
        if self._pending is None:
            return
        step, self._pending = self._pending, None
        values = {name: float(value) for name, value in on_host(step.metrics).items()}
        if self._quiet:
            return
        self._bar.set_description(refresh=False)  # the first step is done: all is compiled
        self._bar.update()
        show_numbers(self._bar, values)
        if step.kept:
            values |= {"learning_rate": float(step.rate)}
            speed = self._speed()
            self._file.write(json_line(step.number, values | speed))
            self._file.flush()
            self.scalars("train", step.number, values)
            self.scalars("speed", step.number, speed)

    def __exit__(self, *_: object) -> None:
        self._flush()
        if not self._quiet:
            self._bar.close()
            self._file.close()
            self._events.close()
