"""Is a training run that was killed and started again, on this device, the same to the last bit?

    python benchmarks/resume.py [--device cpu|cuda] [--steps N]

Runs `langfuse-jax train --config smoke` on drawn pairs three times: twice from start to end, and once killed after its
first checkpoint and started again. Prints whether the last checkpoints, optimizer and all, are equal bit for bit. Where
two whole runs differ, a resumed one cannot be asked to agree. Every process compiles its programs anew, unless
JAX_COMPILATION_CACHE_DIR is set: a device may choose other kernels then, which is part of the question.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp

from langfuse_jax.examples.night_scene import write_night_scenes
from langfuse_jax.weights.checkpoint import FOLDER, finished_steps


def command(workdir, root, steps):
    values = {"data.root": root, "data.train": "('night',)", "data.validation": "", "steps": steps}
    values |= {"checkpoint.every": steps // 2, "sheet.every": steps}
    flags = [f"--config.{name}={value}" for name, value in values.items()]
    return [sys.executable, "-m", "langfuse_jax", "train", "--config=smoke", f"--workdir={workdir}", *flags]


def train(workdir, root, steps, environment, *, kill=False):
    """A training run to its end, or, with `kill`, to its first checkpoint."""
    with open(workdir.with_suffix(".log"), "ab") as log:
        process = subprocess.Popen(command(workdir, root, steps), env=environment, stdout=log, stderr=log)
        while process.poll() is None:
            if kill and finished_steps(workdir / FOLDER):
                process.kill()
            time.sleep(0.02)
    if kill and process.returncode == 0:
        sys.exit("the training run ended before it could be killed; give more --steps")
    if not kill and process.returncode:
        sys.exit(f"the training run failed:\n{workdir.with_suffix('.log').read_text()[-2000:]}")
    return finished_steps(workdir / FOLDER)


def state(workdir):
    """The arrays of the last checkpoint by name."""
    place = workdir / FOLDER / str(finished_steps(workdir / FOLDER)[-1]) / "state"
    with closing(ocp.PyTreeCheckpointHandler()) as handler:
        form = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), handler.metadata(place).tree)
        found = handler.restore(place, args=ocp.args.PyTreeRestore(restore_args=form))
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(found)}


def equal(first, second):
    """Whether two states are equal bit for bit, NaN included; prints the largest difference where they are not."""
    assert first.keys() == second.keys()
    other = [name for name in first if first[name].tobytes() != second[name].tobytes()]
    for name in other[:3]:
        print(f"  {name}: differs by up to {np.abs(first[name].astype(float) - second[name]).max():.2g}")
    return not other


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: what JAX has")
    parser.add_argument("--steps", type=int, default=20)
    args = parser.parse_args()
    environment = os.environ | ({"JAX_PLATFORMS": args.device} if args.device else {})
    jax.config.update("jax_platforms", "cpu")  # this process only reads
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        write_night_scenes(root / "night", 4, 96, 128)
        runs = [root / name for name in ("whole", "again", "killed")]
        for workdir in runs[:2]:
            train(workdir, root, args.steps, environment)
        left = train(runs[2], root, args.steps, environment, kill=True)
        train(runs[2], root, args.steps, environment)
        whole, again, resumed = (state(workdir) for workdir in runs)
    print(f"{args.device or 'the device of JAX'}: {args.steps} steps, {len(whole)} arrays")
    print(f"two whole runs are equal bit for bit: {equal(whole, again)}")
    print(f"killed after the checkpoint of step {left[-1]} and resumed, equal bit for bit: {equal(whole, resumed)}")


if __name__ == "__main__":
    main()
