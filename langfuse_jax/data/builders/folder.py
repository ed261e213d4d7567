"""Any folder of pairs in one of the common layouts."""

from langfuse_jax.data.builders.pairs import PairsBuilder


class Folder(PairsBuilder):
    """A folder of the user's own; see `layouts.find_parts`. Its dataset takes the name that `data build` is given."""

    name = "folder"
    TITLE = "Infrared-visible pairs of a folder."
    HOMEPAGE = "https://www.tensorflow.org/datasets"
    CITATION = ""
    LICENCE = "Whatever holds for the images of the folder."
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "Give a folder with visible/ and infrared/ (or vi, vis; ir), alone, inside train/ and test/, or with train/ "
        "and test/ inside; the images of a pair have one name up to the ending."
    )
