"""The search space agrees with the settings, and TOML says what they are."""

import math
import tomllib
from types import SimpleNamespace

import pytest

from movierec.config import SOURCES, ConfigError, Settings, describe_settings, load_settings
from movierec.evaluation.search_space import (
    FEATURE_SPACE,
    RANKER_SPACE,
    SOURCE_SPACE,
    Choice,
    Range,
    changed_settings,
    fusion_space,
    get_setting,
    source_space,
    space_around,
    to_toml,
    with_settings,
)
from movierec.retrieval.fusion import USER_CONTEXTS

SETTINGS = Settings(dataset="tiny")
SPACE = SOURCE_SPACE | FEATURE_SPACE | RANKER_SPACE | fusion_space(SETTINGS, USER_CONTEXTS)


@pytest.mark.parametrize("name", SPACE)
def test_every_name_is_a_setting_that_accepts_all_values(name):
    assert name in describe_settings()
    one, default = SPACE[name], get_setting(SETTINGS, name)
    values = one.values if isinstance(one, Choice) else (one.low, one.high, math.sqrt(max(one.low, 1e-3) * one.high))
    if isinstance(one, Range):
        assert one.low < one.high and isinstance(one.low, int) == isinstance(default, int), "whole numbers stay whole"
        values = tuple(type(one.low)(value) for value in values)
    for value in values:
        set_to = get_setting(with_settings(SETTINGS, {name: value}), name)
        assert set_to == value or list(set_to) == list(value)


def test_the_defaults_are_within_the_space():
    around, start = space_around(SETTINGS, SPACE)
    assert around == SPACE, "no bound had to be widened"
    assert with_settings(SETTINGS, start) == SETTINGS


def test_each_source_with_parameters_has_a_space():
    assert set(source_space(SETTINGS)) == set(SOURCES) - {"popularity"}
    optional = with_settings(SETTINGS, {"content.enabled": True, "sasrec.enabled": True})
    assert {"content", "sasrec"} < set(source_space(optional))
    assert "hybrid.neural_weights.returning.sasrec" in fusion_space(optional, ("returning",))
    assert not any("new_user" in name for name in fusion_space(SETTINGS, ("returning",)))


def test_ones_own_values_widen_the_bounds():
    mine = with_settings(SETTINGS, {"als.factors": 500, "als.regularization": 0.0, "ease.last": 7})
    around, start = space_around(mine, SOURCE_SPACE)
    assert around["als.factors"].high == 500 == start["als.factors"]
    assert around["als.regularization"] == Range(0.0, 100.0, log=False), "a logarithm has no zero"
    assert around["ease.last"].values[0] == 7


def test_suggestions_are_within_the_bounds_and_short():
    trial = SimpleNamespace(
        suggest_float=lambda name, low, high, log: 1.23456789,
        suggest_int=lambda name, low, high, log: high,
        suggest_categorical=lambda name, values: values[-1],
    )
    assert Range(1.0, 2.0).suggest(trial, "x") == 1.235 and Range(1, 9).suggest(trial, "n") == 9
    assert Choice((None, (0.0, 0.5))).suggest(trial, "c") == [0.0, 0.5], "lists are stored as JSON"


def test_toml_has_what_differs_and_is_read_back(tmp_path):
    values = {"als.factors": 32, "linear_ar.decays": [0.5, 0.9], "hybrid.weights.returning.als": 0.0,
              "half_life_days": 3.5, "popularity_recent.half_life_days": 14.0, "item_item.weighting": "bm25",
              "content.enabled": True}
    tuned = with_settings(SETTINGS, values)
    text = to_toml(changed_settings(tuned), ("a comment", "of two lines"))
    assert text.startswith("# a comment\n# of two lines\nhalf_life_days = 3.5\n")
    parsed = tomllib.loads(text)
    assert parsed["hybrid"] == {"weights": {"returning": {"als": 0.0}}}, "nothing but what differs"
    (tmp_path / "movierec.toml").write_text(text)
    assert load_settings(tmp_path / "movierec.toml", dataset="tiny") == tuned
    assert changed_settings(SETTINGS) == {} and to_toml({}) == "\n"


def test_where_things_are_and_secrets_are_not_written(tmp_path):
    service = {"api_key": "very secret", "port": 9}
    settings = Settings(dataset="mine", data_dir=tmp_path, service=service, protocol="global-time")
    assert changed_settings(settings) == {}


def test_toml_has_no_null():
    with pytest.raises(ConfigError, match=r"download\.timeout can't be written"):
        to_toml({"download": {"timeout": None}})
