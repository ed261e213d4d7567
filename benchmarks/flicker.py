"""Flicker: how much fused video frames differ from one to the next, against their sources.

    python benchmarks/flicker.py --data-root DATA [--videos VIDEOS]

Frames are drawn from the 21 VIFB pairs, 8 of each: a camera that pans by a pixel a frame (windows of the image), and a
camera that stands still, each frame with new sensor noise (standard deviation 2 of 255). Prints, as means over pairs
and frames, the mean absolute difference of consecutive fused frames, over that of the source that differs more. A
fusion that adds nothing of its own is at or below 1 when the camera stands; a pan shows patterns that do not move with
the scene. Of VIDEOS, in which visible_NAME.mp4 and infrared_NAME.mp4 are a pair, the first 60 frames are taken.
"""

import argparse
import itertools
from pathlib import Path

import numpy as np

from langfuse_jax import Fuser
from langfuse_jax.classical.baselines import BASELINES
from langfuse_jax.data.scenes import list_scenes, read_scene
from langfuse_jax.images.reading import Reading
from langfuse_jax.inference.frames import open_infrared, open_visible

FRAMES = 8
IN_VIDEOS = 60
NOISE = 2 / 255


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", required=True)
    parser.add_argument("--videos", type=Path)
    args = parser.parse_args()
    methods = {**BASELINES, "steered": Fuser.load(), "ldfusion": Fuser.load(model="ldfusion")}
    scenes = [read_scene(scene) for scene in list_scenes(Path(args.data_root) / "vifb")]
    videos = {
        path.stem.removeprefix("visible_"): path for path in sorted((args.videos or Path()).glob("visible_*.mp4"))
    }
    print("| method | pan | still, noisy |" + "".join(f" {name} |" for name in videos))
    print("|---|---|---|" + "---|" * len(videos))
    for name, method in methods.items():
        ratios = [
            np.mean([_ratio(method, frames(*scene, rng=np.random.default_rng(0))) for scene in scenes])
            for frames in (_pan, _still)
        ]
        ratios += [_ratio(method, _frames(visible)) for visible in videos.values()]
        print(f"| {name} | " + " | ".join(f"{ratio:.3f}" for ratio in ratios) + " |")


def _pan(visible, infrared, rng):
    width = visible.shape[1] - FRAMES + 1
    return [(visible[:, i : i + width], infrared[:, i : i + width]) for i in range(FRAMES)]


def _still(visible, infrared, rng):
    noise = NOISE * rng.normal(size=(FRAMES, 2, *visible.shape)).astype(np.float32)
    return [tuple(np.clip(np.stack([visible, infrared]) + n, 0, 1)) for n in noise]


def _frames(visible):
    """The first frames of a pair of videos, luma and infrared."""
    infrared = visible.with_name(visible.name.replace("visible_", "infrared_", 1))
    both = open_visible(visible, [], Reading()).frames, open_infrared(infrared, [], Reading()).frames
    return [(luma, thermal) for (_, (luma, _)), (_, thermal) in itertools.islice(zip(*both, strict=False), IN_VIDEOS)]


def _ratio(method, frames):
    fused = [method(*(np.ascontiguousarray(image) for image in frame)) for frame in frames]
    sources = [_change([frame[i] for frame in frames]) for i in (0, 1)]
    return _change(fused) / max(sources)


def _change(images):
    return np.mean([np.abs(b - a).mean() for a, b in itertools.pairwise(images)])


if __name__ == "__main__":
    main()
