"""The parts of a training step, each compiled and run alone: `python benchmarks/parts.py`.

ViT-B/32 and VGG19 in bfloat16 with random weights, 224-pixel crops; the network in both precisions. On a GPU:

    python benchmarks/parts.py --device cuda --batch 16 --patches 32 --rounds 20

Programs are compiled side by side, so the seconds of a compilation are those of a machine that does several.
"""

import argparse
import time
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import peers
from fuse import WEIGHTS
from train_step import CROP, our_loss
from transformers import CLIPConfig

from langfuse_jax.losses import perceptual_loss
from langfuse_jax.losses.patches import BINS, count_by_products, count_by_scatter
from langfuse_jax.models.clip import towers
from langfuse_jax.models.fusion import FusionNet
from langfuse_jax.models.vgg import VGG19
from langfuse_jax.training.augmentation.windows import cut_patches, random_windows
from langfuse_jax.training.objective import Recipe
from langfuse_jax.weights.fusion import load_fusion

HALF = "bfloat16"


def squared(function):
    """A scalar of what a function gives, for a gradient that depends on all of it."""
    return lambda *arguments: jnp.square(function(*arguments).astype(jnp.float32)).sum()


def parts(batch, patches):
    """The function and the arguments of each part by name."""
    rng = np.random.default_rng(0)
    _, (_, _, frozen) = our_loss(1, Recipe({}), HALF)
    frozen = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(0, 0.02, leaf.shape), leaf.dtype), frozen)
    vision, _ = towers(CLIPConfig(vision_config=dict(patch_size=32), projection_dim=512), dtype=HALF)
    visible, infrared = jnp.asarray(rng.random((2, batch, CROP, CROP, 1), np.float32))
    cut = jnp.asarray(rng.random((batch * patches, CROP, CROP, 1), np.float32))
    bins = jnp.asarray(rng.integers(0, BINS, (batch * patches, CROP * CROP)), jnp.int32)
    windows = random_windows(jax.random.key(0), patches, CROP, fraction=(0.5, 0.8))
    params = jax.tree.map(jnp.asarray, load_fusion(WEIGHTS)[0])

    def embed(clip, images):
        return vision.apply({"params": clip}, images)

    def perceptual(vgg, fused, visible, infrared):
        return perceptual_loss(partial(VGG19(HALF).apply, {"params": vgg}), fused, visible, infrared)

    made = {}
    for dtype in ("float32", HALF):
        net = FusionNet(dtype).apply
        made[f"network in {dtype}, forward"] = net, (params, visible, infrared)
        made[f"network in {dtype}, gradient"] = jax.grad(squared(net)), (params, visible, infrared)
    gradient_of_images = partial(jax.grad, argnums=1)
    made["CLIP of the patches, forward"] = embed, (frozen.clip, cut)
    made["CLIP of the patches, gradient"] = gradient_of_images(squared(embed)), (frozen.clip, cut)
    made["VGG19 of three images, gradient"] = gradient_of_images(perceptual), (frozen.vgg, visible, visible, infrared)
    cutting = partial(cut_patches, size=CROP)
    made["patches cut"] = cutting, (visible, windows)
    made["patches cut, gradient"] = jax.grad(squared(cutting)), (visible, windows)
    made["histograms of the patches, by scatter"] = count_by_scatter, (bins, bins >= 0)
    made["histograms of the patches, by products"] = count_by_products, (bins, bins >= 0)
    return made


def compile_one(part):
    function, arguments = part
    start = time.perf_counter()
    return jax.jit(function).lower(*arguments).compile(), arguments, time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: what JAX has")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--patches", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    device = peers.choose(args.device)
    print(f"{peers.described(device, HALF)}, batch {args.batch} x {args.patches} patches\n")
    print("| part | ms | temporary GiB | compiled in s |\n|---|---|---|---|")
    made = parts(args.batch, args.patches)
    compiled = peers.side_by_side(compile_one, made.values())
    functions = [
        lambda program=program, arguments=arguments: jax.block_until_ready(program(*arguments))
        for program, arguments, _ in compiled
    ]
    for name, (program, _, seconds), (wall, _) in zip(
        made, compiled, peers.interleaved(functions, args.rounds), strict=True
    ):
        temporary = program.memory_analysis().temp_size_in_bytes / 2**30
        print(f"| {name} | {1e3 * wall:.3g} | {temporary:.2f} | {seconds:.0f} |")


if __name__ == "__main__":
    main()
