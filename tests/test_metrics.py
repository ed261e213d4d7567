"""Metrics against numbers worked by hand, an independent implementation, and the published scripts' own values."""

import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from reference import metrics_numpy
from scipy import ndimage

from langfuse_jax.errors import BadPixels, UserError
from langfuse_jax.metrics import CONVENTIONS, METRICS, USUAL, evaluate

LOWER = {"MSE", "RMSE", "CE", "Nabf", "Qcv"}


def _scene(h=60, w=72, seed=0):
    """Smooth structure, noise, and a saturated flat block, as uint8: fused, visible, infrared."""
    rng = np.random.default_rng(seed)
    visible, infrared = (128 + 500 * ndimage.gaussian_filter(rng.normal(size=(h, w)), s) for s in (2, 4))
    visible[5:25, 5:30] = 255
    fused = 0.6 * visible + 0.4 * infrared + rng.normal(size=(h, w))
    return tuple(np.clip(np.round(x), 0, 255).astype(np.uint8) for x in (fused, visible, infrared))


def evaluate_all(*images, sizes=None):
    """Every metric by convention; what conventions share is computed, and compiled, once: FMI differs in one way."""
    same = [name for name, metric in METRICS.items() if not metric.takes_convention or name.startswith("FMI")]
    others = [name for name in METRICS if name not in same]
    values = {c: evaluate(*images, sizes=sizes, metrics=others, convention=c) for c in CONVENTIONS}
    values["corrected"] |= evaluate(*images, sizes=sizes, metrics=("FMI",), convention="corrected")
    shared = evaluate(*images, sizes=sizes, metrics=same)
    return {c: shared | values[c] for c in CONVENTIONS}


@pytest.fixture(scope="module")
def scene():
    return _scene()


@pytest.fixture(scope="module")
def values(scene):
    """Every metric of the scene, by convention."""
    return evaluate_all(*scene)


def test_usual_metrics_equal_an_independent_implementation(scene, values):
    expected = metrics_numpy.evaluate(*scene)
    assert tuple(expected) == USUAL
    for name, value in expected.items():
        np.testing.assert_allclose(values["cddfuse"][name], value, rtol=1e-5, err_msg=name)


def test_double_precision(scene):
    with jax.enable_x64(True):
        got = evaluate(*scene)
    assert tuple(got) == USUAL  # in the order asked for
    for name, value in metrics_numpy.evaluate(*scene).items():
        np.testing.assert_allclose(got[name], value, rtol=1e-9, err_msg=name)


def test_conventions_differ_as_published(scene, values):
    h, w = scene[0].shape
    cddfuse, tang, vifb, corrected = (values[c] for c in CONVENTIONS)
    fused, visible, infrared = (x.astype(float) for x in scene)
    assert tang["AG"] == pytest.approx(cddfuse["AG"] * h * w / ((h - 1) * (w - 1)), rel=1e-5)
    across, down = np.diff(fused, axis=1), np.diff(fused, axis=0)
    assert vifb["SF"] == pytest.approx(np.sqrt((np.sum(across**2) + np.sum(down**2)) / (h * w)), rel=1e-5)
    assert corrected["MI"] == pytest.approx(cddfuse["MI"] / np.log(2), rel=1e-5)
    merged = [np.minimum(x, 254) for x in scene]
    bits = 2 * _bits(scene[0]) + _bits(scene[1]) + _bits(scene[2])
    bits -= _bits(merged[0] * 256.0 + merged[1]) + _bits(merged[0] * 256.0 + merged[2])
    assert tang["MI"] == pytest.approx(bits, rel=1e-5) and tang["MI"] > corrected["MI"]
    mse = (np.mean((fused - visible) ** 2) + np.mean((fused - infrared) ** 2)) / 2
    assert cddfuse["MSE"] == pytest.approx(mse, rel=1e-5)
    assert tang["MSE"] == pytest.approx(mse / 255**2, rel=1e-5)
    assert corrected["PSNR"] == pytest.approx(10 * np.log10(255**2 / mse), rel=1e-5)
    assert tang["PSNR"] == pytest.approx(corrected["PSNR"] + 48.1308, abs=1e-3)
    assert cddfuse["PSNR"] == pytest.approx(20 * np.log10(fused.max()) - 10 * np.log10(mse), rel=1e-5)
    sums = [np.sqrt(np.sum((fused - x) ** 2)) / fused.size for x in (visible, infrared)]
    assert vifb["RMSE"] == pytest.approx(sum(sums) / 2, rel=1e-5)
    assert vifb["PSNR"] == pytest.approx(10 * np.log10(255**2 / vifb["RMSE"]), rel=1e-5)


def _bits(levels):
    p = np.unique(levels, return_counts=True)[1] / levels.size
    return -np.sum(p * np.log2(p))


def test_feature_information_equals_a_loop_over_windows(values):
    """Numbers of the author's algorithm written as he wrote it, in float64, on scipy's DCT and PyWavelets' dwt2."""
    expected = {
        "FMI": 0.5272767450346793,
        "FMI-gradient": 0.5047117674913116,
        "FMI-DCT": 0.2395331661758783,
        "FMI-wavelet": 0.2603839454775869,
    }
    for name, value in expected.items():
        assert values["cddfuse"][name] == pytest.approx(value, rel=2e-5), name


def test_feature_information_by_hand():
    """A window with one bright pixel has no entropy: it tells nothing of another window, and all of its equal."""
    spot, ramp = np.zeros((3, 3), np.uint8), np.arange(9, dtype=np.uint8).reshape(3, 3)
    spot[1, 2] = 5

    def score(visible, infrared, convention):
        return evaluate(spot, visible, infrared, metrics=("FMI",), convention=convention)["FMI"]

    assert score(ramp, spot, "cddfuse") == score(ramp, spot, "corrected") == score(spot, ramp, "corrected") == 0.5
    assert score(spot, ramp, "cddfuse") == 0  # by then the fused window is stretched to 0-1, and no longer equal


@pytest.mark.parametrize(("convention", "span", "mode"), [("tang", 1, "nearest"), ("vifb", 255, None)])
def test_gaussian_similarity_against_scipy(scene, values, convention, span, mode):
    def smooth(x):
        return ndimage.gaussian_filter(x, 1.5, truncate=3.4, mode=mode or "nearest")

    def similarity(x, y):
        c1, c2 = (0.01 * span) ** 2, (0.03 * span) ** 2
        mx, my = smooth(x), smooth(y)
        vx, vy, c = smooth(x * x) - mx * mx, smooth(y * y) - my * my, smooth(x * y) - mx * my
        map_ = (2 * mx * my + c1) * (2 * c + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))
        return map_.mean() if mode else map_[5:-5, 5:-5].mean()

    f, v, i = (x.astype(float) for x in scene)
    expected = similarity(f, v) + similarity(f, i)
    assert values[convention]["SSIM"] == pytest.approx(expected / 2 if mode else expected, rel=1e-5)


def test_hand_worked_numbers():
    image = np.array([[0, 2], [4, 10]], np.uint8)
    got = evaluate(image, image, image, metrics=("EN", "SD", "SF", "AG", "MI", "NMI", "CC", "SCD", "MSE", "RMSE", "CE"))
    assert got["EN"] == pytest.approx(2)  # four levels, once each
    assert got["SD"] == pytest.approx(np.sqrt((16 + 4 + 0 + 36) / 4))
    assert got["SF"] == pytest.approx(np.sqrt((4 + 36) / 2 + (16 + 64) / 2))
    roots = [np.sqrt((x * x + y * y) / 2) for x, y in ((2, 4), (2, 8), (6, 4), (6, 8))]
    assert got["AG"] == pytest.approx(sum(roots) / 4)
    assert got["MI"] == pytest.approx(2 * np.log(4))
    assert got["NMI"] == pytest.approx(2)
    assert got["CC"] == pytest.approx(1)
    assert (got["SCD"], got["MSE"], got["RMSE"], got["CE"]) == (0, 0, 0, 0)
    ramp = np.tile(np.arange(5, dtype=np.uint8), (4, 1))
    # Sobel: 4 * 2 inside and, with the edge repeated, 4 * 1 at the two borders.
    assert evaluate(ramp, ramp, ramp, metrics=("EI",))["EI"] == pytest.approx((4 + 8 + 8 + 8 + 4) / 5)
    half = np.array([[0, 0], [1, 1]], np.uint8)
    quarter = np.array([[0, 1], [1, 1]], np.uint8)
    expected = 0.25 * np.log2(0.25 / 0.5) + 0.75 * np.log2(0.75 / 0.5)
    assert evaluate(half, quarter, quarter, metrics=("CE",))["CE"] == pytest.approx(expected)


@pytest.fixture(scope="module")
def together(scene):
    """Every metric by image and convention, of one batch of canvases with NaN outside the images."""
    flat, black = np.full_like(scene[0], 90), np.zeros_like(scene[0])
    images = {
        "scene": scene,
        "smaller": _scene(51, 70, seed=1),
        "flat": (flat, flat, flat),
        "black": (black, black, black),
        "black fused": (black, *scene[1:]),
        "flat fused": (flat, *scene[1:]),
        "flat sources": (scene[0], flat, black),
    }
    canvases = np.full((3, len(images), 83, 82), np.nan, np.float32)
    for k, triple in enumerate(images.values()):
        for canvas, image in zip(canvases[:, k], triple, strict=True):
            canvas[: image.shape[0], : image.shape[1]] = image
    sizes = np.array([triple[0].shape for triple in images.values()], np.int32)
    values = evaluate_all(*canvases, sizes=sizes)
    return {
        label: {c: {name: float(value[k]) for name, value in values[c].items()} for c in CONVENTIONS}
        for k, label in enumerate(images)
    }


def test_a_padded_image_has_the_value_of_the_image_cut_out(values, together):
    for convention in CONVENTIONS:
        for name, value in values[convention].items():
            found = together["scene"][convention][name]
            np.testing.assert_allclose(found, value, rtol=5e-4, err_msg=f"{convention} {name}")
    quick = [name for name in METRICS if not name.startswith("FMI") and name not in ("VIF", "MS-SSIM")]
    for name, value in evaluate(*_scene(51, 70, seed=1), metrics=quick).items():
        np.testing.assert_allclose(together["smaller"]["cddfuse"][name], value, rtol=5e-4, err_msg=name)


def test_identical_images(scene):
    visible = scene[1]
    best = evaluate_all(visible, visible, visible)["corrected"]
    expected = {
        "SCD": 0,
        "CC": 1,
        "VIF": 2,
        "SSIM": 2,
        "MSE": 0,
        "RMSE": 0,
        "PSNR": np.inf,
        "CE": 0,
        "Nabf": 0,
        "NMI": 2,
        "MS-SSIM": 1,
        "Qcb": 1,
        "Qcv": 0,
        **{name: 1 for name in METRICS if name.startswith("FMI")},
    }
    for name, value in expected.items():
        assert best[name] == pytest.approx(value, rel=1e-4, abs=1e-6), name
    assert best["MI"] == pytest.approx(2 * best["EN"], rel=1e-5)
    assert best["Qabf"] == pytest.approx(0.9994 / (1 + np.exp(-7.5)) * 0.9879 / (1 + np.exp(-4.4)), rel=1e-5)


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_constant_and_black_images_have_values(together, convention):
    for label, values in together.items():
        assert not [name for name, value in values[convention].items() if np.isnan(value)], label
    expected = dict.fromkeys("EN SD SF AG EI MI NMI SCD CC VIF MSE RMSE CE Nabf Qcv".split(), 0)
    expected |= dict.fromkeys(("MS-SSIM", "Qcb", "FMI", "FMI-gradient", "FMI-DCT", "FMI-wavelet"), 1)
    expected |= {"SSIM": 1 if convention == "tang" else 2, "PSNR": np.inf}
    frame = 0 if convention == "corrected" else 0.9994 * 0.9879 / (1 + np.exp(-4.4))
    for label, edges in (("flat", frame), ("black", 0)):
        for name, value in {**expected, "Qabf": edges}.items():
            assert together[label][convention][name] == pytest.approx(value, rel=1e-5, abs=0), (label, name)
    for label in ("black fused", "flat fused"):
        for name in ("EN", "SD", "CC", "VIF", "Qcb") + (("MI", "Nabf") if convention != "tang" else ()):
            assert together[label][convention][name] == 0, (label, name)
    assert together["flat sources"][convention]["SCD"] == together["flat sources"][convention]["NMI"] == 0
    if convention == "cddfuse":
        assert together["black fused"]["cddfuse"]["PSNR"] == -np.inf


def test_swapped_sources_change_nothing(scene, values):
    fused, visible, infrared = scene
    swapped = evaluate_all(fused, infrared, visible)
    for convention in ("cddfuse", "vifb", "corrected"):
        for name, value in swapped[convention].items():
            if convention != "corrected" and name.startswith("FMI"):
                continue  # the published script is not symmetric
            assert value == pytest.approx(values[convention][name], rel=2e-6), (convention, name)
    assert swapped["tang"]["Nabf"] != pytest.approx(values["tang"]["Nabf"], rel=0.1)


def test_a_shift_of_one_pixel_is_punished(scene):
    visible = scene[1]
    names = ("MI", "SSIM", "Qabf", "CC")
    moved = evaluate(np.roll(visible, 1, axis=1), visible, visible, metrics=names, convention="corrected")
    still = evaluate(visible, visible, visible, metrics=names, convention="corrected")
    assert all(moved[name] < 0.99 * still[name] for name in names)


def test_a_shift_of_all_three_images_changes_no_histogram(scene, values):
    moved = [np.roll(x, 1, axis=0) for x in scene]
    got = evaluate(*moved, metrics=("EN", "SD", "MI", "SCD", "CC", "MSE"))
    assert list(got) == ["EN", "SD", "MI", "SCD", "CC", "MSE"]  # as asked for
    for name, value in got.items():
        assert value == pytest.approx(values["cddfuse"][name], rel=1e-5), name


def test_gradients_are_finite(scene):
    images = [jnp.asarray(x, jnp.float32)[None] for x in scene]
    for name in ("SD", "SF", "SCD", "SSIM", "MSE"):
        metric = METRICS[name]

        def score(fused, metric=metric):
            return metric.function(fused, *images[1:])[0] if metric.needs_sources else metric.function(fused)[0]

        gradient = jax.grad(score)(images[0])
        assert bool(jnp.all(jnp.isfinite(gradient))) and float(jnp.abs(gradient).max()) > 0, name


def test_table_says_which_way_is_better():
    assert {name for name, metric in METRICS.items() if not metric.higher_is_better} == LOWER & set(METRICS)
    assert set(USUAL) <= set(METRICS)


def test_refusals(scene):
    with pytest.raises(UserError, match="metric PSRN: is unknown; choose among EN, "):
        evaluate(*scene, metrics=("PSRN",))
    with pytest.raises(UserError, match="convention zoo: is unknown"):
        evaluate(*scene, convention="zoo")
    with pytest.raises(UserError, match=r"differ in size"):
        evaluate(scene[0], scene[1], scene[2][1:])
    with pytest.raises(UserError, match=r"images of \(60, 72, 1, 1\): are no gray images"):
        evaluate(*(x[..., None, None] for x in scene))
    small = [x[:12, :12] for x in scene]
    with pytest.raises(UserError, match="metric VIF: needs 17 pixels a side and a given image is 12 x 12"):
        evaluate(*small)


@pytest.mark.parametrize("dtype", [np.uint16, np.int16, np.int32, np.uint32, np.int8])
def test_integers_beyond_gray_levels_are_counted_in_their_own_image(dtype):
    """They are in the histogram's first or last bin, and no other image of the batch is changed by them."""
    levels = np.arange(64).reshape(8, 8)
    least, largest = np.iinfo(dtype).min, np.iinfo(dtype).max
    wild = levels * 11 - 150, np.where(levels < 40, levels, np.where(levels % 2, least, largest))
    for bad in wild:
        batch = np.stack([levels, bad.clip(least, largest), levels]).astype(dtype)
        expected = [_bits(image.clip(0, 255)) for image in batch]
        np.testing.assert_allclose(METRICS["EN"].function(batch), expected, rtol=1e-5)


def test_integers_beyond_gray_levels_in_joint_histograms():
    levels = np.arange(64, dtype=np.int32).reshape(8, 8)
    batch = np.stack([levels, 300 * levels - 1000, levels])
    expected = [2 * np.log(2) * _bits(image.clip(0, 255)) for image in batch]
    np.testing.assert_allclose(METRICS["MI"].function(batch, batch, batch), expected, rtol=1e-5)


@pytest.mark.parametrize("role", ["fused", "visible", "infrared"])
@pytest.mark.parametrize(("dtype", "value"), [(np.uint16, 256), (np.int64, 2**32), (np.int8, -1), (np.int32, -1)])
def test_integers_that_are_no_gray_levels_are_refused(role, dtype, value):
    images = {name: np.zeros((2, 5, 6), dtype) for name in ("fused", "visible", "infrared")}
    images[role][1, 2, 3] = value
    low, high = min(0, value), max(0, value)
    line = re.escape(f"{role}: runs from {low:.6g} to {high:.6g}; scale it to gray levels 0-255")
    with pytest.raises(BadPixels, match=line):
        evaluate(**images, metrics=("EN",))
    with pytest.raises(BadPixels, match=line):
        evaluate(**{name: image[1] for name, image in images.items()}, metrics=("EN",))


def test_integers_outside_a_true_size_may_be_any(scene):
    padded = [np.pad(x.astype(np.int32), ((0, 3), (0, 4)), constant_values=-7)[None] for x in scene]
    got = evaluate(*padded, sizes=np.array([scene[0].shape]), metrics=("EN",))
    assert got["EN"][0] == pytest.approx(_bits(scene[0]), rel=1e-5)


# What each script prints, against the convention named after it; "corrected" against the script without that bug.
_SOURCES = {"cddfuse": "cddfuse_float64", "tang": "tang", "vifb": "vifb"}
_TOLERANCES = {"VIF": 1e-6, "SSIM": 1e-6, "Qabf": 1e-7, "RMSE": 1e-7, "NMI": 1e-7, "PSNR": 1e-8}
_NAMES = {"MS-SSIM": "MS_SSIM", "FMI": "FMI_none", "FMI-gradient": "FMI_gradient", "FMI-DCT": "FMI_dct"}


@pytest.mark.shared
@pytest.mark.parametrize("case", ["tno_37_SeAFusion", "vifb_manWalking_avg", "vifb_walking_avg", "vifb_walking_max"])
@pytest.mark.parametrize("double", [True, False])
def test_published_values(shared, case, double):
    folder = shared / "reference" / "metric_cases" / case
    images = [np.asarray(Image.open(folder / f"{name}.png")) for name in ("fused", "visible", "infrared")]
    reference = json.loads((shared / "reference" / "metrics_reference.json").read_text())[case]
    with jax.enable_x64(double):
        got = evaluate_all(*images)
    compared = [
        (f"{name} {convention}", got[convention][name], reference[script][_NAMES.get(name, name)])
        for convention, script in _SOURCES.items()
        for name in METRICS
        if _NAMES.get(name, name) in reference[script]
    ]
    compared += [(name, got["cddfuse"][name], reference["fmi"][_NAMES[name]]) for name in _NAMES if "FMI" in name]
    compared += [
        ("Nabf corrected", got["corrected"]["Nabf"], reference["tang"]["Nabf_correct_order"]),
        ("NMI corrected", got["corrected"]["NMI"], reference["ivifzoo"]["NMI"]),
        ("MI corrected", got["corrected"]["MI"], reference["ivifzoo"]["MI"]),
    ]
    assert len(compared) > 30
    for label, value, expected in compared:
        tolerance = _TOLERANCES.get(label.split()[0], 1e-9) if double else 1e-5
        # Nabf of an average is 1e-7, of which float32 leaves four digits.
        np.testing.assert_allclose(value, expected, rtol=tolerance, atol=0 if double else 1e-10, err_msg=label)
    # The script that computes it did so in float32.
    np.testing.assert_allclose(got["corrected"]["SSIM"], reference["iffilm"]["SSIM"], rtol=1e-5)
