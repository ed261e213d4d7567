"""Fusing with langfuse_jax against plain PyTorch, the same float32 weights: `python benchmarks/fuse.py`.

Both run on the device that JAX finds. First the network, compiled, at two sizes, plain and on a canvas (milliseconds,
`--batch` images at once); with `--data-root DATA` then
60 ragged pairs of DATA/roadscene as whole processes, from the start of Python to the last PNG: `langfuse-jax fuse` with
an empty and with a filled compilation cache, and benchmarks/torch_fusion.py. The two take turns; medians are printed,
since other work on the machine hits both alike. Needs torch; `--rounds N` repeats.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

# Spinning threads of one framework would steal the other's cores.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "0")

import flax
import jax
import jax.numpy as jnp
import numpy as np
import torch
import torch_fusion

from langfuse_jax.models.fusion import FusionNet
from langfuse_jax.weights.fusion import TENSORS, load_fusion, network

ROOT = Path(__file__).resolve().parents[1]
WEIGHTS = ROOT / "langfuse_jax" / "assets" / "ldfusion"


def interleaved(functions, rounds):
    """Seconds of wall clock and of processor time of each function, called in turns after one warm-up each."""
    times = [[] for _ in functions]
    for turn in range(rounds + 1):
        for function, seconds in zip(functions, times, strict=True):
            wall, cpu = time.perf_counter(), time.process_time()
            function()
            if turn:
                seconds.append((time.perf_counter() - wall, time.process_time() - cpu))
    return [np.median(seconds, 0) for seconds in times]


def latency(h, w, batch, rounds):
    params = jax.tree.map(jnp.asarray, load_fusion(WEIGHTS)[0])
    pair = np.random.default_rng(0).random((2, batch, h, w, 1), np.float32)
    ours = [jnp.asarray(image) for image in pair]
    sizes = jnp.tile(jnp.array([[h - 5, w - 9]], jnp.int32), (batch, 1))
    plain = jax.jit(FusionNet().apply).lower(params, *ours).compile()
    ragged = jax.jit(FusionNet().apply).lower(params, *ours, sizes).compile()
    small = jax.tree.map(jnp.asarray, load_fusion(WEIGHTS.with_name("steered"))[0])
    steered = jax.jit(network(small).apply).lower(small, *ours).compile()
    device = "cuda" if jax.default_backend() == "gpu" else "cpu"
    published = torch_fusion.load(WEIGHTS / TENSORS).to(device)
    theirs = [torch.from_numpy(image).permute(0, 3, 1, 2).to(device) for image in pair]

    def run_published():
        fused = published(*theirs)
        if device == "cuda":
            torch.cuda.synchronize()
        return fused

    with torch.inference_mode():
        got, want = np.asarray(plain(params, *ours))[..., 0], run_published()[:, 0].cpu().numpy()
        # Accelerators multiply in fewer digits unless told otherwise; both are then as far from float32.
        assert np.abs(got - want).max() < (1e-4 if device == "cpu" else 0.05)
        times = interleaved(
            (
                lambda: plain(params, *ours).block_until_ready(),
                lambda: ragged(params, *ours, sizes).block_until_ready(),
                lambda: steered(small, *ours).block_until_ready(),
                run_published,
            ),
            rounds,
        )
    for name, measured in zip(("ours", "ours, on a canvas", "steered", "PyTorch"), times, strict=True):
        (wall, cpu), ratio = 1e3 * measured, measured / times[-1]
        print(f"| {h}x{w} | {name} | {wall:.3g} | {cpu:.3g} | {ratio[0]:.3g} / {ratio[1]:.3g} |", flush=True)


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
        ours = [sys.executable, "-m", "langfuse_jax", "fuse", *inputs]
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
    parser = argparse.ArgumentParser()
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--pairs", type=int, default=60)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--folder-rounds", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    print(
        f"jax {jax.__version__}, flax {flax.__version__}, torch {torch.__version__}, {jax.default_backend()}, "
        f"{torch.get_num_threads()} threads, load {os.getloadavg()[0]:.1f}\n"
    )
    print("| size | | ms | processor ms | of PyTorch's: wall / processor |\n|---|---|---|---|---|")
    for h, w in ((480, 640), (768, 1024)):
        latency(h, w, args.batch, args.rounds)
    if args.data_root:
        print(f"\n| {args.pairs} ragged pairs | s | processor s | pairs a second | peak MiB | of PyTorch's s |")
        print("|---|---|---|---|---|---|")
        folder_times(args.data_root, args.pairs, args.folder_rounds)


if __name__ == "__main__":
    main()
