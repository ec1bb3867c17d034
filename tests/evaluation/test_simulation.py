"""The simulated experiments against closed forms, plain loops, scipy and cases worked by hand."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse, stats

from movierec.config import ConfigError, DataError
from movierec.evaluation.simulation import (
    UserModel,
    ab_test,
    clicks_by_overlap,
    expected_clicks,
    false_positive_rate,
    interleave,
    plot_power,
    power_curve,
    sample_size,
    sign_test,
    simulate,
    take_drafted,
    team_draft,
    users_for_power,
)
from movierec.metrics import hits

LITERAL = UserModel(patience=1, p_click=1, p_noise=0)  # reads everything, clicks what is relevant and nothing else


def random_lists(rng, n_users, n_items, k):
    """Lists of different lengths, also empty ones."""
    ranked = np.full((n_users, k), -1)
    for row in ranked:
        length = rng.integers(0, k + 1)
        row[:length] = rng.permutation(n_items)[:length]
    return ranked


def random_case(seed=0, n_users=60, n_items=30, k=8):
    rng = np.random.default_rng(seed)
    relevant = sparse.csr_matrix((rng.random((n_users, n_items)) < 0.2).astype(np.float32))
    return random_lists(rng, n_users, n_items, k), random_lists(rng, n_users, n_items, k), relevant


def one_better(n_users=50, k=5):
    """A's first movie is what each user wants; B has it in the third place."""
    a = np.tile(np.arange(k), (n_users, 1))
    b = a[:, [1, 2, 0, *range(3, k)]]
    return a, b, sparse.csr_matrix(np.tile(np.arange(k) == 0, (n_users, 1)).astype(float))


# the user model


@given(st.integers(0, 10_000), st.sampled_from([0.0, 0.4, 0.85, 1.0]))
@settings(max_examples=15, deadline=None)
def test_moments_against_a_sum_over_all_ways_to_click(seed, patience):
    """Every depth of reading and every pattern of clicks of a short list, with its probability."""
    rng, k = np.random.default_rng(seed), 4
    chance = rng.random((1, k)).astype(np.float32)
    depths = [patience ** (depth - 1) * (1 - patience if depth < k else 1) for depth in range(1, k + 1)]
    mean = square = 0.0
    for depth, share in enumerate(depths, 1):
        for pattern in range(2**depth):
            clicked = np.array([pattern >> place & 1 for place in range(depth)], bool)
            probability = share * np.where(clicked, chance[0, :depth], 1 - chance[0, :depth]).prod(dtype=float)
            mean, square = mean + probability * clicked.sum(), square + probability * clicked.sum() ** 2
    ours = UserModel(patience).click_moments(chance)
    assert (ours[0].item(), ours[1].item()) == (pytest.approx(mean), pytest.approx(square))


@pytest.mark.parametrize("model", [UserModel(), UserModel(0.5, 0.6, 0.1), UserModel(1, 0.3, 0.3)])
def test_simulated_clicks_have_the_expected_moments(model):
    ranked, _, relevant = random_case()
    chance, times = model.click_probabilities(ranked, relevant), 4_000
    clicks = model.simulate_clicks(np.tile(chance, (times, 1)), np.random.default_rng(1)).sum(axis=1).reshape(times, -1)
    mean, square = model.click_moments(chance)
    error = np.sqrt((square - mean**2) / times)
    assert (np.abs(clicks.mean(axis=0) - mean) <= 5 * error + 1e-6).all()
    total = np.sqrt((square - mean**2).sum() / times)
    assert abs(clicks.mean(axis=0).sum() - mean.sum()) < 4 * total
    assert (clicks**2).mean() == pytest.approx(square.mean(), rel=0.02)


def test_a_literal_user_clicks_the_hits_and_an_impatient_one_only_in_the_first_place():
    ranked, _, relevant = random_case()
    rng = np.random.default_rng(0)
    assert (LITERAL.simulate_clicks(LITERAL.click_probabilities(ranked, relevant), rng) == hits(ranked, relevant)).all()
    impatient = UserModel(patience=0, p_click=1, p_noise=1)
    clicks = impatient.simulate_clicks(impatient.click_probabilities(ranked, relevant), rng)
    assert (clicks[:, 0] == (ranked[:, 0] >= 0)).all() and not clicks[:, 1:].any()


def test_no_clicks_after_the_end_of_the_list():
    ranked, _, relevant = random_case()
    model = UserModel(1, 1, 1)
    clicks = model.simulate_clicks(model.click_probabilities(ranked, relevant), np.random.default_rng(0))
    assert (clicks == (ranked >= 0)).all()


@pytest.mark.parametrize("wrong", [{"patience": 1.2}, {"p_click": -0.1}, {"p_noise": float("nan")}])
def test_a_model_of_impossible_probabilities(wrong):
    with pytest.raises(ConfigError, match=f"{next(iter(wrong))} .* between 0 and 1"):
        UserModel(**wrong)


# team draft


def draft_one(a, b, coins):
    """The algorithm of Radlinski et al. (2008), user by user; the other team goes on where a list is used up."""
    a, b, k = [movie for movie in a if movie >= 0], [movie for movie in b if movie >= 0], len(coins)
    merged, teams = [], []
    for place in range(k):
        left = {"A": [movie for movie in a if movie not in merged], "B": [movie for movie in b if movie not in merged]}
        lead = teams.count("A") - teams.count("B")
        first = "A" if lead < 0 or (lead == 0 and coins[place]) else "B"
        team = first if left[first] else "AB".replace(first, "")
        if not left[team]:
            break
        merged.append(left[team][0])
        teams.append(team)
    return merged + [-1] * (k - len(merged)), teams + [None] * (k - len(teams))


@given(st.integers(0, 10_000), st.integers(1, 9))
@settings(max_examples=40, deadline=None)
def test_team_draft_against_a_plain_loop(seed, k):
    rng = np.random.default_rng(seed)
    a, b, coins = random_lists(rng, 20, 12, k), random_lists(rng, 20, 12, k), rng.integers(0, 2, (20, k), dtype=bool)
    draft = team_draft(a, b, coins)
    merged = take_drafted(a, b, draft, -1)
    teams = np.select([draft < 0, draft < k], [None, "A"], "B")
    for user in range(20):
        expected = draft_one(a[user].tolist(), b[user].tolist(), coins[user])
        assert (merged[user].tolist(), teams[user].tolist()) == expected


def test_team_draft_properties():
    rng, k, n = np.random.default_rng(3), 10, 200
    a, b = (np.argsort(rng.random((n, 15)), axis=1)[:, :k] for _ in range(2))
    coins = rng.integers(0, 2, (n, k), dtype=bool)
    draft = team_draft(a, b, coins)
    merged, from_a = take_drafted(a, b, draft, -1), draft < k
    for start in range(0, k, 2):  # in each round both teams pick once, in the order of the coin
        assert (from_a[:, start] == coins[:, start]).all() and (from_a[:, start] != from_a[:, start + 1]).all()
    for user in range(n):
        movies = merged[user].tolist()
        assert len(set(movies)) == k
        for shown in range(k + 1):  # whatever is shown consists of the best movies of both lists
            seen = set(movies[:shown])
            longest = [max(depth for depth in range(k + 1) if set(ranked[user, :depth]) <= seen) for ranked in (a, b)]
            assert set(a[user, : longest[0]]) | set(b[user, : longest[1]]) == seen


def test_team_draft_of_the_same_list_is_that_list():
    a = np.array([[4, 2, 7, 1], [3, 5, -1, -1]])
    coins = np.array([[True, False, False, True], [False, True, True, False]])
    draft = team_draft(a, a, coins)
    assert (take_drafted(a, a, draft, -1) == a).all()
    assert ((draft >= 0) == (a >= 0)).all()


def test_team_draft_with_empty_lists():
    nothing, some = np.array([[-1, -1, -1]]), np.array([[8, 6, -1]])
    coins = np.ones((1, 3), bool)
    assert team_draft(nothing, nothing, coins).tolist() == [[-1, -1, -1]]
    assert team_draft(nothing, some, coins).tolist() == [[3, 4, -1]]
    assert team_draft(some, nothing, coins).tolist() == [[0, 1, -1]]
    assert take_drafted(nothing, some, team_draft(nothing, some, coins), -1).tolist() == [[8, 6, -1]]


# one experiment


def test_ab_test_against_scipy_on_users_who_do_what_the_log_says():
    """A literal user's clicks are the hits, so the arms can be recovered, and the test be made with scipy."""
    a, b, relevant = random_case(n_users=61)
    result = ab_test(a, b, relevant, LITERAL, seed=5)
    assert (result["n_a"], result["n_b"]) == (31, 30)
    order = np.random.default_rng(5).permutation(61)
    arm_a, arm_b = hits(a, relevant)[order[:31]].sum(axis=1), hits(b, relevant)[order[31:]].sum(axis=1)
    for outcome, x, y in (("clicks", arm_a, arm_b), ("any_click", arm_a > 0, arm_b > 0)):
        test = stats.ttest_ind(x.astype(float), y.astype(float), equal_var=False)
        assert result[outcome]["difference"] == pytest.approx(x.mean() - y.mean())
        assert result[outcome]["p"] == pytest.approx(test.pvalue)
        assert result[outcome]["ci95"] == pytest.approx(list(test.confidence_interval()))


def test_ab_test_without_any_variance(recwarn):
    a, _, relevant = one_better()
    nothing = np.full_like(a, -1)
    assert ab_test(a, a, relevant, LITERAL)["clicks"] == {"a": 1, "b": 1, "difference": 0, "ci95": [0, 0], "p": 1}
    assert ab_test(a, nothing, relevant, LITERAL)["clicks"] == {"a": 1, "b": 0, "difference": 1, "ci95": [1, 1], "p": 0}
    assert not recwarn.list


def test_interleaving_credits_the_team_that_brought_the_movie():
    """The relevant movie is A's first and B's third: whether A begins or answers, A has it, so A wins every user."""
    result = interleave(*one_better(), LITERAL)
    assert (result["wins"], result["ties"], result["losses"]) == (50, 0, 0)
    assert (result["credit_a"], result["credit_b"], result["difference"], result["ci95"]) == (1, 0, 1, [1, 1])
    assert result["p"] == pytest.approx(2 * 0.5**50)
    a, b, relevant = one_better()
    assert interleave(b, a, relevant, LITERAL)["losses"] == 50


def test_interleaving_of_empty_lists_is_all_ties():
    _, _, relevant = one_better()
    nothing = np.full((50, 5), -1)
    result = interleave(nothing, nothing, relevant)
    assert (result["ties"], result["difference"], result["p"]) == (50, 0, 1)


def test_sign_test_against_scipy():
    wins, losses = np.array([0, 3, 10, 9, 40, 7]), np.array([0, 0, 2, 9, 20, 8])
    theirs = [stats.binomtest(int(w), int(w + n)).pvalue if w + n else 1 for w, n in zip(wins, losses, strict=True)]
    assert sign_test(wins, losses) == pytest.approx(theirs)


def test_lists_that_do_not_belong_together():
    a, b, relevant = one_better()
    for wrong in ((a, b[:, :3], relevant), (a, b[:20], relevant), (a, b, relevant[:20])):
        with pytest.raises(ValueError, match="same users"):
            ab_test(*wrong)
    with pytest.raises(DataError, match="at least four test users"):
        interleave(a[:3], b[:3], relevant[:3])


# many experiments


def test_sample_size_by_hand():
    """2 (1.959964 + 0.841621)² · 1 / 0.5² = 62.79: the textbook's 63 per arm for half a standard deviation."""
    assert sample_size(0.5, 1) == 63
    assert sample_size(-0.5, 1) == 63
    assert sample_size(0.5, 4) == math.ceil(4 * 62.791)
    assert sample_size(0.5, 1, power=0.9) == 85  # 2 (1.959964 + 1.281552)² / 0.25 = 84.06
    assert sample_size(0, 1) is None


def test_users_for():
    assert users_for_power((100, 200, 400), (0.2, 0.6, 1.0)) == math.ceil(200 * 2**0.5)
    assert users_for_power((100, 200), (0.9, 1.0)) == 100
    assert users_for_power((100, 200), (0.1, 0.79)) is None


def test_expected_clicks_by_hand():
    """The relevant movie is A's first and B's third: 0.8 against 0.85² · 0.8, plus slips on the other places."""
    truth = expected_clicks(*one_better(k=3))
    assert truth["a"] == pytest.approx(0.8 + 0.02 * (0.85 + 0.85**2))
    assert truth["b"] == pytest.approx(0.85**2 * 0.8 + 0.02 * (1 + 0.85))
    assert truth["difference"] == pytest.approx(truth["a"] - truth["b"])


def test_the_mean_over_many_ab_tests_is_the_expected_difference():
    a, b, relevant = random_case()
    truth = expected_clicks(a, b, relevant)
    differences = [ab_test(a, b, relevant, seed=seed)["clicks"]["difference"] for seed in range(300)]
    assert abs(np.mean(differences) - truth["difference"]) < 4 * np.std(differences) / np.sqrt(300)


def test_measured_power_agrees_with_the_formula():
    a, b, relevant = random_case()
    truth = expected_clicks(a, b, relevant)
    n = 2 * sample_size(truth["difference"], truth["variance"])
    curve = power_curve(a, b, relevant, sizes=(n // 4, n), trials=200)
    assert curve["ab_test_formula"][1] == pytest.approx(0.8, abs=0.01)
    low, high = stats.binom.ppf([0.0005, 0.9995], 200, 0.8) / 200
    assert low <= curve["ab_test"][1] <= high
    assert curve["ab_test"][0] < curve["ab_test"][1]


def test_only_a_result_for_the_better_system_is_power():
    """Half of the users leave after the first rank: A has the relevant movie there, B two ranks later."""
    a, b, relevant = one_better()
    model = UserModel(patience=0.5, p_click=1, p_noise=0)
    for pair in ((a, b), (b, a)):
        curve = power_curve(*pair, relevant, model, sizes=(200,), trials=50)
        assert curve["interleave"] == [1] and curve["ab_test"] == [1]


def test_what_the_two_methods_measure_can_differ(recwarn):
    """A user who reads everything finds the movie in both lists: no difference in clicks, so no result is right;
    interleaving prefers A all the same."""
    a, b, relevant = one_better()
    assert expected_clicks(a, b, relevant, LITERAL)["difference"] == 0
    curve = power_curve(a, b, relevant, LITERAL, sizes=(40,), trials=50)
    assert curve["interleave"] == curve["ab_test"] == [0] and curve["ab_test_formula"] == [pytest.approx(0.025)]
    assert interleave(a, b, relevant, LITERAL)["wins"] == 50
    assert not recwarn.list


@pytest.mark.parametrize("n_users", [100, 501])
def test_false_positives_are_as_rare_as_they_should_be(n_users):
    a, _, relevant = random_case(n_users=80)
    found = false_positive_rate(a, relevant, n_users=n_users, trials=1_000, seed=4)
    low, high = stats.binom.ppf([0.0005, 0.9995], 1_000, 0.05) / 1_000
    assert low <= found["ab_test"] <= high
    assert 0.01 < found["interleave"] <= high  # the sign test is discrete: at most 5 %


def test_experiments_without_users_or_trials_are_refused():
    a, b, relevant = one_better()
    for sizes, trials in (((), 10), ((2, 100), 10), ((100,), 0)):
        with pytest.raises(ConfigError, match="at least four users and one trial"):
            power_curve(a, b, relevant, sizes=sizes, trials=trials)


def test_simulate_is_json_labelled_and_the_same_each_time():
    a, b, relevant = random_case()
    arguments = {"names": ("new", "old"), "sizes": (50, 100), "trials": 40}
    result = simulate(a, b, relevant, **arguments, seed=1)
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert result["simulation"] is True and "No evidence about live users" in result["note"]
    assert result["systems"] == {"a": "new", "b": "old"}
    assert result["user_model"] == {"patience": 0.85, "p_click": 0.8, "p_noise": 0.02}
    assert (result["seed"], result["n_users"], result["k"]) == (1, 60, 8)
    assert simulate(a, b, relevant, **arguments, seed=1) == result
    other = simulate(a, b, relevant, **arguments, seed=2)
    assert other["power"] != result["power"] and other["expected"] == result["expected"]


def test_the_plot_shows_the_numbers_of_the_result(recwarn):
    a, b, relevant = random_case()
    result = simulate(a, b, relevant, ("new", "old"), sizes=(50, 100), trials=40)
    axis = plot_power(result).axes[0]
    lines = {line.get_label().split(":")[0]: line for line in axis.lines}
    assert lines["A/B test"].get_ydata().tolist() == result["power"]["ab_test"]
    assert lines["interleaving"].get_ydata().tolist() == result["power"]["interleave"]
    assert plot_power(result).get_suptitle().startswith("Simulation: new against old")


def test_no_sample_size_suffices_for_equal_systems():
    a, _, relevant = random_case()
    result = simulate(a, a, relevant, sizes=(50,), trials=20)
    assert result["users_for_80_percent"] == {"ab_test_formula": None, "ab_test": None, "interleave": None}
    assert "no number suffices" in plot_power(result).axes[0].lines[2].get_label()


def test_clicks_by_overlap_against_a_plain_loop():
    rng, model = np.random.default_rng(3), UserModel()
    a, b = random_lists(rng, 40, 12, 5), random_lists(rng, 40, 12, 5)
    relevant = sparse.csr_matrix((rng.random((40, 12)) < 0.3).astype(np.float32))
    parts = clicks_by_overlap(a, b, relevant, model)
    for name, mine, theirs in (("a", a, b), ("b", b, a)):
        expected = {"own": 0.0, "shared": 0.0}
        for user in range(40):
            for rank, item in enumerate(mine[user].tolist()):
                if item >= 0:
                    click = model.p_click if relevant[user, item] else model.p_noise
                    expected["shared" if item in theirs[user] else "own"] += model.patience**rank * click / 40
        assert parts[name] == pytest.approx(expected, rel=1e-6)
    shared = np.mean([len(set(one[one >= 0]) & set(other[other >= 0])) for one, other in zip(a, b, strict=True)])
    assert parts["shared_movies"] == pytest.approx(shared)
