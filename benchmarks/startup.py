"""How long a command takes that does little: `fuse` of one pair of 640x480 pixels, with compiled programs in the cache.

    python benchmarks/startup.py --rounds 5

Prints medians of whole processes, taken in turns; the first round, which fills the cache, does not count.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from langfuse_jax.examples.night_scene import write_night_scenes


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write_night_scenes(folder, 1, 480, 640)
        sources = [f"--visible={folder}/visible/0.png", f"--infrared={folder}/infrared/0.png"]
        fuse = ["-m", "langfuse_jax", "fuse", *sources, f"--out={Path(folder) / 'fused.png'}"]
        commands = {
            "python": ["-c", "pass"],
            "import langfuse_jax": ["-c", "import langfuse_jax"],
            "import jax": ["-c", "import jax"],
            "fuse": fuse,
            "fuse --model ldfusion": [*fuse, "--model=ldfusion"],
        }
        times = {name: [] for name in commands}
        for _ in range(args.rounds + 1):
            for name, command in commands.items():
                begun = time.perf_counter()
                subprocess.run([sys.executable, *command], check=True, stdout=subprocess.DEVNULL)
                times[name].append(time.perf_counter() - begun)
    print("| | s |\n|---|---|")
    for name, measured in times.items():
        print(f"| {name} | {statistics.median(measured[1:]):.2f} |")


if __name__ == "__main__":
    main()
