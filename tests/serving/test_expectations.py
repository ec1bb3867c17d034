"""What is expected of a recommendation: the same wherever it is shown, and within its bounds."""

import numpy as np
import pytest
from scipy import sparse

from movierec.metrics import genre_miscalibration
from movierec.ranking.genre_mix import NO_MIX, ListMix
from movierec.serving.home import Requester, build_home_page, explain_movie
from movierec.serving.model import user_history
from movierec.serving.service import compute_recommendations, recommend
from movierec.serving.user_ranking import expect


def numbers(items):
    """Item, probability and stars of each recommendation."""
    return [(movie.item_idx, movie.probability, movie.expected_rating) for movie in items]


def test_values_are_within_bounds_and_fall_with_the_place(service):
    for user in (0, 7, 79):
        items = service.recommend(user, 10).items
        probabilities = [movie.probability for movie in items]
        assert all(0 <= value <= 1 for value in probabilities)
        assert probabilities == sorted(probabilities, reverse=True)
        assert all(0.5 <= movie.expected_rating <= 5 for movie in items)


def test_precomputed_and_computed_numbers_are_equal(service, model):
    for user in (0, 7, 79):
        computed = compute_recommendations(model, user_history(model.interactions, user), user, 10)
        assert numbers(computed.items) == numbers(service.recommend(user, 10).items)


@pytest.mark.parametrize("system", ["hybrid", "ranked_v2", "ranked_v3"])
def test_every_system_of_a_run_has_them(open_service, system):
    answer = open_service(system).recommend(3, 5)
    assert all(movie.probability is not None and movie.expected_rating is not None for movie in answer.items)
    assert answer.horizon_days == open_service(system).model.calibrator.horizon_days > 0


def test_the_command_the_page_and_the_explanation_agree(service, settings):
    user, answer = service.model.user_ids[8], service.recommend(8, 10)
    table = recommend(settings, user, 10, "ranked_v3", "global-time").table
    assert table["probability"].tolist() == [movie.probability for movie in answer.items]
    assert table["expected_rating"].tolist() == [movie.expected_rating for movie in answer.items]
    page = build_home_page(service.model, Requester(8))
    assert numbers(page.rows[0].items)[:10] == numbers(answer.items)
    why = explain_movie(service.model, Requester(8), answer.items[4].item_idx)
    assert numbers([why.movie]) == numbers(answer.items[4:5]) and why.horizon_days == answer.horizon_days


def test_a_reranked_list_expects_the_same_of_a_movie(service, model):
    history = user_history(model.interactions, 5)
    whole = compute_recommendations(model, history, 5, model.hybrid.pool_size)
    plain = {item: rest for item, *rest in numbers(whole.items)}
    for again in (service.recommend(5, 10, 0.8), service.recommend(5, 10, mix=ListMix(0.7))):
        for item, *rest in numbers(again.items):
            assert plain[item] == rest


def test_nothing_is_expected_of_similar_movies_and_without_calibrators(service, model):
    assert {movie.probability for movie in service.similar(3, 5).items} == {None}
    history = user_history(model.interactions, 3)
    nothing = expect(model, history, np.zeros(0, np.int32), np.zeros(0, np.float32), np.zeros(0, int))
    assert nothing.probabilities == nothing.ratings == []


def test_a_new_user(service):
    answer = service.recommend_to_new_user([(3, 5.0), (8, None)], 5)
    assert all(0 <= movie.probability <= 1 and movie.expected_rating is not None for movie in answer.items)


def test_no_mix_leaves_lists_as_they_are(service):
    for user in (0, 7, 79):
        assert service.recommend(user, 10, mix=NO_MIX) == service.recommend(user, 10)
        assert service.recommend(user, 10, 0.6, mix=NO_MIX) == service.recommend(user, 10, 0.6)


def test_a_mix_matches_the_history_better(service, model):
    users, distances = range(0, 80, 4), {}
    genres = sparse.csr_matrix(model.hybrid.sources["genre"].categories["genres"].membership)
    seen = sparse.csr_matrix(model.interactions.matrix[list(users)])
    for weight in (0.0, 0.5, 1.0):
        items = [[movie.item_idx for movie in service.recommend(user, 10, mix=ListMix(weight)).items] for user in users]
        distances[weight] = np.nanmean(genre_miscalibration(np.array(items), seen, genres, 10))
    assert distances[1.0] < distances[0.0] and distances[0.5] <= distances[0.0]


def test_popularity_can_be_matched(service, model):
    tiers = model.popularity_tiers
    users, heads = range(0, 80, 4), {}
    wanted = np.mean([(tiers[user_history(model.interactions, user).item_idx] == 0).mean() for user in users])
    for weight in (0.0, 0.9):
        mix = ListMix(match_popularity=weight)
        items = [[movie.item_idx for movie in service.recommend(user, 10, mix=mix).items] for user in users]
        heads[weight] = (tiers[np.array(items)] == 0).mean()
    assert abs(heads[0.9] - wanted) < abs(heads[0.0] - wanted)
