"""`langfuse-jax evaluate` as a user meets it: what is scored, written and said, and the exit status."""

import csv
import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from langfuse_jax import Clip, UserError, evaluate_folders
from langfuse_jax.cli import main
from langfuse_jax.clip.words import embed
from langfuse_jax.images import files as images
from langfuse_jax.metrics import CONVENTIONS, evaluate

SIZES = {"a": (40, 52), "b": (33, 64), "c": (56, 40)}


@pytest.fixture
def folders(tmp_path):
    """Scenes a (colour), b, c of three sizes in vi and ir, fused by two methods, with other endings."""
    rng = np.random.default_rng(0)
    for stem, size in SIZES.items():
        visible, infrared = rng.integers(0, 256, (2, *size), np.uint8)
        colour = rng.integers(0, 256, (*size, 3), np.uint8)
        images.write_png(tmp_path / "vi" / f"{stem}.png", colour if stem == "a" else visible)
        images.write_png(tmp_path / "ir" / f"{stem}.png", infrared)
        for method, image in (("mean", (visible / 2 + infrared / 2) / 255), ("max", np.maximum(visible, infrared))):
            (tmp_path / method).mkdir(exist_ok=True)
            Image.fromarray(images.to_uint8(image)).save(tmp_path / method / f"{stem}.bmp")
    return tmp_path


@pytest.fixture
def run(folders, capsys):
    def run(arguments):
        status = main(["evaluate", *arguments.format(t=folders).split()])
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return status, out, err

    return run


SOURCES = "--visible {t}/vi --infrared {t}/ir"
BOTH = f"--fused {{t}}/mean --fused greatest={{t}}/max {SOURCES} --metrics SD,SF,SCD"


def gray(path):
    pixels = np.asarray(Image.open(path)).astype(np.float64)
    return np.rint(pixels @ [0.299, 0.587, 0.114]) if pixels.ndim == 3 else pixels


def test_ragged_scenes_have_the_scores_of_each_image_alone(folders, run):
    status, out, err = run(f"{BOTH} --json {{t}}/o/s.json --csv {{t}}/o/s.csv")
    assert (status, err) == (0, "") and out.startswith("3 images, convention cddfuse\n")
    told = json.loads((folders / "o" / "s.json").read_text())
    assert list(told["methods"]) == ["mean", "greatest"] and told["metrics"]["SD"]["higher_is_better"] is True
    assert (told["images"], told["left_out"], told["convention"]) == (3, [], "cddfuse")
    with open(folders / "o" / "s.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for method, folder in (("mean", "mean"), ("greatest", "max")):
        for stem in SIZES:
            paths = (folders / folder / f"{stem}.bmp", folders / "vi" / f"{stem}.png", folders / "ir" / f"{stem}.png")
            expected = evaluate(*(gray(path).astype(np.float32) for path in paths), metrics=("SD", "SF", "SCD"))
            found = told["methods"][method]["images"][stem]
            (row,) = [row for row in rows if (row["method"], row["image"]) == (method, stem)]
            for name, value in expected.items():
                assert found[name] == float(row[name])
                np.testing.assert_allclose(found[name], value, rtol=2e-4, err_msg=f"{method} {stem} {name}")
        scores = [told["methods"][method]["images"][stem]["SD"] for stem in SIZES]
        np.testing.assert_allclose(told["methods"][method]["mean"]["SD"], np.mean(scores), rtol=1e-12)
        np.testing.assert_allclose(told["methods"][method]["std"]["SD"], np.std(scores), rtol=1e-12)
    ranks = [told["methods"][method]["rank"]["SF"] for method in ("mean", "greatest")]
    assert ranks == [2, 1]  # two noises averaged are smoother than their maximum


def test_in_python(folders, run, capsys):
    """The function of the command: the same table, and nothing on stdout."""
    assert run(f"{BOTH} --goal pedestrians --json {{t}}/s.json")[0] == 0
    told = json.loads((folders / "s.json").read_text())
    clip = Clip.load()
    methods = {"mean": folders / "mean", "greatest": folders / "max"}
    sources = folders / "vi", folders / "ir"
    result = evaluate_folders(
        methods, *sources, metrics=("SD", "SF", "SCD"), load_language=lambda: (clip, embed(clip, goal=["pedestrians"]))
    )
    assert result.title == "3 images, convention cddfuse" and result.left_out == []
    assert result.table.methods == ("mean", "greatest") and result.table.images == ["a", "b", "c"]
    assert list(result.table.columns) == list(told["metrics"])
    for method, means in zip(result.table.methods, result.table.mean, strict=True):
        np.testing.assert_allclose(means, list(told["methods"][method]["mean"].values()), rtol=1e-5)
    (folders / "max" / "b.bmp").write_text("no image")
    result = evaluate_folders(methods, *sources, metrics=["SD"], outputs={"csv": folders / "s.csv"})
    assert result.table.images == ["a", "c"] and len(result.left_out) == 1 and (folders / "s.csv").is_file()
    out, err = capsys.readouterr()
    assert out == "" and err.splitlines() == [f"langfuse-jax: {result.left_out[0]}"]
    for options, message in (({"strict": True}, r"\(--strict\)"), ({"metrics": ["XYZ"]}, "--metrics XYZ: is none of")):
        with pytest.raises(UserError, match=message):
            evaluate_folders(methods, *sources, **options)
    with pytest.raises(UserError, match=r"none: no such file or folder"):
        evaluate_folders({"mine": folders / "none"}, *sources)


def test_one_image_given_as_files(folders, run):
    status, out, err = run("--fused {t}/max/a.bmp --visible {t}/vi/a.png --infrared {t}/ir/a.png --metrics SD")
    assert (status, err) == (0, "")
    assert out == f"1 image, convention cddfuse\n\n      a\nSD ↑  {gray(folders / 'max' / 'a.bmp').std():.2f}\n"


def test_scenes_that_cannot_be_scored_are_named_and_left_out_for_all_methods(folders, run):
    rng = np.random.default_rng(1)
    (folders / "mean" / "b.bmp").unlink()
    images.write_png(folders / "max" / "d_fused.png", rng.random((40, 40)))
    for stem in ("e", "f", "g"):
        for folder in ("vi", "ir", "mean", "max"):
            images.write_png(folders / folder / f"{stem}.png", rng.random((40, 40)))
    images.write_png(folders / "max" / "e.png", rng.random((40, 41)))
    (folders / "ir" / "f.png").write_text("no image")
    whole = (folders / "vi" / "g.png").read_bytes()
    (folders / "vi" / "g.png").write_bytes(whole[: len(whole) // 2])
    status, out, err = run(f"{BOTH} --json {{t}}/s.json")
    assert status == 1 and out.startswith("2 images,")
    told = json.loads((folders / "s.json").read_text())
    assert all(list(method["images"]) == ["a", "c"] for method in told["methods"].values())
    for said in (
        f"{folders}/vi/b.png: left out, no image of that stem in {folders}/mean",
        f"{folders}/max/d_fused.png: left out, no image of that stem in {folders}/vi nor in {folders}/ir",
        f"{folders}/vi/e.png is 40x40 and {folders}/max/e.png is 41x40 pixels: they must be of one size",
        f"{folders}/ir/f.png: is not an image",
        f"{folders}/vi/g.png: cannot be read",
    ):
        assert sum(said in line for line in err.splitlines()) == 1, said
        assert sum(said in line for line in told["left_out"]) == 1, said
    assert len(err.splitlines()) == 6 and len(told["left_out"]) == 5
    assert "langfuse-jax: 5 left out" in err


@pytest.mark.parametrize("problem", ["missing", "size", "damaged"])
def test_strict_ends_at_the_first_scene_that_cannot_be_scored(folders, run, problem):
    path = folders / "mean" / "b.bmp"
    if problem == "damaged":
        path.write_text("no image")
    else:
        path.unlink()
    if problem == "size":
        images.write_png(folders / "mean" / "b.png", np.zeros((64, 33)))
    status, out, err = run(f"{BOTH} --strict --csv {{t}}/s.csv")
    assert (status, out) == (2, "") and err.count("\n") == 1 and "(--strict)" in err and "mean" in err
    assert not (folders / "s.csv").exists()


def test_infrared_of_any_numbers_is_scored_as_it_is_fused(folders, run):
    kelvin = np.linspace(280, 310, np.prod(SIZES["b"]), dtype=np.float32).reshape(SIZES["b"])
    next((folders / "ir").glob("b.*")).unlink()
    Image.fromarray(kelvin).save(folders / "ir" / "b.tif")
    assert run(f"{BOTH} --csv {{t}}/kelvin.csv")[0] == 0
    images.write_png(folders / "ir" / "b.png", images.read_infrared(folders / "ir" / "b.tif"))
    (folders / "ir" / "b.tif").unlink()
    assert run(f"{BOTH} --csv {{t}}/gray.csv")[0] == 0
    assert (folders / "kelvin.csv").read_text() == (folders / "gray.csv").read_text()


@pytest.mark.parametrize(
    ("value", "message"),
    [(np.nan, "has values that are not finite"), (np.inf, "not finite"), (200.0, "floats run from 0.5 to 200")],
)
@pytest.mark.parametrize("role", ["max", "vi"])
def test_floats_that_are_no_image_are_refused(folders, run, role, value, message):
    pixels = np.full(SIZES["b"], 0.5, np.float32)
    pixels[3, 4] = value
    next((folders / role).glob("b.*")).unlink()
    Image.fromarray(pixels).save(folders / role / "b.tif")
    status, out, err = run(f"{BOTH} --csv {{t}}/s.csv")
    assert (status, out) == (2, "") and err.count("\n") == 1
    assert f"{folders}/{role}/b.tif: " in err and message in err
    assert not (folders / "s.csv").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (f"--fused {{t}}/none {SOURCES}", "--fused {t}/none: no such file or folder"),
        ("--fused {t}/max --visible {t}/none --infrared {t}/ir", "--visible {t}/none: no such file or folder"),
        ("--fused {t}/max --visible {t}/vi --infrared {t}/none", "--infrared {t}/none: no such file or folder"),
        ("--fused {t}/max --visible {t}/vi --infrared {t}/vi", "both the visible and the infrared folder"),
        (f"--fused {{t}}/max/a.bmp {SOURCES}", "--fused {t}/max/a.bmp: is a file and --visible {t}/vi a folder"),
        (f"--fused {{t}}/empty {SOURCES}", "{t}/empty: has no fused images"),
        (f"--fused {{t}}/suffixed {SOURCES}", "{t}/vi and {t}/suffixed: no file of one has the stem"),
        (f"--fused {{t}}/suffixed {SOURCES}", "such as c.png and c_fused.png; name them alike up to the ending"),
        (f"--fused {{t}}/max --fused {{t}}/other/max {SOURCES}", "are both named max; give --fused NAME={t}/other/max"),
        (f"{BOTH},XYZ", "--metrics XYZ: is none of EN, SD"),
        (f"{BOTH} --csv {{t}}", "--csv {t}: is a folder"),
        (f"{BOTH} --csv {{t}}/max/a.bmp", "--csv {t}/max/a.bmp: is another file of this command"),
        (f"{BOTH} --csv {{t}}/o --json {{t}}/o", "--json {t}/o: is another file of this command"),
        (f"{BOTH} --plot {{t}}/o.gif", "--plot {t}/o.gif: is of no known kind; end it in .png, .pdf, .svg"),
        (f"{BOTH} --latex {{t}}/max/a.bmp/o.tex", "--latex {t}/max/a.bmp: cannot be written"),
        (f"{BOTH} --text {{t}}/none.npz", "{t}/none.npz: no such text file"),
        (f"{BOTH} --text {{t}}/none.npz --goal x", "holds the sentences already"),
        (f"{BOTH} --clip {{t}}/empty", "config.json"),
    ],
)
def test_users_errors_are_one_line_and_status_two(folders, run, arguments, message):
    (folders / "empty").mkdir()
    for folder, name in (("suffixed", "c_fused.png"), ("other/max", "a.png")):
        images.write_png(folders / folder / name, np.zeros((40, 52)))
    before = {path: path.stat().st_mtime_ns for path in folders.rglob("*")}
    status, out, err = run(arguments)
    assert (status, out) == (2, "") and err.count("\n") == 1 and err.startswith("langfuse-jax: error: ")
    assert message.format(t=folders) in err
    assert {path: path.stat().st_mtime_ns for path in folders.rglob("*")} == before


def test_no_scene_left_is_an_error(folders, run):
    for path in (folders / "ir").iterdir():
        path.write_text("no image")
    status, out, err = run(BOTH)
    assert (status, out) == (2, "") and "no image could be scored" in err.splitlines()[-1]
    assert len(err.splitlines()) == 4


def test_scenes_too_small_for_a_metric_are_named(folders, run, monkeypatch):
    from langfuse_jax.metrics import METRICS

    monkeypatch.setitem(METRICS, "SD", METRICS["SD"]._replace(min_side=40))
    status, out, err = run(BOTH)
    assert status == 1 and out.startswith("2 images,")
    assert f"{folders}/vi/b.png: is 64x33 pixels, and SD needs 40 a side; choose other --metrics; b is left out" in err


def test_flags_are_checked_before_jax_is_imported(folders):
    program = "import sys; from langfuse_jax.cli import main; print(main(sys.argv[1:]), 'jax' in sys.modules)"
    argv = f"evaluate --fused {folders}/none --visible {folders}/vi --infrared {folders}/ir".split()
    done = subprocess.run([sys.executable, "-c", program, *argv], capture_output=True, text=True, check=True)
    assert done.stdout == "2 False\n" and "no such file or folder" in done.stderr


def test_conventions_of_the_flag_are_those_of_the_metrics(capsys):
    with pytest.raises(SystemExit):
        main(["evaluate", "--help"])
    assert "{" + ",".join(CONVENTIONS) + "}" in capsys.readouterr().out


def test_every_file_is_written(folders, run):
    endings = {"csv": "csv", "json": "json", "markdown": "md", "latex": "tex", "plot": "png"}
    outputs = " ".join(f"--{kind} {{t}}/o/s.{ending}" for kind, ending in endings.items())
    status, _, err = run(f"{BOTH} {outputs}")
    assert (status, err) == (0, "")
    assert sorted(path.name for path in (folders / "o").iterdir()) == ["s.csv", "s.json", "s.md", "s.png", "s.tex"]
    width, height = Image.open(folders / "o" / "s.png").size
    assert width > 600 and height > 300
    for ending in ("pdf", "svg"):
        assert run(f"{BOTH} --plot {{t}}/o/s.{ending}")[0] == 0
    assert (folders / "o" / "s.pdf").read_bytes().startswith(b"%PDF") and b"<svg" in (folders / "o/s.svg").read_bytes()


def test_without_matplotlib_the_extra_is_named(folders, run, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    status, out, err = run(f"{BOTH} --plot {{t}}/s.png")
    assert (status, out) == (2, "") and 'run pip install "langfuse-jax[plot]"' in err and err.count("\n") == 1


def test_language_scores_beside_the_others(folders, run):
    text = folders / "text.npz"
    assert main(["embed", "--goal", "a bright image", "--out", str(text)]) == 0
    run("--fused {t}/max --visible {t}/vi --infrared {t}/none")  # empties what was captured
    given = f"--fused {{t}}/max {SOURCES} --metrics SD --json {{t}}/"
    assert run(f"{given}text.json --text {text}")[0] == 0
    status = main(["evaluate", *f"{given}goal.json".format(t=folders).split(), "--goal", "a bright image"])
    assert status == 0 and run(f"{given}default.json --language")[0] == 0
    told = {name: json.loads((folders / f"{name}.json").read_text()) for name in ("text", "goal", "default")}
    assert list(told["goal"]["metrics"]) == ["SD", "LDL", "cos_goal", "cos_visible", "cos_infrared"]
    assert told["goal"]["clip"]["prompts"]["goal"] == ["a bright image"] and told["goal"]["clip"]["name"] == "compact"
    assert told["text"] == told["goal"]
    means = {name: about["methods"]["max"]["mean"] for name, about in told.items()}
    assert means["default"]["cos_visible"] == pytest.approx(means["goal"]["cos_visible"], abs=1e-6)
    assert abs(means["default"]["cos_goal"] - means["goal"]["cos_goal"]) > 1e-3
    assert told["goal"]["metrics"]["LDL"]["higher_is_better"] is False
    assert told["goal"]["metrics"]["cos_infrared"]["higher_is_better"] is None


@pytest.mark.shared
def test_the_reference_cases_through_the_command(shared, tmp_path, capsys):
    """The whole command, reading included, against numbers of the published script."""
    cases = shared / "reference" / "metric_cases"
    names = ("EN", "SD", "SF", "AG", "MI", "SCD", "VIF", "Qabf", "SSIM")
    reference = json.loads((shared / "reference" / "metrics_reference.json").read_text())
    for case in cases.iterdir():
        for role in ("infrared", "visible", "fused"):
            (tmp_path / role).mkdir(exist_ok=True)
            (tmp_path / role / f"{case.name}.png").write_bytes((case / f"{role}.png").read_bytes())
    argv = [f"--{role}={tmp_path / role}" for role in ("infrared", "visible", "fused")]
    assert main(["evaluate", *argv, "--json", str(tmp_path / "s.json")]) == 0
    found = json.loads((tmp_path / "s.json").read_text())["methods"]["fused"]["images"]
    for case, scores in found.items():
        expected = reference[case]["cddfuse_float64"]
        for name in names:
            assert scores[name] == pytest.approx(expected[name], rel=2e-4 if name == "SSIM" else 1e-5), (case, name)
