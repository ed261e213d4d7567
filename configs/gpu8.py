"""The published recipe on the eight GPUs of one host, a batch of 16 for each pair of GPUs: 64 in all.

    langfuse-jax train --config gpu8 --workdir runs/gpu8 \
        --config.data.root=data --config.clip=openai/clip-vit-base-patch32 --config.vgg=vgg19.safetensors

Hardware: eight GPUs in one process, which JAX finds by itself (pip install "jax[cuda12]"). For the published batch
say --config.batch_size=16.

Expected time, an ESTIMATE: the 1.6e17 FLOP of configs/default.py over 8 x 989 TFLOP/s (H100) at 30%: a minute and a
quarter of arithmetic; reading and decoding images will be slower than that. Expected result: that of the published
recipe at a learning rate raised with the root of the batch; not run.
"""

from langfuse_jax.configs import default


def get_config():
    c = default.get_config()
    c.batch_size = 64
    c.optimizer.learning_rate = 1e-3  # Adam: x2 for a batch x4
    c.data.workers = 8
    return c
