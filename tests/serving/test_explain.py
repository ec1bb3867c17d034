"""Reasons are true: they name what was watched, what is liked, and what did it."""

import pytest

from movierec.ranking.features import FEATURES
from movierec.serving.explain import FEATURE_DESCRIPTIONS
from movierec.serving.service import UserFeedback


def test_reasons_are_true(open_service, interactions):
    kinds = set()
    for service, user in [(open_service(name), user) for name in ("ranked_v3", "hybrid") for user in range(0, 80, 7)]:
        catalogue = service.model.catalogue
        events = slice(interactions.indptr[user], interactions.indptr[user + 1])
        seen = interactions.item_idx[events]
        liked = {catalogue.titles[item] for item in seen[interactions.confidence[events] > 0]}
        titles = {catalogue.titles[item] for item in seen}
        genres = {genre for item in seen for genre in catalogue.genres[item]}
        for movie in service.recommend(user, 10).items:
            reason = movie.reason
            if reason.startswith("Goes with "):
                liked_movie, _, reason = reason.removeprefix("Goes with ").partition("; ")
                assert liked_movie in liked
                reason = reason[0].upper() + reason[1:]
                kinds.add("Goes with")
            kind, _, rest = reason.partition(": ")
            if reason.startswith("Because you watched "):
                kind = "Because you watched"
                assert reason.removeprefix("Because you watched ") in titles
            elif kind == "Matches your genres":
                assert set(rest.split(", ")) <= set(movie.genres) & genres
            elif kind == "Liked by many":
                assert rest == f"{interactions.item_counts[movie.item_idx]:,} ratings"
            else:
                assert reason in ("Trending now", "Similar to your taste", "People like you watched this")
            kinds.add(kind)
    assert len(kinds) >= 5 and "Goes with" in kinds, f"only {kinds} occur: too few kinds of reasons to mean much"


def test_likes_are_named_where_they_led_to_a_recommendation(open_service):
    service = open_service("sequential")
    new = next(item for item in range(120) if item not in {movie.item_idx for movie in service.history(6)})
    liked = service.recommend(6, 10, feedback=UserFeedback(likes={new: 1}))
    assert f"Boosted by your likes: {service.model.catalogue.titles[new]}" in [movie.reason for movie in liked.items]
    assert not any(movie.reason.startswith("Boosted") for movie in service.recommend(6, 10).items)


@pytest.mark.parametrize("feature", FEATURES, ids=lambda feature: feature.name)
def test_descriptions_stand_alone(feature):
    text = FEATURE_DESCRIPTIONS[feature.name]
    assert text and not text.startswith("the same") and "the source's" not in text
