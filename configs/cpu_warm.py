"""The start of the embedded default: from lossless weights towards a classical fusion, before any word is heard.

    langfuse-jax train --config configs/cpu_warm.py --workdir runs/warm --config.data.root=DATA

Go on with configs/cpu.py. The weights in the package were made so in two passes (langfuse_jax/assets/fusion/README.md).

Hardware: two CPU cores. Expected time: 3 600 steps of 0.52 s when they have nothing else to do (measured).
Expected result: sheets as sharp as their sources, with warm people bright.
"""

import runpy
from pathlib import Path


def get_config():
    c = runpy.run_path(str(Path(__file__).with_name("cpu.py")))["get_config"]()
    c.loss.whole = c.loss.patch = c.loss.similarity = 0.0
    c.loss.guide = 10.0
    c.patches.count = 1
    c.fading = 0.7  # not beside the words: faded patches have too little entropy to count
    c.zoom = 2.0  # crops with the contrasts of whole scenes, which is what the norms see in fusing
    c.spare_only = True  # what draws the pixels stays, and so they stay sharp, at rates that would blur it
    c.steps = 3000
    c.learning_rate = 5e-4
    c.checkpoint_every = c.sheet.every = c.scores.every = 600
    return c
