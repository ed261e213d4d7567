"""MSRS: 1444 aligned pairs of roads by day and night."""

from langfuse_jax.data.builders.pairs import PairsBuilder


class Msrs(PairsBuilder):
    """The repository as it is: `train/vi`, `train/ir`, `test/vi` and `test/ir`."""

    name = "msrs"
    TITLE = "1083 training and 361 test pairs of roads by day and night, 640x480, selected and enhanced from MFNet's."
    HOMEPAGE = "https://github.com/Linfeng-Tang/MSRS"
    CITATION = """@article{tang2022piafusion,
  title={PIAFusion: A progressive infrared and visible image fusion network based on illumination aware},
  author={Tang, Linfeng and Yuan, Jiteng and Zhang, Hao and Jiang, Xingyu and Ma, Jiayi},
  journal={Information Fusion}, volume={83-84}, pages={79--92}, year={2022}
}"""
    LICENCE = (
        "The authors state none; the images are from MFNet's dataset, whose terms apply too. Ask before other uses."
    )
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "Clone https://github.com/Linfeng-Tang/MSRS and give its folder, with train/ and test/, each with vi/ and ir/."
    )
