"""The steered network as an ONNX model: `models.steered` once more, in ONNX's operators, for images of any size.

The program that JAX traces does not convert: its convolutions choose their form when they are lowered, for which ONNX
has no word, and its sizes are open. So the steps are written out here, channels first; tests compare the numbers. Both
sources go through side by side, as two channels.
"""

import json

import jax
import numpy as np
from jaxtyping import Float

from langfuse_jax._version import __version__
from langfuse_jax.errors import UserError
from langfuse_jax.inference.fuser import Fuser
from langfuse_jax.inference.onnx_graph import Graph, Value, load_onnx, op, ops
from langfuse_jax.models.statistics import PER_SOURCE, PLACES, QUANTILES
from langfuse_jax.models.steered import CENTRE, EPSILON, FILMED, GLOBAL, LEVELS, MOST, SCALE, TILE_MULTIPLE, SteeredNet

_Film = dict[str, tuple[Value, Value]]
_HALF = np.array([0.125, 0.375, 0.375, 0.125])
_BLUR = np.array([0.0625, 0.25, 0.375, 0.25, 0.0625])
_ROWS, _COLUMNS = 2, 3  # axes
_BLOCK = 4  # pixels: a quarter of the resolution


def export_onnx(fuser: Fuser) -> bytes:
    """An ONNX model of `(visible, infrared, goal) -> fused`, weights inside, for any batch and sides of 32 or more.

    Images are float32 (n, 1, h, w) in [0, 1], `goal` is the unit embedding (d,) of a sentence, as `langfuse-jax embed`
    writes it. The model's metadata name the version, the weights' fingerprint, the CLIP that embeds ("clip") and, as
    JSON, the embedding of the default sentence ("default_goal"). Raises UserError for another network than the steered
    one, and where the package onnx is not installed.

    Example::

        Path("model.onnx").write_bytes(export_onnx(Fuser.load()))
    """
    if not isinstance(fuser.net, SteeredNet):
        raise UserError("--format onnx: is for the default network; export LDFusion's as --format stablehlo")
    load_onnx()
    default = fuser.default_goal
    graph = Graph()
    visible, infrared = (graph.input(name, ("n", 1, "h", "w")) for name in ("visible", "infrared"))
    direction = graph.input("goal", default.shape) - default
    fused = _fused(jax.device_get(fuser.params)["params"], visible, infrared, op("Unsqueeze", direction, [0]))
    metadata = {
        "version": __version__,
        "fingerprint": fuser.fingerprint,
        "clip": json.dumps(fuser.metadata["clip"]),
        "default_goal": json.dumps(default.tolist()),
    }
    return graph.model({"fused": (fused, ("n", 1, "h", "w"))}, metadata)


def _fused(params: dict, visible: Value, infrared: Value, words: Value) -> Value:
    """`SteeredNet.__call__`, with images (n, 1, h, w) and a direction (1, d)."""
    pair = op("Concat", visible, infrared, axis=1)
    height, width = (op("Slice", op("Shape", pair), [axis], [axis + 1]) for axis in (_ROWS, _COLUMNS))
    statistics = _statistics(pair, height, width)
    film, whole = _decided_by_the_whole(params, op("Reshape", statistics, [-1, 2 * PER_SOURCE]), words)

    def conv(name: str, x: Value) -> Value:
        kernel = np.transpose(params[name]["kernel"], (3, 2, 0, 1))
        if name == "quarter_0":  # a pixel of a block has its two sources side by side here
            blocks = np.arange(2 * _BLOCK**2).reshape(2, -1).T.ravel()
            kernel = np.concatenate([kernel[:, blocks], kernel[:, len(blocks) :]], axis=1)
        return op("Conv", x, kernel, params[name]["bias"], pads=[kernel.shape[-1] // 2] * 4)

    def filmed(name: str, x: Value) -> Value:
        scale, shift = film[name]
        return op("Relu", conv(name, x) * scale + shift)

    def of_both(kind: str) -> Value:
        return _joined(whole[f"visible_{kind}"], whole[f"infrared_{kind}"])

    low, high = (op("Unsqueeze", op("Slice", statistics, [i], [i + 1], [2]), [3]) for i in (0, 6))
    low, high = of_both("stretch") * low, 1.0 - of_both("stretch") * (1.0 - high)
    pair = (_whole_cells(pair, height, width) - low) / op("Max", high - low, 0.4)
    pair = _curved(op("Clip", pair, 0.0, 1.0), of_both("curve"))
    bands, base = _bands(pair)
    active = [_activity(band) + EPSILON for band in bands]
    logs = {level: op("Log", active[level]) for level in (1, 2)}

    blocks = op("SpaceToDepth", pair, blocksize=_BLOCK)
    x = filmed("quarter_0", _joined(blocks, _mean(logs[1], 2), logs[2]))
    deep = filmed("context_0", _mean(x, 4))
    deep = filmed("context_2", filmed("context_1", deep))
    x = filmed("quarter_1", x + _double(_double(conv("context_3", deep))))
    maps, base_maps = conv("maps", filmed("quarter_2", x)), conv("base", deep)
    boost = op("Exp", 1.2 * op("Tanh", 0.3 * _part(maps, LEVELS, LEVELS)))
    towards_and_boost = _at_levels(_part(maps, 0, LEVELS), boost)
    lift = op("Tanh", 0.5 * _part(maps, 2 * LEVELS, 1))
    mix = op("Sigmoid", _part(base_maps, 0, 1) - 1.0)

    fused = _mixed(base, mix) + 0.3 * op("Tanh", 0.3 * _part(base_maps, 1, 1))
    for level in reversed(range(LEVELS)):
        towards, boost = _split(towards_and_boost[level])
        visible_activity, infrared_activity = _split(active[level])
        ratio = op("Log", infrared_activity / visible_activity)
        share = op("Sigmoid", whole[f"sharing_{level}"] * ratio + towards)
        band = _mixed(bands[level], share)
        if level < 2:
            chosen = _mixed(active[level], share) - EPSILON
            band = band * (chosen / (chosen + whole[f"noise_{level}"]))
        fused = _double(fused) + boost * band
        if level == 2:
            light, heat = _split(_half(_half(pair)))
            raised = op("Relu", lift) * op("Relu", heat - fused)
            fused = fused + raised + op("Relu", -lift) * (light - fused)
    fused = op("Clip", 0.5 + whole["contrast"] * (fused - 0.5) + whole["offset"], 0.0, 1.0)
    fused = _curved(fused, whole["curve"])
    return op("Slice", fused, [0, 0], op("Concat", height, width, axis=0), [_ROWS, _COLUMNS])


def _at_levels(towards: Value, boost: Value) -> list[Value]:
    """For each band, what moves its share and what multiplies it (2 channels), from maps at a quarter of its size."""
    finest, fine, same, coarse = (_joined(_part(towards, i, 1), _part(boost, i, 1)) for i in range(LEVELS))
    return [_double(_double(finest)), _double(fine), same, _half(coarse)]


def _statistics(pair: Value, height: Value, width: Value) -> Value:
    """`models.statistics` of both sources (n, 2, h, w): (n, 2, 9)."""
    steps, around = 2 * np.arange(PLACES) + 1, np.array([-1, 0, 1])
    x = pair
    for axis, side in ((_ROWS, height), (_COLUMNS, width)):
        inner = op("Unsqueeze", 1 + op("Div", (side - 2) * steps, 2 * PLACES), [1])
        x = op("Gather", x, op("Reshape", inner + around, [-1]), axis=axis)
    x = op("Reshape", x, [-1, 2, PLACES, 3, PLACES, 3])

    def read(down: int, right: int) -> Value:
        return op("Gather", op("Gather", x, np.array(down + 1), axis=3), np.array(right + 1), axis=4)

    def ordered(x: Value, count: int) -> Value:
        return ops("TopK", 2, op("Reshape", x, [-1, 2, PLACES**2]), [count], axis=2, largest=0)[0]

    here, above, below, left, right = (read(*offset) for offset in ((0, 0), (-1, 0), (1, 0), (0, -1), (0, 1)))
    places = [round(q * (PLACES**2 - 1)) for q in QUANTILES]
    quantiles = op("Gather", ordered(here, PLACES**2), places, axis=2)
    steep = op("Abs", below - here) + op("Abs", right - here)
    second = (
        (read(-1, -1) - 2.0 * above + read(-1, 1))
        - 2.0 * (left - 2.0 * here + right)
        + (read(1, -1) - 2.0 * below + read(1, 1))
    )
    # The median of an even number is the mean of the two in the middle.
    smaller = ordered(op("Abs", second), PLACES**2 // 2 + 1)
    median = op("ReduceMean", op("Slice", smaller, [-2], [PLACES**2], [2]), [2])
    gradient = op("Unsqueeze", op("ReduceMean", steep, [2, 3], keepdims=0), [2]) / 2.0
    return op("Concat", quantiles, gradient, median / (6 * 0.6745), axis=2)


def _decided_by_the_whole(params: dict, statistics: Value, words: Value) -> tuple[_Film, dict[str, Value]]:
    """FiLM's factors and shifts by layer, and the numbers of the whole image, in their ranges; all (n, c, 1, 1)."""

    def dense(name: str, x: Value) -> Value:
        x = x @ params[name]["kernel"]
        return x + params[name]["bias"] if "bias" in params[name] else x

    centred = (statistics - np.tile(CENTRE, 2)) * np.tile(SCALE, 2)
    seen = op("Relu", dense("statistics_0", centred))
    said = op("Relu", dense("words_0", words)) * (1.0 + dense("words_gate", seen))
    numbers = _spread(dense("statistics_1", seen) + dense("words_1", said))
    film, start = {}, 0
    for name, channels in FILMED.items():
        film[name] = 1.0 + _part(numbers, start, channels), _part(numbers, start + channels, channels)
        start += 2 * channels
    return film, {name: _in_range(name, _part(numbers, start + i, 1)) for i, name in enumerate(GLOBAL)}


def _in_range(name: str, x: Value) -> Value:
    """What a raw number means, as in `models.steered`."""
    if name.endswith("stretch"):
        return op("Sigmoid", x + 1.0)
    if name.startswith("sharing"):
        return op("Softplus", x + 2.0)
    x = op("Clip", x, -MOST, MOST)
    if name.startswith("noise"):
        return 0.02 * op("Softplus", x - 3.0)
    return op("Exp", x) if name == "contrast" else x


def _joined(*maps: Value) -> Value:
    return op("Concat", *maps, axis=1)


def _split(x: Value) -> list[Value]:
    """The two channels of a map."""
    return ops("Split", 2, x, axis=1, num_outputs=2)


def _mixed(pair: Value, share: Value) -> Value:
    """The visible channel, and so much of the infrared one."""
    visible, infrared = _split(pair)
    return visible + share * (infrared - visible)


def _curved(x: Value, strength: Value) -> Value:
    return x / (x + (1.0 - x) * op("Exp", -strength))


def _part(x: Value, start: int, count: int) -> Value:
    """Some channels."""
    return op("Slice", x, [start], [start + count], [1])


def _spread(x: Value) -> Value:
    return op("Unsqueeze", x, [2, 3])


def _whole_cells(x: Value, height: Value, width: Value) -> Value:
    """`x` with its last row and column repeated up to sides that are whole cells."""
    missing = [op("Mod", -side, TILE_MULTIPLE) for side in (height, width)]
    return op("Pad", x, op("Concat", [0] * 6, *missing, axis=0), mode="edge")


def _bands(x: Value) -> tuple[list[Value], Value]:
    """The Laplacian bands, finest first, and the base."""
    bands = []
    for _ in range(LEVELS):
        small = _half(x)
        bands.append(x - _double(small))
        x = small
    return bands, x


def _edges(x: Value, width: int) -> Value:
    return op("Pad", x, [0, 0, width, width, 0, 0, width, width], mode="edge")


def _filtered(x: Value, taps: Float[np.ndarray, " k"], stride: int = 1) -> Value:
    """Two channels, filtered. Of one channel, onnxruntime would make a block of sixteen, which takes twice the time."""
    for axis in (0, 1):
        kernel = np.tile(np.expand_dims(taps, 1 - axis), (2, 1, 1, 1))
        x = op("Conv", x, kernel, strides=[stride if axis == a else 1 for a in (0, 1)], group=2)
    return x


def _half(x: Value) -> Value:
    return _filtered(_edges(x, 1), _HALF, 2)


def _double(x: Value) -> Value:
    return op("Resize", x, None, [1.0, 1.0, 2.0, 2.0], mode="linear", coordinate_transformation_mode="half_pixel")


def _activity(band: Value) -> Value:
    return _filtered(_edges(op("Abs", band), 2), _BLUR)


def _mean(x: Value, side: int) -> Value:
    return op("AveragePool", x, kernel_shape=[side, side], strides=[side, side])
