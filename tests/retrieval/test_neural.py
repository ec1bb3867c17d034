"""SASRec: what it may see; training that is killed, resumed and repeated; approximate search against exact."""

import builtins
import importlib.util
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from dataclasses import replace

import numpy as np
import pytest
from helpers import make_irregular_histories, without_last_events

from movierec.config import ArtifactError, ConfigError, DataError, SasrecSettings
from movierec.data.interactions import Interactions
from movierec.retrieval.ann import ItemIndex, has_faiss
from movierec.retrieval.neural import SASRec, training_key, user_states
from movierec.retrieval.trained import TrainedWeights, content_checksum, write_trained
from movierec.retrieval.training import make_dropout
from movierec.retrieval.transformer import (
    choose_device,
    encode,
    input_tensors,
    pad_windows,
    softmax_loss,
    training_windows,
)

SMALL = {"factors": 8, "length": 6, "epochs": 3, "continue_epochs": 2, "batch_events": 60, "negatives": 10}
REASON = "the extra neural (PyTorch, FAISS) isn't installed: make neural"
pytestmark = pytest.mark.extra
needs_torch = pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason=REASON)
needs_faiss = pytest.mark.skipif(not has_faiss(), reason=REASON)


@pytest.fixture(scope="module")
def interactions():
    return make_irregular_histories()


@pytest.fixture(scope="module")
def model(interactions):
    pytest.importorskip("torch", reason=REASON)
    return SASRec(**SMALL).fit(interactions)


def have_equal_weights(a: SASRec, b: SASRec) -> bool:
    return all(np.array_equal(a.weights[name], b.weights[name]) for name in SASRec.state)


def scores_with(model: SASRec, interactions: Interactions, user: int, as_of: int) -> np.ndarray:
    """The model's scores for one user if the history were another."""
    reader = copy(model)
    reader.interactions = interactions
    return reader._scores(np.array([user]), np.array([as_of]))[0]


def test_contract(model, interactions):
    users = np.arange(interactions.n_users)
    items, scores = model.top_k(users, 25)
    with_events = set(np.flatnonzero(interactions.item_counts).tolist())
    for user in users:
        history = set(interactions.item_idx[interactions.user_idx == user].tolist())
        found = items[user][items[user] >= 0].tolist()
        assert set(found) == (with_events - history if history else set())
        assert (np.diff(scores[user][: len(found)]) <= 0).all()
    assert model.recommend(np.array([0, 3]), 4)["source"].unique().tolist() == ["sasrec"]


def test_lists_do_not_depend_on_the_batch(model, interactions):
    users = np.arange(interactions.n_users)
    whole, scores = model.top_k(users, 10)
    for batch_size in (1, 7):
        items, best = model.top_k(users, 10, batch_size=batch_size)
        assert np.array_equal(items, whole) and np.array_equal(best, scores), "to the last bit"


def test_fold_in_users_get_what_users_with_their_histories_get(model, interactions):
    users = np.array([5, 2, 9])
    rows, events = interactions.events_of(users)
    names = ("item_idx", "rating", "confidence", "timestamp")
    arrays = {name: getattr(interactions, name)[events] for name in names}
    history = Interactions(rows.astype(np.int32), **arrays, n_users=3, n_items=interactions.n_items, as_of=0)
    folded = model.fold_in(interactions.fold_in_users(history))
    for found, expected in zip(folded.top_k(np.arange(3), 7), model.top_k(users, 7), strict=True):
        assert np.array_equal(found, expected)


def test_many_threads_may_ask_at_once(model, interactions):
    torch = pytest.importorskip("torch", reason=REASON)
    before = torch.get_num_threads()
    users, times = np.arange(interactions.n_users), np.full(interactions.n_users, interactions.as_of)
    expected, _ = user_states(model, users, times)
    with ThreadPoolExecutor(4) as threads:
        for states, _ in threads.map(lambda _: user_states(model, users, times), range(20)):
            assert np.array_equal(states, expected)
    assert torch.get_num_threads() == before


def test_two_trainings_give_the_same_weights(model, interactions):
    torch = pytest.importorskip("torch", reason=REASON)
    torch.manual_seed(5)  # its generator is neither used nor moved
    before = torch.get_rng_state()
    assert have_equal_weights(model, SASRec(**SMALL).fit(interactions))
    assert torch.equal(before, torch.get_rng_state())
    assert not have_equal_weights(model, SASRec(**SMALL, seed=1).fit(interactions))


def test_saved_and_loaded(model, interactions, tmp_path):
    model.save(tmp_path)
    loaded = SASRec.load(tmp_path, interactions)
    users = np.arange(interactions.n_users)
    for found, expected in zip(loaded.top_k(users, 10), model.top_k(users, 10), strict=True):
        assert np.array_equal(found, expected)
    assert loaded.parameters() == model.parameters()
    with pytest.raises(ArtifactError, match="other interactions"):
        SASRec.load(tmp_path, without_last_events(interactions))


def test_only_the_last_events_are_read(model, interactions):
    """Another first event of a history longer than `length` changes no score."""
    user, items = int(interactions.user_counts.argmax()), interactions.item_idx.copy()
    first = interactions.indptr[user]
    assert interactions.user_counts[user] > model.length + 1
    items[first] = (items[first] + 1) % 24
    changed = replace(interactions, item_idx=items)
    scores = [scores_with(model, history, user, interactions.as_of) for history in (changed, interactions)]
    assert np.array_equal(*scores)


def test_nothing_after_the_prediction_time_is_read(model, interactions):
    user = int(interactions.user_counts.argmax())
    times = interactions.timestamp[interactions.user_idx == user]
    middle = int(times[len(times) // 2])
    late = (interactions.user_idx == user) & (interactions.timestamp > middle)
    assert 0 < late.sum() < len(times)
    changed = replace(
        interactions,
        item_idx=np.where(late, (interactions.item_idx + 3) % 24, interactions.item_idx).astype(np.int32),
        rating=np.where(late, 0.5, interactions.rating).astype(np.float32),
        confidence=np.where(late, 0, interactions.confidence).astype(np.float32),
    )
    expected = scores_with(model, interactions, user, middle)
    for history in (changed, interactions.select(~late)):
        assert np.allclose(scores_with(model, history, user, middle), expected, atol=1e-5)
    at_the_end = [scores_with(model, history, user, interactions.as_of) for history in (changed, interactions)]
    assert not np.allclose(*at_the_end, atol=1e-3)
    before_the_first = scores_with(model, interactions, user, int(times[0]) - 1)
    assert np.isneginf(before_the_first).all(), "without a history there are no scores"


def test_the_time_since_the_last_event_matters(model, interactions):
    user = int(interactions.user_counts.argmax())
    last = int(interactions.timestamp[interactions.user_idx == user][-1])
    soon, late = (scores_with(model, interactions, user, time) for time in (last, last + 10**7))
    assert not np.array_equal(soon, late)


class Killed(Exception):
    """Ends a training from its report."""


def kill_in(epoch: int):
    def report(text: str) -> None:
        if f"epoch {epoch}" in text:
            raise Killed

    return report


def test_a_killed_training_is_resumed(model, interactions, tmp_path):
    checkpoint = tmp_path / "sasrec.npz"
    with pytest.raises(Killed):
        SASRec(**SMALL, checkpoint=checkpoint, report=kill_in(3)).fit(interactions)
    assert [file.name for file in tmp_path.iterdir()] == ["sasrec.npz"]
    messages = []
    resumed = SASRec(**SMALL, checkpoint=checkpoint, report=messages.append).fit(interactions)
    assert have_equal_weights(model, resumed)
    assert messages and all("epoch 3 of 3" in message for message in messages)
    assert list(tmp_path.iterdir()) == [], "a finished training leaves no checkpoint"


@needs_torch
@pytest.mark.parametrize("damage, seed", [(slice(None), 1), (slice(1_000), 42), (slice(0), 42)])
def test_the_checkpoint_of_another_training_or_a_damaged_one_is_not_used(interactions, tmp_path, damage, seed):
    checkpoint = tmp_path / "sasrec.npz"
    with pytest.raises(Killed):
        SASRec(**SMALL, checkpoint=checkpoint, report=kill_in(2)).fit(interactions)
    checkpoint.write_bytes(checkpoint.read_bytes()[damage])
    messages = []
    SASRec(**SMALL, seed=seed, checkpoint=checkpoint, report=messages.append).fit(interactions)
    assert "epoch 1 of 3" in messages[0]


@needs_torch
def test_a_warm_start_from_an_earlier_history(interactions):
    earlier = SASRec(**SMALL).fit(without_last_events(interactions))
    kept = {name: array.copy() for name, array in earlier.weights.items()}
    messages = []
    later = SASRec(**SMALL, start_from=earlier, report=messages.append).fit(interactions)
    assert "epoch 1 of 2" in messages[0] and not have_equal_weights(earlier, later)
    assert all(np.array_equal(kept[name], earlier.weights[name]) for name in kept), "the earlier model is unchanged"
    assert have_equal_weights(later, SASRec(**SMALL, start_from=earlier).fit(interactions))
    with pytest.raises(ConfigError, match="part of the same history"):
        SASRec(**SMALL, start_from=later).fit(without_last_events(interactions))
    with pytest.raises(ConfigError, match="same factors"):
        SASRec(**SMALL | {"factors": 4}, start_from=earlier).fit(interactions)


@needs_torch
@pytest.mark.parametrize("n_events", [0, 1])
def test_too_few_events_to_learn_from(interactions, n_events):
    few = interactions.select(np.arange(len(interactions)) < n_events)
    items, _ = SASRec(**SMALL).fit(few).top_k(np.arange(30), 5)
    assert (items == -1).all()


@needs_torch
def test_it_learns_what_follows_what():
    """Users watch the movies in a circle, from a random start: the next one is certain."""
    start = np.random.default_rng(0).integers(0, 12, 200)
    users = np.repeat(np.arange(200), 6).astype(np.int32)
    items = ((start[:, None] + np.arange(6)) % 12).astype(np.int32).ravel()
    ones = np.ones(1_200, np.float32)
    interactions = Interactions(users, items, ones * 5, ones * 2.5, np.arange(1_200), 200, 12, 1_200)
    model = SASRec(factors=8, epochs=30, batch_events=100, learning_rate=1e-2).fit(interactions)
    after_the_last = np.arange(200) * 6 + 6
    assert np.array_equal(model.top_k(np.arange(200), 1, after_the_last)[0][:, 0], (start + 6) % 12)


@needs_faiss
def test_search_by_index_agrees_with_exact(model, interactions, monkeypatch):
    users, times = np.arange(30), np.full(30, interactions.as_of)
    searching = copy(model)
    searching.index_from = 1
    searches = []
    search = ItemIndex.search
    monkeypatch.setattr(ItemIndex, "search", lambda self, *given: searches.append(1) or search(self, *given))
    for k in (8, 30):
        items, best = searching.top_k(users, k)
        expected, expected_scores = model.top_k(users, k)
        assert searches and np.array_equal(items, expected) and np.allclose(best, expected_scores, atol=1e-5)
    exact, _ = model.top_k(users, 8)
    assert np.array_equal(exact, searching.top_k(users, 8, batch_size=7)[0])

    others = np.tile(np.arange(-1, 25), (30, 1))
    found, expected = (system.retrieve(users, 8, times).score_of(others) for system in (searching, model))
    unseen = np.isfinite(expected) | np.isneginf(found)
    assert np.allclose(found[unseen], expected[unseen], atol=1e-5) and np.isneginf(found[:, [0, 25]]).all()

    monkeypatch.setattr(ItemIndex, "search", lambda self, states, k: np.full((len(states), k), -1))
    assert np.array_equal(exact, searching.top_k(users, 8)[0]), "exact where the index finds nothing"


@needs_torch
def test_every_tensor_of_the_training_is_made_on_the_device_of_the_weights(model, interactions):
    """On PyTorch's device without numbers a step fails if it mixes devices, or waits for a number."""
    import torch

    weights = {name: torch.from_numpy(a).to("meta").requires_grad_() for name, a in model.weights.items()}
    rng, inputs = np.random.default_rng(0), model.inputs
    drop = make_dropout(0.2, rng, 1_000, device="meta")
    events, _ = pad_windows(*training_windows(interactions, 6, 60, 100, rng)[0])
    states = encode(weights, input_tensors(inputs, events, "meta"), 2, drop).flatten(0, 1)
    loss = softmax_loss(states, weights, interactions.item_idx[events.ravel()], np.arange(0, 24, 2))
    assert loss.device.type == "meta" and all(tensor.grad.device.type == "meta" for tensor in weights.values())


@needs_torch
def test_a_default_device_changes_nothing(model, interactions):
    """What is made on the CPU says so, whatever PyTorch's default device is."""
    import torch

    users, times = np.arange(30), np.full(30, interactions.as_of)
    expected = model.unseen_scores(users, times)
    with torch.device("meta"):
        again = SASRec(**SMALL, device="cpu").fit(interactions)
        assert np.array_equal(again.unseen_scores(users, times), expected)
    assert have_equal_weights(model, again)


@needs_torch
def test_the_device_that_is_wanted(monkeypatch):
    import torch

    assert choose_device("cpu") == "cpu"
    for cuda, mps, expected in ((True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda is_there=cuda: is_there)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda is_there=mps: is_there)
        assert choose_device() == expected
    with pytest.raises(ConfigError, match=r"sasrec.device is cuda, but PyTorch finds only cpu here") as error:
        choose_device("cuda")
    assert "\n" not in str(error.value)


@needs_torch
def test_a_training_is_resumed_whatever_it_runs_on(model, interactions):
    keys = {training_key(SASRec(**SMALL, **where), interactions) for where in ({}, {"device": "cpu"}, {"threads": 2})}
    assert len(keys) == 1 and training_key(SASRec(**SMALL, seed=1), interactions) not in keys


@needs_torch
def test_weights_from_elsewhere_are_used_instead_of_a_training(model, interactions, tmp_path):
    file = tmp_path / "global-time-test.npz"
    events = content_checksum(interactions)
    write_trained(file, TrainedWeights(model.weights, model.parameters(), events, np.arange(25)))
    messages = []
    used = SASRec(**SMALL, trained=file, device="cpu", report=messages.append).fit(interactions)
    assert have_equal_weights(used, model) and messages == []
    with pytest.raises(ConfigError, match="trained with factors 8, not 4"):
        SASRec(**SMALL | {"factors": 4}, trained=file).fit(interactions)
    later = replace(interactions, timestamp=interactions.timestamp + 1)
    for other in (without_last_events(interactions), later):
        with pytest.raises(DataError, match=r"global-time-test.npz was trained on other events.*perhaps on later ones"):
            SASRec(**SMALL, trained=file).fit(other)


def test_without_torch_one_sentence_says_what_to_do(interactions, monkeypatch):
    original = builtins.__import__

    def import_without_torch(name, *rest, **more):
        if name.split(".")[0] == "torch":
            raise ImportError(name)
        return original(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", import_without_torch)
    with pytest.raises(ConfigError, match=r"pip install 'movierec\[neural\]'.*everything else works") as error:
        SASRec(**SMALL).fit(interactions)
    assert "\n" not in str(error.value)


def test_torch_is_not_imported_before_it_is_needed():
    code = "import sys, movierec.pipeline; sys.exit('torch' in sys.modules or 'faiss' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_defaults_are_those_of_the_settings():
    settings = SasrecSettings().model_dump()
    assert settings.pop("enabled") is False
    assert {name: value for name, value in SASRec().parameters().items() if name != "seed"} == settings
