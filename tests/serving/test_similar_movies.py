"""Similar movies: by who watched them, and by what they are like."""

import math
import re
from collections import Counter

import numpy as np
import pytest

from movierec.serving.service import RecommenderService
from movierec.serving.similar_movies import MIN_SIMILARITY, co_watching, similarity_to


def likeness_by_plain_loops(model, item, other):
    """The cosine of genres, year and title words, each weighed by rarity and of the same length."""
    genre, titles = model.hybrid.sources["genre"], model.catalogue.titles
    n = len(titles)
    words = [set(re.findall(r"\w\w+", title.lower())) for title in titles]
    n_with = Counter(word for row in words for word in row)
    n_genre = Counter(name for row in model.catalogue.genres for name in row)

    def parts(one):
        has_words = {w: math.log((1 + n) / (1 + n_with[w])) for w in words[one] if 3 <= n_with[w] <= 0.2 * n}
        has_genres = {g: math.log((1 + n) / (1 + n_genre[g])) for g in model.catalogue.genres[one]}
        year, years = float(genre.item_years[one]), genre.item_years[np.isfinite(genre.item_years)]
        centres = range(int(5 * (years.min() // 5)), int(5 * -(-years.max() // 5)) + 1, 5)
        near = {c: math.exp(-0.5 * ((year - c) / 4) ** 2) for c in centres if abs(year - c) < 12}
        return has_genres, near, has_words

    def cosine(a, b):
        length = math.sqrt(sum(v * v for v in a.values()) * sum(v * v for v in b.values()))
        return sum(v * b.get(key, 0) for key, v in a.items()) / length if length else 0.0

    mine, others = parts(item), parts(other)
    total = sum(cosine(a, b) for a, b in zip(mine, others, strict=True))
    return total / math.sqrt(sum(bool(a) for a in mine) * sum(bool(b) for b in others))


def test_similarity_by_plain_loops(service):
    model = service.model
    ease = model.hybrid.sources["ease"]
    for item in (0, 17, 119):
        events, found = model.interactions.item_counts[item], similarity_to(model, item)
        weight, strength = events / (events + 20), np.zeros(120)
        if item in ease.items:
            row = ease.weights[list(ease.items).index(item)]
            strength[ease.items] = [math.sqrt(max(value, 0) / max(row.max(), 1e-9)) for value in row]
        for other in set(range(120)) - {item}:
            alike = likeness_by_plain_loops(model, item, other)
            assert found.by_attributes[other] == pytest.approx((1 - weight) * alike, abs=1e-4)
            watched = weight * strength[other] * (0.5 + 0.5 * alike)
            assert found.by_watching[other] == pytest.approx(watched, abs=1e-4)


def test_the_list_is_in_order_and_ends_at_the_floor(service):
    for item in range(0, 120, 7):
        total = similarity_to(service.model, item).total
        answer = service.similar(item, 10)
        expected = sorted(set(range(120)) - {item}, key=lambda other: -total[other])[:10]
        expected = [other for other in expected if total[other] > MIN_SIMILARITY]
        assert [movie.score for movie in answer.items] == pytest.approx([total[other] for other in expected])
        assert item not in {movie.item_idx for movie in answer.items}


def test_a_reason_names_shared_genres_or_the_same_people(service):
    genres = service.model.catalogue.genres
    for item in range(0, 120, 5):
        for movie in service.similar(item, 10).items:
            shared = [name for name in genres[movie.item_idx] if name in genres[item]]
            same_genres = f"The same genres: {', '.join(shared)}"
            assert movie.reason in ("Watched by the same people", "A similar title, of the same time", same_genres)


def test_without_ease_the_vectors_of_als_say_who_watched_it(open_service):
    model = open_service("popularity").model
    found = co_watching(model, 3)
    assert found.max() == pytest.approx(1) and found[3] == 0


@pytest.mark.slow
def test_well_known_movies_of_the_bundled_data(small_run):
    service = RecommenderService.open(small_run[0])
    titles = service.model.catalogue.titles

    def similar(title):
        return [movie.title for movie in service.similar(titles.index(title), 10).items]

    for title, other in [
        ("Toy Story", "Toy Story 2"), ("The Godfather", "The Godfather: Part II"), ("Alien", "Aliens"),
        ("Goldfinger", "Thunderball"), ("Tombstone", "Wyatt Earp"), ("Die Hard", "Die Hard 2"),
        ("The Lion King", "Aladdin"),
    ]:
        assert other in similar(title), (title, similar(title))
    for title, other in [("Tombstone", "Miracle on 34th Street"), ("Heat", "Leaving Las Vegas")]:
        assert other not in similar(title), (title, similar(title))
