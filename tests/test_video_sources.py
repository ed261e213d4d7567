"""`fuse_video` on sources that differ in rate, length or size, with sound, and on sequences that are no videos."""

from fractions import Fraction

import numpy as np
import pytest
import tifffile
from flir_files import RAW, counts_of, fff, raw_record
from videos import read_video, write_frames, write_video

from langfuse_jax import Fuser, UserError, fuse_video
from langfuse_jax.images.files import write_png
from langfuse_jax.images.naming import Convention
from langfuse_jax.images.palettes import palette
from langfuse_jax.inference.encoder import Encoding

av = pytest.importorskip("av")


def flat(levels, height=48, width=64):
    return [np.full((height, width), level, np.uint8) for level in levels]


@pytest.fixture(scope="module")
def infrared_shown():
    """A stand-in for the fuser, whose fused image is the infrared one: which frame went with which shows."""

    class Infrared(Fuser):
        def program(self, canvas, batch):
            return lambda visible, infrared, sizes: infrared

    return lambda: Infrared(Fuser.load().params)


def shown(path):
    return [round(float(frame.mean())) for frame in read_video(path)[1]]


def test_frames_go_together_by_their_times(tmp_path, infrared_shown):
    visible = write_video(tmp_path / "a.mp4", flat(range(30)), rate=30)
    thermal = write_video(tmp_path / "b.mkv", flat(range(40, 140, 10)), rate=10, codec="ffv1", colour="gray")
    out = tmp_path / "c.mkv"
    lossless = Encoding("ffv1")
    assert fuse_video(visible, thermal, out, load_fuser=infrared_shown, encoding=lossless).frames == 30
    nearest = [40 + 10 * min(9, round(number / 3 + 1e-6)) for number in range(30)]
    np.testing.assert_allclose(shown(out), nearest, atol=1)
    assert read_video(out)[0] == 30


def test_times_of_a_variable_rate_are_kept(tmp_path, infrared_shown):
    times = [0, 1, 2, 6, 7, 12]
    path = tmp_path / "a.mkv"
    with av.open(path, "w") as container:
        stream = container.add_stream("ffv1", rate=10)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "gray"
        for time, image in zip(times, flat(times), strict=True):
            frame = av.VideoFrame.from_ndarray(image, format="gray")
            frame.pts, frame.time_base = time, Fraction(1, 10)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    thermal = write_video(tmp_path / "b.mkv", flat(range(100, 126)), rate=20, codec="ffv1", colour="gray")
    out = tmp_path / "c.mkv"
    fuse_video(path, thermal, out, load_fuser=infrared_shown, encoding=Encoding("ffv1"), shortest=True)
    with av.open(out) as container:
        shown_at = [float(frame.pts * frame.time_base) for frame in container.decode(video=0)]
    np.testing.assert_allclose(shown_at, np.array(times) / 10, atol=0.002)
    np.testing.assert_allclose(shown(out), [100 + 2 * time for time in times], atol=1)


def test_the_shortest_ends_it(tmp_path, infrared_shown):
    visible = write_video(tmp_path / "a.mp4", flat(range(12)), rate=25)
    for count, rate in ((8, 25), (2, 10)):
        thermal = write_video(tmp_path / f"{rate}.mp4", flat(range(40, 40 + count)), rate=rate)
        with pytest.raises(UserError, match="or give --shortest"):
            fuse_video(visible, thermal, tmp_path / "c.mp4", load_fuser=infrared_shown)
        assert not (tmp_path / "c.mp4").exists()
    short = tmp_path / "25.mp4"
    assert fuse_video(visible, short, tmp_path / "c.mp4", load_fuser=infrared_shown, shortest=True).frames == 8
    assert fuse_video(short, visible, tmp_path / "d.mp4", load_fuser=infrared_shown, shortest=True).frames == 8


def with_sound(path, images, codec):
    with av.open(path, "w") as container:
        video, audio = container.add_stream("libx264", rate=25), container.add_stream(codec, rate=8000)
        video.height, video.width, video.pix_fmt, audio.layout = 48, 64, "yuv420p", "mono"
        for image in images:
            container.mux(video.encode(av.VideoFrame.from_ndarray(image, format="gray")))
        tone = (8000 * np.sin(np.arange(8000 * len(images) // 25) / 5)).astype(np.int16)[None]
        sound = av.AudioFrame.from_ndarray(tone, format="s16", layout="mono")
        sound.sample_rate, sound.pts = 8000, 0
        resampler = av.AudioResampler(audio.format, audio.layout, 8000, frame_size=audio.frame_size or 0)
        for part in (*resampler.resample(sound), *resampler.resample(None)):
            container.mux(audio.encode(part))
        for stream in (video, audio):
            container.mux(stream.encode())
    return path


def heard(path):
    with av.open(path) as container:
        if not container.streams.audio:
            return None
        return np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)]).astype(float)


def test_the_sound_of_the_visible_video_is_kept(tmp_path, infrared_shown, capsys):
    visible = with_sound(tmp_path / "a.mp4", flat(range(50)), "aac")
    thermal = write_video(tmp_path / "b.mp4", flat(range(50)), rate=25)
    out = tmp_path / "c.mp4"
    fuse_video(visible, thermal, out, load_fuser=infrared_shown)
    ours, theirs = heard(out), heard(visible)
    length = min(len(ours), len(theirs))
    assert length > 0.9 * len(theirs) and np.abs(ours[:length] - theirs[:length]).max() < 1e-3
    pcm = with_sound(tmp_path / "p.mkv", flat(range(50)), "wavpack")
    fuse_video(pcm, thermal, out, load_fuser=infrared_shown)
    assert heard(out) is None
    assert "its sound (wavpack) does not go into .mp4: left out" in capsys.readouterr().err


@pytest.mark.parametrize(("name", "codec"), [("c.mp4", "hevc"), ("c.mkv", "ffv1"), ("c.mov", "h264")])
def test_codecs(tmp_path, infrared_shown, name, codec):
    visible, thermal = (write_frames(tmp_path / role, flat((10, 90, 200))) for role in ("vi", "ir"))
    fuse_video(visible, thermal, tmp_path / name, load_fuser=infrared_shown, encoding=Encoding(codec))
    with av.open(tmp_path / name) as container:
        assert container.streams.video[0].codec_context.name == codec
    np.testing.assert_allclose(shown(tmp_path / name), (10, 90, 200), atol=2)


def test_flir_sequences_and_pages_are_frames(tmp_path, infrared_shown):
    counts = [counts_of(48, 64) + np.uint16(10 * number) for number in range(3)]
    sequence, pages = tmp_path / "a.seq", tmp_path / "a.tiff"
    sequence.write_bytes(b"".join(fff([(RAW, raw_record(frame))]) for frame in counts))
    tifffile.imwrite(pages, np.stack(counts), photometric="minisblack")
    visible = write_frames(tmp_path / "vi", flat((10, 90, 200)))
    files = write_frames(tmp_path / "ir", counts)
    fused = []
    for number, source in enumerate((files, sequence, pages)):
        out = tmp_path / f"{number}.mkv"
        assert fuse_video(visible, source, out, load_fuser=infrared_shown, encoding=Encoding("ffv1")).frames == 3
        fused.append(read_video(out)[1])
    np.testing.assert_array_equal(fused[0], fused[1])
    np.testing.assert_array_equal(fused[0], fused[2])
    stack = tmp_path / "v.tiff"
    tifffile.imwrite(stack, np.stack(flat((10, 90, 200))), photometric="minisblack")
    assert fuse_video(stack, sequence, tmp_path / "s.mp4", load_fuser=infrared_shown).frames == 3
    sequence.write_bytes(sequence.read_bytes()[:-1000])
    with pytest.raises(UserError, match=r"a\.seq: its frame 2 cannot be read"):
        fuse_video(visible, sequence, tmp_path / "cut.mp4", load_fuser=infrared_shown)
    assert not (tmp_path / "cut.mp4").exists()


def test_sources_of_two_resolutions(tmp_path, infrared_shown):
    visible = write_frames(tmp_path / "vi", flat((10, 90), 96, 128))
    thermal = write_frames(tmp_path / "ir", flat((50, 60)))
    with pytest.raises(UserError, match="--resize visible or infrared"):
        fuse_video(visible, thermal, tmp_path / "c.mp4", load_fuser=infrared_shown)
    for resize, size in (("visible", (96, 128)), ("infrared", (48, 64))):
        fuse_video(visible, thermal, tmp_path / "c.mp4", load_fuser=infrared_shown, resize=resize)
        assert read_video(tmp_path / "c.mp4")[1].shape[1:3] == size


@pytest.mark.parametrize("kind", ["video", "pages"])
def test_false_colour_is_undone(tmp_path, infrared_shown, capsys, kind):
    """By the palette of the first frame that has any colour."""
    levels = np.tile(np.linspace(20, 230, 64).astype(np.uint8), (48, 1))
    frames = [palette("jet")[np.roll(levels, 4 * i, 1)] for i in range(4)]
    if kind == "pages":
        thermal = tmp_path / "b.tif"
        with tifffile.TiffWriter(thermal) as writer:
            for frame in frames:
                writer.write(frame, photometric="rgb", contiguous=False)
    else:
        thermal = write_video(tmp_path / "b.mp4", frames, rate=25, colour="yuv444p")
    visible = write_video(tmp_path / "a.mp4", flat(range(4)), rate=25)
    out = tmp_path / "c.mkv"
    fuse_video(visible, thermal, out, load_fuser=infrared_shown, encoding=Encoding("ffv1"))
    assert capsys.readouterr().err.count("b.mp4: is in false colour (palette jet)" if kind == "video" else "jet") == 1
    got = read_video(out)[1][..., 0].astype(float)
    want = np.stack([np.roll(levels, 4 * i, 1) for i in range(4)])
    assert np.quantile(np.abs(got - want), 0.9) <= 4


def test_what_is_probably_not_meant_is_said(tmp_path, infrared_shown, capsys):
    photo = [np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)] * 2
    coloured = write_video(tmp_path / "b.mp4", photo, rate=25, colour="yuv444p")
    visible = write_video(tmp_path / "a.mp4", flat(range(2)), rate=25)
    copy = tmp_path / "c.mp4"
    copy.write_bytes(visible.read_bytes())
    for infrared, said in ((coloured, "b.mp4 is in colour and"), (copy, "c.mp4 show the same")):
        fuse_video(visible, infrared, tmp_path / "d.mkv", load_fuser=infrared_shown, encoding=Encoding("ffv1"))
        assert said in capsys.readouterr().err


def test_a_false_colour_video_may_start_in_black(tmp_path, infrared_shown, capsys):
    levels = np.tile(np.linspace(20, 230, 64).astype(np.uint8), (48, 1))
    frames = [np.zeros((48, 64, 3), np.uint8), *[palette("jet")[levels]] * 2]
    thermal = write_video(tmp_path / "b.mp4", frames, rate=25, colour="yuv444p")
    visible = write_video(tmp_path / "a.mp4", flat(range(3)), rate=25)
    fuse_video(visible, thermal, tmp_path / "c.mkv", load_fuser=infrared_shown, encoding=Encoding("ffv1"))
    assert "palette jet" in capsys.readouterr().err
    got = read_video(tmp_path / "c.mkv")[1][..., 0].astype(float)
    assert got[0].max() <= 4 and np.quantile(np.abs(got[2] - levels), 0.9) <= 4


def test_frames_are_paired_by_the_names_of_cameras(tmp_path, infrared_shown):
    """In two folders and in one; and sensors of a few pixels are enlarged."""
    images = [np.full((48, 64), 20 * i, np.uint8) for i in range(1, 4)]
    for i, image in enumerate(images):
        for folder in ("vi", "one"):
            write_png(tmp_path / folder / f"f{i + 1}_rgb.png", image)
        for folder in ("ir", "one"):
            write_png(tmp_path / folder / f"f{i + 1}_thermal.png", image[:6, :8])
    settings = {"load_fuser": infrared_shown, "encoding": Encoding("ffv1"), "resize": "visible", "fps": 5}
    for visible, infrared in (("vi", "ir"), ("one", "one")):
        result = fuse_video(tmp_path / visible, tmp_path / infrared, tmp_path / "c.mkv", **settings)
        assert result.frames == 3 and result.unpaired == []
        np.testing.assert_allclose(shown(tmp_path / "c.mkv"), [20, 40, 60], atol=1)
    with pytest.raises(UserError, match=r"--pair-by .*: is for two folders of frames"):
        video = write_video(tmp_path / "a.mp4", images, rate=25)
        fuse_video(video, tmp_path / "ir", tmp_path / "c.mkv", pair_by=Convention("*_a", "*_b"), **settings)


def test_pages_without_a_value_are_those_of_files(tmp_path, infrared_shown):
    """No-data is no cold: the visible frame shows there."""
    page = np.linspace(20, 30, 48 * 64, dtype=np.float32).reshape(48, 64)
    page[:, :16] = -9999
    with tifffile.TiffWriter(tmp_path / "b.tif") as writer:
        for _ in range(2):
            writer.write(page, contiguous=False, extratags=[(42113, "s", 0, "-9999", True)])
    visible = write_video(tmp_path / "a.mp4", flat([77, 77]), rate=25)
    fuse_video(visible, tmp_path / "b.tif", tmp_path / "c.mkv", load_fuser=infrared_shown, encoding=Encoding("ffv1"))
    got = read_video(tmp_path / "c.mkv")[1][0, ..., 0]
    np.testing.assert_allclose(got[:, :16], 77, atol=3)
    assert got[0, 17] < 20 and got[-1, -1] > 240


def test_a_damaged_file_of_pages_is_one_line(tmp_path, infrared_shown):
    with tifffile.TiffWriter(tmp_path / "b.tif") as writer:
        for _ in range(2):
            writer.write(np.zeros((48, 64), np.uint16), contiguous=False)
    content = (tmp_path / "b.tif").read_bytes()
    visible = write_video(tmp_path / "a.mp4", flat([7, 7]), rate=25)
    for cut in (5, 9, 100):
        (tmp_path / "b.tif").write_bytes(content[:cut])
        with pytest.raises(UserError, match=r"b\.tif"):
            fuse_video(visible, tmp_path / "b.tif", tmp_path / "c.mkv", load_fuser=infrared_shown)
