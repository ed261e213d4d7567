"""`langfuse-jax fuse --video`: two videos, or two folders of frames, into one video."""

import shutil
import sys
from fractions import Fraction

import numpy as np
import pytest
from PIL import Image
from videos import read_video, write_frames, write_video

from langfuse_jax import Fuser, UserError, fuse_video
from langfuse_jax.cli import main
from langfuse_jax.images.files import thermal_limits

av = pytest.importorskip("av")

FRAMES = 11  # past 9, so that the order of 10.png shows


@pytest.fixture
def frames():
    """A colourful scene, and a warm spot that wanders over it, 48 x 64 pixels."""
    y, x = np.mgrid[:48, :64]
    visible = [np.stack([4 * x, 5 * y, 100 + 8 * i + 0 * x], -1).astype(np.uint8) for i in range(FRAMES)]
    infrared = [(255 * np.exp(-((x - 5 * i) ** 2 + (y - 24) ** 2) / 50)).astype(np.uint8) for i in range(FRAMES)]
    return visible, infrared


@pytest.fixture
def fuse(capsys):
    def run(*argv):
        status = main(["fuse", "--video", *map(str, argv)])
        out, err = capsys.readouterr()
        return status, out, err

    return run


def test_two_videos_and_two_folders_agree(tmp_path, frames, fuse):
    visible, infrared = frames
    a, b = write_video(tmp_path / "a.mp4", visible), write_video(tmp_path / "b.mkv", infrared)
    status, out, err = fuse("--visible", a, "--infrared", b, "--out", tmp_path / "new" / "c.mp4")
    assert (status, err) == (0, "") and out == f"fused {FRAMES} frames into {tmp_path / 'new' / 'c.mp4'}\n"
    rate, videos = read_video(tmp_path / "new" / "c.mp4")
    assert rate == Fraction(30000, 1001) and videos.shape == (FRAMES, 48, 64, 3)

    vi, ir = write_frames(tmp_path / "vi", visible), write_frames(tmp_path / "ir", infrared)
    assert fuse("--visible", vi, "--infrared", ir, "--out", tmp_path / "f.mov", "--fps", "10")[0] == 0
    rate, folders = read_video(tmp_path / "f.mov")
    assert rate == 10 and folders.shape == videos.shape
    assert np.abs(folders.astype(int) - videos).mean() < 6  # two lossy codings apart

    # Each frame is what the default network makes of the pair, or the one that was asked for, give or take the
    # codec; its neighbours are further off.
    big = tmp_path / "g.mov"
    assert fuse("--visible", vi, "--infrared", ir, "--out", big, "--fps", "10", "--model", "ldfusion")[0] == 0
    for model, fused in (("steered", folders), ("ldfusion", read_video(big)[1])):
        images = tmp_path / model
        arguments = ["fuse", "--visible", str(vi), "--infrared", str(ir), "--out", str(images), "--model", model]
        assert main(arguments) == 0
        single = np.stack([np.asarray(Image.open(images / f"{i + 1}.png")) for i in range(FRAMES)]).astype(int)
        luma = np.array([0.299, 0.587, 0.114])
        distance = np.abs((fused[:, None] - single[None]) @ luma).mean((2, 3))
        assert (distance.argmin(1) == np.arange(FRAMES)).all() and distance.diagonal().max() < 3
    assert not list(tmp_path.rglob("*.tmp"))


def test_in_python(tmp_path, frames, capsys):
    vi, ir = (write_frames(tmp_path / n, f[:3]) for n, f in zip("vi", frames, strict=True))
    fuser = Fuser.load()
    assert fuse_video(vi, ir, tmp_path / "c.mkv", fps=12.5, gray=True, load_fuser=lambda: fuser).frames == 3
    assert fuse_video(vi, ir, tmp_path / "d.mkv", fps="25/2", gray=True).frames == 3
    (rate, ours), (same, default) = (read_video(tmp_path / name) for name in ("c.mkv", "d.mkv"))
    assert rate == same == Fraction(25, 2) and np.abs(ours.astype(int) - default).mean() < 0.2
    assert capsys.readouterr().out == ""
    with pytest.raises(UserError, match=r"c\.avi: must be a video"):
        fuse_video(vi, ir, tmp_path / "c.avi")


def test_colours_of_any_matrix_are_kept(tmp_path, frames, fuse):
    """A still scene, fused with itself in gray: hues stay those of the source, also of a video in BT.709."""
    visible, _ = frames
    for matrix in (1, 2):  # BT.709, unknown
        path = tmp_path / f"{matrix}.mp4"
        with av.open(path, "w") as container:
            stream = container.add_stream("libx264", rate=5, options={"crf": "4"})
            stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
            stream.codec_context.colorspace = matrix
            for image in visible[:3]:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
            container.mux(stream.encode())
        out = tmp_path / f"out{matrix}.mp4"
        copy = shutil.copy(path, tmp_path / f"copy{matrix}.mp4")
        assert fuse("--visible", path, "--infrared", copy, "--out", out)[0] == 0
        planes = []
        for name in (path, out):
            with av.open(name) as container:
                assert container.streams.video[0].codec_context.colorspace == matrix
                planes.append(
                    [frame.to_ndarray(format="yuv444p")[1:].astype(int) for frame in container.decode(video=0)]
                )
        assert np.abs(np.subtract(*planes)).mean() < 1.5
        assert fuse("--visible", path, "--infrared", copy, "--out", out, "--gray")[0] == 0
        colours = read_video(out)[1]
        assert np.ptp(colours.astype(int), axis=-1).max() <= 2


def test_thermal_counts_have_the_limits_of_a_first_frame_with_contrast(tmp_path, frames, fuse):
    visible, infrared = frames
    cold = [28000 + (4 if i else 3) * image.astype(np.uint16) for i, image in enumerate(infrared[:4])]
    ir = write_frames(tmp_path / "ir", cold)
    vi = write_frames(tmp_path / "vi", visible[:4])
    deep = write_video(tmp_path / "b.mkv", cold, rate=25, codec="ffv1", colour="gray16le")

    def fused(source, *flags):
        # A program that was compiled and one that was loaded may differ in the last bit, and so in what is rounded: a
        # coding with loss makes more of that than of other limits, one without leaves it at single levels.
        assert (
            fuse("--visible", vi, "--infrared", source, "--out", tmp_path / "c.mkv", "--codec", "ffv1", *flags)[0] == 0
        )
        return read_video(tmp_path / "c.mkv")[1].astype(int)

    def limits(image):
        return "{},{}".format(*thermal_limits(image))

    folder = fused(ir)
    for same in (fused(deep), fused(ir, "--infrared-range", limits(cold[0]))):
        assert np.abs(folder - same).mean() < 0.2
    assert np.abs(folder - fused(ir, "--infrared-range", limits(cold[1]))).mean() > 2
    shut = [np.full_like(cold[0], 28003), *cold[1:]]  # a shutter that is closed at first
    ir = write_frames(tmp_path / "shut", shut)
    deep = write_video(tmp_path / "d.mkv", shut, rate=25, codec="ffv1", colour="gray16le")
    assert np.abs(fused(ir) - fused(ir, "--infrared-range", limits(cold[1]))).mean() < 0.2
    assert np.abs(fused(deep) - fused(ir)).mean() < 0.2


def test_odd_sides(tmp_path, frames, fuse):
    vi, ir = (
        write_frames(tmp_path / n, [image[:47, :63] for image in f[:2]]) for n, f in zip("vi", frames, strict=True)
    )
    assert fuse("--visible", vi, "--infrared", ir, "--out", tmp_path / "c.mp4")[0] == 0
    assert read_video(tmp_path / "c.mp4")[1].shape == (2, 47, 63, 3)


def test_errors_are_one_line_and_leave_nothing(tmp_path, frames, fuse, monkeypatch):
    visible, infrared = frames
    a, b = write_video(tmp_path / "a.mp4", visible), write_video(tmp_path / "b.mp4", infrared)
    short = write_video(tmp_path / "short.mp4", infrared[:8])
    slow = write_video(tmp_path / "slow.mp4", infrared, rate=25)
    small = write_video(tmp_path / "small.mp4", [image[:40].copy() for image in infrared])
    cut = write_video(
        tmp_path / "cut.mkv", [image.astype(np.uint16) for image in infrared], codec="ffv1", colour="gray16le"
    )
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    (tmp_path / "text.mp4").write_text("no video")
    (tmp_path / "empty").mkdir()
    vi = write_frames(tmp_path / "vi", [*visible[:2], visible[2][:40]])
    ir = write_frames(tmp_path / "ir", infrared[:3])
    out = tmp_path / "c.mp4"
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    for argv, told in (
        ((a, short, out), f"{a} has 11 and {short} 8 frames; cut both to one length"),
        ((a, cut, out), f"{cut}: ends after "),
        ((a, slow, out), f"{a} takes 0.37 and {slow} 0.44 seconds; cut both"),
        ((a, small, out), f"{small}: its frame 0 is 64x40 pixels where 64x48 are expected"),
        ((vi, ir, out), f"{vi}: its frame 2 is 64x40 pixels where 64x48"),
        ((a, tmp_path / "text.mp4", out), "text.mp4: cannot be read as a video"),
        ((a, tmp_path / "empty", out), "empty: has no infrared images; expected files ending in .png"),
        ((a, tmp_path / "none", out), "none: no such file or folder"),
        ((a, b, tmp_path / "c.avi"), "c.avi: must be a video file ending in .mp4"),
        ((a, b, a), f"--out {a}: is a source"),
        ((a, b, out, "--fps", "5"), "--fps 5: is for frames without a rate"),
        ((vi, ir, out, "--fps", "0"), "--fps 0: give frames per second"),
        ((a, b, out, "--sheet"), "--sheet: is for a single pair or folders of images"),
        ((a, b, out, "--codec", "ffv1"), "--codec ffv1: is for .mkv; name --out c.mkv"),
        ((a, b, tmp_path / "c.mkv", "--codec", "ffv1", "--crf", "4"), "--crf 4: is for h264 and hevc"),
        ((a, b, out, "--crf", "70"), "--crf 70: give 0 (no loss) to 51"),
        ((a, b, out, "--infrared-range", "auto-folder"), "auto-folder: is for folders of images"),
        ((a, b, out, "--bits", "16"), "--bits: is for a single pair or folders of images"),
        ((a, b, out, "--format", "png"), "--format: is for a single pair or folders of images"),
        ((a, b, out, "--distributed"), "--distributed: is for folders of images"),
        ((a, b, vi / "1.png" / "c.mp4"), "1.png is a file); choose a writable place"),
    ):
        status, printed, err = fuse("--visible", argv[0], "--infrared", argv[1], "--out", *argv[2:])
        assert (status, printed) == (2, "") and err.count("\n") == 1 and told in err, err
        assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    monkeypatch.setitem(sys.modules, "av", None)
    assert 'pip install "langfuse-jax[video]"' in fuse("--visible", a, "--infrared", b, "--out", out)[2]
