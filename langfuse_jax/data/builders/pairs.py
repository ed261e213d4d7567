"""What the builders have in common: the files of each pair, as they are, in ArrayRecord."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from langfuse_jax.data.layouts import find_parts, paired
from langfuse_jax.data.prepared import VERSION
from langfuse_jax.images.pairs import Pair


class PairsBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]  # imported lazily
    """Builder of a dataset whose pairs were downloaded by hand.

    A record holds "name" and the bytes of the two image files, "visible" and "infrared", as they are: nothing is
    decoded, so no tensorflow is needed and nothing is lost. Records keep the order of the folder, sorted by name, so
    that a training run sees the same batches of a folder and of the dataset prepared from it; the names are in
    metadata.json too, for when a record is damaged.
    """

    VERSION = tfds.core.Version(VERSION)
    TITLE: str
    HOMEPAGE: str
    CITATION: str
    LICENCE: str
    MANUAL_DOWNLOAD_INSTRUCTIONS: str
    written: Callable[[], object] = staticmethod(lambda: None)  # called after each pair

    @classmethod
    def pairs(cls, source: Path) -> dict[str, list[Pair]]:
        """The pairs of each part of the downloaded folder. Raises UserError; see `layouts.find_parts`."""
        return {part: paired(*folders) for part, folders in find_parts(source).items()}

    def _info(self) -> tfds.core.DatasetInfo:
        image = tfds.features.Image(shape=(None, None, None), doc="the bytes of the image file; read undecoded")
        return tfds.core.DatasetInfo(
            builder=self,
            description=self.TITLE,
            homepage=self.HOMEPAGE,
            citation=self.CITATION,
            license=self.LICENCE,
            features=tfds.features.FeaturesDict(
                {"name": tfds.features.Text(), "visible": image, "infrared": image},
            ),
            metadata=tfds.core.MetadataDict(),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        parts = self.pairs(Path(dl_manager.manual_dir))
        self.info.metadata["names"] = {part: [pair.stem for pair in pairs] for part, pairs in parts.items()}
        return {part: self._generate_examples(pairs) for part, pairs in parts.items()}

    def _generate_examples(self, pairs: list[Pair]) -> Iterator[tuple[int, dict[str, Any]]]:
        for index, pair in enumerate(pairs):
            yield index, {"name": pair.stem, "visible": pair.visible, "infrared": pair.infrared}
            self.written()
