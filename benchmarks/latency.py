"""One image after the other through the package's two models: `python benchmarks/latency.py [--size 480 640]`.

Prints the median milliseconds of `Fuser` from two numpy images to the fused one, compiled before. In each round the
published network fuses one image and the default five, so that other work on the machine hits both alike.
"""

import argparse
import os
import statistics
import time

import jax
import numpy as np

from langfuse_jax import Fuser

IN_A_ROW = {"ldfusion": 1, "steered": 5}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, nargs=2, default=(480, 640), metavar=("H", "W"))
    parser.add_argument("--rounds", type=int, default=15)
    args = parser.parse_args()
    pair = np.random.default_rng(0).random((2, *args.size), np.float32)
    fusers = {name: Fuser.load(model=name) for name in IN_A_ROW}
    seconds: dict[str, list[float]] = {name: [] for name in IN_A_ROW}
    for fuser in fusers.values():
        fuser(*pair)
    for _ in range(args.rounds):
        for name, count in IN_A_ROW.items():
            for _ in range(count):
                start = time.perf_counter()
                fusers[name](*pair)
                seconds[name].append(time.perf_counter() - start)
    cores = len(os.sched_getaffinity(0))
    print(f"jax {jax.__version__}, {jax.default_backend()}, {cores} cores, load {os.getloadavg()[0]:.1f}")
    slowest = statistics.median(seconds["ldfusion"])
    for name, times in seconds.items():
        median = statistics.median(times)
        print(f"{name}: {1e3 * median:.1f} ms, {slowest / median:.1f} times as fast as ldfusion")


if __name__ == "__main__":
    main()
