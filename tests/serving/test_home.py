"""Rows of a home page: what each promises, and that it keeps it."""

import numpy as np
import pytest

from movierec.config import NotFoundError
from movierec.metrics import TIERS, item_tiers
from movierec.ranking.reasons import REASON_GROUPS
from movierec.serving.home import (
    MIN_ROW_LENGTH,
    Filters,
    Requester,
    build_home_page,
    explain_movie,
    requester_history,
    select_seed_items,
)
from movierec.serving.model import UserFeedback, user_history
from movierec.serving.similar_movies import MIN_SIMILARITY, similarity_to
from movierec.serving.user_ranking import feature_contributions, rank_candidates


@pytest.fixture(scope="module", params=["ranked_v3", "hybrid", "popularity"])
def service(open_service, request):
    return open_service(request.param)


def page_for(service, requester, **filters):
    return build_home_page(service.model, requester, Filters(**filters))


def cards_of(page):
    return [card for row in page.rows for card in row.items]


def items_of(page):
    return [card.item_idx for card in cards_of(page)]


def rows_of(page, kind):
    return [row for row in page.rows if row.kind == kind]


@pytest.mark.parametrize(("user", "k"), [(0, 1), (7, 6), (79, 20)])
def test_the_first_row_is_the_list_and_no_movie_occurs_twice(service, user, k):
    page, answer = page_for(service, Requester(user), k=k), service.recommend(user, k).items
    for card, movie in zip(page.rows[0].items, answer, strict=True):
        assert all(getattr(card, name) == value for name, value in vars(movie).items())
    assert len(items_of(page)) == len(set(items_of(page)))
    assert not set(items_of(page)) & {event.item_idx for event in service.history(user)}
    for row in page.rows:
        assert len(row.items) <= k and [card.rank for card in row.items] == list(range(1, len(row.items) + 1))
    assert all(0 <= card.match <= 1 for card in cards_of(page))
    assert max(card.match for card in page.rows[0].items) == 1


def test_rows_keep_their_promise(service):
    tiers, kinds = item_tiers(service.model.interactions.item_counts), set()
    for user in range(0, 80, 8):
        page = page_for(service, Requester(user), k=5)
        kinds |= {row.kind for row in page.rows}
        assert all(row.about in card.genres for row in rows_of(page, "genre") for card in row.items)
        assert all(TIERS[tiers[card.item_idx]] == "tail" for row in rows_of(page, "gems") for card in row.items)
        history = {event.item_idx for event in service.history(user)}
        for row in rows_of(page, "because"):
            assert row.about.item_idx in history
            items = np.array([card.item_idx for card in row.items])
            similarity = similarity_to(service.model, row.about.item_idx).total[items]
            assert (np.diff(similarity) <= 1e-6).all() and similarity.min() > MIN_SIMILARITY
        assert all(len(row.items) >= MIN_ROW_LENGTH for row in page.rows)
    assert kinds >= {"top", "because", "genre"}
    assert ("trending" in kinds) == (service.model.system != "popularity"), "a source has no candidate pool"


def test_likes_and_dislikes_count(service):
    plain = page_for(service, Requester(3), k=5)
    liked, disliked = plain.rows[0].items[2].item_idx, plain.rows[0].items[0].item_idx
    feedback = UserFeedback({liked: 1}, {disliked: 2})
    page = page_for(service, Requester(3, feedback=feedback), k=5)
    assert not {liked, disliked} & set(items_of(page)) and items_of(page) != items_of(plain)
    assert liked in {row.about.item_idx for row in rows_of(page, "because")}
    answer = service.recommend(3, 5, feedback=feedback).items
    assert [card.item_idx for card in page.rows[0].items] == [movie.item_idx for movie in answer]


def test_new_users(service):
    nothing = page_for(service, Requester())
    assert {row.kind for row in nothing.rows} <= {"top", "trending", "gems"} and len(nothing.rows[0].items) == 20
    some = page_for(service, Requester(history=[(0, 5.0), (2, None)], feedback=UserFeedback({4: 0})))
    assert not {0, 2, 4} & set(items_of(some)) and rows_of(some, "because")


def test_filters_narrow_every_row(service):
    hidden = items_of(page_for(service, Requester(8), k=3))[:3]
    filters = {"genres": ["Comedy", "Horror"], "from_year": 1960, "to_year": 1985, "hide": hidden}
    cards = cards_of(page_for(service, Requester(8), **filters))
    assert cards and all({"Comedy", "Horror"} & set(card.genres) and 1960 <= card.year <= 1985 for card in cards)
    assert not set(hidden) & {card.item_idx for card in cards}


def test_filters_that_leave_nothing_or_do_not_exist(service):
    empty = page_for(service, Requester(8), from_year=2100)
    assert empty.rows == [] and empty.notes == ["nothing fits: fewer filters show more"]
    with pytest.raises(NotFoundError, match="there is no genre Polka: there are Action"):
        page_for(service, Requester(8), genres=["Polka"])
    with pytest.raises(NotFoundError, match="there is no user_idx 80"):
        page_for(service, Requester(80))


def test_diversity_is_that_of_the_top_picks(service):
    page, answer = page_for(service, Requester(8), k=10, diversity=0.7), service.recommend(8, 10, 0.7)
    assert [card.item_idx for card in page.rows[0].items] == [movie.item_idx for movie in answer.items]


def test_seed_items_are_recent_liked_and_different(service):
    model = service.model
    history = user_history(model.interactions, 8)
    seeds = select_seed_items(model, history)
    liked = history.item_idx[history.confidence >= history.confidence.mean()]
    assert seeds[0] == liked[-1] and len(set(seeds)) == 3 and set(seeds) <= set(liked[-20:])
    assert len(select_seed_items(model, user_history(model.interactions, None))) == 0


def test_explanations(service):
    model, requester = service.model, Requester(8)
    for card in page_for(service, requester, k=10).rows[0].items[:3]:
        explanation = explain_movie(model, requester, card.item_idx)
        assert explanation.movie.rank == card.rank and explanation.movie.reason == card.reason
        ranks = [source.rank for source in explanation.sources]
        assert ranks == sorted(ranks) and explanation.candidates >= 10
        assert [one.reason for one in explanation.reasons] == list(REASON_GROUPS)
        seen = {event.item_idx for event in service.history(8)}
        assert len(explanation.own_movies) <= 2 and {movie.item_idx for movie in explanation.own_movies} <= seen
        assert all(0 < movie.share <= 1 for movie in explanation.own_movies)
        if explanation.contributions:
            ranking = rank_candidates(model, *requester_history(model, requester), model.hybrid.pool_size)
            total = feature_contributions(model, ranking, np.array([card.rank - 1]))[0].sum()
            listed = [one.contribution for one in explanation.contributions]
            assert sum(listed) + explanation.others == pytest.approx(total)
            assert [abs(one) for one in listed] == sorted((abs(one) for one in listed), reverse=True)
            assert all(one.meaning for one in explanation.contributions)
    with pytest.raises(NotFoundError, match="is not among the candidates"):
        explain_movie(model, requester, service.history(8)[0].item_idx)
