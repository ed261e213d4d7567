"""The words that a CLIP knows, where it knows few enough to list them."""

import json
import re
from pathlib import Path
from typing import NamedTuple

FILE = "known_words.json"


class Vocabulary(NamedTuple):
    """What a CLIP was taught.

    Attributes:
        words: all that it knows, in lower case.
        neutral: those that mean nothing alone, as "a" and "image".
        phrases: a sentence for each thing that it can tell.

    >>> vocabulary = Vocabulary(frozenset({"a", "dark", "image"}), frozenset({"a", "image"}), ("a dark image",))
    >>> vocabulary.unknown("A dark zebra, a zebra!"), [vocabulary.says_nothing(s) for s in ("a zebra", "Dark!", "a")]
    (['zebra'], [True, False, True])
    """

    words: frozenset[str]
    neutral: frozenset[str]
    phrases: tuple[str, ...]

    def unknown(self, sentence: str) -> list[str]:
        """The words of a sentence that are not known, in order, each once."""
        return list(dict.fromkeys(word for word in words_of(sentence) if word not in self.words))

    def says_nothing(self, sentence: str) -> bool:
        """Whether a sentence has no known word that means anything."""
        return all(word not in self.words or word in self.neutral for word in words_of(sentence))

    def save(self, folder: Path) -> None:
        """Writes FILE into the folder of a CLIP."""
        lists = {"words": sorted(self.words), "neutral": sorted(self.neutral), "phrases": self.phrases}
        (folder / FILE).write_text(json.dumps(lists, indent=1) + "\n")

    @classmethod
    def load(cls, path: Path) -> "Vocabulary":
        """Reads FILE."""
        lists = json.loads(path.read_text())
        return cls(frozenset(lists["words"]), frozenset(lists["neutral"]), tuple(lists["phrases"]))


def words_of(sentence: str) -> list[str]:
    """The lower-case words of a sentence, without what stands between them.

    >>> words_of("High-contrast, please!")
    ['high', 'contrast', 'please']
    """
    return re.findall(r"[^\W_]+", sentence.lower())
