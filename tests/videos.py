"""Videos and folders of frames, written and read for tests."""

from fractions import Fraction

import av
import numpy as np
from PIL import Image


def write_video(path, images, *, rate=Fraction(30000, 1001), codec="libx264", colour="yuv420p"):
    kind = "rgb24" if images[0].ndim == 3 else "gray16le" if images[0].dtype == np.uint16 else "gray"
    with av.open(path, "w") as container:
        stream = container.add_stream(codec, rate=rate, options={"crf": "4"} if codec == "libx264" else {})
        stream.height, stream.width = images[0].shape[:2]
        stream.pix_fmt = colour
        for image in images:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format=kind)))
        container.mux(stream.encode())
    return path


def read_video(path):
    with av.open(path) as container:
        stream = container.streams.video[0]
        return stream.average_rate, np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(stream)])


def write_frames(folder, images):
    folder.mkdir()
    for i, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{i + 1}.png")
    return folder
