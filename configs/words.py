"""The steered network of the package: the default sentence, and the words that it follows at run time.

    langfuse-jax train --config words --workdir runs/words --config.data.root=DATA

Hardware: two CPU cores; any accelerator that JAX finds. Expected time: measured, 38 minutes on two cores for 6 000
steps. Expected result: the weights in the package, whose pictures and numbers are in docs/leaderboard.md and
docs/words.md.

With OpenAI's CLIP it follows any sentence, of those that a file has one a line:

    langfuse-jax train --config words --workdir runs/words --config.data.root=DATA \
        --config.clip=openai/clip-vit-base-patch32 --config.goals=sentences.txt
"""

from ml_collections import ConfigDict

from langfuse_jax.clip.words import GOAL, INFRARED, VISIBLE


def get_config():
    c = ConfigDict()
    c.seed = 0
    c.network = "steered"
    c.clip = ""  # folder or hub id; empty: the compact CLIP of the package
    c.clip_dtype = ""  # "float32" or "bfloat16"; empty: float32 on CPUs, else bfloat16
    c.vgg = ""  # VGG19 weights for the perceptual term; empty: the fixed feature bank
    c.text = ""  # file made by `langfuse-jax embed`; empty: the prompts below
    # The goal is the default sentence, whose picture is the default target.
    c.prompts = ConfigDict({"visible": (VISIBLE,), "infrared": (INFRARED,), "goal": (GOAL,)}, type_safe=False)
    # What samples are steered by: sentences, or a file with one a line; empty: the compact CLIP's vocabulary, whose
    # concepts have pictures.
    c.goals = ()
    c.data = ConfigDict({"root": "data", "cache_mb": 4096, "max_unreadable": 4})
    # A folder for each camera, with visible/ and infrared/ inside.
    c.data.train = ("roadscene", "msrs", "m3svd", "m3fd", "fmb", "pv_dji", "gtot", "flir_pip", "msrs_extra")
    c.data.validation = "vifb"
    c.crop = 192
    c.batch_size = 4
    c.steps = 6000
    c.augment = ConfigDict()
    c.augment.zoom = 2.5  # scenes are shown in their size, and as far as crops fit down to so many times less
    c.augment.copies = 1  # of each pair with other contrasts and tones
    c.patches = ConfigDict({"count": 4, "fraction": (0.5, 0.8)})
    # See steering.loss. The published objective is "whole" 2, "patch" 10, "similarity" 6, "perceptual" 10 and no other.
    c.loss = ConfigDict({"whole": 1.0, "patch": 4.0, "similarity": 0.0, "perceptual": 0.0})
    c.loss.guide = 10.0
    c.loss.anchor = 4.0
    c.loss.goal = 0.5
    c.optimizer = ConfigDict({"learning_rate": 2e-3, "warmup_steps": 100, "weight_decay": 1e-3, "gradient_clip": 1.0})
    c.optimizer.ema = 0.995
    c.parallel = ConfigDict({"mode": "jit"})  # or "pmap"; both divide the batch over all devices of all processes
    c.parallel.shard_optimizer = False  # each device keeps its share of the optimizer's state; for "jit"
    c.log = ConfigDict({"every": 20})  # steps; fewer in a run that would have less than 50 lines
    c.guard = ConfigDict()
    c.guard.max_skipped = 10  # steps in a row without a finite loss and gradient, skipped, that end the training run
    c.guard.max_dead = 10  # steps in a row with a gradient of exactly zero, or constant fused images, that end it
    c.checkpoint = ConfigDict({"every": 500})
    # Of validation pairs, before and after; 0: none. The last lines of a run judge the same pairs and sentences.
    c.sheet = ConfigDict({"every": 1000, "pairs": 4})
    c.sheet.goals = (
        "a bright image",
        "a natural looking image",
        "a thermal looking image",
        "an image with detailed background",
    )
    return c
