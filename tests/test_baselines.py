"""The contract every recommender keeps, and each method against a plain version of itself."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from movierec.config import CANDIDATE_COLUMNS, ArtifactError
from movierec.data.interactions import Interactions
from movierec.retrieval.als import ALS, ALSRecent
from movierec.retrieval.genre import GenreNeighbours
from movierec.retrieval.hybrid import Hybrid
from movierec.retrieval.item_item import ItemItem
from movierec.retrieval.linalg import dense_product, gram, to_exact_integers
from movierec.retrieval.linear import EASE, LinearAutoregression
from movierec.retrieval.popularity import Popularity, PopularityRecent
from movierec.retrieval.top_k import top_k
from movierec.retrieval.sequential import Sequential


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


def make_years(n_items=40):
    return (1980 + 10 * (np.arange(n_items) % 3)).astype(np.float32)


def everywhere(**weights):
    """The same weights in every situation."""
    return dict.fromkeys(("in_session", "returning", "new_user"), weights)


def systems():
    return [Popularity(), PopularityRecent(20), PopularityRecent(2, min_events=1), PopularityRecent(half_life_days=10.0), ItemItem("cosine", 10), ItemItem("bm25", 40), ItemItem("tfidf", 40, last=3),
            ItemItem("rp3beta", 10), ALS(factors=8), ALSRecent(last=5, als=ALS(factors=8)), EASE(5.0, min_events=1), EASE(5.0, max_items=20, last=4, min_events=1),
            Sequential(3, smoothing=2.0), Sequential(neighbours=5), LinearAutoregression(regularization=3.0, min_events=1), LinearAutoregression((0.0, 0.5), 3.0, max_items=20, min_events=1),
            GenreNeighbours(30.0, item_genres=make_genres(), item_years=make_years()),
            Hybrid({"popularity": Popularity(), "als": ALS(factors=8)}, everywhere(popularity=0.5, als=1.0), 20),
            Hybrid({"popularity": Popularity(), "als": ALS(factors=8)}, everywhere(popularity=0.1, als=1.0), 20, quotas={"popularity": 8})]


names = pytest.mark.parametrize("system", systems(), ids=lambda system: system.name)


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
    assert np.array_equal(scores, np.concatenate([system.top_k(users[start : start + 4], 15)[1] for start in range(0, 30, 4)])), "to the last bit"

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
    for damage in (lambda whole: whole[:-4] + bytes([whole[-4] ^ 1]) + whole[-3:], lambda whole: whole[:50], lambda whole: b""):  # one bit, and worse
        system.save(tmp_path / "model")
        state = max((tmp_path / "model").rglob("*.npy"), key=lambda file: file.stat().st_size)
        state.write_bytes(damage(state.read_bytes()))
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


@pytest.mark.parametrize("k", [1, 5, 40, 200, 1_000])
def test_top_k_of_wide_rows_is_a_full_sort(k):
    rng = np.random.default_rng(k)
    scores = np.round(rng.standard_normal((6, 900)), 1).astype(np.float32)  # many ties
    scores[0], scores[1, 5:], scores[2, ::2], scores[3, 700] = 0, -np.inf, np.nan, np.inf
    items, best = top_k(scores, k, above=-1.5)
    for row, mine, value in zip(scores, items, best, strict=True):
        order = sorted(np.flatnonzero(row > -1.5).tolist(), key=lambda i: (-row[i], i))[:k]
        assert mine.tolist() == order + [-1] * (k - len(order)) and value[: len(order)].tolist() == row[order].tolist()
    assert all(np.array_equal(a, b) for a, b in zip(top_k(np.asfortranarray(scores), k), top_k(scores, k), strict=True))


def test_no_items_no_users_nothing_asked():
    assert (top_k(np.zeros((2, 0), np.float32), 3)[0] == -1).all()
    assert top_k(np.zeros((0, 4), np.float32), 3)[0].shape == (0, 3) and top_k(np.zeros((2, 4), np.float32), 0)[0].shape == (2, 0)


def test_dense_product_is_the_sparse_one():
    from scipy import sparse

    rng = np.random.default_rng(0)
    for left_values in (np.ones(30), rng.random(30)):
        left = sparse.csr_matrix((left_values.astype(np.float32), rng.permutation(60)[:30] % 10, [0, 12, 12, 30]), shape=(3, 10))
        right = sparse.random_array((10, 7), density=0.4, format="csr", dtype=np.float32, rng=rng)
        assert np.array_equal(dense_product(left, sparse.csr_matrix(right)), (left @ right).toarray())


@given(st.integers(0, 1_000), st.sampled_from([1, 8, 64, 200]))
@settings(max_examples=20, deadline=None)
def test_dot_products_of_whole_numbers_are_exact(seed, factors):
    rng = np.random.default_rng(seed)
    users, items = rng.standard_normal((5, factors)) * 10.0 ** rng.integers(-6, 6, (5, 1)), rng.standard_normal((9, factors))
    (u, unit_u), (v, unit_v) = to_exact_integers(users), to_exact_integers(items, per_vector=False)
    exact = [[sum(int(a) * int(b) for a, b in zip(x, y, strict=True)) for y in v] for x in u]
    assert (u @ v.T).tolist() == exact and max(abs(value) for row in exact for value in row) < 2**53
    length = np.linalg.norm(users, axis=1)[:, None] * np.linalg.norm(items, axis=1).max()  # one unit for all items: a small one is as exact as the largest
    assert (np.abs(u @ v.T * unit_u * unit_v - users @ items.T) <= 1e-5 * length).all()


@names
def test_what_is_asked_is_what_is_scored(system):
    if not hasattr(system, "ask"):
        pytest.skip("no source")
    interactions = make_interactions()
    system.fit(interactions)
    users, moments = np.arange(30), np.full(30, interactions.as_of)
    for when in (moments, moments - 86_400 * (np.arange(30) % 60)):
        scores = system.unseen_scores(users, when)
        items, best, score_of = system.retrieve(users, 9, when)
        for mine, normalize_title in zip((items, best), top_k(scores, 9), strict=True):
            assert np.array_equal(mine, normalize_title)
        assert np.array_equal(score_of(items), best), "−inf for item −1"
        others = np.tile(np.arange(40), (30, 1))
        unseen = interactions.csr(np.ones(len(interactions))).toarray() == 0
        assert np.array_equal(score_of(others)[unseen], scores[unseen])


def test_who_has_seen_what_is_popular_gets_a_longer_list():
    users = np.repeat([0, 1, 2], [60, 1, 2])
    items = np.concatenate([np.arange(60), [0], [1, 69]]).astype(np.int32)
    confidence = np.full(63, 2.5, np.float32)
    interactions = Interactions(users.astype(np.int32), items, confidence + 2.5, confidence, np.arange(63) + 10**9, 3, 70, 10**9 + 63)
    model = Popularity().fit(interactions)
    assert model.top_k(np.arange(3), 3)[0].tolist() == [[69, -1, -1], [1, 2, 3], [0, 2, 3]], "item 69 is beyond the first twelve"


def test_popularity_sums_confidence():
    interactions = make_interactions()
    expected = np.zeros(40)
    for item, confidence in zip(interactions.item_idx, interactions.confidence, strict=True):
        expected[item] += confidence
    assert np.allclose(Popularity().fit(interactions).item_score, expected)
    assert Popularity().fit(interactions).top_k(np.array([29]), 1)[0][0, 0] == expected.argmax(), "a newcomer gets it too"


@pytest.mark.parametrize("dense_share", [0.0, 0.3, 1.0])
@pytest.mark.parametrize(("batch_size", "width", "most_sums"), [(7, 3, 10), (1_000, 256, 1_000_000)])
def test_gram_of_popular_and_rare_columns(dense_share, batch_size, width, most_sums):
    x, seen = make_interactions().csr(np.ones(29 * 12, np.float32)), []
    total = np.full((x.shape[1],) * 2, np.nan)

    def put(items, block):
        total[items] = block
        return items

    seen = np.concatenate(gram(x, put, dense_share, batch_size, width, most_sums))
    assert np.array_equal(total, (x.T @ x).toarray()) and sorted(seen.tolist()) == list(range(x.shape[1])), "each row once"


@pytest.mark.parametrize("weighting", ["cosine", "tfidf", "bm25"])
def test_item_item_finds_the_neighbours_that_implicit_finds(weighting):
    from implicit import nearest_neighbours as nn

    interactions = make_interactions()
    theirs = {"cosine": nn.CosineRecommender, "tfidf": nn.TFIDFRecommender, "bm25": nn.BM25Recommender}[weighting](K=40)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its own matrices
        theirs.fit(interactions.matrix.astype(np.float64), show_progress=False)
    expected = theirs.similarity.toarray()
    np.fill_diagonal(expected, 0)
    assert np.allclose(ItemItem(weighting, 40).fit(interactions).similarity.toarray(), np.maximum(expected, 0), atol=1e-6)


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
    for item, seed in zip(items, model.seed_items(np.array([user]), items[None])[0], strict=True):
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
    assert model.seed_items(np.array([29]), np.array([[0, 1]])).tolist() == [[-1, -1]]


def test_als_goes_on_from_earlier_vectors(tmp_path):
    """A few rounds from where a part of the history led get further than from random vectors, nearly to where many rounds lead."""
    whole = make_interactions()
    part = whole.select(whole.timestamp < np.quantile(whole.timestamp, 0.9))
    earlier = ALS(factors=8, iterations=30).fit(part)
    earlier.save(tmp_path)
    warm = ALS(factors=8, iterations=30, continue_iterations=5, start_from=ALS.load(tmp_path, None)).fit(whole)

    def loss(model):
        seen, weight = whole.matrix.toarray(), np.where(whole.matrix.toarray() > 0, 1 + 2 * whole.matrix.toarray(), 1)
        return (weight * ((seen > 0) - model.user_factors @ model.item_factors.T) ** 2).sum() + (model.user_factors**2).sum() + (model.item_factors**2).sum()

    few, many = (loss(ALS(factors=8, iterations=rounds).fit(whole)) for rounds in (5, 30))
    assert loss(warm) < min(few, 1.02 * many) and "start_from" not in warm.parameters()
    assert np.array_equal(earlier.user_factors, ALS.load(tmp_path, part).user_factors), "the start is left as it was"


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


def test_rp3beta_is_a_walk_divided_by_popularity():
    interactions = make_interactions()
    x = interactions.csr(np.ones(len(interactions))).toarray()
    per_user, per_item = np.maximum(x.sum(axis=1), 1), np.maximum(x.sum(axis=0), 1)
    walk = (x.T / per_item[:, None]) @ (x / per_user[:, None]) / per_item**0.6  # item → user → item
    np.fill_diagonal(walk, 0)
    model = ItemItem("rp3beta", 40).fit(interactions)
    assert np.allclose(model.similarity.toarray(), walk, atol=1e-6)
    assert np.allclose(np.maximum(model._scores(np.arange(29), np.zeros(29)), 0), x[:29] @ walk, atol=1e-5)


def test_item_item_from_the_last_events():
    interactions = make_interactions()
    model = ItemItem("cosine", 40, last=2, decay=0.5).fit(interactions)
    history = interactions.item_idx[interactions.indptr[5] : interactions.indptr[6]]
    expected = model.similarity.toarray()[history[-1]] + 0.5 * model.similarity.toarray()[history[-2]]
    assert np.allclose(np.maximum(model._scores(np.array([5]), np.zeros(1))[0], 0), expected, atol=1e-6)


@pytest.mark.parametrize("half_life", [None, 9.0])
def test_recent_popularity_counts_full_days_before_the_moment(half_life):
    interactions = make_interactions()
    day = 86_400
    moments = np.append(np.random.default_rng(3).choice(interactions.timestamp, 28), [interactions.as_of, interactions.timestamp.min() - 1])
    scores = PopularityRecent(20, half_life, 1).fit(interactions)._scores(np.arange(30), moments)
    for user, moment in enumerate(moments):
        end = interactions.as_of - -((moment - interactions.as_of) // day) * day  # the last full day boundary, counted from the end
        assert end <= moment
        expected = np.zeros(40)
        for item, time in zip(interactions.item_idx, interactions.timestamp, strict=True):
            if time < end:
                age = (end - 1 - time) // day
                expected[item] += (age < 20) if half_life is None else 0.5 ** (age / half_life)
        assert np.allclose(np.where(np.isneginf(scores[user]), 0, scores[user]), expected, rtol=1e-5)


def test_recent_als_solves_for_the_last_events():
    interactions = make_interactions()
    als = ALS(factors=8).fit(interactions)
    model = ALSRecent(last=3, decay=0.5, ridge=2.0, als=als).fit(interactions)
    assert model.item_factors is als.item_factors, "one fit for both"
    y, profile = als.item_factors.astype(float), interactions.recent(np.arange(29), 3, 0.5).toarray()
    vectors = np.linalg.solve(y.T @ y + 2 * np.eye(8), y.T @ profile.T).T
    assert np.allclose(model._scores(np.arange(29), np.zeros(29)), vectors @ y.T, atol=1e-4)


def test_a_quiet_window_grows():
    interactions = make_interactions()
    day = (interactions.as_of - 1 - interactions.timestamp) // 86_400
    for least in (1, 30, 100, 10_000):
        needed = next((n for n in range(2, int(day.max()) + 2) if (day < n).sum() >= least), int(day.max()) + 1)
        scores = PopularityRecent(2, min_events=least).fit(interactions)._scores(np.array([0]), np.array([interactions.as_of]))[0]
        assert np.array_equal(np.where(np.isneginf(scores), 0, scores), np.bincount(interactions.item_idx[day < needed], minlength=40))


def guests_like(interactions, users) -> Interactions:
    """Some users' events as those of people nobody has met before."""
    rows, events = interactions.events_of(np.asarray(users))
    arrays = {name: getattr(interactions, name)[events] for name in ("item_idx", "rating", "confidence", "timestamp")}
    return interactions.fold_in_users(Interactions(rows.astype(np.int32), **arrays, n_users=len(users), n_items=interactions.n_items, as_of=0))


@names
def test_guests_get_what_users_with_their_histories_get(system):
    """Folded in: the same lists and scores, from the learned model as it is; the model itself goes on answering its own users."""
    interactions = make_interactions()
    system.fit(interactions)
    asked = np.array([3, 29, 7])  # one of them without a history
    items, scores = system.top_k(asked, 10)
    fold_in_users = system.fold_in(guests_like(interactions, asked))
    theirs, their_scores = fold_in_users.top_k(np.arange(3), 10)
    if "als" in (system.name, *getattr(system, "sources", {})):  # implicit's last step for its users is a few steps of conjugate gradients, not an exact solution
        assert np.mean([len(np.intersect1d(a, b)) for a, b in zip(items[[0, 2]], theirs[[0, 2]], strict=True)]) >= 8
    else:
        assert np.array_equal(items, theirs) and np.array_equal(scores, their_scores)
    assert np.array_equal(system.top_k(asked, 10)[0], items)
    alone = system.fold_in(guests_like(interactions, asked[2:]))
    assert np.array_equal(alone.top_k(np.array([0]), 10)[1], their_scores[2:])


def test_als_guests_get_implicits_vector():
    from implicit.cpu.als import AlternatingLeastSquares

    interactions = make_interactions()
    als = ALS(factors=8, alpha=3.0, regularization=0.7).fit(interactions)
    fold_in_users = guests_like(interactions, np.arange(30))
    theirs = AlternatingLeastSquares(factors=8, regularization=0.7)
    theirs.item_factors = als.item_factors
    weights = interactions.matrix.copy()
    weights.data = 1 + 3 * weights.data
    assert als.fold_in(fold_in_users).user_factors == pytest.approx(theirs.recalculate_user(np.arange(30), weights), abs=1e-4)


def test_what_guests_did_makes_no_item_known():
    interactions = make_interactions()
    new = Interactions(*(np.array([value], dtype) for value, dtype in ((0, np.int32), (39, np.int32), (5, np.float32), (2.5, np.float32), (10**9, np.int64))), 1, 40, 0)
    fold_in_users = interactions.fold_in_users(new)
    assert fold_in_users.item_counts is interactions.item_counts and fold_in_users.as_of == interactions.as_of
    assert 39 in fold_in_users.unseen_items and fold_in_users.select(np.array([True])).item_counts is interactions.item_counts
