"""`langfuse-jax plan`: what a training step takes on devices that are not here, before they are rented."""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from langfuse_jax.commands.flags import add_config
from langfuse_jax.errors import UserError, one_line
from langfuse_jax.runtime.atomic import atomic_write, check_writable

if TYPE_CHECKING:
    from langfuse_jax.training.plan import Plan

_GIB = 2**30


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of the sub-command."""
    parser.description = (
        "Compiles the training step of a config for a TPU slice, or for emulated CPUs, from shapes alone, and prints "
        "what it takes per device. Requires no TPU, no weights and no data; for TPUs the extra [plan]. Takes minutes."
    )
    add_config(parser, "tpu_pod")
    parser.add_argument(
        "--topology", metavar="T", required=True, help="devices, such as v5e:4x8, v5p:4x4x4, v6e:4x4, v4:4x4x4 or cpu:8"
    )
    parser.add_argument("--json", metavar="FILE", help="write the numbers")


def run(args: argparse.Namespace) -> int:
    """Runs the sub-command: 0 if the step fits, 1 if it does not; else raises UserError."""
    from pathlib import Path

    from langfuse_jax.runtime.topology import find_topology, prepare

    if args.json:
        check_writable(Path(args.json).parent, "--json")
    prepare(args.topology)
    topology = find_topology(args.topology)
    from langfuse_jax.training.configs import load_config
    from langfuse_jax.training.plan import TooLarge, find_remedy, plan_training

    config = load_config(args.config, args.overrides, command="train")
    if config.network != "ldfusion":
        raise UserError(f"config.network: {config.network} cannot be planned; plan a config of ldfusion, as tpu_pod")
    try:
        plan, problem = plan_training(config, topology), ""
    except TooLarge as error:
        plan, problem = None, str(error)
    if plan is not None:
        print(as_text(plan, args.topology))
        if args.json:
            with atomic_write(args.json) as file:
                file.write(json.dumps(plan.as_dict(), indent=1).encode() + b"\n")
        if plan.fits is not False:
            return 0
        assert plan.hbm_bytes is not None
        problem = f"the step needs {plan.peak_bytes / _GIB:.1f} of {plan.hbm_bytes / _GIB:.0f} GiB"

    def report(changes: Mapping[str, Any]) -> None:
        print(f"langfuse-jax: trying {_flags(changes)}", file=sys.stderr)

    found = find_remedy(config, topology, report)
    remedy = f"it fits with {_flags(found[0])}" if found else "no setting tried makes it fit: lower --config.batch_size"
    print(one_line(f"langfuse-jax: {args.topology}: {problem}; {remedy}"), file=sys.stderr)
    return 1


def _flags(changes: Mapping[str, Any]) -> str:
    return " ".join(f"--config.{name}={value}" for name, value in changes.items())


def as_text(plan: "Plan", topology: str) -> str:
    """A few lines on a plan, per device."""
    memory = "" if plan.hbm_bytes is None else f" of {plan.hbm_bytes / _GIB:.0f} GiB"
    lines = [
        f"{topology}: {plan.chips} devices, compiled in {plan.compile_seconds:.0f} s; per device:",
        f"  memory       {plan.argument_bytes / _GIB:.2f} GiB parameters, optimizer, frozen towers and batch; "
        f"{plan.temp_bytes / _GIB:.2f} GiB temporary; peak {plan.peak_bytes / _GIB:.2f}{memory or ' GiB'}",
        f"  work         {plan.flops / 1e12:.3g} TFLOP, {plan.bytes_accessed / 1e9:.3g} GB accessed, of them "
        f"{plan.hbm_traffic / 1e9:.3g} in main memory, a step",
    ]
    origins = Counter((one.kind, one.origin) for one in plan.collectives)
    sizes: Counter[tuple[str, str]] = Counter()
    for one in plan.collectives:
        sizes[one.kind, one.origin] += one.bytes
    if not origins:
        lines.append("  collectives  none")
    for number, (found, count) in enumerate(origins.most_common()):
        kind, origin = found
        title = "  collectives  " if number == 0 else " " * 15
        lines.append(f"{title}{count} {kind} of {sizes[found] / 1e6:.3g} MB: {origin}")
    if plan.step_seconds_bound is not None and plan.mfu_bound is not None:
        lines.append(
            f"  bound        at least {1000 * plan.step_seconds_bound:.1f} ms a step, at most "
            f"{100 * plan.mfu_bound:.0f}% of the arithmetic (MFU): a real step is slower"
        )
    return "\n".join(lines)
