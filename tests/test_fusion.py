"""The fusion network against the published one's numbers, its sizes, its gradient and its weight conversion."""

from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import procedural_weights
from small_network import SmallNet

from langfuse_jax.errors import UserError
from langfuse_jax.examples.night_scene import night_scene
from langfuse_jax.images.files import rgb_to_ycbcr
from langfuse_jax.inference.fuser import Fuser
from langfuse_jax.models import convolution, layers
from langfuse_jax.models.fusion import FusionNet, fresh_params
from langfuse_jax.weights.ldfusion import fusion_from_torch

REFERENCE = np.load(Path(__file__).parent / "data" / "fusion_reference.npz")


@pytest.fixture(scope="module")
def params():
    return fusion_from_torch(*procedural_weights.encoder_decoder(2024))


def images(b, h, w, seed=0):
    return jnp.asarray(np.random.default_rng(seed).random((2, b, h, w, 1)), jnp.float32)


def fused_and_styles(net, params, visible, infrared):
    return net.apply(params, visible, infrared), net.apply(params, visible, infrared, method="styles")


@pytest.mark.parametrize("case", [1, pytest.param(0, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow)])
def test_equals_the_published_network(params, case):
    """Of sides that are multiples of 8, or odd; alone, or two at a time."""
    pair = [jnp.asarray(REFERENCE[f"case{case}_{source}"])[..., None] for source in ("visible", "infrared")]
    got, styles = jax.jit(fused_and_styles, static_argnums=0)(FusionNet(), params, *pair)
    np.testing.assert_allclose(got[..., 0], REFERENCE[f"case{case}_fused"], atol=2e-4)
    for name, style in zip(("visible", "infrared"), styles, strict=True):
        np.testing.assert_allclose(style, REFERENCE[f"case{case}_style_{name}"], atol=1e-5)


def test_any_size_from_32(params):
    """The output has the size of the input; at the least size it lies in [0, 1], and is used over that whole range."""
    for h, w in ((33, 47), (71, 50)):
        assert jax.eval_shape(FusionNet().apply, params, *images(1, h, w)).shape == (1, h, w, 1)
    fused = jax.jit(FusionNet().apply)(params, *images(1, 32, 32))
    assert fused.shape == (1, 32, 32, 1)
    assert fused.min() >= 0 and fused.max() <= 1 and fused.std() > 0.05


def test_too_small():
    with pytest.raises(ValueError, match="31x40"):
        jax.eval_shape(FusionNet().init, jax.random.key(0), *images(1, 31, 40))


def test_initial_parameters():
    params = fresh_params(FusionNet(), jax.random.key(0))["params"]
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 5_776_977
    assert set(params) == {"content_visible", "content_infrared", "style_visible", "style_infrared", "decoder"}
    kernel = params["decoder"]["up_0"]["kernel"]
    assert abs(kernel.std() - 0.02) < 2e-4 and abs(kernel.mean()) < 2e-4
    assert not params["content_infrared"]["down_1"]["bias"].any()
    gamma = params["decoder"]["up_norm_0"]["gamma"]
    assert gamma.min() >= 0 and gamma.max() <= 1 and abs(gamma.mean() - 0.5) < 0.1


def gradient(net, params, visible, infrared):
    def loss(params, visible):
        return jnp.mean(jnp.square(net.apply(params, visible, infrared) - infrared))

    return jax.jit(jax.grad(loss, argnums=(0, 1)))(params, visible)


@pytest.mark.parametrize("net", [SmallNet(), pytest.param(FusionNet(), marks=pytest.mark.slow)], ids=["small", "whole"])
def test_gradient_equals_the_library_lowering(net, monkeypatch):
    """One gradient of a whole network, against the same network on the library's convolutions.

    Without kinks, at which two roundings of one number have different slopes: a smooth function stands for ReLU, and
    the fused image lies inside (0, 1).
    """
    monkeypatch.setattr(nn, "relu", nn.silu)
    visible, infrared = images(2, 37, 42)
    params = fresh_params(net, jax.random.key(0))
    if isinstance(net, FusionNet):
        head = params["params"]["decoder"]["head"]
        head["kernel"], head["bias"] = 0.1 * head["kernel"], head["bias"] + 0.5
        fused = jax.jit(net.apply)(params, visible, infrared)
        assert 0.1 < fused.min() and fused.max() < 0.9
    ours = gradient(net, params, visible, infrared)

    monkeypatch.setattr(layers, "conv", convolution.library_conv)
    monkeypatch.setattr(layers, "conv_transpose", convolution.library_conv_transpose)
    theirs = gradient(net, params, visible, infrared)
    norm = np.sqrt(sum(np.square(leaf).sum() for leaf in jax.tree.leaves(theirs)))
    assert norm > 1e-3
    for (path, want), got in zip(jax.tree.leaves_with_path(theirs), jax.tree.leaves(ours), strict=True):
        # A bias before an instance norm has no gradient but rounding, hence the share of the whole.
        error = np.linalg.norm(np.asarray(got - want))
        assert error <= 1e-3 * np.linalg.norm(np.asarray(want)) + 1e-5 * norm, path


def test_bfloat16_on_the_example_scene():
    """With the default weights, at least 45 dB from what float32 gives; parameters and result stay float32."""
    visible, infrared = night_scene(48, 64)
    pair = rgb_to_ycbcr(np.float32(visible) / 255)[0], np.float32(infrared) / 255
    fuser = Fuser(Fuser.load(model="ldfusion").params)
    full = fuser(*pair)
    fuser.net = FusionNet(dtype=jnp.bfloat16)
    half = fuser(*pair)
    assert half.dtype == np.float32 and full.std() > 0.02
    assert -10 * np.log10(np.square(full - half).mean()) >= 45


@pytest.mark.parametrize("start", ["trained", "fresh"])
def test_bfloat16_gradients_point_where_those_of_float32_do(start):
    """Cosines of 0.9993 and 0.996 on this pair, which a gradient without its rounding's noise would have at 1."""
    draw = np.random.default_rng(0).random((2, 2, 12, 12, 1), np.float32)
    visible, infrared = jax.image.resize(draw, (2, 2, 96, 96, 1), "cubic").clip(0, 1)
    params = Fuser.load(model="ldfusion").params if start == "trained" else fresh_params(FusionNet(), jax.random.key(0))

    def gradient(dtype):
        loss = lambda params: jnp.square(FusionNet(dtype).apply(params, visible, infrared) - 0.4).mean()  # noqa: E731
        leaves = jax.tree.leaves(jax.jit(jax.grad(loss))(params))
        assert all(leaf.dtype == jnp.float32 for leaf in leaves)
        return np.concatenate([np.ravel(leaf) for leaf in leaves])

    full, half = gradient(jnp.float32), gradient(jnp.bfloat16)
    lengths = np.linalg.norm(full), np.linalg.norm(half)
    assert full @ half / np.prod(lengths) > 0.99 and 0.97 < lengths[1] / lengths[0] < 1.03 and np.any(full != half)


def test_conversion_names_what_does_not_fit():
    encoder, decoder = procedural_weights.encoder_decoder(1)
    encoder["content_encoder1.model.99.weight"] = np.zeros((1,))
    decoder["mlp.model.0.weight"] = decoder["mlp.model.0.weight"].T
    del decoder["model_up.4.beta"]
    with pytest.raises(UserError) as error:
        fusion_from_torch(encoder, decoder)
    message = str(error.value)
    assert "unknown tensors: encoder.content_encoder1.model.99.weight;" in message
    assert "missing tensors: decoder.model_up.4.beta (for decoder/up_norm_1/beta);" in message
    assert "wrong shapes: decoder.mlp.model.0.weight is (16, 256), not (256, 16)" in message
    assert "\n" not in message
