"""The published fusion weights in and out of the package, and files that are not what they should be."""

import builtins
import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from reference import procedural_weights
from safetensors.numpy import save_file

from langfuse_jax import Fuser, UserError
from langfuse_jax.cli import main
from langfuse_jax.weights.border_rule import read_border_rule
from langfuse_jax.weights.files import read_tensors
from langfuse_jax.weights.fusion import save_fusion
from langfuse_jax.weights.ldfusion import TABLE, fusion_from_torch, fusion_to_torch
from langfuse_jax.weights.tables import LINEAR, Rule, to_flax, to_source

PACKAGED = Path(__file__).resolve().parents[1] / "langfuse_jax" / "assets" / "ldfusion"


@pytest.fixture(scope="module")
def published():
    """The published encoder and decoder, as state dicts of numpy arrays, with weights drawn from a seed."""
    return procedural_weights.encoder_decoder(2024)


def _same(ours, theirs):
    return ours.keys() == theirs.keys() and all(
        ours[name].dtype == theirs[name].dtype and np.array_equal(ours[name], theirs[name]) for name in theirs
    )


def _fails(arguments, capsys, *named):
    """The command ends with status 2 and one line that has all of `named`."""
    assert main([str(argument) for argument in arguments]) == 2
    out, error = capsys.readouterr()
    assert not out and error.count("\n") == 1 and error.startswith("langfuse-jax: error: ")
    for words in named:
        assert words in error, error


def _there(model, encoder, decoder):
    return ["convert", "fusion", "--to-torch", model, "--out-encoder", encoder, "--out-decoder", decoder]


def _back(folder, out, *flags):
    files = ["--encoder", folder / "enc.safetensors", "--decoder", folder / "dec.safetensors"]
    return [str(flag) for flag in ("convert", "fusion", *files, "--out", out, *flags)]


def test_a_table_says_both_directions():
    table = (Rule("layer.{}.qkv", ("block_{}/q", "block_{}/k", "block_{}/v"), LINEAR), Rule("end", "last"))
    qkv = np.arange(12, dtype=np.float32).reshape(6, 2)
    tensors = {"layer.7.qkv": qkv, "end": np.ones(3, np.float32)}
    shapes = {"block_7/q": (2, 2), "block_7/k": (2, 2), "block_7/v": (2, 2), "last": (3,)}
    flat = to_flax(tensors, table, shapes, origin="x.pt")
    np.testing.assert_array_equal(flat["block_7/k"], [[4, 6], [5, 7]])
    assert _same(to_source(flat, table), tensors)
    with pytest.raises(KeyError, match="strange"):
        to_source({"strange": np.ones(1)}, table)
    wrong = {"layer.7.qkv": qkv[:5], "layer.8.qkv": qkv, "other": qkv}
    with pytest.raises(UserError) as error:
        to_flax(wrong, table, shapes, origin="x.pt")
    assert str(error.value) == (
        "x.pt: does not fit the model; unknown tensors: layer.8.qkv, other; missing tensors: end (for last); "
        "wrong shapes: layer.7.qkv is (5, 2), not (6, 2)"
    )


def test_round_trip_is_bit_exact_and_complete(published):
    params = fusion_from_torch(*published)
    encoder, decoder = fusion_to_torch(params)
    assert _same(encoder, published[0]) and _same(decoder, published[1])
    shapes = procedural_weights.SHAPES
    for state, name in ((encoder, "encoder"), (decoder, "decoder")):
        assert {key: list(value.shape) for key, value in state.items()} == shapes[name]
    assert len({rule.source for rule in TABLE}) == len(TABLE)


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    """A folder with the package's weights converted: enc.safetensors and its sidecar, and dec.safetensors."""
    folder = tmp_path_factory.mktemp("converted")
    assert main([str(flag) for flag in _there(PACKAGED, folder / "enc.safetensors", folder / "dec.safetensors")]) == 0
    return folder


def _framed(rng):
    """An image of odd sides with the black border of many thermal cameras."""
    return np.pad(rng.uniform(0.1, 1, (37, 41)), 2).astype(np.float32)


def test_how_images_are_seen_goes_there_and_back(converted, tmp_path, capsys):
    """Parameters and what the network is given of an image are those of the model converted: so is what it fuses."""
    assert main(_back(converted, tmp_path / "again")) == 0
    assert "pad_multiple 8, worn_edge 2" in capsys.readouterr().out
    ours, again = Fuser.load(model="ldfusion"), Fuser.load(tmp_path / "again")
    assert jax.tree.all(jax.tree.map(np.array_equal, ours.params, again.params))
    image = _framed(np.random.default_rng(0))
    assert again.extend(image).shape == (48, 48) and again.extend(image)[0, 0] > 0
    np.testing.assert_array_equal(again.extend(image), ours.extend(image))


@pytest.mark.torch
def test_whole_images_fuse_alike_after_both_ways(tmp_path):
    pytest.importorskip("torch")
    assert main([str(flag) for flag in _there(PACKAGED, tmp_path / "enc.pt", tmp_path / "dec.pt")]) == 0
    files = ["--encoder", tmp_path / "enc.pt", "--decoder", tmp_path / "dec.pt", "--out", tmp_path / "again"]
    assert main([str(flag) for flag in ("convert", "fusion", *files)]) == 0
    rng = np.random.default_rng(0)
    pair = _framed(rng), _framed(rng)
    np.testing.assert_array_equal(Fuser.load(tmp_path / "again")(*pair), Fuser.load(model="ldfusion")(*pair))


@pytest.mark.parametrize(
    ("sidecar", "flags", "rule"),
    [
        (None, (), {}),
        (None, ("--worn-edge", "3"), {"pad_multiple": 1, "worn_edge": 3}),
        ('{"pad_multiple": 16, "worn_edge": 1}', (), {"pad_multiple": 16, "worn_edge": 1}),
        ('{"pad_multiple": 16, "worn_edge": 1}', ("--worn-edge", "0"), {"pad_multiple": 16, "worn_edge": 0}),
        ("no JSON", ("--worn-edge", "2", "--pad-multiple", "8"), {"pad_multiple": 8, "worn_edge": 2}),
    ],
)
def test_flags_prevail_over_the_file_beside(tmp_path, sidecar, flags, rule):
    if sidecar:
        (tmp_path / "enc.pt.json").write_text(sidecar)
    given = {"pad_multiple": None, "worn_edge": None}
    given |= {flag[2:].replace("-", "_"): value for flag, value in zip(flags[::2], flags[1::2], strict=True)}
    assert read_border_rule(tmp_path / "enc.pt", given) == rule


def test_what_says_nothing_of_how_images_are_seen(converted, tmp_path, capsys):
    """One line, and nothing is written."""
    for flag, value in (("--pad-multiple", "0"), ("--pad-multiple", "33"), ("--worn-edge", "16"), ("--worn-edge", "x")):
        _fails(_back(converted, tmp_path / "new", flag, value), capsys, f"{flag} {value}: is no whole number from")
    for name in ("enc.safetensors", "dec.safetensors"):
        (tmp_path / name).symlink_to(converted / name)
    for content in (
        "",
        "[8, 2]",
        '{"pad_multiple": 8}',
        '{"pad_multiple": true, "worn_edge": 2}',
        "\xff",
        "[" * 100_000,
    ):
        (tmp_path / "enc.safetensors.json").write_bytes(content.encode("latin-1"))
        _fails(_back(tmp_path, tmp_path / "new"), capsys, f"{tmp_path / 'enc.safetensors.json'}: ")
    assert not (tmp_path / "new").exists()
    _fails([*_there("x", "e", "d"), "--worn-edge", "2"], capsys, "--worn-edge cannot go with --to-torch")


def test_no_source_is_replaced(converted, tmp_path, capsys):
    """Neither the checkpoint by state dicts or what is beside them, nor these by a checkpoint."""
    model, other = shutil.copytree(PACKAGED, tmp_path / "model"), tmp_path / "d.safetensors"
    _fails(_there(model, model / "fusion.safetensors", other), capsys, "--out-encoder", "would replace")
    _fails(_there(model, model / "fusion", other), capsys, "--out-encoder", "fusion.json, which is read")
    _fails(_there(model, other, model / "." / "fusion.json"), capsys, "--out-decoder", "would replace")
    _fails(_there(model, tmp_path / "e.safetensors", tmp_path / "e.safetensors.json"), capsys, "--out-decoder")
    shutil.copy(converted / "enc.safetensors", model / "fusion.safetensors")
    files = ["--encoder", model / "fusion.safetensors", "--decoder", converted / "dec.safetensors", "--out", model]
    _fails(["convert", "fusion", *files], capsys, f"--out {model}: would replace")
    assert (model / "fusion.safetensors").read_bytes() == (converted / "enc.safetensors").read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {"model"}


def test_swapped_files_are_named_as_such(published):
    with pytest.raises(UserError, match="swapped"):
        fusion_from_torch(published[1], published[0])


def test_flags_that_do_not_go_together(tmp_path, capsys):
    _fails(["convert", "fusion", "--encoder", "e.pt"], capsys, "--decoder, --out missing")
    _fails(["convert", "fusion", "--to-torch", "x", "--out-encoder", "e"], capsys, "--out-decoder missing")
    both = ["--to-torch", "x", "--out-encoder", "e", "--out-decoder", "d"]
    _fails(["convert", "fusion", *both, "--out", "y"], capsys, "--out cannot go with --to-torch")
    same = ["--to-torch", "x", "--out-encoder", tmp_path / "e", "--out-decoder", tmp_path / "." / "e"]
    _fails(["convert", "fusion", *same], capsys, "--out-decoder", "another name")
    _fails(["convert", "fusion", *both], capsys, "fusion.safetensors: no such file")


def test_without_torch_the_extra_is_named(published, tmp_path, monkeypatch, capsys):
    def without_torch(name, *args, **kwargs):
        if name == "torch":
            raise ImportError("No module named 'torch'")
        return real(name, *args, **kwargs)

    real = builtins.__import__
    monkeypatch.setattr(builtins, "__import__", without_torch)
    (tmp_path / "Enc_final.pt").write_bytes(b"anything")
    files = ["--encoder", tmp_path / "Enc_final.pt", "--decoder", tmp_path / "Dec_final.pt"]
    _fails(["convert", "fusion", *files, "--out", tmp_path / "new"], capsys, "Enc_final.pt", "langfuse-jax[torch]")
    save_fusion(tmp_path / "model", fusion_from_torch(*published), metadata={})
    back = ["--to-torch", tmp_path / "model", "--out-encoder", tmp_path / "e.pt", "--out-decoder", tmp_path / "d.pt"]
    _fails(["convert", "fusion", *back], capsys, "e.pt", "langfuse-jax[torch]")
    assert {path.name for path in tmp_path.iterdir()} == {"Enc_final.pt", "model"}


def test_safetensors_need_no_torch(published, tmp_path, capsys):
    """A pair kept as safetensors converts too; wrong types, other networks and cut files do not."""
    for state, name in zip(published, ("enc", "dec"), strict=True):
        save_file(state, tmp_path / f"{name}.safetensors")
    whole = (tmp_path / "enc.safetensors").read_bytes()
    files = ["--encoder", tmp_path / "enc.safetensors", "--decoder", tmp_path / "dec.safetensors"]
    assert main([str(flag) for flag in ("convert", "fusion", *files, "--out", tmp_path / "good")]) == 0
    capsys.readouterr()
    (tmp_path / "cut.safetensors").write_bytes(whole[: len(whole) // 2])
    save_file({"fc.weight": np.ones((2, 2), np.float32)}, tmp_path / "other.safetensors")
    name = "style_encoder1.model.10.bias"
    save_file(published[0] | {name: np.ones(8, np.int8)}, tmp_path / "int8.safetensors")
    for file, words in (
        ("cut", "not a readable safetensors file"),
        ("other", "unknown tensors: encoder.fc.weight;"),
        ("int8", f"encoder.{name} is int8"),
        ("absent", "no such file"),
    ):
        path = tmp_path / f"{file}.safetensors"
        command = ["convert", "fusion", "--encoder", path, *files[2:], "--out", tmp_path / "new"]
        _fails(command, capsys, str(path), words)
    assert not (tmp_path / "new").exists()


@pytest.fixture
def pt(published, tmp_path):
    """A folder with Enc_final.pt and Dec_final.pt as torch.save writes them."""
    torch = pytest.importorskip("torch")
    for state, name in zip(published, ("Enc_final.pt", "Dec_final.pt"), strict=True):
        torch.save({key: torch.from_numpy(value) for key, value in state.items()}, tmp_path / name)
    return tmp_path


@pytest.mark.torch
def test_the_command_there_and_back(pt, published, data_folder, capsys):
    files = ["--encoder", pt / "Enc_final.pt", "--decoder", pt / "Dec_final.pt"]
    assert main([str(flag) for flag in ("convert", "fusion", *files, "--out", pt / "model")]) == 0
    assert "pad_multiple" not in json.loads((pt / "model" / "fusion.json").read_text())
    reference = np.load(data_folder / "fusion_reference.npz")
    fuser = Fuser.load(pt / "model")
    for case in range(3):
        pair = [reference[f"case{case}_{source}"].astype(np.float32)[..., None] for source in ("visible", "infrared")]
        np.testing.assert_allclose(fuser(*pair)[..., 0], reference[f"case{case}_fused"], atol=2e-4)
    import torch

    back = ["--out-encoder", pt / "back" / "enc.pt", "--out-decoder", pt / "back" / "dec.pt"]
    assert main([str(flag) for flag in ("convert", "fusion", "--to-torch", pt / "model", *back)]) == 0
    for file, state in zip(("enc.pt", "dec.pt"), published, strict=True):
        written = torch.load(pt / "back" / file, weights_only=True)
        assert all(type(value) is torch.Tensor for value in written.values())
        assert _same({name: value.numpy() for name, value in written.items()}, state)
    assert {path.name for path in (pt / "back").iterdir()} == {"enc.pt", "enc.pt.json", "dec.pt"}
    capsys.readouterr()
    (pt / "folder.pt").mkdir()
    command = ["convert", "fusion", "--to-torch", pt / "model", "--out-encoder", pt / "e.pt", "--out-decoder"]
    _fails([*command, pt / "folder.pt"], capsys, "folder.pt")
    assert not (pt / "e.pt").exists()


@pytest.mark.torch
def test_prefixes_and_wrappers(pt, published):
    import torch

    plain = {name: torch.from_numpy(value) for name, value in published[0].items()}
    parallel = {f"module.{name}": value for name, value in plain.items()}
    for name, state in {
        "parallel": parallel,
        "trainer": {"epoch": 3, "state_dict": parallel},
        "model": {"model": plain, "optimizer": {"lr": 1.0}},
        "parameters": {name: torch.nn.Parameter(value) for name, value in plain.items()},
    }.items():
        torch.save(state, pt / f"{name}.pt")
        assert _same(read_tensors(pt / f"{name}.pt"), published[0]), name


class _NotTensors:
    pass


@pytest.mark.torch
def test_bad_files(pt, capsys):
    import pickle

    import torch

    whole = (pt / "Enc_final.pt").read_bytes()
    (pt / "cut.pt").write_bytes(whole[: len(whole) // 2])
    (pt / "empty.pt").write_bytes(b"")
    (pt / "words.pt").write_text("not a checkpoint")
    torch.save({"conv1.weight": torch.ones(3)}, pt / "other.pt")
    torch.save({"epoch": 3, "best": 0.5}, pt / "numbers.pt")
    torch.save([torch.ones(3)], pt / "list.pt")
    torch.save(torch.ones(3), pt / "tensor.pt")
    torch.save({"net": _NotTensors()}, pt / "object.pt")
    (pt / "pickle.pt").write_bytes(pickle.dumps({"a": np.ones(3)}))
    torch.save({key: value.to(torch.int8) for key, value in torch.load(pt / "Enc_final.pt").items()}, pt / "int8.pt")
    before = sorted(pt.iterdir())
    for file, words in {
        "cut": "damaged or not a torch file",
        "empty": "damaged or not a torch file",
        "words": "not a torch state dict (damaged",
        "other": "unknown tensors: encoder.conv1.weight;",
        "numbers": "not a torch state dict ('epoch' is a int)",
        "list": "not a torch state dict (it is a list)",
        "tensor": "not a torch state dict (it is a Tensor)",
        "object": "not a torch state dict (damaged, or it holds other objects than tensors",
        "pickle": "not a torch state dict (damaged, or it holds other objects than tensors",
        "int8": "encoder.content_encoder1.model.1.bias is int8",
        "Dec_final": "unknown tensors: encoder.mlp.model.0.bias",  # given twice
    }.items():
        command = ["convert", "fusion", "--encoder", pt / f"{file}.pt", "--decoder", pt / "Dec_final.pt"]
        _fails([*command, "--out", pt / "new"], capsys, f"{file}.pt", words)
    swapped = ["--encoder", pt / "Dec_final.pt", "--decoder", pt / "Enc_final.pt", "--out", pt / "new"]
    _fails(["convert", "fusion", *swapped], capsys, "encoder and decoder are swapped")
    assert sorted(pt.iterdir()) == before
