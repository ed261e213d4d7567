"""On an accelerator, products of float32 keep all their digits wherever numbers of other programs are promised."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import pytest
from transformers import CLIPConfig

from langfuse_jax.evaluation.language import embed_images, language_scores
from langfuse_jax.losses import Words
from langfuse_jax.metrics import evaluate
from langfuse_jax.models.clip import init_params, towers
from langfuse_jax.models.convolution import conv, conv_transpose
from langfuse_jax.models.fusion import FusionNet
from langfuse_jax.models.steered import SteeredNet
from langfuse_jax.models.vgg import VGG19
from langfuse_jax.training.augmentation.windows import augment_pairs, cut_patches, random_windows

IMAGE = jax.ShapeDtypeStruct((2, 48, 64, 1), jnp.float32)
SQUARE = jax.ShapeDtypeStruct((2, 48, 48, 1), jnp.float32)
GRAY, SIZES = jax.ShapeDtypeStruct((2, 48, 64), jnp.float32), jax.ShapeDtypeStruct((2, 2), jnp.int32)
WORDS = Words(*3 * [jax.ShapeDtypeStruct((16,), jnp.float32)])


def products(function, *arguments, **named):
    """The products of floats in the program that a TPU would get, as lines of StableHLO."""
    text = jax.jit(function).trace(*arguments, **named).lower(lowering_platforms=("tpu",)).as_text()
    lines = [line for line in text.splitlines() if re.search(r"stablehlo\.(dot_general|convolution)\b", line)]
    assert lines
    return lines


def assert_precise(lines):
    assert not [line for line in lines if "xf32>" in line and line.count("HIGHEST") != 2]


def small_clip(dtype):
    """Two towers and their parameters' shapes."""
    part = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision = {**part, "image_size": 32, "patch_size": 16}
    config = CLIPConfig(projection_dim=16, vision_config=vision, text_config={**part, "vocab_size": 50})
    pair = towers(config, dtype=dtype)
    return *pair, jax.eval_shape(lambda key: init_params(*pair, key), jax.random.key(0))


@pytest.mark.parametrize("net", [FusionNet, SteeredNet])
def test_networks(net):
    params = jax.eval_shape(net().init, jax.random.key(0), IMAGE, IMAGE)
    assert_precise(products(net().apply, params, IMAGE, IMAGE))


@pytest.mark.parametrize(("function", "size", "channels"), [(conv, 3, 8), (conv, 7, 1), (conv_transpose, 5, 4)])
def test_gradients_of_convolutions(function, size, channels):
    x = jax.ShapeDtypeStruct((1, 9, 9, 8), jnp.float32)
    kernel = jax.ShapeDtypeStruct((size, size, 8, channels), jnp.float32)
    assert_precise(products(jax.grad(lambda *a: jnp.square(function(*a)).sum(), argnums=(0, 1)), x, kernel))


def test_places_of_patches():
    windows = jax.eval_shape(lambda key: random_windows(key, 3, 48), jax.random.key(0))
    assert_precise(products(partial(cut_patches, size=32), IMAGE, windows))
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), 2))
    assert_precise(products(augment_pairs, keys, SQUARE, SQUARE))


def test_vgg():
    net = VGG19()
    params = jax.eval_shape(net.init, jax.random.key(0), IMAGE)

    assert_precise(products(net.apply, params, IMAGE))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_clip(dtype):
    vision, text, params = small_clip(dtype)

    def loss(images, params):
        return vision.apply({"params": params}, images).sum()

    colour = jax.ShapeDtypeStruct((2, 48, 64, 3), jnp.float32)
    assert_precise(products(jax.grad(loss), colour, params["vision"]))
    ids = jax.ShapeDtypeStruct((2, 7), jnp.int32)
    assert_precise(products(lambda params, ids: text.apply({"params": params}, ids), params["text"], ids))


def test_language_scores():
    vision, _, params = small_clip(jnp.float32)
    assert_precise(products(lambda *a: embed_images(vision, *a), params["vision"], GRAY, SIZES))
    embeddings = [jax.ShapeDtypeStruct((2, 16), jnp.float32)] * 3
    assert_precise(products(language_scores, *embeddings, WORDS))


def test_metrics():
    def scores(*images_and_sizes):
        *images, sizes = images_and_sizes
        return evaluate(*images, sizes=sizes, metrics=("SD", "Qcv"))

    assert_precise(products(scores, GRAY, GRAY, GRAY, SIZES))
