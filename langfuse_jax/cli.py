"""The command `langfuse-jax`: parses, calls a sub-command and turns what it raises into a line and a status."""

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module

from langfuse_jax._version import __version__
from langfuse_jax.errors import Preempted, UserError

# Of each sub-command, what it is for; its module is imported when it is called.
_COMMANDS = {
    "fuse": "fuse a pair of images, two folders of them, or two videos",
    "evaluate": "score fused images of one or several methods against their sources",
    "demo": "serve a page to fuse images on, in a browser (needs the extra [demo])",
    "export": "write network and weights to a file that JAX alone can run",
    "embed": "encode the three sentences into a text file for training",
    "train": "train a fusion network towards the sentences of a config",
    "data": "prepare a dataset of pairs for training",
    "train-clip": "train the compact CLIP that comes with the package",
    "distill": "train a small, fast student to fuse as a trained network does",
    "convert": "weights of other projects to this one's files, and back",
}


def _parser(chosen: str | None) -> argparse.ArgumentParser:
    """The parser of all sub-commands, with the flags of the chosen one."""
    parser = argparse.ArgumentParser(
        prog="langfuse-jax",
        description="Fuse infrared and visible images with a network whose training objective is written in words.",
    )
    parser.add_argument("--version", action="version", version=f"langfuse-jax {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, summary in _COMMANDS.items():
        command = commands.add_parser(name, help=summary)
        if name == chosen:
            module = import_module(f"langfuse_jax.commands.{name.replace('-', '_')}")
            command.set_defaults(run=module.run, takes_overrides=False)
            module.add_arguments(command)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one sub-command and return its exit status: 0 done, 1 partly done, 2 a user's error, 75 `Preempted`."""
    argv = sys.argv[1:] if argv is None else argv
    parser = _parser(next((argument for argument in argv if not argument.startswith("-")), None))
    args, overrides = parser.parse_known_args(argv)
    args.overrides = overrides
    if overrides and not args.takes_overrides:
        parser.error(f"unrecognized arguments: {' '.join(overrides)}")
    # Warnings of the runtime's C++ side would bury the one line a user needs.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")  # that there is no PyTorch: none is needed
    try:
        return args.run(args)
    except UserError as error:
        print(f"langfuse-jax: error: {error}", file=sys.stderr)
        return 2
    except Preempted as stop:
        print(f"langfuse-jax: {stop}", file=sys.stderr)
        return 75  # EX_TEMPFAIL of sysexits.h: try again later
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
