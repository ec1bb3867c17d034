"""Ablation leaves out what it says, and the diagnostics count every candidate once."""

import numpy as np
import pytest

from movierec.config import load_settings
from movierec.evaluation.ablation import (
    calibration,
    evaluate_ranker,
    importance,
    learning_curve,
    platt_scaling,
    ranker_variants,
    source_ablation,
    without_source,
)
from movierec.evaluation.tuning import open_phases
from movierec.metrics import user_metrics
from movierec.ranking.features import FEATURE_GROUPS, V2_FEATURES, V3_FEATURES
from movierec.ranking.ranker import train_ranker
from movierec.stages import load_phase


@pytest.fixture(scope="module")
def phase(tiny_run):
    """The settings of a run, and the holdout, hybrid and labelled candidates of its validation phase."""
    settings, split, sources = open_phases(tiny_run[0], "leave-last-out")
    return settings, *load_phase(settings, split, sources["validation"], "validation")


def test_ablation_leaves_one_source_out(phase):
    _, holdout, hybrid, _ = phase
    users = holdout.evaluated_users[:40]
    table = source_ablation(hybrid, holdout, (5, 20), users=users)
    assert table.index.tolist() == ["all sources", *(f"without {name}" for name in hybrid.builder.sources)]
    assert table.index.name == "n = 40" and list(table) == ["recall@5", "recall@20", "ndcg@5", "ndcg@20"]
    for source, label in ((None, "all sources"), ("als", "without als")):
        ranked, _ = without_source(hybrid, source).top_k(users, 20, holdout.as_of[users])
        values = user_metrics(ranked, holdout.relevant[users], (5, 20))
        assert table.loc[label, "ndcg@20"] == values["ndcg@20"].mean()
    assert "als" in hybrid.builder.sources and "als" not in without_source(hybrid, "als").builder.sources


def test_variants_leave_out_or_keep_one_group(phase):
    variants = ranker_variants(phase[-1])
    assert variants["ranked_v2"] == ("ranked_v2", V2_FEATURES) and variants["ranked_v3"] == ("ranked_v3", V3_FEATURES)
    assert "sasrec_score" not in variants["ranked_v2 with source scores"][1], "a source that isn't fitted has no score"
    for group in FEATURE_GROUPS:
        kept, left_out = variants[f"only {group}"][1], variants[f"without {group}"][1]
        assert set(kept) == {feature.name for feature in FEATURE_GROUPS[group]}
        assert set(kept).isdisjoint(left_out) and len(kept) + len(left_out) == len(V3_FEATURES)
        assert [name for name in V3_FEATURES if name in left_out] == list(left_out), "features keep their order"


def test_the_learning_curve_halves_the_training_users(phase):
    settings, holdout, _, labelled = phase
    settings = settings.model_copy(update={"ranker_v3": settings.ranker_v3.model_copy(update={"trees": 5})})
    table, n = learning_curve(labelled, labelled, holdout, settings, steps=3), len(labelled.users)
    assert table.index.tolist() == [n >> 2, n >> 1, n] and table.index.name == "training users"
    whole = evaluate_ranker(train_ranker("ranked_v3", labelled, settings), labelled, holdout, settings.cutoffs)
    assert table.loc[n].to_dict() == pytest.approx(whole), "the last row is trained on all users"


def test_importance_is_the_mean_absolute_contribution(phase):
    validation = phase[-1]
    ranker = train_ranker("ranked_v3", validation, load_settings(ranker_v3={"trees": 10}))
    table = importance(ranker, validation, 0, max_rows=10**9)
    contributions = np.abs(ranker.contributions(validation.rows(validation.features))[:, :-1]).mean(axis=0)
    assert table.loc[list(V3_FEATURES), "importance"].tolist() == pytest.approx(contributions.tolist())
    assert table["importance"].is_monotonic_decreasing and set(table["group"]) == set(FEATURE_GROUPS)
    assert len(importance(ranker, validation, 0, max_rows=50)) == len(V3_FEATURES)


def test_calibration_counts_every_candidate_of_half_the_users_once(phase):
    settings, _, _, validation = phase
    table = calibration(validation, validation, settings, bins=5)
    n = len(validation.users)
    assessed = validation.subset(np.random.default_rng(settings.seed).permutation(n) >= n // 2)
    for version in ("ranked_v2", "ranked_v3"):
        rows = table.loc[[version]]
        assert rows["n"].sum() == assessed.is_candidate.sum() and rows["predicted"].is_monotonic_increasing
        assert (rows["n"] * rows["observed"]).sum() == pytest.approx(assessed.labels.sum())


def test_platt_scaling_recovers_the_scale_of_logits():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=20_000)
    labels = rng.random(len(logits)) < 1 / (1 + np.exp(-logits))
    scaled = platt_scaling(10 * logits + 3, labels, 10 * np.array([-1.0, 0, 2]) + 3)
    assert scaled == pytest.approx(1 / (1 + np.exp([1, 0, -2])), abs=0.02)
