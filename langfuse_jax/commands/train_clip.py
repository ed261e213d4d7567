"""`langfuse-jax train-clip`: the compact CLIP that comes with the package, trained and judged."""

import argparse
import sys
from pathlib import Path

from langfuse_jax.commands.flags import add_config, command_line


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of the sub-command."""
    add_config(parser, "compact_clip")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder for the model in Hugging Face format")


def run(args: argparse.Namespace) -> int:
    """Trains, saves, and judges on cameras that were not trained on; prints the numbers."""
    from langfuse_jax.compact_clip.judgement import format_report
    from langfuse_jax.compact_clip.train import train_clip
    from langfuse_jax.runtime.atomic import full_disk_reported
    from langfuse_jax.training.checkpoints import silence_orbax
    from langfuse_jax.training.configs import load_config

    silence_orbax()
    config = load_config(args.config, args.overrides, command="train-clip")
    command = command_line(args, "out")
    with full_disk_reported(args.out):
        report = train_clip(config, Path(args.out), command=command, override=args.override)
    print(format_report(report))
    print(f"{args.out}: {'accepted' if report['accepted'] else 'NOT accepted'}")
    sys.stdout.flush()
    return 0
