"""Does one network do what sentences say? Every goal on every pair, at five strengths.

    python benchmarks/obedience.py --data-root DATA --out runs/obedience [--dataset vifb llvip] [--checkpoint DIR]

Prints, for each dataset and goal, the share of the pairs whose language-driven loss towards the goal (mean over windows
of 160 pixels that cover the pair) is lower than with the default sentence, on which the statistic that the words name
moves as they say, and does so from each strength of 0, 0.25, 0.5, 0.75 and 1 to the next; the means of the statistic
with the default sentence and with the goal; and the largest ratio, over the pairs, of the fused image's periodicity to
that of the source that has more. Writes DATASET_goals.jpg: one pair by default, and under eight goals.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from quality import correlation
from sheets import tile, write_jpeg

from langfuse_jax import Clip, Fuser
from langfuse_jax.analysis.periodicity import periodicity
from langfuse_jax.classical.pyramid import gaussian_blur, hot_targets
from langfuse_jax.clip.words import embed
from langfuse_jax.data.scenes import list_scenes, read_scene
from langfuse_jax.evaluation.language import embed_images, language_scores
from langfuse_jax.images.sheet import grid

STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
SIDE = 160  # pixels, of the windows
WIDTH = 320  # of the sheet's images
SHOWN = {"vifb": "manCall"}


class Pair(NamedTuple):
    """A scene in [0, 1]: the sources, and where the infrared is hot."""

    visible: np.ndarray
    infrared: np.ndarray
    hot: np.ndarray


def _gradient(image):
    """The average gradient."""
    down, right = np.diff(image, axis=0)[:, :-1], np.diff(image, axis=1)[:-1]
    return float(np.sqrt((down**2 + right**2) / 2).mean())


def _targets(image, pair):
    """How much brighter hot targets are than the rest."""
    return float(np.average(image, weights=pair.hot + 1e-6) - np.average(image, weights=1 - pair.hot + 1e-6))


def _background(image, pair):
    """The mean of fine and coarse detail where nothing is hot."""
    detail = np.abs(image - np.asarray(gaussian_blur(image, 3.0)))
    return float(np.average(detail, weights=1 - np.clip(2 * pair.hot, 0, 1) + 1e-6))


def _grain(image):
    """The median of a second difference: noise, on smooth surfaces."""
    second = image[:-2] - 2 * image[1:-1] + image[2:]
    return float(np.median(np.abs(second[:, :-2] - 2 * second[:, 1:-1] + second[:, 2:])))


def _local_contrast(image):
    """The median of the standard deviation around each pixel: what haze takes."""
    deviation = image - np.asarray(gaussian_blur(image, 6.0))
    return float(np.sqrt(np.median(np.asarray(gaussian_blur(deviation**2, 6.0)))))


class Goal(NamedTuple):
    """A sentence, and the statistic of (image, pair) that it raises (sign 1) or lowers (sign -1)."""

    sentence: str
    measured: str
    statistic: Callable[[np.ndarray, Pair], float]
    sign: int


GOALS = (
    Goal("a bright image", "mean", lambda image, _: float(image.mean()), 1),
    Goal("a dark image", "mean", lambda image, _: float(image.mean()), -1),
    Goal("a high contrast image", "SD", lambda image, _: float(image.std()), 1),
    Goal("a low contrast image", "SD", lambda image, _: float(image.std()), -1),
    Goal("a sharp image", "AG", lambda image, _: _gradient(image), 1),
    Goal("a blurry image", "AG", lambda image, _: _gradient(image), -1),
    Goal("a natural looking image", "correlation with visible", lambda x, pair: correlation(x, pair.visible), 1),
    Goal("a thermal looking image", "correlation with infrared", lambda x, pair: correlation(x, pair.infrared), 1),
    Goal("an image with salient objects", "target contrast", _targets, 1),
    Goal("an image in which targets blend in", "target contrast", _targets, -1),
    Goal("an image with detailed background", "background detail", _background, 1),
    Goal("an image with a quiet background", "background detail", _background, -1),
    Goal("a hazy image", "local contrast", lambda image, _: _local_contrast(image), -1),
    Goal("a clear image", "local contrast", lambda image, _: _local_contrast(image), 1),
    Goal("a clean image", "grain", lambda image, _: _grain(image), -1),
)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--dataset", nargs="+", default=["vifb"])
    parser.add_argument("--checkpoint", help="a steered network (default: the weights in the package)")
    parser.add_argument("--clip", help="the CLIP that it listens to (default: the one it names)")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    fuser = Fuser.load(args.checkpoint)
    name = args.clip or fuser.metadata.get("clip", {}).get("name", "compact")
    clip = Clip.load(None if name == "compact" else name)
    steered = {(goal, s): fuser.towards(goal.sentence, strength=s, clip=clip) for goal in GOALS for s in STRENGTHS}
    for dataset in args.dataset:
        scenes = list_scenes(args.data_root / dataset, "test")
        sources = [read_scene(scene) for scene in scenes]
        pairs = [Pair(visible, infrared, np.asarray(hot_targets(infrared))) for visible, infrared in sources]
        repeats = [max(periodicity(pair.visible), periodicity(pair.infrared)) for pair in pairs]
        print(f"\n{dataset}, {len(pairs)} pairs\n")
        print("| goal | lower loss | moves | at each step | statistic | default | goal | periodicity |")
        print("|" + "---|" * 8)
        for goal in GOALS:
            print(_row(goal, [steered[goal, s] for s in STRENGTHS], clip, pairs, repeats), flush=True)
        stem = SHOWN.get(dataset, scenes[0].stem)
        shown = pairs[next(i for i, scene in enumerate(scenes) if scene.stem == stem)]
        chosen = [None, *(GOALS[i] for i in (0, 1, 6, 7, 8, 10, 5, 12))]
        tiles = [tile((steered[goal, 1.0] if goal else fuser)(shown.visible, shown.infrared), WIDTH) for goal in chosen]
        names = ["default", *(goal.sentence for goal in chosen if goal)]
        rows = [grid([tiles[i : i + 3]], names[i : i + 3]) for i in (0, 3, 6)]
        write_jpeg(args.out / f"{dataset}_goals.jpg", np.concatenate(rows))


def _row(goal, fusers, clip, pairs, repeats):
    lower, values, ratios = [], [], []
    for pair, repeat in zip(pairs, repeats, strict=True):
        images = [np.asarray(fuser(pair.visible, pair.infrared)) for fuser in fusers]
        losses = _losses(clip, goal.sentence, (images[0], images[-1]), pair)
        lower.append(losses[1] < losses[0])
        values.append([goal.statistic(image, pair) for image in images])
        ratios.append(periodicity(images[-1]) / repeat)
    steps = goal.sign * np.diff(values, axis=1)
    moved = goal.sign * (np.array(values)[:, -1] - np.array(values)[:, 0]) > 0
    mean = np.mean(values, axis=0)
    shares = [f"{np.mean(share):.0%}" for share in (lower, moved, (steps > 0).all(1))]
    numbers = [goal.measured, f"{mean[0]:.3g}", f"{mean[-1]:.3g}", f"{max(ratios):.2f}"]
    return f"| {goal.sentence} | {' | '.join([*shares, *numbers])} |"


def _losses(clip, goal, images, pair):
    """The language-driven loss of the windows of each image towards `goal`, their means."""
    words = embed(clip, goal=[goal]).words
    visible, infrared, *fused = (
        embed_images(clip.vision, clip.params["vision"], jnp.asarray(_windows(255 * x), jnp.float32))
        for x in (pair.visible, pair.infrared, *images)
    )
    return [language_scores(image, visible, infrared, words)["LDL"].mean().item() for image in fused]


def _windows(image):
    """As many windows (n, SIDE, SIDE) as cover an image (h, w) with the least overlap or gaps, evenly spread."""
    starts = [np.linspace(0, side - SIDE, -(-side // SIDE)).astype(int) for side in image.shape]
    return np.stack([image[y : y + SIDE, x : x + SIDE] for y in starts[0] for x in starts[1]])


if __name__ == "__main__":
    main()
