"""Fusion parameters from which the network starts as a lossless code of both sources, instead of from noise.

Instance norms and rectifiers stand in the way of an identity, but not of a pair of channels with opposite signs:
relu(x) - relu(-x) = x, and a norm without parameters leaves what is normalised as it is. So each pixel of a source
travels as such a pair: three strided convolutions sort the pixels of 8 x 8 blocks into 64 pairs (128 channels, all
there are), and three transposed ones put them back. Channels that are left over start from noise and add nothing.

What the norms take away, how bright each source is and how much contrast it has, comes back by the styles: they become
means of max(x - t, 0) for eight thresholds t, from which random features and a ridge regression on drawn histograms
tell mean and standard deviation, by which the decoder's first residual block shifts and scales each source.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, PRNGKeyArray, PyTree

from langfuse_jax.models.fusion import FusionNet, fresh_params

_MEAN, _CONTRAST = 0.45, 0.08  # of the first fused images, before tanh
_THRESHOLDS = np.arange(8) / 8
_USUAL_MEAN, _USUAL_CONTRAST = 0.45, 0.2  # mean and standard deviation of a source to which nothing need be added
_MODULATED = 0.1  # what the decoder's second residual block adds at first, in units of what they add it to


def lossless_init(key: PRNGKeyArray) -> PyTree:
    """Parameters for `FusionNet().apply` whose first fused images are the sources' average, its contrast normalised.

    Sharp from the first step: a training run need not learn to draw, only what to take from which source.

    >>> image = jax.ShapeDtypeStruct((1, 64, 64, 1), jnp.float32)
    >>> jax.eval_shape(FusionNet().apply, lossless_init(jax.random.key(0)), image, image).shape
    (1, 64, 64, 1)
    """
    init_key, noise_key = jax.random.split(key)
    params = jax.tree.map(np.array, fresh_params(FusionNet(), init_key))["params"]
    rng = np.random.default_rng(np.asarray(jax.random.key_data(noise_key)))
    for role in ("content_visible", "content_infrared"):
        _encoder(params[role], rng)
    for role in ("style_visible", "style_infrared"):
        _style(params[role], rng)
    _decoder(params["decoder"], rng)
    return jax.tree.map(jnp.asarray, {"params": params})


def holds_lossless_code(params: PyTree) -> bool:
    """Whether the content encoders of fusion parameters are still the code that `lossless_init` writes.

    >>> holds_lossless_code(lossless_init(jax.random.key(0)))
    True
    """
    for role in ("content_visible", "content_infrared"):
        given = jax.tree.map(np.asarray, params["params"][role])
        written = [jax.tree.map(np.zeros_like, given) for _ in range(2)]
        for seed, encoder in enumerate(written):
            _encoder(encoder, np.random.default_rng(seed))
        # What does not depend on the seed is code, the rest is noise.
        kept = jax.tree.map(lambda leaf, one, other: np.all((leaf == one) | (one != other)), given, *written)
        if not all(jax.tree.leaves(kept)):
            return False
    return True


def spare_rates(params: PyTree) -> PyTree:
    """How fast each parameter may change in a training run that keeps the lossless code: factors of the learning rate.

    Arrays that broadcast against the leaves of `params`, the fusion network's. The code itself stays: the encoders, the
    decoder's first residual block and the pairs of channels that put the pixels back have 0. What is left over has 1:
    the second residual block and the other channels of the transposed convolutions; the output, which reads both, 0.5,
    and what the styles do 0.2. So the image stays as sharp as its sources while the rest learns, at usual rates, what
    is to be taken from which.

    >>> image = jax.ShapeDtypeStruct((1, 64, 64, 1), jnp.float32)
    >>> rates = spare_rates(jax.eval_shape(FusionNet().init, jax.random.key(0), image, image))["params"]
    >>> float(rates["content_visible"]["stem"]["kernel"]), rates["decoder"]["up_2"]["bias"].tolist()[:6]
    (0.0, [0.0, 0.0, 0.0, 0.0, 1.0, 1.0])
    """
    rates = jax.tree.map(lambda leaf: np.float32(0), params)
    decoder = rates["params"]["decoder"]
    for name, rate in (("block_1", 1.0), ("head", 0.5)):
        decoder[name] = jax.tree.map(lambda leaf, rate=rate: np.float32(rate), decoder[name])
    decoder["mlp"]["dense_2"] = jax.tree.map(lambda leaf: np.float32(0.2), decoder["mlp"]["dense_2"])
    for level in range(3):
        for name in (f"up_{level}", f"up_norm_{level}"):
            channels = {key: leaf.shape[-1] for key, leaf in params["params"]["decoder"][name].items()}
            decoder[name] = {key: np.float32(np.arange(n) >= _code_channels(level)) for key, n in channels.items()}
    return rates


def _encoder(params: dict[str, Any], rng: np.random.Generator) -> None:
    kernel = _noise(params["stem"]["kernel"], rng)
    kernel[..., :2] = 0
    kernel[3, 3, 0, :2] = 1, -1
    for level, name in enumerate(("down_0", "down_1", "down_2")):
        kernel = _noise(params[name]["kernel"], rng)
        side = 2**level  # of a block of pixels that one place of the input holds
        kernel[..., : 8 * side * side] = 0
        for row, column in np.ndindex(2 * side, 2 * side):
            # Of the 4 x 4 taps the inner 2 x 2 are the places that the output's place stands for.
            tap = 1 + row // side, 1 + column // side
            source = (row % side) * side + column % side
            _join(kernel[tap], source, row * 2 * side + column)
    for name in ("block_0", "block_1"):
        for conv in ("conv_0", "conv_1"):
            _pass_through(params[name][conv]["kernel"])


def _style(params: dict[str, Any], rng: np.random.Generator) -> None:
    """Style k of a source becomes the mean of max(x - k / 8, 0)."""
    kernel = _noise(params["stem"]["kernel"], rng)
    kernel[..., :8] = 0
    kernel[3, 3, 0, :8] = 1
    params["stem"]["bias"][:8] = -_THRESHOLDS
    for name in ("down_0", "down_1", "down_2"):
        kernel = _noise(params[name]["kernel"], rng)
        kernel[..., :8] = 0
        kernel[:, :, range(8), range(8)] = 1 / 16
    params["head"]["kernel"][:] = np.eye(*params["head"]["kernel"].shape[2:])


def _decoder(params: dict[str, Any], rng: np.random.Generator) -> None:
    for conv in ("conv_0", "conv_1"):
        _pass_through(params["block_0"][conv]["kernel"])
        _noise(params["block_1"][conv]["kernel"], rng)
    _modulation(params["mlp"], rng)
    for level, name in enumerate(("up_0", "up_1", "up_2")):
        kernel = _noise(params[name]["kernel"], rng)
        side = 4 >> level  # of a block of pixels that one place of the output holds
        kernel[..., : _code_channels(level)] = 0
        for image, (row, column) in ((image, place) for image in (0, 1) for place in np.ndindex(2 * side, 2 * side)):
            tap = row // side, column // side
            source = (image * 2 * side + row) * 2 * side + column
            _join(kernel[tap], source, (image * side + row % side) * side + column % side)
        params[f"up_norm_{level}"]["gamma"][:] = 1
    head = params["head"]
    head["kernel"][:] = 0
    head["kernel"][3, 3, :4, 0] = np.array([1, -1, 1, -1]) * _CONTRAST
    head["bias"][:] = _MEAN


def _code_channels(level: int) -> int:
    """How many channels of transposed convolution `level` put pixels back: a pair for each of both sources' blocks."""
    return 4 * (4 >> level) ** 2


def _modulation(mlp: dict[str, Any], rng: np.random.Generator) -> None:
    """From both styles, the scale of what the first residual block adds to each source; the rest starts constant."""
    first, second, last = (mlp[f"dense_{i}"] for i in range(3))
    first["kernel"][:] = 0
    second["kernel"][:], second["bias"][:] = np.eye(256), 0
    last["kernel"][:] = 0
    # Block, norm, (shift, scale), channel.
    bias, kernel = last["bias"].reshape(2, 2, 2, 256), last["kernel"].reshape(256, 2, 2, 2, 256)
    bias[:, :, 0], bias[:, 0, 1], bias[1, 1, 1] = 0, 1, _MODULATED
    styles, means, contrasts = _histograms(rng)
    signs = np.tile([1, -1], 64)
    for source in (0, 1):
        style, hidden = slice(8 * source, 8 * (source + 1)), slice(128 * source, 128 * (source + 1))
        first["kernel"][style, hidden] = rng.normal(0, 4, (8, 128))
        first["bias"][hidden] = rng.uniform(-1, 1, 128)
        features = np.maximum(styles @ first["kernel"][style, hidden] + first["bias"][hidden], 0)
        features = np.concatenate([features, np.ones((len(features), 1))], 1)
        # Each source comes as 5 x and gets 2 (a x + b): it leaves as it was, but for a factor common to both.
        # That factor, of the norms to come, is larger where means differ little: less of them keeps the brightness.
        wished = np.stack([0.7 * (means - _USUAL_MEAN), contrasts - _USUAL_CONTRAST], 1) * 2.5 / _USUAL_CONTRAST
        gram = features.T @ features + 1e-4 * len(features) * np.eye(features.shape[1])
        weights = np.linalg.solve(gram, features.T @ wished)
        kernel[hidden, 0, 1, 0, hidden] = weights[:-1, :1] * signs
        bias[0, 1, 0, hidden] = weights[-1, 0] * signs
        kernel[hidden, 0, 1, 1, hidden] = weights[:-1, 1:]
        bias[0, 1, 1, hidden] = weights[-1, 1]


def _histograms(
    rng: np.random.Generator, number: int = 4000, pixels: int = 512
) -> tuple[Float[np.ndarray, "n 8"], Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Styles (number, 8), means and standard deviations (number,) of drawn gray levels with one or two humps."""
    centres, widths = rng.uniform(0, 1, (number, 2, 1)), rng.uniform(0.01, 0.2, (number, 2, 1))
    fraction = rng.uniform(0, 1, (number, 1)) * rng.integers(0, 2, (number, 1))
    hump = (rng.uniform(size=(number, pixels)) < fraction)[:, None]
    levels = centres + widths * rng.normal(size=(number, 1, pixels))
    levels = np.where(hump[:, 0], levels[:, 1], levels[:, 0]).clip(0, 1)
    return np.maximum(levels[..., None] - _THRESHOLDS, 0).mean(1), levels.mean(1), levels.std(1)


def _pass_through(kernel: Float[np.ndarray, "3 3 c c"]) -> None:
    """Fills a kernel, in place: every pair of channels becomes itself."""
    kernel[:] = 0
    kernel[1, 1] = np.kron(np.eye(kernel.shape[2] // 2, dtype=int), [[1, -1], [-1, 1]])


def _join(matrix: Float[np.ndarray, "c d"], source: int, target: int) -> None:
    """Channels 2 target and 2 target + 1 take the pair `source`."""
    matrix[2 * source : 2 * source + 2, 2 * target : 2 * target + 2] = [[1, -1], [-1, 1]]


def _noise(kernel: Float[np.ndarray, "k k c d"], rng: np.random.Generator) -> Float[np.ndarray, "k k c d"]:
    """Fills a kernel, in place, with what keeps the variance through rectifiers (He et al., 2015)."""
    kernel[:] = rng.normal(0, np.sqrt(2 / np.prod(kernel.shape[:3])), kernel.shape)
    return kernel
