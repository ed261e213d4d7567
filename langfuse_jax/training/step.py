"""One training step: pure functions of state, batch and key, with everything frozen given as arguments."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from langfuse_jax.data.windows import Windows, augment_pairs, cut_patches, random_windows
from langfuse_jax.losses import feature_bank, informative, perceptual_loss, total_loss
from langfuse_jax.models.clip import VisionTower
from langfuse_jax.models.fusion import FusionNet
from langfuse_jax.models.vgg import VGG19


@flax.struct.dataclass
class TrainState:
    """What a step changes: the step count, the fusion parameters, the optimizer's state, and maybe their average."""

    step: PyTree  # a scalar; JAX also builds the tree with placeholders in place of arrays
    params: PyTree
    opt_state: PyTree
    average: PyTree = None  # moving average of params, where one is kept
    skipped: PyTree = None  # updates left out so far, because loss or gradient were not finite
    skipped_in_a_row: PyTree = None  # and those since the last update

    @property
    def final(self) -> PyTree:
        """The parameters to fuse with: the average where one is kept."""
        return self.params if self.average is None else self.average


class Frozen(NamedTuple):
    """What a step only reads.

    Attributes:
        clip: parameters of the CLIP vision tower.
        texts: unit vectors (d,) under "text_goal", "text_visible" and "text_infrared".
        vgg: VGG19's parameters, or None for the feature bank.
    """

    clip: PyTree
    texts: Mapping[str, Float[Array, " d"]]
    vgg: PyTree | None


class Recipe(NamedTuple):
    """The numbers of a step that are fixed when it is compiled.

    Attributes:
        weights: factors of the four terms, see `losses.total_loss`.
        patches: windows cut from every image of the batch.
        patch_fraction: range of the windows' side, as a fraction of the crop's.
        entropy_threshold: bits that both sources of a patch must exceed to count.
        noise: standard deviation of the noise that the network, not the losses, sees on its inputs.
    """

    weights: Mapping[str, float]
    patches: int = 32
    patch_fraction: tuple[float, float] = (0.5, 0.8)
    entropy_threshold: float = 6.0
    noise: float = 0.03


def init_state(key: PRNGKeyArray, net: FusionNet, optimizer: optax.GradientTransformation, crop: int) -> TrainState:
    """Fresh fusion parameters and optimizer state at step 0, without an average."""
    image = jnp.zeros((1, crop, crop, 1))
    params = jax.jit(net.init)(key, image, image)
    # The output is clipped to [0, 1]: from a zero bias half of it starts, and may stay, where there is no gradient.
    params["params"]["decoder"]["head"]["bias"] = jnp.full((1,), 0.5, jnp.float32)
    zero = jnp.zeros((), jnp.int32)
    return TrainState(zero, params, optimizer.init(params), skipped=zero, skipped_in_a_row=zero)


def fusion_loss(
    params: PyTree,
    batch: Mapping[str, Float[Array, "b s s 1"]],
    key: PRNGKeyArray,
    frozen: Frozen,
    *,
    net: FusionNet,
    vision: VisionTower,
    recipe: Recipe,
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """`objective` of a batch of crops after random augmentation, with random noise and patch windows.

    Args:
        params: of the fusion network; the only thing differentiated.
        batch: "visible" and "infrared" crops in [0, 1], (b, s, s, 1).
        key: drives augmentation, noise and patch windows.
    """
    view_key, noise_key, window_key = jax.random.split(key, 3)
    visible, infrared = augment_pairs(view_key, batch["visible"], batch["infrared"])
    noise = recipe.noise * jax.random.normal(noise_key, (2, *visible.shape))
    windows = random_windows(window_key, recipe.patches, visible.shape[1], fraction=recipe.patch_fraction)
    return objective(params, visible, infrared, noise, windows, frozen, net=net, vision=vision, recipe=recipe)


def objective(
    params: PyTree,
    visible: Float[Array, "b s s 1"],
    infrared: Float[Array, "b s s 1"],
    noise: Float[Array, "2 b s s 1"],
    windows: Windows,
    frozen: Frozen,
    *,
    net: FusionNet,
    vision: VisionTower,
    recipe: Recipe,
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """The published objective of given crops and patch windows: fusion, patches, embeddings and the four terms.

    Args:
        params: of the fusion network; the only thing differentiated.
        visible, infrared: crops in [0, 1], which the losses see.
        noise: what the network sees added to the two.
        windows: patches of the fused image and its sources.

    Returns:
        The total loss and its terms by name, with "selected": the share of patches that counted.
    """
    fused = net.apply(params, visible + noise[0], infrared + noise[1])

    size = vision.image_size
    fused_patches = cut_patches(fused, windows, size)
    selected = informative(
        cut_patches(visible, windows, size), cut_patches(infrared, windows, size), threshold=recipe.entropy_threshold
    )

    def embed(images):
        return vision.apply({"params": frozen.clip}, jnp.repeat(images, 3, axis=-1))

    # One batch per size of image: whole crops are resized inside the tower, patches are cut at its size.
    whole_fused = embed(fused)
    whole_sources = jax.lax.stop_gradient(embed(jnp.concatenate([visible, infrared])))
    whole_visible, whole_infrared = jnp.split(whole_sources, 2)

    features = feature_bank if frozen.vgg is None else partial(VGG19().apply, {"params": frozen.vgg})
    total, terms = total_loss(
        whole_fused,
        whole_visible,
        whole_infrared,
        embed(fused_patches),
        selected,
        **frozen.texts,
        perceptual=perceptual_loss(features, fused, visible, infrared),
        weights=recipe.weights,
    )
    return total, {**terms, "selected": selected.mean()}


def moving_average(average: PyTree, params: PyTree, step: Int[Array, ""], *, decay: float) -> PyTree:
    """`average` moved towards `params` by 1 - decay, where decay is at most (1 + step) / (10 + step).

    The first steps count more, so that where a training starts from is forgotten soon.
    """
    return optax.incremental_update(params, average, 1 - jnp.minimum(decay, (1 + step) / (10 + step)))


def make_train_step(
    net: FusionNet,
    vision: VisionTower,
    optimizer: optax.GradientTransformation,
    recipe: Recipe,
    *,
    average_decay: float = 0.0,
) -> Callable[[TrainState, Mapping[str, Array], PRNGKeyArray, Frozen], tuple[TrainState, dict[str, Any]]]:
    """A pure `train_step(state, batch, key, frozen) -> (state, metrics)`, to be jitted by the caller.

    The step's randomness is `key` folded with the step count, so a resumed training repeats it exactly. An average in
    the state is moved by `moving_average`. A step whose loss, gradient or update is
    not finite changes nothing but the counts.
    """

    def train_step(state, batch, key, frozen):
        gradient = jax.value_and_grad(fusion_loss, has_aux=True)
        (total, terms), grads = gradient(
            state.params,
            batch,
            jax.random.fold_in(key, state.step),
            frozen,
            net=net,
            vision=vision,
            recipe=recipe,
        )
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        norm = optax.tree.norm(grads)
        average = state.average
        if average is not None:
            average = moving_average(average, params, state.step, decay=average_decay)
        # What is not finite is left out: only the counts and the step go on.
        finite = jnp.isfinite(total) & jnp.isfinite(norm) & jnp.isfinite(optax.tree.norm(updates))
        new, old = (params, opt_state, average), (state.params, state.opt_state, state.average)
        params, opt_state, average = jax.tree.map(partial(jnp.where, finite), new, old)
        skipped = state.skipped + ~finite
        in_a_row = jnp.where(finite, 0, state.skipped_in_a_row + 1)
        metrics = {"loss": total, **terms, "gradient_norm": norm, "skipped": skipped, "skipped_in_a_row": in_a_row}
        return TrainState(state.step + 1, params, opt_state, average, skipped, in_a_row), metrics

    return train_step
