"""What the tests of the service share: the opened models of the tiny run, read only."""

from functools import cache

import pytest

from movierec.data.interactions import load_interactions
from movierec.opening import open_run
from movierec.ranking.feature_store import FeatureStore
from movierec.retrieval.hybrid import Hybrid
from movierec.serving.service import RecommenderService
from movierec.shards import make_systems
from movierec.stages import load_rankers


@pytest.fixture(scope="session")
def settings(tiny_run):
    """The settings of the tiny run."""
    return tiny_run[0]


@pytest.fixture(scope="session")
def open_service(settings):
    """A function that opens the service of a system under global-time, each once."""
    return cache(lambda system=None: RecommenderService.open(settings, system, "global-time"))


@pytest.fixture(scope="session")
def service(open_service):
    """The service of the ranker that can split its scores."""
    return open_service("ranked_v3")


@pytest.fixture(scope="session")
def model(service):
    """Its opened artifacts."""
    return service.model


@pytest.fixture(scope="session")
def interactions(model):
    """All events of the tiny data, in memory."""
    return load_interactions(model.artifacts.data)


@pytest.fixture(scope="session")
def store(model, interactions, settings):
    """The feature store as the evaluation uses it: over all users at once."""
    return FeatureStore(Hybrid.load(model.artifacts.sources.path, interactions), settings.half_life_days)


@pytest.fixture(scope="session")
def systems(settings, store):
    """Every system as the evaluation uses it."""
    return make_systems(store, load_rankers(open_run(settings, "global-time")["rankers"], "tiny"))
