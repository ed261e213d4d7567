"""The published recipe on the eight GPUs of one host, a batch of 16 for each pair of GPUs: 64 in all.

    langfuse-jax train --config configs/gpu8.py --workdir runs/gpu8 \
        --config.data.root=data --config.clip=openai/clip-vit-base-patch32 --config.vgg=vgg19.safetensors

Hardware: eight GPUs in one process, which JAX finds by itself (pip install "jax[cuda12]"). For the published batch
say --config.batch_size=16.

Expected time, an ESTIMATE: the 1.6e17 FLOP of configs/default.py over 8 x 989 TFLOP/s (H100) at 30%: a minute and a
quarter of arithmetic; reading and decoding images will be slower than that. Expected result: that of the published
recipe at a learning rate raised with the root of the batch; not run.
"""

import runpy
from pathlib import Path


def get_config():
    c = runpy.run_path(str(Path(__file__).with_name("default.py")))["get_config"]()
    c.batch_size = 64
    c.learning_rate = 1e-3  # Adam: x2 for a batch x4
    c.data.workers = 8
    return c
