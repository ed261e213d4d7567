"""What the page computes, without the page: PNGs, notes, tables and ZIPs of files, and the mistakes of its users."""

import os
import zipfile
from io import BytesIO

import numpy as np
import pytest
from misaligned import rig_pair, rig_warp
from PIL import Image

from langfuse_jax import Fuser
from langfuse_jax.cli import main
from langfuse_jax.clip.words import EXAMPLE_GOALS
from langfuse_jax.examples.night_scene import night_scene, write_night_scenes
from langfuse_jax.images.files import to_uint8, write_png
from langfuse_jax.metrics import USUAL
from langfuse_jax.page.load import load_pair
from langfuse_jax.page.many import FAILED, fuse_many
from langfuse_jax.page.mistakes import Mistake, on_the_page
from langfuse_jax.page.sentences import KEPT, Sentences
from langfuse_jax.page.studio import LOADED, RESULTS, Studio, Wish
from langfuse_jax.page.table import MEANING, as_html, scores
from langfuse_jax.page.views import MAPS


@pytest.fixture(scope="module")
def fuser():
    return Fuser.load()


@pytest.fixture
def studio(fuser, tmp_path):
    return Studio(fuser, tmp_path / "pictures")


@pytest.fixture
def paths(tmp_path):
    return _write(tmp_path, 48, 64)


def _write(folder, height, width):
    paths = [str(folder / f"{role}.png") for role in ("visible", "infrared")]
    for path, image in zip(paths, night_scene(height, width), strict=True):
        write_png(path, image)
    return paths


def _pixels(path):
    return np.asarray(Image.open(path))


def _mistake(make):
    with pytest.raises(Mistake) as caught:
        make()
    return caught.value.field, str(caught.value)


def test_an_upload_is_fused_as_the_fuser_does(studio, fuser, paths):
    result = studio.fuse(Wish(*paths))
    assert result.fused == result.right and result.fused.endswith("visible_fused.png")
    np.testing.assert_allclose(np.int32(_pixels(result.left)), _pixels(paths[0]), atol=1)
    expected = to_uint8(fuser(*map(_pixels, paths)))
    assert np.abs(np.int32(_pixels(result.fused)) - expected).max() <= 1
    assert not (result.verdict or result.goal_remarks or result.legend)


def test_the_goal_its_strength_and_the_colours_act(studio, fuser, paths):
    plain, bright, half = (
        _pixels(studio.fuse(Wish(*paths, goal=goal, strength=strength)).fused).astype(int)
        for goal, strength in (("", 1), ("a bright image", 1), ("a bright image", 0.5))
    )
    assert plain.mean() + 5 < half.mean() < bright.mean() - 5
    expected = to_uint8(fuser(*map(_pixels, paths), goal="a bright image", strength=0.5))
    assert np.abs(half - expected).max() <= 1
    np.testing.assert_array_equal(_pixels(studio.fuse(Wish(*paths, goal="a bright image", strength=0)).fused), plain)
    assert _pixels(studio.fuse(Wish(*paths, colour=False)).fused).ndim == 2


def test_a_sentence_is_encoded_once(fuser, monkeypatch):
    calls = []
    towards = Fuser.towards

    def counted(self, *goals, **options):
        calls.append(goals)
        return towards(self, *goals, **options)

    monkeypatch.setattr(Fuser, "towards", counted)
    sentences = Sentences(fuser)
    for strength in (0, 0.5, 1.5):
        sentences.towards("  a bright   image ", strength)
    assert calls == [("a bright image",)]
    for number in range(KEPT):
        sentences.towards("a dark image" + " and sharp" * number)
    sentences.towards("a bright image")
    assert len(calls) == KEPT + 2


def test_examples_are_understood_and_unknown_words_are_told(fuser):
    sentences = Sentences(fuser)
    assert [sentences.towards(goal)[1] for goal in EXAMPLE_GOALS] == [()] * len(EXAMPLE_GOALS)
    _, (remark,) = sentences.towards("a bright zebra")
    assert "zebra" in remark and "--" not in remark
    field, message = _mistake(lambda: sentences.towards("zebra"))
    assert field == "goal" and "zebra" in message and "--" not in message and "docs/" not in message


def test_weights_without_words_have_no_maps_and_take_no_goal(tmp_path, paths):
    studio = Studio(Fuser.load(model="ldfusion"), tmp_path / "pictures")
    assert not studio.sentences.followed and studio.views() == ["Visible", "Infrared", "Fused"]
    assert _mistake(lambda: studio.fuse(Wish(*paths, goal="a bright image")))[0] == "goal"


def test_the_viewer_shows_any_two(studio, paths):
    result = studio.fuse(Wish(*paths, left="Infrared", right="Infrared share, fine detail (2 pixels)"))
    np.testing.assert_array_equal(_pixels(result.left), _pixels(paths[1]))
    assert _pixels(result.right).shape == (48, 64, 3) and "blue" in result.legend
    assert len(set(result[:3])) == 3 and set(MAPS) < set(studio.views())


def test_pictures_do_not_pile_up(studio, paths, monkeypatch):
    monkeypatch.setattr("langfuse_jax.page.studio.RESULTS", 2)
    monkeypatch.setattr("langfuse_jax.page.studio.LOADED", 1)
    assert RESULTS > 2 and LOADED > 1
    first = studio.fuse(Wish(*paths))
    for strength in (0.5, 1, 1.5):
        studio.fuse(Wish(*paths, goal="a bright image", strength=strength))
    studio.fuse(Wish(paths[0], _gray_copy(paths[1])))
    assert len(list(studio.folder.glob("result_*"))) == 2 and len(list(studio.folder.glob("sources_*"))) == 1
    assert _mistake(lambda: scores(first)) == ("metrics", "This result has expired; fuse the pair again.")


def _gray_copy(path):
    copy = path.replace("infrared", "other")
    write_png(copy, 255 - _pixels(path))
    return copy


def test_mistakes_stand_beside_their_field(paths, tmp_path):
    visible, infrared = paths
    assert _mistake(lambda: load_pair(None, infrared)) == ("visible", "Give a visible image: this field is empty.")
    assert _mistake(lambda: load_pair(visible, None))[0] == "infrared"
    assert "one file" in _mistake(lambda: load_pair(visible, visible))[1]
    gone = str(tmp_path / "gone.png")
    assert _mistake(lambda: load_pair(visible, gone)) == (
        "infrared",
        "gone.png: has expired; upload it again.",
    )
    other = str(tmp_path / "text.png")
    (tmp_path / "text.png").write_text("no picture")
    for pair, field in (((visible, other), "infrared"), ((other, infrared), "visible")):
        for align in (False, True):
            found, message = _mistake(lambda pair=pair, align=align: load_pair(*pair, align=align))
            assert found == field and message.startswith("text.png: is not an image")
    Image.new("L", (64, 49)).save(other)
    field, message = _mistake(lambda: load_pair(visible, other))
    assert field == "infrared" and "tick the box" in message and "--" not in message and str(tmp_path) not in message
    Image.new("L", (2500, 2000)).save(other)
    assert "2500x2000, over 4 megapixels" in _mistake(lambda: load_pair(visible, other))[1]
    Image.new("L", (64, 48)).save(other)
    field, message = _mistake(lambda: load_pair(visible, other, align=True))
    assert field == "align" and str(tmp_path) not in message


def test_alignment_says_what_it_rests_on(tmp_path):
    for role, image in zip(("vi", "ir"), rig_pair(rig_warp()), strict=True):
        write_png(tmp_path / f"{role}.png", image)
    loaded = load_pair(str(tmp_path / "vi.png"), str(tmp_path / "ir.png"), align=True)
    assert loaded.verdict.startswith("Alignment accepted") and "overlap" in loaded.verdict
    assert loaded.luma.shape == loaded.infrared.shape != (480, 640)
    loaded = load_pair(str(tmp_path / "vi.png"), str(tmp_path / "ir.png"))
    (remark,) = loaded.remarks
    assert "out of register" in remark and "the box below" in remark and "--" not in remark


def test_metrics_are_those_of_evaluate(studio, paths):
    result = studio.fuse(Wish(*paths))
    found = scores(result)
    images = [np.asarray(Image.open(path).convert("L"), float) for path in (result.fused, *paths)]
    np.testing.assert_allclose(found["SD"], [images[0].std(), ((images[1] + images[2]) / 2).std()], atol=0.1)
    table = as_html(found)
    assert set(MEANING) == set(USUAL) and all(f">{name} " in table for name in USUAL)
    assert f"<td>{found['SD'][0]:.3f}</td>" in table and "Higher is better." in table


def test_no_flag_of_the_command_line_is_told_on_the_page():
    said = on_the_page("/srv/a/7_vi.png: unpaired; name them alike, or give --pair-by", ["/srv/a"])
    assert said == "7_vi.png: unpaired; name them alike"


def test_many_pairs_become_a_zip(fuser, tmp_path):
    write_night_scenes(tmp_path / "in", 2, 48, 64)
    folders = [tmp_path / "in" / role for role in ("visible", "infrared")]
    (folders[1] / "1.png").write_text("no picture")
    write_png(folders[0] / "2.png", np.zeros((48, 64)))
    files = [[str(path) for path in sorted(folder.iterdir())] for folder in folders]
    done = fuse_many(Sentences(fuser), *files, tmp_path, goal="a bright image", colour=False)
    assert (done.fused, done.pairs, len(done.failed)) == (1, 2, 2)
    assert done.failed[0].startswith("2.png: unpaired") and done.failed[1].startswith("1: 1.png: is not an image")
    with zipfile.ZipFile(done.path) as archive:
        assert archive.namelist() == ["0.png", FAILED]
        assert archive.read(FAILED).decode().splitlines() == list(done.failed)
        fused = np.asarray(Image.open(BytesIO(archive.read("0.png"))))
    luma, _, infrared = load_pair(files[0][0], files[1][0])[2:5]
    expected = to_uint8(fuser(luma, infrared, goal="a bright image"))
    assert np.abs(np.int32(fused) - expected).max() <= 1
    assert [path.name for path in done.path.parent.iterdir()] == [done.path.name]


@pytest.mark.parametrize("top", ["", "trip/"])
def test_a_zip_of_two_folders(fuser, tmp_path, top):
    write_night_scenes(tmp_path / "in", 2, 48, 64)
    given = tmp_path / "given.zip"
    with zipfile.ZipFile(given, "w") as archive:
        for path in sorted((tmp_path / "in").glob("*/*.png")):
            role = {"visible": "vi", "infrared": "Thermal"}[path.parent.name]
            archive.write(path, f"{top}{role}/{path.name}")
        archive.writestr("__MACOSX/vi/._0.png", "")
        archive.writestr(f"{top}read me.txt", "")
        for name in (f"../../{top}vi/escaped.png", f"/{top}vi/absolute.png"):  # whose places are below the folder
            archive.writestr(name, "")
    (tmp_path / "out").mkdir()
    before = {path for path in tmp_path.parent.rglob("*")}
    done = fuse_many(Sentences(fuser), [], [str(given)], tmp_path / "out")
    assert done.fused == 2 and [line.split(":")[0] for line in done.failed] == ["absolute.png"]
    made = {path for path in tmp_path.parent.rglob("*")} - before
    assert all(path.is_relative_to(tmp_path / "out") for path in made) and not os.path.exists(f"/{top}vi")


def test_mistakes_with_many(fuser, tmp_path, monkeypatch):
    sentences = Sentences(fuser)
    write_night_scenes(tmp_path / "in", 2, 48, 64)
    visible, infrared = ([str(tmp_path / "in" / role / f"{i}.png") for i in (0, 1)] for role in ("visible", "infrared"))
    broken = tmp_path / "broken.zip"

    def said(*files, **options):
        field, message = _mistake(lambda: fuse_many(sentences, *files, tmp_path, **options))
        assert str(tmp_path) not in message and "--" not in message
        return f"{field}: {message}"

    assert "many: Give visible and infrared" in said([], [])
    assert "no infrared images" in said(visible, [])
    assert "no file of one has the stem" in said(visible[:1], infrared[1:])
    assert "goal: " in said(visible, infrared, goal="zebra")
    with zipfile.ZipFile(broken, "w") as archive:
        archive.writestr("a/1.png", "")
    assert "many: broken.zip: needs a folder named visible" in said([str(broken)], [])
    content = bytearray(broken.read_bytes())
    with zipfile.ZipFile(broken, "w") as archive:
        archive.write(visible[0], "visible/0.png")
    content = bytearray(broken.read_bytes())
    content[200] ^= 255
    broken.write_bytes(content)
    assert "cannot be unpacked" in said([], [str(broken)])
    assert "is a ZIP beside other files" in said(visible, [str(broken)])
    monkeypatch.setattr("langfuse_jax.page.many.MAX_PAIRS", 1)
    assert "at most 1 pairs" in said(visible, infrared)
    assert not list(tmp_path.glob("many_*"))


@pytest.mark.parametrize("port", ["0", "70000"])
def test_a_port_that_is_none(capsys, port):
    assert main(["demo", "--port", port]) == 2
    assert f"--port {port}: is not a valid port" in capsys.readouterr().err
