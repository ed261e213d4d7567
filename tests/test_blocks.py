"""The network's layers on blocks of 2x2 pixels against the same layers on plain maps."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import procedural_weights
from test_precision import assert_precise, products

from langfuse_jax.inference.fuser import Fuser, _fuse
from langfuse_jax.models import blocks, layers
from langfuse_jax.models.convolution import library_conv, library_conv_transpose
from langfuse_jax.models.fusion import FusionNet
from langfuse_jax.weights.ldfusion import fusion_from_torch


@pytest.fixture(scope="module")
def params():
    return jax.tree.map(jnp.asarray, fusion_from_torch(*procedural_weights.encoder_decoder(2024)))


def draw(*shape):
    return jnp.asarray(np.random.default_rng(len(shape)).normal(size=shape), jnp.float32)


def in_blocks(x):
    """Rows and columns from -1 on, those outside zero; an odd last one alone in its block."""
    b, h, w, c = x.shape
    x = jnp.pad(x, ((0, 0), (1, (h + 1) % 2), (1, (w + 1) % 2), (0, 0)))
    return (
        x.reshape(b, x.shape[1] // 2, 2, x.shape[2] // 2, 2, c)
        .transpose(0, 1, 3, 2, 4, 5)
        .reshape(b, x.shape[1] // 2, x.shape[2] // 2, 4 * c)
    )


def assert_same(function, other, *arguments):
    """Of both functions, values and the gradients of a sum that weighs them unevenly."""

    def both(function):
        def weighed(*arguments):
            made = function(*arguments)
            return (made * jnp.cos(jnp.arange(made.size, dtype=made.dtype)).reshape(made.shape)).sum(), made

        (_, made), gradients = jax.jit(jax.value_and_grad(weighed, range(len(arguments)), has_aux=True))(*arguments)
        return made, *gradients

    for got, expected in zip(both(function), both(other), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("h", "w"), [(8, 10), (9, 10), (7, 11)])
def test_the_stem(h, w):
    image, kernel = draw(2, h + 6, w + 6, 1), draw(7, 7, 1, 3)
    found = blocks.stem(image, kernel)
    expected = in_blocks(library_conv(image, kernel))
    inside = np.broadcast_to(blocks.within(found, None, (h, w)), found.shape)
    assert found.shape == expected.shape and inside.sum() == 2 * h * w * 3
    np.testing.assert_allclose(np.where(inside, found, 0), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("h", "w"), [(8, 10), (9, 7)])
def test_strided_convolutions_of_several_inputs(h, w):
    """A kernel for both, side by side, of blocks, is each alone on its channels, zero-padded by 1."""
    one, other, kernels = draw(2, h, w, 3), draw(2, h, w, 2), [draw(4, 4, 3, 5), draw(4, 4, 2, 4)]

    def alone(*kernels):
        return jnp.concatenate([library_conv(x, k, 2, 1) for x, k in zip((one, other), kernels, strict=True)], -1)

    def together(*kernels):
        return blocks.down(in_blocks(jnp.concatenate([one, other], -1)), blocks.side_by_side(*kernels))

    assert_same(together, alone, *kernels)


def test_the_transposed_convolution():
    x, kernel = draw(2, 4, 5, 6), draw(5, 5, 6, 3)
    found, expected = blocks.up(x, kernel), in_blocks(library_conv_transpose(x, kernel))
    inside = blocks.within(found, None, (11, 13))
    np.testing.assert_allclose(jnp.where(inside, found, 0), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("h", "w"), [(8, 10), (9, 7)])
def test_the_head(h, w):
    """As on a plain map: reflected above and on the left, with what is there below and on the right."""
    kernel = draw(7, 7, 3, 1)

    def plain(x, kernel):
        x = jnp.pad(x[:, : h + 3, : w + 3], ((0, 0), (3, 0), (3, 0), (0, 0)), mode="reflect")
        return library_conv(x, kernel)

    def of_blocks(x, kernel):
        b, rows, columns, c = x.shape
        x = jnp.pad(x, ((0, 0), (1, 0), (1, 0), (0, 0))).reshape(b, rows // 2 + 1, 2, columns // 2 + 1, 2, c)
        x = x.transpose(0, 1, 3, 2, 4, 5).reshape(b, rows // 2 + 1, columns // 2 + 1, 4 * c)
        return blocks.head(x, kernel, (h, w))

    assert_same(of_blocks, plain, draw(2, 15, 17, 3), kernel)


@pytest.mark.parametrize("sizes", [None, [[33, 40], [47, 36]]])
def test_norms(sizes):
    """Far from zero too, where squares would leave no digits."""
    shape = (47, 40)
    x = 100 + draw(2, *shape, 4)
    sizes = None if sizes is None else jnp.asarray(sizes)
    x = layers.zero_outside(x, sizes)
    of_blocks = in_blocks(x)
    inside = blocks.within(of_blocks, sizes, shape)

    normed = layers.instance_norm(x, sizes)
    expected = in_blocks(jnp.concatenate([normed[..., :2], x[..., 2:]], -1))
    np.testing.assert_allclose(blocks.instance_norm_of_half(of_blocks, inside, sizes), expected, rtol=1e-4, atol=1e-4)

    weights = {"gamma": draw(4), "beta": draw(4) + 1}
    expected = in_blocks(layers.LayerNorm().apply({"params": weights}, x, sizes))
    np.testing.assert_allclose(blocks.layer_norm(of_blocks, weights, inside, sizes), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("h", "w", "sizes"),
    [
        (49, 64, None),  # an odd side, and an even one
        pytest.param(48, 63, None, marks=pytest.mark.slow),
        pytest.param(48, 72, [[48, 33], [39, 72]], marks=pytest.mark.slow),
    ],
)
def test_the_network(params, h, w, sizes):
    """Values, and the gradient for all parameters, in a loop too.

    In float64: in float32 rounding decides whether units near 0 are on.
    """
    images = np.random.default_rng(0).random((2, 2, h, w, 1))

    def results(net, params, visible, infrared, sizes):
        def loss(params):
            fused = net.apply(params, visible, infrared, sizes)
            return jnp.square(fused - 0.3).sum(), fused

        gradient, fused = jax.jit(jax.grad(loss, has_aux=True))(params)
        return fused, jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(gradient)])

    with jax.enable_x64(True):
        double = [jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), tree) for tree in (params, *images)]
        sizes = None if sizes is None else jnp.asarray(sizes, jnp.int32)
        fused, gradient = results(FusionNet(jnp.float64), *double, sizes)
        found, found_gradient = results(FusionNet(jnp.float64, looped=True, blocked=True), *double, sizes)
        assert found.dtype == jnp.float64 and fused.std() > 0.05
        np.testing.assert_allclose(found, fused, atol=1e-10)
        assert jnp.linalg.norm(found_gradient - gradient) <= 1e-9 * jnp.linalg.norm(gradient)


def test_fresh_parameters_are_the_same():
    image = jnp.zeros((1, 32, 32, 1))
    shapes = [
        jax.eval_shape(net.init, jax.random.key(0), image, image) for net in (FusionNet(), FusionNet(blocked=True))
    ]
    assert shapes[0] == shapes[1]


def test_products_have_all_their_digits(params):
    image = jax.ShapeDtypeStruct((1, 48, 48, 1), jnp.float32)
    net = partial(FusionNet(blocked=True).apply, params)
    assert_precise(products(jax.grad(lambda *images: net(*images).sum()), image, image))


def test_fusing_on_a_tpu(params, monkeypatch):
    """`Fuser` takes the form with blocks there, also on canvases, and gives the same images."""
    visible, infrared = np.random.default_rng(1).random((2, 41, 57))
    expected = Fuser(params)(visible, infrared)
    taken = []
    stem = blocks.stem
    monkeypatch.setattr(blocks, "stem", lambda *arguments: taken.append(1) or stem(*arguments))
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    fused = jax.jit(_fuse.__wrapped__, static_argnums=0)(
        Fuser(params).net,
        params,
        None,
        *(jnp.asarray(x, jnp.float32)[None, ..., None] for x in (visible, infrared)),
        None,
    )
    assert taken
    np.testing.assert_allclose(fused[0, ..., 0], expected, atol=2e-5)
