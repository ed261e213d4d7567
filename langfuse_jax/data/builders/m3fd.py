"""M3FD: aligned pairs of many scenes and weathers, for fusion (300) and for detection (4200)."""

from langfuse_jax.data.builders.pairs import PairsBuilder


class M3fd(PairsBuilder):
    """The archive M3FD_Fusion or M3FD_Detection as it is: `Vis` and `Ir` (annotations are skipped)."""

    name = "m3fd"
    TITLE = "Pairs of many scenes and weathers, up to 1024x768: 300 for fusion, or the 4200 annotated for detection."
    HOMEPAGE = "https://github.com/JinyuanLiu-CV/TarDAL"
    CITATION = """@inproceedings{liu2022tardal,
  title={Target-aware Dual Adversarial Learning and a Multi-scenario Multi-Modality Benchmark to Fuse Infrared and
    Visible for Object Detection},
  author={Liu, Jinyuan and Fan, Xin and Huang, Zhanbo and Wu, Guanyao and Liu, Risheng and Zhong, Wei and
    Luo, Zhongxuan},
  booktitle={Proceedings of the IEEE/CVF Conference on Computer Vision and Pattern Recognition},
  pages={5802--5811}, year={2022}
}"""
    LICENCE = "See the homepage for the authors' terms of the data; they are not those of their code."
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "Download M3FD_Fusion.zip (or M3FD_Detection.zip) by the links of https://github.com/JinyuanLiu-CV/TarDAL, "
        "unpack it and give the folder that has Vis/ and Ir/."
    )
