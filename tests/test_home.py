"""Rows of a home page: what each promises, and that it keeps it."""

import numpy as np
import pytest

from movierec.config import NotFoundError
from movierec.metrics import TIERS, item_tiers
from movierec.serving.home import LEAST, Filters, HomeService, Requester, seeds, why
from movierec.serving.service import UserFeedback, user_history


@pytest.fixture(scope="module", params=["ranked_v3", "hybrid", "popularity"])
def service(tiny_run, request):
    return HomeService(tiny_run[0], request.param)


def films(page):
    return [card.item_idx for row in page.rows for card in row.items]


def rows_of(page, kind):
    return [row for row in page.rows if row.kind == kind]


@pytest.mark.parametrize("user", [0, 7, 79])
@pytest.mark.parametrize("k", [1, 6, 20])
def test_the_first_row_is_the_list_and_no_film_stands_twice(service, user, k):
    page = service.home(Requester(user), Filters(k=k))
    answer = service.recommend(user, k).items
    assert [(card.item_idx, card.score, card.reason, card.rank) for card in page.rows[0].items] == [(pick.item_idx, pick.score, pick.reason, pick.rank) for pick in answer]
    assert len(films(page)) == len(set(films(page))) and not set(films(page)) & {one.item_idx for one in service.history(user)}
    assert all(len(row.items) <= k and [card.rank for card in row.items] == list(range(1, len(row.items) + 1)) for row in page.rows)
    assert all(0 <= card.match <= 1 for row in page.rows for card in row.items) and max(card.match for card in page.rows[0].items) == 1


def test_rows_keep_their_promise(service):
    tiers, seen = item_tiers(service.known.item_counts), set()
    for user in range(0, 80, 5):
        page = service.home(Requester(user), Filters(k=5))
        seen |= {row.kind for row in page.rows}
        assert all(row.about in card.genres for row in rows_of(page, "genre") for card in row.items)
        assert all(TIERS[tiers[card.item_idx]] == "tail" for row in rows_of(page, "gems") for card in row.items)
        history = {one.item_idx for one in service.history(user)}
        for row in rows_of(page, "because"):
            assert row.about.item_idx in history
            alike = sum(service.similarity(np.array([card.item_idx for card in row.items]), np.array([row.about.item_idx])))[:, 0]
            assert (np.diff(alike) <= 1e-6).all() and alike.min() > 0.3
        assert all(len(row.items) >= LEAST for row in page.rows)
    assert seen >= {"top", "because", "genre"} and ("trending" in seen) == (service.system != "popularity")  # a source alone has no pool


def test_likes_and_dislikes_count(service):
    plain = service.home(Requester(3), Filters(k=5))
    liked, disliked = plain.rows[0].items[2].item_idx, plain.rows[0].items[0].item_idx
    page = service.home(Requester(3, taste=UserFeedback({liked: 1}, {disliked: 2})), Filters(k=5))
    assert not {liked, disliked} & set(films(page)) and films(page) != films(plain)
    assert liked in {row.about.item_idx for row in rows_of(page, "because")}
    assert [card.item_idx for card in page.rows[0].items] == [pick.item_idx for pick in service.recommend(3, 5, taste=UserFeedback({liked: 1}, {disliked: 2})).items]


def test_newcomers(service):
    nothing = service.home(Requester())
    assert {row.kind for row in nothing.rows} <= {"top", "trending", "gems"} and len(nothing.rows[0].items) == 20
    some = service.home(Requester(history=[(0, 5.0), (2, None)], taste=UserFeedback({4: 0})))
    assert not {0, 2, 4} & set(films(some)) and rows_of(some, "because")


def test_filters_narrow_every_row(service):
    page = service.home(Requester(8), Filters(genres=["Comedy", "Horror"], from_year=1960, to_year=1985, hide=films(service.home(Requester(8), Filters(k=3)))[:3]))
    cards = [card for row in page.rows for card in row.items]
    assert cards and all({"Comedy", "Horror"} & set(card.genres) and 1960 <= card.year <= 1985 for card in cards)
    assert not set(films(service.home(Requester(8), Filters(k=3)))[:3]) & {card.item_idx for card in cards}
    empty = service.home(Requester(8), Filters(from_year=2100))
    assert empty.rows == [] and empty.notes == ["nothing fits: fewer filters show more"]
    with pytest.raises(NotFoundError, match="there is no genre Polka: there are Action"):
        service.home(Requester(8), Filters(genres=["Polka"]))


def test_diversity_is_of_the_top_picks(service):
    page = service.home(Requester(8), Filters(k=10, diversity=0.7))
    assert [card.item_idx for card in page.rows[0].items] == [pick.item_idx for pick in service.recommend(8, 10, 0.7).items]


def test_seeds_are_recent_liked_and_different(service):
    history = user_history(service.known, 8)
    found = seeds(service, history)
    liked = history.item_idx[history.confidence >= history.confidence.mean()]
    assert found[0] == liked[-1] and len(set(found)) == 3 and set(found) <= set(liked[-20:])
    assert len(seeds(service, user_history(service.known, None))) == 0


def test_why(service):
    page = service.home(Requester(8), Filters(k=10))
    for card in page.rows[0].items[:3]:
        reason = why(service, Requester(8), card.item_idx)
        assert reason.movie.rank == card.rank and reason.movie.reason == card.reason and reason.candidates >= 10
        assert [one.rank for one in reason.sources] == sorted(one.rank for one in reason.sources)
        if reason.contributions:
            matrix = service.rank(*Requester(8).events(service), service.hybrid.pool_size)
            whole = service.contributions(matrix, np.array([card.rank - 1]))[0]
            assert sum(share.contribution for share in reason.contributions) + reason.others == pytest.approx(whole.sum())
            assert [abs(share.contribution) for share in reason.contributions] == sorted((abs(share.contribution) for share in reason.contributions), reverse=True) and all(share.meaning for share in reason.contributions)
    with pytest.raises(NotFoundError, match="is not among the candidates"):
        why(service, Requester(8), service.history(8)[0].item_idx)
    with pytest.raises(NotFoundError, match="there is no user_idx 80"):
        service.home(Requester(80))
