"""The words that a CLIP knows, where it knows few enough to list them."""

import json
import re
from pathlib import Path
from typing import NamedTuple

FILE = "known_words.json"


class Vocabulary(NamedTuple):
    """Lower-case words that a CLIP was trained on, and those of them that mean nothing alone, as "a" and "image".

    >>> vocabulary = Vocabulary(frozenset({"a", "dark", "image"}), frozenset({"a", "image"}))
    >>> vocabulary.unknown("A dark zebra, a zebra!"), vocabulary.says_nothing("a zebra"), vocabulary.says_nothing("")
    (['zebra'], True, False)
    """

    words: frozenset[str]
    neutral: frozenset[str]

    def unknown(self, sentence: str) -> list[str]:
        """The words of a sentence that are not known, in order, each once."""
        return list(dict.fromkeys(word for word in _words(sentence) if word not in self.words))

    def says_nothing(self, sentence: str) -> bool:
        """Whether a sentence has unknown words and no known one that means anything."""
        return bool(self.unknown(sentence)) and not any(
            word in self.words and word not in self.neutral for word in _words(sentence)
        )

    def save(self, folder: Path) -> None:
        """Writes FILE into the folder of a CLIP."""
        lists = {"words": sorted(self.words), "neutral": sorted(self.neutral)}
        (folder / FILE).write_text(json.dumps(lists, indent=1) + "\n")

    @classmethod
    def load(cls, path: Path) -> "Vocabulary":
        """Reads FILE."""
        lists = json.loads(path.read_text())
        return cls(frozenset(lists["words"]), frozenset(lists["neutral"]))


def _words(sentence: str) -> list[str]:
    return re.findall(r"\w+", sentence.lower())
