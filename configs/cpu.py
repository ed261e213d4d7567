"""The embedded default, trained on a CPU: a start that draws sharply, a guide, then the words.

    python benchmarks/split.py --source DATA/roadscene --out DATA/roadscene_split
    langfuse-jax train --config cpu_warm --workdir runs/warm --config.data.root=DATA \
        --config.data.train="('roadscene_split','msrs')"
    langfuse-jax train --config cpu --workdir runs/words --config.data.root=DATA \
        --config.data.train="('roadscene_split','msrs')" --config.init_from=runs/warm

`DATA` holds roadscene, msrs and vifb, each with `visible` and `infrared`.

Hardware: two CPU cores, 4 GiB. Expected time: 18 and 4 minutes (measured). Expected result, measured: the
numbers of `ldfusion` in docs/leaderboard.md.
"""

from langfuse_jax.configs import default


def get_config():
    c = default.get_config()
    c.init = "lossless"
    c.optimizer.trainable = "spare"  # what draws the pixels stays, and so they stay sharp, at rates that would blur it
    c.crop = 320  # nearly whole scenes, for the brightness and contrast that the norms see in fusing
    c.batch_size = 2
    c.augment.noise = 0.0  # the published noise makes the network a denoiser, and so smooth
    c.optimizer.ema = 0.998
    c.patches.count = 16
    # In place of the perceptual term, whose substitute for VGG19 is slow to learn from.
    c.loss.perceptual = 0.0
    c.loss.guide = 20.0
    c.epochs = 0
    c.steps = 250
    c.optimizer.learning_rate = 2e-4
    c.optimizer.warmup_steps = 30
    c.optimizer.gradient_clip = 10.0
    c.checkpoint.every = c.sheet.every = c.scores.every = 125
    return c
