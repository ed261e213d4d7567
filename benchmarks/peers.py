"""The device of a benchmark for JAX and for PyTorch, and PyTorch as fast as its users run it there: half precision by
autocast, and torch.compile."""

import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor

# Spinning threads of one framework would steal the other's cores.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "0")

import flax
import jax
import numpy as np
import torch

from langfuse_jax.training.speed import peak_flops


def add_arguments(parser):
    parser.add_argument("--device", choices=("cpu", "cuda"), help="of both (default: what JAX has)")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--compile", action="store_true", help="torch.compile for PyTorch")


def choose(device):
    """Makes a device JAX's, by default the one that it finds, and gives PyTorch's name for it."""
    if device:
        jax.config.update("jax_platforms", "cuda,cpu" if device == "cuda" else device)
    try:
        found = "cuda" if jax.default_backend() == "gpu" else "cpu"
    except (RuntimeError, AssertionError):  # JAX asserts that it has found one
        sys.exit(f"--device {device}: JAX has no such device here")
    if found == "cuda" and not torch.cuda.is_available():
        sys.exit("PyTorch has no CUDA device; install torch for it, or give --device cpu")
    torch.backends.cudnn.allow_tf32 = False  # float32 has all its digits here, as our convolutions have
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    return found


def described(device, dtype):
    """A line on what is measured."""
    return (
        f"jax {jax.__version__}, flax {flax.__version__}, torch {torch.__version__}, {device} "
        f"({jax.devices()[0].device_kind}), {dtype}, {torch.get_num_threads()} threads, load {os.getloadavg()[0]:.1f}"
    )


def autocast(device, dtype):
    """The block in which PyTorch computes in `dtype` what it holds safe."""
    return torch.autocast(device, torch.bfloat16, enabled=dtype == "bfloat16")


def compiled(function, wanted, *arguments):
    """`torch.compile` of a function where it is wanted and works, which a first call shows; else the function."""
    if not wanted:
        return function
    torch.compiler.reset()  # each size is compiled for itself
    faster = torch.compile(function)
    try:
        faster(*arguments)
    except Exception as error:  # no C++ compiler, no Triton: many layers, each with errors of its own
        print(f"torch.compile does not work here ({' '.join(str(error).split())[:200]}); PyTorch runs without it")
        return function
    return faster


def finished(device):
    """Waits for what PyTorch has begun."""
    if device == "cuda":
        torch.cuda.synchronize()


def side_by_side(function, cases):
    """`function` of each case, in threads: a GPU's programs take minutes each to compile."""
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        return list(pool.map(function, cases))


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


def utilisation(flops, seconds):
    """The share of one device's peak, of the makers' data sheets, as a table shows it."""
    peak = peak_flops()
    return f"{100 * flops * jax.device_count() / seconds / peak:.1f}%" if flops and peak else "unknown"
