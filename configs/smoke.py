"""Does training run at all? On any folder of pairs.

    langfuse-jax train --config configs/smoke.py --workdir runs/smoke --config.data.root=DATA

Hardware: two CPU cores. Expected time: 85 s of processor time (measured), nearly all of it compiling, which is about a
minute where nothing else runs. Expected result: 20 lines in metrics.jsonl and three sheets, not worth looking at.
"""

import runpy
from pathlib import Path


def get_config():
    c = runpy.run_path(str(Path(__file__).with_name("cpu.py")))["get_config"]()
    c.crop = 64
    c.batch_size = 2
    c.patches.count = 4
    c.steps = 20
    c.warmup_steps = 5
    c.log_every = 1
    c.checkpoint_every = 10
    c.sheet.every = 10
    c.scores.every = 0
    c.sheet.pairs = 2
    c.validation_pairs = 2
    return c
