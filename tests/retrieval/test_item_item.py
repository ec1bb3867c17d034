"""Item-item similarities against their definitions and against implicit."""

import warnings

import numpy as np
import pytest
from helpers import make_interactions

from movierec.retrieval.item_item import ItemItem

INTERACTIONS = make_interactions()


@pytest.fixture(scope="module")
def cosine():
    """All cosine similarities, by definition."""
    dense = INTERACTIONS.matrix.toarray().astype(float)
    norm = np.linalg.norm(dense, axis=0)
    norms = np.outer(norm, norm)
    cosine = np.divide(dense.T @ dense, norms, out=np.zeros((40, 40)), where=norms > 0)
    np.fill_diagonal(cosine, 0)
    return cosine


@pytest.mark.parametrize("weighting", ["cosine", "tfidf", "bm25"])
def test_similarities_are_those_of_implicit(weighting):
    from implicit import nearest_neighbours as nn

    classes = {"cosine": nn.CosineRecommender, "tfidf": nn.TFIDFRecommender, "bm25": nn.BM25Recommender}
    reference = classes[weighting](K=40)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # implicit's own
        reference.fit(INTERACTIONS.matrix.astype(np.float64), show_progress=False)
    expected = reference.similarity.toarray()
    np.fill_diagonal(expected, 0)
    similarity = ItemItem(weighting, 40).fit(INTERACTIONS).similarity.toarray()
    assert np.allclose(similarity, np.maximum(expected, 0), atol=1e-6)


def test_rp3beta_is_a_walk_divided_by_popularity():
    x = INTERACTIONS.csr(np.ones(len(INTERACTIONS))).toarray()
    per_user, per_item = np.maximum(x.sum(axis=1), 1), np.maximum(x.sum(axis=0), 1)
    walk = (x.T / per_item[:, None]) @ (x / per_user[:, None]) / per_item**0.6  # item → user → item
    np.fill_diagonal(walk, 0)
    model = ItemItem("rp3beta", 40).fit(INTERACTIONS)
    assert np.allclose(model.similarity.toarray(), walk, atol=1e-6)
    assert np.allclose(model._scores(np.arange(29), np.zeros(29)), x[:29] @ walk, atol=1e-5)


def test_an_unknown_weighting():
    with pytest.raises(ValueError, match="unknown weighting 'jaccard': choose cosine"):
        ItemItem("jaccard").fit(INTERACTIONS)


def test_the_nearest_neighbours_are_kept(cosine):
    kept = ItemItem("cosine", 5).fit(INTERACTIONS).similarity.toarray()
    for item in range(37):
        assert np.allclose(np.sort(kept[item])[-5:], np.sort(cosine[item])[-5:], atol=1e-6)
        assert (kept[item] > 0).sum() <= 5


def test_scores_from_the_last_events(cosine):
    model = ItemItem("cosine", 40, last=2, decay=0.5).fit(INTERACTIONS)
    history = INTERACTIONS.item_idx[INTERACTIONS.indptr[5] : INTERACTIONS.indptr[6]]
    expected = cosine[history[-1]] + 0.5 * cosine[history[-2]]
    assert np.allclose(model._scores(np.array([5]), np.zeros(1))[0], expected, atol=1e-6)


def test_seed_items_have_the_largest_weighted_similarity(cosine):
    model = ItemItem("cosine", 40).fit(INTERACTIONS)
    liked = INTERACTIONS.matrix[[3]].toarray()[0]
    items = model.top_k(np.array([3]), 5)[0]
    expected = [(liked * cosine[:, item]).argmax() for item in items[0]]
    assert model.seed_items(np.array([3]), items)[0].tolist() == expected
    assert model.seed_items(np.array([29]), np.array([[0, 1]])).tolist() == [[-1, -1]], "no history, no seed items"
