"""Does training run at all? On any folder of pairs.

    langfuse-jax train --config smoke --workdir runs/smoke --config.data.root=DATA

Hardware: two CPU cores. Expected time: two minutes of processor time (measured on a busy machine), nearly all of it
compiling. Expected result: 20 lines in metrics.jsonl and three sheets, not worth looking at, and a warning of a weave.
"""

from langfuse_jax.configs import default


def get_config():
    c = default.get_config()
    c.crop = 64
    c.batch_size = 2
    c.patches.count = 4
    c.loss.perceptual = 40.0  # of the feature bank, beside the compact CLIP's words
    c.optimizer.gradient_clip = 10.0
    c.optimizer.learning_rate = 2e-4
    c.epochs = 0
    c.steps = 20
    c.optimizer.warmup_steps = 5
    c.log.every = 1
    c.checkpoint.every = 10
    c.sheet.every = 10
    c.scores.every = 0
    c.sheet.pairs = 2
    c.validation.pairs = 2
    return c
