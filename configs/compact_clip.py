"""The compact CLIP that comes with the package.

    langfuse-jax train-clip --config compact_clip --out DIR --config.data.root=DATA

`DATA` holds a folder for each camera, with visible/ and infrared/ inside.
"""

from ml_collections import ConfigDict


def get_config():
    c = ConfigDict()
    c.seed = 0
    # A dataset for each camera; the one of the validation is never trained on.
    c.data = ConfigDict({"root": "data", "train": ("roadscene", "msrs"), "validation": "vifb"})

    c.model = ConfigDict()
    c.model.embedding = 96
    c.model.vision = dict(
        image_size=96, patch_size=12, hidden_size=144, num_hidden_layers=3, num_attention_heads=9, intermediate_size=288
    )
    c.model.text = dict(hidden_size=96, num_hidden_layers=2, num_attention_heads=2, intermediate_size=192)

    c.steps = 2000
    c.scenes_per_batch = 6

    c.optimizer = ConfigDict({"learning_rate": 1.5e-3, "warmup_steps": 40, "weight_decay": 0.02, "gradient_clip": 1.0})
    c.optimizer.matrix_learning_rate = 0.02  # of Muon, which moves the matrices of the transformer blocks
    c.loss = dict(
        modality=2.0,
        spread=2.0,
        naming=1.0,
        contrast=1.5,
        direction=1.0,
        image_heads=0.5,
        token_heads=1.0,
        text_heads=0.5,
    )

    c.log = ConfigDict({"every": 20})
    c.guard = ConfigDict()
    c.guard.max_skipped = 10  # steps in a row without a finite loss and gradient, skipped, that end the training run
    c.guard.max_dead = 10  # steps in a row with a gradient of exactly zero that end it
    c.checkpoint = ConfigDict({"every": 500})
    return c
