"""What the steered network is to minimise: the published objective of each sample's own goal, near its picture."""

from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import cast

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from langfuse_jax.losses import Words, feature_bank, perceptual_loss
from langfuse_jax.losses.language import normalised
from langfuse_jax.losses.ssim import ssim
from langfuse_jax.losses.total import published_terms, weighted_sum
from langfuse_jax.models.clip import VisionTower
from langfuse_jax.models.steered import SteeredNet
from langfuse_jax.models.vgg import VGG19
from langfuse_jax.training.augmentation.windows import cut_patches, random_windows
from langfuse_jax.training.objective import Frozen, Loss


def steering_loss(
    params: PyTree,
    batch: Mapping[str, Array],
    key: PRNGKeyArray,
    frozen: Frozen,
    *,
    net: SteeredNet,
    vision: VisionTower,
    weights: Mapping[str, float],
    patches: int,
    fraction: tuple[float, float],
) -> Loss:
    """The total and its unweighted terms; a term of weight 0 is not computed.

    Args:
        params: of the network; the only thing differentiated.
        batch: "visible", "infrared" and "wanted" crops (b, s, s, 1) in [0, 1]; "anchored" (b,), how surely "wanted" is
            what the goal looks like; "goal" (b, d), embeddings; "steered" (b,), 1 where it is not the default
            sentence; "statistics" (b, 18) of the whole pairs.
        key: draws the patch windows.
        frozen: its words are the default sentence and the sources' sentences.
        net, vision: the network, and the vision tower of the CLIP.
        weights: of "whole", "patch", "similarity" and "perceptual" (`losses.total_loss`; every patch counts), of
            "guide", the distance of default samples to what is wanted, "anchor", that of steered ones as far as they
            are anchored, and "goal", 1 minus the cosine of whole images to the goal.
        patches, fraction: how many windows are cut from an image, and the range of their side as a fraction of it.
    """
    visible, infrared, wanted = batch["visible"], batch["infrared"], batch["wanted"]
    goal = normalised(batch["goal"])
    direction = batch["goal"] - frozen.words.goal
    fused = cast(Array, net.apply(params, visible, infrared, None, direction, batch["statistics"]))

    def embed(images: Float[Array, "n h w 1"]) -> Float[Array, "n d"]:
        return cast(Array, vision.apply({"params": frozen.clip}, images))

    @cache
    def wholes() -> tuple[Float[Array, "b d"], Float[Array, "b d"], Float[Array, "b d"]]:
        # Both sources of a sample are neighbours, so that none moves to another device.
        sources = jnp.stack([visible, infrared], 1).reshape(-1, *visible.shape[1:])
        of_sources = jax.lax.stop_gradient(embed(sources)).reshape(len(visible), 2, -1)
        return embed(fused), of_sources[:, 0], of_sources[:, 1]

    def of_patches() -> tuple[Float[Array, "b p d"], Float[Array, "b p"]]:
        windows = random_windows(key, patches, visible.shape[1], fraction=fraction)
        cut = cut_patches(fused, windows, vision.image_size)
        embeddings = embed(cut.reshape(-1, *cut.shape[2:]))
        return embeddings.reshape(*cut.shape[:2], -1), jnp.ones(cut.shape[:2])

    def perceptual() -> Float[Array, ""]:
        if frozen.vgg is None:
            return perceptual_loss(feature_bank, fused, visible, infrared)
        features: Callable = partial(VGG19(vision.dtype).apply, {"params": frozen.vgg})
        return perceptual_loss(features, fused, visible, infrared)

    @cache
    def distance() -> Float[Array, " b"]:
        """Of each sample to what is wanted: mean |e|, twice that of its differences, and (1 - SSIM) / 2."""
        error = (fused - wanted)[..., 0]
        steps = jnp.abs(jnp.diff(error, axis=1)).mean((1, 2)) + jnp.abs(jnp.diff(error, axis=2)).mean((1, 2))
        return jnp.abs(error).mean((1, 2)) + 2 * steps + (1 - ssim(fused[..., 0], wanted[..., 0])) / 2

    words = Words(goal, frozen.words.visible, frozen.words.infrared)
    terms = published_terms(wholes, of_patches, words, perceptual, weights)
    others = {
        "guide": lambda: jnp.mean(distance() * (1 - batch["steered"])),
        "anchor": lambda: jnp.mean(distance() * batch["steered"] * batch["anchored"]),
        "goal": lambda: jnp.mean(1 - jnp.sum(normalised(wholes()[0]) * goal, axis=-1)),
    }
    terms += [(name, weights.get(name, 0.0), value) for name, value in others.items()]
    total, values = weighted_sum(terms)
    return total, values | {"fused_std": fused.std(axis=(1, 2, 3)).mean()}
