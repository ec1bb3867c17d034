"""Settings come from four places in order of weight; artifacts appear whole or not at all."""

import json
import threading

import pytest

from movierec.artifacts import build, open_artifact, read_manifest, remove_leftovers, replace_atomically, write_json
from movierec.config import SOURCES, ArtifactError, ConfigError, NotFoundError, load_settings


def test_sources_of_settings_in_order_of_weight(tmp_path, monkeypatch):
    file = tmp_path / "movierec.toml"
    file.write_text("seed = 1\nhalf_life_days = 7\n[als]\nfactors = 11\nalpha = 3\n")
    assert load_settings(file).seed == 1
    monkeypatch.setenv("MOVIEREC_SEED", "2")
    monkeypatch.setenv("MOVIEREC_ALS__FACTORS", "22")
    settings = load_settings(file)
    assert (settings.seed, settings.half_life_days, settings.als.factors, settings.als.alpha) == (2, 7, 22, 3)
    settings = load_settings(file, seed=3, als={"factors": 33})
    assert (settings.seed, settings.als.factors, settings.als.alpha) == (3, 33, 3)


def test_file_named_by_the_environment(tmp_path, monkeypatch):
    (tmp_path / "mine.toml").write_text("seed = 5\n")
    monkeypatch.setenv("MOVIEREC_CONFIG", str(tmp_path / "mine.toml"))
    assert load_settings().seed == 5
    monkeypatch.setenv("MOVIEREC_CONFIG", str(tmp_path / "absent.toml"))
    with pytest.raises(ConfigError, match=r"absent\.toml doesn't exist"):
        load_settings()


@pytest.mark.parametrize(("overrides", "message"), [
    ({"sed": 1}, r"no setting sed \(did you mean seed\?\)"),
    ({"als": {"factor": 1}}, r"no setting als\.factor \(did you mean als\.factors\?\)"),
    ({"als": {"factors": 0}}, r"als\.factors = 0 is not usable"),
    ({"als": {"factors": "many"}}, r"als\.factors = 'many' is not usable"),
    ({"half_life_days": -1}, "half_life_days = -1"),
    ({"protocol": "random"}, "protocol = 'random'"),
    ({"dataset": "../evil"}, "dataset = '../evil'"),
    ({"validation_quantile": 0.95}, "must rise"),
    ({"cutoffs": (10, 100)}, "cutoffs must rise and lie between 1 and list_size"),
    ({"hybrid": {"weights": {"in_session": dict.fromkeys(SOURCES, 0)}}}, "one of the weights must be above 0"),
    ({"hybrid": {"weights": {"in_session": {"als": float("nan")}}}}, "hybrid.weights.session.als"),
    ({"half_life_days": float("inf")}, "half_life_days = inf"),
    ({"cutoffs": (20, 10)}, "cutoffs must rise"),
    ({"hybrid": {"weights": {"new_user": {"populrity": 1}}}}, "hybrid.weights.newcomer.populrity"),
])
def test_wrong_settings_are_named(overrides, message):
    with pytest.raises(ConfigError, match=message):
        load_settings(**overrides)


def test_one_weight_can_be_set_alone(monkeypatch):
    monkeypatch.setenv("MOVIEREC_HYBRID__WEIGHTS__SESSION__ALS", "2")
    weights = load_settings(hybrid={"weights": {"in_session": {"sequential": 0}}}).hybrid.weights.session
    assert (weights.als, weights.sequential, weights.linear_ar) == (2, 0, 2)


def test_misspelt_environment_variable_is_an_error(monkeypatch):
    monkeypatch.setenv("MOVIEREC_SEEED", "1")
    with pytest.raises(ConfigError, match=r"MOVIEREC_SEEED \(did you mean MOVIEREC_SEED\?\)"):
        load_settings()


@pytest.mark.parametrize("text", ["seed = ", "[als\n", "sed = 1\n", "seed = -1\n", "[als]\nfactors = 'x'\n"])
def test_wrong_file_is_one_sentence(tmp_path, text):
    file = tmp_path / "wrong.toml"
    file.write_text(text)
    with pytest.raises(ConfigError) as error:
        load_settings(file)
    assert "\n" not in str(error.value)


def test_build_skips_only_what_is_the_same(tmp_path):
    made = []

    def make(folder):
        made.append(folder)
        (folder / "file").write_text("x")
        return {}

    place = tmp_path / "artifact"
    first = build(place, "config", {"a": 1}, {"input": "k"}, make)
    assert first.built and not build(place, "config", {"a": 1}, {"input": "k"}, make).built
    assert build(place, "config", {"a": 2}, {"input": "k"}, make).built
    assert build(place, "config", {"a": 2}, {"input": "other"}, make).built
    assert build(place, "ingest", {"a": 2}, {"input": "other"}, make).built, "other code, other artifact"
    assert len(made) == 4
    assert [path.name for path in tmp_path.iterdir() if path.name.endswith(".tmp")] == []


def test_failed_build_leaves_the_old_artifact(tmp_path):
    place = tmp_path / "artifact"
    build(place, "config", {}, {}, lambda folder: (folder / "file").write_text("old") and {})

    def fail(folder):
        (folder / "file").write_text("new")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(place, "config", {"changed": True}, {}, fail)
    assert (place / "file").read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == ["artifact"]


def test_leftovers_of_a_killed_run_are_cleared(tmp_path):
    stale = tmp_path / ".artifact.99999.tmp"
    stale.mkdir()
    with replace_atomically(tmp_path / "artifact") as folder:
        (folder / "file").touch()
    assert not stale.exists() and (tmp_path / "artifact" / "file").exists()


def test_killed_between_the_two_renames_the_old_artifact_comes_back(tmp_path):
    place = tmp_path / "artifact"
    build(place, "config", {}, {}, lambda folder: (folder / "file").write_text("old") and {})
    place.rename(tmp_path / ".artifact.99999.old.tmp")
    (tmp_path / ".artifact.99999.tmp").mkdir()
    assert open_artifact(place, "missing").path == place and (place / "file").read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == ["artifact"]


def test_artifact_without_readable_manifest_is_made_again(tmp_path):
    place = tmp_path / "artifact"
    build(place, "config", {}, {}, lambda folder: {})
    (place / "manifest.json").write_text('{"key": ')
    assert read_manifest(place) is None
    assert build(place, "config", {}, {}, lambda folder: {}).built


def test_two_builders_at_once_build_once(tmp_path):
    made = []
    start = threading.Barrier(4)

    def builder():
        start.wait()
        build(tmp_path / "artifact", "config", {}, {}, lambda folder: made.append(1) or {})

    threads = [threading.Thread(target=builder) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1


def test_open_artifact_refuses_what_does_not_belong(tmp_path):
    upstream = build(tmp_path / "up", "config", {"v": 1}, {}, lambda folder: {})
    build(tmp_path / "down", "config", {}, {"up": upstream.key}, lambda folder: {})
    assert open_artifact(tmp_path / "down", "missing", up=upstream).key
    changed = build(tmp_path / "up", "config", {"v": 2}, {}, lambda folder: {})
    with pytest.raises(ArtifactError, match="made from other up"):
        open_artifact(tmp_path / "down", "missing", up=changed)
    with pytest.raises(NotFoundError, match="nothing here"):
        open_artifact(tmp_path / "absent", "nothing here")


def test_write_json_replaces_in_one_step(tmp_path):
    write_json(tmp_path / "a" / "file.json", {"é": 1})
    assert json.loads((tmp_path / "a" / "file.json").read_text(encoding="utf-8")) == {"é": 1}
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["file.json"]


def test_a_key_is_never_shown(monkeypatch):
    monkeypatch.setenv("MOVIEREC_SERVICE__API_KEY", "hush")
    with pytest.raises(ConfigError, match=r"service\.api_key is not usable") as error:
        load_settings()
    monkeypatch.setenv("MOVIEREC_SERVICE__API_KEY", "hush hush")
    settings = load_settings()
    assert "hush" not in f"{error.value} {settings} {settings.model_dump(mode='json')}" and settings.service.api_key.get_secret_value() == "hush hush"


def test_clearing_up_after_a_killed_process(tmp_path):
    """Its temporaries go, those of others stay; killed between the two renames, the old artifact comes back."""
    for name in ("a/.lists.12.tmp/inner", "a/.als.12.old.tmp", "b/.als.12.old.tmp", "b/als", "b/.lists.112.tmp", "b/.lists.13.tmp"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "a" / ".als.12.old.tmp" / "manifest.json").touch()
    (tmp_path / "a" / ".lists.12.tmp" / ".manifest.json.12.tmp").touch()
    (tmp_path / "a" / ".results.json.12.tmp").touch()
    remove_leftovers(tmp_path, 12)
    assert (tmp_path / "a" / "als" / "manifest.json").exists()
    assert {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_dir()} == {"a", "a/als", "b", "b/als", "b/.lists.112.tmp", "b/.lists.13.tmp"}
    remove_leftovers(tmp_path / "absent", 12)
