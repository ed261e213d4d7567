"""The published recipe on a TPU pod slice, eight samples for each chip of a v5e-32: 256 in all.

    langfuse-jax train --config tpu_pod --workdir /mnt/shared/runs/pod \
        --config.data.root=data --config.clip=openai/clip-vit-base-patch32 --config.vgg=vgg19.safetensors

Hardware: a TPU v5e-32 slice; the same command on every host of it (docs/scaling.md has the gcloud line), with
`workdir` on a disk that all hosts mount. A batch must divide over the chips: for other slices say --config.batch_size.
It must not exceed the number of training pairs, so this requires a large dataset (LLVIP has 12 025 pairs):
--config.data.train="('llvip',)".

Expected time, an ESTIMATE: a sample costs 0.75 TFLOP (configs/default.py), the 12 025 pairs once an epoch for 100
epochs 9e17 FLOP; over 32 x 197 TFLOP/s at 40%: 6 minutes of arithmetic. Expected result: none is claimed; not run.
"""

from langfuse_jax.configs import default


def get_config():
    c = default.get_config()
    c.batch_size = 256
    c.optimizer.learning_rate = 2e-3  # Adam: x4 for a batch x16
    c.data.repeats = 1
    c.data.workers = 16
    return c
