"""Words of titles as columns of a matrix."""

import re
from collections import Counter

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer

from movierec.retrieval.attributes import word_matrix

TITLES = ["Star Trek", "STAR WARS", "A Star Is Born", "Amélie 2", "amélie", "Été d'Amélie", "Москва", "Москва москва",
          "В Москва", "", "Heat", "Ran", "Up", "Big", "Tron", "M", "Diva", "Elf", "Jaws", "Rocky"]


def test_a_word_of_a_title_is_there_or_not():
    matrix, words = word_matrix(TITLES)
    counts = Counter(word for title in TITLES for word in set(re.findall(r"\w\w+", title.lower())))
    assert words == sorted(word for word, n in counts.items() if 3 <= n <= 4) == ["amélie", "star", "москва"]
    for title, row in zip(TITLES, matrix.toarray(), strict=True):
        assert row.tolist() == [float(word in title.lower()) for word in words]


def test_the_words_of_texts_are_weighted_as_scikit_learn_does():
    texts = [title * 3 if number % 2 else title for number, title in enumerate(TITLES)]
    expected = TfidfVectorizer(min_df=3, max_df=4).fit_transform(texts).toarray()
    found, _ = word_matrix(texts, weighted=True)
    assert found.toarray() == pytest.approx(expected, abs=1e-6)


def test_the_most_frequent_words_are_kept():
    assert word_matrix([*TITLES, "Star"], max_words=1)[1] == ["star"]


@pytest.mark.parametrize("texts", [[], [""] * 30, ["one", "two"], [f"title {i}" for i in range(30)]])
def test_without_shared_words_there_are_no_columns(texts):
    matrix, words = word_matrix(texts)
    assert matrix.shape == (len(texts), 0) and words == [] and matrix.dtype == np.float32
