"""The published recipe of LDFusion (arXiv 2402.16267).

    langfuse-jax train --config default --workdir runs/default \
        --config.data.root=data --config.clip=openai/clip-vit-base-patch32 --config.vgg=vgg19.safetensors

Hardware: one accelerator. With less memory than 16 x 32 patches of 224 px through ViT-B/32 need, add
--config.memory.clip_chunk=4 --config.memory.remat=True, or --config.memory.accumulate=4.

Expected time, an ESTIMATE, not measured: a sample costs 32 patches and 1 fused image through ViT-B/32 forward and
back to its input (8.8 GFLOP each way), 2 sources forward, VGG19 on 4 passes (28 each), the network (13 x 3): about
0.75 TFLOP. 219 pairs listed 10 times are 136 steps of 16 an epoch and 13 600 steps in all: 1.6e17 FLOP, at 40% of an
H100's 989 TFLOP/s 7 minutes, at a tenth of that speed an hour or so. Expected result: none is claimed; not run at
this size. Scaled down (benchmarks/fresh.py: batch 4, crops of 128 px, 8 patches) to two CPU cores, measured: in 300
steps of three seeds the gradient norm is never below 42, and the validation loss falls to about 50, from 151 to 261.
"""

from ml_collections import ConfigDict

from langfuse_jax.clip.words import GOAL, INFRARED, VISIBLE


def get_config():
    c = ConfigDict()
    c.seed = 0
    c.network = "ldfusion"  # the published one; "steered" has a config of its own, words
    c.clip = ""  # folder or hub id; empty: the compact CLIP of the package
    # What the frozen CLIP and VGG19 are kept and compute in, "float32" or "bfloat16"; empty: float32 on CPUs, else
    # bfloat16.
    c.clip_dtype = ""
    # What the fusion network's convolutions compute in, "float32" or "bfloat16"; its parameters, norms' statistics and
    # the optimizer are float32.
    c.network_dtype = "float32"
    c.text = ""  # file made by `langfuse-jax embed`; empty: the prompts below
    # A plain string counts as one sentence.
    c.prompts = ConfigDict({"visible": (VISIBLE,), "infrared": (INFRARED,), "goal": (GOAL,)}, type_safe=False)
    c.vgg = ""  # VGG19 weights for the perceptual term (torchvision's or timm's); empty: the fixed feature bank
    # A trained model, or a training run's work directory, to start from; "ldfusion": the weights of the package; empty:
    # fresh weights.
    c.init_from = ""
    c.init = "normal"  # fresh weights: "normal", as published, or "lossless", which draw sharply from the first step

    c.data = ConfigDict({"root": "data", "train": ("roadscene", "msrs"), "validation": "vifb"})
    c.data.repeats = 10  # times each image is listed per epoch
    c.data.workers = 0  # processes that read and crop; 0: two threads of this one
    c.data.cache_mb = 1024  # decoded images kept in memory
    c.data.max_unreadable = 4  # pairs that may be skipped, by name, because they cannot be read
    c.crop = 224
    c.batch_size = 16
    c.epochs = 100
    c.steps = 0  # instead of epochs, when not 0

    c.augment = ConfigDict()
    c.augment.zoom = 1.0  # windows up to so many times as wide are shrunk to a crop; not published
    # The most that each source is mixed with a random gray, for cameras of other contrasts; not published.
    c.augment.fading = 0.0
    c.augment.noise = 0.03  # the network sees it, the losses do not
    c.patches = ConfigDict({"count": 32, "fraction": (0.5, 0.8), "entropy_threshold": 6.0})
    # 0, or the most patches of an image that go through the CLIP: of those that count the first, for all of them.
    c.patches.select_first = 0

    # Weights of the terms; one of weight 0 is not computed. Two are not published: "guide", the distance to a classical
    # fusion (losses.guide_loss), and "grid", what repeats from block to block of the fused image and is in neither
    # source (losses.grid_loss).
    c.loss = ConfigDict({"whole": 2.0, "patch": 10.0, "similarity": 6.0, "perceptual": 10.0, "guide": 0.0, "grid": 0.0})
    c.optimizer = ConfigDict({"learning_rate": 5e-4})
    c.optimizer.warmup_steps = 0  # 0: one epoch
    c.optimizer.gradient_clip = 0.0  # global norm; 0: none
    # Decay of a moving average of the parameters, which is then what is saved for fusing; 0: none.
    c.optimizer.ema = 0.0
    # "all" parameters, as published; "spare": those that the lossless start leaves free (models.lossless.spare_rates),
    # since rates usual for the rest would soon blur it; "auto": spare where the start draws losslessly, else all.
    c.optimizer.trainable = "auto"

    c.parallel = ConfigDict({"mode": "jit"})  # or "pmap"; both divide the batch over all devices of all processes
    c.parallel.shard_optimizer = False  # each device keeps its share of the optimizer's state; for "jit"
    c.memory = ConfigDict()
    c.memory.accumulate = 1  # parts that a batch is taken in, one after the other
    c.memory.clip_chunk = 0  # patches of an image that go through the CLIP at a time, recomputed for the gradient
    c.memory.remat = False  # recompute, for the gradient, what the network, CLIP and VGG19 computed

    c.log = ConfigDict({"every": 50})  # steps; fewer in a run that would have less than 50 lines
    c.log.peak_tflops = 0.0  # of one device, for the FLOP utilisation; 0: by a table of accelerators
    c.guard = ConfigDict()
    c.guard.max_skipped = 10  # steps in a row without a finite loss and gradient, skipped, that end the training run
    c.guard.max_dead = 10  # steps in a row with a gradient of exactly zero, or constant fused images, that end it
    c.checkpoint = ConfigDict({"every": 1000})
    c.validation = ConfigDict({"pairs": 16})  # scenes whose crops' loss is computed with each checkpoint; 0: none
    # Of validation pairs, before and after; 0: none. The last lines of a run judge the same pairs.
    c.sheet = ConfigDict({"every": 1000, "pairs": 6})
    # Of all fused validation pairs; 0: none.
    c.scores = ConfigDict({"every": 1000, "metrics": ("EN", "SD", "SF", "AG")})
    return c
