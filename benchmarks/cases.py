"""Runs inputs that once failed, each a folder with a run.sh, and says which behave as they should: N of N.

    python benchmarks/cases.py CASES [--only 05 12]

Each folder is copied first. Its run.sh is called with LF, the path of `langfuse-jax`; what it must print and must not
is below, and none may print a traceback. Cases that change their user need an interpreter that others may run.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ONE_LINE = r"langfuse-jax: error: [^\n]+\n"
# For each case what its output must match, and what it must not.
EXPECTED: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "01": (("status 2", "No such file"), ()),
    "02": (("status 2", "No such file"), ()),
    "03": (("status 2",), ("status 0",)),
    "04": (("status 2",), ("status 0",)),
    "05": ((), ("replaced",)),
    "06": ((r"(status [12])",), ()),
    "07": ((r"mean difference [0-3]\.",), ()),
    "09": ((), ()),
    "11": ((), ("RuntimeWarning",)),
    "12": (("status 2", ONE_LINE), ()),
    "14": (("status 2", "JAX_PLATFORMS"), ()),
    "15": ((), ()),
    "16": (("status 0",), ()),
    "17": (("status 0",), ()),
    "18": ((), ("status 2",)),
    "19": (("status 2",), ()),
    "20": ((), ("status 2",)),
    "21": (("status 2", "--batch-size"), ()),
    "23": (("status 2", ONE_LINE), ()),
    "25": (("status 2", "--fps"), ()),
    "28": (("status 2", ONE_LINE), ()),
    "29": (("status 2", ONE_LINE), ("TIFF[A-Z]",)),
    "30": (("status 2",), ()),
    "31": ((), ("there already",)),
    "32": ((), ("expected one argument",)),
    "34": (("status 2",), ()),
    "35": ((r"\\n",), ()),
    "38": ((), (r"\.tmp",)),
    "39": (("UserError",), ("Traceback", "TypeError", "ValueError", "RuntimeError", "AttributeError")),
    "40": ((r"0-255 \{.*(UserError|BadPixels)",), ()),
}
IN_PYTHON = {"39", "40"}  # where an error ends in a traceback, as Python's do
STALE = {"35": "O"}  # folders of images that an earlier version made, which are no part of the case


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", type=Path)
    parser.add_argument("--only", nargs="+", help="numbers")
    parser.add_argument("--command", default=shutil.which("langfuse-jax", path=str(Path(sys.executable).parent)))
    args = parser.parse_args()
    folders = [folder for folder in sorted(args.cases.iterdir()) if (folder / "run.sh").is_file()]
    chosen = [folder for folder in folders if not args.only or folder.name[:2] in args.only]
    good = 0
    for folder in chosen:
        output = run(folder, args.command)
        must, must_not = EXPECTED.get(folder.name[:2], ((), ()))
        wrong = [f"lacks {pattern!r}" for pattern in must if not re.search(pattern, output, re.DOTALL)]
        must_not = must_not if folder.name[:2] in IN_PYTHON else (*must_not, "Traceback")
        wrong += [f"has {pattern!r}" for pattern in must_not if re.search(pattern, output)]
        good += not wrong
        print(f"{folder.name}: {'; '.join(wrong) or 'as expected'}", flush=True)
        if wrong:
            print(re.sub("^", "    ", output[-1500:], flags=re.MULTILINE))
    print(f"{good} of {len(chosen)}")
    sys.exit(good < len(chosen))


def run(folder: Path, command: str) -> str:
    """What a case prints, in a copy of its folder."""
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch, folder.name)
        shutil.copytree(folder, copy, symlinks=True)
        subprocess.run(["chmod", "-R", "u+w", str(copy)], check=True)
        if stale := STALE.get(folder.name[:2]):
            shutil.rmtree(copy / stale)
        environment = {**os.environ, "LF": command}
        done = subprocess.run(
            ["bash", str(copy / "run.sh")],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=600,
        )
        return done.stdout


if __name__ == "__main__":
    main()
