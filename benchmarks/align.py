"""Alignment on known warps, landmarks and mismatched pairs: `python benchmarks/align.py ../shared/data`.

Each pair of a registered set is warped: translation up to 10% of the width, rotation up to 5 degrees, scale 0.85 to
1.15, perspective up to 4 pixels at the edge; the infrared image keeps its size or half of it. The error is the mean
distance of its four corners from the truth, where images are 640 pixels wide. The sets are themselves off by some
pixels, so that the truth is the known warp after the pair's own misregistration: at each corner the median of a
similarity, an affinity and a homography fitted to the unwarped pair. "known" is the error against the warp alone.

    --mismatched N   pairs that do not belong together (default 200), of all sets: any acceptance is a false accept
    --wide           visible 3840x2160, infrared 640x512 which shows 0.3 to 1.3 of its width, in place of the table
    --jobs N         processes (default 1; seconds a pair are those of one thread)
"""

import argparse
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import scipy.io

from langfuse_jax.alignment.estimate import estimate
from langfuse_jax.alignment.geometry import corners, moved, resized_to, stretching
from langfuse_jax.alignment.rig import align
from langfuse_jax.data.scenes import list_scenes, read_scene
from langfuse_jax.images.files import read_visible

SETS = ("vifb", "cameras/m3fd", "cameras/m3svd", "cameras/fmb", "cameras/pv_dji", "unseen/llvip")
RIG = 5  # pairs
WIDE_PAIRS = 60


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--mismatched", type=int, default=200)
    parser.add_argument("--wide", action="store_true")
    parser.add_argument("--jobs", type=int, default=1)
    args = parser.parse_args()
    cv2.setNumThreads(1)
    scenes = [(name, scene) for name in SETS for scene in list_scenes(args.data / name)]
    with ProcessPoolExecutor(args.jobs, initializer=partial(cv2.setNumThreads, 1)) as pool:
        if args.wide:
            every = [scenes[at] for at in np.linspace(0, len(scenes) - 1, WIDE_PAIRS).astype(int)]
            found = pool.map(_wide, [scene for _, scene in every], range(len(every)))
            _print_table("wide", [(name, one) for (name, _), one in zip(every, found, strict=True)])
            return
        found = pool.map(_single, [scene for _, scene in scenes], range(len(scenes)))
        _print_table("single pairs", [(name, one) for (name, _), one in zip(scenes, found, strict=True)])
        rigs = _rigs(scenes)
        found = pool.map(_rig, [members for _, members in rigs], range(len(rigs)))
        _print_table(f"rigs of {RIG} pairs", [(name, one) for (name, _), one in zip(rigs, found, strict=True)])
        landmarks = sorted((args.data / "misaligned/stara_vis_ir").glob("VIS_IR_*.mat"))
        _print_table("landmarks", [("stara_vis_ir", one) for one in pool.map(_landmarks, landmarks)])
        wrong = _mismatched(scenes, args.mismatched)
        accepted = [pair for pair, one in zip(wrong, pool.map(_accepted, wrong), strict=True) if one]
        print(f"\nfalse accepts: {len(accepted)} of {len(wrong)} mismatched pairs", *accepted)


def _images(scene):
    return tuple(np.asarray(image, np.float32) for image in read_scene(scene))


def _single(scene, seed):
    visible, infrared = _images(scene)
    warped, truth, known = _warped([(visible, infrared)], np.random.default_rng(seed))
    return _measured([visible], warped, truth, known)


def _rig(members, seed):
    pairs = [_images(scene) for scene in members]
    warped, truth, known = _warped(pairs, np.random.default_rng(1000 + seed))
    return _measured([visible for visible, _ in pairs], warped, truth, known)


def _measured(visible, infrared, truth, known):
    start = time.perf_counter()
    found = align(visible, infrared)
    seconds = time.perf_counter() - start
    ends = corners(*found.infrared_size)
    unit = 640 / found.visible_size[0]
    at = moved(found.matrix, ends)
    errors = [unit * float(np.linalg.norm(at - moved(there, ends), axis=1).mean()) for there in (truth, known)]
    return errors[0], errors[1], found.accepted, seconds / len(visible)


def _warped(pairs, rng):
    """Infrared images under one random warp, and the matrices from their pixels to visible ones: true, and known."""
    height, width = pairs[0][1].shape
    matrix = _random_warp(rng, width, height)
    half = rng.random() < 0.5
    size = (width // 2, height // 2) if half else (width, height)
    warped = []
    for _, infrared in pairs:
        image = cv2.warpPerspective(infrared, matrix, (width, height), flags=cv2.INTER_LINEAR)
        warped.append(resized_to(image, size) if half else image)
    known = np.linalg.inv(stretching((width, height), size) @ matrix)
    return warped, _misregistration(pairs) @ known, known


def _random_warp(rng, width, height):
    scale, turn = rng.uniform(0.85, 1.15), np.deg2rad(rng.uniform(-5, 5))
    shift = rng.uniform(-0.1, 0.1, 2) * width
    perspective = rng.uniform(-4, 4, 2) / (width / 2) ** 2 * width / 640
    middle = np.array([[1, 0, -width / 2], [0, 1, -height / 2], [0, 0, 1]])
    cos, sin = scale * np.cos(turn), scale * np.sin(turn)
    about = np.array([[cos, -sin, shift[0]], [sin, cos, shift[1]], [*perspective, 1]])
    return np.linalg.inv(middle) @ about @ middle


def _misregistration(pairs):
    """How registered pairs are off: at each corner the median over pairs and models, as a homography."""
    height, width = pairs[0][1].shape
    ends, places = corners(width, height), []
    for visible, infrared in pairs:
        for model in ("similarity", "affine", "homography"):
            found = estimate([visible], [infrared], model=model, start=np.eye(3))
            if found is not None and found.inliers >= 30:
                places.append(moved(found.matrix, ends))
    if not places:
        return np.eye(3)
    return cv2.getPerspectiveTransform(ends.astype(np.float32), np.median(places, 0).astype(np.float32))


def _rigs(scenes):
    """Groups of five pairs of one set, size and camera: neighbours, by the first two letters of their names."""
    groups = {}
    for name, scene in scenes:
        if name == "vifb":
            continue  # 21 pairs of many cameras
        camera = scene.stem[:2] if name == "unseen/llvip" else ""
        groups.setdefault((name, camera, _images(scene)[1].shape), []).append(scene)
    return [
        (name, members[at : at + RIG])
        for (name, _, _), members in groups.items()
        for at in range(0, len(members) - RIG + 1, RIG)
    ]


def _landmarks(path):
    marks = scipy.io.loadmat(path)
    number = path.stem.rsplit("_", 1)[1]
    visible, infrared = (read_visible(path.with_name(f"VI_{number}_{side}.png"))[0] for side in "ab")
    start = time.perf_counter()
    found = align(visible, infrared)
    seconds = time.perf_counter() - start
    there, here = (marks["Landmarks"][name][0, 0].astype(np.float64) - 1 for name in ("LMfix", "LMmov"))
    error = 640 / visible.shape[1] * float(np.linalg.norm(moved(found.matrix, here) - there, axis=1).mean())
    return error, error, found.accepted, seconds


def _wide(scene, seed):
    """A large visible image of 16:9, and a small infrared one of 5:4 whose field of view is another."""
    rng = np.random.default_rng(2000 + seed)
    visible, infrared = _images(scene)
    height, width = visible.shape
    share = float(np.exp(rng.uniform(np.log(0.3), np.log(1.3))))
    off = _misregistration([(visible, infrared)])
    view = _window(width, height, min(1.0, 1 / share) * 0.999, 16 / 9, rng)
    scene_width = view[2] * share if share < 1 else min(width, view[2] * share)
    window = _window_in(view, scene_width, 5 / 4, rng, width, height)
    large, to_large = _cut(visible, view, (3840, 2160))
    small, to_small = _cut(infrared, window, (640, 512))
    known = to_large @ np.linalg.inv(to_small)
    return _measured([large], [small], to_large @ off @ np.linalg.inv(to_small), known)


def _window(width, height, share, aspect, rng):
    w = min(width * share, height * aspect * 0.999)
    h = w / aspect
    return rng.uniform(0, width - w), rng.uniform(0, height - h), w, h


def _window_in(view, w, aspect, rng, width, height):
    """A window about the middle of a view, moved by up to a tenth of its width, and kept within the image."""
    h = min(w / aspect, height)
    w = h * aspect
    x, y = (view[i] + view[2 + i] / 2 + rng.uniform(-0.1, 0.1) * w - (w, h)[i] / 2 for i in range(2))
    return float(np.clip(x, 0, width - w)), float(np.clip(y, 0, height - h)), w, h


def _cut(image, window, size):
    x, y, w, h = window
    matrix = np.array([[size[0] / w, 0, -x * size[0] / w], [0, size[1] / h, -y * size[1] / h], [0, 0, 1.0]])
    return cv2.warpPerspective(image, matrix, size, flags=cv2.INTER_CUBIC), matrix


def _mismatched(scenes, count):
    """Pairs of a visible and an infrared image of different scenes: of other sets, or of VIFB, whose scenes differ."""
    rng, pairs = np.random.default_rng(3), []
    while len(pairs) < count:
        (one, visible), (other, infrared) = (scenes[at] for at in rng.integers(len(scenes), size=2))
        if one != other or (one == "vifb" and visible.stem != infrared.stem):
            pairs.append((visible, infrared))
    return pairs


def _accepted(pair):
    return align(_images(pair[0])[0], _images(pair[1])[1]).accepted


def _print_table(title, rows):
    print(f"\n| {title} | pairs | median | known | < 3 px | < 5 px | accepted | of these < 5 | false rejects | s |")
    print("|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|")
    for name in dict.fromkeys(name for name, _ in rows):
        _print_row(name, [row for other, row in rows if other == name])
    _print_row("all", [row for _, row in rows])


def _print_row(name, rows):
    error, known, accepted, seconds = (np.array(column) for column in zip(*rows, strict=True))
    right, accepted = error < 5, accepted.astype(bool)
    within = [100 * float((error < limit).mean()) for limit in (3, 5)]
    inside = f"{100 * right[accepted].mean():.0f}%" if accepted.any() else "-"
    rejected = f"{int((right & ~accepted).sum())} of {int(right.sum())}"
    print(
        f"| {name} | {len(rows)} | {np.median(error):.2f} | {np.median(known):.2f} | {within[0]:.0f}% "
        f"| {within[1]:.0f}% | {100 * accepted.mean():.0f}% | {inside} | {rejected} | {np.median(seconds):.2f} |",
        flush=True,
    )


if __name__ == "__main__":
    main()
