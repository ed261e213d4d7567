"""What fusing is said to take is what XLA plans, and the remedies are those that help."""

import pytest

from langfuse_jax import Fuser, UserError
from langfuse_jax.inference import memory
from langfuse_jax.models.fusion import FusionNet
from langfuse_jax.models.steered import SteeredNet


@pytest.mark.slow
@pytest.mark.parametrize("model", ["steered", "ldfusion"])
@pytest.mark.parametrize(("size", "batch"), [((1024, 1024), 1), ((512, 768), 4)])
def test_a_program_takes_what_is_estimated(model, size, batch):
    fuser = Fuser.load(model=model)
    planned = fuser.program(size, batch).func.memory_analysis().temp_size_in_bytes
    pixels = batch * size[0] * size[1]
    assert 0.6 < planned / (memory._PROGRAM_BYTES[type(fuser.net)] * pixels) <= 1.01


@pytest.mark.parametrize(
    ("net", "free", "batch", "remedies"),
    [
        (SteeredNet(96), 2.5, 1, "use --tile 1024 or smaller images"),
        (SteeredNet(96), 4.5, 2, "use a lower --batch-size or --tile 1024 or smaller images"),
        (SteeredNet(96), 1.0, 1, "use smaller images"),
        (FusionNet(), 2.5, 1, "use smaller images"),
    ],
)
def test_the_remedy_is_one_that_helps(monkeypatch, net, free, batch, remedies):
    monkeypatch.setattr(memory, "_free_memory", lambda: int(free * 2**30))
    with pytest.raises(UserError) as caught:
        memory.check_memory(net, (4000, 6000), batch)
    assert str(caught.value).endswith(remedies)


def test_a_stream_takes_memory_for_two_small_batches_or_for_a_large_one():
    net, (small, large) = FusionNet(), ((512, 512), (2048, 2048))
    (one, streamed), (whole, alone) = (
        [memory.memory_needed(net, size, waiting=waiting) for waiting in (0, 1)] for size in (small, large)
    )
    assert streamed - one == (600 + 56 + 20) * 512**2 and alone - whole == 20 * 2048**2
    assert memory.memory_needed(net, small, 8, waiting=1) - memory.memory_needed(net, small, 8) == 20 * 512**2


def test_enough_memory_is_enough(monkeypatch):
    monkeypatch.setattr(memory, "_free_memory", lambda: memory.memory_needed(SteeredNet(96), (4000, 6000)))
    memory.check_memory(SteeredNet(96), (4000, 6000))
    monkeypatch.setattr(memory, "_free_memory", lambda: None)
    memory.check_memory(FusionNet(), (40000, 60000))
