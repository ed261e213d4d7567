"""The command `langfuse-jax`: parses, calls a sub-command and turns what it raises into a line and a status."""

import argparse
import gc
import os
import re
import sys
import traceback
from collections.abc import Sequence
from contextlib import nullcontext
from importlib import import_module

from langfuse_jax._version import __version__
from langfuse_jax.errors import Preempted, UserError, one_line
from langfuse_jax.runtime.process import INTERRUPTED, ended_by_sigterm, mend_streams, quiet_libtpu

# Of each sub-command, what it is for; its module is imported when it is called.
_COMMANDS = {
    "fuse": "fuse a pair of images, two folders of them, or two videos",
    "align": "find the transform between the two cameras of a rig (needs the extra [align])",
    "evaluate": "score fused images of one or several methods against their sources",
    "demo": "serve a page to fuse images on, in a browser (needs the extra [demo])",
    "export": "write network and weights to a file that JAX alone can run",
    "embed": "encode sentences into a text file for fusing and training",
    "train": "train a network towards the sentences of a config",
    "data": "prepare a dataset of pairs for training",
    "plan": "compile a training step for a TPU slice that is not here (needs the extra [plan])",
    "train-clip": "train the compact CLIP that comes with the package",
    "convert": "weights of other projects to this one's files, and back",
}

_HANDLE_SIGTERM = ("train", "train-clip", "demo")


def _parser(chosen: str | None) -> argparse.ArgumentParser:
    """The parser of all sub-commands, with the flags of the chosen one."""
    parser = argparse.ArgumentParser(
        prog="langfuse-jax",
        description="Fuse infrared and visible images, steered by words.",
    )
    parser.add_argument("--version", action="version", version=f"langfuse-jax {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, summary in _COMMANDS.items():
        command = commands.add_parser(name, help=summary)
        if name == chosen:
            module = import_module(f"langfuse_jax.commands.{name.replace('-', '_')}")
            command.set_defaults(run=module.run, takes_overrides=False, handles_sigterm=name in _HANDLE_SIGTERM)
            module.add_arguments(command)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one sub-command and return its exit status: 0 done, 1 partly done, 2 a user's error, 75 `Preempted`."""
    mend_streams()
    # Importing and tracing make objects that stay: looking for those that do not, every 700, takes a third of a second.
    gc.set_threshold(100_000, 20, 20)
    argv = sys.argv[1:] if argv is None else argv
    parser = _parser(next((argument for argument in argv if not argument.startswith("-")), None))
    args, overrides = parser.parse_known_args(_joined(argv))
    args.overrides = overrides
    if overrides and not args.takes_overrides:
        parser.error(f"unrecognized arguments: {' '.join(overrides)}")
    # Warnings of the runtime's C++ side would bury the one line a user needs.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    quiet_libtpu()
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")  # that there is no PyTorch: none is needed
    try:
        # Training runs and the page have an end of their own for it.
        _refuse_empty(args)
        with nullcontext() if args.handles_sigterm else ended_by_sigterm():
            return args.run(args)
    except Preempted as stop:
        print(f"langfuse-jax: {stop}", file=sys.stderr)
        return 75  # EX_TEMPFAIL of sysexits.h: try again later
    except KeyboardInterrupt:
        print("langfuse-jax: interrupted", file=sys.stderr)
        return INTERRUPTED
    except Exception as error:
        if (line := _users_fault(error)) is None:
            raise
        print(f"langfuse-jax: error: {line}", file=sys.stderr)
        return 2


def _refuse_empty(args: argparse.Namespace) -> None:
    """Raises UserError for a flag whose value is empty, as of a variable that is not set."""
    for name, value in vars(args).items():
        if value == "" or (isinstance(value, list) and "" in value):
            raise UserError(f"--{name.replace('_', '-')}: is empty; give a value, or leave it out")


def _joined(argv: Sequence[str]) -> list[str]:
    """`--flag -20,40` as `--flag=-20,40`: argparse takes a value that begins with a sign for a flag."""
    joined: list[str] = []
    for argument in argv:
        if joined and joined[-1].startswith("--") and "=" not in joined[-1] and re.match(r"-\.?\d", argument):
            joined[-1] += f"={argument}"
        else:
            joined.append(argument)
    return joined


def _users_fault(error: Exception) -> str | None:
    """The line that tells a user what to mend; None for a fault of the program."""
    if isinstance(error, UserError):
        text = str(error)
    elif isinstance(error, OSError) and error.filename is not None and error.strerror:
        text = f"{error.filename}: cannot be used ({error.strerror}); check the path and its permissions"
    elif isinstance(error, MemoryError):
        text = "there is not enough memory; make the images or --batch-size smaller"
    elif settings := _jax_settings(error):
        reason = str(error) or "there is no such device"
        text = f"{settings}: JAX cannot start with it ({reason}); unset it, or install what it names"
    else:
        return None
    return one_line(text)


def _jax_settings(error: Exception) -> str:
    """The environment variables that JAX was given, where it is they that it fails on."""
    text = str(error)
    given = {name: value for name, value in os.environ.items() if name.startswith(("JAX_", "XLA_"))}
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    of_backend = (isinstance(error, RuntimeError) and "backend" in text) or "xla_bridge" in frame.f_code.co_filename
    named = [f"{name}={value}" for name, value in given.items() if name in text or name.lower() in text]
    if named or not of_backend:
        return ", ".join(named)
    return f"JAX_PLATFORMS={given['JAX_PLATFORMS']}" if "JAX_PLATFORMS" in given else ""


if __name__ == "__main__":
    sys.exit(main())
