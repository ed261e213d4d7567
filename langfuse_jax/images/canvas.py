"""Canvases: the few sizes that a folder of ragged images is padded to, since each is a program to be compiled."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float32, Int, Shaped

Size = tuple[int, int]  # height, width

CANVAS_MULTIPLE = 8  # canvases have sides that are multiples of it, as the network requires
MAX_BATCH = 16  # images at a time on an accelerator
_BATCH_PIXELS = 2**24  # and how many pixels they may have: eight images of 1080p
_DISTINCT = 128  # sizes that `plan` compares, each with each; with more of them it starts from larger multiples


def plan(sizes: Iterable[Size], limit: int, worth: float = 0) -> list[Size]:
    """At most `limit` canvases on which all `sizes` fit, the most used first.

    It starts with a canvas for each size, sides rounded up to multiples of 8, and merges the two whose merger adds the
    fewest pixels over all images, until `limit` are left and each further merger would add more than `worth` pixels:
    what a program costs in terms of pixels that could be fused in the time it takes.

    >>> plan([(30, 40), (32, 40), (60, 90)], limit=2)
    [(32, 40), (64, 96)]
    """
    sizes, multiple = list(sizes), CANVAS_MULTIPLE
    while len(counted := Counter(_rounded(size, multiple) for size in sizes)) > max(limit, _DISTINCT):
        multiple *= 2
    boxes, counts = np.array(list(counted)).reshape(-1, 2), np.array(list(counted.values()))
    while len(boxes) > 1:
        areas = boxes.prod(1) * counts
        merged = np.maximum(boxes[:, None], boxes[None])
        cost = merged.prod(2) * (counts[:, None] + counts) - areas[:, None] - areas
        cost[np.tril_indices(len(boxes))] = np.iinfo(cost.dtype).max
        i, j = np.unravel_index(cost.argmin(), cost.shape)
        if len(boxes) <= limit and cost[i, j] > worth:
            break
        boxes[i], counts[i] = merged[i, j], counts[i] + counts[j]
        boxes, counts = np.delete(boxes, j, 0), np.delete(counts, j)
    return [(int(height), int(width)) for height, width in boxes[np.argsort(-counts, kind="stable")]]


def smallest(canvases: Iterable[Size], size: Size) -> Size:
    """The canvas of the fewest pixels that holds `size`; where none does, a new one.

    A new one has its sides rounded up to 1, 1.25, 1.5 or 1.75 times a power of two (or a multiple of 8), so that sizes
    nobody planned for do not open a canvas each.

    >>> smallest([(32, 40), (64, 96)], (33, 20)), smallest([(32, 40)], (100, 100))
    ((64, 96), (112, 112))
    """
    fitting = [canvas for canvas in canvases if canvas[0] >= size[0] and canvas[1] >= size[1]]
    if fitting:
        return min(fitting, key=lambda canvas: (canvas[0] * canvas[1], canvas))
    height, width = (_round_up(side, max(CANVAS_MULTIPLE, 2 ** ((side - 1).bit_length() - 3))) for side in size)
    return height, width


def default_batch(canvas: Size, expected: int) -> int:
    """Images in a batch. On a CPU one, since more are no faster; on an accelerator up to 16, of 16 million pixels.

    `expected` images are known to come: no batch is far larger.

    Example::

        default_batch((480, 640), expected=21)  # 1 on a CPU, 16 on an accelerator
    """
    import jax  # which takes seconds, and plans of canvases need none

    if jax.default_backend() == "cpu":
        return 1
    fitting = max(1, min(MAX_BATCH, _BATCH_PIXELS // (canvas[0] * canvas[1])))
    return min(fitting, 1 << max(0, expected - 1).bit_length())


def shown_pixels(places: Int[Any, "..."], last: int | Int[Any, "..."], worn: int) -> Int[Any, "..."]:
    """Which pixel of a row each of `places` shows: its own up to `last`, reflected beyond, none of `worn` at both ends.

    For integer arrays of numpy or jax that broadcast.

    >>> import numpy as np
    >>> shown_pixels(np.arange(8), 5, 1).tolist()
    [1, 1, 2, 3, 4, 4, 4, 3]
    """
    return (last - abs(places - last)).clip(worn, last - worn)


def border_rule(crop: int) -> dict[str, int]:
    """How the borders of images go into a network trained on crops of `crop` pixels: the arguments of `extend`.

    A network trained on sides that are multiples of 8 alone draws a frame at the lower and right edge of others. And
    many a registered thermal image ends in a line of black. The network normalises the first pixel of all its 8-pixel
    blocks together, so that one black line there would draw a grid over the whole of a flat image: what is next to it
    is shown in its place.

    >>> border_rule(192)
    {'pad_multiple': 8, 'worn_edge': 2}
    """
    return {"pad_multiple": CANVAS_MULTIPLE if crop % CANVAS_MULTIPLE == 0 else 1, "worn_edge": 2}


def extend(
    image: Float32[np.ndarray, "h w"], *, pad_multiple: int = 1, worn_edge: int = 0
) -> Float32[np.ndarray, "h2 w2"]:
    """The image, reflected at the lower and right edge to multiples of `pad_multiple`; its `worn_edge` outermost pixels
    replaced by the next inner one.

    >>> extend(np.ones((30, 33), np.float32), pad_multiple=16).shape
    (32, 48)
    >>> extend(np.arange(9, dtype=np.float32).reshape(3, 3), worn_edge=1)[0].tolist()
    [4.0, 4.0, 4.0]
    """
    size = extended_size(image.shape, pad_multiple)
    if not worn_edge and size == image.shape:
        return image
    rows, columns = (shown_pixels(np.arange(n), side - 1, worn_edge) for n, side in zip(size, image.shape, strict=True))
    return image[rows][:, columns]


def extended_size(size: Size, pad_multiple: int) -> Size:
    """The size that `extend` gives an image of `size`.

    >>> extended_size((30, 33), 16)
    (32, 48)
    """
    height, width = size
    return height + -height % pad_multiple, width + -width % pad_multiple


def fit_network(size: Size) -> Size:
    """The smallest canvas for one size.

    >>> fit_network((33, 40))
    (40, 40)
    """
    return _rounded(size, CANVAS_MULTIPLE)


def place(images: Sequence[Shaped[np.ndarray, "_ _"]], canvas: Size) -> Shaped[np.ndarray, "b h w 1"]:
    """Each image, of one dtype, in the top-left corner of a canvas of zeros.

    >>> place([np.ones((2, 3), np.float32)], (4, 4)).sum(axis=(1, 3)).tolist()
    [[2.0, 2.0, 2.0, 0.0]]
    """
    batch = np.zeros((len(images), *canvas, 1), images[0].dtype)
    for empty, image in zip(batch, images, strict=True):
        empty[: image.shape[0], : image.shape[1], 0] = image
    return batch


def _rounded(size: Size, multiple: int) -> Size:
    return _round_up(size[0], multiple), _round_up(size[1], multiple)


def _round_up(side: int, multiple: int) -> int:
    return -(-side // multiple) * multiple
