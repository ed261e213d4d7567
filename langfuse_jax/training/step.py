"""One training step: pure functions of state, batch and key, with everything frozen given as arguments."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree

from langfuse_jax.losses import feature_bank, grid_loss, guide_loss, informative, perceptual_loss, total_loss
from langfuse_jax.models.clip import VisionTower
from langfuse_jax.models.fusion import FusionNet, fresh_params
from langfuse_jax.models.vgg import VGG19
from langfuse_jax.training.augmentation.fade import fade
from langfuse_jax.training.augmentation.windows import Windows, augment_pairs, cut_patches, first_valid, random_windows


class TrainState(flax.struct.PyTreeNode):
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
    """What a step only reads; never differentiated.

    Attributes:
        clip: parameters of the CLIP vision tower, see `models.clip.in_compute_dtype`.
        texts: unit vectors (d,) under "text_goal", "text_visible" and "text_infrared".
        vgg: VGG19's parameters, or None for the feature bank.
    """

    clip: PyTree
    texts: Mapping[str, Float[Array, " d"]]
    vgg: PyTree | None


class Recipe(NamedTuple):
    """The numbers of a step that are fixed when it is compiled.

    Attributes:
        weights: factors of the four terms, see `losses.total_loss`, and of "guide" (`losses.guide_loss`) and "grid"
            (`losses.grid_loss`), if any.
        patches: windows cut from every image of the batch.
        patch_fraction: range of the windows' side, as a fraction of the crop's.
        entropy_threshold: bits that both sources of a patch must exceed to count.
        fading: the most that a source is mixed with gray or pushed away from it, see `fade`; losses and network see it.
        noise: standard deviation of the noise that the network, not the losses, sees on its inputs.
        select_first: 0, or the most patches of an image that are embedded: the first of those that count, standing for
            all of them (see `first_valid`), so that filtered patches cost no embedding.
        clip_chunk: 0, or how many windows (of all images) are embedded at a time, recomputed for the gradient, so that
            the memory of one chunk is enough.
        remat: recompute the intermediate results of the network, of each CLIP block and of the perceptual features for
            the gradient instead of keeping them.
    """

    weights: Mapping[str, float]
    patches: int = 32
    patch_fraction: tuple[float, float] = (0.5, 0.8)
    entropy_threshold: float = 6.0
    fading: float = 0.0
    noise: float = 0.03
    select_first: int = 0
    clip_chunk: int = 0
    remat: bool = False


def init_state(key: PRNGKeyArray, net: FusionNet, optimizer: optax.GradientTransformation) -> TrainState:
    """Fresh fusion parameters and optimizer state at step 0, without an average."""
    params = fresh_params(net, key)
    # From a zero bias half of the first images would be black.
    params["params"]["decoder"]["head"]["bias"] = jnp.full((1,), 0.5, jnp.float32)
    zero = jnp.zeros((), jnp.int32)
    return TrainState(zero, params, optimizer.init(params), skipped=zero, skipped_in_a_row=zero)


def fusion_loss(
    params: PyTree,
    batch: Mapping[str, Float[Array, "b s s 1"]],
    places: Int[Array, " b"],
    key: PRNGKeyArray,
    frozen: Frozen,
    *,
    net: FusionNet,
    vision: VisionTower,
    recipe: Recipe,
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """`objective` of a batch of crops after random augmentation and fading, with random noise and patch windows.

    Args:
        params: of the fusion network; the only thing differentiated.
        batch: "visible" and "infrared" crops in [0, 1], (b, s, s, 1).
        places: where each sample stands in the whole batch of the step, of which `batch` may be a part. Augmentation,
            noise and fading depend on it, and so not on how a batch is divided.
        key: drives augmentation, fading, noise and patch windows; the same for all parts of a batch.
    """
    view_key, noise_key, window_key, fading_key = jax.random.split(key, 4)
    # Of one key, what is folded in and what is split may be the same: each stream has its own.
    view_keys, noise_keys, fading_keys = (
        jax.vmap(jax.random.fold_in, (None, 0))(stream, places) for stream in (view_key, noise_key, fading_key)
    )
    visible, infrared = augment_pairs(view_keys, batch["visible"], batch["infrared"])
    if recipe.fading:
        visible, infrared = jax.vmap(partial(fade, most=recipe.fading))(
            fading_keys, jnp.stack([visible, infrared], 1)
        ).swapaxes(0, 1)
    draw = jax.vmap(partial(jax.random.normal, shape=(2, *visible.shape[1:])), out_axes=1)
    windows = random_windows(window_key, recipe.patches, visible.shape[1], fraction=recipe.patch_fraction)
    return objective(
        params,
        visible,
        infrared,
        recipe.noise * draw(noise_keys),
        windows,
        frozen,
        net=net,
        vision=vision,
        recipe=recipe,
    )


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

    Every term is a mean over samples, or over samples and patches, of which the filtered ones contribute 0: over parts
    of equal size the mean of the values, and of the gradients, is exactly that of the whole batch.

    Args:
        params: of the fusion network; the only thing differentiated.
        visible, infrared: crops in [0, 1], which the losses see.
        noise: what the network sees added to the two.
        windows: patches of the fused image and its sources.

    Returns:
        The total loss and its terms by name, with "selected", the share of patches that count, and "fused_std", the
        mean standard deviation of the fused images.
    """
    recomputed = jax.checkpoint if recipe.remat else lambda function: function
    fused = recomputed(net.apply)(params, visible + noise[0], infrared + noise[1])

    tower = vision.clone(remat=recipe.remat)

    def embed(images):
        return tower.apply({"params": frozen.clip}, jnp.repeat(images, 3, axis=-1))

    def informative_patches(windows):
        patches = [cut_patches(images, windows, vision.image_size) for images in (visible, infrared)]
        flat = [images.reshape(-1, *images.shape[2:]) for images in patches]
        return informative(*flat, threshold=recipe.entropy_threshold).reshape(-1, windows.count)

    def embed_patches(windows):
        # Images before windows: whatever holds some of the images holds a block of the rows.
        patches = cut_patches(fused, windows, vision.image_size)
        return embed(patches.reshape(-1, *patches.shape[2:])).reshape(-1, windows.count, vision.embedding)

    valid: Bool[Array, "b p"] = _by_chunks(informative_patches, windows, recipe.clip_chunk)
    counts = valid
    if recipe.select_first:
        windows, counts = first_valid(windows, valid, recipe.select_first)
    fused_patches = _by_chunks(embed_patches, windows, recipe.clip_chunk)

    # One batch per size of image: whole crops are resized inside the tower, patches are cut at its size.
    whole_fused = embed(fused)
    whole_sources = jax.lax.stop_gradient(embed(jnp.concatenate([visible, infrared])))
    whole_visible, whole_infrared = jnp.split(whole_sources, 2)

    if frozen.vgg is None:
        features = feature_bank
    else:
        features = recomputed(partial(VGG19(vision.dtype).apply, {"params": frozen.vgg}))
    total, terms = total_loss(
        whole_fused,
        whole_visible,
        whole_infrared,
        fused_patches.swapaxes(0, 1).reshape(-1, vision.embedding),
        counts.T.reshape(-1),
        **frozen.texts,
        perceptual=perceptual_loss(features, fused, visible, infrared),
        weights=recipe.weights,
    )
    for name, loss in (("guide", guide_loss), ("grid", grid_loss)):
        if weight := recipe.weights.get(name, 0.0):
            terms[name] = loss(fused, visible, infrared)
            total += weight * terms[name]
    return total, {**terms, "selected": valid.mean(), "fused_std": fused.std(axis=(1, 2, 3)).mean()}


def _by_chunks(function, windows, chunk):
    """function(windows) -> (b, p, ...), for `chunk` windows after the other; gradients recompute a chunk."""
    if not chunk or chunk >= windows.count:
        return function(windows)

    def split(x):
        """Axis p, the last but those of a window, in chunks that lead."""
        axis = windows.centre.ndim - 2
        x = x.reshape(*x.shape[:axis], -1, chunk, *x.shape[axis + 1 :])
        return jnp.moveaxis(x, axis, 0)

    @partial(jax.checkpoint, prevent_cse=False)  # a loop's body is not merged with what is outside it
    def one(part):
        return function(Windows(part[0], part[1], windows.side))

    out = jax.lax.map(one, (split(windows.matrices), split(windows.centre)))
    out = jnp.moveaxis(out, 0, 1)
    return out.reshape(out.shape[0], windows.count, *out.shape[3:])


def moving_average(average: PyTree, params: PyTree, step: Int[Array, ""], *, decay: float) -> PyTree:
    """`average` moved towards `params` by 1 - decay, where decay is at most (1 + step) / (10 + step).

    The first steps count more, so that where a training starts from is forgotten soon.
    """
    return optax.incremental_update(params, average, 1 - jnp.minimum(decay, (1 + step) / (10 + step)))


def make_gradient(
    net: FusionNet,
    vision: VisionTower,
    recipe: Recipe,
    *,
    accumulate: int = 1,
    axis_name: str | None = None,
    processes: int = 1,
    rates: PyTree = None,
) -> Callable[..., tuple[dict[str, Array], PyTree]]:
    """A pure `gradient(params, batch, key, frozen) -> (metrics, grads)`: `fusion_loss`, its terms and its gradient.

    Args:
        accumulate: parts that the batch is taken in, one after the other, with the memory of one; must divide it.
        axis_name: of the mapped axis, where `batch` is one device's block of a larger one. Metrics and gradients are
            then means over it, of the whole batch.
        processes: how many there are, whose shares of the batch lie one after the other, each of them every so many-th
            sample of the stream. A sample's place is that in the stream, and so the same with any number of them.
        rates: numpy factors of the learning rate, a tree like the parameters; what has 0 alone gets a gradient of 0
            without its being computed.
    """

    def loss(params, *arguments, **settings):
        if rates is not None:
            params = jax.tree.map(lambda leaf, rate: leaf if rate.any() else jax.lax.stop_gradient(leaf), params, rates)
        return fusion_loss(params, *arguments, **settings)

    value_and_grad = jax.value_and_grad(loss, has_aux=True)

    def part(params, batch, places, key, frozen):
        (total, terms), grads = value_and_grad(
            params, batch, places, key, frozen, net=net, vision=vision, recipe=recipe
        )
        return {"loss": total, **terms}, grads

    def gradient(params, batch, key, frozen):
        batch = {role: batch[role] for role in ("visible", "infrared")}
        size = batch["visible"].shape[0]
        total = size if axis_name is None else size * jax.lax.axis_size(axis_name)
        places = jnp.arange(total).reshape(-1, processes).T.reshape(-1)
        if axis_name is not None:
            places = jax.lax.dynamic_slice_in_dim(places, size * jax.lax.axis_index(axis_name), size)
        if accumulate == 1:
            sums = part(params, batch, places, key, frozen)
        else:
            # Every accumulate-th sample: of a batch in blocks on several devices, each part is too.
            parts = jax.tree.map(lambda x: x.reshape(-1, accumulate, *x.shape[1:]).swapaxes(0, 1), (batch, places))

            def add(sums, batch_and_places):
                batch, places = batch_and_places
                return jax.tree.map(jnp.add, sums, part(params, batch, places, key, frozen)), None

            shapes = jax.eval_shape(part, params, *jax.tree.map(lambda x: x[0], parts), key, frozen)
            zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
            sums, _ = jax.lax.scan(add, zeros, parts)
            sums = jax.tree.map(lambda x: x / accumulate, sums)
        return sums if axis_name is None else jax.lax.pmean(sums, axis_name)

    return gradient


def make_train_step(
    net: FusionNet,
    vision: VisionTower,
    optimizer: optax.GradientTransformation,
    recipe: Recipe,
    *,
    average_decay: float = 0.0,
    accumulate: int = 1,
    axis_name: str | None = None,
    processes: int = 1,
    rates: PyTree = None,
) -> Callable[[TrainState, Mapping[str, Array], PRNGKeyArray, Frozen], tuple[TrainState, dict[str, Any]]]:
    """A pure `train_step(state, batch, key, frozen) -> (state, metrics)`, to be compiled by `parallel.compile_step`.

    The step's randomness is `key` folded with the step count and each sample's place in the batch, so a resumed
    training repeats it exactly, and so does one on other devices but for rounding. An average in the state is moved by
    `moving_average`. A step whose loss, gradient or update is not finite changes nothing but the counts. What
    the optimizer says is multiplied by `rates`, where given; `accumulate`, `axis_name` and `processes` as in
    `make_gradient`.
    """
    gradient = make_gradient(
        net, vision, recipe, accumulate=accumulate, axis_name=axis_name, processes=processes, rates=rates
    )

    def train_step(state, batch, key, frozen):
        metrics, grads = gradient(state.params, batch, jax.random.fold_in(key, state.step), frozen)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        if rates is not None:
            updates = jax.tree.map(jnp.multiply, updates, rates)
        params = optax.apply_updates(state.params, updates)
        norm = optax.tree.norm(grads)
        average = state.average
        if average is not None:
            average = moving_average(average, params, state.step, decay=average_decay)
        # What is not finite is left out: only the counts and the step go on.
        finite = jnp.isfinite(metrics["loss"]) & jnp.isfinite(norm) & jnp.isfinite(optax.tree.norm(updates))
        new, old = (params, opt_state, average), (state.params, state.opt_state, state.average)
        params, opt_state, average = jax.tree.map(partial(jnp.where, finite), new, old)
        skipped = state.skipped + ~finite
        in_a_row = jnp.where(finite, 0, state.skipped_in_a_row + 1)
        metrics = {**metrics, "gradient_norm": norm, "skipped": skipped, "skipped_in_a_row": in_a_row}
        return TrainState(state.step + 1, params, opt_state, average, skipped, in_a_row), metrics

    return train_step
