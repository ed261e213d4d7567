"""Layouts of folders, builders and prepared datasets, on small drawn images; RoadScene's real ones where they are."""

import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from langfuse_jax.cli import main
from langfuse_jax.data import build, prepared
from langfuse_jax.data.pipeline import TrainingData
from langfuse_jax.data.scenes import Scenes, list_scenes, read_scene
from langfuse_jax.errors import UserError
from langfuse_jax.runtime.bars import progress_bar


def _draw(folder, names, *, seed=0, mode="RGB", size=(40, 48)):
    """Random images in a folder."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    for name in names:
        pixels = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
        Image.fromarray(pixels).convert(mode).save(folder / name)


def _pairs(folder, visible, infrared, names=("b.png", "a.jpg", "c.png")):
    _draw(folder / visible, names, seed=1)
    _draw(folder / infrared, names, seed=2, mode="L")


@pytest.fixture
def source(tmp_path):
    """Three pairs as a user has them."""
    _pairs(tmp_path / "source", "visible", "infrared")
    return tmp_path / "source"


def _build(dataset, source, out, *flags):
    return main(["data", "build", dataset, "--source", str(source), "--out", str(out), *flags])


@pytest.mark.parametrize(
    ("visible", "infrared"),
    [
        ("visible", "infrared"),
        ("vi", "ir"),
        ("Vis", "Ir"),
        ("VIS", "IR"),
        ("crop_LR_visible", "cropinfrared"),
        ("visible/train", "infrared/train"),
        ("train/vi", "train/ir"),
    ],
)
def test_common_layouts(tmp_path, visible, infrared):
    _pairs(tmp_path, visible, infrared)
    if "train" in visible:
        _pairs(tmp_path, *(name.replace("train", "test") for name in (visible, infrared)), names=("d.png",))
    (tmp_path / "Annotation").mkdir()
    assert [scene.stem for scene in list_scenes(tmp_path)] == ["a", "b", "c"]
    assert [scene.stem for scene in list_scenes(tmp_path, "test")] == (["d"] if "train" in visible else ["a", "b", "c"])
    for scene in list_scenes(tmp_path):
        assert visible in str(scene.visible) and infrared in str(scene.infrared)


@pytest.mark.parametrize("inside", [".", "train"])
def test_both_roles_in_one_folder(tmp_path, capsys, inside):
    """As cameras leave them; a dataset is prepared of them too."""
    _draw(tmp_path / "mine" / inside, ["x_W.png", "x_T.png", "y_W.png", "y_T.png"])
    scenes = list_scenes(tmp_path / "mine")
    assert [(s.stem, s.visible.name, s.infrared.name) for s in scenes] == [
        ("x", "x_W.png", "x_T.png"),
        ("y", "y_W.png", "y_T.png"),
    ]
    assert _build("folder", tmp_path / "mine", tmp_path / "data") == 0
    assert [record.stem for record in list_scenes(tmp_path / "data" / "folder")] == ["x", "y"]
    (tmp_path / "mine" / inside / "y_T.png").unlink()
    with pytest.raises(UserError, match=r"y_W.png: no image of that stem on the other side"):
        list_scenes(tmp_path / "mine")


def test_two_folders_of_one_role_are_refused(source):
    _draw(source / "Vis", ["a.png"])
    with pytest.raises(UserError, match=r"visible and .*Vis: which of them"):
        list_scenes(source)


def test_a_prepared_dataset_gives_the_batches_of_its_folder(source, tmp_path, capsys):
    deep = np.random.default_rng(3).integers(20000, 30000, (40, 48)).astype(np.uint16)
    Image.fromarray(deep).save(source / "infrared" / "c.png")  # raw thermal counts
    assert _build("folder", source, tmp_path / "data", "--name", "mine") == 0
    printed = capsys.readouterr().out
    assert "mine/1.0.0: train 3 pairs" in printed and "--config.data.train=\"('mine',)\"" in printed
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == ["mine"]
    folder, records = list_scenes(source), list_scenes(tmp_path / "data" / "mine")
    assert [r.stem for r in records] == ["a", "b", "c"]
    for pair, record in zip(folder, records, strict=True):
        jpeg_or_png = zip(read_scene(pair), read_scene(record), strict=True)
        assert all(np.array_equal(a, b) for a, b in jpeg_or_png)
    batches = [
        TrainingData(Scenes(s), crop=32, batch_size=2, seed=5, workers=w).batches()
        for s, w in ((folder, 0), (records, 1))
    ]
    for _ in range(3):
        a, b = map(next, batches)
        np.testing.assert_array_equal(a["infrared"], b["infrared"])
    batches[1].close()
    assert "tensorflow" not in sys.modules


def test_both_passes_over_the_pairs_show_a_bar(source, tmp_path, monkeypatch):
    """Each pair moves each of them once."""
    moved = {}

    def recorded(total, *, unit, desc):
        bar = progress_bar(total, unit=unit, desc=desc)
        moved[desc] = [total, 0]

        def update(count=1):
            moved[desc][1] += count

        bar.update = update
        return bar

    monkeypatch.setattr(build, "progress_bar", recorded)
    assert _build("folder", source, tmp_path / "out") == 0
    assert moved == {"checking": [3, 3], "writing": [3, 3]}


def test_building_again_is_asked_for(source, tmp_path, capsys):
    assert _build("folder", source, tmp_path / "data") == 0
    _draw(source / "Visible2", ["a.png"])
    for role in ("visible", "infrared"):
        (source / role / "c.png").unlink()
    capsys.readouterr()
    assert _build("folder", source, tmp_path / "data") == 0
    assert "is there already (--overwrite" in capsys.readouterr().out
    assert len(list_scenes(tmp_path / "data" / "folder")) == 3
    assert _build("folder", source, tmp_path / "data", "--overwrite") == 0
    prepared._open_source.cache_clear()  # another process would not have it
    assert len(list_scenes(tmp_path / "data" / "folder")) == 2


def test_datasets_as_they_are_downloaded(tmp_path):
    _pairs(tmp_path / "road", "crop_LR_visible", "cropinfrared")
    _pairs(tmp_path / "road", "crop_HR_visible", "other")
    _pairs(tmp_path / "msrs" / "train", "vi", "ir")
    _pairs(tmp_path / "msrs" / "test", "vi", "ir", names=("d.png", "e.png"))
    _pairs(tmp_path / "llvip", "visible/train", "infrared/train")
    _pairs(tmp_path / "llvip", "visible/test", "infrared/test", names=("d.png",))
    _pairs(tmp_path / "m3fd", "Vis", "Ir")
    for scene in ("Athena_images/heather", "Athena_images/soldier/view_1", "tank"):
        _draw(tmp_path / "tno" / scene, ["VIS_x_r.bmp"], mode="L")
        _draw(tmp_path / "tno" / scene / "thermal", ["IR_1.bmp"], mode="L")
        Image.new("L", (48, 40)).save(tmp_path / "tno" / scene / ("LWIR.tif" if scene == "tank" else "IR_x_g.bmp"))
    expected = {
        "roadscene": ("road", {"train": 3}),
        "msrs": ("msrs", {"train": 3, "test": 2}),
        "llvip": ("llvip", {"train": 3, "test": 1}),
        "m3fd": ("m3fd", {"train": 3}),
        "tno": ("tno", {"train": 3}),
    }
    for dataset, (folder, counts) in expected.items():
        assert _build(dataset, tmp_path / folder, tmp_path / "data") == 0
        for part, count in counts.items():
            scenes = list_scenes(tmp_path / "data" / dataset, part)
            assert len(scenes) == count
            assert read_scene(scenes[-1])[0].shape == (40, 48)
    assert list_scenes(tmp_path / "data" / "tno")[1].stem == "Athena_images_soldier_view_1"


def test_every_builder_says_where_it_is_from():
    from langfuse_jax.data.builders import BUILDERS

    assert list(BUILDERS) == ["roadscene", "msrs", "llvip", "m3fd", "tno", "folder"]
    for name, builder in BUILDERS.items():
        assert builder.name == name and builder.LICENCE and builder.HOMEPAGE.startswith("https://")
        assert builder.MANUAL_DOWNLOAD_INSTRUCTIONS and ("title={" in builder.CITATION or name == "folder")


def _unpaired(source):
    (source / "infrared" / "b.png").unlink()


def _empty(source):
    for path in source.glob("*/*"):
        path.unlink()


def _damaged(source):
    (source / "visible" / "c.png").write_bytes(b"no image")


def _sizes(source):
    Image.new("L", (64, 64)).save(source / "infrared" / "b.png")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_unpaired, "visible/b.png: no image of that stem"),
        (_empty, "has no visible images"),
        (_damaged, "c.png: is not an image"),
        (_sizes, "b.png is 64x64"),
    ],
)
def test_a_bad_source_ends_in_one_line_and_nothing_written(source, tmp_path, capsys, spoil, message):
    spoil(source)
    assert _build("folder", source, tmp_path / "data") == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert len(error) == 1 and message in error[0]
    assert not list((tmp_path / "data").rglob("*"))


def test_bad_arguments_of_build(source, tmp_path, capsys):
    assert _build("llvip", tmp_path / "absent", tmp_path / "data") == 2
    assert "no such folder. Download LLVIP.zip" in capsys.readouterr().err
    assert _build("folder", source, tmp_path / "data", "--name", "My Data") == 2
    assert "--name My Data: use small letters" in capsys.readouterr().err


def test_a_dataset_of_another_version_or_not_whole(source, tmp_path):
    _build("folder", source, tmp_path / "data")
    place = tmp_path / "data" / "folder"
    (place / "1.0.0" / "metadata.json").unlink()
    with pytest.raises(UserError, match=r"1\.0\.0: is not a whole dataset"):
        list_scenes(place)
    (place / "1.0.0").rename(place / "0.9.0")
    with pytest.raises(UserError, match=r"is prepared in version 0\.9\.0, and this package reads 1\.0\.0"):
        list_scenes(place)


def test_damaged_records_are_passed_over_by_name(source, tmp_path, capsys):
    _build("folder", source, tmp_path / "data")
    (path,) = (tmp_path / "data" / "folder" / "1.0.0").glob("*.array_record*")
    content = bytearray(path.read_bytes())
    middle = content.index((source / "visible" / "b.png").read_bytes()[20:60])
    content[middle : middle + 8] = bytes(8)
    path.write_bytes(content)
    prepared._open_source.cache_clear()
    records = list_scenes(tmp_path / "data" / "folder")
    scenes = Scenes(records, max_unreadable=1)
    np.testing.assert_array_equal(scenes[1][0], read_scene(records[2])[0])
    assert "folder train b (record 1)" in capsys.readouterr().err
    with pytest.raises(UserError, match=r"folder train b \(record 1\)"):
        Scenes(records)[1]


@pytest.mark.shared
def test_roadscene(shared, tmp_path):
    assert _build("roadscene", shared / "data" / "roadscene", tmp_path) == 0
    records, pairs = list_scenes(tmp_path / "roadscene"), list_scenes(shared / "data" / "roadscene")
    assert len(records) == len(pairs) == 171
    for i in range(0, 171, 10):
        for a, b in zip(read_scene(records[i]), read_scene(pairs[i]), strict=True):
            np.testing.assert_array_equal(a, b)


def test_threads_open_a_dataset_one_after_the_other(monkeypatch):
    """Together they could wait for each other's imports for ever."""
    inside, most = [], []

    def open_slowly(*_):
        inside.append(1)
        most.append(len(inside))
        time.sleep(0.02)
        inside.pop()
        return ["record"]

    monkeypatch.setattr(prepared, "_open_source", open_slowly)
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda _: prepared._source(Path("data"), "train"), range(4))) == [["record"]] * 4
    assert max(most) == 1
