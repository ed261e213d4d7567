"""One training step of any objective: pure functions of state, batch and key, with everything frozen as arguments."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

Metrics = dict[str, Array]
# (params, batch, key, frozen) -> the loss and its terms. A batch is divided along the first axis of its arrays.
LossFn = Callable[[PyTree, Mapping[str, Array], PRNGKeyArray, Any], tuple[Float[Array, ""], Metrics]]


class TrainState(flax.struct.PyTreeNode):
    """What a step changes: the step count, the parameters, the optimizer's state, and maybe their average."""

    step: PyTree  # a scalar; JAX also builds the tree with placeholders in place of arrays
    params: PyTree
    opt_state: PyTree
    average: PyTree = None  # moving average of params, where one is kept
    skipped: PyTree = None  # updates left out so far, because loss or gradient were not finite
    skipped_in_a_row: PyTree = None  # and those since the last update

    @property
    def final(self) -> PyTree:
        """The parameters to use: the average where one is kept."""
        return self.params if self.average is None else self.average


def init_state(params: PyTree, optimizer: optax.GradientTransformation, *, average: bool = False) -> TrainState:
    """The state at step 0 of a training run from `params`, with a moving `average` of them if wished."""
    zero = jnp.zeros((), jnp.int32)
    kept = jax.tree.map(jnp.copy, params) if average else None
    return TrainState(zero, params, optimizer.init(params), kept, skipped=zero, skipped_in_a_row=zero)


def moving_average(average: PyTree, params: PyTree, step: Int[Array, ""], *, decay: float) -> PyTree:
    """`average` moved towards `params` by 1 - decay, where decay is at most (1 + step) / (10 + step).

    The first steps count more, so that where a training run starts from is forgotten soon.
    """
    return optax.incremental_update(params, average, 1 - jnp.minimum(decay, (1 + step) / (10 + step)))


def clip_by_norm(limit: float) -> optax.GradientTransformation:
    """Gradients scaled down to the global norm `limit` where theirs is larger; by 0 they stay as they are."""
    return optax.clip_by_global_norm(limit) if limit else optax.identity()


def scale_by_rates(rates: PyTree) -> optax.GradientTransformation:
    """Updates multiplied by `rates`, a tree like the parameters of factors that broadcast against them."""
    return optax.stateless(lambda updates, _: jax.tree.map(jnp.multiply, updates, rates))


def without_gradient_where_zero(loss_fn: LossFn, rates: PyTree) -> LossFn:
    """`loss_fn`, where parameters all of whose `rates` (numpy) are 0 get a gradient of 0 that costs nothing."""

    def loss(params: PyTree, *arguments: Any) -> tuple[Float[Array, ""], Metrics]:
        def kept(leaf: Array, rate: np.ndarray | np.generic) -> Array:
            return leaf if rate.any() else jax.lax.stop_gradient(leaf)

        return loss_fn(jax.tree.map(kept, params, rates), *arguments)

    return loss


def make_gradient(loss_fn: LossFn, *, accumulate: int = 1) -> Callable[..., tuple[Metrics, PyTree]]:
    """A pure `gradient(params, batch, key, frozen) -> (metrics, grads)`: the loss, its terms and its gradient.

    Args:
        loss_fn: a mean over the samples of a batch.
        accumulate: parts that the batch is taken in, one after the other, with the memory of one; must divide it.
    """
    value_and_grad = jax.value_and_grad(loss_fn, has_aux=True)

    def part(params: PyTree, batch: Mapping[str, Array], key: PRNGKeyArray, frozen: Any) -> tuple[Metrics, PyTree]:
        (total, terms), grads = value_and_grad(params, batch, key, frozen)
        return {"loss": total, **terms}, grads

    def gradient(params: PyTree, batch: Mapping[str, Array], key: PRNGKeyArray, frozen: Any) -> tuple[Metrics, PyTree]:
        if accumulate == 1:
            return part(params, batch, key, frozen)
        # Every accumulate-th sample: of a batch in blocks on several devices, each part is too.
        parts = jax.tree.map(lambda x: x.reshape(-1, accumulate, *x.shape[1:]).swapaxes(0, 1), batch)

        def add(sums: PyTree, batch: Mapping[str, Array]) -> tuple[PyTree, None]:
            return jax.tree.map(jnp.add, sums, part(params, batch, key, frozen)), None

        shapes = jax.eval_shape(part, params, jax.tree.map(lambda x: x[0], parts), key, frozen)
        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
        sums, _ = jax.lax.scan(add, zeros, parts)
        return jax.tree.map(lambda x: x / accumulate, sums)

    return gradient


def make_train_step(
    loss_fn: LossFn,
    optimizer: optax.GradientTransformation,
    *,
    average_decay: float = 0.0,
    accumulate: int = 1,
    mean: Callable[[PyTree], PyTree] = lambda tree: tree,
) -> Callable[[TrainState, Mapping[str, Array], PRNGKeyArray, Any], tuple[TrainState, Metrics]]:
    """A pure `train_step(state, batch, key, frozen) -> (state, metrics)`, to be compiled by `parallel.compile_step`.

    The loss gets `key` folded with the step count, so a resumed training run repeats it exactly. An average in the
    state is moved by `moving_average`. A step whose loss, gradient or update is not finite changes nothing but the
    counts.

    Args:
        loss_fn: what is minimised: `objective.fusion_loss` with its settings bound, or any other `LossFn`.
        optimizer: any of optax.
        average_decay: of the moving average.
        accumulate: as in `make_gradient`.
        mean: over the devices, of metrics and gradients, where `batch` is one device's block of a larger one.
    """
    gradient = make_gradient(loss_fn, accumulate=accumulate)

    def train_step(
        state: TrainState, batch: Mapping[str, Array], key: PRNGKeyArray, frozen: Any
    ) -> tuple[TrainState, Metrics]:
        metrics, grads = mean(gradient(state.params, batch, jax.random.fold_in(key, state.step), frozen))
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        norm = optax.tree.norm(grads)
        average = state.average
        if average is not None:
            average = moving_average(average, params, state.step, decay=average_decay)
        # What is not finite is left out: only the counts and the step advance.
        finite = jnp.isfinite(metrics["loss"]) & jnp.isfinite(norm) & jnp.isfinite(optax.tree.norm(updates))
        new, old = (params, opt_state, average), (state.params, state.opt_state, state.average)
        params, opt_state, average = jax.tree.map(partial(jnp.where, finite), new, old)
        skipped = state.skipped + ~finite
        in_a_row = jnp.where(finite, 0, state.skipped_in_a_row + 1)
        metrics = {**metrics, "gradient_norm": norm, "skipped": skipped, "skipped_in_a_row": in_a_row}
        return TrainState(state.step + 1, params, opt_state, average, skipped, in_a_row), metrics

    return train_step
