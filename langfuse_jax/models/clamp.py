"""The bounds of a network's output, with gradients that lead back inside."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


@jax.custom_vjp
def clamp_to_unit(x: Float[Array, "*any"]) -> Float[Array, "*any"]:
    """`jnp.clip(x, 0, 1)`, whose gradient outside is that of x wherever descending it leads back inside.

    The gradient of a plain clip is zero outside. A loss that asks half of the pixels to rise and half to fall then has
    no hold on those below 0: what it says of the others alone pulls the whole image down, until it is black and there
    is no gradient at all. Here a pixel that is outside is still asked back, and never pushed further out.

    >>> x, asked_up, asked_down = jnp.array([-0.5, 0.5, 1.5]), -jnp.ones(3), jnp.ones(3)
    >>> values, pullback = jax.vjp(clamp_to_unit, x)
    >>> values.tolist(), pullback(asked_up)[0].tolist(), pullback(asked_down)[0].tolist()
    ([0.0, 0.5, 1.0], [-1.0, -1.0, 0.0], [0.0, 1.0, 1.0])
    """
    return jnp.clip(x, 0, 1)


def _forward(x: Float[Array, "*any"]) -> tuple[Float[Array, "*any"], Float[Array, "*any"]]:
    return jnp.clip(x, 0, 1), x


def _backward(x: Float[Array, "*any"], g: Float[Array, "*any"]) -> tuple[Float[Array, "*any"]]:
    further_out = ((x < 0) & (g > 0)) | ((x > 1) & (g < 0))
    return (jnp.where(further_out, 0, g),)


clamp_to_unit.defvjp(_forward, _backward)
