"""Pairs of a rig with a known transform, drawn for tests."""

from functools import cache

import cv2
import numpy as np
from PIL import Image

from langfuse_jax.alignment.geometry import corners, moved, stretching
from langfuse_jax.examples.night_scene import night_scene


def rig_warp(*, width=640, height=480, scale=1.07, degrees=3.0, shift=(30, -20), infrared_size=None):
    """From the pixels of the registered infrared image to those of the rig's, about the middle."""
    turn = np.deg2rad(degrees)
    cos, sin = scale * np.cos(turn), scale * np.sin(turn)
    middle = np.array([[1, 0, -width / 2], [0, 1, -height / 2], [0, 0, 1]])
    about = np.array([[cos, -sin, shift[0]], [sin, cos, shift[1]], [0, 0, 1]])
    matrix = np.linalg.inv(middle) @ about @ middle
    if infrared_size is None:
        return matrix
    return stretching((width, height), infrared_size) @ matrix


def rig_pair(matrix, *, seed=0, size=(640, 480)):
    """A visible image (480, 640, 3) and an infrared one of `size`, uint8, from which `matrix` leads back."""
    visible, infrared = _scene(seed)
    return visible, cv2.warpPerspective(infrared, matrix, size, flags=cv2.INTER_AREA)


@cache
def _scene(seed):
    return night_scene(480, 640, seed=seed)


def corner_error(found, matrix):
    """Mean distance of the infrared image's corners from where `matrix` came from, in visible pixels."""
    ends = corners(*found.infrared_size)
    return float(np.linalg.norm(moved(found.matrix, ends) - moved(np.linalg.inv(matrix), ends), axis=1).mean())


def write_rig(folder, matrix, count=1, size=(640, 480)):
    """The folders VI and IR of `count` pairs of one rig."""
    for seed in range(count):
        for role, image in zip(("VI", "IR"), rig_pair(matrix, seed=seed, size=size), strict=True):
            (folder / role).mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(folder / role / f"{seed}.png")
    return folder / "VI", folder / "IR"
