"""Approximate search finds most of what exact search finds."""

import numpy as np
import pytest

from movierec.retrieval.ann import ItemIndex, has_faiss

pytestmark = [
    pytest.mark.extra,
    pytest.mark.skipif(not has_faiss(), reason="the extra neural (FAISS) isn't installed: make neural"),
]


def test_the_index_finds_most_of_the_best():
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((50, 16), np.float32)
    noise = 0.3 * rng.standard_normal((4_000, 16))
    vectors = (centres[rng.integers(0, 50, 4_000)] + noise).astype(np.float32)
    states = vectors[:100] + np.float32(0.1)
    items = ItemIndex(vectors, np.arange(4_000) + 7).search(states, 20)
    best = np.argsort(-(states @ vectors.T), axis=1)[:, :20]
    recall = np.mean([len(np.intersect1d(row - 7, exact)) / 20 for row, exact in zip(items, best, strict=True)])
    assert recall > 0.9 and items.min() >= 7
