"""How long the best 200 items of a user take, with all scores and with the approximate index; `make bench-ann` runs it.

Vectors are random, of 64 dimensions with falling variance, as learned ones have; one thread; writes
reports/results/bench_ann.json, with the description of the machine.
"""

from time import perf_counter

import faiss
import numpy as np
from bench_common import machine, results_file
from threadpoolctl import threadpool_limits

from movierec.artifacts import write_json
from movierec.retrieval.ann import ItemIndex
from movierec.retrieval.top_k import top_k

SIZES = (27_000, 100_000, 1_000_000)
USERS, K, FACTORS = 256, 200, 64


def timed(function, *arguments):
    started = perf_counter()
    result = function(*arguments)
    return result, perf_counter() - started


def exact(states: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """As `ScoringRecommender` does it, in batches that fit in memory."""
    return np.concatenate(
        [top_k(states[start : start + 64] @ vectors.T, K)[0] for start in range(0, len(states), 64)]
    )


def case(n: int) -> dict[str, float]:
    rng = np.random.default_rng(0)
    variance = (np.arange(1, FACTORS + 1) ** -0.5).astype(np.float32)
    vectors, states = (rng.standard_normal((rows, FACTORS), np.float32) * variance for rows in (n, USERS))
    best, exactly = timed(exact, states, vectors)
    index, building = timed(ItemIndex, vectors, np.arange(n))
    found, by_index = timed(index.search, states, K)

    def recall(k: int) -> float:
        return round(
            float(
                np.mean([np.isin(mine[:k], theirs).mean() for mine, theirs in zip(best, found, strict=True)])
            ),
            3,
        )

    return {
        "items": n,
        "exact_ms_per_user": round(1e3 * exactly / USERS, 2),
        "index_ms_per_user": round(1e3 * by_index / USERS, 2),
        "index_build_s": round(building, 1),
        "recall_of_best_10": recall(10),
        "recall_of_best_200": recall(200),
    }


if __name__ == "__main__":
    faiss.omp_set_num_threads(1)
    described = machine()
    with threadpool_limits(1):
        cases = [case(n) for n in SIZES]
    write_json(
        results_file("bench_ann.json"),
        {"machine": described, "users": USERS, "k": K, "factors": FACTORS, "threads": 1, "cases": cases},
    )
    for line in cases:
        print(line)
