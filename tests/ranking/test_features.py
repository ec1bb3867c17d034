"""The declarations of the ranker's columns."""

from movierec.ranking.features import FEATURE_GROUPS, FEATURES, V1_FEATURES, V2_FEATURES, V3_FEATURES

FIXED_ORDER = (
    "user_interactions", "user_conf_sum", "user_conf_decay_sum", "user_days_since_last",
    "item_interactions", "item_conf_sum", "item_conf_decay_sum", "item_days_since_last",
    "item_genre_count", "user_item_genre_aff", "user_item_genre_aff_decay",
)


def test_the_order_of_the_base_features_is_fixed():
    assert FIXED_ORDER == V2_FEATURES, "trained models depend on it: put new features behind these"
    assert V3_FEATURES[:11] == FIXED_ORDER and FIXED_ORDER[:8] == V1_FEATURES


def test_every_feature_is_declared_once_and_in_one_group():
    assert len(set(V3_FEATURES)) == len(V3_FEATURES)
    assert sorted(feature.name for group in FEATURE_GROUPS.values() for feature in group) == sorted(V3_FEATURES)
    assert all(feature.meaning and feature.source and feature.dtype == "float32" for feature in FEATURES)
