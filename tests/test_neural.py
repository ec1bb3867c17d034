"""The neural source: what it may see, that training can be killed, continued and repeated, and that approximate search agrees with exact."""

import builtins
import importlib.util
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from movierec.config import ArtifactError, ConfigError, SasrecSettings
from movierec.data.interactions import Interactions
from movierec.retrieval import neural
from movierec.retrieval.neural import SASRec
from movierec.retrieval.transformer import describe, level, padded, windows

needs_torch = pytest.mark.skipif(not importlib.util.find_spec("torch"), reason="the extra neural (PyTorch) isn't installed: make neural")
needs_faiss = pytest.mark.skipif(not neural.has_faiss(), reason="the extra neural (FAISS) isn't installed: make neural")
SMALL = {"factors": 8, "length": 6, "epochs": 3, "continue_epochs": 2, "batch_events": 60, "negatives": 10}


def histories(seed=0, n_users=30, n_items=25) -> Interactions:
    """Histories of 0 to 15 events at irregular times, some in the same second; the last item has no event, the last user no history."""
    rng = np.random.default_rng(seed)
    lengths = np.append(rng.integers(0, 16, n_users - 1), 0)
    users = np.repeat(np.arange(n_users), lengths).astype(np.int32)
    items = np.concatenate([rng.permutation(n_items - 1)[:length] for length in lengths]).astype(np.int32)
    times = np.concatenate([1_000_000 + np.cumsum(rng.choice([0, 5, 4_000, 900_000], length)) for length in lengths]).astype(np.int64)
    rating = rng.integers(1, 11, len(users)).astype(np.float32) / 2
    return Interactions(users, items, rating, np.maximum(rating - 2.5, 0).astype(np.float32), times, n_users, n_items, int(times.max()) + 1)


def without_last(interactions: Interactions) -> Interactions:
    """Everybody's history less the last event."""
    last = np.zeros(len(interactions), bool)
    last[interactions.indptr[1:][interactions.user_counts > 0] - 1] = True
    earlier = interactions.select(~last)
    return replace(earlier, as_of=int(earlier.timestamp.max()) + 1)


def same(a: SASRec, b: SASRec) -> bool:
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in SASRec.state)


@pytest.fixture(scope="module")
def interactions():
    return histories()


@pytest.fixture(scope="module")
def model(interactions):
    return SASRec(**SMALL).fit(interactions)


def test_level_is_the_number_of_binary_digits():
    assert level(np.array([-5, 0, 1, 2, 3, 4, 86_400, 2**62])).tolist() == [0, 0, 1, 2, 2, 3, 17, 31]


def test_what_is_read(interactions):
    read = describe(interactions)
    for user in range(interactions.n_users):
        events = np.arange(*interactions.indptr[user : user + 2])
        gaps = np.diff(interactions.timestamp[events])
        assert read["before"][events].tolist() == [31, *level(gaps)][: len(events)]
        assert read["ahead"][events[:-1]].tolist() == level(gaps).tolist()
        assert read["liked"][events[:-1]].tolist() == (interactions.confidence[events[1:]] > 0).tolist()
    nothing = interactions.select(np.zeros(len(interactions), bool))
    assert all(len(values) == 0 for values in describe(nothing).values())
    unrated = replace(interactions, rating=np.full(len(interactions), np.nan, np.float32))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert set(describe(unrated)["rating"].tolist()) == {11}


@pytest.mark.parametrize("length", [1, 4, 100])
def test_windows_cover_each_history(interactions, length):
    for seed in range(20):
        batches = windows(interactions, length, 30, 10**6, np.random.default_rng(seed))
        events = np.concatenate([rows[real] for rows, real in (padded(*batch) for batch in batches)])
        has_next = np.delete(np.arange(len(interactions)), interactions.indptr[1:][interactions.user_counts > 0] - 1)
        assert np.array_equal(np.sort(events), has_next), "each event that has a next one, once"
        for begin, size in batches:
            assert size.max() <= length and np.array_equal(interactions.user_idx[begin], interactions.user_idx[begin + size]), "no window leaves its user"
    assert sum(len(size) for _, size in windows(interactions, 2, 30, 5, np.random.default_rng(0))) == 5


@needs_torch
def test_contract(model, interactions):
    users = np.arange(interactions.n_users)
    items, scores = model.top_k(users, 25)
    for user in users:
        history = set(interactions.item_idx[interactions.user_idx == user].tolist())
        found = items[user][items[user] >= 0].tolist()
        if history:
            assert set(found) == set(np.flatnonzero(interactions.item_counts).tolist()) - history
        else:
            assert found == []
        assert (np.diff(scores[user][: len(found)]) <= 0).all()
    assert model.recommend([0, 3], 4)["source"].unique().tolist() == ["sasrec"]


@needs_torch
def test_lists_do_not_depend_on_the_batch(model, interactions):
    users = np.arange(interactions.n_users)
    whole, scores = model.top_k(users, 10)
    for batch_size in (1, 7):
        items, each = model.top_k(users, 10, batch_size=batch_size)
        assert np.array_equal(items, whole) and np.array_equal(each, scores), "to the last bit"


@needs_torch
def test_guests_get_what_users_with_their_histories_get(model, interactions):
    users = np.array([5, 2, 9])
    rows, events = interactions.events_of(users)
    arrays = {name: getattr(interactions, name)[events] for name in ("item_idx", "rating", "confidence", "timestamp")}
    fold_in_users = interactions.fold_in_users(Interactions(rows.astype(np.int32), **arrays, n_users=3, n_items=interactions.n_items, as_of=0))
    for ours, theirs in zip(model.fold_in(fold_in_users).top_k(np.arange(3), 7), model.top_k(users, 7), strict=True):
        assert np.array_equal(ours, theirs)


def test_many_may_ask_at_once(model, interactions):
    import torch

    before = torch.get_num_threads()
    users, moments = np.arange(interactions.n_users), np.full(interactions.n_users, interactions.as_of)
    expected = model.states(users, moments)[0]
    with ThreadPoolExecutor(4) as pool:
        for states, _ in pool.map(lambda _: model.states(users, moments), range(40)):
            assert np.array_equal(states, expected)
    assert torch.get_num_threads() == before


@needs_torch
def test_two_trainings_give_the_same_weights(model, interactions):
    import torch

    torch.manual_seed(5)  # its generator is neither used nor moved
    before = torch.get_rng_state()
    assert same(model, SASRec(**SMALL).fit(interactions)) and torch.equal(before, torch.get_rng_state())
    assert not same(model, SASRec(**SMALL, seed=1).fit(interactions))


@needs_torch
def test_saved_and_loaded(model, interactions, tmp_path):
    model.save(tmp_path)
    loaded = SASRec.load(tmp_path, interactions)
    users = np.arange(interactions.n_users)
    for mine, theirs in zip(model.top_k(users, 10), loaded.top_k(users, 10), strict=True):
        assert np.array_equal(mine, theirs)
    assert loaded.parameters() == model.parameters()
    with pytest.raises(ArtifactError, match="other interactions"):
        SASRec.load(tmp_path, without_last(interactions))


@needs_torch
def test_only_the_last_events_are_read(model, interactions):
    """Another first event of a long history changes nothing that the user is told: only `length` events are read."""
    user = int(interactions.user_counts.argmax())
    changed = interactions.item_idx.copy()
    first = interactions.indptr[user]
    assert interactions.user_counts[user] > model.length + 1
    changed[first] = (changed[first] + 1) % 24
    other = replace(interactions, item_idx=changed)
    assert np.array_equal(score(model, other, user, interactions.as_of), score(model, interactions, user, interactions.as_of))


def score(model: SASRec, interactions: Interactions, user: int, as_of: int) -> np.ndarray:
    """The model's scores for one user if the history were another."""
    reader = replace(model)
    for name in SASRec.state:
        setattr(reader, name, getattr(model, name))
    reader.interactions = interactions
    return reader._scores(np.array([user]), np.array([as_of]))[0]


@needs_torch
def test_nothing_after_the_moment_is_read(model, interactions):
    user = int(interactions.user_counts.argmax())
    times = interactions.timestamp[interactions.user_idx == user]
    moment = int(times[len(times) // 2])
    late = (interactions.user_idx == user) & (interactions.timestamp > moment)
    assert 0 < late.sum() < len(times)
    changed = replace(interactions, item_idx=np.where(late, (interactions.item_idx + 3) % 24, interactions.item_idx).astype(np.int32),
                      rating=np.where(late, 0.5, interactions.rating).astype(np.float32), confidence=np.where(late, 0, interactions.confidence).astype(np.float32))
    for history in (changed, interactions.select(~late)):
        assert np.allclose(score(model, history, user, moment), score(model, interactions, user, moment), atol=1e-5)
    assert not np.allclose(score(model, changed, user, interactions.as_of), score(model, interactions, user, interactions.as_of), atol=1e-3)
    assert np.isneginf(score(model, interactions, user, int(times[0]) - 1)).all(), "before the first event nothing is known"


@needs_torch
def test_later_events_change_no_earlier_state(model, interactions):
    torch = neural.load_torch()
    weights = {name: torch.from_numpy(getattr(model, name)) for name in SASRec.state}
    user = int(interactions.user_counts.argmax())
    rows = np.arange(*interactions.indptr[user : user + 2])[None]
    one, other = (neural.tensors(describe(interactions), rows) for _ in range(2))
    for name, values in other.items():
        values[0, 5:] = 1 - values[0, 5:].clamp(max=1)
        assert not torch.equal(values, one[name])
    a, b = (neural.encode(weights, read, model.heads)[0] for read in (one, other))
    assert torch.equal(a[:5], b[:5]) and not torch.isclose(a[5:], b[5:]).all()


@needs_torch
def test_the_time_since_the_last_event_matters(model, interactions):
    user = int(interactions.user_counts.argmax())
    last = int(interactions.timestamp[interactions.user_idx == user][-1])
    assert not np.array_equal(score(model, interactions, user, last), score(model, interactions, user, last + 10**7))


@needs_torch
@pytest.mark.parametrize("sampled", [10, 25])
def test_loss_and_gradients_by_definition(interactions, sampled):
    torch = neural.load_torch()
    rng = np.random.default_rng(0)
    target, sample = rng.integers(0, 25, 40), np.sort(rng.choice(25, sampled, replace=False))
    arrays = {"states": rng.standard_normal((40, 8), np.float32), "item": rng.standard_normal((25, 8), np.float32), "popularity": rng.standard_normal(25).astype(np.float32)}
    mine, theirs = ({name: torch.from_numpy(array.copy()).requires_grad_() for name, array in arrays.items()} for _ in range(2))
    loss = neural.softmax_loss(mine["states"], mine, target, sample, chunk=7)
    scores = theirs["states"] @ theirs["item"].T + theirs["popularity"]
    rows = []
    for row, t in enumerate(target):
        rivals = [scores[row, j] + np.log(25 / sampled) for j in sample if j != t]
        rows.append(torch.logsumexp(torch.stack([scores[row, t], *rivals]), 0) - scores[row, t])
    expected = torch.stack(rows).mean()
    expected.backward()
    assert np.isclose(loss, expected.item(), atol=1e-5)
    for name in arrays:
        assert torch.allclose(mine[name].grad, theirs[name].grad, atol=1e-6), name


class Killed(Exception):
    pass


@needs_torch
def test_a_killed_training_goes_on(model, interactions, tmp_path):
    checkpoint = tmp_path / "sasrec.npz"

    def kill(text):
        if "epoch 3" in text:
            raise Killed

    with pytest.raises(Killed):
        SASRec(**SMALL, checkpoint=checkpoint, report=kill).fit(interactions)
    assert [file.name for file in tmp_path.iterdir()] == ["sasrec.npz"]
    said = []
    resumed = SASRec(**SMALL, checkpoint=checkpoint, report=said.append).fit(interactions)
    assert same(model, resumed) and all("epoch 3 of 3" in text for text in said) and said
    assert list(tmp_path.iterdir()) == [], "a finished training leaves no checkpoint"


@needs_torch
def test_a_checkpoint_of_another_training_is_not_used(interactions, tmp_path):
    checkpoint = tmp_path / "sasrec.npz"

    def kill(text):
        if "epoch 2" in text:
            raise Killed

    for damage in (lambda: None, lambda: checkpoint.write_bytes(checkpoint.read_bytes()[:1_000]), lambda: checkpoint.write_bytes(b"")):
        with pytest.raises(Killed):
            SASRec(**SMALL, checkpoint=checkpoint, report=kill).fit(interactions)
        damage()
        said = []
        SASRec(**SMALL, seed=1, checkpoint=checkpoint, report=said.append).fit(interactions)
        assert "epoch 1 of 3" in said[0]


@needs_torch
def test_going_on_from_an_earlier_phase(interactions):
    earlier = SASRec(**SMALL).fit(without_last(interactions))
    kept = {name: getattr(earlier, name).copy() for name in SASRec.state}
    said = []
    later = SASRec(**SMALL, start_from=earlier, report=said.append).fit(interactions)
    assert "epoch 1 of 2" in said[0] and not same(earlier, later)
    assert all(np.array_equal(kept[name], getattr(earlier, name)) for name in SASRec.state), "the earlier model stays as it was"
    assert same(later, SASRec(**SMALL, start_from=earlier).fit(interactions))
    with pytest.raises(ConfigError, match="part of the same history"):
        SASRec(**SMALL, start_from=later).fit(without_last(interactions))
    with pytest.raises(ConfigError, match="same factors"):
        SASRec(**SMALL | {"factors": 4}, start_from=earlier).fit(interactions)


@needs_torch
def test_nothing_to_learn_from(interactions):
    for kept in (np.zeros(len(interactions), bool), np.arange(len(interactions)) == 0):
        few = interactions.select(kept)
        items, _ = SASRec(**SMALL).fit(few).top_k(np.arange(30), 5)
        assert (items == -1).all()


@needs_torch
def test_the_next_film_in_a_cycle():
    """Everybody watches the films in a circle, from a random start: what comes next is certain."""
    start = np.random.default_rng(0).integers(0, 12, 200)
    items = ((start[:, None] + np.arange(6)) % 12).astype(np.int32)
    ones = np.ones(1_200, np.float32)
    interactions = Interactions(np.repeat(np.arange(200), 6).astype(np.int32), items.ravel(), ones * 5, ones * 2.5, np.arange(1_200), 200, 12, 1_200)
    model = SASRec(factors=8, epochs=30, batch_events=100, learning_rate=1e-2).fit(interactions)
    assert np.array_equal(model.top_k(np.arange(200), 1, np.arange(200) * 6 + 6)[0][:, 0], (start + 6) % 12)


@needs_torch
@needs_faiss
def test_search_by_index_agrees_with_exact(model, interactions, monkeypatch):
    users = np.arange(interactions.n_users)
    exact, scores = model.top_k(users, 8)
    searching = replace(model, index_from=1)
    for name in (*SASRec.state, "interactions"):
        setattr(searching, name, getattr(model, name))
    asked = []
    monkeypatch.setattr(neural.ItemIndex, "search", lambda self, *given, search=neural.ItemIndex.search: asked.append(1) or search(self, *given))
    for k in (8, 30):
        items, best = searching.top_k(users, k)
        expected, expected_scores = model.top_k(users, k)
        assert asked and np.array_equal(items, expected) and np.allclose(best, expected_scores, atol=1e-5)
    assert np.array_equal(exact, searching.top_k(users, 8, batch_size=7)[0]) and np.isfinite(scores[0]).any()
    others, moments = np.tile(np.arange(-1, 25), (30, 1)), np.full(30, interactions.as_of)
    mine, theirs = (system.retrieve(users, 8, moments)[2](others) for system in (searching, model))
    unseen = np.isfinite(theirs) | np.isneginf(mine)
    assert np.allclose(mine[unseen], theirs[unseen], atol=1e-5) and np.isneginf(mine[:, [0, 25]]).all()
    monkeypatch.setattr(neural.ItemIndex, "search", lambda self, states, k: np.full((len(states), k), -1))
    assert np.array_equal(exact, searching.top_k(users, 8)[0]), "exact where the index finds nothing"


@needs_faiss
def test_index_finds_most_of_the_best():
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((50, 16), np.float32)
    vectors = (centres[rng.integers(0, 50, 4_000)] + 0.3 * rng.standard_normal((4_000, 16))).astype(np.float32)
    states = vectors[:100] + np.float32(0.1)
    items = neural.ItemIndex(vectors, np.arange(4_000) + 7).search(states, 20)
    best = np.argsort(-(states @ vectors.T), axis=1)[:, :20]
    recall = np.mean([len(np.intersect1d(mine - 7, theirs)) / 20 for mine, theirs in zip(items, best, strict=True)])
    assert recall > 0.9 and items.min() >= 7


def test_without_torch_one_sentence_says_what_to_do(interactions, monkeypatch):
    real = builtins.__import__

    def hidden(name, *rest, **more):
        if name.split(".")[0] == "torch":
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", hidden)
    with pytest.raises(ConfigError, match=r"pip install 'movierec\[neural\]'.*everything else works") as error:
        SASRec(**SMALL).fit(interactions)
    assert "\n" not in str(error.value)


def test_torch_is_not_imported_before_it_is_needed():
    code = "import sys, movierec.neural, movierec.pipeline; sys.exit('torch' in sys.modules or 'faiss' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_defaults_are_those_of_the_settings():
    settings = SasrecSettings().model_dump()
    assert settings.pop("enabled") is False
    assert {name: value for name, value in SASRec().parameters().items() if name != "seed"} == settings
