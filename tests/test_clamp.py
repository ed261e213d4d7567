"""The bounds of an output: the values of a clip, and gradients that lead back inside."""

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from langfuse_jax.models.clamp import clamp_to_unit
from langfuse_jax.models.fusion import Decoder


def test_values_are_those_of_a_clip():
    x = np.float32([-np.inf, -2, -1e-7, 0, 0.3, 1, 1.0001, np.inf, np.nan])
    np.testing.assert_array_equal(jax.jit(clamp_to_unit)(x), np.clip(x, 0, 1))
    half = jnp.asarray([-1, 0.5, 2], jnp.bfloat16)
    assert clamp_to_unit(half).dtype == jnp.bfloat16


def test_outside_only_gradients_that_lead_back_inside_pass():
    x = jnp.float32([-1, -1, 0.5, 0.5, 2, 2])
    asked = jnp.float32([3, -3, 3, -3, 3, -3])  # a positive gradient asks for less
    gradient = jax.jit(lambda x, g: jax.vjp(clamp_to_unit, x)[1](g)[0])(x, asked)
    assert gradient.tolist() == [0, -3, 3, -3, 3, 0]


def test_pixels_that_leave_the_range_are_asked_back():
    """Half of the pixels are to rise and half to fall, in balance: a plain clip hears the second half alone."""
    pixels, goal = jnp.float32([-0.2, -0.2, 0.3, 0.3]), jnp.float32([0.05, 0.05, 0.05, 0.05])

    def brightness_moves(clip):
        return -jax.grad(lambda shift: jnp.square(clip(pixels + shift) - goal).sum())(jnp.float32(0))

    np.testing.assert_allclose(brightness_moves(lambda x: jnp.clip(x, 0, 1)), -1.0, rtol=1e-5)
    np.testing.assert_allclose(brightness_moves(clamp_to_unit), -0.8, rtol=1e-5)


def _published():
    """The published network's decoder, of contents and styles."""
    return Decoder(), ("head", "bias"), (jnp.ones((1, 4, 4, 256)), jnp.ones((1, 16)), (32, 32))


def test_a_network_whose_image_is_black_is_asked_to_brighten():
    net, name, inputs = _published()
    shapes = jax.eval_shape(lambda key: net.init(key, *inputs), jax.random.key(0))
    params = flatten_dict(jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), shapes)["params"])

    def loss(bias):
        fused = net.apply({"params": unflatten_dict(params | {name: bias})}, *inputs)
        return jnp.square(fused - 0.5).mean()

    value, gradient = jax.jit(jax.value_and_grad(loss))(jnp.full_like(params[name], -2.0))
    np.testing.assert_allclose(value, 0.25, rtol=1e-6)
    assert (gradient < 0).any() and (gradient <= 0).all()
