"""Do words move the picture? The same short training from the same weights and seed, once per goal, measured on VIFB.

    python benchmarks/steering.py --data-root DATA --start langfuse_jax/assets/fusion --out runs/steering

Prints a table: towards infrared (correlation with infrared minus correlation with visible), average gradient, and the
mean absolute difference from the starting weights' images; all are means over the validation pairs, images in 0-255.
"""

import argparse
from pathlib import Path

import numpy as np
from quality import correlation

from langfuse_jax import Fuser
from langfuse_jax.data.scenes import list_scenes, read_scene
from langfuse_jax.images import write_png
from langfuse_jax.metrics import evaluate
from langfuse_jax.sheet import grid
from langfuse_jax.training.configs import load_config
from langfuse_jax.training.loop import train

GOALS = {
    "default": {},
    "infrared": {"prompts.goal": "('an infrared image',)"},
    "visible": {"prompts.goal": "('a visible gray image',)"},
    "blurry": {"prompts.goal": "('a blurry image',)"},
    "no words": {"loss.whole": 0.0, "loss.patch": 0.0, "loss.similarity": 0.0},
}
SHOWN = 4


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", required=True)
    parser.add_argument("--start", required=True, help="model to start from")
    parser.add_argument("--config", default="configs/cpu.py")
    parser.add_argument("--steps", type=int, default=80)
    parser.add_argument("--rate", type=float, default=2e-4)
    parser.add_argument("--perceptual", type=float, default=10.0, help="weight of the perceptual term (published: 10)")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()

    folder = str(Path(args.data_root) / "vifb")
    pairs = [read_scene(pair) for pair in list_scenes(folder)]
    fused = {"start": _fuse(args.start, pairs)}
    for name, values in GOALS.items():
        values = {
            "data.root": args.data_root,
            "data.validation": "",
            "init_from": args.start,
            "steps": args.steps,
            "learning_rate": args.rate,
            "warmup_steps": 8,
            "checkpoint_every": args.steps,
            "loss.perceptual": args.perceptual,
            **values,
        }
        workdir = args.out / name.replace(" ", "_")
        train(load_config(args.config, [f"--config.{key}={value}" for key, value in values.items()]), workdir)
        fused[name] = _fuse(workdir, pairs)

    print(f"| goal ({args.steps} steps) | towards infrared | average gradient | mean | contrast | change from start |")
    print("|---|---|---|---|---|---|")
    for name, images in fused.items():
        rows = [
            (
                correlation(image, infrared) - correlation(image, visible),
                evaluate(image, image, image, metrics=("AG",))["AG"],  # of the fused image alone
                image.mean(),
                image.std(),
                np.abs(image - first).mean(),
            )
            for image, first, (visible, infrared) in zip(images, fused["start"], pairs, strict=True)
        ]
        print(f"| {name} | " + " | ".join(f"{value:.3f}" for value in np.mean(rows, axis=0)) + " |")
    shown = np.linspace(0, len(pairs) - 1, SHOWN).round().astype(int)
    rows = [[pairs[i][1], pairs[i][0], *(images[i] / 255 for images in fused.values())] for i in shown]
    write_png(args.out / "sheet.png", grid(rows, ("infrared", "visible", *fused)))


def _fuse(checkpoint, pairs):
    fuser = Fuser.load(checkpoint)
    return [255 * np.asarray(fuser(visible, infrared)) for visible, infrared in pairs]


if __name__ == "__main__":
    main()
