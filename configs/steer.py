"""A short fine-tuning towards words of one's own, from weights that fuse already.

    langfuse-jax train --config steer --workdir runs/bright --config.data.root=DATA \
        --config.init_from=ldfusion --config.prompts.goal="a clear and bright image"

The words lead: the guide, which keeps the picture together, counts a seventh of what it does in configs/cpu.py, and
similarity, which holds on to the sources, nothing. Sources are faded, since the words are to be heard on cameras of
other contrasts too, and of the patches only those with next to no content are skipped.

Hardware: two CPU cores. Expected time: 5.2 to 5.4 minutes of processor time (measured). Expected result, measured on
six validation pairs: the language loss of this sentence falls from 0.949 to 0.878, and repeating patterns from 3.15 to
1.90 times those of the sources.
"""

from langfuse_jax.configs import cpu


def get_config():
    c = cpu.get_config()
    c.crop = 256
    c.patches.count = 8
    c.patches.entropy_threshold = 4.0
    c.augment.fading = 0.5
    c.loss.similarity = 0.0
    c.loss.guide = 3.0
    c.loss.grid = 200.0  # words like a weave: without it one of several gray levels is drawn over flat areas
    c.optimizer.ema = 0.0
    c.steps = 150
    c.optimizer.learning_rate = 3e-4
    c.optimizer.warmup_steps = 8
    c.checkpoint.every = 150
    c.sheet.every = 150
    c.scores.every = 0
    return c
