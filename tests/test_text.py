"""Prompts to vectors, and the file that keeps them."""

from types import SimpleNamespace

import numpy as np
import pytest

from langfuse_jax import TextEmbeddings, UserError
from langfuse_jax.cli import main
from langfuse_jax.clip.words import GOAL, INFRARED, VISIBLE, embed

RAW = {
    "v": [3.0, 0, 0],
    "v2": [1.0, 4, 0],
    "i": [0, 2.0, 0],
    "g": [1.0, 2, 2],
    VISIBLE: [1.0, 0, 0],
    INFRARED: [0, 1.0, 0],
}
RAW[GOAL] = [0, 0.6, 0.8]


class FakeClip:
    name, fingerprint, vocabulary = "fake", "abc123", None

    def encode_text(self, texts, report):
        return np.array([RAW[text] for text in texts], np.float32)


def test_mean_of_raw_features_then_normalised():
    text = embed(FakeClip(), visible=["v", "v2"], infrared=["i"], goal=["g"])
    np.testing.assert_allclose(text.visible, np.array([2, 2, 0]) / np.sqrt(8), rtol=1e-6)
    np.testing.assert_allclose(text.infrared, [0, 1, 0], rtol=1e-6)
    np.testing.assert_allclose(text.goal, np.array([1, 2, 2]) / 3, rtol=1e-6)
    cosines = text.cosines()
    assert cosines["visible", "infrared"] == pytest.approx(np.sqrt(0.5))
    assert cosines["infrared", "goal"] == pytest.approx(2 / 3)


def test_published_sentences_are_the_defaults():
    text = embed(FakeClip())
    assert text.prompts == {"visible": (VISIBLE,), "infrared": (INFRARED,), "goal": (GOAL,)}
    assert VISIBLE == "a visible gray image" and INFRARED == "an infrared image"
    assert GOAL == "a clear image with detailed background and salient objects"


def test_file_round_trip(tmp_path):
    text = embed(FakeClip(), visible=["v", "v2"])
    text.save(tmp_path / "new" / "text.npz")
    again = TextEmbeddings.load(tmp_path / "new" / "text.npz")
    assert (again.model, again.fingerprint, again.prompts) == ("fake", "abc123", text.prompts)
    for role in ("visible", "infrared", "goal"):
        np.testing.assert_array_equal(getattr(again, role), getattr(text, role))
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["text.npz"]


def test_check_names_both():
    text = embed(FakeClip())
    text.check(FakeClip())
    with pytest.raises(UserError, match=r"fake \(abc123\).*other \(def456\)"):
        text.check(SimpleNamespace(name="other", fingerprint="def456"))


def test_bad_files(tmp_path):
    with pytest.raises(UserError, match=r"text\.npz: no such text file"):
        TextEmbeddings.load(tmp_path / "text.npz")
    (tmp_path / "text.npz").write_bytes(b"not a zip")
    with pytest.raises(UserError, match=r"text\.npz: not a text file"):
        TextEmbeddings.load(tmp_path / "text.npz")
    np.savez(tmp_path / "other.npz", weights=np.zeros(3))
    with pytest.raises(UserError, match=r"other\.npz: not a text file"):
        TextEmbeddings.load(tmp_path / "other.npz")
    np.savez(tmp_path / "pickled.npz", about=np.array({"model": "x"}, object))
    with pytest.raises(UserError, match=r"pickled\.npz: not a text file"):
        TextEmbeddings.load(tmp_path / "pickled.npz")
    with pytest.raises(UserError, match=r"text\.txt.*\.npz"):
        embed(FakeClip()).save(tmp_path / "text.txt")


def test_empty_prompts():
    with pytest.raises(UserError, match="--goal"):
        embed(FakeClip(), goal=[])
    with pytest.raises(UserError, match="--infrared"):
        embed(FakeClip(), infrared=["i", "  "])


def test_command(tmp_path, capsys):
    out = tmp_path / "text.npz"
    assert main(["embed", "--goal", "a dark image", "--goal", "a dim image", "--out", str(out)]) == 0
    text = TextEmbeddings.load(out)
    assert text.model == "compact" and text.prompts["goal"] == ("a dark image", "a dim image")
    assert np.linalg.norm(text.goal) == pytest.approx(1, abs=1e-5)
    assert "visible, infrared: cosine" in capsys.readouterr().out
    assert main(["embed", "--clip", str(tmp_path / "none"), "--out", str(out)]) == 2
    assert "no such folder" in capsys.readouterr().err
