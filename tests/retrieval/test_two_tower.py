"""Two towers: the corrected softmax, movies without events, what may be read; training repeated, killed and resumed."""

import importlib.util
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from helpers import make_irregular_histories
from scipy import sparse

from movierec.config import ConfigError, TwoTowerSettings
from movierec.retrieval.ann import VectorSearch
from movierec.retrieval.two_tower import (
    TOWER_WEIGHTS,
    TowerTrainer,
    TwoTower,
    draw_examples,
    inclusion_probability,
    item_tower,
    item_vectors,
    make_batch,
    user_tower,
)

REASON = "the extra neural (PyTorch) isn't installed: make neural"
pytestmark = [
    pytest.mark.extra, pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason=REASON)
]
NEW = 24  # the item without events


def attributes_of(n_items: int = 25) -> sparse.csr_matrix:
    """A constant, and three attributes at random; the new item has those of item 0."""
    dense = np.column_stack([np.ones(n_items), np.random.default_rng(5).random((n_items, 3)) < 0.5]).astype(np.float32)
    dense[NEW] = dense[0]
    return sparse.csr_matrix(dense)


SMALL = {"factors": 6, "hidden": 5, "length": 6, "epochs": 3, "batch_users": 8, "negatives": 10, "targets": 2}


def make_model(**changes) -> TwoTower:
    return TwoTower(**SMALL | {"item_attributes": attributes_of()} | changes)


@pytest.fixture(scope="module")
def interactions():
    return make_irregular_histories()


@pytest.fixture(scope="module")
def model(interactions):
    return make_model().fit(interactions)


def have_equal_weights(a: TwoTower, b: TwoTower) -> bool:
    return all(np.array_equal(a.weights[name], b.weights[name]) for name in TOWER_WEIGHTS)


def trainer_of(interactions, **changes) -> TowerTrainer:
    values = {"length": 6, "id_dropout": 0.5, "temperature": 0.5, "targets": 2, "negatives": 10, "learning_rate": 0.01,
              "weight_decay": 0.1, "epochs": 1, "batch_users": 8, "max_users": 100, "seed": 1, "report": lambda _: None}
    return TowerTrainer(interactions, attributes_of(), **values | changes)


def test_dividing_by_the_inclusion_probability_estimates_the_whole_sum():
    """The mean over every possible draw of two targets and one even candidate, weighted by its probability."""
    share, evenly, terms = np.array([0.6, 0.3, 0.1]), 1 / 3, np.exp([0.2, -1.0, 2.0])
    inclusion, expected, without = inclusion_probability(share, 2, evenly), 0.0, 0.0
    for first, second, even in product(range(3), repeat=3):
        drawn, probability = list({first, second, even}), share[first] * share[second] * evenly
        expected += probability * (terms[drawn] / inclusion[drawn]).sum()
        without += probability * terms[drawn].sum()
    assert np.isclose(expected, terms.sum()) and not np.isclose(without, terms.sum(), rtol=0.05)


def test_the_loss_with_all_items_is_the_cross_entropy_by_hand(model, interactions):
    import torch

    trainer = trainer_of(interactions, negatives=24, id_dropout=0.0)
    weights = {name: torch.from_numpy(array) for name, array in model.weights.items()}
    drawn = draw_examples(interactions, 6, 2, 100, np.random.default_rng(0)).subset(slice(0, 5))
    got = trainer.loss(weights, drawn, np.random.default_rng(0)).item()

    vectors = item_vectors(model.weights, attributes_of(), np.ones(25, bool))
    losses = []
    for begin, size, targets in zip(*drawn, strict=True):
        events = np.arange(begin, begin + size)
        history = interactions.item_idx[events]
        back = np.frexp(np.arange(size)[::-1])[1]
        stars = (2 * interactions.rating[events]).astype(int)
        logit = model.recency[back] + model.stars[stars] + vectors[history] @ model.gate
        h = np.exp(logit) @ vectors[history] / np.exp(logit).sum()
        q = h + np.maximum(h @ model.user_in.T, 0) @ model.user_out.T
        scores = vectors @ (q / np.linalg.norm(q)) / 0.5
        others = np.setdiff1d(np.arange(24), [*history, *interactions.item_idx[targets]])
        for target in targets[interactions.confidence[targets] > 0]:
            score = scores[interactions.item_idx[target]]
            losses.append(np.log(np.exp(score) + np.exp(scores[others]).sum()) - score)
    assert np.isclose(got, np.mean(losses), rtol=1e-4)


def test_examples_read_what_was_before_their_targets(interactions):
    drawn = draw_examples(interactions, 6, 5, 1_000, np.random.default_rng(3))
    user = interactions.user_idx[drawn.begin]
    assert (drawn.size >= 1).all() and (drawn.size <= 6).all() and len(np.unique(user)) == len(user)
    assert (interactions.user_idx[drawn.begin + drawn.size - 1] == user).all()
    assert (interactions.user_idx[drawn.targets] == user[:, None]).all()
    assert (drawn.targets >= (drawn.begin + drawn.size)[:, None]).all(), "nothing from the place on is read"


def test_a_batch_knows_its_candidates(interactions):
    drawn = draw_examples(interactions, 6, 2, 1_000, np.random.default_rng(3)).subset(slice(0, 9))
    batch = make_batch(interactions, drawn, np.array([1, 2, 3]))
    chosen = batch.items[batch.candidates]
    assert np.array_equal(chosen[batch.target], interactions.item_idx[drawn.targets]) and {1, 2, 3} <= set(chosen)
    for row, (begin, size) in enumerate(zip(drawn.begin, drawn.size, strict=True)):
        history = interactions.item_idx[begin : begin + size]
        assert np.array_equal(batch.items[batch.place[row, :size]], history) and batch.real[row].sum() == size
        own = {*history, *interactions.item_idx[drawn.targets[row]]}
        assert set(chosen[batch.known[row]]) == own & set(chosen)


def test_numpy_and_torch_agree_on_both_towers(model, interactions):
    import torch

    weights = {name: torch.from_numpy(array) for name, array in model.weights.items()}
    has_events = interactions.item_counts > 0
    vectors = item_tower(weights, attributes_of(), np.arange(25), has_events.astype(np.float32))
    assert np.allclose(vectors, model.item_factors, atol=1e-5)
    user = int(interactions.user_counts.argmax())
    events = np.arange(interactions.indptr[user + 1] - 6, interactions.indptr[user + 1])
    read = (interactions.item_idx[events], np.frexp(np.arange(6)[::-1])[1], 2 * interactions.rating[events])
    place, level, stars = (torch.from_numpy(np.asarray(one, np.int64))[None] for one in read)
    state = user_tower(weights, vectors, place, level, stars, torch.ones(1, 6, dtype=torch.bool))
    expected, is_known = model._user_vectors(np.array([user]), np.array([interactions.as_of]))
    assert is_known.all() and np.allclose(state, expected, atol=1e-5)


def test_with_dropout_of_all_embeddings_none_is_learned(interactions):
    dropped = make_model(id_dropout=1.0, weight_decay=0).fit(interactions)
    assert not dropped.identity.any() and dropped.attribute.any()
    assert make_model(id_dropout=0.0).fit(interactions).identity[:NEW].any()


def test_a_new_movie_is_scored_by_its_attributes_only(model, interactions):
    """Its score doesn't depend on its embedding, and is that of any other movie with these attributes."""
    users, times = np.arange(29), np.full(29, interactions.as_of)
    scores = model.unseen_scores(users, times)
    known = interactions.user_counts[users] > 0
    assert np.isfinite(scores[known, NEW]).all() and np.isneginf(scores[~known]).all()
    assert np.array_equal(model.attribute_vectors()[NEW], model.item_factors[NEW])
    assert np.array_equal(model.attribute_vectors()[0], model.item_factors[NEW])
    assert not np.array_equal(model.item_factors[0], model.item_factors[NEW]), "item 0 has an embedding of its own"
    other = make_model()
    other.attributes = attributes_of()
    identity = model.identity.copy()
    identity[NEW] = 99
    vectors = item_vectors(model.weights | {"identity": identity}, attributes_of(), interactions.item_counts > 0)
    assert np.array_equal(vectors, model.item_factors)


def test_it_recommends_movies_without_events_and_never_seen_ones(model, interactions):
    users = np.arange(interactions.n_users)
    items, _ = model.top_k(users, 25)
    for user in users:
        history = set(interactions.item_idx[interactions.user_idx == user].tolist())
        expected = set(range(25)) - history if history else set()
        assert set(items[user][items[user] >= 0].tolist()) == expected


def test_alone_in_a_batch_and_folded_in_the_scores_are_the_same(model, interactions):
    users, times = np.arange(30), np.full(30, interactions.as_of)
    together = model.unseen_scores(users, times)
    alone = np.concatenate([model.unseen_scores(users[[user]], times[[user]]) for user in users])
    folded = model.fold_in(interactions.fold_in_users(interactions)).unseen_scores(users, times)
    assert np.array_equal(together, alone) and np.array_equal(together, folded)


def test_nothing_after_the_prediction_time_is_read(model, interactions):
    user = int(interactions.user_counts.argmax())
    times = interactions.timestamp[interactions.user_idx == user]
    middle = int(times[len(times) // 2])
    late = (interactions.user_idx == user) & (interactions.timestamp > middle)
    changed = replace(interactions, rating=np.where(late, 0.5, interactions.rating).astype(np.float32))
    scores = []
    for events in (interactions, changed, interactions.select(~late)):
        scores.append(model.fold_in(interactions.fold_in_users(events))._scores(np.array([user]), np.array([middle])))
    assert np.array_equal(scores[0], scores[1]) and np.array_equal(scores[0], scores[2])


def test_a_wide_catalogue_gets_the_same_lists_by_search(model, interactions, monkeypatch):
    users = np.arange(30)
    expected, _ = model.top_k(users, 8)
    searches, find = [], VectorSearch.find
    monkeypatch.setattr(VectorSearch, "find", lambda self, *given: searches.append(1) or find(self, *given))
    monkeypatch.setattr(TwoTower, "is_wide", True)
    found, _ = model.top_k(users, 8)
    assert searches and np.array_equal(found, expected) and (found == NEW).any()


def test_training_is_repeatable_and_stored(model, interactions, tmp_path):
    assert have_equal_weights(model, make_model().fit(interactions))
    assert not have_equal_weights(model, make_model(seed=1).fit(interactions))
    model.save(tmp_path)
    loaded = TwoTower.load(tmp_path, interactions)
    users, times = np.arange(30), np.full(30, interactions.as_of)
    assert np.array_equal(loaded.unseen_scores(users, times), model.unseen_scores(users, times))
    assert loaded.parameters() == model.parameters()


class Killed(Exception):
    """Ends a training from its report."""


def test_a_killed_training_is_resumed(model, interactions, tmp_path):
    messages = []

    def kill(text):
        messages.append(text)
        if "epoch 3" in text:
            raise Killed

    checkpoint = tmp_path / "two_tower.npz"
    with pytest.raises(Killed):
        make_model(checkpoint=checkpoint, report=kill).fit(interactions)
    messages.clear()
    resumed = make_model(checkpoint=checkpoint, report=messages.append).fit(interactions)
    assert len(messages) == 1 and have_equal_weights(model, resumed) and not checkpoint.exists()


def test_every_tensor_is_made_on_the_device_of_the_weights(model, interactions):
    """On PyTorch's device without numbers a step fails if it mixes devices, or waits for a number."""
    import torch

    trainer = trainer_of(interactions)
    weights = {name: torch.from_numpy(a).to("meta").requires_grad_() for name, a in model.weights.items()}
    drawn = draw_examples(interactions, 6, 2, 100, np.random.default_rng(0))
    loss = trainer.loss(weights, drawn, np.random.default_rng(0))
    loss.backward()
    assert loss.device.type == "meta" and all(tensor.grad.device.type == "meta" for tensor in weights.values())


def test_a_default_device_changes_nothing(model, interactions):
    import torch

    with torch.device("meta"):
        again = make_model(device="cpu").fit(interactions)
    assert have_equal_weights(model, again)


@pytest.mark.parametrize("n_events", [0, 1])
def test_too_few_events_to_learn_from(interactions, n_events):
    few = interactions.select(np.arange(len(interactions)) < n_events)
    items, _ = make_model().fit(few).top_k(np.arange(30), 5)
    assert (items[1:] == -1).all()


def test_a_device_that_is_not_there(interactions):
    import torch

    if torch.backends.mps.is_available():
        pytest.skip("there is such a device here")
    with pytest.raises(ConfigError, match=r"two_tower.device is mps, but PyTorch finds only .*cpu.* here"):
        make_model(device="mps").fit(interactions)


def test_defaults_are_those_of_the_settings():
    settings = TwoTowerSettings().model_dump()
    assert settings.pop("enabled") is False
    assert {name: value for name, value in TwoTower().parameters().items() if name != "seed"} == settings
