"""LLVIP: 15488 aligned pairs of streets in low light."""

from langfuse_jax.data.builders.pairs import PairsBuilder


class Llvip(PairsBuilder):
    """The archive as it is: `visible` and `infrared`, each with `train` and `test`."""

    name = "llvip"
    TITLE = "12025 training and 3463 test pairs of streets in low light, 1280x1024, from cameras on buildings."
    HOMEPAGE = "https://bupt-ai-cz.github.io/LLVIP/"
    CITATION = """@inproceedings{jia2021llvip,
  title={LLVIP: A Visible-infrared Paired Dataset for Low-light Vision},
  author={Jia, Xinyu and Zhu, Chuang and Li, Minzhen and Tang, Wenqi and Zhou, Wenli},
  booktitle={Proceedings of the IEEE/CVF International Conference on Computer Vision Workshops},
  pages={3496--3504}, year={2021}
}"""
    LICENCE = "Free for non-commercial purposes under the authors' licence terms (see the homepage)."
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "Download LLVIP.zip from https://bupt-ai-cz.github.io/LLVIP/, unpack it and give its folder, with visible/ and "
        "infrared/, each with train/ and test/."
    )
