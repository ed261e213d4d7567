"""The embedded default, trained on a CPU: small crops, few patches, the compact CLIP, a warm start.

    langfuse-jax train --config configs/cpu_warm.py --workdir runs/warm --config.data.root=DATA
    langfuse-jax train --config configs/cpu_warm.py --workdir runs/warm2 --config.data.root=DATA \
        --config.init_from=runs/warm --config.steps=1000 --config.warmup_steps=20 --config.seed=1
    langfuse-jax train --config configs/cpu_warm.py --workdir runs/warm3 --config.data.root=DATA \
        --config.init_from=runs/warm2 --config.steps=1000 --config.warmup_steps=20 --config.seed=2
    langfuse-jax train --config configs/cpu.py --workdir runs/cpu --config.data.root=DATA --config.init_from=runs/warm3
    langfuse-jax train --config configs/cpu.py --workdir runs/cpu2 --config.data.root=DATA \
        --config.init_from=runs/cpu --config.learning_rate=4e-4 --config.seed=3 --config.steps=900

`DATA` holds roadscene, msrs and vifb, each with `visible` and `infrared`.

Hardware: two CPU cores, 3 GiB. Expected time: 5 900 steps of about a second (measured, with other work beside it): an
hour and a half in all. Expected result, measured: the sheets and numbers of README.
"""

import runpy
from pathlib import Path


def get_config():
    c = runpy.run_path(str(Path(__file__).with_name("default.py")))["get_config"]()
    c.crop = 128
    c.batch_size = 4
    c.patches.count = 16
    # With the published weight the compact CLIP's words win over the features, and a grid of 8 pixels appears.
    c.loss.perceptual = 40.0
    c.epochs = 0
    c.steps = 1000
    c.learning_rate = 2e-4
    c.warmup_steps = 50
    c.gradient_clip = 10.0
    c.checkpoint_every = 250
    c.sheet.every = 250
    c.scores.every = 250
    return c
