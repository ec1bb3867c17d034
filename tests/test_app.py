"""The app without a browser: the client's errors, and what a session shows and promises."""

import json
from itertools import count

import httpx
import pytest

from movierec.app.client import ApiAway, ApiClient, ApiError
from movierec.app.page import Page, api_url
from movierec.app.session import Session, SessionFeedback, genre_ratings, moves, profile
from movierec.config import load_settings


def film(item, genres=("Drama",), year=1990, **more):
    return {"item_idx": item, "movieId": item + 1, "title": f"Film {item}", "year": year, "genres": list(genres)} | more


def card(item, rank=1):
    return film(item, rank=rank, score=1.0, match=0.5, reason="Trending now")


class FakeApi:
    """Answers like the API: likes go to the end of the list, dislikes leave it; may be told to be away or to refuse."""

    def __init__(self):
        self.said, self.calls, self.away, self.refuse = {}, [], False, None
        self.history = [film(50, ("Comedy",), 1985, rating=4.0, timestamp=9), film(51, ("Comedy", "Drama"), 1994, rating=None, timestamp=5)]

    def client(self):
        return ApiClient("http://api", transport=httpx.MockTransport(self.answer))

    def answer(self, request):
        path, body = request.url.path, json.loads(request.content or b"{}")
        self.calls.append((request.method, path, body))
        if self.away:
            raise httpx.ConnectError("refused")
        if self.refuse:
            return httpx.Response(self.refuse[0], json={"detail": self.refuse[1]})
        return httpx.Response(200, json=self.told(request, path, body))

    def told(self, request, path, body):
        if path == "/about":
            return {"model": "m1", "users": 10, "movies": 60, "genres": ["Comedy", "Drama"], "years": [1950, 2000], "dataset": "fake", "system": "fake"}
        if path == "/posters":
            return {"movies": 60, "from_tmdb": 3, "attribution": {"text": "By TMDB.", "link": "https://www.themoviedb.org/"}}
        if path == "/home":
            user = body.get("user_idx")
            said = self.said.get(user, {}) if body.get("feedback", True) else {}
            liked = [*said.get("like", []), *body.get("likes", []), *(one["item_idx"] for one in body.get("history", []))]
            gone = {*said.get("dislike", []), *body.get("dislikes", []), *body["hide"]}
            order = [item for item in range(40) if item not in gone and item not in liked]
            first = sorted(order, key=lambda item: (-(item in {one + 5 for one in liked}), item))[: body["k"]]
            return {"system": "fake", "model": "m1", "notes": [], "rows": [{"kind": "top", "about": None, "items": [card(item, rank) for rank, item in enumerate(first, 1)]}]}
        if path == "/feedback":
            said = self.said.setdefault(body["user_idx"], {})
            kind, on = body["action"].removeprefix("un"), not body["action"].startswith("un")
            for other in {"like": ("like", "dislike"), "dislike": ("like", "dislike"), "save": ("save",)}[kind] if on else (kind,):
                said[other] = [item for item in said.get(other, []) if item != body["item_idx"]]
            said[kind] = said.get(kind, []) + [body["item_idx"]] * on
            return {"new": True, "feedback": self.opinion(body["user_idx"])}
        if path.startswith("/feedback/"):
            return self.opinion(int(path.rpartition("/")[2]))
        if path.endswith("/history"):
            return self.history
        if path.startswith("/movies/"):
            return film(int(path.rpartition("/")[2]))
        if path == "/movies":
            return [film(7), film(8)]
        return {"movie": card(body["item_idx"])} if path == "/why" else {"items": []}

    def opinion(self, user):
        said = self.said.get(user, {})
        return {"user_idx": user, **{f"{kind}s": [{"movie": film(item), "time": 1} for item in said.get(kind, [])] for kind in ("like", "dislike", "save")}}


@pytest.fixture
def api():
    return FakeApi()


@pytest.fixture
def session(api):
    session = Session(api.client())
    do(session.start())
    return session


def do(steps):
    for _ in steps:
        pass


def top(session):
    return [one["item_idx"] for one in session.rows[0]["items"]]


# The client


@pytest.mark.parametrize(("answer", "kind", "part"), [
    (httpx.ConnectError("x"), ApiAway, "nothing answers at http://api"), (httpx.ReadTimeout("x"), ApiAway, "hasn't answered within 5 seconds"), (httpx.RemoteProtocolError("x"), ApiAway, "broke off"),
    (httpx.Response(200, text="<html>"), ApiAway, "is not movierec's API"), (httpx.Response(503, json={"detail": "not ready: it is starting"}), ApiAway, "not ready"), (httpx.Response(429, json={"detail": "slow down"}), ApiAway, "slow down"),
    (httpx.Response(404, json={"detail": "there is no user_idx 9"}), ApiError, "there is no user_idx 9"), (httpx.Response(401, json=[1]), ApiError, "answered 401")])
def test_what_goes_wrong_is_a_sentence(answer, kind, part):
    def give(request):
        if isinstance(answer, Exception):
            raise answer
        return answer

    with pytest.raises(ApiError, match=part) as caught:
        ApiClient("http://api/", transport=httpx.MockTransport(give)).history(9)
    assert type(caught.value) is kind and "\n" not in str(caught.value)


def test_a_dead_connection_is_tried_once_more():
    calls = count()

    def give(request):
        if next(calls) == 0:
            raise httpx.RemoteProtocolError("closed")
        return httpx.Response(200, json=[])

    assert ApiClient("http://api", transport=httpx.MockTransport(give)).history(1) == [] and next(calls) == 2


def test_feedback_that_is_repeated_keeps_its_key():
    keys = []

    def give(request):
        keys.append(json.loads(request.content)["idempotency_key"])
        if len(keys) == 1:
            raise httpx.ReadError("gone")
        return httpx.Response(200, json={"new": False, "feedback": {}})

    client = ApiClient("http://api", transport=httpx.MockTransport(give))
    client.give(1, 2, "like")
    client.give(1, 2, "like")
    assert keys[0] == keys[1] != keys[2]


def test_what_is_kept_is_forgotten_with_the_model(api):
    client = api.client()
    client.about()
    for _ in range(2):
        client.history(3)
    assert [path for _, path, _ in api.calls].count("/users/3/history") == 1
    for query in range(300):
        client.search(f"film {query}")
    assert len(client._cached_ranking) <= 200
    client._cached_ranking["model"] = "m0"
    client.about()
    assert client._cached_ranking == {"model": "m1"}


def test_the_key_and_the_address():
    def give(request):
        return httpx.Response(200, json=[request.headers.get("X-API-Key")])

    assert ApiClient("http://api", key="correct horse", transport=httpx.MockTransport(give)).history(1) == ["correct horse"]
    assert api_url(load_settings()) == "http://127.0.0.1:8000" and api_url(load_settings(service={"host": "::", "port": 9})) == "http://[::1]:9"
    assert api_url(load_settings(app={"api_url": "https://films.example/"})) == "https://films.example"


def test_whom_to_name_for_posters(api):
    assert api.client().posters()["attribution"]["text"] == "By TMDB."
    api.refuse = (404, "there is nothing at this address")
    assert api.client().posters() == {"attribution": None}
    api.away = True
    with pytest.raises(ApiAway):
        api.client().posters()


# What is computed


def test_profile():
    films = [film(1, ("Comedy",), 1985), film(2, ("Comedy", "Drama"), 2004), film(3, (), None)]
    told = profile(films, [film(4, ("Horror",), 1999)])
    assert told["genres"] == [{"name": "Comedy", "share": 0.5}, {"name": "Horror", "share": 0.3333}, {"name": "Drama", "share": 0.1667}]
    assert told["decades"] == [{"name": "1980", "share": 0.3333}, {"name": "1990", "share": 0.3333}, {"name": "2000", "share": 0.3333}] and told["films"] == 4
    assert [one["share"] for one in profile([films[0], films[1]], [])["decades"]] == [0.5, 0.0, 0.5]
    assert profile(films, [film(4, ("Horror",))], last=1)["genres"] == [{"name": "Horror", "share": 1.0}]
    assert profile([], []) == {"films": 0, "genres": [], "decades": []}


def test_genre_ratings():
    told = genre_ratings([film(1, ("Comedy",), rating=5.0), film(2, ("Comedy", "Drama"), rating=2.0), film(3, ("War",), rating=None)])
    assert told == [{"name": "Comedy", "films": 2, "stars": 3.5}, {"name": "Drama", "films": 1, "stars": 2.0}, {"name": "War", "films": 1, "stars": None}]


def test_moves():
    assert moves([1, 2, 3], [3, 1, 4]) == {3: 2, 1: -1, 4: None} and moves([], [1]) == {1: None}


def test_saying_is_what_the_log_says():
    """The promise for an action is what `feedback.said` makes of it."""
    from movierec.serving.feedback import ACTIONS, said
    from movierec.serving.service import UserFeedback

    mine, theirs = SessionFeedback(), UserFeedback()
    for moment in range(60):
        item, action = moment * 7 % 4, ACTIONS[moment * 5 % 6]
        mine, theirs = mine.after(film(item), action), said(theirs, item, action, moment)
        assert mine.items() == {"likes": list(theirs.likes), "dislikes": list(theirs.dislikes), "saves": list(theirs.saves)}


# A session


def test_a_like_is_promised_and_kept(api, session):
    before = top(session)
    steps = session.say(before[2], "like")
    next(steps)
    assert session.saying.items()["likes"] == [before[2]] and top(session) == before and api.said == {}
    do(steps)
    assert api.said[0]["like"] == [before[2]] and top(session)[0] == before[2] + 5
    assert session.moved[before[2] + 5] == 7 and session.moved[before[0]] == -1 and session.moved[top(session)[-1]] is None
    do(session.say(before[2], "unlike"))
    assert top(session) == before and session.saying.items()["likes"] == []


def test_a_disliked_film_goes_at_once(session):
    first = top(session)[0]
    next(session.say(first, "dislike"))
    assert first not in top(session)


@pytest.mark.parametrize("trouble", [{"away": True}, {"refuse": (422, "that isn't usable")}, {"refuse": (503, "the feedback can't be kept: no space")}])
@pytest.mark.parametrize("action", ["like", "dislike", "save"])
def test_a_promise_that_can_not_be_kept_is_taken_back(api, session, trouble, action):
    before = session.state()
    vars(api).update(trouble)
    do(session.say(top(session)[0], action))
    after = session.state()
    assert {name: after[name] for name in ("rows", "saying", "taste")} == {name: before[name] for name in ("rows", "saying", "taste")}
    assert bool(after["status"]["away"]) != bool(after["status"]["problem"])
    vars(api).update(away=False, refuse=None)
    do(session.start())
    assert session.state()["status"] == {"away": None, "problem": None}


def test_the_api_goes_and_comes_back(api, session):
    rows = session.rows
    api.away = True
    do(session.wish(diversity=0.5))
    assert session.away.startswith("nothing answers") and session.rows == rows
    do(session.choose(3))
    assert session.away and session.rows == []
    api.away = False
    do(session.start())
    assert session.away is None and session.user == 3 and session.wishes.diversity == 0.5 and session.rows


def test_a_save_asks_for_no_new_list(api, session):
    pages = [path for _, path, _ in api.calls].count("/home")
    do(session.say(4, "save"))
    assert [path for _, path, _ in api.calls].count("/home") == pages and session.saying.items()["saves"] == [4]


def test_feedback_is_there_again_in_a_new_session(api, session):
    do(session.choose(2))
    do(session.say(1, "like"))
    do(session.say(3, "save"))
    other = Session(api.client())
    do(other.start())
    do(other.choose(2))
    assert other.saying.items() == {"likes": [1], "dislikes": [], "saves": [3]} and top(other) == top(session)


def test_with_and_without_feedback(session):
    before = top(session)
    do(session.say(before[2], "like"))
    liked = top(session)
    do(session.wish(use_feedback=False))
    assert top(session) == before and session.state()["person"]["use_feedback"] is False
    do(session.wish(use_feedback=True))
    assert top(session) == liked


def test_hiding_what_was_shown(session):
    do(session.wish(k=10))
    first = top(session)
    do(session.wish(hide_shown=True))
    second = top(session)
    assert not set(first) & set(second)
    do(session.say(second[0], "like"))
    assert len(set(second[1:]) & set(top(session))) >= 8  # a like doesn't hide the page
    do(session.wish(hide_shown=True))
    assert not (set(first) | set(second)) & set(top(session))
    do(session.wish(hide_shown=False))
    assert set(first[:2]) <= set(top(session))


def test_wishes_are_sent(api, session):
    do(session.wish(genres=["Comedy"], from_year=1980, to_year=1989, k=30, diversity=0.3))
    sent = api.calls[-1][2]
    assert sent == {"user_idx": 0, "feedback": True, "k": 30, "diversity": 0.3, "genres": ["Comedy"], "from_year": 1980, "to_year": 1989, "hide": []}


def test_a_newcomer(api, session):
    do(session.newcomer())
    assert session.user is None and session.saying.items() == {"likes": [], "dislikes": [], "saves": []} and session.rows
    do(session.search("film"))
    assert [one["item_idx"] for one in session.found["film"]] == [7, 8]
    do(session.pick(7))
    do(session.pick(7))
    assert [one["item_idx"] for one in session.picked] == [7] and session.found == {} and 7 not in top(session) and top(session)[0] == 12
    do(session.say(12, "like"))
    do(session.say(0, "dislike"))
    assert api.calls[-1][2]["history"] == [{"item_idx": 7, "rating": 5.0}] and api.calls[-1][2]["likes"] == [12] and api.calls[-1][2]["dislikes"] == [0] and api.said == {}
    assert {12, 0} & set(top(session)) == set()
    do(session.unpick(7))
    assert session.picked == [] and 7 in top(session)
    do(session.pick(999))  # nobody has seen such a film
    assert session.picked == []
    again = Session(api.client())
    do(again.newcomer([one["item_idx"] for one in session.picked], **session.saying.items()))
    assert top(again) == top(session) and again.saying.items() == session.saying.items()


def test_surprise_and_a_user_beyond_the_last(session):
    do(session.surprise())
    assert 0 <= session.user < 10
    session.user = 500
    do(session.start())
    assert session.user == 9


def test_details(api, session):
    do(session.explain(3))
    assert session.detail["kind"] == "why" and session.detail["movie"]["item_idx"] == 3
    do(session.look("history"))
    assert [one["item_idx"] for one in session.detail["films"]] == [50, 51] and session.detail["genres"][0] == {"name": "Comedy", "films": 2, "stars": 4.0}
    do(session.look("debug"))
    assert session.detail["kind"] == "debug"
    do(session.close())
    assert session.detail is None
    before = session.rows
    api.refuse = (404, "Film 3 is not among the candidates")
    do(session.explain(3))
    assert session.problem == "Film 3 is not among the candidates" and session.rows == before and session.away is None


def test_nonsense_changes_nothing(session):
    before = session.state()
    for item, action in ((12345, "like"), (3, "adore"), (3, "un")):
        do(session.say(item, action))
    assert session.state() == before


# The widget


def test_the_widget_shows_and_hears(api):
    page, sent = Page(Session(api.client())), []
    page.send = lambda content, buffers=None: sent.append(content)
    first = [one["item_idx"] for one in page.rows[0]["items"]]
    page._hear(page, {"do": "say", "how": {"item": first[1], "action": "like"}, "number": 4}, [])
    assert page.rows[0]["items"][0]["item_idx"] == first[1] + 5 and page.saying["likes"][0]["item_idx"] == first[1] and sent == [{"done": 4}]
    for message in ({"do": "__init__"}, {"do": "_forget", "how": {"user": 3}}, {}, {"do": "choose", "how": {"nobody": 1}}, {"do": "new_user", "how": {"picked": [{}]}}, {"do": "new_user", "how": {"hates": [3]}}, {"do": "new_user", "how": {"likes": ["x"]}}, {"do": "wish", "how": {"volume": 11}}):
        page._hear(page, message | {"number": 5}, [])
    assert len(sent) == 9 and json.dumps(page.session.state())


def test_all_a_page_shows_is_json(session):
    assert json.loads(json.dumps(session.state())) == session.state()
