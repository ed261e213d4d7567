"""`langfuse-jax distill`: a small, fast student trained to fuse as a trained network does."""

import argparse

from langfuse_jax.commands.flags import add_config, command_line


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of the sub-command."""
    add_config(parser, "student")
    parser.add_argument("--workdir", required=True, metavar="DIR", help="checkpoints, metrics and the student go here")


def run(args: argparse.Namespace) -> int:
    """Trains the student. Raises UserError for configs, data and teachers that will not do; Preempted on SIGTERM."""
    from langfuse_jax.distillation.train import distill
    from langfuse_jax.runtime.atomic import full_disk_reported
    from langfuse_jax.training.checkpoints import silence_orbax
    from langfuse_jax.training.configs import load_config

    silence_orbax()
    config = load_config(args.config, args.overrides, command="distill")
    command = command_line(args, "workdir")
    with full_disk_reported(args.workdir):
        mean = distill(config, args.workdir, command=command, override=args.override)
    print(f"{args.workdir}: a student of mean SSIM {mean:.4f} to its teacher; fuse with --checkpoint {args.workdir}")
    return 0
