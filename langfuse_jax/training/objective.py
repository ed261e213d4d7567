"""The objective of the fusion network: a batch augmented, fused, embedded, and the terms of the result."""

from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import NamedTuple, TypeVar, cast

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray, PyTree

from langfuse_jax.losses import Words, feature_bank, grid_loss, guide_loss, informative, perceptual_loss
from langfuse_jax.losses.total import published_terms, weighted_sum
from langfuse_jax.models.clip import VisionTower
from langfuse_jax.models.fusion import FusionNet
from langfuse_jax.models.vgg import VGG19
from langfuse_jax.training.augmentation.fade import fade
from langfuse_jax.training.augmentation.windows import Windows, augment_pairs, cut_patches, first_valid, random_windows

Loss = tuple[Float[Array, ""], dict[str, Float[Array, ""]]]
Images = Float[Array, "b s s 1"]
Tree = TypeVar("Tree")


class Frozen(NamedTuple):
    """What a step only reads; never differentiated.

    Attributes:
        clip: parameters of the CLIP vision tower, see `models.clip.in_compute_dtype`.
        words: text embeddings, unit vectors (d,).
        vgg: VGG19's parameters, or None for the feature bank.
    """

    clip: PyTree
    words: Words
    vgg: PyTree | None


class Recipe(NamedTuple):
    """The numbers of an objective that are fixed when it is compiled.

    Attributes:
        weights: of the terms: "whole", "patch", "similarity" and "perceptual" (`losses.total_loss`), "guide"
            (`losses.guide_loss`) and "grid" (`losses.grid_loss`). A term of weight 0, or that is missing, is not
            computed, and neither is what it alone needs.
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


def fusion_loss(
    params: PyTree,
    batch: Mapping[str, Array],
    key: PRNGKeyArray,
    frozen: Frozen,
    *,
    net: FusionNet,
    vision: VisionTower,
    recipe: Recipe,
) -> Loss:
    """`objective` of a batch of crops after random augmentation and fading, with random noise and patch windows.

    Args:
        params: of the fusion network; the only thing differentiated.
        batch: "visible" and "infrared" crops in [0, 1], (b, s, s, 1), and the "place" of each sample in the whole batch
            of the step, (b,) integers. Augmentation, noise and fading depend on it, and so not on how the batch is
            divided.
        key: drives augmentation, fading, noise and patch windows; the same for all parts of a batch.
    """
    view_key, noise_key, window_key, fading_key = jax.random.split(key, 4)
    # Of one key, what is folded in and what is split may be the same: each stream has its own.
    view_keys, noise_keys, fading_keys = (
        jax.vmap(jax.random.fold_in, (None, 0))(stream, batch["place"]) for stream in (view_key, noise_key, fading_key)
    )
    visible, infrared = augment_pairs(view_keys, batch["visible"], batch["infrared"])
    if recipe.fading:
        visible, infrared = jax.vmap(partial(fade, most=recipe.fading))(
            fading_keys, jnp.stack([visible, infrared], 1)
        ).swapaxes(0, 1)
    draw = jax.vmap(partial(jax.random.normal, shape=(2, *visible.shape[1:])), out_axes=1)
    windows = random_windows(window_key, recipe.patches, visible.shape[1], fraction=recipe.patch_fraction)
    noise = recipe.noise * draw(noise_keys)
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
) -> Loss:
    """The weighted terms of given crops and patch windows: fusion, patches, embeddings, and what `recipe` weighs.

    Every term is a mean over samples, or over samples and patches, of which the filtered ones contribute 0: over parts
    of equal size the mean of the values, and of the gradients, is exactly that of the whole batch.

    Args:
        params: of the fusion network; the only thing differentiated.
        visible, infrared: crops in [0, 1], which the losses see.
        noise: what the network sees added to the two.
        windows: patches of the fused image and its sources, no longer than `recipe.patch_fraction` has it.

    Returns:
        The total loss and its unweighted terms by name, with "fused_std", the mean standard deviation of the fused
        images, and, where patches have a weight, "selected", the share of them that count.
    """
    recomputed = jax.checkpoint if recipe.remat else lambda function: function
    fused = recomputed(net.apply)(params, visible + noise[0], infrared + noise[1])

    tower = vision.clone(remat=recipe.remat)
    cut = partial(cut_patches, size=vision.image_size, longest=recipe.patch_fraction[1] * max(visible.shape[1:3]))

    def embed(images: Float[Array, "n h w 1"]) -> Float[Array, "n d"]:
        return cast(Array, tower.apply({"params": frozen.clip}, images))

    def informative_patches(windows: Windows) -> Bool[Array, "b p"]:
        patches = [cut(images, windows) for images in (visible, infrared)]
        flat = [images.reshape(-1, *images.shape[2:]) for images in patches]
        return informative(*flat, threshold=recipe.entropy_threshold).reshape(-1, windows.count)

    def embed_patches(windows: Windows) -> Float[Array, "b p d"]:
        # Images before windows: whatever holds some of the images holds a block of the rows.
        patches = cut(fused, windows)
        return embed(patches.reshape(-1, *patches.shape[2:])).reshape(-1, windows.count, vision.embedding)

    watched = {"fused_std": fused.std(axis=(1, 2, 3)).mean()}

    @cache
    def wholes() -> tuple[Float[Array, "b d"], Float[Array, "b d"], Float[Array, "b d"]]:
        # One batch per size of image: whole crops are resized inside the tower, patches are cut at its size.
        of_fused = embed(fused)
        # Both sources of a sample are neighbours, so that none moves to another device.
        sources = jnp.stack([visible, infrared], 1).reshape(-1, *visible.shape[1:])
        of_sources = jax.lax.stop_gradient(embed(sources)).reshape(len(visible), 2, -1)
        return of_fused, of_sources[:, 0], of_sources[:, 1]

    def patches() -> tuple[Float[Array, "b p d"], Float[Array, "b p"] | Bool[Array, "b p"]]:
        chosen = windows
        counts = valid = _by_chunks(informative_patches, windows, recipe.clip_chunk)
        watched["selected"] = valid.mean()
        if recipe.select_first:
            chosen, counts = first_valid(windows, valid, recipe.select_first)
        return _by_chunks(embed_patches, chosen, recipe.clip_chunk), counts

    def perceptual() -> Float[Array, ""]:
        if frozen.vgg is None:
            return perceptual_loss(feature_bank, fused, visible, infrared)
        features = recomputed(partial(VGG19(vision.dtype).apply, {"params": frozen.vgg}))
        return perceptual_loss(features, fused, visible, infrared)

    terms = published_terms(wholes, patches, frozen.words, perceptual, recipe.weights)
    for name, loss in (("guide", guide_loss), ("grid", grid_loss)):
        terms.append((name, recipe.weights.get(name, 0.0), partial(loss, fused, visible, infrared)))
    total, values = weighted_sum(terms)
    return total, values | watched


def _by_chunks(function: Callable[[Windows], Array], windows: Windows, chunk: int) -> Array:
    """function(windows) -> (b, p, ...), for `chunk` windows after the other; gradients recompute a chunk."""
    if not chunk or chunk >= windows.count:
        return function(windows)

    def split(x: Array) -> Array:
        """Axis p, the last but those of a window, in chunks that lead."""
        axis = windows.centre.ndim - 2
        x = x.reshape(*x.shape[:axis], -1, chunk, *x.shape[axis + 1 :])
        return jnp.moveaxis(x, axis, 0)

    @partial(jax.checkpoint, prevent_cse=False)  # a loop's body is not merged with what is outside it
    def one(part: tuple[Array, Array]) -> Array:
        return function(Windows(part[0], part[1], windows.side))

    out = jax.lax.map(one, (split(windows.matrices), split(windows.centre)))
    out = jnp.moveaxis(out, 0, 1)
    return out.reshape(out.shape[0], windows.count, *out.shape[3:])
