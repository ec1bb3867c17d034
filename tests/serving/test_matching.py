"""Titles of one person's export, found in a catalogue: nothing is taken that isn't certain."""

import pytest

from movierec.config import NotFoundError
from movierec.data.personal import PersonalRow
from movierec.serving.matching import CatalogueMovie, MovieMatcher, load_movies, title_variants

MOVIES = [
    CatalogueMovie(1, "Toy Story", 1995, 114709, 862),
    CatalogueMovie(2, "Toy Story 2", 1999, 120363, 863),
    CatalogueMovie(3, "Seven (a.k.a. Se7en)", 1995, 114369, 807),
    CatalogueMovie(4, "The City of Lost Children (La Cité des enfants perdus)", 1995),
    CatalogueMovie(5, "Emma", 1996, 116191, 3573),
    CatalogueMovie(6, "Emma", 1996, 118308, 12254),
    CatalogueMovie(7, "Titanic", 1953),
    CatalogueMovie(8, "Titanic", 1997),
    CatalogueMovie(9, "Amelie (Le Fabuleux destin d'Amélie Poulain)", 2001),
    CatalogueMovie(10, "The Shawshank Redemption", 1994),
    CatalogueMovie(11, "A Bug's Life", 1998),
    CatalogueMovie(12, "Sunset Blvd. (a.k.a. Sunset Boulevard)", 1950),
    CatalogueMovie(13, "The Thing", None),
    CatalogueMovie(14, "Twins", 2000, 111, 999),
    CatalogueMovie(15, "Twins Again", 2000, 222, 999),
    CatalogueMovie(16, "Rocky II", 1979),
    CatalogueMovie(17, "千と千尋の神隠し", 2001),
    CatalogueMovie(18, "Fast & Furious", 2009),
]
MATCHER = MovieMatcher(MOVIES)


def match(title="?", year=None, **ids):
    found = MATCHER.match(PersonalRow(title=title, year=year, **ids))
    return found.kind, [movie.movieId for movie in found.movies]


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"imdb_id": 114709}, ("exact", [1])),
        ({"title": "Another title", "year": 1900, "tmdb_id": 863}, ("exact", [2])),
        ({"imdb_id": 114709, "tmdb_id": 863}, ("ambiguous", [1, 2])),
        ({"tmdb_id": 999}, ("ambiguous", [14, 15])),
        ({"imdb_id": 222, "tmdb_id": 999}, ("exact", [15])),
        ({"title": "TOY STORY", "year": 1995, "imdb_id": 5}, ("fuzzy", [1])),
        ({"title": "Emma", "year": 1996, "imdb_id": 118308}, ("exact", [6])),
    ],
)
def test_ids_come_first(row, expected):
    assert match(**row) == expected


@pytest.mark.parametrize(
    ("title", "year", "movie"),
    [
        ("toy story", 1995, 1),
        ("Se7en", 1995, 3),
        ("Seven", 1995, 3),
        ("La cite des enfants perdus", 1995, 4),
        ("City of Lost Children, The", 1995, 4),
        ("Amélie", 2001, 9),
        ("Bug's Life", 1998, 11),
        ("Sunset Boulevard", 1950, 12),
        ("Titanic", 1997, 8),
        ("Titanic", 1953, 7),
        ("千と千尋の神隠し", 2001, 17),
        ("Fast and Furious", 2009, 18),
        ("Shawshank Redemption", None, 10),
    ],
)
def test_titles_that_mean_the_same(title, year, movie):
    assert match(title, year) == ("exact", [movie])


@pytest.mark.parametrize(
    ("title", "year", "expected"),
    [
        ("Toy Story", 1996, ("fuzzy", [1])),
        ("Shawshank Redemtion", 1994, ("fuzzy", [10])),
        ("The Thing", 1982, ("fuzzy", [13])),
        ("Emma", 1996, ("ambiguous", [5, 6])),
        ("Emma", 1997, ("ambiguous", [5, 6])),
        ("Titanic", None, ("ambiguous", [7, 8])),
        ("Toy Story", 2010, ("unmatched", [])),
        ("Toy Story 3", None, ("unmatched", [])),
        ("Rocky III", 1979, ("unmatched", [])),
        ("Shawshank Redemtion", 2004, ("unmatched", [])),
        ("Something else", None, ("unmatched", [])),
        ("!!!", None, ("unmatched", [])),
        ("☃", 2000, ("unmatched", [])),
    ],
)
def test_what_is_not_certain(title, year, expected):
    assert match(title, year) == expected


def test_every_movie_of_a_catalogue_finds_itself():
    for movie in MOVIES:
        kind, found = match(movie.title, movie.year)
        assert movie.movieId in found and kind in ("exact", "ambiguous")


def test_counts_are_those_of_all_rows():
    rows = [PersonalRow(title="Emma", year=1996), PersonalRow(title="Toy Story", year=1995), PersonalRow(title="x")]
    assert MATCHER.match_all(rows).counts() == {"exact": 1, "fuzzy": 0, "ambiguous": 1, "unmatched": 1}


def test_an_empty_catalogue_matches_nothing():
    assert MovieMatcher([]).match(PersonalRow(title="Heat", imdb_id=1)).kind == "unmatched"


def test_variants_have_neither_articles_nor_empty_texts():
    assert title_variants("The") == ["the"] and title_variants("()") == []
    assert title_variants("L'Avventura") == title_variants("Avventura, L'") == ["avventura"]


def test_the_catalogue_of_a_dataset(tiny_run):
    settings, _ = tiny_run
    movies = load_movies(settings)
    assert len(movies) == 120 and movies[0] == CatalogueMovie(1, "The Film 1", 1951)
    with pytest.raises(NotFoundError, match="nowhere hasn't been read yet"):
        load_movies(settings.model_copy(update={"dataset": "nowhere"}))
