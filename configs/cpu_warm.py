"""The start of the embedded default: from lossless weights towards a classical fusion, before any word is heard.

    langfuse-jax train --config cpu_warm --workdir runs/warm --config.data.root=DATA

Then run `--config cpu`.

Hardware: two CPU cores. Expected time: 3 000 steps of 0.34 s when they have nothing else to do (measured).
Expected result, measured: sheets as sharp as their sources, with warm people bright; a guide term of 0.109 on the
validation crops.
"""

from langfuse_jax.configs import cpu


def get_config():
    c = cpu.get_config()
    c.loss.whole = c.loss.patch = c.loss.similarity = 0.0
    c.loss.guide = 10.0
    c.patches.count = 1
    c.augment.fading = 0.7  # not beside the words: faded patches have too little entropy to count
    c.crop = 192
    c.augment.zoom = 2.0  # small windows of scenes, and large ones shrunk to the same size
    c.steps = 3000
    c.optimizer.learning_rate = 5e-4
    c.checkpoint.every = c.sheet.every = c.scores.every = 600
    return c
