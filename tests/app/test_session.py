"""The session: what is computed for the page, and what each action shows before and after the API answers."""

import json

import pytest

from movierec.app.session import (
    Session,
    SessionFeedback,
    become_new_user,
    choose_random_user,
    choose_user,
    close_panel,
    explain_movie,
    genre_ratings,
    give_feedback,
    open_panel,
    pick_movie,
    rank_changes,
    recent_profile,
    run_action,
    search_movies,
    set_options,
    start,
    unpick_movie,
)
from movierec.serving.feedback import ACTIONS, apply_action
from movierec.serving.service import UserFeedback

NO_FEEDBACK = {"likes": [], "dislikes": [], "saves": []}


def do(action, session, *args, **options):
    run_action(action(session, *args, **options))


def top(session):
    return session.page.top_picks()


# What is computed


def test_recent_profile(api):
    history = [api.movie(1, ("Comedy",), 1985), api.movie(2, ("Comedy", "Drama"), 2004), api.movie(3, (), None)]
    liked = api.movie(4, ("Horror",), 1999)
    profile = recent_profile(history, [liked])
    assert [(one["name"], one["share"]) for one in profile["genres"]] == [
        ("Comedy", 0.5), ("Horror", 0.3333), ("Drama", 0.1667)]
    assert [(one["name"], one["share"]) for one in profile["decades"]] == [
        ("1980", 0.3333), ("1990", 0.3333), ("2000", 0.3333)]
    assert [one["share"] for one in recent_profile(history[:2], [])["decades"]] == [0.5, 0.0, 0.5]
    assert recent_profile(history, [liked], last=1)["genres"] == [{"name": "Horror", "share": 1.0}]
    assert recent_profile([], []) == {"genres": [], "decades": []}


def test_genre_ratings(api):
    movies = [api.movie(1, ("Comedy",), rating=5.0), api.movie(2, ("Comedy", "Drama"), rating=2.0),
              api.movie(3, ("War",), rating=None)]
    assert genre_ratings(movies) == [
        {"name": "Comedy", "movies": 2, "stars": 3.5},
        {"name": "Drama", "movies": 1, "stars": 2.0},
        {"name": "War", "movies": 1, "stars": None},
    ]


def test_rank_changes():
    assert rank_changes([1, 2, 3], [3, 1, 4]) == {3: 2, 1: -1, 4: None} and rank_changes([], [1]) == {1: None}


# Feedback


def test_a_like_is_shown_at_once_and_then_counts(api, session):
    before = top(session)
    steps = give_feedback(session, before[2], "like")
    next(steps)
    assert session.viewer.feedback.items()["likes"] == [before[2]] and top(session) == before and api.feedback == {}
    run_action(steps)
    assert api.feedback[0]["like"] == [before[2]] and top(session)[0] == before[2] + 5
    changes = session.page.rank_changes
    assert (changes[before[2] + 5], changes[before[0]], changes[top(session)[-1]]) == (7, -1, None)
    do(give_feedback, session, before[2], "unlike")
    assert top(session) == before and session.viewer.feedback.items()["likes"] == []


def test_a_disliked_movie_disappears_at_once(session):
    first = top(session)[0]
    next(give_feedback(session, first, "dislike"))
    assert first not in top(session)


@pytest.mark.parametrize("failure", [
    {"is_down": True}, {"rejection": (422, "that isn't usable")}, {"rejection": (503, "the disk is full")}])
@pytest.mark.parametrize("action", ["like", "dislike", "save"])
def test_feedback_that_is_not_recorded_is_undone(api, session, failure, action):
    before = session.state()
    vars(api).update(failure)
    do(give_feedback, session, top(session)[0], action)
    after = session.state()
    assert [after[part] for part in ("rows", "feedback", "profile")] == [
        before[part] for part in ("rows", "feedback", "profile")]
    assert bool(after["status"]["unavailable"]) != bool(after["status"]["problem"])
    vars(api).update(is_down=False, rejection=None)
    do(start, session)
    assert session.state()["status"] == {"unavailable": None, "problem": None}


def test_a_save_needs_no_new_page(api, session):
    pages = len(api.requests_to("/home"))
    do(give_feedback, session, 4, "save")
    assert len(api.requests_to("/home")) == pages and session.viewer.feedback.items()["saves"] == [4]


def test_unknown_movies_and_actions_change_nothing(session):
    before = session.state()
    for item, action in ((12345, "like"), (3, "adore"), (3, "un")):
        do(give_feedback, session, item, action)
    assert session.state() == before


def test_feedback_shown_at_once_is_what_the_log_will_hold(api):
    """`SessionFeedback.after` follows the rules of the feedback log."""
    shown, recorded = SessionFeedback(), UserFeedback()
    for time in range(60):
        item, action = time * 7 % 4, ACTIONS[time * 5 % 6]
        shown, recorded = shown.after(api.movie(item), action), apply_action(recorded, item, action, time)
        assert shown.items() == {name: list(getattr(recorded, name)) for name in ("likes", "dislikes", "saves")}


def test_feedback_is_there_again_in_a_new_session(api, session):
    do(choose_user, session, 2)
    do(give_feedback, session, 1, "like")
    do(give_feedback, session, 3, "save")
    other = Session(api.client())
    do(start, other)
    do(choose_user, other, 2)
    assert other.viewer.feedback.items() == {"likes": [1], "dislikes": [], "saves": [3]} and top(other) == top(session)


# Users


def test_a_random_user_and_one_beyond_the_last(session):
    do(choose_random_user, session)
    assert 0 <= session.viewer.user < 10
    session.viewer.user = 500
    do(start, session)
    assert session.viewer.user == 9


def test_a_new_user(api, session):
    do(become_new_user, session)
    assert session.viewer.user is None and session.viewer.feedback.items() == NO_FEEDBACK and session.page.rows
    do(search_movies, session, "movie")
    assert [movie["item_idx"] for movie in session.search_results["movie"]] == [7, 8]
    do(pick_movie, session, 7)
    do(pick_movie, session, 7)  # only once
    assert [movie["item_idx"] for movie in session.viewer.picked] == [7] and session.search_results == {}
    assert 7 not in top(session) and top(session)[0] == 12
    do(give_feedback, session, 12, "like")
    do(give_feedback, session, 0, "dislike")
    sent = api.requests_to("/home")[-1]
    assert (sent["history"], sent["likes"], sent["dislikes"]) == ([{"item_idx": 7, "rating": 5.0}], [12], [0])
    assert api.feedback == {} and not {12, 0} & set(top(session))  # nothing is recorded
    do(unpick_movie, session, 7)
    assert session.viewer.picked == [] and 7 in top(session)
    do(pick_movie, session, 999)  # a movie that isn't on display
    assert session.viewer.picked == []


def test_a_new_user_comes_back(api, session):
    do(become_new_user, session)
    do(pick_movie, session, 7)
    do(give_feedback, session, 12, "like")
    again = Session(api.client())
    do(become_new_user, again, [7], **session.viewer.feedback.items())
    assert top(again) == top(session) and again.viewer.profile() == session.viewer.profile()
    assert again.viewer.feedback.items() == session.viewer.feedback.items()


# Options


def test_with_and_without_feedback(session):
    before = top(session)
    do(give_feedback, session, before[2], "like")
    liked = top(session)
    do(set_options, session, use_feedback=False)
    assert top(session) == before and session.state()["viewer"]["use_feedback"] is False
    do(set_options, session, use_feedback=True)
    assert top(session) == liked


def test_hiding_movies_shown_before(session):
    do(set_options, session, k=10)
    first = top(session)
    do(set_options, session, hide_shown=True)
    second = top(session)
    assert not set(first) & set(second)
    do(give_feedback, session, second[0], "like")
    assert len(set(second[1:]) & set(top(session))) >= 8  # a like doesn't hide the page
    do(set_options, session, hide_shown=True)
    assert not (set(first) | set(second)) & set(top(session))
    do(set_options, session, hide_shown=False)
    assert set(first[:2]) <= set(top(session))


def test_options_are_sent(api, session):
    options = {"genres": ["Comedy"], "from_year": 1980, "to_year": 1989, "k": 30, "diversity": 0.3}
    do(set_options, session, **options)
    assert api.requests_to("/home")[-1] == {"user_idx": 0, "feedback": True, "hide": [], "calibrate": 0.0} | options


# The side panel, and an API that goes down


def test_the_side_panel(api, session):
    do(explain_movie, session, 3)
    assert session.detail["kind"] == "why" and session.detail["movie"]["item_idx"] == 3
    do(open_panel, session, "history")
    assert [movie["item_idx"] for movie in session.detail["movies"]] == [50, 51]
    assert session.detail["genres"][0] == {"name": "Comedy", "movies": 2, "stars": 4.0}
    do(open_panel, session, "debug")
    assert session.detail["kind"] == "debug"
    do(close_panel, session)
    assert session.detail is None


def test_a_rejected_request_is_reported_and_leaves_the_page(api, session):
    before = session.page.rows
    api.rejection = (404, "Movie 3 is not among the candidates")
    do(explain_movie, session, 3)
    assert session.problem == "Movie 3 is not among the candidates" and session.unavailable is None
    assert session.page.rows == before


def test_the_api_goes_down_and_comes_back(api, session):
    rows = session.page.rows
    api.is_down = True
    do(set_options, session, diversity=0.5)
    assert session.unavailable.startswith("nothing answers") and session.page.rows == rows
    do(choose_user, session, 3)
    assert session.unavailable and session.page.rows == []
    api.is_down = False
    do(start, session)
    assert session.unavailable is None and session.viewer.user == 3 and session.page.rows
    assert session.options.diversity == 0.5


def test_the_state_is_json(session):
    assert json.loads(json.dumps(session.state())) == session.state()
