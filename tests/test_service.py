"""One person at a time: the same numbers as the evaluation's, reasons that are true, wishes that are heeded."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from helpers import tiny_settings
from hypothesis import given
from hypothesis import strategies as st

from movierec.artifacts import paths
from movierec.config import NEURAL_SOURCES, ArtifactError, DataError, NotFoundError
from movierec.config import SYSTEMS as ALL_SYSTEMS
from movierec.data.interactions import load_interactions, load_items
from movierec.ranking.contributions import attributed_lists, contributing_source, top_contributing_source
from movierec.ranking.feature_store import FeatureStore
from movierec.ranking.feature_tables import build_histories, load_histories
from movierec.ranking.features import FEATURES, ITEM_WINDOWS, V3_FEATURES
from movierec.ranking.timeline import item_timeline
from movierec.retrieval.als import ALS
from movierec.retrieval.hybrid import Hybrid
from movierec.serving.search import MovieCatalogue, normalize_title
from movierec.serving.service import RecommenderService, UserFeedback, diversify, relevance, user_history
from movierec.opening import open_data, open_run, open_serving
from movierec.stages import load_rankers, make_systems

SYSTEMS = tuple(name for name in ALL_SYSTEMS if name not in NEURAL_SOURCES)
BY_HISTORY = ("popularity", "item_item", "als_recent", "ease", "sequential", "linear_ar")  # whose lists depend on nothing but films and their order


@pytest.fixture(scope="module")
def settings(tiny_run):
    return tiny_run[0]


@pytest.fixture(scope="module")
def service(settings):
    return RecommenderService(settings, "ranked_v3", "global-time")


@pytest.fixture(scope="module")
def known(settings):
    return load_interactions(open_data(settings))


def items(answer):
    return [pick.item_idx for pick in answer.items]


@pytest.mark.parametrize("system", SYSTEMS)
def test_everybody_gets_to_the_number_what_the_evaluation_gives(settings, known, system):
    """All users at once, over sources with all events in memory, against one guest after the other, over arrays on the disk."""
    store = FeatureStore(Hybrid.load(paths(settings).serving, known), settings.half_life_days)
    systems = make_systems(store, load_rankers(open_run(settings, "global-time")["rankers"], "tiny"))
    service = RecommenderService(settings, system, "global-time")
    for k in (3, 10, 60):  # shorter and longer than the pool
        lists, scores = systems[system].top_k(np.arange(known.n_users), k)
        for user in range(0, known.n_users, 7):
            answer, there = service.recommend(user, k), lists[user] >= 0
            assert items(answer) == lists[user][there].tolist() and [pick.score for pick in answer.items] == scores[user][there].tolist()
            assert [pick.rank for pick in answer.items] == list(range(1, there.sum() + 1)) and bool(answer.notes) == (there.sum() < k)


@pytest.mark.parametrize("system", SYSTEMS)
def test_prepared_lists_are_those_that_would_be_made(settings, known, system):
    """What a run computes for everybody at once, films, scores and whose word they are, is what the service finds for one."""
    store = FeatureStore(Hybrid.load(paths(settings).serving, known), settings.half_life_days)
    systems = make_systems(store, load_rankers(open_run(settings, "global-time")["rankers"], "tiny"))
    service, users = RecommenderService(settings, system, "global-time"), np.arange(0, known.n_users, 9)
    lists, scores, top_sources = attributed_lists(store, systems[system], users, 10, np.full(len(users), known.as_of), batch_size=4)
    for row, user in enumerate(users):
        ranking = service.rank(user_history(service.known, user), user, 10)
        chosen = service.choose(ranking, 10, 0.0)
        assert lists[row].tolist() == ranking.items[chosen].tolist() and scores[row].tolist() == ranking.scores[chosen].tolist()
        assert [list(store.hybrid.sources)[top_source] for top_source in top_sources[row]] == service.top_sources(ranking, chosen, service.contributions(ranking, chosen)).tolist()


def test_a_run_prepares_lists_and_the_service_uses_them(settings, monkeypatch):
    service = RecommenderService(settings)
    assert service.precomputed.items.shape == (80, 10) and service.system == open_serving(settings).precomputed.manifest["contents"]["system"]
    made = [service.answer(user_history(service.known, user), user, 10) for user in range(80)]
    with monkeypatch.context() as patched:
        patched.setattr(RecommenderService, "rank", None)  # it isn't asked
        assert [service.recommend(user, 10) for user in range(80)] == made
        assert items(service.recommend(3, 4)) == items(made[3])[:4] and not service.recommend(3, 4).notes
        assert service.recommend(3, 10, taste=UserFeedback(saves={items(made[3])[0]: 1})) == made[3]
    assert len(service.recommend(3, 12).items) == 12, "longer lists are made"
    other = next(system for system in SYSTEMS if system != service.system)
    assert RecommenderService(settings, other).precomputed.k == 0, "the lists of another system are never shown"
    assert RecommenderService(settings, protocol="leave-last-out").precomputed.k == 0


def test_damaged_lists_are_a_sentence(settings, tmp_path):
    shutil.copytree(settings.data_dir, tmp_path / "data")
    file = paths(settings.model_copy(update={"data_dir": tmp_path / "data"})).precomputed / "items.npy"
    file.write_bytes(file.read_bytes()[:-4] + b"\x00\x00\x00\x07")
    with pytest.raises(ArtifactError, match="can't be read"):
        RecommenderService(settings.model_copy(update={"data_dir": tmp_path / "data"}))


@pytest.mark.parametrize("system", BY_HISTORY)
def test_a_newcomer_with_a_users_films_gets_the_users_list(settings, known, system):
    service = RecommenderService(settings, system, "global-time")
    for user in (0, 33, 79):
        films = [(int(item), float(stars)) for item, stars in zip(*(column[known.indptr[user] : known.indptr[user + 1]] for column in (known.item_idx, known.rating)), strict=True)]
        assert items(service.recommend_for(films, 10)) == items(service.recommend(user, 10))


def test_newcomers(service):
    nothing, one = service.recommend_for([], 10), service.recommend_for([(3, None)], 10)
    assert len(nothing.items) == len(one.items) == 10 and 3 not in items(one)
    assert all(pick.reason.startswith(("Liked by many: ", "Trending now")) for pick in nothing.items)
    assert items(service.recommend_for([(3, 5.0), (4, 2.0), (3, 1.0)])) == items(service.recommend_for([(4, 2.0), (3, 1.0)])), "the last word on a film counts"
    assert len(service.recommend_for([(item, 4.0) for item in range(120)], 10).items) == 0
    for wrong in ((120, 3.0), (-1, 3.0)):
        with pytest.raises(NotFoundError, match="there is no item_idx"):
            service.recommend_for([wrong])
    for stars in (0.0, 5.5, float("nan")):
        with pytest.raises(DataError, match="is no rating"):
            service.recommend_for([(3, stars)])


def test_likes_are_fresh_history(settings, known):
    """Whoever likes a film gets the list of one who has just watched it."""
    for system in BY_HISTORY:
        service = RecommenderService(settings, system, "global-time")
        films = [(int(item), float(stars)) for item, stars in zip(known.item_idx[: known.indptr[1]], known.rating[: known.indptr[1]], strict=True)]
        new = [item for item in range(120) if item not in dict(films)][:2]
        assert items(service.recommend(0, 10, taste=UserFeedback(likes={new[1]: 7, new[0]: 9}))) == items(service.recommend_for([*films, (new[1], 5.0), (new[0], 5.0)], 10))
        again = films[0][0]
        assert items(service.recommend(0, 10, taste=UserFeedback(likes={again: 7}))) == items(service.recommend_for([*films[1:], (again, 5.0)], 10)), "liked again is watched again"


def test_a_history_by_hand(known):
    history = user_history(known, 5, [(119, 5.0), (int(known.item_idx[known.indptr[5]]), None)])
    before = slice(known.indptr[5] + 1, known.indptr[6])  # the first one has moved to the end
    assert history.item_idx.tolist() == [*known.item_idx[before], 119, known.item_idx[known.indptr[5]]]
    assert history.confidence[-2:].tolist() == [2.5, 1.0] and history.timestamp[-2:].tolist() == [known.as_of - 1] * 2
    assert history.n_users == 1 and history.as_of == known.as_of and np.array_equal(history.item_counts, known.item_counts)


def test_dislikes_remove_and_push_away(service):
    before = service.recommend(12, 40)
    disliked = items(before)[0]
    after = service.recommend(12, 40, taste=UserFeedback(dislikes={disliked: 1}))
    assert disliked not in items(after) and set(items(after)) >= set(items(before)[1:20])

    def mean_rank(answer, wanted):
        return np.mean([items(answer).index(item) for item in wanted])

    others = np.array([item for item in items(before)[1:] if item in items(after)])
    alike = others[np.argsort(-sum(service.similarity(np.array([disliked]), others))[0])]
    nearest, farthest = alike[:8], alike[-8:]
    assert mean_rank(after, nearest) - mean_rank(before, nearest) > mean_rank(after, farthest) - mean_rank(before, farthest), "what is like it sinks"


def test_without_weight_dislikes_only_remove(settings):
    service = RecommenderService(settings.model_copy(update={"service": settings.service.model_copy(update={"dislike_weight": 0.0})}), "ranked_v3", "global-time")
    before = items(service.recommend(12, 20))
    assert items(service.recommend(12, 10, taste=UserFeedback(dislikes={before[0]: 1, before[3]: 2}))) == [before[n] for n in (1, 2, *range(4, 12))]


def test_saved_films_stay(service):
    before = service.recommend(12, 10)
    assert service.recommend(12, 10, taste=UserFeedback(saves={items(before)[0]: 1})) == before


def test_variety(service):
    """The first stays, nobody is lost, and the more is wanted the less alike the films are."""
    def alike(answer):
        found = np.array(items(answer))
        return (sum(service.similarity(found, found)) - np.eye(len(found))).sum() / (len(found) * (len(found) - 1))

    lists = {diversity: [service.recommend(user, 10, diversity) for user in range(0, 80, 5)] for diversity in (0.0, 0.3, 0.6, 1.0)}
    for mine in zip(*lists.values(), strict=True):
        assert len({items(answer)[0] for answer in mine}) == 1 and all(len(set(items(answer))) == 10 for answer in mine)
    means = [np.mean([alike(answer) for answer in some]) for some in lists.values()]
    assert means == sorted(means, reverse=True) and means[0] - means[-1] > 0.1
    assert lists[0.0] == [service.recommend(user, 10) for user in range(0, 80, 5)]


@given(st.integers(0, 10_000), st.floats(0, 1), st.integers(0, 12))
def test_maximal_marginal_relevance_by_plain_loops(seed, diversity, k):
    rng = np.random.default_rng(seed)
    worth, alike = rng.random(9), rng.random((9, 9))
    alike = np.maximum(alike, alike.T)
    chosen = []
    while len(chosen) < min(k, 9):
        best, most = None, -np.inf
        for item in range(9):
            if item not in chosen:
                value = (1 - diversity) * worth[item] - diversity * max(alike[item, other] for other in chosen) if chosen else worth[item]
                if value > most:
                    best, most = item, value
        chosen.append(best)
    assert diversify(worth, alike, k, diversity).tolist() == chosen
    if not diversity:
        assert chosen == np.argsort(-worth, kind="stable")[:k].tolist()


def test_relevance_of_equals():
    assert relevance(np.array([2.0, 1.0, 0.0], np.float32)).tolist() == [1, 0.5, 0] and relevance(np.array([3.0, 3.0], np.float32)).tolist() == [0, 0]


def test_reasons_are_true(settings, service, known):
    catalogue, kinds = service.catalogue, set()
    hybrid = RecommenderService(settings, "hybrid", "global-time")
    for serving, user in [(serving, user) for serving in (service, hybrid) for user in range(0, 80, 3)]:
        seen = known.item_idx[known.indptr[user] : known.indptr[user + 1]]
        titles, genres = {catalogue.titles[item] for item in seen}, {genre for item in seen for genre in catalogue.genres[item]}
        for pick in serving.recommend(user, 10).items:
            kind, _, rest = pick.reason.partition(": ")
            if pick.reason.startswith("Because you watched "):
                kind, rest = "Because you watched", pick.reason.removeprefix("Because you watched ")
                assert rest in titles
            elif kind == "Matches your genres":
                assert set(rest.split(", ")) <= set(pick.genres) & genres
            elif kind == "Liked by many":
                assert rest == f"{known.item_counts[pick.item_idx]:,} ratings"
            else:
                assert pick.reason in ("Trending now", "Similar to your taste", "People like you watched this")
            kinds.add(kind)
    assert len(kinds) >= 4, kinds  # a ranker that learned from so little may have few


def test_likes_are_named_where_they_did_it(settings):
    service = RecommenderService(settings, "sequential", "global-time")
    new = next(item for item in range(120) if item not in {film.item_idx for film in service.history(6)})
    reasons = [pick.reason for pick in service.recommend(6, 10, taste=UserFeedback(likes={new: 1})).items]
    assert f"Boosted by your likes: {service.catalogue.titles[new]}" in reasons
    assert not any(reason.startswith("Boosted") for reason in (pick.reason for pick in service.recommend(6, 10).items))


def test_the_loudest_source_by_hand():
    features = ("als_score", "als_z", "lift_1", "fused_score", "user_interactions", "item_events_7d")
    parts = np.array([[0.25, 0.5, 0.5, 0.0, 9.0, 0.1],  # als 0.75; the user's own number is nobody's word
                      [0.25, 0.0, 0.5, 0.25, 0.0, 0.1],  # als 0.25 and the votes' 0.25 are no more than sequential: the earlier of equals
                      [0.25, 0.0, 0.5, 0.5, 0.0, 0.1],  # als 0.75
                      [-1.0, 0.0, -1.0, 0.0, 0.0, 0.0]])  # nobody else speaks against it
    sources = ("popularity_recent", "sequential", "als")
    assert top_contributing_source(parts, features, np.array(["als", "als", "als", "sequential"]), sources).tolist() == ["als", "sequential", "als", "popularity_recent"]
    assert {contributing_source(feature.name) for feature in FEATURES} <= {*ALL_SYSTEMS, "fused_score", ""}


def test_similar_films_by_plain_loops(service):
    vectors, genres = service.hybrid.sources["als"].item_factors, service.hybrid.sources["genre"].item_genres.toarray()

    def cosine(a, b):
        return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b))) if np.linalg.norm(a) and np.linalg.norm(b) else 0.0

    for item in (0, 17, 119):
        answer = service.similar(item, 5)
        expected = {other: 0.3 * cosine(genres[item], genres[other]) + 0.7 * max(cosine(vectors[item], vectors[other]), 0) for other in range(120) if other != item}
        best = sorted(expected, key=lambda other: -expected[other])[:5]
        assert [pick.score for pick in answer.items] == pytest.approx([expected[other] for other in best], abs=1e-5) and set(items(answer)) == set(best)
        for pick in answer.items:
            assert pick.reason == "Watched by the same people" or set(pick.reason.removeprefix("The same genres: ").split(", ")) == set(pick.genres) & set(service.catalogue.genres[item])


def test_history_is_the_datasets(service, known):
    whole = service.history(8, 1_000)
    assert [film.item_idx for film in whole] == known.item_idx[known.indptr[8] : known.indptr[9]][::-1].tolist()
    assert [film.rating for film in whole] == known.rating[known.indptr[8] : known.indptr[9]][::-1].tolist() and service.history(8, 3) == whole[:3]


def test_debug_adds_up(service):
    debug, answer = service.debug(9, 5), service.recommend(9, 5)
    json.dumps(debug, allow_nan=False)
    assert debug["features"] == list(V3_FEATURES) and [item["item_idx"] for item in debug["items"]] == items(answer)
    assert [item["score"] for item in debug["items"]] == [pick.score for pick in answer.items] and [item["reason"] for item in debug["items"]] == [pick.reason for pick in answer.items]
    bases = [item["score"] - sum(item["contributions"]) for item in debug["items"]]
    assert bases == pytest.approx([bases[0]] * 5, abs=1e-5), "a score is a constant and its contributions"
    assert set(debug["sources"]) == set(service.hybrid.builder.sources) and all(len(proposed) == 5 for proposed in debug["sources"].values())
    votes = [candidate["fused_score"] for candidate in debug["pool"]]
    assert votes == sorted(votes, reverse=True) and len(votes) == 40
    values = dict(zip(debug["features"], debug["items"][0]["features"], strict=True))
    assert values["user_interactions"] == debug["events"] and values["fused_rank"] == 1 + [candidate["item_idx"] for candidate in debug["pool"]].index(items(answer)[0])
    assert service.debug(9, 5, UserFeedback(dislikes={items(answer)[0]: 1}))["dislikes"] == [items(answer)[0]]


@pytest.mark.parametrize("system", ["als", "hybrid", "ranked_v1"])
def test_debug_of_simpler_systems(settings, system):
    debug = RecommenderService(settings, system, "global-time").debug(9, 5)
    json.dumps(debug, allow_nan=False)
    assert len(debug["items"]) == 5 and all(item["reason"] for item in debug["items"]) and "contributions" not in debug["items"][0]


def make_catalogue():
    titles = [("The Matrix", 1999), ("The Matrix Reloaded", 2003), ("Amélie (Le fabuleux destin d'Amélie Poulain)", 2001), ("Se7en", 1995), ("Seven Samurai (Shichinin no samurai)", 1954),
              ("Star Wars: Episode IV - A New Hope", 1977), ("It", None), ("It", 2017), ("The Godfather", 1972), ("The Godfather: Part II", 1974), ("2001: A Space Odyssey", 1968), ("Матрица", 1999)]
    frame = pd.DataFrame({"movieId": range(12), "title": [title for title, _ in titles], "year": pd.array([year for _, year in titles], "Int64"), "genres": [["Drama"]] * 12})
    return MovieCatalogue(frame, np.arange(12))


@pytest.mark.parametrize(("query", "title"), [("the matirx", "The Matrix"), ("MATRIX", "The Matrix"), ("mtrix relaoded", "The Matrix Reloaded"), ("amelie", "Amélie"), ("fabuleux", "Amélie"), ("se7en", "Se7en"),
                                              ("seven samurai 1954", "Seven Samurai"), ("star wras", "Star Wars"), ("godfather part ii", "The Godfather: Part II"), ("space odyssey", "2001"), ("матрица", "Матрица"),
                                              ("  The   matrix!! ", "The Matrix"), ("odyssey space", "2001")])
def test_search_forgives(query, title):
    assert make_catalogue().search(query)[0].title.startswith(title)


def test_search(service):
    catalogue = make_catalogue()
    assert [film.item_idx for film in catalogue.search("it", 2)] == [7, 6], "of equals the better known one first"
    assert catalogue.search("xqzzy") == [] and catalogue.search("") == [] and catalogue.search("!?") == [] and catalogue.search("\x00\ud800") == []
    assert len(catalogue.search("the", 1)) <= 1 and normalize_title("  Crème-Brûlée:  Part II ") == "creme brulee part ii"
    for item in range(0, 120, 11):
        assert service.catalogue.titles[item] in [film.title for film in service.search(service.catalogue.titles[item].lower(), 3)]


def test_what_does_not_exist(service):
    for call in (lambda: service.recommend(80), lambda: service.recommend(-1), lambda: service.debug(80), lambda: service.history(80)):
        with pytest.raises(NotFoundError, match=r"user_idx.*from 0 to 79"):
            call()
    with pytest.raises(NotFoundError, match=r"item_idx 120.*from 0 to 119"):
        service.similar(120)
    with pytest.raises(NotFoundError, match="there is no user nobody"):
        service.user_index_of("nobody")


def test_item_state_is_the_timeline_at_the_end(settings, known):
    mapped, item_state = load_histories(open_serving(settings).histories)
    timeline = item_timeline(known, settings.half_life_days)
    films, moment = np.array([0, 5, 119, 5]), np.full(4, known.as_of)
    assert np.array_equal(item_state.state_at(films, moment, ITEM_WINDOWS), timeline.state_at(films, moment, ITEM_WINDOWS), equal_nan=True)
    assert np.array_equal(item_state.events_before(films, moment), timeline.events_before(films, moment))
    with pytest.raises(ValueError, match="only the state as of"):
        item_state.state_at(films, moment + 1)
    for name in ("user_idx", "item_idx", "rating", "confidence", "timestamp", "indptr", "item_counts"):
        assert np.array_equal(getattr(mapped, name), getattr(known, name))


def test_what_is_large_stays_on_the_disk(service):
    def mapped(array):
        while array is not None and not isinstance(array, np.memmap):
            array = array.base
        return array is not None

    sources = service.hybrid.sources
    for array in (service.known.item_idx, service.known.timestamp, sources["ease"].weights, sources["linear_ar"].weights, sources["sequential"].lift.data, sources["als"].user_factors, sources["genre"].popularity):
        assert mapped(array) and not array.flags.writeable


def test_damaged_histories_are_a_sentence(settings, tmp_path):
    other = tiny_settings(tmp_path)
    histories = build_histories(other, open_data(settings))
    file = paths(other).histories / "item_idx.npy"
    file.write_bytes(file.read_bytes()[:-1] + b"\xff")
    with pytest.raises(ArtifactError, match="can't be read"):
        load_histories(histories)


def test_nothing_heavy_is_imported_for_serving(settings):
    code = f"""
import sys
from pathlib import Path
from movierec.config import load_settings
from movierec.service import RecommenderService
settings = load_settings(dataset="tiny", data_dir=Path({str(settings.data_dir)!r}), reports_dir=Path({str(settings.reports_dir)!r}))
RecommenderService(settings, "ranked_v3", "global-time").recommend(0, 5)
print([name for name in ("torch", "sklearn", "matplotlib", "implicit", "skops", "faiss") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout == "[]\n", done.stderr


def test_a_known_user_keeps_the_vector_of_the_fit(service, known):
    one = user_history(service.known, 3)
    vectors = service.hybrid.sources["als"].user_factors[[3]]
    assert np.array_equal(service.store.fold_in(one, vectors).hybrid.sources["als"].user_factors, vectors)
    solved = service.store.fold_in(one).hybrid.sources["als"].user_factors
    assert isinstance(service.hybrid.sources["als"], ALS) and solved.shape == vectors.shape and not np.array_equal(solved, vectors)
    assert load_items(open_data(service.settings)).movieId.tolist() == service.catalogue.movies.tolist()
