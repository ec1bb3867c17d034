"""The network's input, its windows, its causality, and its loss against the definition."""

import importlib.util
import warnings
from dataclasses import replace

import numpy as np
import pytest
from helpers import make_irregular_histories

from movierec.retrieval import transformer
from movierec.retrieval.transformer import event_inputs, pad_windows, time_level, training_windows

pytestmark = pytest.mark.extra
needs_torch = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="the extra neural (PyTorch) isn't installed: make neural"
)


@pytest.fixture(scope="module")
def interactions():
    return make_irregular_histories()


def test_time_level_is_the_number_of_binary_digits():
    assert time_level(np.array([-5, 0, 1, 2, 3, 4, 86_400, 2**62])).tolist() == [0, 0, 1, 2, 2, 3, 17, 31]


def test_inputs_of_each_event(interactions):
    inputs = event_inputs(interactions)
    for user in range(interactions.n_users):
        events = np.arange(*interactions.indptr[user : user + 2])
        gaps = time_level(np.diff(interactions.timestamp[events])).tolist()
        assert inputs["before"][events].tolist() == [31, *gaps][: len(events)]
        assert inputs["ahead"][events[:-1]].tolist() == gaps
        assert inputs["liked"][events[:-1]].tolist() == (interactions.confidence[events[1:]] > 0).tolist()


def test_inputs_of_no_events_and_of_unrated_ones(interactions):
    nothing = interactions.select(np.zeros(len(interactions), bool))
    assert all(len(values) == 0 for values in event_inputs(nothing).values())
    unrated = replace(interactions, rating=np.full(len(interactions), np.nan, np.float32))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert set(event_inputs(unrated)["rating"].tolist()) == {11}


@pytest.mark.parametrize("length", [1, 4, 100])
def test_windows_cover_each_history(interactions, length):
    last = interactions.indptr[1:][interactions.user_counts > 0] - 1
    with_next = np.delete(np.arange(len(interactions)), last)
    for seed in range(10):
        batches = training_windows(interactions, length, 30, 10**6, np.random.default_rng(seed))
        padded = [pad_windows(*batch) for batch in batches]
        events = np.concatenate([window[real] for window, real in padded])
        assert np.array_equal(np.sort(events), with_next), "each event that has a next one, once"
        for begin, size in batches:
            assert size.max() <= length
            users = interactions.user_idx
            assert np.array_equal(users[begin], users[begin + size]), "no window goes beyond its user"


def test_the_number_of_windows_is_bounded(interactions):
    assert sum(len(size) for _, size in training_windows(interactions, 2, 30, 5, np.random.default_rng(0))) == 5


@needs_torch
def test_later_events_change_no_earlier_vector(interactions):
    torch = transformer.load_torch()
    arrays = transformer.initial_weights(interactions, 8, 2, np.random.default_rng(0))
    weights = {name: torch.from_numpy(array) for name, array in arrays.items()}
    user = int(interactions.user_counts.argmax())
    events = np.arange(*interactions.indptr[user : user + 2])[None]
    one, other = (transformer.input_tensors(event_inputs(interactions), events) for _ in range(2))
    for name, values in other.items():
        values[0, 5:] = 1 - values[0, 5:].clamp(max=1)
        assert not torch.equal(values, one[name])
    a, b = (transformer.encode(weights, inputs, 2)[0] for inputs in (one, other))
    assert torch.equal(a[:5], b[:5]) and not torch.isclose(a[5:], b[5:]).all()


@needs_torch
@pytest.mark.parametrize("sampled", [10, 25])
def test_loss_and_gradients_by_definition(sampled):
    torch = transformer.load_torch()
    rng = np.random.default_rng(0)
    target, sample = rng.integers(0, 25, 40), np.sort(rng.choice(25, sampled, replace=False))
    shapes = {"states": (40, 8), "item": (25, 8), "popularity": (25,)}
    arrays = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    ours, theirs = ({name: torch.from_numpy(a.copy()).requires_grad_() for name, a in arrays.items()} for _ in "12")
    loss = transformer.softmax_loss(ours["states"], ours, target, sample, chunk=7)
    scores = theirs["states"] @ theirs["item"].T + theirs["popularity"]
    losses = []
    for row, t in enumerate(target):
        negatives = [scores[row, j] + np.log(25 / sampled) for j in sample if j != t]
        losses.append(torch.logsumexp(torch.stack([scores[row, t], *negatives]), 0) - scores[row, t])
    expected = torch.stack(losses).mean()
    expected.backward()
    assert np.isclose(loss, expected.item(), atol=1e-5)
    for name in arrays:
        assert torch.allclose(ours[name].grad, theirs[name].grad, atol=1e-6), name
