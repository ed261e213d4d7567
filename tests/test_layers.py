"""Every lowering against the library's own convolution and gradients; norms and pads against numpy."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from langfuse_jax.models.convolution import conv, conv_transpose, library_conv, library_conv_transpose
from langfuse_jax.models.layers import (
    Conv,
    LayerNorm,
    _moments,
    adaptive_instance_norm,
    instance_norm,
    joint_conv,
    reflect_pad,
)
from langfuse_jax.models.winograd import winograd_conv, winograd_conv_transpose

# (height, width, in, out, kernel, stride, zero padding): every kind of the network, at sizes that leave remainders.
CONVOLUTIONS = [
    (17, 22, 1, 16, 7, 1, 0),
    (18, 21, 16, 32, 4, 2, 1),
    (19, 25, 32, 64, 4, 2, 1),
    (9, 8, 128, 128, 3, 1, 0),
    (8, 9, 256, 256, 3, 1, 0),
    (19, 17, 32, 1, 7, 1, 0),
    (1, 1, 64, 8, 1, 1, 0),
]
TRANSPOSED = [(4, 7, 256, 128), (9, 6, 128, 64), (11, 13, 64, 32)]


def draw(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def value_and_gradients(function, x, kernel):
    """The value and the gradients of both arguments under one fixed cotangent, jitted."""

    @jax.jit
    def run(x, kernel):
        y, pullback = jax.vjp(function, x, kernel)
        return y, *pullback(draw(*y.shape, seed=1))

    return run(x, kernel)


def assert_close(got, want, tolerance=1e-4):
    scale = np.abs(want).max()
    np.testing.assert_allclose(np.asarray(got) / scale, np.asarray(want) / scale, atol=tolerance)


@pytest.mark.parametrize(("h", "w", "c", "d", "size", "stride", "padding"), CONVOLUTIONS)
def test_conv_matches_library(h, w, c, d, size, stride, padding):
    x, kernel = draw(2, h, w, c), draw(size, size, c, d, seed=2)

    def library(x, kernel):
        return library_conv(x, kernel, stride, padding)

    def ours(x, kernel):
        return conv(x, kernel, stride, padding)

    want = value_and_gradients(library, x, kernel)
    assert_close(jax.jit(ours)(x, kernel), want[0])
    for got, theirs in zip(value_and_gradients(ours, x, kernel), want, strict=True):
        assert_close(got, theirs)


@pytest.mark.parametrize(
    ("c", "d", "size", "stride", "padding"),
    [(1, 5, 7, 1, 0), (6, 1, 7, 1, 0), (1, 4, 3, 1, 1), (1, 1, 3, 1, 2), (3, 5, 4, 2, 1), (3, 5, 4, 2, 0)],
)
def test_the_forms_for_tpus_match_library(c, d, size, stride, padding, monkeypatch):
    x, kernel = draw(2, 11, 14, c), draw(size, size, c, d, seed=2)
    want = value_and_gradients(partial(library_conv, stride=stride, padding=padding), x, kernel)
    monkeypatch.setattr(jax.lax, "platform_dependent", lambda *operands, tpu, **_: tpu(*operands))
    found = value_and_gradients(partial(conv, stride=stride, padding=padding), x, kernel)
    for got, theirs in zip(found, want, strict=True):
        assert_close(got, theirs, 1e-5)


def test_transposed_convolutions_for_tpus_match_library(monkeypatch):
    x, kernel = draw(2, 6, 7, 3), draw(5, 5, 3, 4, seed=2)
    want = value_and_gradients(library_conv_transpose, x, kernel)
    monkeypatch.setattr(jax.lax, "platform_dependent", lambda *operands, tpu, **_: tpu(*operands))
    for got, theirs in zip(value_and_gradients(conv_transpose, x, kernel), want, strict=True):
        assert_close(got, theirs, 1e-5)


@pytest.mark.parametrize(("h", "w", "c", "d"), TRANSPOSED)
def test_conv_transpose_matches_library(h, w, c, d):
    x, kernel = draw(2, h, w, c), draw(5, 5, c, d, seed=2)
    want = value_and_gradients(library_conv_transpose, x, kernel)
    assert want[0].shape == (2, 2 * h + 3, 2 * w + 3, d)
    assert_close(jax.jit(conv_transpose)(x, kernel), want[0])
    for got, theirs in zip(value_and_gradients(conv_transpose, x, kernel), want, strict=True):
        assert_close(got, theirs)


@pytest.mark.parametrize("h", [3, 6, 7, 9, 14])
@pytest.mark.parametrize("w", [4, 8, 13])
def test_winograd_at_every_remainder_of_its_tiles(h, w):
    x, small, large = draw(2, h, w, 3), draw(3, 3, 3, 5, seed=2), draw(5, 5, 3, 2, seed=3)
    assert_close(jax.jit(winograd_conv)(x, small), library_conv(x, small), 1e-4)
    assert_close(jax.jit(winograd_conv_transpose)(x, large), library_conv_transpose(x, large), 1e-4)


def value_and_both_gradients_lowered(function, size, d, platform):
    """As StableHLO, traced on this machine's platform."""
    x, kernel = draw(1, 9, 9, 8), draw(size, size, 8, d)

    def run(x, kernel):
        y, pullback = jax.vjp(function, x, kernel)
        return y, *pullback(y)

    return jax.jit(run).trace(x, kernel).lower(lowering_platforms=(platform,)).as_text()


KINDS = [(conv, 3, 8), (conv, 7, 1), (conv_transpose, 5, 4)]


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
@pytest.mark.parametrize(("function", "size", "d"), KINDS)
def test_accelerators_keep_the_library_convolutions(function, size, d, platform):
    """But those of one channel on TPUs, which are products."""
    x, kernel = draw(1, 9, 9, 8), draw(size, size, 8, d)
    value = jax.jit(function).trace(x, kernel).lower(lowering_platforms=(platform,)).as_text()
    kind, other = ("dot_general", "convolution") if platform == "tpu" and d == 1 else ("convolution", "dot_general")
    for text, count in ((value, 1), (value_and_both_gradients_lowered(function, size, d, platform), 3)):
        assert text.count(f"stablehlo.{kind}") == count
        assert not re.search(rf"stablehlo\.({other}|while|gather)\b", text)


@pytest.mark.parametrize(("function", "size", "d"), KINDS)
def test_a_cpu_program_holds_no_branch_of_accelerators(function, size, d):
    text = value_and_both_gradients_lowered(function, size, d, "cpu")
    assert len(re.findall(r"stablehlo\.(convolution|dot_general)\b", text)) == 3


def test_conv_transpose_by_hand():
    x = jnp.array([[[[1.0], [10.0]]]])
    kernel = jnp.arange(25.0).reshape(5, 5, 1, 1)
    out = jax.jit(conv_transpose)(x, kernel)[0, :, :, 0]
    want = np.zeros((5, 7))
    want[:, :5] += np.arange(25).reshape(5, 5)
    want[:, 2:] += 10 * np.arange(25).reshape(5, 5)
    np.testing.assert_allclose(out, want, rtol=1e-4, atol=1e-4)


def test_joint_conv_is_each_conv_side_by_side():
    x = draw(2, 12, 11, 3)
    convs = [Conv(features, 7, reflect=3) for features in (4, 5)]
    convs = [conv.bind(conv.init(jax.random.key(i), x)) for i, conv in enumerate(convs)]
    assert_close(joint_conv(convs, x), jnp.concatenate([conv(x) for conv in convs], -1), 1e-5)


@pytest.mark.torch
@pytest.mark.parametrize(("h", "w", "c", "d"), TRANSPOSED)
def test_conv_transpose_matches_torch(h, w, c, d):
    import torch

    x, kernel = draw(2, h, w, c), draw(5, 5, c, d, seed=2)
    inputs = [torch.tensor(np.asarray(a), requires_grad=True) for a in (x, kernel)]
    y = torch.nn.functional.conv_transpose2d(inputs[0].permute(0, 3, 1, 2), inputs[1].permute(2, 3, 0, 1), stride=2)
    y = y.permute(0, 2, 3, 1)
    y.backward(torch.tensor(np.asarray(draw(*y.shape, seed=1))))
    got = value_and_gradients(conv_transpose, x, kernel)
    for ours, theirs in zip(got, [y, inputs[0].grad, inputs[1].grad], strict=True):
        assert_close(ours, theirs.detach().numpy())


@pytest.mark.parametrize(("function", "size", "c", "d"), [(conv, 3, 8, 8), (conv, 7, 8, 1), (conv_transpose, 5, 8, 4)])
def test_gradients_inside_shard_map(function, size, c, d):
    """A replicated kernel with a sharded batch: the custom gradients have the types that shard_map asks for."""
    x, kernel = draw(2, 9, 8, c), draw(size, size, c, d, seed=2)
    mesh = jax.make_mesh((1,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    data, replicated = jax.sharding.PartitionSpec("data"), jax.sharding.PartitionSpec()
    gradient = jax.grad(lambda x, kernel: jnp.square(function(x, kernel)).sum(), argnums=(0, 1))
    sharded = jax.shard_map(gradient, mesh=mesh, in_specs=(data, replicated), out_specs=(data, replicated))
    for got, want in zip(jax.jit(sharded)(x, kernel), gradient(x, kernel), strict=True):
        assert_close(got, want)
    value = jax.shard_map(function, mesh=mesh, in_specs=(data, replicated), out_specs=data)
    assert_close(jax.jit(value)(x, kernel), function(x, kernel))


@pytest.mark.parametrize("mean", [0.0, 300.0])
def test_instance_norm(mean):
    """A mean far above the spread costs no more than the rounding of the input itself."""
    x = np.asarray(draw(2, 12, 9, 5) + mean)
    exact = x.astype(np.float64)
    want = (exact - exact.mean((1, 2), keepdims=True)) / np.sqrt(exact.var((1, 2), keepdims=True) + 1e-5)
    np.testing.assert_allclose(jax.jit(instance_norm)(x), want, atol=5e-4)
    shift, scale = draw(2, 5, seed=3), draw(2, 5, seed=4)
    got = jax.jit(adaptive_instance_norm)(x, shift, scale)
    np.testing.assert_allclose(got, want * scale[:, None, None] + shift[:, None, None], atol=1e-3)


@pytest.mark.parametrize("axes", [(1, 2), (1, 2, 3)])
def test_a_black_border_costs_the_variance_no_digits(axes):
    """Of channels with mean 0.7 and deviation 1e-3: a black corner, row or column, on a canvas too."""
    x = 0.7 + 1e-3 * np.asarray(draw(3, 240, 320, 3))
    x[0, 0, 0] = x[1, 0] = x[2, :, -1] = 0
    canvas = np.pad(x, ((0, 0), (0, 8), (0, 24), (0, 0)), constant_values=np.nan)
    moments = jax.jit(_moments, static_argnums=1)
    want = x.astype(np.float64).mean(axes, keepdims=True), x.astype(np.float64).var(axes, keepdims=True)
    for got in (moments(x, axes, None), moments(canvas, axes, jnp.array([[240, 320]] * 3))):
        np.testing.assert_allclose(got[0], want[0], rtol=1e-6)
        np.testing.assert_allclose(got[1], want[1], rtol=1e-5)


def test_moments_of_half_precision():
    x = (0.7 + 0.02 * draw(2, 40, 60, 3)).astype(jnp.bfloat16)
    exact = np.asarray(x, np.float64)
    mean, variance, _ = jax.jit(_moments, static_argnums=1)(x, (1, 2), None)
    assert mean.dtype == variance.dtype == jnp.float32
    np.testing.assert_allclose(mean, exact.mean((1, 2), keepdims=True), rtol=1e-6)
    np.testing.assert_allclose(variance, exact.var((1, 2), keepdims=True), rtol=1e-5)


def test_gradient_of_a_norm():
    """On a canvas, that of mean and variance written out for each sample alone."""
    x, weights = 3 + draw(2, 12, 9, 5), draw(2, 12, 9, 5, seed=1)

    def written_out(x):
        return (x - x.mean((0, 1))) / jnp.sqrt(x.var((0, 1)) + 1e-5)

    sizes = [(12, 9), (10, 7)]
    got = jax.jit(jax.grad(lambda x: (instance_norm(x, jnp.array(sizes)) * weights).sum()))(x)

    def score(x):
        return sum((written_out(x[i, :h, :w]) * weights[i, :h, :w]).sum() for i, (h, w) in enumerate(sizes))

    want = jax.jit(jax.grad(score))(x)
    np.testing.assert_allclose(got, want, atol=1e-5)


def test_layer_norm_uses_unbiased_std():
    x = draw(2, 3, 2, 4)
    gamma, beta = draw(4, seed=1), draw(4, seed=2)
    got = jax.jit(LayerNorm().apply)({"params": {"gamma": gamma, "beta": beta}}, x)
    exact = np.asarray(x, np.float64)
    std = exact.std((1, 2, 3), ddof=1, keepdims=True)
    want = (exact - exact.mean((1, 2, 3), keepdims=True)) / (std + 1e-5) * gamma + beta
    np.testing.assert_allclose(got, want, atol=1e-5)


@pytest.mark.parametrize("norm", [instance_norm, lambda x: LayerNorm().init_with_output(jax.random.key(0), x)[0]])
def test_norms_of_a_constant_have_finite_gradients(norm):
    gradient = jax.jit(jax.grad(lambda x: (norm(x) * draw(1, 4, 4, 3)).sum()))(jnp.full((1, 4, 4, 3), 0.3))
    assert np.isfinite(gradient).all()


def test_reflect_pad():
    x = draw(2, 6, 5, 3)
    got = jax.jit(reflect_pad, static_argnums=1)(x, 3)
    np.testing.assert_array_equal(got, np.pad(x, ((0, 0), (3, 3), (3, 3), (0, 0)), mode="reflect"))
