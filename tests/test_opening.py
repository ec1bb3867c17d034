"""Opening a run checks names first, and then that its artifacts belong together."""

import shutil

import pytest
from helpers import copy_of_run, tiny_settings, write_archive

from movierec.artifacts import paths
from movierec.config import ArtifactError, NotFoundError
from movierec.data.ingest import ingest
from movierec.data.interactions import build_interactions
from movierec.opening import (
    check_served_protocol,
    check_system_of_run,
    datasets,
    default_protocol,
    open_data,
    open_run,
    open_serving,
    open_trained,
)
from movierec.stages import build_sources


@pytest.fixture
def own_run(tiny_run, tmp_path):
    """Settings of a copy of the finished run, to be changed."""
    return copy_of_run(tiny_run[0], tmp_path)


def test_a_finished_run_is_opened(tiny_run):
    settings, results = tiny_run
    for protocol, result in results.items():
        artifacts = open_run(settings, protocol)
        assert list(artifacts) == ["data", "split", "rankers", "choice", "lists", "evaluation"]
        assert open_trained(settings, protocol)["choice"].key == artifacts["rankers"].key
        assert open_serving(settings, protocol=protocol).system == result["chosen_on_validation"]
    assert default_protocol(settings) == open_serving(settings).protocol == "global-time"
    assert datasets(settings) == ["tiny"]


def test_serving_needs_neither_lists_nor_evaluation(tiny_run, own_run):
    for folder in (paths(own_run).lists("global-time"), paths(own_run).evaluation("global-time")):
        shutil.rmtree(folder.parent)
    assert open_serving(own_run).key == open_serving(tiny_run[0]).key
    assert check_system_of_run(own_run, "ranked_v3", open_trained(own_run, "global-time")) == "ranked_v3"
    evaluate = "`movierec run --dataset tiny --protocol global-time`"
    with pytest.raises(NotFoundError, match=f"tiny hasn't been evaluated under global-time yet: {evaluate} does it"):
        open_run(own_run, "global-time")
    with pytest.raises(NotFoundError, match="--protocol global-time --set relevant=all`"):
        open_run(tiny_run[0].model_copy(update={"relevant": "all"}), "global-time")


def test_what_is_missing_for_serving_is_named_with_its_command(own_run):
    shutil.rmtree(paths(own_run).serving)
    with pytest.raises(NotFoundError, match="tiny can't be served yet: `movierec run --dataset tiny --serving-only`"):
        open_serving(own_run)
    shutil.rmtree(paths(own_run).rankers("global-time"))
    with pytest.raises(NotFoundError, match="tiny hasn't been run under global-time yet"):
        open_serving(own_run, protocol="global-time")
    assert default_protocol(own_run) == "leave-last-out", "whose rankers are still there"


def test_precomputed_recommendations_are_opened_only_with_what_they_were_made_from(tiny_run):
    settings, _ = tiny_run
    assert open_serving(settings).precomputed is not None
    assert open_serving(settings, protocol="leave-last-out").precomputed is None
    keys = {open_serving(settings, protocol=protocol).key for protocol in ("global-time", "leave-last-out")}
    assert len(keys) == 2, "a service reloads when any artifact is another"


def test_names_that_do_not_exist(tiny_run, tmp_path):
    settings, _ = tiny_run
    artifacts = open_run(settings, "global-time")
    with pytest.raises(NotFoundError, match=r"no system hybrd \(did you mean hybrid\?\)"):
        check_system_of_run(settings, "hybrd", artifacts)
    with pytest.raises(NotFoundError, match=r"tiny was run without sasrec: `movierec run --dataset tiny --set sasrec"):
        check_system_of_run(settings, "sasrec", artifacts)
    with pytest.raises(NotFoundError, match="strong-generalization trains no ranked_v3"):
        split = artifacts["split"]
        contents = split.manifest["contents"] | {"protocol": "strong-generalization"}
        strong = type(split)(split.path, split.manifest | {"contents": contents}, built=False)
        check_system_of_run(settings, "ranked_v3", artifacts | {"split": strong, "rankers": None})
    with pytest.raises(NotFoundError, match="no protocol all"):
        check_served_protocol(tiny_settings(tmp_path), "all")
    with pytest.raises(NotFoundError, match=r"no protocol globaltime \(did you mean global-time\?\)"):
        check_served_protocol(tiny_settings(tmp_path), "globaltime")
    with pytest.raises(NotFoundError, match="strong-generalization only measures"):
        open_serving(settings, protocol="strong-generalization")
    with pytest.raises(NotFoundError, match="no dataset other here"):
        open_data(tiny_settings(tmp_path, dataset="other"))
    with pytest.raises(NotFoundError, match="ml-20m hasn't been run yet: `movierec run --dataset ml-20m`"):
        open_data(tiny_settings(tmp_path, dataset="ml-20m"))


def test_artifacts_of_other_data_are_refused(own_run, tmp_path):
    build_interactions(own_run, ingest(own_run, write_archive(tmp_path / "other", seed=1)))
    with pytest.raises(ArtifactError, match="made from other interactions"):
        open_run(own_run, "global-time")
    with pytest.raises(ArtifactError, match="made from other interactions"):
        open_serving(own_run)


def test_lists_that_are_not_the_evaluated_ones_are_refused(own_run):
    """As after a run that was killed between the lists and the evaluation."""
    manifest = paths(own_run).lists("global-time") / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"key": "', '"key": "0'))
    with pytest.raises(ArtifactError, match="made from other lists"):
        open_run(own_run, "global-time")


def test_rankers_never_serve_over_sources_of_other_settings(own_run):
    changed = own_run.model_copy(update={"als": own_run.als.model_copy(update={"factors": 6})})
    artifacts = open_run(own_run, "global-time")
    build_sources(changed, artifacts["data"], artifacts["split"], "serving")
    with pytest.raises(ArtifactError, match="fitted with other settings"):
        open_serving(own_run)
