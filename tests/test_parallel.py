"""Threads change no number, and memory that can be had again is given back."""

from concurrent.futures import ThreadPoolExecutor
from threading import Event, Lock

import numpy as np
import pytest
from threadpoolctl import threadpool_info

from movierec import parallel
from movierec.artifacts import read_arrays, write_arrays
from movierec.parallel import (
    affordable_workers,
    cores,
    map_threads,
    memory_limited,
    release_memory,
    resident_memory,
    single_blas_thread,
    spill_to_disk,
)

NO_LIMIT = 1 << 60  # bytes: a limit that no test reaches


def blas_threads() -> set[int]:
    return {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"}


def test_any_thread_can_limit_blas():
    """threadpoolctl lets one thread set the limit, and ignores the others."""
    before = blas_threads()
    with single_blas_thread:
        pass  # now the limit is this thread's business
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(limited_blas_threads, range(4))) == [{1}] * 4
    with single_blas_thread, ThreadPoolExecutor(2) as pool:
        assert list(pool.map(limited_blas_threads, range(4))) == [{1}] * 4 and blas_threads() == {1}
    assert blas_threads() == before


def limited_blas_threads(_: int) -> set[int]:
    with single_blas_thread:
        return blas_threads()


@pytest.mark.parametrize("n", [0, 1, 2, 50])
def test_results_come_in_order_and_progress_counts(n):
    calls = []
    results = map_threads(lambda part: part * part, range(n), lambda done, total: calls.append((done, total)))
    assert results == [part * part for part in range(n)]
    assert calls == [(done, n) for done in range(1, n + 1)]


def test_blas_is_limited_to_one_thread_inside_and_only_there():
    before = blas_threads()
    assert all(inside == {1} for inside in map_threads(lambda part: blas_threads(), range(3)))
    with single_blas_thread:
        map_threads(lambda part: part, range(3))
        assert blas_threads() == {1}, "an inner block must not lift the limit"
    assert blas_threads() == before


def test_an_exception_of_a_part_reaches_the_caller():
    before = blas_threads()
    with pytest.raises(ZeroDivisionError):
        map_threads(lambda part: 1 / part, [1, 0])
    assert blas_threads() == before and cores() >= 1


def test_released_arrays_keep_their_values(tmp_path):
    values = {"values": np.arange(1_000_000), "others": np.eye(300, dtype=np.float32)}
    mapped = read_arrays(tmp_path, write_arrays(tmp_path, values))
    release_memory()
    assert all(np.array_equal(mapped[name], values[name]) for name in values)


@pytest.mark.skipif(resident_memory() is None, reason="this system doesn't say how much memory a process has")
def test_released_arrays_take_no_memory(tmp_path):
    large = read_arrays(tmp_path, write_arrays(tmp_path, {"large": np.ones(16_000_000)}))["large"]
    assert large.sum() == 16_000_000  # loads all 128 MB
    before = resident_memory()
    release_memory()
    assert resident_memory() < before - 100_000_000
    assert large[-1] == 1


@pytest.mark.skipif(resident_memory() is None, reason="this system doesn't say how much memory a process has")
def test_memory_is_released_near_the_limit_and_only_there(tmp_path, monkeypatch):
    released = Event()
    monkeypatch.setattr("movierec.parallel.release_memory", released.set)
    with memory_limited(NO_LIMIT, tmp_path), memory_limited(None, tmp_path):
        assert not released.wait(0.3)
    with memory_limited(1_000, tmp_path):
        assert released.wait(30)


def test_large_arrays_are_spilled_while_memory_is_limited(tmp_path):
    """They keep their values, in a file that needs no deleting; small ones, or all without a limit, stay in memory."""
    large, small = np.arange(1_000_000.0).reshape(-1, 10), np.arange(5)
    assert spill_to_disk(large) is large
    with memory_limited(NO_LIMIT, tmp_path / "spill"):
        spilled = spill_to_disk(large)
        assert spill_to_disk(small) is small
        assert not spilled.flags.writeable and not list((tmp_path / "spill").iterdir())
        release_memory()
        assert np.array_equal(spilled, large)
    assert spill_to_disk(large) is large and np.array_equal(spilled, large)


def test_on_many_cores_no_more_parts_run_at_once_than_memory_is_left_for(tmp_path, monkeypatch):
    """As on a machine with sixteen cores."""
    monkeypatch.setattr(parallel, "cores", lambda: 16)
    running, most, lock, everybody = 0, 0, Lock(), Event()

    def work(part: int) -> int:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
            if running == expected:
                everybody.set()
        everybody.wait(10)
        with lock:
            running -= 1
        return part * part

    left = 3_500_000_000
    for limit, expected in ((None, 16), (resident_memory() + left, 3)):
        running, most = 0, 0
        everybody.clear()
        with memory_limited(limit, tmp_path):
            assert map_threads(work, range(32), memory=1_000_000_000) == [part * part for part in range(32)]
        assert most == expected
    with memory_limited(1, tmp_path):
        assert affordable_workers(1_000) == 1, "one works even where there is no room"
        assert affordable_workers(0) == 16

