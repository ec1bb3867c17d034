"""Labelled candidates of the tiny archive under both protocols, and rankers trained on them; read only."""

from dataclasses import dataclass

import pytest
from helpers import tiny_settings, write_archive

from movierec.config import PROTOCOLS, Settings
from movierec.data.holdout import Holdout, load_holdout
from movierec.data.ingest import ingest
from movierec.data.interactions import build_interactions, load_items
from movierec.data.splits import build_split
from movierec.ranking.feature_store import FeatureStore
from movierec.ranking.ranker import RANKERS, Ranker, train_ranker
from movierec.ranking.training import TrainingSet, label_holdout
from movierec.retrieval.hybrid import Hybrid, make_hybrid


@dataclass(frozen=True)
class Stage:
    """What a ranker is trained from."""

    settings: Settings
    holdout: Holdout
    hybrid: Hybrid
    store: FeatureStore
    training: TrainingSet


@pytest.fixture(scope="session")
def stages(tmp_path_factory) -> dict[str, Stage]:
    """Protocol → the validation phase of the tiny archive."""
    folder = tmp_path_factory.mktemp("ranking")
    settings, made = tiny_settings(folder), {}
    data = build_interactions(settings, ingest(settings, write_archive(folder / "archive")))
    for protocol in PROTOCOLS:
        holdout = load_holdout(build_split(settings, data, protocol), "validation")
        hybrid = make_hybrid(settings, load_items(data)).fit(holdout.history)
        store = FeatureStore(hybrid, settings.half_life_days)
        training = label_holdout(store, holdout, settings)
        made[protocol] = Stage(settings, holdout, hybrid, store, training)
    return made


@pytest.fixture(params=PROTOCOLS)
def each_stage(request, stages) -> Stage:
    """The stage under each protocol in turn."""
    return stages[request.param]


@pytest.fixture
def stage(stages) -> Stage:
    """The stage under one protocol, where one is enough."""
    return stages["leave-last-out"]


@pytest.fixture(scope="session")
def rankers(stages) -> dict[str, Ranker]:
    """Version → ranker, trained on `stage`."""
    stage = stages["leave-last-out"]
    return {version: train_ranker(version, stage.training, stage.settings) for version in RANKERS}
