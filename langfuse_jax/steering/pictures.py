"""What a fused image would look like if it were all that a word says: pictures that anchor words to pixels.

A CLIP of a few megabytes knows in which direction a word lies, not how far a picture may go. So every concept that the
steered network is taught has a picture: the default target, changed as the word says, as far as it can be without harm.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32

from langfuse_jax.classical.pyramid import equalise, gaussian_blur

Image = Float32[np.ndarray, "h w"]


class Layers(NamedTuple):
    """A window of a scene in [0, 1]: the sources, the default target, and where the infrared is hot."""

    visible: Image
    infrared: Image
    target: Image
    hot: Image


def picture(layers: Layers, concepts: Iterable[str], strength: float = 1.0) -> Image:
    """The default target with all of `concepts` shown, in [0, 1]; at strength 0 it is the target itself.

    Raises KeyError for a concept without a picture (PICTURED has those with one).
    """
    wanted = set(concepts)
    if unknown := wanted - PICTURED.keys():
        raise KeyError(sorted(unknown))
    image = layers.target
    for concept, change in PICTURED.items():
        if concept in wanted:
            image = np.clip(change(image, strength, layers), 0, 1).astype(np.float32)
    return image


def _curved(image: Image, strength: float) -> Image:
    return image / (image + (1 - image) * float(np.exp(-strength)) + 1e-6)


def _stretched(image: Image) -> Image:
    low, high = map(float, np.quantile(image[::2, ::2], [0.01, 0.99]))
    return np.clip((image - low) / max(high - low, 0.2), 0, 1)


def _matched(image: Image, like: Image) -> Image:
    """`image` with at least the contrast of `like` around its own mean."""
    return image.mean() + (image - image.mean()) * max(1.0, float(like.std()) / max(float(image.std()), 0.02))


def _natural(image: Image, strength: float, layers: Layers) -> Image:
    return image + 0.95 * strength * (_matched(layers.visible, 0.7 * image) - image)


def _thermal(image: Image, strength: float, layers: Layers) -> Image:
    return image + 0.95 * strength * (_stretched(layers.infrared) - image)


def _salient(image: Image, strength: float, layers: Layers) -> Image:
    shown = np.maximum(image, np.maximum(_stretched(layers.infrared), 0.8))
    dimmed = image * (1 - 0.2 * strength)
    return dimmed + layers.hot * (image + strength * (shown - image) - dimmed)


def _hidden(image: Image, strength: float, layers: Layers) -> Image:
    sigma = min(image.shape) / 10
    around = gaussian_blur(image * (1 - layers.hot), sigma) / np.maximum(gaussian_blur(1 - layers.hot, sigma), 0.05)
    seen = layers.visible - gaussian_blur(layers.visible, 3.0)
    return image + strength * layers.hot * (around + 0.7 * seen - image)


def _detailed(image: Image, strength: float, layers: Layers) -> Image:
    background = 1 - np.clip(2 * layers.hot, 0, 1)
    shown = equalise(image)
    shown = shown + 0.6 * (shown - gaussian_blur(shown, 1.5))
    return image + 0.5 * strength * background * (shown - image)


def _quiet(image: Image, strength: float, layers: Layers) -> Image:
    return image - 0.8 * strength * (1 - np.clip(2 * layers.hot, 0, 1)) * (image - gaussian_blur(image, 4.0))


def _sharp(image: Image, strength: float, layers: Layers) -> Image:
    return image + 1.0 * strength * (image - gaussian_blur(image, 1.0))


def _blurry(image: Image, strength: float, layers: Layers) -> Image:
    return image + strength * (gaussian_blur(image, 2.5) - image)


def _clean(image: Image, strength: float, layers: Layers) -> Image:
    """Smooth where little happens, as it is where edges are."""
    smooth = gaussian_blur(image, 1.5)
    edges = gaussian_blur(np.abs(image - smooth), 2.0)
    return image + strength * np.exp(-((edges / 0.025) ** 2)) * (smooth - image)


def _contrasty(image: Image, strength: float, layers: Layers) -> Image:
    """Steeper in the middle, so that neither end is cut off."""
    steep = 1.3 * strength + 1e-6
    return 0.5 + 0.5 * np.tanh(steep * (2 * image - 1)) / float(np.tanh(steep))


def _flat(image: Image, strength: float, layers: Layers) -> Image:
    return image.mean() + (1 - 0.7 * strength) * (image - image.mean())


def _clear(image: Image, strength: float, layers: Layers) -> Image:
    """Local contrast without grain, and less of what lights cover."""
    image = _clean(image, 0.7 * strength, layers)
    return _exposed(image + 0.5 * strength * (equalise(image) - image), 0.4 * strength, layers)


def _hazy(image: Image, strength: float, layers: Layers) -> Image:
    return image + 0.65 * strength * (0.8 - image)


def _exposed(image: Image, strength: float, layers: Layers) -> Image:
    """Highlights come down, where the infrared shows what they cover, and shadows come up."""
    lights = np.clip((gaussian_blur(layers.visible, 4.0) - 0.75) / 0.2, 0, 1)
    covered = 0.45 + 0.5 * (_stretched(layers.infrared) - 0.5)
    image = image + 0.7 * strength * lights * (covered - image)
    return image + 0.3 * strength * (np.sqrt(image) - image) * (1 - image)


def _glaring(image: Image, strength: float, layers: Layers) -> Image:
    return image + strength * (0.2 + 0.8 * np.maximum(gaussian_blur(layers.visible, 6.0) - 0.5, 0))


def _bright(image: Image, strength: float, layers: Layers) -> Image:
    return _curved(image, 1.4 * strength)


def _dark(image: Image, strength: float, layers: Layers) -> Image:
    return _curved(image, -1.6 * strength)


def _as_it_is(image: Image, strength: float, layers: Layers) -> Image:
    return image


# In the order in which they are applied: what is shown, then its detail, then its tones.
PICTURED: dict[str, Callable[[Image, float, Layers], Image]] = {
    "goal": _as_it_is,
    "fused": _as_it_is,
    "visible": _natural,
    "natural": _natural,
    "infrared": _thermal,
    "thermal": _thermal,
    "salient": _salient,
    "hidden": _hidden,
    "detailed": _detailed,
    "quiet": _quiet,
    "sharp": _sharp,
    "blurry": _blurry,
    "clean": _clean,
    "clear": _clear,
    "exposed": _exposed,
    "contrasty": _contrasty,
    "flat": _flat,
    "hazy": _hazy,
    "glaring": _glaring,
    "bright": _bright,
    "dark": _dark,
}

# How surely a picture is what its concept means, where that is not 1. Detail, clarity and salience are what the default
# sentence claims already, and what of them a scene lacks differs: there the language loss decides. It says little of
# how near a source a picture is, since the direction from the one to the other fades out.
_SURENESS = {"clear": 0.6, "detailed": 0.1, "clean": 0.5, "contrasty": 0.5, "salient": 0.5, "sharp": 0.7}
_SURENESS |= {"natural": 2.0, "visible": 2.0, "hidden": 2.0}


def sureness(concepts: Iterable[str]) -> float:
    """How surely `picture` shows concepts, as a weight of about 1: as the least sure of them."""
    return min((_SURENESS.get(concept, 1.0) for concept in concepts), default=1.0)
