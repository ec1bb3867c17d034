"""A made-up API for the app's tests, and a session on it."""

import json

import httpx
import pytest

from movierec.app.client import ApiClient
from movierec.app.session import Session, run_action, start

ABOUT = {"model": "m1", "users": 10, "movies": 60, "genres": ["Comedy", "Drama"], "years": [1950, 2000],
         "dataset": "fake", "system": "fake"}
POSTERS = {"movies": 60, "from_tmdb": 3, "attribution": {"text": "By TMDB.", "link": "https://www.themoviedb.org/"}}
EXCLUSIVE = {"like": ("like", "dislike"), "dislike": ("like", "dislike"), "save": ("save",)}


class FakeApi:
    """Answers like the API. A like moves item + 5 to the front; likes and dislikes leave the list."""

    def __init__(self):
        self.calls = [] # (method, path, body)
        self.feedback = {} # user → {"like": [item_idx]}
        self.is_down = False
        self.rejection = None # (status, detail) for every request
        self.history = [self.movie(50, ("Comedy",), 1985, rating=4.0, timestamp=9),
                        self.movie(51, ("Comedy", "Drama"), 1994, rating=None, timestamp=5)]

    @staticmethod
    def movie(item, genres=("Drama",), year=1990, **more):
        ids = {"item_idx": item, "movieId": item + 1}
        return ids | {"title": f"Movie {item}", "year": year, "genres": list(genres)} | more

    def card(self, item, rank=1):
        return self.movie(item, rank=rank, score=1.0, match=0.5, reason="Trending now")

    def client(self):
        return ApiClient("http://api", transport=httpx.MockTransport(self.answer))

    def requests_to(self, path):
        return [body for _, called, body in self.calls if called == path]

    def answer(self, request):
        path, body = request.url.path, json.loads(request.content or b"{}")
        self.calls.append((request.method, path, body))
        if self.is_down:
            raise httpx.ConnectError("refused")
        if self.rejection:
            return httpx.Response(self.rejection[0], json={"detail": self.rejection[1]})
        return httpx.Response(200, json=self.value(path, body))

    def value(self, path, body):
        resource, _, last = path.rpartition("/")
        match (resource, last):
            case ("", "about"):
                return ABOUT
            case ("", "posters"):
                return POSTERS
            case ("", "home"):
                return self.home(body)
            case ("", "why"):
                return {"movie": self.card(body["item_idx"])}
            case ("", "feedback"):
                self.record(**{name: body[name] for name in ("user_idx", "item_idx", "action")})
                return {"new": True, "feedback": self.summary(body["user_idx"])}
            case ("/feedback", user):
                return self.summary(int(user))
            case ("", "movies"):
                return [self.movie(7), self.movie(8)]
            case ("/movies", item):
                return self.movie(int(item))
            case (_, "history"):
                return self.history
        return {"items": []}

    def home(self, body):
        feedback = self.feedback.get(body.get("user_idx"), {}) if body.get("feedback", True) else {}
        picked = [entry["item_idx"] for entry in body.get("history", [])]
        liked = [*feedback.get("like", []), *body.get("likes", []), *picked]
        excluded = {*feedback.get("dislike", []), *body.get("dislikes", []), *body["hide"], *liked}
        boosted = {item + 5 for item in liked}
        items = sorted(set(range(40)) - excluded, key=lambda item: (item not in boosted, item))[: body["k"]]
        cards = [self.card(item, rank) for rank, item in enumerate(items, 1)]
        return {"system": "fake", "model": "m1", "notes": [], "rows": [{"kind": "top", "about": None, "items": cards}]}

    def record(self, user_idx, item_idx, action):
        lists = self.feedback.setdefault(user_idx, {})
        kind, is_undo = action.removeprefix("un"), action.startswith("un")
        for other in (kind,) if is_undo else EXCLUSIVE[kind]:
            lists[other] = [item for item in lists.get(other, []) if item != item_idx]
        if not is_undo:
            lists[kind].append(item_idx)

    def summary(self, user):
        lists = self.feedback.get(user, {})
        return {"user_idx": user} | {
            f"{kind}s": [{"movie": self.movie(item), "time": 1} for item in lists.get(kind, [])] for kind in EXCLUSIVE}


@pytest.fixture
def api():
    return FakeApi()


@pytest.fixture
def session(api):
    session = Session(api.client())
    run_action(start(session))
    return session
