"""The student that comes with the package, distilled from the embedded fusion network.

    langfuse-jax distill --config student --workdir runs/student --config.data.root=DATA

`DATA` holds roadscene, msrs and vifb, each with `visible` and `infrared`.

Hardware: two CPU cores. Expected time: two minutes for the teacher to fuse 218 pairs, then 4 000 steps of 0.2 s
(measured). Expected result, measured: the mean SSIM to the teacher on VIFB that README reports.
"""

from ml_collections import ConfigDict


def get_config():
    c = ConfigDict()
    c.seed = 0
    c.teacher = ""  # folder of a trained fusion network; empty: the one of the package
    c.data = ConfigDict({"root": "data", "train": ("roadscene", "msrs"), "validation": "vifb"})
    c.data.cache_mb = 1024  # decoded images kept in memory
    # Each scene is also taught so many times with its sources mixed with a random gray or pushed away from it, by up to
    # a share of `fading`: cameras of other contrasts. The student's global view is narrow, and it must meet them to
    # imitate them.
    c.augment = ConfigDict({"faded_copies": 2, "fading": 0.7})
    c.crop = 192
    c.batch_size = 4
    c.steps = 4000
    c.optimizer = ConfigDict({"learning_rate": 2e-3, "warmup_steps": 200, "gradient_clip": 1.0})
    c.optimizer.ema = 0.998  # decay of a moving average of the parameters, which is what is saved; 0: none
    c.log = ConfigDict({"every": 50})
    c.guard = ConfigDict()
    c.guard.max_skipped = 10  # steps in a row without a finite loss and gradient, skipped, that end the training run
    c.guard.max_dead = 10  # steps in a row with a gradient of exactly zero, or constant fused images, that end it
    c.checkpoint = ConfigDict({"every": 1000})
    c.scores = ConfigDict({"every": 1000})  # mean SSIM to the teacher on the validation dataset; 0: at the end alone
    return c
