"""The student that comes with the package, distilled from the embedded fusion network.

    langfuse-jax distill --config configs/student.py --workdir runs/student --config.data.root=DATA

`DATA` holds roadscene, msrs and vifb, each with `visible` and `infrared`.

Hardware: two CPU cores. Expected time: two minutes for the teacher to fuse 218 pairs, then 4 000 steps of 0.2 s
(measured). Expected result, measured: the mean SSIM to the teacher on VIFB that README tells.
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
    c.faded_copies = 2
    c.fading = 0.7
    c.crop = 192
    c.batch_size = 4
    c.steps = 4000
    c.learning_rate = 2e-3
    c.warmup_steps = 200
    c.ema = 0.998  # decay of a moving average of the parameters, which is what is saved; 0: none
    c.log_every = 50
    c.checkpoint_every = 1000
    c.scores_every = 1000  # mean SSIM to the teacher on the validation dataset; 0: at the end alone
    return c
