"""Stages are built once, go on from the phase before, and keep what they are made from."""

from dataclasses import replace
from shutil import rmtree as remove_tree

import numpy as np
from helpers import copy_of_run

from movierec.artifacts import open_artifact, paths, read_arrays, read_manifest
from movierec.config import load_settings
from movierec.data.holdout import load_holdout
from movierec.data.interactions import load_interactions
from movierec.data.splits import build_split
from movierec.opening import open_run, open_serving
from movierec.ranking.contributions import find_seed_items
from movierec.ranking.feature_store import FeatureStore
from movierec.ranking.ranked import scores_in_context
from movierec.ranking.training import sample_users
from movierec.retrieval.hybrid import Hybrid
from movierec.shards import make_systems
from movierec.stages import (
    PHASES,
    build_rankers,
    build_sources,
    build_unordered_ranker,
    choose_on_validation,
    earlier_phase,
    load_history,
    load_phase,
    load_rankers,
)


def test_a_stage_that_is_up_to_date_is_not_built_again(tiny_run):
    settings, _ = tiny_run
    data, split, *_ = open_run(settings, "leave-last-out").values()
    sources = {phase: build_sources(settings, data, split, phase) for phase in ("tuning", "validation")}
    rankers = build_rankers(settings, split, sources["tuning"], sources["validation"])
    assert not any(artifact.built for artifact in (*sources.values(), rankers))
    assert sources["validation"].manifest["inputs"]["earlier"] == sources["tuning"].key


def test_each_phase_knows_the_beginning_of_what_the_next_one_knows(tiny_run):
    settings, _ = tiny_run
    data, split, *_ = open_run(settings, "global-time").values()
    histories = [load_history(data, split, phase) for phase in PHASES]
    pairs = [set(zip(known.user_idx.tolist(), known.item_idx.tolist(), strict=True)) for known in histories]
    assert pairs[0] < pairs[1] < pairs[2] < pairs[3]
    assert [earlier_phase(settings, split, phase) for phase in PHASES] == [None, "tuning", "validation", None]
    neural = settings.model_copy(update={"sasrec": settings.sasrec.model_copy(update={"enabled": True})})
    assert earlier_phase(neural, split, "serving") == "test" and earlier_phase(neural, None, "serving") is None


def test_every_system_has_validation_metrics(tiny_run):
    settings, _ = tiny_run
    artifacts = open_run(settings, "leave-last-out")
    sources = paths(settings).sources("leave-last-out", "validation")
    holdout = load_holdout(artifacts["split"], "validation")
    store = FeatureStore(Hybrid.load(sources, holdout.history), settings.half_life_days)
    systems = make_systems(store, load_rankers(artifacts["rankers"], "tiny"))
    contents = artifacts["rankers"].manifest["contents"]
    assert list(contents["validation"]) == list(systems)
    best = max(systems, key=lambda name: contents["validation"][name]["ndcg@5"])
    assert contents["highest_on_validation"] == best


def values_around(means, n, seed=0, spread=0.05):
    """Per-user values of systems, which differ from each other less than users do."""
    rng = np.random.default_rng(seed)
    base = rng.random(n)
    return {name: base + mean + rng.normal(0, spread, n) for name, mean in means.items()}


def test_the_most_complete_of_equals_is_chosen():
    settings = load_settings()
    few = values_around({"ease": 0.0, "hybrid": 0.004, "ranked_v1": 0.0, "ranked_v3": 0.002}, 60)
    choice = choose_on_validation(few, settings)
    assert choice["chosen_on_validation"] == "ranked_v3" != choice["highest_on_validation"]
    many = values_around({"ease": 0.0, "hybrid": 0.02, "ranked_v1": 0.0, "ranked_v3": 0.0}, 6000)
    choice = choose_on_validation(many, settings)
    assert choice["chosen_on_validation"] == choice["highest_on_validation"] == "hybrid"
    assert choice["not_significantly_below"] == ["hybrid"]
    sources = values_around({"ease": 0.001, "als": 0.0}, 60, spread=0.001)
    assert choose_on_validation(sources, settings)["chosen_on_validation"] == "ease", "no prior among sources"
    assert choose_on_validation({"als": np.ones(3)}, settings)["not_significantly_below"] == ["als"]


def test_recommendations_are_precomputed_for_all_users(tiny_run):
    """The arrays against the system itself, at the last event."""
    settings, _ = tiny_run
    serving = open_serving(settings)
    contents = serving.precomputed.manifest["contents"]
    arrays = read_arrays(serving.precomputed.path, contents["crc32"])
    events = load_interactions(serving.data)
    hybrid = Hybrid.load(serving.sources.path, events)
    systems = make_systems(FeatureStore(hybrid, settings.half_life_days), load_rankers(serving.rankers, "tiny"))
    items, scores = systems[contents["system"]].top_k(np.arange(events.n_users), settings.service.precomputed)
    assert np.array_equal(arrays["items"], items) and np.array_equal(arrays["scores"], scores)
    names = np.array(contents["sources"], dtype=object)[arrays["top_sources"]]
    seed_items = find_seed_items(hybrid, np.arange(events.n_users), items, names)
    assert np.array_equal(arrays["seed_items"], seed_items) and arrays["seed_items"].dtype == np.int32
    assert read_manifest(paths(settings).precomputed)["inputs"]["sources"] == serving.sources.key


def test_a_phase_is_loaded_as_it_was_fitted(tiny_run):
    settings, _ = tiny_run
    split = open_run(settings, "leave-last-out")["split"]
    sources = open_artifact(paths(settings).sources("leave-last-out", "validation"), "no sources", split=split)
    counts = []
    holdout, hybrid, training = load_phase(
        settings, split, sources, "validation", lambda *facts: counts.append(facts[1:3]), list_size=5)
    assert holdout.phase == "validation" and hybrid.interactions is holdout.history
    assert np.array_equal(training.users, sample_users(holdout, settings))
    assert counts[0] == (0, len(training.users)) and counts[-1] == (len(training.users),) * 2
    as_of = holdout.as_of[training.users]
    assert set(training.source_lists) == set(hybrid.builder.sources)
    for name, items in training.source_lists.items():
        assert np.array_equal(items, hybrid.sources[name].top_k(training.users, 5, as_of)[0])


def test_the_ranker_for_users_without_times_orders_their_candidates(tiny_run, tmp_path):
    """It is trained on the validation users, and where users have times the fused order stays."""
    settings = copy_of_run(tiny_run[0], tmp_path, protocol="strong-generalization")
    data = open_run(settings, "leave-last-out")["data"]
    split = build_split(settings, data, "strong-generalization")
    sources = build_sources(settings, data, split, "validation")
    few = build_unordered_ranker(settings, split, sources)
    assert few.manifest["contents"]["rankers"] == [] and load_rankers(few, "tiny") == {}
    remove_tree(few.path)
    rankers = build_unordered_ranker(settings, split, sources, min_users=2)
    contents = rankers.manifest["contents"]
    assert contents["rankers"] == ["ranked_unordered"] == list(contents["validation"])[-1:]
    (ranker,) = load_rankers(rankers, "tiny").values()
    holdout = load_holdout(split, "test")
    assert holdout.history.unordered.all()
    population = Hybrid.load(sources.path, holdout.population)
    for history, is_ranked in ((holdout.history, True), (replace(holdout.history, unordered=None), False)):
        store = FeatureStore(population, settings.half_life_days).fold_in(history)
        pool = store.hybrid.pool(holdout.users, holdout.as_of[holdout.users])
        scores = scores_in_context(ranker, store.matrix(pool, holdout.as_of[holdout.users], ranker.features), pool)
        assert (scores == pool.scores).all() != is_ranked
