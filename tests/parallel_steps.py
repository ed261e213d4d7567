"""Steps of a real, small training run on all devices of all processes, for test_parallel.py.

`python parallel_steps.py OUT.npz MODE,MODE NET STEPS [HOST:PORT PROCESSES INDEX]` writes the losses, the first
gradient and the last parameters of each mode: "one" (the first device alone), "jit", "sharded" (that, and the optimizer
divided) or "pmap"; of the "whole" network, a "small" one, that one with a loss that is "quick" to compile, or the
"steered" network with its own loss.
"""

import sys
from functools import cache, partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from small_network import SmallNet

from langfuse_jax.examples.night_scene import night_scene
from langfuse_jax.losses import Words
from langfuse_jax.losses.total import PUBLISHED_WEIGHTS
from langfuse_jax.models.clip import VisionTower
from langfuse_jax.models.fusion import FusionNet, fresh_params
from langfuse_jax.models.statistics import pair_statistics
from langfuse_jax.models.steered import SteeredNet
from langfuse_jax.runtime.distributed import join_cluster
from langfuse_jax.steering.loss import steering_loss
from langfuse_jax.training.objective import Frozen, Recipe, fusion_loss
from langfuse_jax.training.parallel import compile_step, data_mesh, divide, divided_optimizer, on_host, replicate
from langfuse_jax.training.step import init_state, make_train_step
from langfuse_jax.weights.fusion import load_fusion

BATCH, CROP = 8, 32
WEIGHTS = Path(__file__).resolve().parents[1] / "langfuse_jax" / "assets" / "ldfusion"


def keeping_gradients(optimizer):
    """`optimizer` with the last gradients in its state."""

    def update(grads, state, params):
        updates, inner = optimizer.update(grads, state[0], params)
        return updates, (inner, grads)

    return optax.GradientTransformation(lambda params: (optimizer.init(params), params), update)


def small_clip():
    """A CLIP image tower of 32 px, and parameters drawn at random."""
    vision = VisionTower(32, 16, 32, 1, 2, 64, "gelu", 1e-5, 16)
    shapes = jax.eval_shape(vision.init, jax.random.key(0), jax.ShapeDtypeStruct((1, 32, 32, 3), "float32"))["params"]
    rng = np.random.default_rng(0)
    return vision, jax.tree.map(lambda leaf: rng.normal(0, 0.2, leaf.shape).astype(np.float32), shapes)


@cache
def scene(seed):
    """A drawn pair, gray, in [0, 1]."""
    pair = [np.asarray(image) / 255 for image in night_scene(96, 128, seed=seed)]
    return [image.mean(-1) if image.ndim == 3 else image for image in pair]


def crops(step):
    """The whole batch of a step, in the order of the stream."""
    rng = np.random.default_rng(step)
    pairs = []
    for _ in range(BATCH):
        top, left = rng.integers(0, 96 - CROP), rng.integers(0, 128 - CROP)
        pair = scene(int(rng.integers(4)))
        pairs.append([image[top : top + CROP, left : left + CROP, None] for image in pair])
    visible, infrared = np.float32(pairs).swapaxes(0, 1)
    return {"visible": visible, "infrared": infrared, "place": np.arange(BATCH, dtype=np.int32)}


def steered_batch(step):
    """The crops of a step, and what the steered network is to make of them: every third is of the default sentence."""
    batch, rng = crops(step), np.random.default_rng((1, step))
    visible, infrared = batch["visible"], batch["infrared"]
    goals = rng.normal(size=(BATCH, 16)).astype(np.float32)
    return batch | {
        "wanted": np.maximum(visible, infrared),
        "anchored": rng.random(BATCH, np.float32),
        "goal": goals / np.linalg.norm(goals, axis=1, keepdims=True),
        "steered": np.float32(np.arange(BATCH) % 3 > 0),
        "statistics": np.asarray(pair_statistics(visible, infrared)),
    }


def steered_loss(params, batch, key, frozen, *, net, vision):
    weights = {"whole": 1.0, "patch": 4.0, "guide": 10.0, "anchor": 4.0, "goal": 0.5}
    settings = {"weights": weights, "patches": 2, "fraction": (0.5, 0.8)}
    total, terms = steering_loss(params, batch, key, frozen, net=net, vision=vision, **settings)
    return total, terms | {"selected": 1 - jnp.mean(batch["steered"])}


def quick_loss(params, batch, key, frozen, *, net, vision, recipe):
    """The fused image is to be the brighter source: needs all that devices divide or share, and compiles at once."""
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, batch["place"])
    visible, infrared = batch["visible"], batch["infrared"]
    noise = jax.vmap(partial(jax.random.normal, shape=visible.shape[1:]))(keys)
    total = jnp.square(net.apply(params, visible + 0.1 * noise, infrared) - jnp.maximum(visible, infrared)).mean()
    return total, {"selected": jnp.mean(infrared > visible)}


def networks(name):
    """The whole network with its weights, or one of the others with fresh ones."""
    if name == "whole":
        return FusionNet(), load_fusion(WEIGHTS)[0]
    if name == "steered":
        return SteeredNet(embedding=16), jax.tree.map(
            np.asarray, fresh_params(SteeredNet(embedding=16), jax.random.key(0))
        )
    return SmallNet(), jax.tree.map(np.asarray, fresh_params(SmallNet(), jax.random.key(0)))


def run(mode, network, steps):
    """Losses of the steps, the gradients of the first and the last parameters, each by its path."""
    net, params = networks(network)
    vision, clip = small_clip()
    frozen = Frozen(clip, Words(*np.float32(np.eye(3, 16))), None)
    recipe = Recipe(PUBLISHED_WEIGHTS, patches=4, entropy_threshold=4.8)
    # Adam's steps are as long as its rate, whatever the gradient: at 1e-4 the last bits grow from step to step.
    optimizer = keeping_gradients(optax.adam(1e-5))
    mesh = Mesh(np.array(jax.devices()[:1]), ("data",)) if mode == "one" else data_mesh()
    sharded = mode == "sharded"
    mode = "pmap" if mode == "pmap" else "jit"
    processes = 1 if mesh.size == 1 else jax.process_count()
    if network == "steered":
        loss, batch_of = partial(steered_loss, net=net, vision=vision), steered_batch
    else:
        objective = quick_loss if network == "quick" else fusion_loss
        loss, batch_of = partial(objective, net=net, vision=vision, recipe=recipe), crops
    state = init_state(params, optimizer)
    shardings = divided_optimizer(state, mesh) if sharded else None
    step = compile_step(partial(make_train_step, loss, optimizer), mode, mesh, shardings)
    state = replicate(state, mesh, shardings)
    key, frozen = (replicate(tree, mesh) for tree in (jax.random.key(7), frozen))
    losses, selected = [], []
    for number in range(steps):
        part = {role: crop[jax.process_index() :: processes] for role, crop in batch_of(number).items()}
        state, metrics = step(state, divide(part, mode, mesh), key, frozen)
        losses.append(float(on_host(metrics)["loss"]))
        selected.append(float(on_host(metrics)["selected"]))
        if number == 0:
            kept = state.opt_state[1]
            gradients = jax.tree.leaves_with_path(jax.device_get(kept) if sharded else on_host(kept))
    assert 0.05 < np.mean(selected) < 0.98, selected  # patches of both kinds
    if sharded:
        moments = jax.tree.leaves(state.opt_state[0])
        assert sum(leaf.addressable_data(0).size for leaf in moments) < 0.3 * sum(leaf.size for leaf in moments)
    found = {f"gradients{jax.tree_util.keystr(path)}": leaf for path, leaf in gradients}
    parameters = jax.tree.leaves_with_path(on_host(state.params))
    found |= {f"parameters{jax.tree_util.keystr(path)}": leaf for path, leaf in parameters}
    return found | {"losses": losses}


if __name__ == "__main__":
    out, modes, network, steps, *cluster = sys.argv[1:]
    if cluster:
        join_cluster(cluster[0], int(cluster[1]), int(cluster[2]))
    found = {}
    for mode in modes.split(","):
        found |= {f"{mode}/{name}": value for name, value in run(mode, network, int(steps)).items()}
    if jax.process_index() == 0:
        np.savez(out, **found)
