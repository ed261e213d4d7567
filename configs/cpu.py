"""The embedded default, trained on a CPU: small crops, few patches, the compact CLIP, a warm start.

    langfuse-jax train --config configs/cpu_warm.py --workdir runs/warm --config.data.root=DATA
    langfuse-jax train --config configs/cpu_warm.py --workdir runs/warm2 --config.data.root=DATA \
        --config.init_from=runs/warm --config.steps=1000 --config.warmup_steps=20 --config.seed=1
    langfuse-jax train --config configs/cpu.py --workdir runs/cpu --config.data.root=DATA --config.init_from=runs/warm2

`DATA` holds roadscene, msrs and vifb, each with `visible` and `infrared`.
"""

import runpy
from pathlib import Path


def get_config():
    c = runpy.run_path(str(Path(__file__).with_name("default.py")))["get_config"]()
    c.crop = 128
    c.batch_size = 4
    c.patches.count = 16
    c.epochs = 0
    c.steps = 2000
    c.learning_rate = 3e-4
    c.warmup_steps = 50
    c.gradient_clip = 10.0
    c.checkpoint_every = 250
    c.sheet.every = 250
    return c
