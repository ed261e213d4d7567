"""Samples a second of the input pipeline alone, against what a training step consumes.

    python benchmarks/input.py --config configs/cpu.py --data-root DATA [--workers N] [--step-seconds S]

Prints the rate with an empty memory (decoding), with decoded images in memory, and the share that a step of S seconds
needs: the step takes `batch_size / S` samples a second. S is in the progress bar of a training run.
"""

import argparse
import time
from pathlib import Path

from langfuse_jax.data.pipeline import TrainingData
from langfuse_jax.data.scenes import Scenes, list_scenes
from langfuse_jax.training.configs import load_config


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", default="default")
    parser.add_argument("--data-root", required=True)
    parser.add_argument("--train", nargs="+", default=["roadscene"], help="datasets under the root")
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--samples", type=int, default=512)
    parser.add_argument("--step-seconds", type=float, help="time of one training step")
    args = parser.parse_args()

    config = load_config(args.config)
    scenes = [scene for name in args.train for scene in list_scenes(Path(args.data_root) / name)]
    needed = config.batch_size / args.step_seconds if args.step_seconds else None
    for memory, megabytes in (("decoded every time", 0), ("decoded images in memory", config.data.cache_mb)):
        data = TrainingData(
            Scenes(scenes, cache_mb=megabytes // max(1, args.workers)),
            crop=config.crop,
            batch_size=config.batch_size,
            seed=0,
            workers=args.workers,
            threads=args.threads,
        )
        batches = data.batches()
        # The workers' start and, in the second round, the epoch that fills the memory are not counted.
        for _ in range(1 if not megabytes else -(-3 * len(scenes) // config.batch_size)):
            next(batches)
        steps = -(-args.samples // config.batch_size)
        begun = time.perf_counter()
        for _ in range(steps):
            next(batches)
        rate = steps * config.batch_size / (time.perf_counter() - begun)
        batches.close()
        against = f", {rate / needed:.1f} times the {needed:.1f} of the step" if needed else ""
        print(f"{memory}: {rate:.0f} samples/s of {config.crop} px{against}")


if __name__ == "__main__":
    main()
