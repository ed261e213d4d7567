"""The metrics of a result as an HTML table that fits on a phone; each name says what it means when pointed at."""

import os
from html import escape
from pathlib import Path

import numpy as np

from langfuse_jax.evaluation.scoring import read_gray_scene
from langfuse_jax.images.files import to_uint8
from langfuse_jax.images.pairs import FusedPair
from langfuse_jax.metrics import METRICS, USUAL, evaluate
from langfuse_jax.page.mistakes import Mistake, beside
from langfuse_jax.page.studio import Result

MEANING = {
    "EN": "How evenly all gray levels are used. Noise raises it too.",
    "SD": "How far the gray levels spread about their mean: contrast.",
    "SF": "How much neighbouring pixels differ, along rows and columns: sharpness. Noise raises it too.",
    "AG": "The mean steepness of the picture: sharpness. Noise raises it too.",
    "MI": "How much the fused gray levels tell about those of both sources.",
    "SCD": "Whether what the picture adds to one source is what the other one has.",
    "VIF": "How much of what an eye would see in the sources is still there.",
    "Qabf": "How well the edges of the sources are kept, in strength and direction.",
    "SSIM": "How alike the local patterns of the picture and of both sources are, added up over the two.",
}


def scores(result: Result) -> dict[str, tuple[float, float]]:
    """The usual metrics of the fused file and of the plain average, as `langfuse-jax evaluate` has them.

    Raises `Mistake` beside the metrics for images that are too small for them, and for a result that is kept no longer.
    """
    if not os.path.exists(result.fused):
        raise Mistake("metrics", "This result has expired; fuse the pair again.")
    folders = [os.path.dirname(path) for path in (*result.pair[1:], result.fused)]
    with beside("metrics", folders):
        scene = FusedPair(*result.pair, (Path(result.fused),))
        visible, infrared, image = read_gray_scene(scene, result.reading)
        average = to_uint8((visible / 510 + infrared / 510).astype(np.float32))
        found = evaluate(*(np.stack(images) for images in ((image, average), (visible,) * 2, (infrared,) * 2)))
    both = {name: np.asarray(found[name]) for name in USUAL}
    return {name: (float(values[0]), float(values[1])) for name, values in both.items()}


def as_html(found: dict[str, tuple[float, float]]) -> str:
    """A table of `scores`.

    >>> "entropy" in as_html({"EN": (7.0, 6.0)})
    True
    """
    rows = []
    for name, values in found.items():
        metric = METRICS[name]
        better = "Higher is better." if metric.higher_is_better else "Lower is better."
        told = escape(f"{metric.title[:1].upper()}{metric.title[1:]}, {metric.unit}. {MEANING[name]} {better}")
        arrow = "↑" if metric.higher_is_better else "↓"
        tip = f'<span class="tip" tabindex="0" aria-label="{name}: {told}">{name} {arrow}<span>{told}</span></span>'
        cells = "".join(f"<td>{value:.3f}</td>" for value in values)
        rows.append(f'<tr><th scope="row">{tip}<small>{escape(metric.title)}</small></th>{cells}</tr>')
    head = '<tr><th scope="col">metric</th><th scope="col">fused</th><th scope="col">average</th></tr>'
    return f"<table><thead>{head}</thead><tbody>{''.join(rows)}</tbody></table>"
