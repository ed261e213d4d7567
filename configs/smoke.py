"""Does training run at all? On any folder of pairs.

    langfuse-jax train --config configs/smoke.py --workdir runs/smoke --config.data.root=DATA

Hardware: two CPU cores. Expected time: 85 s of processor time (measured), nearly all of it compiling, which is about a
minute where nothing else runs. Expected result: 20 lines in metrics.jsonl and three sheets, not worth looking at.
"""

import runpy
from pathlib import Path


def get_config():
    c = runpy.run_path(str(Path(__file__).with_name("default.py")))["get_config"]()
    c.crop = 64
    c.batch_size = 2
    c.patches.count = 4
    c.loss.perceptual = 40.0  # of the feature bank, beside the compact CLIP's words
    c.gradient_clip = 10.0
    c.learning_rate = 2e-4
    c.epochs = 0
    c.steps = 20
    c.warmup_steps = 5
    c.log_every = 1
    c.checkpoint_every = 10
    c.sheet.every = 10
    c.scores.every = 0
    c.sheet.pairs = 2
    c.validation_pairs = 2
    return c
