"""Fusing with langfuse_jax against plain PyTorch, the same weights: `python benchmarks/fuse.py`.

Both run on the device that JAX finds, or on --device. First the network, compiled, at some --sizes, each with some
--batch, plain and on a canvas; --dtype bfloat16 is that of our convolutions, and autocast for PyTorch, whose images are
channels last (--compile: torch.compile too). With `--data-root DATA` then 40 ragged pairs of DATA/roadscene as whole
processes, from the start of Python to the last PNG: `langfuse-jax fuse --model ldfusion` with an empty and with a
filled compilation cache, and benchmarks/torch_fusion.py. The two take turns; medians are printed, since other work on
the machine hits both alike. Needs torch; `--rounds N` repeats. On a GPU:

    python benchmarks/fuse.py --device cuda --dtype bfloat16 --compile --sizes 480x640 1080x1920 --batch 1 16
"""

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import peers
import torch
import torch_fusion

from langfuse_jax.weights.fusion import TENSORS, load_fusion, network

ROOT = Path(__file__).resolve().parents[1]
WEIGHTS = ROOT / "langfuse_jax" / "assets" / "ldfusion"


def our_programs(size, batch, dtype):
    """Functions that fuse pairs of one size, plain, on a canvas and by the default network."""
    h, w = map(int, size.split("x"))
    params, small = (
        jax.tree.map(jnp.asarray, load_fusion(folder)[0]) for folder in (WEIGHTS, WEIGHTS.with_name("steered"))
    )
    pair = [jnp.asarray(image) for image in np.random.default_rng(0).random((2, batch, h, w, 1), np.float32)]
    sizes = jnp.tile(jnp.array([[h - 5, w - 9]], jnp.int32), (batch, 1))

    def compiled(params, *arguments):
        net = network(params).clone(dtype=dtype)
        program = jax.jit(net.apply).lower(params, *arguments).compile()
        return lambda: program(params, *arguments).block_until_ready()

    return compiled(params, *pair), compiled(params, *pair, sizes), compiled(small, *pair)


def latency(size, batch, programs, device, args):
    """Rows of the table for one size and batch."""
    h, w = map(int, size.split("x"))
    pair = np.random.default_rng(0).random((2, batch, h, w, 1), np.float32)
    with torch.inference_mode(), peers.autocast(device, args.dtype):
        theirs = [
            torch.from_numpy(image).permute(0, 3, 1, 2).to(device, memory_format=torch.channels_last) for image in pair
        ]
        published = peers.compiled(torch_fusion.load(WEIGHTS / TENSORS).to(device), args.compile, *theirs)

        def run_published():
            fused = published(*theirs)
            peers.finished(device)
            return fused

        got, want = np.asarray(programs[0]())[..., 0], run_published()[:, 0].float().cpu().numpy()
        # In half precision, and summed in another order by an accelerator, both are as far from float32.
        exact = device == "cpu" and args.dtype == "float32"
        assert np.quantile(np.abs(got - want), 1 if exact else 0.999) < (1e-4 if exact else 0.05)
        times = peers.interleaved((*programs, run_published), args.rounds)
    for name, measured in zip(("ours", "ours, on a canvas", "steered", "PyTorch"), times, strict=True):
        (wall, cpu), ratio = 1e3 * measured, measured / times[-1]
        row = f"| {size} | {batch} | {name} | {wall:.3g} | {cpu:.3g} | {batch / measured[0]:.3g} |"
        print(f"{row} {ratio[0]:.3g} / {ratio[1]:.3g} |", flush=True)


# A process starts out with the peak memory of the one that started it, which here is large: hence one between.
LAUNCHER = """
import json, resource, subprocess, sys, time
start = time.perf_counter()
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)
usage = resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps([time.perf_counter() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 2**10]))
"""


def process(command, **environment):
    """Wall-clock seconds, processor seconds and peak memory (MiB) of a command, which must succeed."""
    launched = [sys.executable, "-c", LAUNCHER, *command]
    return json.loads(subprocess.run(launched, env=os.environ | environment, check=True, stdout=subprocess.PIPE).stdout)


def folder_times(data, count, rounds):
    measured = {"ours, cold": [], "ours, warm": [], "PyTorch": []}
    with tempfile.TemporaryDirectory() as scratch:
        scratch = Path(scratch)
        inputs = []
        for role in ("visible", "infrared"):
            (scratch / role).mkdir()
            for path in sorted((data / "roadscene" / role).iterdir())[:count]:
                (scratch / role / path.name).symlink_to(path.resolve())
            inputs += [f"--{role}", str(scratch / role)]
        ours = [sys.executable, "-m", "langfuse_jax", "fuse", "--model", "ldfusion", *inputs]
        theirs = [sys.executable, str(ROOT / "benchmarks" / "torch_fusion.py"), *inputs]
        for turn in range(rounds):
            cache = str(scratch / f"cache{turn}")
            environment = {"LANGFUSE_JAX_COMPILATION_CACHE": cache, "JAX_COMPILATION_CACHE_DIR": cache}
            out = [str(scratch / f"{turn}{name}") for name in ("cold", "warm", "torch")]
            measured["ours, cold"].append(process([*ours, "--out", out[0]], **environment))
            measured["ours, warm"].append(process([*ours, "--out", out[1]], **environment))
            weights = ["--weights", str(WEIGHTS / TENSORS)]
            measured["PyTorch"].append(process([*theirs, "--out", out[2], *weights]))
            for folder in out:
                assert len(list(Path(folder).glob("*.png"))) == count
    medians = {
        name: [statistics.median(column) for column in zip(*rows, strict=True)] for name, rows in measured.items()
    }
    for name, (wall, cpu, peak) in medians.items():
        ratio = wall / medians["PyTorch"][0]
        print(f"| {name} | {wall:.1f} | {cpu:.1f} | {count / wall:.1f} | {peak:.0f} | {ratio:.2f} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    peers.add_arguments(parser)
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--pairs", type=int, default=40)
    parser.add_argument("--sizes", nargs="+", metavar="HxW", default=["480x640", "768x1024"])
    parser.add_argument("--batch", type=int, nargs="+", default=[1])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--folder-rounds", type=int, default=2)
    args = parser.parse_args()
    device = peers.choose(args.device)
    print(f"{peers.described(device, args.dtype)}\n")
    print("| size | batch | | ms | processor ms | images a second | of PyTorch's: wall / processor |")
    print("|---|---|---|---|---|---|---|")
    cases = list(itertools.product(args.sizes, args.batch))
    compiled = peers.side_by_side(lambda case: our_programs(*case, args.dtype), cases)
    for case, programs in zip(cases, compiled, strict=True):
        latency(*case, programs, device, args)
    if args.data_root:
        print(f"\n| {args.pairs} ragged pairs | s | processor s | pairs a second | peak MiB | of PyTorch's s |")
        print("|---|---|---|---|---|---|")
        folder_times(args.data_root, args.pairs, args.folder_rounds)


if __name__ == "__main__":
    main()
