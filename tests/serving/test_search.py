"""Finding movies by title, however it is spelled."""

import numpy as np
import pandas as pd
import pytest

from movierec.serving.search import MovieCatalogue, normalize_title

TITLES = (
    ("The Matrix", 1999),
    ("The Matrix Reloaded", 2003),
    ("Amélie (Le fabuleux destin d'Amélie Poulain)", 2001),
    ("Se7en", 1995),
    ("Seven Samurai (Shichinin no samurai)", 1954),
    ("Star Wars: Episode IV - A New Hope", 1977),
    ("It", None),
    ("It", 2017),
    ("The Godfather", 1972),
    ("The Godfather: Part II", 1974),
    ("2001: A Space Odyssey", 1968),
    ("Матрица", 1999),
)


@pytest.fixture(scope="module")
def catalogue():
    n = len(TITLES)
    titles, years = zip(*TITLES, strict=True)
    columns = {"movieId": range(n), "title": titles, "year": pd.array(years, "Int64"), "genres": [["Drama"]] * n}
    return MovieCatalogue(pd.DataFrame(columns), np.arange(n))


@pytest.mark.parametrize(
    ("query", "title"),
    [
        ("the matirx", "The Matrix"),
        ("MATRIX", "The Matrix"),
        ("mtrix relaoded", "The Matrix Reloaded"),
        ("amelie", "Amélie"),
        ("fabuleux", "Amélie"),
        ("se7en", "Se7en"),
        ("seven samurai 1954", "Seven Samurai"),
        ("star wras", "Star Wars"),
        ("godfather part ii", "The Godfather: Part II"),
        ("space odyssey", "2001"),
        ("матрица", "Матрица"),
        ("  The   matrix!! ", "The Matrix"),
        ("odyssey space", "2001"),
    ],
)
def test_search_tolerates_typos(catalogue, query, title):
    assert catalogue.search(query)[0].title.startswith(title)


def test_equal_titles_come_by_popularity(catalogue):
    assert [movie.item_idx for movie in catalogue.search("it", 2)] == [7, 6]


@pytest.mark.parametrize("query", ["xqzzy", "", "!?", "\x00\ud800"])
def test_queries_without_a_match(catalogue, query):
    assert catalogue.search(query) == []


def test_limit_and_normalization(catalogue):
    assert len(catalogue.search("the", 1)) <= 1
    assert normalize_title("  Crème-Brûlée:  Part II ") == "creme brulee part ii"


def test_every_title_finds_its_movie(service):
    titles = service.model.catalogue.titles
    for item in range(0, 120, 11):
        assert titles[item] in [movie.title for movie in service.search(titles[item].lower(), 3)]
