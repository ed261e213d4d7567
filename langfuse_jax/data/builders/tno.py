"""TNO Image Fusion Dataset: military scenes at night, in many bands."""

from pathlib import Path

from langfuse_jax.data.builders.pairs import PairsBuilder
from langfuse_jax.errors import UserError
from langfuse_jax.images.files import EXTENSIONS
from langfuse_jax.images.pairs import Pair


class Tno(PairsBuilder):
    """The archive as it is, a folder a scene; or the selections that papers hand around, `vi` and `ir`."""

    name = "tno"
    TITLE = "Military and surveillance scenes, mostly at night and in gray: visual, near-infrared and thermal cameras."
    HOMEPAGE = "https://figshare.com/articles/dataset/TNO_Image_Fusion_Dataset/1008029"
    CITATION = """@article{toet2017tno,
  title={The TNO Multiband Image Data Collection},
  author={Toet, Alexander},
  journal={Data in Brief}, volume={15}, pages={249--251}, year={2017}
}"""
    LICENCE = "See the homepage for the licence of the data."
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "Download TNO_Image_Fusion_Dataset.zip from https://figshare.com/articles/dataset/TNO_Image_Fusion_Dataset/1008029"
        ", unpack it and give its folder, with Athena_images/ and others; its video sequences are skipped."
    )

    @classmethod
    def pairs(cls, source: Path) -> dict[str, list[Pair]]:
        """The pairs of two folders as of the other builders, or else those of the archive's scene folders.

        A scene folder holds one image whose name begins with VIS and one whose name begins with IR or LWIR, in any
        case. Its name is its place in the archive. Sequences lie in folders `thermal` and `visual`, and are no scenes.
        """
        if scenes := scene_pairs(source):
            return {"train": scenes}
        return super().pairs(source)


def scene_pairs(source: Path) -> list[Pair]:
    """The pairs of all folders below `source` that hold one of each kind, sorted by their place, which is their name.

    Raises UserError where a folder with both kinds has more than one of either.
    """
    pairs = []
    for folder in sorted(path for path in source.rglob("*") if path.is_dir()):
        images = [path for path in sorted(folder.iterdir()) if path.suffix.lower() in EXTENSIONS]
        visible, infrared = (
            [path for path in images if path.name.lower().startswith(kinds)] for kinds in ("vis", ("ir", "lwir"))
        )
        if not visible or not infrared:
            continue
        if len(visible) > 1 or len(infrared) > 1:
            raise UserError(f"{folder}: more than one image named VIS... or IR...; leave one of each in the folder")
        pairs.append(Pair("_".join(folder.relative_to(source).parts), visible[0], infrared[0]))
    return pairs
