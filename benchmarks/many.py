"""Ten thousand small pairs: memory, listing, progress and resuming of `langfuse-jax fuse` and of the training input.

    python benchmarks/many.py [--pairs N] [--folder DIR]

Writes N pairs of 48x64 pixels, and runs the public commands on them as processes, under a pseudo-terminal. Prints the
memory of a process and its children after 100, 1000 and all pairs; the seconds from its start to the first pair for a
tenth of the pairs and for all; and what a command does that was killed at half and started again. Then the same of the
training input: the pairs, prepared by `langfuse-jax data build`, are read for an epoch as a training run reads them.
"""

import argparse
import fcntl
import hashlib
import os
import pty
import re
import struct
import subprocess
import sys
import tempfile
import termios
import threading
import time
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from langfuse_jax.examples.night_scene import night_scene

HEIGHT, WIDTH, BATCH = 48, 64, 20
MAIN = [sys.executable, "-m", "langfuse_jax"]


def write_pairs(folder, count):
    """Windows of one drawn scene, numbered, into folder/visible and folder/infrared, and hard links to a tenth of them.

    In folder/few all that are linked have partners; in folder/alone all visible ones are there.
    """
    scene, rng = night_scene(480, 640), np.random.default_rng(0)
    for part in ("all", "few", "alone"):
        for role in ("visible", "infrared"):
            (folder / part / role).mkdir(parents=True)
    for number in range(count):
        top, left = rng.integers(0, 480 - HEIGHT), rng.integers(0, 640 - WIDTH)
        for role, image in zip(("visible", "infrared"), scene, strict=True):
            name = f"{role}/{number:06}.png"
            window = Image.fromarray(image[top : top + HEIGHT, left : left + WIDTH])
            window.save(folder / "all" / name, compress_level=1)
            if number < count // 10:
                os.link(folder / "all" / name, folder / "few" / name)
            if number < count // 10 or role == "visible":
                os.link(folder / "all" / name, folder / "alone" / name)


def resident(pid):
    """MiB of resident memory of a process and those that it started; 0 where it has ended."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        started = [file.read_text().split() for file in Path(f"/proc/{pid}/task").glob("*/children")]
    except OSError:
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20 + sum(resident(child) for own in started for child in own)


@dataclass
class Observed:
    """A process: seconds from its start to the first new pair and to its end, memory by pairs done, what it printed."""

    first: float = 0.0
    seconds: float = 0.0
    memory: list[tuple[int, float]] = field(default_factory=list)
    printed: str = ""

    def at(self, pairs):
        """MiB when so many pairs, or a few more, were done."""
        return next((mib for done, mib in self.memory if done >= pairs), float("nan"))

    def growth(self, first, last):
        """The most MiB from one number of pairs to another, less those at the first."""
        return max((mib for done, mib in self.memory if first <= done <= last), default=float("nan")) - self.at(first)


def observe(command, done, *, kill_at=None):
    """Runs a command under a pseudo-terminal, and asks `done` for its pairs; with `kill_at` it is killed there."""
    master, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    already, seen, chunks = done(""), Observed(), []
    begun = time.perf_counter()
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=terminal, stderr=terminal)
    os.close(terminal)
    reader = threading.Thread(target=_drain, args=(master, chunks))
    reader.start()
    while process.poll() is None:
        count = done(b"".join(chunks[-8:]).decode(errors="replace"))
        if count > already:
            seen.first = seen.first or time.perf_counter() - begun
            if mib := resident(process.pid):
                seen.memory.append((count, mib))
        if kill_at and count >= kill_at:
            process.kill()
        time.sleep(0.1 if seen.first else 0.02)
    seen.seconds = time.perf_counter() - begun
    reader.join()
    os.close(master)
    seen.printed = b"".join(chunks).decode(errors="replace")
    if process.returncode not in (0, 1) and not kill_at:
        sys.exit(f"{' '.join(command)} ended with status {process.returncode}:\n{seen.printed[-2000:]}")
    return seen


def _drain(master, chunks):
    while True:
        try:
            chunk = os.read(master, 1 << 16)
        except OSError:  # the process, the last that held the terminal, has ended
            return
        if not chunk:
            return
        chunks.append(chunk)


def bar(printed):
    """The progress bar when half of its lines had been shown."""
    lines = [line.strip() for line in re.split(r"[\r\n]+", printed) if re.search(r"\d+/\d+ \[.*<", line)]
    return lines[len(lines) // 2] if lines else "(none)"


def fused(out):
    """Counts the images of a folder."""

    def count(printed):
        try:
            with os.scandir(out) as entries:
                return sum(entry.name.endswith(".png") for entry in entries)
        except FileNotFoundError:
            return 0

    return count


def fuse(pairs, out, *more, **how):
    """Observes the command on the folders in `pairs`."""
    folders = [f"--visible={pairs / 'visible'}", f"--infrared={pairs / 'infrared'}", f"--out={out}"]
    return observe([*MAIN, "fuse", *folders, *more], fused(out), **how)


def versions(out):
    """What tells whether an image was written again."""
    with os.scandir(out) as entries:
        return {entry.name: (entry.inode(), entry.stat().st_mtime_ns) for entry in entries if entry.name[0] != "."}


def prepare(pairs, root, name):
    """The dataset that `langfuse-jax data build` makes of them."""
    command = [*MAIN, "data", "build", "folder", f"--source={pairs}", f"--out={root}", f"--name={name}"]
    return root / name, observe(command, lambda printed: 0)


def read_epoch(dataset, cache_mb, *, first=0, batches=None):
    """Observes a process that reads a dataset as a training run does, from a batch on."""

    def count(printed):
        return max(map(int, re.findall(r"(\d+) samples", printed)), default=0)

    command = [sys.executable, __file__, f"--read={dataset}", f"--cache-mb={cache_mb}", f"--first={first}"]
    return observe([*command, *([f"--batches={batches}"] if batches else [])], count)


def read(dataset, cache_mb, first, batches):
    """What that process does: it says how many samples it has, and in the end a hash of the last batch."""
    from langfuse_jax.data.pipeline import TrainingData
    from langfuse_jax.data.scenes import Scenes, list_scenes

    scenes = Scenes(list_scenes(dataset), cache_mb=cache_mb)
    data = TrainingData(scenes, crop=32, batch_size=BATCH, seed=0)
    with closing(data.batches(first)) as stream:
        for number in range(1, (batches or len(scenes) // BATCH) + 1):
            batch = next(stream)
            print(f"{number * BATCH} samples", flush=True)
        time.sleep(0.3)  # for who looks at the memory
    print("hash", hashlib.sha256(batch["visible"].tobytes() + batch["infrared"].tobytes()).hexdigest()[:16])


def hash_of(seen):
    return re.findall(r"hash (\w+)", seen.printed)[-1]


def print_table(folder, count, model):
    few, half = count // 10, count // 2
    begun = time.perf_counter()
    write_pairs(folder, count)
    print(f"{count} pairs of {HEIGHT}x{WIDTH} written in {time.perf_counter() - begun:.0f} s\n", flush=True)

    named = f"--model={model}"
    fuse(folder / "few", folder / "warm", named)  # compiles
    first_few = fuse(folder / "few", folder / "out_few", named).first
    whole = fuse(folder / "all", folder / "out", named)
    alone = fuse(folder / "alone", folder / "out_alone", named)
    killed = fuse(folder / "all", folder / "again", named, kill_at=half)
    before = versions(folder / "again")
    resumed = fuse(folder / "all", folder / "again", named)
    after = versions(folder / "again")
    assert set(after) == set(versions(folder / "out")) and len(after) == count
    redone = sum(after[name] != version for name, version in before.items())

    prepared, building = prepare(folder / "all", folder / "prepared", "many")
    prepared_few, _ = prepare(folder / "few", folder / "prepared", "few")
    epoch, cached = read_epoch(prepared, 0), read_epoch(prepared, 1024, batches=2 * count // BATCH)
    epoch_few = read_epoch(prepared_few, 0)
    middle = half // BATCH
    straight = read_epoch(prepared, 0, batches=middle + 1)
    resumed_input = read_epoch(prepared, 0, first=middle, batches=1)

    print(f"| resident memory, MiB, after | 100 pairs | 1000 | {count} | most after 100, less that at 100 |")
    print("|---|---|---|---|---|")
    observed = {f"fuse --model {model}": whole, "fuse, resumed at half": resumed}
    observed |= {"training input, cache_mb 0": epoch, "training input, cache_mb 1024": cached}
    for name, seen in observed.items():
        shown = " | ".join(f"{seen.at(pairs):.0f}" for pairs in (100, 1000, count))
        print(f"| {name} | {shown} | {seen.growth(100, count):+.0f} |")
    print(f"\nA second epoch with cache_mb 1024 adds {cached.growth(count, 2 * count):+.0f} MiB.")
    print(f"\n| seconds from the start to the first | {few} pairs | {count} pairs |\n|---|---|---|")
    print(f"| fused pair | {first_few:.1f} | {whole.first:.1f} |")
    print(f"| fused pair, {count - few} visible images without a partner | | {alone.first:.1f} |")
    print(f"| new pair, after a kill at {len(before)} | | {resumed.first:.1f} |")
    print(f"| training batch, prepared pairs | {epoch_few.first:.1f} | {epoch.first:.1f} |")
    print(f"| training batch, resumed at batch {middle} | | {resumed_input.first:.1f} |")
    print(f"\nfused {count} pairs in {whole.seconds:.0f} s; killed after {killed.seconds:.0f} s.")
    print(f"Fused again of the {len(before)} that were there: {redone}.")
    print(f"The batch of the resumed input is that of one read through: {hash_of(straight) == hash_of(resumed_input)}.")
    print(f"Prepared in {building.seconds:.0f} s. What a terminal showed half-way, fusing, resumed and preparing:\n")
    for seen in (whole, resumed, building):
        print(f"    {bar(seen.printed)}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=10_000, help="at least 1000 (10000)")
    parser.add_argument("--folder", type=Path, metavar="DIR", help="an empty folder to work in (a temporary one)")
    parser.add_argument("--model", default="steered")
    parser.add_argument("--read", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--cache-mb", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--first", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--batches", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.read:
        return read(args.read, args.cache_mb, args.first, args.batches)
    print(f"{len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[0]:.1f}", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        print_table(args.folder or Path(scratch), args.pairs, args.model)


if __name__ == "__main__":
    main()
