"""Flags that several sub-commands share."""

import argparse
import shlex


def add_model(parser: argparse.ArgumentParser) -> None:
    """--model."""
    parser.add_argument(
        "--model",
        metavar="M",
        help="which weights of the package: steered, which follows words (default), or ldfusion, the published network",
    )


def add_compilation_cache(parser: argparse.ArgumentParser) -> None:
    """--compilation-cache."""
    parser.add_argument(
        "--compilation-cache",
        metavar="DIR",
        help="folder that keeps compiled programs, or off (default: $LANGFUSE_JAX_COMPILATION_CACHE, "
        "$JAX_COMPILATION_CACHE_DIR, or langfuse_jax in the user's cache folder)",
    )


def add_config(parser: argparse.ArgumentParser, example: str) -> None:
    """--config, whose values other flags may override (the command gets them as `args.overrides`), and --override."""
    parser.add_argument(
        "--config", required=True, metavar="NAME", help=f"a config of the package such as {example}, or a file's path"
    )
    parser.add_argument("--override", action="store_true", help="resume in a folder that another config began")
    parser.epilog = "Any value of the config can be overridden: --config.x=y"
    parser.set_defaults(takes_overrides=True)


def command_line(args: argparse.Namespace, folder: str) -> str:
    """What makes the same once more: a sub-command with its config, its folder (by the flag `folder`) and overrides."""
    words = ["--config", args.config, f"--{folder}", getattr(args, folder), *args.overrides]
    return shlex.join(["langfuse-jax", args.command, *words])
