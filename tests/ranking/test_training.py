"""Labels come after the features, and training sets are filled in place."""

import numpy as np
import pytest

from movierec.config import DataError, load_settings
from movierec.ranking.training import TrainingSet, check_trainable, label_candidates, sample_users


def test_labels_are_what_happened_next(each_stage):
    training = each_stage.training
    relevant = each_stage.holdout.relevant.toarray() > 0
    for row, user in enumerate(training.users):
        is_candidate = training.items[row] >= 0
        expected = relevant[user, training.items[row][is_candidate]]
        assert np.array_equal(training.labels[row][is_candidate], expected)
    assert training.labels.any() and not training.labels[~training.is_candidate].any()


def test_the_labels_events_are_in_nothing_the_ranker_sees(each_stage):
    """What the sources and features were fitted on ends before each user's prediction time, and lacks the labels."""
    holdout, training = each_stage.holdout, each_stage.training
    rows, places = np.nonzero(training.labels)
    history = set(zip(holdout.history.user_idx.tolist(), holdout.history.item_idx.tolist(), strict=True))
    positives = zip(training.users[rows].tolist(), training.items[rows, places].tolist(), strict=True)
    assert history.isdisjoint(positives)
    assert each_stage.hybrid.interactions is holdout.history
    own = holdout.history.select(np.isin(holdout.history.user_idx, training.users))
    assert len(own) and (own.timestamp <= holdout.as_of[own.user_idx]).all()


def test_sampling_keeps_whole_users_and_is_repeatable(stage):
    holdout = stage.holdout
    few = load_settings(**stage.settings.model_dump() | {"ranker": {"max_rows": 1_000}})
    users = sample_users(holdout, few)
    assert len(users) == min(1_000 // few.hybrid.pool_size, len(holdout.evaluated_users))
    assert set(users) <= set(holdout.evaluated_users) and (np.diff(users) > 0).all()
    assert np.array_equal(users, sample_users(holdout, few))


def test_two_phases_in_one_allocation(stage):
    training, n = stage.training, len(stage.training.users)
    both = TrainingSet.empty(n + 9, training.items.shape[1])
    relevant, as_of = stage.holdout.relevant, stage.holdout.as_of
    some = training.users[3:9]
    first = label_candidates(stage.store, relevant[training.users], training.users, as_of[training.users], out=both)
    rest = both.subset(slice(n, None))
    second = label_candidates(stage.store, relevant[some], some, as_of[some], batch_size=4, out=rest)
    filled = both.subset(slice(0, n + len(second.users)))
    assert filled.users.tolist() == [*training.users, *training.users[3:9]]
    assert np.shares_memory(filled.features, first.features) and np.shares_memory(filled.labels, second.labels)
    for name in ("items", "features", "labels"):
        expected = getattr(training, name)
        assert np.array_equal(getattr(first, name), expected, equal_nan=name == "features")
        assert np.array_equal(getattr(second, name), expected[3:9], equal_nan=name == "features")
    rows = filled.features[filled.is_candidate]
    assert np.array_equal(filled.rows(filled.features), rows, equal_nan=True)


def test_rows_are_not_copied_where_every_place_has_a_candidate():
    full = TrainingSet.empty(2, 3)
    full.items[:] = 1
    assert np.shares_memory(full.rows(full.features), full.features)
    full.items[1, 2] = -1
    assert len(full.rows(full.features)) == 5


def test_too_little_data_is_an_error():
    with pytest.raises(DataError, match="tiny is too small to train a ranker: no candidate of the tuning phase"):
        check_trainable(TrainingSet.empty(0, 5), "tiny", "global-time", "tuning")
