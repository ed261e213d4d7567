"""The stream: the same images as one by one, in bounded memory, and what happens to errors."""

import gc
import threading
import weakref

import jax
import numpy as np
import pytest

from langfuse_jax.errors import UserError
from langfuse_jax.inference.fuser import Fuser
from langfuse_jax.inference.stream import fuse_stream


class Echo(Fuser):
    """Gives the visible image back."""

    def __init__(self, multiple=1):
        self.metadata = {"pad_multiple": multiple}
        self.made = []

    def program(self, canvas, batch):
        self.made.append((canvas, batch))
        return lambda visible, infrared, sizes: visible


def random_pair(rng, low=32, high=80):
    h, w = rng.integers(low, high, 2)
    visible, infrared = rng.random((2, h, w), np.float32)
    return visible, None, infrared


def no_failure(job, error):
    raise error


def fuse(fuser, jobs, read, canvases, failed=no_failure, threads=2, **options):
    """The fused images by job."""
    fused = {}

    def write(job, sources, image):
        fused[job] = np.array(image)

    work = fuse_stream(fuser, jobs, read, write, canvases=canvases, threads=threads, failed=failed, **options)
    return fused, work


@pytest.mark.parametrize("batch_size", [1, 3])
def test_equals_one_by_one(batch_size):
    rng = np.random.default_rng(3)
    fuser = Fuser.load()
    pairs = [random_pair(rng, 33, 41) for _ in range(5)]
    fused, work = fuse(fuser, range(5), pairs.__getitem__, {(40, 40): 5}, batch_size=batch_size)
    assert work.images == {(40, 40): 5} and work.pixels == sum(pair[0].size for pair in pairs)
    assert work.canvas_pixels == 40 * 40 * (5 if batch_size == 1 else 6)
    for i, (visible, _, infrared) in enumerate(pairs):
        np.testing.assert_allclose(fused[i], fuser(visible, infrared), atol=1e-4)


def test_images_meet_their_own_canvas_and_batches_are_filled_up():
    rng = np.random.default_rng(0)
    pairs = [random_pair(rng) for _ in range(40)]
    fuser = Echo(multiple=8)
    fused, work = fuse(fuser, range(40), pairs.__getitem__, {(40, 80): 3, (64, 64): 3, (16, 16): 0}, batch_size=3)
    assert fused.keys() == set(range(40)) and work.images.total() == 40
    for i, image in fused.items():
        np.testing.assert_array_equal(image, pairs[i][0])
    # Those that fit on neither have canvases of their own.
    assert set(fuser.made) >= {((40, 80), 3), ((64, 64), 3)} and len(fuser.made) == len(work.images) > 2
    assert work.canvas_pixels == sum(h * w * -(-n // 3) * 3 for (h, w), n in work.images.items())


def test_order_is_kept_by_one_thread_and_none_ends_the_stream():
    rng, written = np.random.default_rng(0), []
    pairs = [random_pair(rng, 40, 41) for _ in range(7)] + [None]
    fuse_stream(
        Echo(),
        iter(range(1000)),
        lambda i: pairs[min(i, 7)],
        lambda i, sources, image: written.append(i),
        canvases={(40, 40): 7},
        batch_size=2,
        threads=1,
        failed=no_failure,
    )
    assert written == list(range(7))


def test_memory_is_bounded():
    """Of two thousand pairs a few dozen live at a time, with a reader far faster than the writers."""
    alive, most, lock = weakref.WeakSet(), 0, threading.Lock()

    class Image(np.ndarray):
        pass

    def read(job):
        nonlocal most
        with lock:
            luma = np.zeros((32, 32), np.float32).view(Image)
            alive.add(luma)
            most = max(most, len(alive))
        return luma, None, np.zeros((32, 32), np.float32)

    Image.__hash__ = object.__hash__
    Image.__eq__ = object.__eq__
    seen = []
    fuse_stream(
        Echo(),
        (i for i in range(2000)),
        read,
        lambda job, sources, image: seen.append(job),
        canvases={(32, 32): 2000},
        batch_size=4,
        threads=2,
        failed=no_failure,
    )
    gc.collect()
    assert sorted(seen) == list(range(2000))
    assert 4 <= most <= 4 * 4 + 4 * 2 + 8


def test_errors_of_reading_are_told_and_those_of_writing_end_it():
    rng = np.random.default_rng(0)
    told, begun = [], []

    def read(job):
        begun.append(job)
        if job % 3 == 0:
            raise UserError(f"{job}: is bad")
        return random_pair(rng, 32, 33)

    fused, _ = fuse(Echo(), range(9), read, {(32, 32): 9}, lambda job, error: told.append((job, str(error))))
    assert sorted(fused) == [1, 2, 4, 5, 7, 8] and told == [(job, f"{job}: is bad") for job in (0, 3, 6)]

    def full(*_):
        raise UserError("the disk is full")

    begun.clear()
    with pytest.raises(UserError, match="the disk is full"):
        fuse_stream(Echo(), range(1000), read, full, canvases={}, threads=2, failed=lambda *_: None)
    assert len(begun) < 100


@pytest.mark.parametrize(("side", "backend", "most"), [(64, "cpu", 2), (1032, "cpu", 1), (1032, "gpu", 2)])
def test_two_small_batches_are_computed_at_once(monkeypatch, side, backend, most):
    """A large one alone, on a CPU. Each waits for its company, where there is to be any."""
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    together, lock, running, seen = threading.Barrier(most), threading.Lock(), [0], []

    class Meeting(Echo):
        def program(self, canvas, batch):
            def run(visible, infrared, sizes):
                with lock:
                    running[0] += 1
                    seen.append(running[0])
                together.wait(60)
                with lock:
                    running[0] -= 1
                together.wait(60)
                return visible

            return run

    pair = np.zeros((side, side), np.float32)
    fused, _ = fuse(Meeting(), range(4), lambda job: (pair, None, pair), {(side, side): 4}, batch_size=1)
    assert len(fused) == 4 and max(seen) == most


def test_a_device_without_memory_is_a_users_error():
    class Small(Echo):
        def program(self, canvas, batch):
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate")

    with pytest.raises(UserError, match="device is out of memory; lower --batch-size"):
        fuse(Small(), range(2), lambda _: random_pair(np.random.default_rng(0)), {(80, 80): 2})
