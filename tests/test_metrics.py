"""Metrics against hand-worked cases, a plain loop, and trec_eval (through pytrec_eval)."""

import numpy as np
import pytest
import pytrec_eval
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from movierec.metrics import bootstrap_interval, coverage, hits, paired_difference, user_metrics


def random_case(rng, n_users=40, n_items=60, k=20):
    """Lists of different lengths, also empty ones, and one to thirty relevant items each."""
    ranked = np.full((n_users, k), -1)
    for row in ranked:
        length = rng.integers(0, k + 1)
        row[:length] = rng.permutation(n_items)[:length]
    relevant = sparse.csr_matrix(np.stack([np.isin(np.arange(n_items), rng.permutation(n_items)[: rng.integers(1, 30)]) for _ in range(n_users)]).astype(float))
    return ranked, relevant


def test_against_trec_eval():
    ranked, relevant = random_case(np.random.default_rng(0))
    qrel = {str(u): {str(i): 1 for i in relevant[[u]].indices} for u in range(len(ranked))}
    run = {str(u): {str(i): 1.0 / (r + 1) for r, i in enumerate(row) if i >= 0} for u, row in enumerate(ranked)}
    theirs = pytrec_eval.RelevanceEvaluator(qrel, {"recall.5,10,20", "ndcg_cut.5,10,20", "success.5,10,20", "recip_rank"}).evaluate(run)
    ours = user_metrics(ranked, relevant, (5, 10, 20))
    for u in range(len(ranked)):
        expected = theirs.get(str(u), {})
        for k in (5, 10, 20):
            for mine, name in (("recall", "recall"), ("ndcg", "ndcg_cut"), ("hit_rate", "success")):
                assert ours[f"{mine}@{k}"][u] == pytest.approx(expected.get(f"{name}_{k}", 0), abs=1e-9)
        assert ours["mrr@20"][u] == pytest.approx(expected.get("recip_rank", 0), abs=1e-9)


@given(st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_against_a_plain_loop(seed):
    ranked, relevant = random_case(np.random.default_rng(seed), n_users=8)
    ours = user_metrics(ranked, relevant, (3, 10))
    for u, row in enumerate(ranked):
        wanted = set(relevant[[u]].indices.tolist())
        for k in (3, 10):
            found = [rank for rank, item in enumerate(row[:k], 1) if item in wanted]
            ideal = sum(1 / np.log2(rank + 1) for rank in range(1, min(k, len(wanted)) + 1))
            assert ours[f"recall@{k}"][u] == pytest.approx(len(found) / len(wanted))
            assert ours[f"truncated_recall@{k}"][u] == pytest.approx(len(found) / min(k, len(wanted)))
            assert ours[f"ndcg@{k}"][u] == pytest.approx(sum(1 / np.log2(rank + 1) for rank in found) / ideal)
            assert ours[f"mrr@{k}"][u] == pytest.approx(1 / found[0] if found else 0)
            assert ours[f"hit_rate@{k}"][u] == bool(found)


def test_a_perfect_list_scores_one_and_an_empty_one_zero():
    relevant = sparse.csr_matrix(np.array([[1, 1, 1, 0], [1, 1, 1, 0]]))
    values = user_metrics(np.array([[2, 0, 1], [-1, -1, -1]]), relevant, (2, 3))
    for name, value in values.items():
        assert value[0] == (pytest.approx(2 / 3) if name == "recall@2" else 1), name
        assert value[1] == 0, name


def test_padding_is_not_the_last_item_of_the_user_before():
    relevant = sparse.csr_matrix(np.array([[0, 0, 1], [1, 0, 0]]))
    assert not hits(np.array([[0, 1], [-1, -1]]), relevant).any()


def test_impossible_requests_are_errors():
    relevant = sparse.csr_matrix(np.array([[1, 0], [0, 0]]))
    with pytest.raises(ValueError, match="lists of 2 can't be judged at 3"):
        user_metrics(np.array([[0, 1]]), relevant[:1], (3,))
    with pytest.raises(ValueError, match="without a relevant item"):
        user_metrics(np.array([[0, 1], [0, 1]]), relevant, (2,))
    with pytest.raises(ValueError, match="same users"):
        paired_difference(np.ones(3), np.ones(4))


def test_coverage():
    assert coverage(np.array([[0, 1], [1, -1]]), 4, 2) == 0.5
    assert coverage(np.array([[0, 1], [1, -1]]), 4, 1) == 0.5
    assert coverage(np.array([[-1, -1]]), 4, 2) == 0


def test_bootstrap_interval_has_its_level():
    rng = np.random.default_rng(0)
    covered = 0
    for trial in range(200):
        low, high = bootstrap_interval((rng.random(300) < 0.3).astype(float), resamples=400, seed=trial)
        covered += low <= 0.3 <= high
    assert 0.90 <= covered / 200 <= 0.99


def test_bootstrap_is_the_same_whatever_the_chunks():
    """So many users that the resamples come in chunks: the same numbers as one draw of them all."""
    values, seed = np.random.default_rng(0).random(100_001), 3
    at_once = values[np.random.default_rng(seed).integers(0, len(values), (100, len(values)), dtype=np.int32)].mean(axis=1)
    assert bootstrap_interval(values, resamples=100, seed=seed) == pytest.approx(np.quantile(at_once, [0.025, 0.975]), abs=1e-12)
    assert bootstrap_interval(values, resamples=100, seed=4) != bootstrap_interval(values, resamples=100, seed=seed)


def test_paired_difference_sees_what_intervals_hide():
    rng = np.random.default_rng(0)
    base = rng.random(500)
    mean, low, high = paired_difference(base + 0.01 + rng.normal(0, 0.01, 500), base)
    assert 0 < low < mean < high and mean == pytest.approx(0.01, abs=0.002)
