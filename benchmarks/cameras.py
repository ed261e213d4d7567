"""Files of thermal cameras through the public functions, one row each: `python benchmarks/cameras.py FILES --out OUT`.

Every file under FILES is fused with the photo that it embeds, or with a drawn visible image of its size, or refused;
OUT gets infrared | visible | fused of each. The table says what was read.
"""

import argparse
from pathlib import Path

from PIL import Image

from langfuse_jax import Fuser, UserError
from langfuse_jax.examples.night_scene import night_scene
from langfuse_jax.images.files import camera_frame, read_infrared, rgb_to_ycbcr, to_unit, write_png, ycbcr_to_rgb
from langfuse_jax.images.pairs import Pair, pair_size, read_pair
from langfuse_jax.images.reading import Reading
from langfuse_jax.images.sheet import side_by_side
from langfuse_jax.inference.frames import open_infrared

SEQUENCES = (".seq", ".csq")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    fuser = Fuser.load()
    print("| camera | file | what is read | visible image |\n|---|---|---|---|")
    for path in sorted(args.files.rglob("*")):
        if not path.is_file() or path.suffix.lower() in (".md", ".txt"):
            continue
        try:
            read, source, (luma, chroma, infrared) = _read(path)
        except UserError as error:
            print(f"| {_camera(path)} | {path.name} | refused: {str(error).removeprefix(f'{path}: ')} | |", flush=True)
            continue
        fused = fuser(luma, infrared)
        visible = luma if chroma is None else ycbcr_to_rgb(luma, chroma)
        shown = fused if chroma is None else ycbcr_to_rgb(fused, chroma)
        write_png(args.out / f"{path.parent.name}_{path.stem}.png", side_by_side([infrared, visible, shown]))
        print(f"| {_camera(path)} | {path.name} | {read} | {source} |", flush=True)


def _read(path):
    """What is read, where the visible image comes from, and both images."""
    if path.suffix.lower() in SEQUENCES:
        source = open_infrared(path, [], Reading())
        frames = [image for _, image in source.frames]
        return f"{len(frames)} frames of {_size(frames[0])}", "drawn", (*_drawn(frames[0].shape), frames[0])
    frame = camera_frame(path)
    counts = f"counts {frame.counts.min()} to {frame.counts.max()}, {_size(frame.counts)}" if frame is not None else ""
    pair = Pair(path.stem, path, path)
    if frame is not None and pair_size(pair) is not None:
        luma, chroma, infrared = read_pair(pair)
        return counts, f"its photo, {_size(luma)}", (luma, chroma, infrared)
    infrared = read_infrared(path)
    return counts or f"{_size(infrared)}", "drawn", (*_drawn(infrared.shape), infrared)


def _drawn(shape):
    return rgb_to_ycbcr(to_unit(night_scene(*shape)[0], "drawn"))


def _camera(path):
    """What the file says made it."""
    try:
        with Image.open(path) as image:
            return str(image.getexif().get(0x0110, "")).strip("\0 ")
    except OSError:
        return ""


def _size(image):
    return f"{image.shape[1]}x{image.shape[0]}"


if __name__ == "__main__":
    main()
