"""One user at a time: the same numbers as the evaluation's, precomputed or not."""

import json
import subprocess
import sys

import numpy as np
import pytest

from movierec.config import CONTENT_SOURCES, NEURAL_SOURCES, UNORDERED_RANKERS, DataError, NotFoundError
from movierec.config import SYSTEMS as ALL_SYSTEMS
from movierec.ranking.contributions import attributed_lists
from movierec.ranking.features import V3_FEATURES
from movierec.serving import service as service_module
from movierec.serving.model import UserFeedback, user_history
from movierec.serving.service import RecommenderService, compute_recommendations
from movierec.serving.user_ranking import (
    attribute_to_sources,
    feature_contributions,
    rank_candidates,
    select_items,
)

OFF = (*NEURAL_SOURCES, *CONTENT_SOURCES, *UNORDERED_RANKERS)  # unless asked for
SYSTEMS = tuple(name for name in ALL_SYSTEMS if name not in OFF)
BY_HISTORY = ("popularity", "item_item", "als_recent", "ease", "sequential", "linear_ar")  # use nothing but the history


def items_of(answer):
    return [movie.item_idx for movie in answer.items]


def scores_of(answer):
    return [movie.score for movie in answer.items]


@pytest.mark.parametrize("system", SYSTEMS)
def test_each_user_gets_exactly_what_the_evaluation_computes(open_service, systems, interactions, system):
    """All users at once, over events in memory, against one fold-in user at a time, over arrays on disk."""
    service, users = open_service(system), np.arange(0, interactions.n_users, 13)
    for k in (3, 60):  # shorter and longer than the pool
        lists, scores = systems[system].top_k(users, k)
        for row, user in enumerate(users):
            answer, found = service.recommend(user, k), lists[row] >= 0
            assert items_of(answer) == lists[row][found].tolist() and scores_of(answer) == scores[row][found].tolist()
            assert [movie.rank for movie in answer.items] == list(range(1, found.sum() + 1))
            assert bool(answer.notes) == (found.sum() < k)


@pytest.mark.parametrize("system", SYSTEMS)
def test_precomputed_lists_are_those_that_would_be_computed(open_service, systems, store, interactions, system):
    """What a run computes for all users at once, sources included, is what the service computes for one."""
    model, users = open_service(system).model, np.arange(0, interactions.n_users, 19)
    as_of = np.full(len(users), interactions.as_of)
    lists, scores, top_sources = attributed_lists(store, systems[system], users, 10, as_of, batch_size=4)
    names = list(store.hybrid.sources)
    for row, user in enumerate(users):
        ranking = rank_candidates(model, user_history(model.interactions, user), user, 10)
        selected = select_items(model, ranking, 10)
        assert lists[row].tolist() == ranking.items[selected].tolist()
        assert scores[row].tolist() == ranking.scores[selected].tolist()
        attributed = attribute_to_sources(model, ranking, selected, feature_contributions(model, ranking, selected))
        assert [names[source] for source in top_sources[row]] == attributed.tolist()


def test_precomputed_lists_are_looked_up(settings, monkeypatch):
    service = RecommenderService.open(settings)
    model, users = service.model, range(0, 80, 4)
    histories = {user: user_history(model.interactions, user) for user in users}
    computed = {user: compute_recommendations(model, histories[user], user, 10) for user in users}
    assert len(service.recommend(3, 12).items) == 12, "longer lists are computed"
    monkeypatch.setattr(service_module, "compute_recommendations", None)
    assert {user: service.recommend(user, 10) for user in users} == computed
    first = items_of(computed[4])
    assert items_of(service.recommend(4, 4)) == first[:4] and not service.recommend(4, 4).notes
    saved = service.recommend(4, 10, feedback=UserFeedback(saves={first[0]: 1}))
    assert saved == computed[4], "saving a movie changes nothing"


@pytest.mark.parametrize("system", BY_HISTORY)
def test_a_new_user_with_a_users_history_gets_the_users_list(open_service, interactions, system):
    service = open_service(system)
    for user in (0, 79):
        stored = slice(interactions.indptr[user], interactions.indptr[user + 1])
        events = list(zip(interactions.item_idx[stored].tolist(), interactions.rating[stored].tolist(), strict=True))
        new_user = service.recommend_to_new_user(events, 10, ordered=True)
        assert items_of(new_user) == items_of(service.recommend(user, 10))


@pytest.mark.parametrize("system", BY_HISTORY)
def test_a_like_is_a_new_event(open_service, interactions, system):
    service, stored = open_service(system), slice(0, interactions.indptr[1])
    events = list(zip(interactions.item_idx[stored].tolist(), interactions.rating[stored].tolist(), strict=True))
    new = [item for item in range(120) if item not in dict(events)][:2]
    liked = service.recommend(0, 10, feedback=UserFeedback(likes={new[1]: 7, new[0]: 9}))
    new_user = service.recommend_to_new_user([*events, (new[1], 5.0), (new[0], 5.0)], ordered=True)
    assert items_of(liked) == items_of(new_user)
    again = events[0][0]
    liked = service.recommend(0, 10, feedback=UserFeedback(likes={again: 7}))
    assert items_of(liked) == items_of(service.recommend_to_new_user([*events[1:], (again, 5.0)], ordered=True))


def test_new_users(service):
    nothing, one = service.recommend_to_new_user([], 10), service.recommend_to_new_user([(3, None)], 10)
    assert len(nothing.items) == len(one.items) == 10 and 3 not in items_of(one)
    assert all(movie.reason.startswith(("Liked by many: ", "Trending now")) for movie in nothing.items)
    twice = service.recommend_to_new_user([(3, 5.0), (4, 2.0), (3, 1.0)])
    assert items_of(twice) == items_of(service.recommend_to_new_user([(4, 2.0), (3, 1.0)])), "the last rating counts"
    assert len(service.recommend_to_new_user([(item, 4.0) for item in range(120)], 10).items) == 0


def test_new_users_with_impossible_histories(service):
    for item in (120, -1):
        with pytest.raises(NotFoundError, match="there is no item_idx"):
            service.recommend_to_new_user([(item, 3.0)])
    for stars in (0.0, 5.5, float("nan")):
        with pytest.raises(DataError, match="is not a rating"):
            service.recommend_to_new_user([(3, stars)])


def test_history_is_the_datas(service, interactions):
    stored = slice(interactions.indptr[8], interactions.indptr[9])
    events = service.history(8, 1_000)
    assert [event.item_idx for event in events] == interactions.item_idx[stored][::-1].tolist()
    assert [event.rating for event in events] == interactions.rating[stored][::-1].tolist()
    assert service.history(8, 3) == events[:3]


def test_debug_adds_up(service):
    debug, answer = service.debug(9, 5), service.recommend(9, 5)
    json.dumps(debug, allow_nan=False)
    rows = debug["items"]
    assert debug["features"] == list(V3_FEATURES) and [row["item_idx"] for row in rows] == items_of(answer)
    assert [row["score"] for row in rows] == scores_of(answer)
    assert [row["reason"] for row in rows] == [movie.reason for movie in answer.items]
    constants = [row["score"] - sum(row["contributions"]) for row in rows]
    assert constants == pytest.approx([constants[0]] * 5, abs=1e-5), "a score is a constant and its contributions"
    assert set(debug["sources"]) == set(service.model.hybrid.builder.sources)
    assert all(len(proposed) == 5 for proposed in debug["sources"].values())
    fused = [candidate["fused_score"] for candidate in debug["pool"]]
    assert fused == sorted(fused, reverse=True) and len(fused) == 40
    values = dict(zip(debug["features"], rows[0]["features"], strict=True))
    assert values["user_interactions"] == debug["events"]
    place = [candidate["item_idx"] for candidate in debug["pool"]].index(items_of(answer)[0])
    assert values["fused_rank"] == place + 1
    first = items_of(answer)[0]
    assert service.debug(9, 5, UserFeedback(dislikes={first: 1}))["dislikes"] == [first]


@pytest.mark.parametrize("system", ["als", "hybrid", "ranked_v1"])
def test_debug_of_simpler_systems(open_service, system):
    debug = open_service(system).debug(9, 5)
    json.dumps(debug, allow_nan=False)
    assert len(debug["items"]) == 5 and all(row["reason"] for row in debug["items"])
    assert "contributions" not in debug["items"][0]


def test_what_does_not_exist(service):
    for ask in (service.recommend, service.debug, service.history):
        for user in (80, -1):
            with pytest.raises(NotFoundError, match=r"user_idx.*from 0 to 79"):
                ask(user)
    with pytest.raises(NotFoundError, match=r"item_idx 120.*from 0 to 119"):
        service.similar(120)


def test_nothing_heavy_is_imported_for_serving(settings):
    code = f"""
import sys
from pathlib import Path
from movierec.config import load_settings
from movierec.serving.service import RecommenderService
data, reports = Path({str(settings.data_dir)!r}), Path({str(settings.reports_dir)!r})
settings = load_settings(dataset="tiny", data_dir=data, reports_dir=reports)
RecommenderService.open(settings, "ranked_v3", "global-time").recommend(0, 5)
heavy = ("torch", "matplotlib", "implicit", "skops", "faiss")  # LightGBM imports scikit-learn where there is one
print([name for name in heavy if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout == "[]\n", done.stderr
