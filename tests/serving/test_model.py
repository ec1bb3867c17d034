"""Opening the artifacts of a run: histories of one user, precomputed lists, what stays on disk, what doesn't exist."""

import shutil

import numpy as np
import pytest
from helpers import tiny_settings

from movierec.artifacts import paths
from movierec.config import ArtifactError, NotFoundError
from movierec.opening import open_data
from movierec.ranking.feature_tables import build_histories, load_histories
from movierec.serving.model import load_serving_model, user_history, user_index_of


def test_a_history_by_hand(interactions):
    stored = slice(interactions.indptr[5], interactions.indptr[6])
    first = int(interactions.item_idx[stored][0])
    history = user_history(interactions, 5, [(119, 5.0), (first, None)])
    expected = [*interactions.item_idx[stored][1:], 119, first]
    assert history.item_idx.tolist() == expected, "the first event moved to the end"
    assert history.confidence[-2:].tolist() == [2.5, 1.0]
    assert history.timestamp[-2:].tolist() == [interactions.as_of - 1] * 2
    assert history.n_users == 1 and history.as_of == interactions.as_of
    assert np.array_equal(history.item_counts, interactions.item_counts)


def test_precomputed_lists_belong_to_one_system_and_protocol(settings, open_service):
    model = load_serving_model(settings)
    assert model.precomputed.items.shape == (80, 10)
    other = next(name for name in ("popularity", "hybrid") if name != model.system)
    assert open_service(other).model.precomputed.k == 0
    assert load_serving_model(settings, protocol="leave-last-out").precomputed.k == 0


def test_damaged_lists_are_reported(settings, tmp_path):
    mine = settings.model_copy(update={"data_dir": tmp_path / "data"})
    shutil.copytree(settings.data_dir, mine.data_dir, ignore=shutil.ignore_patterns("*.lock", "*.tmp"))
    file = paths(mine).precomputed / "items.npy"
    file.write_bytes(file.read_bytes()[:-4] + b"\x00\x00\x00\x07")
    with pytest.raises(ArtifactError, match="can't be read"):
        load_serving_model(mine)


def test_damaged_histories_are_reported(settings, tmp_path):
    mine = tiny_settings(tmp_path)
    histories = build_histories(mine, open_data(settings))
    file = paths(mine).histories / "item_idx.npy"
    file.write_bytes(file.read_bytes()[:-1] + b"\xff")
    with pytest.raises(ArtifactError, match="can't be read"):
        load_histories(histories)


def test_large_arrays_stay_on_disk(model):
    def is_mapped(array):
        while array is not None and not isinstance(array, np.memmap):
            array = array.base
        return array is not None

    sources = model.hybrid.sources
    arrays = (
        model.interactions.item_idx,
        model.interactions.timestamp,
        sources["ease"].weights,
        sources["linear_ar"].weights,
        sources["sequential"].lift.data,
        sources["als"].user_factors,
    )
    assert all(is_mapped(array) and not array.flags.writeable for array in arrays)


def test_mapped_events_are_the_datas(model, interactions):
    for name in ("user_idx", "item_idx", "rating", "confidence", "timestamp", "indptr", "item_counts"):
        assert np.array_equal(getattr(model.interactions, name), getattr(interactions, name)), name


def test_a_user_of_the_data_keeps_the_vector_of_the_fit(model):
    history = user_history(model.interactions, 3)
    vectors = model.hybrid.sources["als"].user_factors[[3]]
    assert np.array_equal(model.store.fold_in(history, vectors).hybrid.sources["als"].user_factors, vectors)
    solved = model.store.fold_in(history).hybrid.sources["als"].user_factors
    assert solved.shape == vectors.shape and not np.array_equal(solved, vectors)


def test_unknown_user_ids(model):
    assert user_index_of(model, 1) == user_index_of(model, "1") == 0
    with pytest.raises(NotFoundError, match="there is no user nobody"):
        user_index_of(model, "nobody")
