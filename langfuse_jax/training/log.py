"""What a training says while it runs: metrics.jsonl, TensorBoard and a progress bar."""

import io
import json
import math
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from PIL import Image
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.event_file_writer import EventFileWriter
from tqdm import tqdm

from langfuse_jax.runtime.atomic import atomic_write
from langfuse_jax.training.parallel import local


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


class TrainingLog:
    """metrics.jsonl, TensorBoard's events in tensorboard/ and the progress bar, one step behind the device.

    Args:
        workdir: where both go; None for a process that says nothing.
        start: the step that comes next. What is there of it and of later steps is dropped: they are run again.
        total: steps of the training.
    """

    def __init__(self, workdir: Path | None, start: int, total: int):
        self._quiet = workdir is None
        self._pending: tuple | None = None
        if workdir is None:
            return
        path = workdir / "metrics.jsonl"
        lines = lines_before(path, start)
        with atomic_write(path) as file:
            file.write("".join(lines).encode())
        self._file = open(path, "a")
        self._events = EventFileWriter(str(workdir / "tensorboard"))
        # TensorBoard forgets what an earlier run wrote from this step on.
        self._events.add_event(
            Event(step=start, wall_time=time.time(), session_log=SessionLog(status=SessionLog.START))
        )
        if start:
            print(f"langfuse-jax: {workdir}: resuming from step {start}", file=sys.stderr)
        self._bar = tqdm(total=total, initial=start, unit="step", disable=None, file=sys.stderr, desc="compiling")

    def __enter__(self):
        return self

    def write(self, step, metrics, rate, *, keep, speed=None):
        """Takes the metrics of a step just dispatched, and writes those of the step before.

        Those with `keep` become a line, with what `speed()` says then.
        """
        self._flush()
        self._pending = (step, metrics, rate, keep, speed)

    def scalars(self, group, step, values):
        """Numbers for TensorBoard alone, as group/name."""
        if not self._quiet:
            self._add(step, [Summary.Value(tag=f"{group}/{k}", simple_value=v) for k, v in values.items()])

    def image(self, name, step, path):
        """A picture for TensorBoard, from its file."""
        if self._quiet:
            return
        with Image.open(path) as picture:
            width, height = picture.size
            encoded = io.BytesIO()
            picture.convert("L").save(encoded, "png")
        image = Summary.Image(height=height, width=width, colorspace=1, encoded_image_string=encoded.getvalue())
        self._add(step, [Summary.Value(tag=name, image=image)])

    def _add(self, step, values):
        self._events.add_event(Event(step=step, wall_time=time.time(), summary=Summary(value=values)))

    def _flush(self):
        if self._pending is None:
            return
        (step, metrics, rate, keep, speed), self._pending = self._pending, None
        values = {name: float(value) for name, value in local(metrics).items()}
        if self._quiet:
            return
        self._bar.set_description(refresh=False)  # the first step is done: all is compiled
        self._bar.update()
        self._bar.set_postfix({name: f"{value:.3f}" for name, value in values.items()}, refresh=False)
        if keep:
            values |= {"learning_rate": float(rate)}
            measured = speed() if speed else {}
            self._file.write(json_line(step, values | measured))
            self._file.flush()
            self.scalars("train", step, values)
            self.scalars("speed", step, measured)

    def __exit__(self, *_):
        self._flush()
        if not self._quiet:
            self._bar.close()
            self._file.close()
            self._events.close()
