"""The warm start of the embedded default: perceptual features alone, until the network draws sharp images.

    langfuse-jax train --config configs/cpu_warm.py --workdir runs/warm --config.data.root=DATA

Fresh weights that follow the words at once learn stripes before they learn to draw. Go on with configs/cpu.py.

Hardware: two CPU cores. Expected time: 2 000 steps of 0.5 s when they have nothing else to do (measured).
Expected result: sheets as sharp as their sources, whose contrast no word has moved yet.
"""

import runpy
from pathlib import Path


def get_config():
    c = runpy.run_path(str(Path(__file__).with_name("cpu.py")))["get_config"]()
    c.loss.whole = c.loss.patch = c.loss.similarity = 0.0
    c.loss.perceptual = 0.0
    c.loss.guide = 10.0
    c.noise = 0.0  # the published noise makes the network a denoiser, and so smooth
    c.crop = 192
    c.batch_size = 2
    c.ema = 0.998
    c.patches.count = 1
    c.steps = 2000
    c.learning_rate = 5e-4
    c.warmup_steps = 100
    return c
