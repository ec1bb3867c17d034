"""Batches are reported as users, and the base class ignores everything."""

from movierec.artifacts import Artifact
from movierec.progress import Progress, report_progress


def test_batches_are_reported_as_users():
    calls = []
    progress = report_progress(lambda *facts: calls.append(facts), "scoring", 10)
    for done in (1, 2, 3):
        progress(done, 3)
    assert calls == [("scoring", done, 10, "users") for done in (0, 3, 6, 10)]


def test_the_base_class_ignores_everything(tmp_path):
    artifact = Artifact(tmp_path, {"key": "0"}, built=True)
    with Progress().stage("sources") as stage:
        assert stage.report("fitting", 1, 2, "iterations") is None
        assert stage.done(artifact) is artifact
