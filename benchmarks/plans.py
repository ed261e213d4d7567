"""Tables of what training and fusing take on TPUs that are not here: `python benchmarks/plans.py [TOPOLOGY ...]`.

Compiles the step of configs/tpu_pod.py, with ViT-B/32 and VGG19, at eight samples a chip, for each topology (by default
a v5e of 16 and of 256 chips, a v5p, a v4 and a v6e), and with `--fusing` the networks of the package for 1080p,
bfloat16, on one chip of a v5e, for those batches of 16, 8, 4 and 1 that fit. Requires libtpu (the extra [plan]); each
row of training takes minutes. `--json FILE` keeps the plans.
"""

import argparse
import json
import sys
import time
from pathlib import Path

from langfuse_jax.errors import reason
from langfuse_jax.runtime.topology import find_topology, prepare

TOPOLOGIES = ("v5e:4x4", "v5e:16x16", "v5p:4x4x4", "v4:4x4x4", "v6e:4x4")
SAMPLES = 8  # a chip
FUSED = (1080, 1920)
_GIB, _GB = 2**30, 1e9


def plan_step(name, overrides):
    from langfuse_jax.training.configs import load_config
    from langfuse_jax.training.plan import plan_training

    topology = find_topology(name)
    flags = [
        f"--config.batch_size={SAMPLES * len(topology.devices)}",
        "--config.clip=openai/clip-vit-base-patch32",
        "--config.vgg=vgg19.safetensors",
        *overrides,
    ]
    return plan_training(load_config("tpu_pod", flags, command="train"), topology)


def plan_fusing(model, batch):
    """The network of the package on one chip, from shapes alone; None where it does not fit."""
    import jax
    import jax.numpy as jnp

    from langfuse_jax import Fuser
    from langfuse_jax.models.fusion import FusionNet
    from langfuse_jax.models.steered import SteeredNet
    from langfuse_jax.training.plan import describe
    from langfuse_jax.training.speed import count_flops

    topology, fuser = find_topology("v5e:2x2"), Fuser.load(model=model)
    topology = topology._replace(devices=topology.devices[:1])
    form = {"blocked": True} if isinstance(fuser.net, FusionNet) else {}  # as `Fuser` has it on a TPU
    net = fuser.net.clone(dtype=jnp.bfloat16, **form)
    image = jax.ShapeDtypeStruct((batch, *FUSED, 1), jnp.float32)
    arguments = [jax.eval_shape(lambda: fuser.params), image, image]
    if isinstance(net, SteeredNet):
        arguments += [None, None, jax.ShapeDtypeStruct((batch, 18), jnp.float32)]
    chip = jax.sharding.SingleDeviceSharding(topology.devices[0])
    traced = jax.jit(net.apply, in_shardings=chip, out_shardings=chip).trace(*arguments)
    lowered = traced.lower(lowering_platforms=("tpu",))
    start = time.perf_counter()
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        print(f"{model}, batch {batch}: does not fit ({reason(error)})", file=sys.stderr, flush=True)
        return None
    seconds = time.perf_counter() - start
    return describe(compiled, topology, count_flops(net.apply, *arguments, platform="tpu"), seconds)


def row(name, plan):
    kinds = {}
    for one in plan.collectives:
        count, moved = kinds.get(one.kind, (0, 0))
        kinds[one.kind] = (count + 1, moved + one.bytes)
    exchanges = "; ".join(f"{count} {kind}, {moved / 1e6:.1f} MB" for kind, (count, moved) in kinds.items()) or "none"
    numbers = [
        f"{plan.flops / 1e12:.2f}",
        f"{plan.bytes_accessed / _GB:.0f}, {plan.hbm_traffic / _GB:.0f}",
        f"{plan.argument_bytes / _GIB:.2f}",
        f"{plan.temp_bytes / _GIB:.2f}",
        f"{plan.peak_bytes / _GIB:.1f} of {plan.hbm_bytes / _GIB:.0f}",
        exchanges,
        f"{1000 * plan.step_seconds_bound:.0f}",
        f"{100 * plan.mfu_bound:.0f}%",
        f"{plan.compile_seconds:.0f}",
    ]
    return f"| {name} | {plan.chips} | {' | '.join(numbers)} |"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("topologies", nargs="*")
    parser.add_argument("--fusing", action="store_true")
    parser.add_argument("--json", type=Path)
    args, overrides = parser.parse_known_args()
    prepare("v5e:2x2")
    jobs = [(name, lambda name=name: plan_step(name, overrides)) for name in args.topologies]
    if args.fusing:
        jobs += [
            (f"{model}, batch {batch}", lambda model=model, batch=batch: plan_fusing(model, batch))
            for model in ("ldfusion", "steered")
            for batch in (16, 8, 4, 1)
        ]
    jobs = jobs or [(name, lambda name=name: plan_step(name, overrides)) for name in TOPOLOGIES]
    titles = (
        "",
        "chips",
        "TFLOP",
        "GB accessed, in HBM",
        "arguments GiB",
        "temporary GiB",
        "peak GiB",
        "exchanges",
        "bound ms",
        "MFU at most",
        "compiled in s",
    )
    print(f"| {' | '.join(titles)} |\n|{len(titles) * '---|'}")
    plans = {}
    for name, make in jobs:
        plan = make()
        if plan is None:
            continue
        plans[name] = plan.as_dict()
        print(row(name, plan), flush=True)
    if args.json:
        args.json.write_text(json.dumps(plans, indent=1) + "\n")


if __name__ == "__main__":
    main()
