"""One training step of published size against plain PyTorch: `python benchmarks/train_step.py`.

ViT-B/32 and VGG19 with random weights, 224-pixel crops; on a CPU batch 1 and 8 patches in float32. Both do the same
work: augmentation, fusion, patches with their entropy filter, embeddings, VGG19 features, the four terms, the gradient
of the fusion network alone, Adam. --dtype bfloat16 is that of our CLIP and VGG19, as `langfuse-jax train` has it on a
GPU, with the network in float32 and in bfloat16 (`config.network_dtype`), and autocast for all of PyTorch's step
(--compile: torch.compile too). PyTorch keeps its frozen parts without parameter gradients and its images channels last.
The two take turns, and with them our step with `select_first`; medians are printed, for each --batch. Utilisation (MFU)
is the FLOPs of our loss and gradient, by XLA's count, of the device's peak in bfloat16, for both. Needs torch.
`--memory --batch 16 --patches 32` compiles our step, runs nothing and prints the temporary memory that it needs;
`--difference DATA --patches 32` compares the gradients of `select_first` with those of all patches. On a GPU:

    python benchmarks/train_step.py --device cuda --dtype bfloat16 --compile --batch 1 2 4 8 16 --patches 32 --rounds 20
"""

import argparse
import itertools
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import peers
import torch
import torch_fusion
from fuse import WEIGHTS
from torch.nn import functional
from transformers import CLIPConfig, CLIPVisionConfig, CLIPVisionModelWithProjection

from langfuse_jax import Clip
from langfuse_jax.clip.words import embed
from langfuse_jax.data.pipeline import TrainingData
from langfuse_jax.data.scenes import Scenes, list_scenes
from langfuse_jax.losses import Words
from langfuse_jax.losses.total import PUBLISHED_WEIGHTS
from langfuse_jax.models.clip import MEAN, STD, in_compute_dtype, towers
from langfuse_jax.models.fusion import FusionNet
from langfuse_jax.models.vgg import VGG19
from langfuse_jax.training.objective import Frozen, Recipe, fusion_loss
from langfuse_jax.training.speed import gradient_flops
from langfuse_jax.training.step import init_state, make_gradient, make_train_step
from langfuse_jax.weights.fusion import TENSORS, load_fusion

CROP = 224
VGG_LAYERS = (64, 64, "M", 128, "keep", 128, "M", 256, "keep", 256, 256, 256, "M", 512, 512, "keep")


def our_loss(batch_size, recipe, dtype="float32", network_dtype="float32"):
    """The loss and the shapes of what it takes: parameters, batch and frozen parts."""
    vision, _ = towers(CLIPConfig(vision_config=dict(patch_size=32), projection_dim=512), dtype=dtype)
    image = jax.ShapeDtypeStruct((1, CROP, CROP, 3), jnp.float32)
    clip, vgg = (jax.eval_shape(model.init, jax.random.key(0), image)["params"] for model in (vision, VGG19()))
    clip = jax.eval_shape(partial(in_compute_dtype, dtype=dtype), clip)
    vgg = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, dtype), vgg)
    words = Words(*3 * [jax.ShapeDtypeStruct((512,), jnp.float32)])
    params = jax.eval_shape(lambda: load_fusion(WEIGHTS)[0])
    crops = jax.ShapeDtypeStruct((batch_size, CROP, CROP, 1), jnp.float32)
    batch = {"visible": crops, "infrared": crops, "place": jax.ShapeDtypeStruct((batch_size,), jnp.int32)}
    loss = partial(fusion_loss, net=FusionNet(network_dtype), vision=vision, recipe=recipe)
    return loss, (params, batch, Frozen(clip, words, vgg))


def our_program(batch_size, recipe, dtype="float32", network_dtype="float32", accumulate=1):
    """The compiled step and the shapes of its arguments: nothing is drawn or run."""
    loss, (params, batch, frozen) = our_loss(batch_size, recipe, dtype, network_dtype)
    optimizer = optax.adam(5e-4)
    state = jax.eval_shape(lambda params: init_state(params, optimizer), params)
    arguments = (state, batch, jax.random.key(1), frozen)
    step = make_train_step(loss, optimizer, accumulate=accumulate)
    return jax.jit(step).lower(*arguments).compile(), arguments


def memory(program):
    """Of a compiled step, in GiB: what it needs beside its arguments."""
    return program.memory_analysis().temp_size_in_bytes / 2**30


def our_step(batch, recipe, dtype, network_dtype="float32"):
    """A function that runs one step, and the program's temporary memory in GiB."""
    program, (state, _, key, frozen) = our_program(len(batch["visible"]), recipe, dtype, network_dtype)
    rng = np.random.default_rng(0)
    frozen = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(0, 0.02, leaf.shape), leaf.dtype), frozen)
    state = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), state)
    state = state.replace(params=jax.tree.map(jnp.asarray, load_fusion(WEIGHTS)[0]))
    return lambda: float(program(state, batch, key, frozen)[1]["loss"]), memory(program)


def random_maps(count, device):
    """Affine maps as those of langfuse_jax.training.augmentation.affine."""
    angle, slant, scale, shift = torch.rand(4, count, device=device)
    angle, slant, scale, shift = (
        torch.deg2rad(10 * angle - 5),
        torch.deg2rad(10 * slant - 5),
        1 + 0.5 * scale,
        0.4 * shift - 0.2,
    )
    cos, sin = angle.cos() / scale, angle.sin() / scale
    rows = [torch.stack([cos, -sin + cos * slant.tan(), 0 * shift], 1), torch.stack([sin, cos, shift], 1)]
    return torch.stack(rows, 1)


def vgg_features(convs, images):
    x, features, left = images.expand(-1, 3, -1, -1), [], iter(convs)
    for layer in VGG_LAYERS:
        if layer == "M":
            x = functional.max_pool2d(x, 2)
        elif layer == "keep":
            features.append(x)
        else:
            x = functional.relu(next(left)(x))
    return features


def torch_step(batch, patches, device, args):
    """A function that runs one step."""
    network = torch_fusion.load(WEIGHTS / TENSORS).to(device).train()
    clip = CLIPVisionModelWithProjection(CLIPVisionConfig(patch_size=32, projection_dim=512)).to(device).eval()
    widths = [layer for layer in VGG_LAYERS if isinstance(layer, int)]
    vgg = torch.nn.Sequential(
        *(torch.nn.Conv2d(c, d, 3, padding=1) for c, d in zip([3, *widths], widths, strict=False))
    ).to(device, memory_format=torch.channels_last)
    for frozen in (clip, vgg):
        frozen.requires_grad_(False)
    optimizer = torch.optim.Adam(network.parameters(), lr=5e-4)
    texts = functional.normalize(torch.randn(3, 512, device=device), dim=1)
    mean, std = (torch.tensor(value, device=device).reshape(3, 1, 1) for value in (MEAN, STD))
    sources = [
        torch.from_numpy(batch[role]).permute(0, 3, 1, 2).to(device, memory_format=torch.channels_last)
        for role in ("visible", "infrared")
    ]
    count = len(sources[0])

    def embed(images):
        return functional.normalize(clip((images.expand(-1, 3, -1, -1) - mean) / std).image_embeds, dim=1)

    def distance(a, b):
        return (1 - functional.cosine_similarity(a, b, dim=-1)) / 2

    def sample(images, maps):
        with torch.autocast(device, enabled=False):  # in half precision places would be off by pixels
            grid = functional.affine_grid(maps, (len(maps), 1, CROP, CROP), align_corners=False)
            return functional.grid_sample(images.float(), grid, "bilinear", "zeros", align_corners=False)

    def windows(images, maps):
        return sample(images.repeat(len(maps), 1, 1, 1), maps.repeat_interleave(count, 0))

    def entropies(images):
        bins = (images.flatten(1) * 256).long().clamp(0, 255)
        counts = torch.zeros(len(images), 256, device=device)
        counts = counts.scatter_add(1, bins, torch.ones_like(bins, dtype=torch.float32))
        share = counts / counts.sum(1, keepdim=True)
        return -(share * share.clamp_min(1e-12).log2()).sum(1)

    def directional(fused, visible, infrared):
        return distance(fused - visible, texts[0] - texts[1]) + distance(fused - infrared, texts[0] - texts[2])

    def objective():
        with torch.no_grad():
            maps = random_maps(count, device)
            visible, infrared = (sample(image, maps) for image in sources)
            side = 0.5 + 0.3 * torch.rand((), device=device)
            places = random_maps(patches, device)
            centre = (1 - side) * (2 * torch.rand(patches, 2, 1, device=device) - 1)
            places = torch.cat([places[:, :, :2] * side, places[:, :, 2:] + centre], 2)
            selected = (entropies(windows(visible, places)) > 6) & (entropies(windows(infrared, places)) > 6)
            e_visible, e_infrared = embed(torch.cat([visible, infrared])).chunk(2)
            targets = [
                torch.maximum(v, i)
                for v, i in zip(vgg_features(vgg, visible), vgg_features(vgg, infrared), strict=True)
            ]
            noisy = [image + 0.03 * torch.randn_like(image) for image in (visible, infrared)]
        fused = network(*noisy)
        e_fused, e_patches = embed(fused), embed(windows(fused, places))
        per_patch = directional(e_patches, e_visible.repeat(patches, 1), e_infrared.repeat(patches, 1))
        return (
            2 * directional(e_fused, e_visible, e_infrared).mean()
            + 10 * (per_patch * selected).mean()
            + 6 * (distance(e_fused, e_visible) + distance(e_fused, e_infrared)).mean()
            + 10 * sum(functional.mse_loss(f, t) for f, t in zip(vgg_features(vgg, fused), targets, strict=True))
        )

    with peers.autocast(device, args.dtype):
        objective = peers.compiled(objective, args.compile)

    def step():
        with peers.autocast(device, args.dtype):
            loss = objective()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def print_memory(batch_size, patches):
    """What the ways to save memory save, by XLA's plan for this platform, in float32."""
    ways = {
        "all at once": ({}, 1),
        "clip_chunk 4": ({"clip_chunk": 4}, 1),
        "clip_chunk 4, remat": ({"clip_chunk": 4, "remat": True}, 1),
        "clip_chunk 4, remat, accumulate 4": ({"clip_chunk": 4, "remat": True}, 4),
    }
    print(f"| batch {batch_size} x {patches} patches | temporary memory, GiB |\n|---|---|")
    for name, (values, accumulate) in ways.items():
        recipe = Recipe(PUBLISHED_WEIGHTS, patches=patches, **values)
        print(f"| {name} | {memory(our_program(batch_size, recipe, accumulate=accumulate)[0]):.1f} |", flush=True)


def print_difference(root, patches, keys=6):
    """Gradients of the network with `select_first` against those without, on real crops, with the compact CLIP."""
    scenes = Scenes(list_scenes(Path(root) / "roadscene"))
    batch = next(TrainingData(scenes, crop=CROP, batch_size=2, seed=0).batches())
    model = Clip.load()
    frozen = Frozen(model.params["vision"], embed(model).words, None)
    params = load_fusion(WEIGHTS)[0]
    weights = dict.fromkeys(PUBLISHED_WEIGHTS, 0.0) | {"patch": 1.0}

    def gradients(first):
        recipe = Recipe(weights, patches=patches, select_first=first)
        gradient = jax.jit(make_gradient(partial(fusion_loss, net=FusionNet(), vision=model.vision, recipe=recipe)))
        values = [gradient(params, batch, jax.random.key(i), frozen) for i in range(keys)]
        flat = [np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(grads)]) for _, grads in values]
        return np.array(flat), np.array([float(metrics["loss"]) for metrics, _ in values]), values[0][0]["selected"]

    def cosines(a, b):
        return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)

    whole, losses, share = gradients(0)
    print(f"{float(share):.2f} of the patches count; two draws of all {patches} windows have gradients of cosine")
    print(f"{np.mean(cosines(whole, np.roll(whole, 1, 0))):.3f}; means over {keys} draws:\n")
    print("| select_first | patch loss, relative difference | cosine of the gradients |\n|---|---|---|")
    for first in (patches // 2, patches // 4):
        got, values, _ = gradients(first)
        print(f"| {first} | {np.mean(abs(values / losses - 1)):.4f} | {np.mean(cosines(got, whole)):.3f} |", flush=True)


def drawn(batch_size):
    """A batch of crops, and the places of its samples."""
    rng = np.random.default_rng(0)
    batch = {role: rng.random((batch_size, CROP, CROP, 1), np.float32) for role in ("visible", "infrared")}
    return {**batch, "place": np.arange(batch_size, dtype=np.int32)}


def our_steps(args):
    """Functions that run one step, by batch size and name."""
    recipe, first = Recipe(PUBLISHED_WEIGHTS, patches=args.patches), args.patches // 2
    chosen = {"ours": (recipe, "float32")}
    if args.dtype != "float32":
        chosen[f"ours, network in {args.dtype}"] = (recipe, args.dtype)
    chosen[f"ours, select_first {first}"] = (recipe._replace(select_first=first), args.dtype)

    def make(case):
        batch_size, name = case
        recipe, network_dtype = chosen[name]
        batch = jax.tree.map(jnp.asarray, drawn(batch_size))
        step, memory = our_step(batch, recipe, args.dtype, network_dtype)
        return f"{name} ({memory:.2f} GiB of temporary memory)", step

    made = iter(peers.side_by_side(make, list(itertools.product(args.batch, chosen))))
    return {size: dict(itertools.islice(made, len(chosen))) for size in args.batch}


def print_steps(batch_size, ours, device, args):
    """Rows of the table for one batch size."""
    loss, shapes = our_loss(batch_size, Recipe(PUBLISHED_WEIGHTS, patches=args.patches), args.dtype)
    flops = gradient_flops(loss, *shapes)
    steps = {**ours, "PyTorch": torch_step(drawn(batch_size), args.patches, device, args)}
    times = peers.interleaved(list(steps.values()), args.rounds)
    for name, measured in zip(steps, times, strict=True):
        (wall, cpu), ratio = 1e3 * measured, measured / times[-1]
        share = "less work" if "select_first" in name else peers.utilisation(flops, measured[0])
        row = f"| {batch_size} | {name} | {wall:.0f} | {cpu:.0f} | {1 / measured[0]:.3g} | {share} |"
        print(f"{row} {ratio[0]:.2f} / {ratio[1]:.2f} |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    peers.add_arguments(parser)
    parser.add_argument("--batch", type=int, nargs="+", default=[1])
    parser.add_argument("--patches", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--memory", action="store_true", help="compile only, and print what a step needs")
    parser.add_argument("--difference", metavar="DATA", help="what select_first changes, on DATA/roadscene")
    args = parser.parse_args()
    device = peers.choose(args.device)
    if args.difference:
        return print_difference(args.difference, args.patches)
    if args.memory:
        for batch_size in args.batch:
            print_memory(batch_size, args.patches)
        return
    print(f"{peers.described(device, args.dtype)}, {args.patches} patches\n")
    print("| batch | step | ms | processor ms | steps a second | MFU | of PyTorch's: wall / processor |")
    print("|---|---|---|---|---|---|---|")
    ours = our_steps(args)
    for batch_size in args.batch:
        print_steps(batch_size, ours[batch_size], device, args)


if __name__ == "__main__":
    main()
