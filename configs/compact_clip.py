"""The compact CLIP that comes with the package.

langfuse-jax train-clip --config configs/compact_clip.py --out DIR
"""

from ml_collections import ConfigDict


def get_config():
    config = ConfigDict()
    # Folders with visible/ and infrared/ inside, one per camera; the validation camera is never trained on.
    config.train_folders = ("../shared/data/roadscene", "../shared/data/msrs")
    config.validation_folder = "../shared/data/vifb"
    config.seed = 0

    config.model = ConfigDict()
    config.model.embedding = 96
    config.model.vision = dict(
        image_size=96, patch_size=12, hidden_size=144, num_hidden_layers=3, num_attention_heads=9, intermediate_size=288
    )
    config.model.text = dict(hidden_size=96, num_hidden_layers=2, num_attention_heads=2, intermediate_size=192)

    config.batches = 2000
    config.scenes_per_batch = 6

    config.learning_rate = 1.5e-3
    config.matrix_learning_rate = 0.02
    config.weight_decay = 0.02
    config.warmup_batches = 40
    config.weights = dict(
        modality=2.0,
        spread=2.0,
        naming=1.0,
        contrast=1.5,
        direction=1.0,
        image_heads=0.5,
        token_heads=1.0,
        text_heads=0.5,
    )
    return config
