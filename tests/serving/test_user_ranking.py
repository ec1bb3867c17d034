"""Re-ranking: diversity, dislikes, similarity."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from movierec.serving.model import UserFeedback
from movierec.serving.service import RecommenderService, load_serving_model
from movierec.serving.user_ranking import diversify, min_max_scale, movie_similarity


def items_of(answer):
    return [movie.item_idx for movie in answer.items]


@given(st.integers(0, 10_000), st.floats(0, 1), st.integers(0, 12))
def test_maximal_marginal_relevance_by_plain_loops(seed, diversity, k):
    rng = np.random.default_rng(seed)
    relevance, similarity = rng.random(9), rng.random((9, 9))
    similarity = np.maximum(similarity, similarity.T)
    selected = []
    while len(selected) < min(k, 9):
        values = {}
        for item in set(range(9)) - set(selected):
            nearest = max((similarity[item, other] for other in selected), default=0.0)
            values[item] = (1 - diversity) * relevance[item] - diversity * nearest if selected else relevance[item]
        selected.append(min(values, key=lambda item: (-values[item], item)))
    assert diversify(relevance, similarity, k, diversity).tolist() == selected
    if not diversity:
        assert selected == np.argsort(-relevance, kind="stable")[:k].tolist()


def test_scaling_of_equal_scores():
    assert min_max_scale(np.array([3.0, 3.0], np.float32)).tolist() == [0, 0]


def test_dislikes_remove_and_push_away(service):
    before = service.recommend(12, 40)
    disliked = items_of(before)[0]
    after = service.recommend(12, 40, feedback=UserFeedback(dislikes={disliked: 1}))
    assert disliked not in items_of(after) and set(items_of(after)) >= set(items_of(before)[1:20])

    def mean_rank(answer, wanted):
        return np.mean([items_of(answer).index(item) for item in wanted])

    others = np.array([item for item in items_of(before)[1:] if item in items_of(after)])
    by_similarity = others[np.argsort(-movie_similarity(service.model, np.array([disliked]), others)[0])]
    sunk_nearest, sunk_farthest = (
        mean_rank(after, some) - mean_rank(before, some) for some in (by_similarity[:8], by_similarity[-8:])
    )
    assert sunk_nearest > sunk_farthest, "movies similar to a disliked one sink"


def test_without_weight_dislikes_only_remove(settings, service):
    changed = settings.service.model_copy(update={"dislike_weight": 0.0})
    model = load_serving_model(settings.model_copy(update={"service": changed}), artifacts=service.model.artifacts)
    before = items_of(service.recommend(12, 20))
    feedback = UserFeedback(dislikes={before[0]: 1, before[3]: 2})
    after = RecommenderService(model).recommend(12, 10, feedback=feedback)
    assert items_of(after) == [before[place] for place in (1, 2, *range(4, 12))]


def test_diversity(service):
    """The first movie stays, nothing is lost, and the more diversity is wanted the less similar the movies are."""
    def mean_similarity(answer):
        items = np.array(items_of(answer))
        similarity = movie_similarity(service.model, items, items) - np.eye(len(items))
        return similarity.sum() / (len(items) * (len(items) - 1))

    users, means = range(0, 80, 10), []
    plain = [service.recommend(user, 10) for user in users]
    for diversity in (0.0, 0.3, 0.6, 1.0):
        answers = [service.recommend(user, 10, diversity) for user in users]
        for answer, first in zip(answers, plain, strict=True):
            assert items_of(answer)[0] == items_of(first)[0] and len(set(items_of(answer))) == 10
        means.append(np.mean([mean_similarity(answer) for answer in answers]))
    assert means == sorted(means, reverse=True) and means[0] - means[-1] > 0.1
