"""torch files read without torch."""

import pickle
import zipfile

import numpy as np
import pytest

from langfuse_jax import UserError
from langfuse_jax.convert.torch_file import load_state_dict


class _Evil:
    def __reduce__(self):
        return print, ("ran",)


def test_nothing_of_the_file_is_run(tmp_path, capsys):
    with zipfile.ZipFile(tmp_path / "evil.bin", "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"weight": _Evil()}))
    with pytest.raises(UserError, match=r"evil\.bin.*print"):
        load_state_dict(tmp_path / "evil.bin")
    assert "ran" not in capsys.readouterr().out


def test_other_files_are_refused(tmp_path):
    (tmp_path / "text.bin").write_text("no zip")
    with pytest.raises(UserError, match=r"text\.bin: not a torch file"):
        load_state_dict(tmp_path / "text.bin")
    with pytest.raises(UserError, match=r"none\.bin"):
        load_state_dict(tmp_path / "none.bin")


@pytest.mark.torch
def test_equals_torch(tmp_path):
    torch = pytest.importorskip("torch")
    base = torch.arange(24.0).reshape(4, 6)
    state = {
        "view": base[1:, ::2].T,
        "half": torch.randn(3, 2).half(),
        "ids": torch.arange(5)[None],
        "scalar": torch.tensor(2.5),
        "parameter": torch.nn.Parameter(torch.randn(2, 3)),
        "none": torch.zeros(0, 3),
    }
    torch.save(state, tmp_path / "state.bin")
    loaded = load_state_dict(tmp_path / "state.bin")
    assert loaded.keys() == state.keys()
    for name, tensor in state.items():
        np.testing.assert_array_equal(loaded[name], tensor.detach().numpy())
        assert loaded[name].dtype == tensor.detach().numpy().dtype
    torch.save({"weight": torch.zeros(2), "epoch": 3}, tmp_path / "more.bin")
    with pytest.raises(UserError, match="more than the tensors"):
        load_state_dict(tmp_path / "more.bin")
