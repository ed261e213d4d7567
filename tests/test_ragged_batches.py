"""The engine of fusing and scoring: several items a job, batches filled by copies, and an early end."""

import threading
from contextlib import closing

import pytest

from langfuse_jax.errors import UserError
from langfuse_jax.images.ragged import ragged_batches


def batches(jobs, read, **options):
    """Batches of items (name, size), and the programs made for them: an item's program gives the names it gets."""
    made = []

    def program(canvas, batch):
        made.append((canvas, batch))
        return lambda items: [name for name, _ in items]

    options = {"canvases": {}, "threads": 2, "failed": lambda job, error: None, **options}
    return ragged_batches(jobs, read, lambda item: item[1], program, **options), made


def test_jobs_of_several_items_fill_batches_together():
    found, made = batches(range(3), lambda i: [(f"{i}{k}", (32, 40)) for k in range(i)], batch_size=2)
    found = list(found)
    assert made == [((32, 40), 2)]
    assert [[name for name, _ in batch.items] for batch in found] == [["10", "20"], ["21"]]
    assert [batch.output for batch in found] == [["10", "20"], ["21", "21"]]
    assert [(batch.canvas, batch.size) for batch in found] == [((32, 40), 2)] * 2


def test_a_canvas_that_was_added_serves_later_items():
    sizes = [(100, 100), (30, 30), (97, 98)]
    found, made = batches(range(3), lambda i: [(i, sizes[i])], canvases={(32, 32): 0})
    assert [(batch.canvas, batch.output) for batch in found] == [((112, 112), [0]), ((32, 32), [1]), ((112, 112), [2])]
    assert sorted(made) == [((32, 32), 1), ((112, 112), 1)]


def test_what_cannot_be_read_is_reported_and_what_is_no_users_error_ends_it():
    def read(i):
        if i == 1:
            raise UserError("1: is bad")
        if i == 3:
            raise ZeroDivisionError
        return [(i, (32, 32))]

    failed = []
    found, _ = batches(range(9), read, failed=lambda job, error: failed.append((job, str(error))))
    with pytest.raises(ZeroDivisionError):
        list(found)
    assert failed == [(1, "1: is bad")]


def test_closing_it_ends_the_reading_and_the_threads():
    read = []
    found, _ = batches(range(1000), lambda i: read.append(i) or [(i, (32, 32))])
    before = threading.active_count()
    with closing(found):
        next(found)
        assert threading.active_count() > before
    assert threading.active_count() == before and len(read) < 20
