"""Trained weights go from one run to another, and no further than they fit."""

import importlib.util
import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers import copy_of_run

from movierec.artifacts import paths
from movierec.config import DataError, NotFoundError
from movierec.data.splits import build_split
from movierec.exchange import export_weights, fitted_phases, forget_weights, import_weights
from movierec.opening import open_data
from movierec.stages import build_sources

NETWORK = {"enabled": True, "factors": 4, "length": 8, "epochs": 1, "continue_epochs": 1}


def test_every_phase_has_a_name_of_its_own(tiny_run):
    settings, _ = tiny_run
    names = [f"{protocol}-{phase}" for protocol, phase in fitted_phases(settings).values()]
    assert len(set(names)) == len(names) and {"global-time-test", "cold-items-validation", "all-serving"} <= set(names)


def test_without_anything_to_move_one_sentence_says_so(tiny_run, tmp_path):
    settings, _ = tiny_run
    with pytest.raises(NotFoundError, match=r"tiny was run without sasrec: `movierec run --dataset tiny --set sasrec"):
        export_weights(settings, tmp_path)
    with pytest.raises(NotFoundError, match=r"there are no trained weights in"):
        import_weights(settings, tmp_path)
    assert forget_weights(settings) == []


@pytest.mark.extra
@pytest.mark.skipif(not importlib.util.find_spec("torch"), reason="PyTorch isn't installed: make neural")
def test_a_run_uses_what_another_one_has_trained(tiny_run, tmp_path):
    here = copy_of_run(tiny_run[0], tmp_path / "here")
    there = copy_of_run(tiny_run[0], tmp_path / "there")
    here, there = (one.model_copy(update={"sasrec": one.sasrec.model_copy(update=NETWORK)}) for one in (here, there))
    only, messages = ("als", "genre", "sasrec"), []

    def fit(settings, phase):
        data = open_data(settings)
        split = build_split(settings, data, "leave-last-out")
        return build_sources(settings, data, split, phase, lambda text, *_: messages.append(text), only)

    trained = fit(there, "validation")
    files = export_weights(there, tmp_path / "weights")
    assert [file.stem for file in files] == ["leave-last-out-tuning", "leave-last-out-validation"]
    assert [file.stem for file in import_weights(here, tmp_path / "weights")] == [file.stem for file in files]
    messages.clear()
    used = fit(here, "validation")
    assert used.built and not any("training sasrec" in message for message in messages)
    weights = [np.load(sources.path / "sasrec" / "item.npy") for sources in (trained, used)]
    assert np.array_equal(*weights)
    assert not fit(here, "validation").built, "what was imported is used once"

    wrong = paths(here).imported("leave-last-out", "tuning")
    shutil.copyfile(files[1], wrong)  # of a later phase: it knows the future
    with pytest.raises(DataError, match=r"leave-last-out-tuning.npz was trained on other events than this phase knows"):
        fit(here, "tuning")
    assert len(forget_weights(here)) == 2 and fit(here, "tuning").built

    stray = tmp_path / "weights" / "mine.npz"
    shutil.copyfile(files[0], stray)
    with pytest.raises(DataError, match=r"mine.npz is named after no protocol and phase"):
        import_weights(here, Path(tmp_path / "weights"))
