"""Where the seconds of `langfuse-jax fuse` on a folder go, from the start of Python to the last image.

    python benchmarks/seconds.py --visible VIS --infrared IR --out OUT [flags of fuse]

Runs the command in this process and prints when each stage ended, with the processor time until then, and how much
processor time reading and writing took in their threads. Give a new --compilation-cache for a cold start.
"""

import importlib
import sys
import threading
import time
from collections import defaultdict
from pathlib import Path

START = time.perf_counter()

ended: list[tuple[str, float, float]] = []
beside: dict[str, float] = defaultdict(float)
lock = threading.Lock()


def stage(name):
    ended.append((name, time.perf_counter() - START, time.process_time()))


def staged(module, attribute, name):
    """Has each call of a function end a stage."""
    function = getattr(module, attribute)

    def timed(*arguments, **named):
        result = function(*arguments, **named)
        stage(name)
        return result

    setattr(module, attribute, timed)


def counted(module, attribute, name):
    """Adds up the processor time of the calls of a function, whatever thread they are in."""
    function = getattr(module, attribute)

    def timed(*arguments, **named):
        start = time.thread_time()
        try:
            return function(*arguments, **named)
        finally:
            with lock:
                beside[name] += time.thread_time() - start

    setattr(module, attribute, timed)


def main():
    importlib.import_module("jax")
    stage("JAX imported")
    names = ("inference.folders", "inference.stream", "inference.traces", "cli")
    folders, stream, traces, cli = (importlib.import_module(f"langfuse_jax.{name}") for name in names)
    stage("the rest imported")
    staged(folders, "match_pairs", "files paired")
    staged(stream.Fuser, "load", "weights loaded")
    staged(folders, "_expected", "canvases chosen")
    read_or_trace, compile_traced = traces._read, stream.Fuser.program

    def read(path: Path):
        found = read_or_trace(path)
        stage("a traced program read" if found else "no traced program found")
        return found

    def program(fuser, canvas, batch):
        made = compile_traced(fuser, canvas, batch)
        stage(f"program of {canvas[0]}x{canvas[1]} ready")
        return made

    traces._read, stream.Fuser.program = read, program
    staged(traces, "_write", "program traced and kept")
    counted(folders, "read_pair", "reading pairs")
    counted(folders, "write_fused", "writing images")
    status = cli.main(["fuse", *sys.argv[1:]])
    stage("last image written")
    print("\n| | until, s | processor s |\n|---|---|---|")
    for name, wall, cpu in ended:
        print(f"| {name} | {wall:.2f} | {cpu:.2f} |")
    for name, cpu in beside.items():
        print(f"| {name}, in threads | | {cpu:.2f} |")
    return status


if __name__ == "__main__":
    sys.exit(main())
