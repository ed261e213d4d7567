"""`langfuse-jax train`: a fusion network trained towards the sentences of a config."""

import argparse

from langfuse_jax.commands.flags import add_config, command_line


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of the sub-command."""
    add_config(parser, "default")
    parser.add_argument("--workdir", required=True, metavar="DIR", help="checkpoints, metrics and sheets go here")
    parser.add_argument(
        "--coordinator", metavar="HOST:PORT", help="of process 0, where JAX does not recognise the cluster"
    )
    parser.add_argument("--num-processes", type=int, metavar="N", help="with --coordinator: JAX processes in all")
    parser.add_argument("--process-id", type=int, metavar="I", help="with --coordinator: which of them this is, from 0")
    parser.add_argument("--profile", type=int, metavar="N", default=0, help="write a trace of N steps into the workdir")


def run(args: argparse.Namespace) -> int:
    """Parses the config, trains, and says where the model is."""
    import jax

    from langfuse_jax.runtime.atomic import full_disk_reported
    from langfuse_jax.runtime.distributed import end_together, join_cluster
    from langfuse_jax.steering.train import train_steered
    from langfuse_jax.training.checkpoints import silence_orbax
    from langfuse_jax.training.configs import check_choice, load_config
    from langfuse_jax.training.fusion import train_fusion

    silence_orbax()
    config = load_config(args.config, args.overrides, command="train")
    trainers = {"ldfusion": train_fusion, "steered": train_steered}
    check_choice(config, "network", tuple(trainers))
    train_network = trainers[config.network]
    join_cluster(args.coordinator, args.num_processes, args.process_id)
    command = command_line(args, "workdir")
    with end_together(args.workdir), full_disk_reported(args.workdir):
        train_network(config, args.workdir, command=command, override=args.override, profile=args.profile)
    if not jax.process_index():
        print(f"{args.workdir}: trained model and metrics.jsonl; fuse with --checkpoint {args.workdir}")
    return 0
