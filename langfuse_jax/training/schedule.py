"""The published learning rate: a linear warm-up, then halved at 50, 60, 70, 80 and 90% of the training run."""

import optax

HALVED_AT = (0.5, 0.6, 0.7, 0.8, 0.9)


def published_schedule(peak: float, *, total_steps: int, warmup_steps: int) -> optax.Schedule:
    """Learning rate by step: linear from 0 to `peak` in `warmup_steps`, constant, then x0.5 at each of HALVED_AT.

    Args:
        peak: the highest rate; LDFusion (arXiv 2402.16267) has 5e-4 with Adam.
        total_steps: length of the training run; the halvings are fractions of it.
        warmup_steps: one epoch in the published recipe.

    >>> rate = published_schedule(1.0, total_steps=100, warmup_steps=10)
    >>> [float(rate(step)) for step in (0, 5, 10, 49, 50, 65, 99)]
    [0.0, 0.5, 1.0, 1.0, 0.5, 0.25, 0.03125]
    """
    constant = optax.piecewise_constant_schedule(
        peak, {round(total_steps * at) - warmup_steps: 0.5 for at in HALVED_AT}
    )
    if not warmup_steps:
        return constant
    return optax.join_schedules([optax.linear_schedule(0.0, peak, warmup_steps), constant], [warmup_steps])
