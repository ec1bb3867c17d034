"""Movies without events in lists of every kind, by a quota that is off by default."""

import re

import pytest
from helpers import tiny_settings, write_archive

from movierec.artifacts import read_arrays
from movierec.config import ConfigError, load_settings
from movierec.opening import open_serving
from movierec.pipeline import run
from movierec.serving.model import UserFeedback
from movierec.serving.service import RecommenderService, compute_recommendations, new_user_history

N_NEW = 30


@pytest.fixture(scope="module")
def service(shared_folder):
    """The service of a catalogue that ends with movies without events, and of which some aren't scored at all."""
    folder = shared_folder / "new_items"
    archive = write_archive(folder / "archive")
    with (archive / "movies.csv").open("a", encoding="utf-8") as file:
        for number in range(N_NEW):
            file.write(f'{9_000 + number},"Film {number}, The ({1950 + number})",{("Action", "Drama")[number % 2]}\n')
    settings = tiny_settings(folder, content={"enabled": True, "new_items": 1}, protocol="global-time")
    run(settings, archive)
    return RecommenderService.open(settings)


def new_places(model, items):
    return [place for place, item in enumerate(items) if not model.interactions.item_counts[item]]


def test_the_last_of_ten_places_is_a_new_movie_with_a_reason_of_its_own(service):
    model = service.model
    assert model.interactions.n_scored < model.interactions.n_items, "the new movies get no score from other sources"
    for user in range(0, 80, 9):
        answer = service.recommend(user, 10)
        assert new_places(model, [movie.item_idx for movie in answer.items]) == [9]
        reason = answer.items[9].reason
        genres = re.sub("^New: matches your genres? ", "", reason).split(" and ")
        assert reason == "New" or set(genres) <= set(answer.items[9].genres)
        assert not any(movie.reason.startswith("New") for movie in answer.items[:9])


def test_precomputed_live_and_folded_in_lists_agree(service):
    model = service.model
    precomputed = open_serving(model.settings).precomputed
    stored = read_arrays(precomputed.path, precomputed.manifest["contents"]["crc32"])
    for user in range(0, 80, 9):
        history = service._history_with(user, UserFeedback())
        live = compute_recommendations(model, history, user, 10)
        assert [movie.item_idx for movie in live.items] == stored["items"][user].tolist()
        assert [movie.score for movie in live.items] == pytest.approx(stored["scores"][user].tolist())
        assert [movie.reason for movie in live.items] == [movie.reason for movie in service.recommend(user, 10).items]
        longer = compute_recommendations(model, history, user, 30)
        assert [movie.item_idx for movie in longer.items[:10]] == [movie.item_idx for movie in live.items]
        assert new_places(model, [movie.item_idx for movie in longer.items]) == [9, 19, 29]


def test_a_new_movie_can_be_liked_and_disliked(service):
    model = service.model
    events = [(0, 5.0), (4, 4.0)]
    first = service.recommend_to_new_user(events, 10).items[9].item_idx
    liked = service.recommend_to_new_user([*events, (first, 5.0)], 10)
    assert first not in {movie.item_idx for movie in liked.items}
    history = new_user_history(model, events)
    disliked = compute_recommendations(model, history, None, 10, feedback=UserFeedback(dislikes={first: 0}))
    assert first not in {movie.item_idx for movie in disliked.items}
    assert len(new_places(model, [movie.item_idx for movie in disliked.items])) == 1


def test_without_history_nothing_is_reserved(service):
    answer = service.recommend_to_new_user([], 10)
    assert not new_places(service.model, [movie.item_idx for movie in answer.items])


def test_the_source_has_to_be_enabled():
    with pytest.raises(ConfigError, match="new_items needs"):
        load_settings(content={"new_items": 1})
