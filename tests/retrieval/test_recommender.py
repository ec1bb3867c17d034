"""The contract that every source and the hybrid keep: lists, look-ups, storage, fold-in, reproducibility."""

from copy import copy
from dataclasses import replace

import numpy as np
import pytest
from helpers import as_new_users, make_genres, make_histories, make_interactions, make_years, same_in_all_contexts
from scipy import sparse

from movierec.config import CANDIDATE_COLUMNS, ArtifactError
from movierec.retrieval.als import ALS, ALSRecent
from movierec.retrieval.genre import GenreNeighbours
from movierec.retrieval.hybrid import Hybrid
from movierec.retrieval.item_item import ItemItem
from movierec.retrieval.linear import EASE, LinearAutoregression
from movierec.retrieval.popularity import Popularity, PopularityRecent
from movierec.retrieval.recommender import ScoringRecommender, pairwise_contributions, top_contributor
from movierec.retrieval.sequential import Sequential
from movierec.retrieval.top_k import top_k

INTERACTIONS = make_interactions()
USERS = np.arange(30)  # the last one has no events
UNSEEN = INTERACTIONS.csr(np.ones(len(INTERACTIONS))).toarray() == 0
SYSTEMS = {
    "popularity": lambda: Popularity(),
    "popularity_recent": lambda: PopularityRecent(20),
    "popularity_recent growing": lambda: PopularityRecent(2, min_events=1),
    "popularity_recent decayed": lambda: PopularityRecent(half_life_days=10.0),
    "item_item cosine": lambda: ItemItem("cosine", 10),
    "item_item bm25": lambda: ItemItem("bm25", 40),
    "item_item tfidf last": lambda: ItemItem("tfidf", 40, last=3),
    "item_item rp3beta": lambda: ItemItem("rp3beta", 10),
    "als": lambda: ALS(factors=8),
    "als_recent": lambda: ALSRecent(last=5, als=ALS(factors=8)),
    "ease": lambda: EASE(5.0, min_events=1),
    "ease last": lambda: EASE(5.0, max_items=20, last=4, min_events=1),
    "sequential": lambda: Sequential(3, smoothing=2.0),
    "sequential cut": lambda: Sequential(neighbours=5),
    "linear_ar": lambda: LinearAutoregression(regularization=3.0, min_events=1),
    "linear_ar cut": lambda: LinearAutoregression((0.0, 0.5), 3.0, max_items=20, min_events=1),
    "genre": lambda: GenreNeighbours(30.0, item_genres=make_genres(), item_years=make_years()),
    "hybrid": lambda: small_hybrid(popularity=0.5),
    "hybrid quotas": lambda: small_hybrid(popularity=0.1, quotas={"popularity": 8}),
}


def small_hybrid(popularity: float, **options) -> Hybrid:
    weights = same_in_all_contexts(popularity=popularity, als=1.0)
    return Hybrid({"popularity": Popularity(), "als": ALS(factors=8)}, weights, 20, **options)


@pytest.fixture(scope="module", params=SYSTEMS)
def system_id(request):
    return request.param


@pytest.fixture(scope="module")
def system(system_id):
    """A fitted system; read only."""
    return SYSTEMS[system_id]().fit(INTERACTIONS)


def test_lists_are_sorted_and_unseen(system):
    items, scores = system.top_k(USERS, 15)
    assert items.shape == scores.shape == (30, 15) and items.dtype == np.int32 and scores.dtype == np.float32
    for user in USERS:
        is_item = items[user] >= 0
        found, values = items[user][is_item], scores[user][is_item]
        assert len(set(found.tolist())) == len(found), "an item twice"
        assert not is_item[~is_item.cumprod().astype(bool)].any(), "a gap in a list"
        assert UNSEEN[user, found].all() and (found < 37).all(), "a seen item, or one without events"
        assert np.array_equal(np.lexsort((found, -values)), np.arange(len(found))), "by score, then item_idx"
        assert np.isneginf(scores[user][~is_item]).all()
    table = system.recommend(USERS, 15)
    assert tuple(table.columns) == CANDIDATE_COLUMNS and len(table) == (items >= 0).sum()
    ranks = table.groupby("user_idx")["rank"].apply(list)
    assert all(rank == list(range(1, len(rank) + 1)) for rank in ranks)


def test_batches_do_not_matter(system):
    items, scores = system.top_k(USERS, 15)
    alone = [system.top_k(np.array([user]), 15)[0][0] for user in USERS[::3]]
    assert np.array_equal(items[::3], alone), "one user is a batch of one"
    assert np.array_equal(items, system.top_k(USERS, 15, batch_size=7)[0])
    assert np.array_equal(items[::-1], system.top_k(USERS[::-1], 15)[0])
    assert np.array_equal(items[:, :4], system.top_k(USERS, 4)[0]), "a shorter list is the start of a longer one"
    in_fours = [system.top_k(USERS[start : start + 4], 15)[1] for start in range(0, 30, 4)]
    assert np.array_equal(scores, np.concatenate(in_fours)), "scores must be equal to the last bit"


def test_two_fits_are_identical(system, system_id):
    again = SYSTEMS[system_id]().fit(INTERACTIONS)
    for first, second in zip(system.top_k(USERS, 10), again.top_k(USERS, 10), strict=True):
        assert np.array_equal(first, second)


def test_retrieve_is_top_k_with_a_look_up(system):
    if not isinstance(system, ScoringRecommender):
        pytest.skip("a hybrid has no scores of its own")
    ends = np.full(30, INTERACTIONS.as_of)
    for as_of in (ends, ends - 86_400 * (USERS % 60)):
        scores = system.unseen_scores(USERS, as_of)
        items, best, score_of = system.retrieve(USERS, 9, as_of)
        for found, expected in zip((items, best), top_k(scores, 9), strict=True):
            assert np.array_equal(found, expected)
        assert np.array_equal(score_of(items), best), "−inf for item −1"
        every_item = np.tile(np.arange(40), (30, 1))
        assert np.array_equal(score_of(every_item)[UNSEEN], scores[UNSEEN])


def test_saved_and_loaded_it_gives_the_same_lists(system, tmp_path):
    system.save(tmp_path)
    loaded = type(system).load(tmp_path, INTERACTIONS)
    for before, after in zip(system.top_k(USERS, 15), loaded.top_k(USERS, 15), strict=True):
        assert np.array_equal(before, after)


DAMAGES = {
    "one bit": lambda whole: whole[:-4] + bytes([whole[-4] ^ 1]) + whole[-3:],
    "cut off": lambda whole: whole[:50],
    "empty": lambda whole: b"",
}


@pytest.mark.parametrize("name", ["als", "item_item cosine", "hybrid"])  # arrays, a sparse matrix, models in a model
def test_loading_refuses_what_does_not_fit(name, tmp_path):
    system = SYSTEMS[name]().fit(INTERACTIONS)
    system.save(tmp_path / "model")
    with pytest.raises(ArtifactError, match="other interactions"):
        type(system).load(tmp_path / "model", make_interactions(n_users=29))
    with pytest.raises(ArtifactError, match="can't be read"):
        type(system).load(tmp_path / "absent", INTERACTIONS)
    with pytest.raises(ArtifactError, match="holds a"):
        Sequential.load(tmp_path / "model", INTERACTIONS)
    for damage in DAMAGES.values():
        system.save(tmp_path / "model")
        file = max((tmp_path / "model").rglob("*.npy"), key=lambda path: path.stat().st_size)
        file.write_bytes(damage(file.read_bytes()))
        with pytest.raises(ArtifactError, match="can't be read"):
            type(system).load(tmp_path / "model", INTERACTIONS)


def test_fold_in_users_get_what_users_with_their_histories_get(system):
    users = np.array([3, 29, 7])  # one of them without a history
    items, scores = system.top_k(users, 10)
    folded_items, folded_scores = system.fold_in(as_new_users(INTERACTIONS, users)).top_k(np.arange(3), 10)
    if "als" in (system.name, *getattr(system, "sources", {})):  # implicit's last half-step is only nearly exact
        for row in (0, 2):
            assert len(np.intersect1d(items[row], folded_items[row])) >= 7
    else:
        assert np.array_equal(items, folded_items) and np.array_equal(scores, folded_scores)
    assert np.array_equal(system.top_k(users, 10)[0], items), "the model still answers for its own users"
    alone = system.fold_in(as_new_users(INTERACTIONS, users[2:])).top_k(np.array([0]), 10)
    assert np.array_equal(alone[1], folded_scores[2:])


def test_fold_in_users_add_nothing_to_what_is_known_of_items():
    new_user = INTERACTIONS.fold_in_users(make_histories([[39]], 40))
    assert new_user.item_counts is INTERACTIONS.item_counts and new_user.as_of == INTERACTIONS.as_of
    events_of_39 = new_user.item_counts[39], new_user.select(np.array([True])).item_counts[39]
    assert events_of_39 == (0, 0)


def test_the_largest_contribution_wins():
    similarity = sparse.csr_matrix(np.float32([[0, 0.5, 0.2], [0.5, 0, 0.4], [0.2, 0.4, 0]]))
    history = sparse.csr_matrix(np.float32([[1, 2, 0], [0, 0, 0], [0, 0, 1]]))
    items = np.array([[2, -1], [0, 1], [0, 2]])
    contributions = pairwise_contributions(similarity, history, items)
    assert np.allclose(contributions[:, 0], [0.2, 0.8, 0.2])
    assert top_contributor(history, contributions, items).tolist() == [[1, -1], [-1, -1], [2, -1]]


def test_of_equal_contributions_the_first_wins():
    history = sparse.csr_matrix(np.float32([[1, 1, 1]]))
    contributions = np.float32([[0.1], [0.3], [0.3]])
    assert top_contributor(history, contributions, np.array([[0]])).tolist() == [[1]]


# --- catalogues with many items ---


def with_catalogue(n_items: int, scored_items: int | None = None):
    """The same events in a larger catalogue."""
    return replace(INTERACTIONS, n_items=n_items, scored_items=scored_items)


def in_catalogue(name: str, n_items: int):
    """The system, unfitted, over a catalogue of as many items."""
    system = SYSTEMS[name]()
    if isinstance(system, GenreNeighbours):
        genres = sparse.vstack([make_genres(), sparse.csr_matrix((n_items - 40, 5), dtype=np.float32)], format="csr")
        years = np.append(make_years(), np.full(n_items - 40, 1980, np.float32))
        return GenreNeighbours(30.0, item_genres=genres, item_years=years)
    return system


def test_items_that_nobody_has_an_event_on_change_nothing(system, system_id):
    """And they cost nothing: no table of scores has a column for them."""
    wider = in_catalogue(system_id, 60_000).fit(with_catalogue(60_000, scored_items=40))
    for found, expected in zip(wider.top_k(USERS, 15), system.top_k(USERS, 15), strict=True):
        assert np.array_equal(found, expected)
    if isinstance(system, ScoringRecommender):
        assert not wider.is_wide
        n_columns = len(wider.items) if hasattr(wider, "items") else 40
        assert wider._masked_scores(USERS, np.full(30, INTERACTIONS.as_of)).values.shape == (30, n_columns)


def test_fold_in_users_may_have_events_on_items_without_a_score(system, system_id):
    wider = in_catalogue(system_id, 50).fit(with_catalogue(50, scored_items=40))
    columns = {name: getattr(INTERACTIONS, name)[:3] for name in ("rating", "confidence", "timestamp")}
    events = replace(INTERACTIONS, user_idx=np.zeros(3, np.int32), item_idx=np.array([2, 49, 4], np.int32), **columns,
                     n_users=1, n_items=50)
    items, _ = wider.fold_in(wider.interactions.fold_in_users(events)).top_k(np.array([0]), 15)
    assert set(items[0].tolist()).isdisjoint({2, 4, 49}) and (items < 37).all()


@pytest.mark.parametrize("name", [name for name in SYSTEMS if "hybrid" not in name])
def test_in_a_wide_catalogue_lists_and_look_ups_are_the_same(name):
    """What is found among sparse scores, or by a search, against scores of all items."""
    model = in_catalogue(name, 60_000).fit(with_catalogue(60_000))
    assert model.is_wide
    dense = copy(model)
    dense.__class__ = type("Dense", (type(model),), {"is_wide": False})
    ends = np.full(30, INTERACTIONS.as_of)
    for as_of in (ends, ends - 86_400 * (USERS % 60)):
        items, best, score_of = model.retrieve(USERS, 9, as_of)
        expected = dense.retrieve(USERS, 9, as_of)
        assert np.array_equal(items, expected.items) and np.array_equal(best, expected.scores)
        every_item = np.tile(np.arange(40), (30, 1))
        assert np.array_equal(score_of(every_item)[UNSEEN], expected.score_of(every_item)[UNSEEN])
        assert np.isneginf(score_of(np.full((30, 1), -1))).all()
    again = model.top_k(USERS, 9, ends, batch_size=7)
    assert np.array_equal(again[0], dense.top_k(USERS, 9, ends)[0])
    narrow = SYSTEMS[name]().fit(INTERACTIONS).top_k(USERS, 9, ends)
    if not any(part in name for part in ("als", "tfidf", "bm25")):  # these depend on the number of items
        assert (again[0] == narrow[0]).mean() > 0.95 and np.allclose(again[1], narrow[1], rtol=1e-5)


def test_a_hybrid_of_a_wide_catalogue_has_the_same_pools():
    weights = same_in_all_contexts(popularity=0.3, item_item=1.0, sequential=0.7)
    for quotas in ({}, {"popularity": 8}):
        pools = []
        for interactions in (INTERACTIONS, with_catalogue(60_000)):
            sources = {"popularity": Popularity(), "item_item": ItemItem("rp3beta", 10), "sequential": Sequential(3)}
            hybrid = Hybrid(sources, weights, 20, quotas=quotas).fit(interactions)
            pools.append(hybrid.pool(USERS))
        assert np.array_equal(pools[0].items, pools[1].items) and np.array_equal(pools[0].scores, pools[1].scores)
        for name in sources:
            assert np.array_equal(pools[0].ranks[name], pools[1].ranks[name])
            assert np.allclose(*(pool.source_scores[name] for pool in pools), equal_nan=True)
