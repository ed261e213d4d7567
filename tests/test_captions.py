"""The sentences that the compact CLIP is taught, and the words it says it knows."""

import json
import re

import jax
import numpy as np
import pytest

from langfuse_jax import Clip, UnknownWords, UserError
from langfuse_jax.cli import main
from langfuse_jax.clip.pretrained import COMPACT
from langfuse_jax.clip.vocabulary import Vocabulary
from langfuse_jax.clip.words import embed
from langfuse_jax.compact_clip import captions
from langfuse_jax.compact_clip.captions import (
    composed,
    neutral_words,
    reference_sentences,
    related,
    sample_captions,
    truth,
    vocabulary,
)
from langfuse_jax.compact_clip.concepts import AXES, CONCEPTS, INDEX, OPPOSITE
from langfuse_jax.compact_clip.phrases import IMAGES, OBJECTS, PHRASES, TARGETS
from langfuse_jax.compact_clip.tokenizer import learn_merges, make_tokenizer


def test_truth_of_sentences():
    claims = np.zeros((3, len(CONCEPTS)), bool)
    claims[0, INDEX["infrared"]] = claims[1, INDEX["dark"]] = True
    claims[2, [INDEX["dark"], INDEX["infrared"]]] = True
    known = np.full((4, len(CONCEPTS)), -1, np.int8)
    columns = [INDEX["infrared"], INDEX["dark"]]
    known[:, columns] = [[1, 1], [1, 0], [1, -1], [-1, -1]]
    assert truth(claims, known).tolist() == [[1, 1, 1], [1, 0, 0], [1, -1, -1], [-1, -1, -1]]


def test_captions_claim_what_their_concept_says():
    told = sample_captions(np.random.default_rng(0), [("dark", "salient")])
    count = len(CONCEPTS)
    assert told.claims.shape == (len(told.sentences), count)
    assert told.sentences[:count] == list(reference_sentences().values())
    np.testing.assert_array_equal(told.claims[:count], np.eye(count, dtype=bool))
    np.testing.assert_array_equal(told.claims[count : 2 * count], np.eye(count, dtype=bool))
    assert np.flatnonzero(told.claims[2 * count]).tolist() == [INDEX["dark"], INDEX["salient"]]
    assert (told.claims[2 * count :].sum(1) >= 2).all()
    assert not any("{" in sentence or " a i" in sentence or "  " in sentence for sentence in told.sentences)
    assert list(reference_sentences()) == list(CONCEPTS) and set(PHRASES) == set(CONCEPTS)
    assert told.sentences[INDEX["dark"]] == "a dark image" and told.sentences[INDEX["sharp"]] == "a sharp image"


@pytest.mark.parametrize("concept", OPPOSITE)
def test_negations_claim_the_opposite(concept, monkeypatch):
    """What is sharp is said to be "not blurry" and "without blur": with words of the opposite, never with its own."""
    monkeypatch.setattr(captions, "OPENINGS", ("",))
    monkeypatch.setattr(captions, "PLACES", ("",))
    other = PHRASES[OPPOSITE[concept]]
    patterns = [f"(an? )?({'|'.join(IMAGES)})? ?(that is )?not ((very|really) )?{word}" for word in other.adjectives]
    patterns += [f"(an? )?({'|'.join(IMAGES)})? ?(without|with no|no) {noun}" for noun in other.nouns]
    said = [captions.sentence_of(concept, np.random.default_rng(seed)) for seed in range(100)]
    negated = [sentence for sentence in said if any(re.fullmatch(pattern, sentence) for pattern in patterns)]
    assert bool(negated) == bool(patterns) and len(negated) < 60
    for sentence in captions.negations(concept, np.random.default_rng(0)):
        assert sentence.split()[-1] in {
            word.split()[-1] for word in (*PHRASES[concept].adjectives, *PHRASES[concept].nouns)
        }


@pytest.mark.parametrize("axis", AXES)
def test_both_ends_of_an_axis_have_several_wordings(axis):
    for concept in AXES[axis]:
        phrases = PHRASES[concept]
        assert len({*phrases.adjectives, *phrases.features, *phrases.clauses, *phrases.sentences}) >= 8


def test_a_composition_has_words_of_each_of_its_concepts(monkeypatch):
    monkeypatch.setattr(captions, "OPENINGS", ("",))
    monkeypatch.setattr(captions, "PLACES", ("",))
    rng = np.random.default_rng(0)
    dark = {word for part in PHRASES["dark"][1:4] for words in part for word in words.split()} - set(neutral_words())
    for _ in range(40):
        sentence = set(composed(("dark", "salient"), rng).split())
        assert sentence & dark and sentence & {*TARGETS, *OBJECTS} and sentence & set(IMAGES), sentence


def test_related_concepts():
    near = related()
    assert near[INDEX["goal"], INDEX["salient"]] and near[INDEX["salient"], INDEX["goal"]] and near.diagonal().all()
    assert not any(near[INDEX[a], INDEX[b]] for a, b in OPPOSITE.items())


def test_words_become_single_tokens():
    words = vocabulary()
    assert set(neutral_words()) < set(words) and {"not", "without", "no"} <= set(words)
    tokenizer = make_tokenizer(words)
    assert all(len(tokenizer(word)["input_ids"]) == 3 for word in words)
    assert learn_merges(["ab", "abc"]) == [("a", "b"), ("a", "b</w>"), ("ab", "c</w>")]


def test_the_compact_clip_names_the_words_it_was_not_taught():
    clip = Clip.load()
    assert clip.unknown_words("A bright image, of a Zebra crossing (zebra)!") == ["zebra", "crossing"]
    assert not any(clip.unknown_words(sentence) for sentence in reference_sentences().values())
    with pytest.warns(UnknownWords, match="--goal 'a bright zebra'.*zebra.*'a bright image'"):
        embed(clip, goal=["a bright zebra"])
    for nothing in ("zebra", "an image of a zebra", "not a zebra", "two very big zebras"):
        with pytest.raises(UserError, match=r"--goal .* was never taught .*zebra"):
            embed(clip, goal=[nothing])
    with pytest.raises(UserError, match=r"--goal 'a photo': .* no word in it that means anything"):
        embed(clip, goal=["a photo"])


def test_what_stands_between_words_means_nothing():
    clip = Clip.load()
    one, other = clip.encode_text(["a high contrast image", "A high-contrast image!"])
    np.testing.assert_array_equal(one, other)


def test_unknown_words_on_the_command_line(tmp_path, capsys):
    out = tmp_path / "text.npz"
    assert main(["embed", "--goal", "zebras", "--out", str(out)]) == 2
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1 and "zebras" in printed and "docs/clip.md" in printed and not out.exists()
    assert main(["embed", "--goal", "bright zebras", "--out", str(out)]) == 0
    assert "was never taught zebras" in capsys.readouterr().err and out.exists()


def test_a_vocabulary_is_read_as_written(tmp_path):
    vocabulary = Vocabulary(frozenset({"dark", "a"}), frozenset({"a"}), ("a dark image",))
    vocabulary.save(tmp_path)
    assert Vocabulary.load(tmp_path / "known_words.json") == vocabulary
    assert json.loads((tmp_path / "known_words.json").read_text())["words"] == ["a", "dark"]
    assert vocabulary.unknown("") == [] and vocabulary.says_nothing("a") and not vocabulary.says_nothing("Dark?")


def test_the_compact_clip_is_compact():
    """At most 4 million parameters and 8 MB, as promised."""
    assert sum(leaf.size for leaf in jax.tree.leaves(Clip.load().params)) <= 4_000_000
    assert sum(file.stat().st_size for file in COMPACT.iterdir()) <= 8_000_000
