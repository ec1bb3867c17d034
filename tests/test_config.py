"""Settings come from four places with increasing precedence, and whatever is wrong with them is one sentence."""

import pytest

from movierec.config import SOURCES, ConfigError, describe_settings, load_settings


def test_precedence_of_file_environment_and_arguments(tmp_path, monkeypatch):
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
    ({"sasrec": {"factors": 63}}, "setting sasrec is not usable: factors must be a multiple of heads"),
    ({"half_life_days": -1}, "half_life_days = -1"),
    ({"half_life_days": float("inf")}, "half_life_days = inf"),
    ({"protocol": "random"}, "protocol = 'random'"),
    ({"dataset": "../evil"}, "dataset = '../evil'"),
    ({"download": {"urls": "ftp://example.org"}}, r"download\.urls\.0 = 'ftp://example.org'"),
    ({"download": {"urls": []}}, r"download\.urls = \[\] is not usable"),
    ({"download": {"urls": "[oops"}}, r"download\.urls = '\[oops' is not usable"),
    ({"download": {"url": "https://example.org"}}, r"no setting download\.url \(did you mean download\.urls\?\)"),
    ({"validation_quantile": 0.95}, "must rise"),
    ({"cutoffs": (10, 100)}, "cutoffs must rise and be between 1 and list_size"),
    ({"cutoffs": (20, 10)}, "cutoffs must rise"),
    ({"pool_sizes": (200, 100)}, "pool_sizes must rise"),
    ({"list_size": 300}, r"list_size must not exceed hybrid\.pool_size"),
    ({"hybrid": {"weights": {"in_session": dict.fromkeys(SOURCES, 0)}}}, "one of the weights besides that of content"),
    ({"hybrid": {"weights": {"in_session": {"als": float("nan")}}}}, r"hybrid\.weights\.in_session\.als"),
    ({"hybrid": {"weights": {"new_user": {"populrity": 1}}}}, r"hybrid\.weights\.new_user\.populrity"),
])
def test_wrong_settings_are_named(overrides, message):
    with pytest.raises(ConfigError, match=message):
        load_settings(**overrides)


def test_one_weight_can_be_set_alone(monkeypatch):
    monkeypatch.setenv("MOVIEREC_HYBRID__WEIGHTS__IN_SESSION__ALS", "2")
    weights = load_settings(hybrid={"weights": {"in_session": {"sequential": 0}}}).hybrid.weights.in_session
    assert (weights.als, weights.sequential, weights.linear_ar) == (2, 0, 2)


@pytest.mark.parametrize(("text", "urls"), [
    ("https://a.org/data", ("https://a.org/data",)), ('["https://a.org", "http://b.org"]', ("https://a.org", "http://b.org")),
])
def test_a_list_of_addresses_may_be_one_address(monkeypatch, text, urls):
    """As typed after --set, and as an environment variable."""
    assert load_settings(download={"urls": text}).download.urls == urls
    monkeypatch.setenv("MOVIEREC_DOWNLOAD__URLS", text)
    assert load_settings().download.urls == urls


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


def test_a_key_is_never_shown(monkeypatch):
    monkeypatch.setenv("MOVIEREC_SERVICE__API_KEY", "hush")
    with pytest.raises(ConfigError, match=r"service\.api_key is not usable") as error:
        load_settings()
    monkeypatch.setenv("MOVIEREC_SERVICE__API_KEY", "hush hush")
    settings = load_settings()
    shown = f"{error.value} {settings} {settings.model_dump(mode='json')}"
    assert "hush" not in shown
    assert settings.service.api_key.get_secret_value() == "hush hush"


def test_every_setting_is_described():
    missing = [name for name, description in describe_settings().items() if not description]
    assert missing == [], "write a sentence under the field"
