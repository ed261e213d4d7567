"""Weights for the published fusion network drawn from a seed, as torch-style state dicts of numpy arrays.

The reference outputs in tests/data/fusion_reference.npz were computed with the pair drawn from seed 2024.
"""

import json
from pathlib import Path

import numpy as np

SHAPES = json.loads((Path(__file__).parent / "data" / "fusion_state_shapes.json").read_text())
TRANSPOSED = ("model_up.0.", "model_up.3.", "model_up.6.")


def encoder_decoder(seed):
    """`(encoder, decoder)`: {torch name: float32 array}; the tensor at place i is drawn from default_rng([seed, i])."""
    encoder = _draw(SHAPES["encoder"], seed)
    decoder = _draw(SHAPES["decoder"], seed + 1000)
    # Outputs then lie inside (0, 1) and at both ends.
    decoder["model_up.10.bias"][:] = 0.5
    return encoder, decoder


def _draw(shapes, seed):
    return {
        name: _tensor(name, shape, np.random.default_rng([seed, place])).astype(np.float32)
        for place, (name, shape) in enumerate(shapes.items())
    }


def _tensor(name, shape, rng):
    match name.rsplit(".", 1)[1]:
        case "running_mean":
            return np.zeros(shape)
        case "running_var":
            return np.ones(shape)
        case "gamma":
            return rng.uniform(0.5, 1.5, shape)
        case "beta" | "bias":
            return rng.normal(0, 0.1, shape)
    # A stride-2 transposed kernel reaches each output with a quarter of its taps.
    fan_in = shape[0] * shape[2] * shape[3] / 4 if name.startswith(TRANSPOSED) else np.prod(shape[1:])
    return rng.normal(0, 1, shape) / np.sqrt(fan_in)
