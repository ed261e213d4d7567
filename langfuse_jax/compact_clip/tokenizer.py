"""A small byte-pair vocabulary in the file format of CLIP's tokenizer, with whole words as single tokens."""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path

from transformers import CLIPTokenizer

START, END = "<|startoftext|>", "<|endoftext|>"


def learn_merges(words: Iterable[str]) -> list[tuple[str, str]]:
    """Byte-pair merges, learnt until every (lower-case ASCII) word is one token."""
    pieces = [[*word[:-1], f"{word[-1]}</w>"] for word in sorted(set(words))]
    merges: list[tuple[str, str]] = []
    while True:
        pairs = Counter(pair for word in pieces for pair in pairwise(word))
        if not pairs:
            return merges
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        pieces = [_merge(word, best) if best[0] in word else word for word in pieces if len(word) > 1]


def _merge(word: Sequence[str], pair: tuple[str, str]) -> list[str]:
    merged: list[str] = []
    for piece in word:
        if merged and (merged[-1], piece) == pair:
            merged[-1] += piece
        else:
            merged.append(piece)
    return merged


def _byte_symbols() -> list[str]:
    """CLIP's printable stand-ins for the 256 bytes, in the order of its vocabulary."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) for byte in printable] + [chr(256 + i) for i in range(len(others))]


def make_tokenizer(words: Iterable[str]) -> CLIPTokenizer:
    """A CLIPTokenizer that has `words` as whole tokens and spells every other text in bytes."""
    merges = learn_merges(words)
    symbols = _byte_symbols()
    tokens = [*symbols, *(f"{symbol}</w>" for symbol in symbols)]
    known = set(tokens)
    tokens += [token for token in dict.fromkeys("".join(pair) for pair in merges) if token not in known]
    tokens += [START, END]
    return CLIPTokenizer(vocab={token: i for i, token in enumerate(tokens)}, merges=merges)  # type: ignore[arg-type]  # pairs


def save_tokenizer(tokenizer: CLIPTokenizer, folder: Path) -> None:
    """vocab.json, merges.txt and tokenizer_config.json: the files that CLIPTokenizer.from_pretrained reads."""
    state = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    (folder / "vocab.json").write_text(json.dumps(state["vocab"], ensure_ascii=False), encoding="utf-8")
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in state["merges"]]
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]), encoding="utf-8")
    settings = {
        "tokenizer_class": "CLIPTokenizer",
        "bos_token": START,
        "eos_token": END,
        "pad_token": END,
        "unk_token": END,
        "model_max_length": 77,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")
