"""A short fine-tuning towards words of one's own, from weights that fuse already.

    langfuse-jax train --config configs/steer.py --workdir runs/bright --config.data.root=DATA \
        --config.init_from=langfuse_jax/assets/fusion --config.prompts.goal="('a clear and bright image',)"

The words lead: the guide, which keeps the picture together, counts a fifth of what it does in configs/cpu.py, and
similarity, which holds on to the sources, nothing.

Hardware: two CPU cores. Expected time: 120 steps of 1.1 s (measured). Expected result: docs/words.md.
"""

import runpy
from pathlib import Path


def get_config():
    c = runpy.run_path(str(Path(__file__).with_name("cpu.py")))["get_config"]()
    c.crop = 256
    c.patches.count = 8
    c.loss.similarity = 0.0
    c.loss.guide = 4.0
    c.ema = 0.0
    c.steps = 120
    c.learning_rate = 3e-4
    c.warmup_steps = 8
    c.checkpoint_every = 120
    c.sheet.every = 120
    c.scores.every = 0
    return c
