"""A random number generator that records what is done with each key, under jit and vmap too: none is to serve twice."""

from collections import Counter
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.random import define_prng_impl


def _mixed(key, numbers):
    """(n,) numbers hashed with a key (2,): (n, 2). A few multiplications, which compile at once."""
    a = ((key[0] + np.uint32(0x165667B1)) ^ (numbers * np.uint32(0x9E3779B1))) * np.uint32(0x85EBCA6B)
    a ^= a >> 15
    b = (key[1] + a) * np.uint32(0xC2B2AE35)
    b ^= b >> 13
    a = (a + b) * np.uint32(0x27D4EB2F)
    return jnp.stack([a ^ (a >> 16), b], axis=-1)


def _fold_in(key, number):
    return _mixed(key, jnp.uint32(number)[None])[0]


def _split(key, shape):
    """As JAX does it by default, key i of them is what folding i in gives."""
    return _mixed(key, jnp.arange(np.prod(shape), dtype=np.uint32)).reshape(*shape, 2)


def _bits(key, width, shape):
    numbers = _mixed(key, jnp.arange(np.prod(shape, dtype=int), dtype=np.uint32))[:, 0]
    return (numbers >> (32 - width)).astype(f"uint{width}").reshape(shape)


class RecordedKeys:
    """Makes keys by `key(seed)`, and tells by `reused()` which of them, or of those made from them, were used twice.

    A key is good for one thing: to draw once, to be split once, or to have numbers folded into it. What is both split
    and folded into may give the same key twice. What no result depends on is not computed, and so not recorded.
    """

    def __init__(self):
        self._uses = []
        self._impl = define_prng_impl(
            key_shape=(2,),
            seed=lambda seed: jnp.stack([jnp.uint32(0), jnp.uint32(seed)]),
            split=self._recorded("split", _split),
            random_bits=self._recorded("draw", _bits),
            fold_in=self._recorded("fold_in", _fold_in),
            name="recorded",
            tag="rec",
        )

    def _recorded(self, operation, function):
        def run(key, argument, *shape):
            jax.debug.callback(partial(self._record, operation), key, argument if operation == "fold_in" else 0)
            return function(key, argument, *shape)

        return run

    def _record(self, operation, key, number):
        self._uses.append((tuple(np.asarray(key).tolist()), operation, int(number)))

    def key(self, seed):
        """A key to begin with."""
        return jax.random.key(seed, impl=self._impl)

    def drawn(self):
        """How many keys numbers were drawn from."""
        jax.effects_barrier()
        return len({key for key, operation, _ in self._uses if operation == "draw"})

    def reused(self):
        """The keys that were used twice: {key: {(operation, number folded in): how often}}."""
        jax.effects_barrier()
        uses = {}
        for key, operation, number in self._uses:
            uses.setdefault(key, Counter())[operation, number] += 1
        return {key: dict(counts) for key, counts in uses.items() if not _fit(counts)}


def _fit(counts):
    """Whether a key, used so often for each (operation, number), was used for one thing."""
    return {operation for operation, _ in counts} == {"fold_in"} or sum(counts.values()) == 1
