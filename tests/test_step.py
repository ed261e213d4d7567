"""The step's ways to save memory and time change neither value nor gradient, or only as they say."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import quick_training
from parallel_steps import small_clip
from recorded_keys import RecordedKeys

from langfuse_jax.losses import Words
from langfuse_jax.losses.total import PUBLISHED_WEIGHTS
from langfuse_jax.models.clip import in_compute_dtype, stack_blocks
from langfuse_jax.models.fusion import FusionNet
from langfuse_jax.training import objective
from langfuse_jax.training.augmentation.fade import fade
from langfuse_jax.training.augmentation.windows import Windows, first_valid, random_windows
from langfuse_jax.training.objective import Frozen, Recipe, fusion_loss
from langfuse_jax.training.speed import Speed, gradient_flops, peak_flops
from langfuse_jax.training.step import (
    init_state,
    make_gradient,
    make_train_step,
    scale_by_rates,
    without_gradient_where_zero,
)


class Blend(FusionNet):
    """A network of three numbers, which compiles at once."""

    def setup(self):
        self.mix = self.param("mix", nn.initializers.ones, (3,))

    def __call__(self, visible, infrared, sizes=None):
        return nn.sigmoid(self.mix[0] * visible + self.mix[1] * infrared - self.mix[2])


RECIPE = Recipe(PUBLISHED_WEIGHTS, patches=6, entropy_threshold=4.0)
WORDS = Words(*np.float32(np.eye(3, 16)))
PARAMS = {"params": {"mix": jnp.array([1.0, 2.0, 1.5])}}


@pytest.fixture(scope="module")
def gradient():
    """A function (recipe, accumulate) -> metrics and gradient of one batch, some of whose patches count."""
    vision, clip = small_clip()
    frozen = Frozen(clip, WORDS, None)
    crops = np.random.default_rng(0).uniform(size=(2, 4, 32, 32, 1)).astype(np.float32)
    crops[:, :, :, :20] = crops[:, :, :1, :1]
    batch = {"visible": crops[0], "infrared": crops[1], "place": np.arange(4)}

    def of(recipe=RECIPE, accumulate=1, stacked=False):
        loss = partial(fusion_loss, net=Blend(), vision=vision.clone(stacked=stacked), recipe=recipe)
        function = jax.jit(make_gradient(loss, accumulate=accumulate))
        tower = stack_blocks(clip) if stacked else clip
        return function(PARAMS, batch, jax.random.key(2), frozen._replace(clip=tower))

    return of


def _assert_same(got, want):
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-4, atol=1e-5)


@pytest.mark.parametrize("recipe", [RECIPE, RECIPE._replace(select_first=3)])
def test_the_forms_for_tpus_change_nothing(gradient, recipe, monkeypatch):
    """Patches and histograms as matrix products, and the blocks of the tower in a loop."""
    metrics, expected = gradient(recipe)
    taken = []

    def for_tpus(*arguments, default, tpu=None, cpu=None):
        taken.append(tpu)
        return (tpu or default)(*arguments)

    monkeypatch.setattr(jax.lax, "platform_dependent", for_tpus)
    found_metrics, found = gradient(recipe, stacked=True)
    assert sum(form is not None for form in taken) >= 4
    assert 0.1 < metrics["selected"] < 0.9 and found_metrics["selected"] == metrics["selected"]
    np.testing.assert_allclose(found_metrics["loss"], metrics["loss"], rtol=1e-5)
    a, b = (tree["params"]["mix"] for tree in (found, expected))
    assert np.linalg.norm(a - b) <= 1e-5 * np.linalg.norm(b) and np.linalg.norm(b) > 0.01


@pytest.mark.parametrize(
    ("changes", "accumulate"),
    [
        ({"select_first": 6, "clip_chunk": 2, "remat": True}, 2),
        pytest.param({"clip_chunk": 3, "remat": True}, 1, marks=pytest.mark.slow),
        pytest.param({"clip_chunk": 1}, 4, marks=pytest.mark.slow),
        pytest.param({"select_first": 6}, 1, marks=pytest.mark.slow),
    ],
)
def test_memory_is_saved_without_a_change(gradient, changes, accumulate):
    whole = gradient()
    assert 0.2 < whole[0]["selected"] < 0.9
    _assert_same(gradient(RECIPE._replace(**changes), accumulate), whole)


def test_the_first_valid_windows_stand_for_all():
    windows = random_windows(jax.random.key(0), 6, 64)
    valid = jnp.array([[0, 1, 0, 1, 0, 0], [1, 1, 1, 0, 1, 1], [0, 0, 0, 0, 0, 0]], bool)
    chosen, weights = first_valid(windows, valid, 3)
    np.testing.assert_array_equal(chosen.centre[0, :2], windows.centre[jnp.array([1, 3])])
    np.testing.assert_array_equal(chosen.centre[1], windows.centre[:3])
    # By hand: two of six are valid and both are kept, so their mean over three is to weigh 2/6; five of six by three.
    np.testing.assert_allclose(weights, [[0.5, 0.5, 0], [5 / 6, 5 / 6, 5 / 6], [0, 0, 0]], rtol=1e-6)
    assert isinstance(chosen, Windows) and chosen.count == 3


def test_views_and_noise_belong_to_the_sample(gradient):
    """Samples in another order are the same samples as long as they keep their places."""
    vision, clip = small_clip()
    frozen = Frozen(clip, WORDS, None)
    crops = np.random.default_rng(1).uniform(size=(2, 4, 32, 32, 1)).astype(np.float32)
    results = []
    function = jax.jit(make_gradient(partial(fusion_loss, net=Blend(), vision=vision, recipe=RECIPE)))
    for order in ([0, 1, 2, 3], [0, 2, 1, 3]):
        batch = {"visible": crops[0][order], "infrared": crops[1][order], "place": np.array(order)}
        results.append(function(PARAMS, batch, jax.random.key(2), frozen))
    _assert_same(*results)


def test_no_key_of_a_step_is_used_twice(monkeypatch):
    """View, fading and noise of each of two samples, and the patch windows: streams that know nothing of each other."""

    def total(params, *drawn, **settings):
        return sum(leaf.sum() for leaf in jax.tree.leaves(drawn)), {}

    monkeypatch.setattr(objective, "objective", total)
    batch = {**dict.fromkeys(("visible", "infrared"), jnp.ones((2, 4, 4, 1))), "place": jnp.arange(2)}
    vision, clip = small_clip()
    modules = {"net": Blend(), "vision": vision, "recipe": RECIPE._replace(fading=0.5)}
    loss = jax.jit(lambda key: fusion_loss({}, batch, key, Frozen(clip, WORDS, None), **modules))
    keys = RecordedKeys()
    loss(keys.key(5))
    assert keys.reused() == {}
    assert keys.drawn() == 2 * (4 + 1 + 1) + 2 + 4  # an affine map draws four numbers; windows a side and places too


@pytest.mark.slow
def test_the_guide_adds_its_weighted_term(gradient):
    """To the loss and to the gradient; without a weight it is not computed."""
    plain, guided, doubled = (
        gradient(RECIPE._replace(weights={**PUBLISHED_WEIGHTS, "guide": w})) for w in (0.0, 5.0, 10.0)
    )
    assert "guide" not in plain[0] and guided[0]["guide"] > 0
    np.testing.assert_allclose(guided[0]["loss"], plain[0]["loss"] + 5 * guided[0]["guide"], rtol=1e-5)
    first, second, third = (side[1]["params"]["mix"] for side in (plain, guided, doubled))
    np.testing.assert_allclose(third - second, second - first, rtol=1e-3, atol=1e-5)
    assert np.abs(second - first).max() > 1e-3


def test_fading_mixes_each_image_with_a_gray_or_pushes_it_away():
    images = jnp.asarray(np.random.default_rng(0).uniform(size=(2, 40, 40, 1)), jnp.float32)
    fading = jax.jit(partial(fade, most=0.7))
    faded = np.stack([fading(jax.random.key(i), images) for i in range(40)])
    contrast = faded.std((2, 3, 4)) / np.asarray(images.std((1, 2, 3)))
    assert 0.3 <= contrast.min() < 0.4 and 1.2 < contrast.max() <= 1.7
    assert faded.min() == 0 and faded.max() == 1
    assert np.abs(contrast[:, 0] - contrast[:, 1]).mean() > 0.1  # the two are not faded alike
    flat = (faded - contrast[..., None, None, None] * np.asarray(images))[contrast < 1]
    assert flat.std((1, 2, 3)).max() < 1e-6


@pytest.mark.slow
def test_fading_changes_what_losses_and_network_see(gradient):
    plain, faded = gradient(), gradient(RECIPE._replace(fading=0.5))
    assert faded[0]["perceptual"] != plain[0]["perceptual"]
    _assert_same(gradient(RECIPE._replace(fading=0.5), 2), faded)


def test_frozen_matrices_cast_once_give_the_same_embeddings():
    vision, clip = small_clip()
    vision = vision.clone(dtype=jnp.bfloat16)
    images = jnp.asarray(np.random.default_rng(0).uniform(size=(2, 32, 32, 3)), jnp.float32)
    embed = jax.jit(lambda clip: vision.apply({"params": clip}, images))
    cast = in_compute_dtype(clip, jnp.bfloat16)
    assert cast["block_0"]["fc1"]["kernel"].dtype == cast["patch_embedding"].dtype == jnp.bfloat16
    assert cast["block_0"]["norm1"]["scale"].dtype == cast["projection"]["kernel"].dtype == jnp.float32
    # Two programs, which may sum in another order, and so now and then round to another number of half precision.
    np.testing.assert_allclose(embed(cast), embed(clip), atol=5e-3 * np.abs(embed(clip)).max())


def test_speed_counts_samples_and_waiting(monkeypatch):
    clock = iter([0.0, 0.0, 1.0, 4.0])  # a reading; waiting from 0 to 1; a reading at 4
    monkeypatch.setattr("langfuse_jax.training.speed.time.perf_counter", partial(next, clock))
    speed = Speed(8, flops=100.0, peak=50.0)
    speed.read()
    next(speed.waiting(iter([None])))
    values = speed.read()
    assert values["samples_per_second"] == 2.0 and values["input_wait"] == 0.25 and values["mfu"] == 0.5


def test_flops_are_counted_by_the_cpu_whatever_the_platform(monkeypatch):
    """Backends of accelerators do not count: without a CPU beside them there is no number, and no error."""
    square = jax.ShapeDtypeStruct((16, 16), jnp.float32)

    def loss(params, batch, key, frozen):
        return (params @ batch["visible"]).sum(), {}

    arguments = square, {"visible": square}, None
    # The product and the one of its gradient, 2 * 16^3 each, and little beside them; the forward one is not needed.
    assert 2 * 16**3 <= gradient_flops(loss, *arguments, platform="cuda") < 5 * 16**3
    kinds = []
    plain = jax.stages.Lowered.cost_analysis

    def cost_analysis(lowered):
        kinds.append(lowered._lowering.compile_args["backend"].platform)
        return plain(lowered)

    monkeypatch.setattr(jax.stages.Lowered, "cost_analysis", cost_analysis)
    gradient_flops(loss, *arguments)
    assert kinds == ["cpu"]
    monkeypatch.setattr(jax.stages.Lowered, "cost_analysis", lambda lowered: None)
    assert gradient_flops(loss, *arguments) is None

    def no_cpu(**_):
        raise RuntimeError("Unknown backend cpu")

    monkeypatch.setattr(jax, "local_devices", no_cpu)
    assert gradient_flops(loss, *arguments) is None


def test_a_cpu_has_no_known_peak():
    assert peak_flops() is None and peak_flops(2.0) == 2e12 * jax.device_count()


def test_rates_are_factors_of_what_the_optimizer_says():
    params = {name: jnp.ones(3) for name in ("held", "slow", "partly", "free")}
    rates = {"held": np.float32(0), "slow": np.float32(0.2), "partly": np.float32([0, 1, 1]), "free": np.float32(1)}
    optimizer = optax.chain(optax.sgd(0.5), scale_by_rates(rates))
    loss = without_gradient_where_zero(quick_training.loss, rates)
    batch = {role: jnp.full((1, 4, 4, 1), 0.5) for role in ("visible", "infrared")}
    new, metrics = jax.jit(make_train_step(loss, optimizer))(
        init_state(params, optimizer), batch, jax.random.key(0), None
    )
    moved = {name: np.asarray(new.params[name] - params[name]) for name in params}
    assert (moved["free"] != 0).all() and not moved["held"].any() and metrics["gradient_norm"] > 0
    np.testing.assert_allclose(moved["slow"], 0.2 * moved["free"], rtol=1e-5)
    np.testing.assert_array_equal(moved["partly"], moved["free"] * [0, 1, 1])
    _, grads = jax.jit(make_gradient(loss))(params, batch, jax.random.key(0), None)
    assert not grads["held"].any() and (grads["slow"] != 0).all()


@pytest.mark.parametrize(
    ("weights", "computed"),
    [
        ({"guide": 1.0}, set()),
        ({"perceptual": 1.0}, {"perceptual"}),
        ({"whole": 1.0, "patch": 0.0}, {"wholes"}),
        ({"patch": 1.0}, {"wholes", "patches"}),
    ],
)
def test_a_term_without_weight_is_not_traced(weights, computed, monkeypatch):
    """Neither the tower on whole crops, nor on patches, nor the features."""
    traced = set()

    def watched(name, function):
        def call(*arguments, **settings):
            traced.add(name)
            return function(*arguments, **settings)

        return call

    vision, clip = small_clip()
    monkeypatch.setattr(objective, "perceptual_loss", watched("perceptual", objective.perceptual_loss))
    monkeypatch.setattr(objective, "cut_patches", watched("patches", objective.cut_patches))
    monkeypatch.setattr(type(vision), "apply", watched("wholes", type(vision).apply))
    loss = partial(fusion_loss, net=Blend(), vision=vision, recipe=RECIPE._replace(weights=weights))
    crop = jax.ShapeDtypeStruct((2, 32, 32, 1), "float32")
    batch = {"visible": crop, "infrared": crop, "place": jax.ShapeDtypeStruct((2,), "int32")}
    _, (_, terms) = jax.eval_shape(
        lambda *arguments: (0, make_gradient(loss)(*arguments)[::-1]),
        PARAMS,
        batch,
        jax.random.key(0),
        Frozen(clip, WORDS, None),
    )
    assert traced == computed
    names = {name for name, weight in weights.items() if weight} | ({"selected"} if "patches" in computed else set())
    assert set(terms) == names | {"loss", "fused_std"}
