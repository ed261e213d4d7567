"""What a training says while it runs: metrics.jsonl and a progress bar."""

import json
import sys

import jax
from tqdm import tqdm


class TrainingLog:
    """metrics.jsonl and the progress bar, one step behind the device."""

    def __init__(self, path, start, total):
        lines = path.read_text().splitlines() if path.exists() else []
        # Steps after the restored checkpoint are run again.
        lines = [line for line in lines if json.loads(line)["step"] < start]
        path.write_text("".join(line + "\n" for line in lines))
        self._file = open(path, "a")
        self._bar = tqdm(total=total, initial=start, unit="step", disable=None, file=sys.stderr)
        self._pending = None

    def __enter__(self):
        return self

    def write(self, step, metrics, rate, *, keep):
        self._flush()
        self._pending = (step, metrics, rate, keep)

    def _flush(self):
        if self._pending is None:
            return
        step, metrics, rate, keep = self._pending
        values = {name: float(value) for name, value in jax.device_get(metrics).items()}
        self._bar.update()
        self._bar.set_postfix({name: f"{value:.3f}" for name, value in values.items()}, refresh=False)
        if keep:
            record = {"step": step, **values, "learning_rate": float(rate)}
            self._file.write(
                json.dumps({k: round(v, 6) if k != "learning_rate" else v for k, v in record.items()}) + "\n"
            )
            self._file.flush()
        self._pending = None

    def __exit__(self, *_):
        self._flush()
        self._bar.close()
        self._file.close()
