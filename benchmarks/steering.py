"""Do words move the picture? The same short training run from the same weights, once per goal, measured on VIFB.

    python benchmarks/steering.py --data-root DATA --out runs/steering [--start DIR] [--config.x=y ...]
    python benchmarks/steering.py --data-root DATA --out runs/sources --goals infrared visible --config.augment.fading=0

Prints, for each goal, on how many pairs the language-driven loss towards it (mean over windows of 160 pixels that cover
the pair, about the patches of the training run) is lower after it than before, its means, and what changed in
the images (0 to 255), as means over the pairs: towards infrared (correlation with the infrared minus correlation with
the visible image), targets (how much brighter hot targets are than the rest), average gradient, mean and standard
deviation. Draws goals.jpg, one pair under all of them.
"""

import argparse
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from quality import correlation
from sheets import tile, write_jpeg

from langfuse_jax import Clip, Fuser
from langfuse_jax.classical.pyramid import hot_targets
from langfuse_jax.clip.words import embed
from langfuse_jax.data.scenes import list_scenes, read_scene
from langfuse_jax.evaluation.language import embed_images, language_scores
from langfuse_jax.images.sheet import grid
from langfuse_jax.metrics import evaluate
from langfuse_jax.training.configs import load_config
from langfuse_jax.training.fusion import train_fusion

# The first six are those that are to be obeyed, and "no words" is to compare with: these are the default.
GOALS = {
    "salient": "an image with salient objects",
    "detailed": "an image with detailed background",
    "natural": "a natural visible look",
    "infrared": "an infrared image",
    "soft": "a soft image with low detail",
    "bright": "a clear and bright image",
    "no words": "",
    "visible": "a visible gray image",
}
DEFAULT = list(GOALS)[:7]
SIDE = 160  # pixels, of the windows
SHOWN, WIDTH = "manCall", 300  # the pair of the sheet, and how wide its images are drawn


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", required=True)
    parser.add_argument("--train", default="('roadscene_split','msrs')", help="config.data.train")
    parser.add_argument("--start", help="model to start from (default: the weights in the package)")
    parser.add_argument("--config", default="steer")
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--goals", nargs="+", choices=GOALS, default=DEFAULT)
    parser.add_argument("--out", type=Path, required=True)
    args, overrides = parser.parse_known_args()
    goals = {name: GOALS[name] for name in args.goals}

    scenes = list_scenes(Path(args.data_root) / "vifb")
    pairs = [read_scene(scene) for scene in scenes]
    start = args.start or str(Path(__file__).resolve().parents[1] / "langfuse_jax" / "assets" / "fusion")
    fused = {"before": _fuse(start, pairs)}
    for name, goal in goals.items():
        values = {
            "data.root": args.data_root,
            "data.validation": "",
            "data.train": args.train,
            "init_from": start,
            "steps": args.steps,
        }
        values |= (
            {"prompts.goal": f"({goal!r},)"} if goal else {"loss.whole": 0.0, "loss.patch": 0.0, "loss.similarity": 0.0}
        )
        workdir = args.out / name.replace(" ", "_")
        flags = [f"--config.{key}={value}" for key, value in values.items()]
        train_fusion(load_config(args.config, flags + overrides), workdir)
        fused[name] = _fuse(workdir, pairs)

    clip = Clip.load()
    targets = [hot_targets(infrared) for _, infrared in pairs]
    statistics = {name: _statistics(images, pairs, targets) for name, images in fused.items()}
    columns = "lower loss on | loss before | after | towards infrared | targets | AG | mean | SD"
    print(f"| goal ({args.steps} steps) | {columns} |")
    print("|" + "---|" * 9)
    print("| (before) | | | | " + " | ".join(f"{value:.4g}" for value in statistics["before"]) + " |")
    for name, goal in goals.items():
        losses = [""] * 3
        if goal:
            before, after = (_losses(clip, goal, fused[key], pairs) for key in ("before", name))
            losses = [f"{(after < before).sum()} of {len(pairs)}", f"{before.mean():.3f}", f"{after.mean():.3f}"]
        print(f"| {goal or name} | " + " | ".join([*losses, *(f"{value:.4g}" for value in statistics[name])]) + " |")
    shown = next(i for i, scene in enumerate(scenes) if scene.stem == SHOWN)
    tiles = {name: tile(fused[name][shown] / 255, WIDTH) for name in fused}
    names = list(fused)
    rows = [grid([[tiles[name] for name in row]], row) for row in (names[:4], names[4:]) if row]
    write_jpeg(args.out / "goals.jpg", np.concatenate(rows))


def _fuse(checkpoint, pairs):
    fuser = Fuser.load(checkpoint)
    return [255 * np.asarray(fuser(visible, infrared)) for visible, infrared in pairs]


def _statistics(images, pairs, targets):
    """Means over the pairs, in the order of the table."""
    rows = [
        (
            correlation(image, infrared) - correlation(image, visible),
            np.average(image, weights=hot + 1e-6) - np.average(image, weights=1 - hot + 1e-6),
            evaluate(image, image, image, metrics=("AG",))["AG"],  # of the fused image alone
            image.mean(),
            image.std(),
        )
        for image, (visible, infrared), hot in zip(images, pairs, targets, strict=True)
    ]
    return np.mean(rows, axis=0)


def _losses(clip, goal, images, pairs):
    """The language-driven loss of each pair's windows towards `goal`, their mean."""
    words = embed(clip, visible=["a visible gray image"], infrared=["an infrared image"], goal=[goal]).words
    losses = []
    for image, (visible, infrared) in zip(images, pairs, strict=True):
        embedded = [
            embed_images(clip.vision, clip.params["vision"], jnp.asarray(_windows(x), jnp.float32))
            for x in (image, 255 * visible, 255 * infrared)
        ]
        losses.append(language_scores(*embedded, words)["LDL"].mean().item())
    return np.array(losses)


def _windows(image):
    """As many windows (n, SIDE, SIDE) as cover an image (h, w) with the least overlap or gaps, evenly spread."""
    starts = [np.linspace(0, side - SIDE, max(1, round(side / SIDE))).astype(int) for side in image.shape]
    return np.stack([image[y : y + SIDE, x : x + SIDE] for y in starts[0] for x in starts[1]])


if __name__ == "__main__":
    main()
