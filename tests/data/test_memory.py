"""The bound of memory: what fits runs side by side, what does not waits, nothing waits for ever."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from fetal_jax.data import memory


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    """Room for ten voxels."""
    monkeypatch.setattr(memory, "READING_BYTES", 10 * memory.VOXEL_BYTES)


def read_many(sizes):
    """The most voxels that were held at once, and the most beside the largest volume."""
    lock, held, most = threading.Lock(), [], [0, 0]

    def read(size):
        with memory.reserve((size, 1, 1)):
            with lock:
                held.append(size)
                beside = sum(held) - max(sizes) if max(sizes) in held else 0
                most[:] = max(most[0], sum(held)), max(most[1], beside)
            threading.Event().wait(0.005)
            with lock:
                held.remove(size)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(read, sizes))
    return most


def test_volumes_that_fit_are_read_side_by_side():
    together = threading.Barrier(5)

    def read(_):
        with memory.reserve((2, 1, 1)):
            together.wait(timeout=60)

    with ThreadPoolExecutor(5) as pool:
        list(pool.map(read, range(5)))


@pytest.mark.parametrize("sizes", [[4] * 12, [1, 9, 3, 8, 2, 5] * 4, [6] * 8])
def test_no_more_is_held_than_the_bound(sizes):
    voxels, _ = read_many(sizes)
    assert max(sizes) <= voxels <= 10


def test_one_larger_than_the_bound_is_read_alone():
    assert read_many([30, 1, 30, 2, 30]) == [30, 0]


def test_what_fails_gives_its_memory_back():
    for _ in range(3):
        with pytest.raises(ValueError, match="damaged"), memory.reserve((10, 1, 1)):
            raise ValueError("damaged")
    assert read_many([10]) == [10, 0]


def test_what_the_machine_has():
    assert 1 <= memory.count_cores() <= 4096
    assert 2**20 < memory.measure_free()
    memory.give_back()
