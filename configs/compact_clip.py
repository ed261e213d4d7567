"""The compact CLIP that comes with the package.

    langfuse-jax train-clip --config compact_clip --out DIR --config.data.root=DATA

`DATA` holds a folder for each camera, with visible/ and infrared/ inside.
"""

from ml_collections import ConfigDict


def get_config():
    c = ConfigDict()
    c.seed = 0
    # A folder for each camera, each of which gives the same share of the scenes. Recipes are chosen on those of
    # `validation`; those of `unseen` are looked at once. For each group of `left_out` a CLIP is trained without it.
    c.data = ConfigDict({"root": "data"})
    c.data.train = ("roadscene", "msrs", "m3svd", "m3fd", "fmb", "pv_dji", "gtot", "flir_pip", "msrs_extra")
    c.data.validation = ("vifb",)
    c.data.unseen = ("llvip", "kaist")
    c.data.left_out = (("roadscene", "fmb"), ("msrs", "msrs_extra", "gtot"), ("m3svd", "flir_pip"), ("m3fd", "pv_dji"))
    c.data.licences = ConfigDict(  # as stated where the pairs were found, for the README beside the weights
        {
            "roadscene": "none stated",
            "msrs": "MIT (repository of PIAFusion)",
            "m3svd": "MIT (repository of M3SVD)",
            "m3fd": "academic use (page of TarDAL)",
            "fmb": "none stated",
            "pv_dji": "none stated",
            "gtot": "none stated for the images (MIT of the repository they are in)",
            "flir_pip": "MIT (thermal_parser), LICENSE.pdf (thermo-nerf), none stated (others)",
            "msrs_extra": "MIT (repositories of PIAFusion, SeAFusion and others)",
        }
    )

    c.model = ConfigDict()
    c.model.embedding = 96
    c.model.vision = dict(
        image_size=84, patch_size=12, hidden_size=144, num_hidden_layers=3, num_attention_heads=9, intermediate_size=288
    )
    c.model.text = dict(hidden_size=96, num_hidden_layers=2, num_attention_heads=2, intermediate_size=192)

    c.steps = 4000
    c.steps_left_out = 1000
    c.scenes_per_batch = 4

    c.optimizer = ConfigDict({"learning_rate": 1.5e-3, "warmup_steps": 40, "weight_decay": 0.02, "gradient_clip": 1.0})
    c.optimizer.matrix_learning_rate = 0.02  # of Muon, which moves the matrices of the transformer blocks
    c.loss = dict(
        modality=2.0,
        spread=2.0,
        meaning=2.0,
        strength=1.0,
        order=1.0,
        ranking=2.0,
        naming=1.5,
        contrast=1.5,
        direction=1.0,
        image_heads=0.5,
        token_heads=1.0,
        text_heads=0.5,
    )

    c.log = ConfigDict({"every": 20})  # steps; fewer in a run that would have less than 50 lines
    c.guard = ConfigDict()
    c.guard.max_skipped = 10  # steps in a row without a finite loss and gradient, skipped, that end the training run
    c.guard.max_dead = 10  # steps in a row with a gradient of exactly zero that end it
    c.checkpoint = ConfigDict({"every": 500})
    return c
