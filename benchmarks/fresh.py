"""Do training runs from fresh weights live? The published recipe, scaled down, from three seeds.

    python benchmarks/fresh.py --data-root DATA --out runs/fresh

`DATA` holds roadscene, msrs and vifb. Runs `langfuse-jax train` for each seed, or resumes it, and prints, for each, the
validation loss (16 crops of VIFB) before the first step and at the end, and the smallest gradient norm on the way.
Draws the validation curves into OUT/fresh.png; the fused validation pairs are in the sheets of each run. Needs the
extra [plot].
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import matplotlib.pyplot as plt

from langfuse_jax.runtime.atomic import atomic_write

# 16 crops of 224 pixels and 32 patches are too much for two cores. The warm-up becomes a tenth of the steps.
SCALED = {
    "batch_size": 4,
    "crop": 128,
    "patches.count": 8,
    "log.every": 1,
    "checkpoint.every": 50,
    "sheet.every": 100,
    "scores.every": 0,
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", required=True)
    parser.add_argument("--out", type=Path, required=True, help="folder of the work directories and the picture")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=300)
    args = parser.parse_args()
    figure, axes = plt.subplots(figsize=(6, 3.5), layout="constrained")
    print("| seed | validation loss before | after | smallest gradient norm |\n|---|---|---|---|")
    for seed in args.seeds:
        workdir = args.out / f"seed_{seed}"
        values = {**SCALED, "seed": seed, "steps": args.steps, "data.root": args.data_root}
        flags = [f"--config.{name}={value}" for name, value in values.items()]
        command = [sys.executable, "-m", "langfuse_jax", "train", "--config", "default", "--workdir", workdir, *flags]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        validation, steps = (read_lines(workdir / f"{name}.jsonl") for name in ("validation", "metrics"))
        losses = [line["loss"] for line in validation]
        print(f"| {seed} | {losses[0]:.1f} | {losses[-1]:.1f} | {min(line['gradient_norm'] for line in steps):.1f} |")
        axes.plot([line["step"] for line in validation], losses, label=f"seed {seed}")
    axes.set(xlabel="step", ylabel="validation loss (16 crops of VIFB)", ylim=(0, None))
    axes.legend()
    with atomic_write(args.out / "fresh.png") as file:
        figure.savefig(file, format="png", dpi=120)


def read_lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


if __name__ == "__main__":
    main()
