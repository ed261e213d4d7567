"""The words that a CLIP knows, where it knows few enough to list them."""

import json
import re
from pathlib import Path
from typing import NamedTuple

FILE = "known_words.json"


class Vocabulary(NamedTuple):
    """Lower-case words that a CLIP was trained on, and those of them that mean nothing alone, as "a" and "image".

    >>> vocabulary = Vocabulary(frozenset({"a", "dark", "image"}), frozenset({"a", "image"}))
    >>> vocabulary.unknown("A dark zebra, a zebra!"), [vocabulary.says_nothing(s) for s in ("a zebra", "Dark!", "a")]
    (['zebra'], [True, False, True])
    """

    words: frozenset[str]
    neutral: frozenset[str]

    def unknown(self, sentence: str) -> list[str]:
        """The words of a sentence that are not known, in order, each once."""
        return list(dict.fromkeys(word for word in words_of(sentence) if word not in self.words))

    def says_nothing(self, sentence: str) -> bool:
        """Whether a sentence has no known word that means anything."""
        return all(word not in self.words or word in self.neutral for word in words_of(sentence))

    def save(self, folder: Path) -> None:
        """Writes FILE into the folder of a CLIP."""
        lists = {"words": sorted(self.words), "neutral": sorted(self.neutral)}
        (folder / FILE).write_text(json.dumps(lists, indent=1) + "\n")

    @classmethod
    def load(cls, path: Path) -> "Vocabulary":
        """Reads FILE."""
        lists = json.loads(path.read_text())
        return cls(frozenset(lists["words"]), frozenset(lists["neutral"]))


def words_of(sentence: str) -> list[str]:
    """The lower-case words of a sentence, without what stands between them.

    >>> words_of("High-contrast, please!")
    ['high', 'contrast', 'please']
    """
    return re.findall(r"[^\W_]+", sentence.lower())
