"""Tables, marks and Markdown of results."""

from movierec.evaluation.tables import (
    as_markdown,
    comparison_table,
    comparison_text,
    describe_users,
    significance_marks,
)


def test_marks():
    results = {
        "systems": {"a": {}, "b": {}, "c": {}},
        "significance": {
            "clear": {"system": "a", "significantly_best": True, "versus": {}},
            "close": {"system": "b", "significantly_best": False,
                      "versus": {"a": {"p_holm": 0.3}, "c": {"p_holm": 0.01}}},
        },
    }
    assert significance_marks(results, "clear") == {"a": "★", "b": "", "c": ""}
    assert significance_marks(results, "close") == {"a": "≈", "b": "≈", "c": ""}


def test_a_table_has_the_metrics_of_the_segment(tiny_run):
    results = tiny_run[1]["global-time"]
    table = comparison_table(results, segment="head")
    assert table.loc["als", "recall@10"] == results["systems"]["als"]["segments"]["head"]["recall@10"]
    assert comparison_table(results).loc["als", "recall@10"] == results["systems"]["als"]["recall@10"]


def test_text_becomes_a_markdown_table(tiny_run):
    results = tiny_run[1]["global-time"]
    lines = as_markdown(comparison_text(results)).splitlines()
    first = [line.split(" | ")[0] for line in lines]
    assert first == ["| system", "| ---", *(f"| {name}" for name in results["systems"])]
    assert len({line.count("|") for line in lines}) == 1


def test_users_in_words(tiny_run, sampled_run):
    whole, part = (results["leave-last-out"] for _, results in (tiny_run, sampled_run))
    assert describe_users(whole) == f"{whole['systems']['als']['n_users']} users"
    n_users = part["systems"]["als"]["n_users"]
    assert describe_users(part) == f"{n_users} users from a random sample of 8 of 80 users"
    assert describe_users(part, 1_234) == "1,234 users from a random sample of 8 of 80 users"
