"""RoadScene: 221 aligned pairs cut from FLIR's road videos."""

from langfuse_jax.data.builders.pairs import PairsBuilder


class RoadScene(PairsBuilder):
    """The repository as it is: `crop_LR_visible` and `cropinfrared`."""

    name = "roadscene"
    TITLE = (
        "221 aligned infrared-visible pairs of roads, vehicles and pedestrians, of ragged sizes, cut from FLIR video."
    )
    HOMEPAGE = "https://github.com/hanna-xu/RoadScene"
    CITATION = """@article{xu2022u2fusion,
  title={U2Fusion: A Unified Unsupervised Image Fusion Network},
  author={Xu, Han and Ma, Jiayi and Jiang, Junjun and Guo, Xiaojie and Ling, Haibin},
  journal={IEEE Transactions on Pattern Analysis and Machine Intelligence},
  volume={44}, number={1}, pages={502--518}, year={2022}
}"""
    LICENCE = (
        "The authors state none; the frames are from FLIR's video, so FLIR's terms apply too. Ask before other uses."
    )
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "Clone https://github.com/hanna-xu/RoadScene and give its folder, with crop_LR_visible/ and cropinfrared/."
    )
