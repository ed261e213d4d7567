"""Times of the nine usual metrics against numpy and scipy: `python benchmarks/metrics.py --data-root DATA`.

First one 480x640 triple in one process, ours compiled before; then 42 ragged images as whole processes, each from start
to table: the 21 VIFB pairs fused by the average and by the maximum. All take turns; medians are printed, of CPU seconds
too, which other work on the machine changes less. Ours uses the cores that the process may use (`taskset -c 0`: one);
numpy and scipy take one for these metrics.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import scipy
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from reference import metrics_numpy

METRICS = ("EN", "SD", "SF", "AG", "MI", "SCD", "VIF", "Qabf", "SSIM")


def gray(path):
    return np.asarray(Image.open(path).convert("L"))


def triples(fused, visible, infrared):
    """(fused, visible, infrared) images of the stems in `fused`."""
    for path in sorted(fused.iterdir()):
        yield tuple(gray(next(folder.glob(f"{path.stem}.*"))) for folder in (fused, visible, infrared))


def in_turns(functions, rounds):
    """Median seconds and median CPU seconds, children's included, of each function by name, called in turns."""
    times = {name: [] for name in functions}
    for _ in range(rounds):
        for name, function in functions.items():
            start, used = time.perf_counter(), cpu_seconds()
            function()
            times[name].append((time.perf_counter() - start, cpu_seconds() - used))
            print(f"{name}: %.3f s, %.3f of CPU" % times[name][-1], file=sys.stderr, flush=True)
    return {name: [statistics.median(column) for column in zip(*rows, strict=True)] for name, rows in times.items()}


def cpu_seconds():
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


def one_triple(images, rounds):
    from langfuse_jax.metrics import evaluate

    def ours():
        return {name: float(value) for name, value in evaluate(*images, metrics=METRICS).items()}

    def theirs():
        return metrics_numpy.evaluate(*(image.astype(np.float64) for image in images))

    found, expected = ours(), theirs()
    worst = max(abs(found[name] / expected[name] - 1) for name in METRICS)
    print(f"largest relative difference of the two: {worst:.1e}", file=sys.stderr)
    return in_turns({"ours": ours, "numpy": theirs}, rounds)


def whole_processes(folders, sources, scratch, rounds):
    command = [sys.executable, "-m", "langfuse_jax", "evaluate", *(f"--fused={folder}" for folder in folders)]
    command += [f"--visible={sources / 'visible'}", f"--infrared={sources / 'infrared'}"]
    numpy = [sys.executable, __file__, "--data-root", str(sources.parent), "--numpy", *map(str, folders)]

    def run(argv, cache="off"):
        environment = {**os.environ, "LANGFUSE_JAX_COMPILATION_CACHE": str(cache)}
        subprocess.run(argv, check=True, env=environment, stdout=subprocess.DEVNULL)

    run(command, scratch / "cache")
    return in_turns(
        {
            "ours, compiling": lambda: run(command),
            "ours, programs cached": lambda: run(command, scratch / "cache"),
            "numpy": lambda: run(numpy),
        },
        rounds,
    )


def tell(what, times):
    for name, (taken, used) in times.items():
        ratios = (reference / ours for reference, ours in zip(times["numpy"], (taken, used), strict=True))
        print(
            f"| {what}: {name} | {taken:.2f} | {used:.2f} | " + " / ".join(f"{r:.1f}" for r in ratios) + " |",
            flush=True,
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", type=Path, required=True, help="holds vifb/visible and vifb/infrared")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--numpy", type=Path, nargs="+", metavar="FUSED", help="score these folders by numpy, no more")
    args = parser.parse_args()
    sources = args.data_root / "vifb"
    if args.numpy:
        for folder in args.numpy:
            scores = [
                metrics_numpy.evaluate(*(np.float64(image) for image in images))
                for images in triples(folder, sources / "visible", sources / "infrared")
            ]
            print(folder.name, {name: float(np.mean([score[name] for score in scores])) for name in METRICS})
        return

    import jax

    with tempfile.TemporaryDirectory() as scratch:
        scratch = Path(scratch)
        folders = [scratch / "average", scratch / "maximum"]
        for folder in folders:
            folder.mkdir()
        for path in sorted((sources / "visible").iterdir()):
            visible, infrared = gray(path), gray(next((sources / "infrared").glob(f"{path.stem}.*")))
            mean = np.rint(visible / 2 + infrared / 2).astype(np.uint8)
            for folder, fused in zip(folders, (mean, np.maximum(visible, infrared)), strict=True):
                Image.fromarray(fused).save(folder / f"{path.stem}.png")
        images = next(
            images
            for images in triples(folders[0], sources / "visible", sources / "infrared")
            if images[0].shape == (480, 640)
        )
        cores = len(os.sched_getaffinity(0))
        print(f"jax {jax.__version__}, numpy {np.__version__}, scipy {scipy.__version__}, {cores} cores")
        print("| | seconds | CPU seconds | numpy / this |\n|---|---|---|---|", flush=True)
        tell("one 480x640 image", one_triple(images, 3 * args.rounds))
        tell("42 images, whole process", whole_processes(folders, sources, scratch, args.rounds))


if __name__ == "__main__":
    main()
