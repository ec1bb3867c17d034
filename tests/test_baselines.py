"""The contract every recommender keeps, and each method against a plain version of itself."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from movierec.baselines import ALS, ItemItem, Popularity, top_k
from movierec.config import CANDIDATE_COLUMNS, ArtifactError
from movierec.interactions import Interactions
from movierec.retrieval import GenreNeighbours, Hybrid


def make_interactions(seed=0, n_users=30, n_items=40, per_user=12) -> Interactions:
    """Random events; the last three items and the last user have none."""
    rng = np.random.default_rng(seed)
    users = np.repeat(np.arange(n_users - 1), per_user)
    items = np.concatenate([rng.permutation(n_items - 3)[:per_user] for _ in range(n_users - 1)])
    confidence = rng.choice([0, 0.5, 1.0, 2.5], len(users)).astype(np.float32)
    return Interactions(users.astype(np.int32), items.astype(np.int32), confidence + 2.5, confidence,
                        np.sort(rng.integers(10**9, 10**9 + 10**7, (n_users - 1, per_user)), axis=1).ravel().astype(np.int64), n_users, n_items, 10**9 + 10**7)


def make_genres(n_items=40):
    from scipy import sparse

    rng = np.random.default_rng(1)
    return sparse.csr_matrix((rng.random((n_items, 5)) < 0.4).astype(np.float32))


def systems():
    return [Popularity(), ItemItem("cosine", 10), ItemItem("bm25", 40), ALS(factors=8), GenreNeighbours(30.0, item_genres=make_genres()),
            Hybrid({"popularity": Popularity(), "als": ALS(factors=8)}, {"popularity": 0.5, "als": 1.0}, 20)]


names = pytest.mark.parametrize("system", systems(), ids=lambda system: f"{system.name}-{getattr(system, 'weighting', '')}".strip("-"))


@names
def test_contract(system, tmp_path):
    interactions = make_interactions()
    system.fit(interactions)
    users = np.arange(30)
    items, scores = system.top_k(users, 15)
    assert items.shape == scores.shape == (30, 15) and items.dtype == np.int32 and scores.dtype == np.float32
    seen = {(u, i) for u, i in zip(interactions.user_idx.tolist(), interactions.item_idx.tolist(), strict=True)}
    for user in users:
        there = items[user] >= 0
        assert there.sum() == len(set(items[user][there])), "an item twice"
        assert not there[~there.cumprod().astype(bool)].any(), "holes in a list"
        assert not any((user, i) in seen for i in items[user][there].tolist())
        assert (items[user][there] < 37).all(), "an item nobody has met"
        order = list(zip(-scores[user][there], items[user][there], strict=True))
        assert order == sorted(order), "by score, then item_idx"
        assert np.isneginf(scores[user][~there]).all()

    alone = [system.top_k(np.array([user]), 15)[0][0] for user in users]
    assert np.array_equal(items, alone), "one user is a batch of one"
    assert np.array_equal(items, system.top_k(users, 15, batch_size=7)[0])
    assert np.array_equal(items[::-1], system.top_k(users[::-1], 15)[0])
    assert np.array_equal(items[:, :4], system.top_k(users, 4)[0]), "a shorter list is the start of a longer one"

    table = system.recommend(users, 15)
    assert tuple(table.columns) == CANDIDATE_COLUMNS and len(table) == (items >= 0).sum()
    assert table.groupby("user_idx")["rank"].apply(lambda ranks: ranks.tolist() == list(range(1, len(ranks) + 1))).all()

    system.save(tmp_path)
    loaded = type(system).load(tmp_path, interactions)
    for mine, theirs in zip(system.top_k(users, 15), loaded.top_k(users, 15), strict=True):
        assert np.array_equal(mine, theirs)


@names
def test_loading_refuses_what_does_not_fit(system, tmp_path):
    system.fit(make_interactions())
    system.save(tmp_path / "model")
    with pytest.raises(ArtifactError, match="other interactions"):
        type(system).load(tmp_path / "model", make_interactions(n_users=29))
    with pytest.raises(ArtifactError, match="can't be read"):
        type(system).load(tmp_path / "absent", make_interactions())
    other = ALS if not isinstance(system, ALS) else Popularity
    with pytest.raises(ArtifactError, match="holds a"):
        other.load(tmp_path / "model", make_interactions())
    for state in (tmp_path / "model").rglob("state.npz"):
        state.write_bytes(state.read_bytes()[:50])
    with pytest.raises(ArtifactError, match="can't be read"):
        type(system).load(tmp_path / "model", make_interactions())


@given(st.integers(0, 10_000), st.integers(1, 12))
@settings(max_examples=40, deadline=None)
def test_top_k_is_a_full_sort(seed, k):
    rng = np.random.default_rng(seed)
    scores = rng.choice([-1.5, -0.0, 0.0, 0.25, 3.0, -np.inf, 1e-30, 1e30], (4, 9)).astype(np.float32)
    items, best = top_k(scores, k)
    for row, mine, value in zip(scores, items, best, strict=True):
        order = [i for i in sorted(range(9), key=lambda i: (-row[i], i)) if row[i] > -np.inf][:k]
        assert mine.tolist() == order + [-1] * (k - len(order))
        assert value[: len(order)].tolist() == row[order].tolist()


def test_popularity_sums_confidence():
    interactions = make_interactions()
    expected = np.zeros(40)
    for item, confidence in zip(interactions.item_idx, interactions.confidence, strict=True):
        expected[item] += confidence
    assert np.allclose(Popularity().fit(interactions).item_score, expected)
    assert Popularity().fit(interactions).top_k(np.array([29]), 1)[0][0, 0] == expected.argmax(), "a newcomer gets it too"


def test_item_item_is_the_cosine():
    interactions = make_interactions()
    dense = interactions.matrix.toarray().astype(float)
    norm = np.linalg.norm(dense, axis=0)
    cosine = np.divide(dense.T @ dense, np.outer(norm, norm), out=np.zeros((40, 40)), where=np.outer(norm, norm) > 0)
    np.fill_diagonal(cosine, 0)
    model = ItemItem("cosine", 40).fit(interactions)
    assert np.allclose(model.similarity.toarray(), cosine, atol=1e-6)
    user, liked = 3, dense[3]
    items = model.top_k(np.array([user]), 5)[0][0]
    for item, seed in zip(items, model.because(user, items), strict=True):
        assert seed == (liked * cosine[:, item]).argmax()


def test_item_item_keeps_the_nearest():
    model = ItemItem("cosine", 5).fit(make_interactions())
    everyone = ItemItem("cosine", 40).fit(make_interactions()).similarity.toarray()
    kept = model.similarity.toarray()
    for item in range(37):
        nearest = np.sort(everyone[item])[::-1][:5]
        assert np.allclose(np.sort(kept[item])[::-1][:5], nearest, atol=1e-6) and (kept[item] > 0).sum() <= 5


def test_because_of_nothing():
    model = ItemItem("cosine", 5).fit(make_interactions())
    assert model.because(29, np.array([0, 1])).tolist() == [-1, -1]


def test_als_is_fitted_on_users_by_items():
    """Two groups that like disjoint films: a transposed matrix would recommend across them."""
    rng = np.random.default_rng(0)
    users = np.repeat(np.arange(60), 10)
    items = np.concatenate([rng.permutation(20)[:10] + 20 * (user % 2) for user in range(60)])
    ones = np.ones(600, np.float32)
    interactions = Interactions(users.astype(np.int32), items.astype(np.int32), ones * 5, ones * 2.5, np.arange(600) + 10**9, 60, 40, 10**9 + 600)
    model = ALS(factors=4).fit(interactions)
    assert model.user_factors.shape == (60, 4) and model.item_factors.shape == (40, 4)
    best = model.top_k(np.arange(60), 5)[0]
    assert (best // 20 == (np.arange(60) % 2)[:, None]).mean() > 0.95


def test_als_minimises_its_loss():
    """Each side is the exact solution for the other (Hu et al. 2008, eq. 4), up to the last half step."""
    interactions = make_interactions()
    model = ALS(factors=4, alpha=2.0, regularization=0.5, iterations=200).fit(interactions)
    confidence = interactions.matrix.toarray().astype(float)
    y = model.item_factors.astype(float)
    for user in (0, 7, 20):
        weight = 1 + 2.0 * confidence[user]
        solution = np.linalg.solve((y * weight[:, None]).T @ y + 0.5 * np.eye(4), (y * weight[:, None]).T @ (confidence[user] > 0))
        assert np.allclose(solution, model.user_factors[user], atol=2e-3)


def test_a_score_that_is_no_number_is_no_recommendation():
    items, _ = top_k(np.array([[np.nan, 1.0, np.nan, 0.5]], np.float32), 3)
    assert items.tolist() == [[1, 3, -1]]


def test_two_fits_are_identical():
    for a, b in zip(systems(), systems(), strict=True):
        assert np.array_equal(a.fit(make_interactions()).top_k(np.arange(30), 10)[1], b.fit(make_interactions()).top_k(np.arange(30), 10)[1])
