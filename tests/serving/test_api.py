"""The API through a real uvicorn: what it answers, what it refuses, and what it survives."""

import json
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import numpy as np
import psutil
import pytest
import uvicorn
from helpers import ROOT, tiny_settings

from movierec import pipeline
from movierec.artifacts import paths
from movierec.opening import open_serving
from movierec.serving.api import create_app
from movierec.serving.feedback import FeedbackLog
from movierec.serving.poster_art import generated_poster
from movierec.serving.posters import ImageCache
from movierec.serving.service import RecommenderService, recommend
from movierec.serving.tmdb import ATTRIBUTION


def copy_of(settings, folder, **service):
    """The same run in a folder of its own, which may be written to; the folders appear complete."""
    changed = {"service": settings.service.model_copy(update=service)}
    ignored = shutil.ignore_patterns("*.lock", "*.tmp", "logs")
    for name in ("reports_dir", "data_dir"):
        changed[name] = folder / name
        shutil.copytree(getattr(settings, name), folder / f"copy of {name}", ignore=ignored)
        (folder / f"copy of {name}").rename(changed[name])
    return settings.model_copy(update=changed)


@contextmanager
def serving(settings, wait=True):
    """A server on a free port, and a client for it."""
    app = create_app(settings)
    config = uvicorn.Config(app, port=0, access_log=False, log_level="error", server_header=False, proxy_headers=False)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_for(lambda: server.started)
        address = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
        with httpx.Client(base_url=address, timeout=30) as client:
            if wait:
                wait_for(lambda: client.get("/health").status_code == 200)
            yield client
    finally:
        server.should_exit = True
        thread.join()


def wait_for(condition, seconds=60.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"it didn't happen within {seconds:g} seconds: see the log above"
        time.sleep(0.01)


@pytest.fixture(scope="module")
def mine(settings, tmp_path_factory):
    return copy_of(settings, tmp_path_factory.mktemp("api"), reload_seconds=0.05)


@pytest.fixture(scope="module")
def client(mine):
    with serving(mine) as client:
        yield client


def check_problem(answer, status, *parts):
    """A status, and one sentence about it."""
    assert answer.status_code == status, answer.text
    detail = answer.json()["detail"]
    assert set(answer.json()) == {"detail"} and isinstance(detail, str)
    assert "\n" not in detail and "Traceback" not in detail
    for part in parts:
        assert part in detail, detail
    return answer


def items_of(answer):
    return [movie["item_idx"] for movie in answer.json()["items"]]


def give(client, user, item, action, key=None):
    body = {"user_idx": user, "item_idx": item, "action": action}
    return client.post("/feedback", json=body | ({} if key is None else {"idempotency_key": key}))


def test_an_evaluation_is_not_needed(settings, tmp_path):
    mine = copy_of(settings, tmp_path)
    for folder in (paths(mine).lists("global-time"), paths(mine).evaluation("global-time"), paths(mine).results):
        shutil.rmtree(folder.parent)
    with serving(mine) as client:
        assert client.get("/health").json()["why"] is None
        answer = client.get("/recommend/user/7", params={"k": 7}).json()
        user = RecommenderService.open(settings).model.user_ids[7]
        assert [movie["movieId"] for movie in answer["items"]] == recommend(settings, user, 7).table.movieId.tolist()
        assert client.post("/home", json={"user_idx": 7}).status_code == client.get("/about").status_code == 200


def test_lists_are_those_of_the_command(client, mine):
    model = RecommenderService.open(mine).model
    for user in (0, 79):
        answer = client.get(f"/recommend/user/{user}", params={"k": 7}).json()
        table = recommend(mine, model.user_ids[user], 7).table
        for name in ("movieId", "score", "reason", "probability", "expected_rating"):
            assert [movie[name] for movie in answer["items"]] == table[name].tolist()
        assert answer["system"] == model.system
        fields = ["item_idx", "movieId", "title", "year", "genres", "rank", "score", "reason"]
        assert list(answer["items"][0]) == [*fields, "probability", "expected_rating"]


def test_k_and_diversity(client):
    assert len(client.get("/recommend/user/3").json()["items"]) == 10
    for k in (1, 100):
        answer = client.get("/recommend/user/3", params={"k": k}).json()
        n = len(answer["items"])
        assert n == k or answer["notes"] == [f"{answer['system']} has only {n} movies to suggest"]
    plain, mixed = (client.get("/recommend/user/3", params={"diversity": d}).json()["items"] for d in (0, 0.8))
    assert plain == client.get("/recommend/user/3").json()["items"] and plain[0] == mixed[0] and plain != mixed


@pytest.mark.parametrize(
    "path",
    [
        "/recommend/user/3?k=0",
        "/recommend/user/3?k=101",
        "/recommend/user/3?k=ten",
        "/recommend/user/3?k=",
        "/recommend/user/-1",
        "/recommend/user/x",
        "/recommend/user/3?diversity=1.1",
        "/recommend/user/3?diversity=nan",
        "/recommend/user/3?calibrate=1.1",
        "/recommend/user/3?match_popularity=-1",
        "/recommend/user/3/debug?k=101",
        "/similar/1.5",
        "/similar/3?k=1e3",
        "/movies",
        "/movies?query=",
        "/movies?query=" + "x" * 201,
        "/movies?query=a&limit=0",
        "/movies/%00",
        "/users/1/history?limit=0",
        "/feedback/-3",
    ],
)
def test_bad_values_are_422(client, path):
    check_problem(client.get(path), 422)


@pytest.mark.parametrize(
    "path",
    [
        "/recommend/user/80",
        "/recommend/user/80/debug",
        "/recommend/user/99999999999999999999999999",
        "/similar/120",
        "/movies/120",
        "/users/80/history",
        "/feedback/80",
        "/posters/120",
    ],
)
def test_unknown_users_and_movies_are_404(client, path):
    check_problem(client.get(path), 404, "there is no ", "they go from 0 to ")


def test_unknown_routes_and_methods(client):
    for path in ("/", "/recommend", "/movies/1/2", "/../etc/passwd", "/recommend/user/1%2F..%2F2"):
        assert client.get(path).status_code in (404, 405, 422)
    check_problem(client.get("/recommended"), 404, "/docs")
    assert "POST" in check_problem(client.get("/feedback"), 405, "POST").headers["allow"]
    check_problem(client.delete("/movies/1"), 405, "GET")


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"history": "x"},
        {"history": [{"item_idx": "1"}]},
        {"history": [{"item_idx": -1}]},
        {"history": [{"item_idx": 1, "rating": 6}]},
        {"history": [{"item_idx": 1, "stars": 3}]},
        {"history": [], "k": 0},
        {"history": [], "diversity": 2},
        {"history": [], "user": 3},
        [],
        None,
        {"history": [{"item_idx": 1}] * 1_001},
        {"history": [{"item_idx": True}]},
    ],
)
def test_bad_histories_are_422(client, body):
    check_problem(client.post("/recommend", json=body), 422)


def test_bodies_that_are_not_json(client):
    headers = {"content-type": "application/json"}
    check_problem(client.post("/recommend", content=b"{", headers=headers), 422, "JSON")
    huge_number = b'{"history": [{"item_idx": ' + b"9" * 5_000 + b"}]}"
    for body in (b"\xff\xfe", b"[" * 60_000, huge_number, b'{"history": [{"item_idx": 1, "rating": NaN}]}'):
        assert client.post("/recommend", content=body, headers=headers).status_code in (400, 422)


def test_new_users(client):
    cold = client.post("/recommend", json={"history": []})
    assert len(items_of(cold)) == 10
    assert all(movie["reason"].startswith(("Liked by many", "Trending now")) for movie in cold.json()["items"])
    seen = items_of(cold)[:3]
    history = [{"item_idx": item, "rating": 5} for item in seen]
    warm = client.post("/recommend", json={"history": history, "k": 20})
    assert not set(seen) & set(items_of(warm)) and items_of(warm) != items_of(cold)
    check_problem(client.post("/recommend", json={"history": [{"item_idx": 120}]}), 404, "there is no item_idx 120")


def test_movies_and_histories(client):
    movie = client.get("/movies/6").json()
    mistyped = movie["title"].lower().replace("i", "o", 1)
    assert client.get("/movies", params={"query": mistyped, "limit": 100}).json()[0].keys() == movie.keys()
    assert movie in client.get("/movies", params={"query": movie["title"]}).json()
    assert client.get("/movies", params={"query": "☃"}).json() == []
    times = [event["timestamp"] for event in client.get("/users/4/history", params={"limit": 5}).json()]
    assert len(times) == 5 and times == sorted(times, reverse=True)
    similar = client.get("/similar/6", params={"k": 5})
    assert len(items_of(similar)) == 5 and 6 not in items_of(similar)
    assert all(movie["reason"] for movie in similar.json()["items"])


def test_debug_shows_every_step(client):
    debug = client.get("/recommend/user/9/debug", params={"k": 4})
    assert items_of(debug) == items_of(client.get("/recommend/user/9", params={"k": 4}))
    assert {"sources", "pool", "features", "milliseconds", "user_context", "as_of"} <= set(debug.json())


def test_feedback_counts_at_once(client, mine):
    before = client.get("/recommend/user/20").json()["items"]
    first, second, third = (movie["item_idx"] for movie in before[:3])
    answer = give(client, 20, first, "dislike").json()
    assert answer["new"] and [one["movie"]["item_idx"] for one in answer["feedback"]["dislikes"]] == [first]
    assert first not in items_of(client.get("/recommend/user/20", params={"k": 100}))
    assert give(client, 20, second, "like").status_code == give(client, 20, third, "save").status_code == 200
    after = items_of(client.get("/recommend/user/20", params={"k": 100}))
    assert not {first, second} & set(after) and third in after
    kept = client.get("/feedback/20").json()
    items = [[one["movie"]["item_idx"] for one in kept[kind]] for kind in ("likes", "dislikes", "saves")]
    assert items == [[second], [first], [third]]
    for item, action in ((first, "undislike"), (second, "unlike"), (third, "unsave")):
        give(client, 20, item, action)
    assert client.get("/recommend/user/20").json()["items"] == before
    lines = [json.loads(line) for line in paths(mine).feedback.read_text().splitlines()]
    actions = [line["action"] for line in lines if line["user_idx"] == 20]
    assert actions == ["dislike", "like", "save", "undislike", "unlike", "unsave"]


def test_a_repeated_request_counts_once(client, mine):
    assert [give(client, 21, 3, "save", "key-1").json()["new"] for _ in range(3)] == [True, False, False]
    check_problem(give(client, 21, 4, "save", "key-1"), 409, "key-1")
    assert give(client, 22, 4, "save", "key-1").json()["new"], "keys are a user's own"
    lines = paths(mine).feedback.read_text().splitlines()
    assert sum('"key-1"' in line and '"user_idx": 21' in line for line in lines) == 1


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"user_idx": 80}, 404),
        ({"item_idx": 120}, 404),
        ({"action": "love"}, 422),
        ({"action": None}, 422),
        ({"idempotency_key": ""}, 422),
        ({"user_idx": "1"}, 422),
    ],
)
def test_bad_feedback_is_not_kept(client, mine, change, status):
    log = paths(mine).feedback
    before = log.read_bytes() if log.exists() else b""
    check_problem(client.post("/feedback", json={"user_idx": 1, "item_idx": 1, "action": "like"} | change), status)
    assert (log.read_bytes() if log.exists() else b"") == before


def test_text_of_clients_is_escaped_in_the_log(client, mine, caplog):
    nasty = "\n{\"forged\": 1}\u2028\x1b[31m"
    give(client, 23, 5, "save", nasty)
    lines = paths(mine).feedback.read_bytes().split(b"\n")
    assert not any(b"\x1b" in line or line.startswith(b'{"forged') for line in lines)
    assert [json.loads(line).get("key") for line in lines if line].count(nasty) == 1
    client.get("/movies", params={"query": nasty})
    assert "\x1b" not in caplog.text


def test_health_and_metrics(client, mine):
    health = client.get("/health").json()
    assert health["ready"] and health["dataset"] == "tiny" and health["why"] is None
    assert health["model"] == open_serving(mine).key
    client.get("/recommend/user/9999")
    client.get("/nowhere/at/all")
    text = client.get("/metrics").text
    line = 'movierec_requests_total{method="GET",route="/recommend/user/{user_idx}",status="404"}'
    assert line in text and "movierec_request_seconds_bucket" in text and 'route="other"' in text
    assert "nowhere" not in text and "/recommend/user/9999" not in text


def test_pages(client):
    about = client.get("/about").json()
    assert (about["users"], about["movies"], about["dataset"]) == (80, 120, "tiny") and "Drama" in about["genres"]
    page = client.post("/home", json={"user_idx": 11, "k": 6}).json()
    cards = page["rows"][0]["items"]
    assert [card["item_idx"] for card in cards] == items_of(client.get("/recommend/user/11", params={"k": 6}))
    why = client.post("/why", json={"user_idx": 11, "item_idx": cards[0]["item_idx"]}).json()
    assert why["movie"]["score"] == cards[0]["score"] and why["movie"]["rank"] == 1 and why["top_source"]
    new_user = {"history": [{"item_idx": 3, "rating": 5}], "likes": [5], "dislikes": [cards[0]["item_idx"]]}
    page = client.post("/home", json=new_user).json()
    shown = {card["item_idx"] for row in page["rows"] for card in row["items"]}
    assert shown and not shown & {3, 5, cards[0]["item_idx"]}


def test_a_page_with_and_without_feedback(client):
    before = client.post("/home", json={"user_idx": 12}).json()
    disliked = before["rows"][0]["items"][0]["item_idx"]
    give(client, 12, disliked, "dislike")
    after = client.post("/home", json={"user_idx": 12}).json()
    assert disliked not in {card["item_idx"] for row in after["rows"] for card in row["items"]}
    assert client.post("/home", json={"user_idx": 12, "feedback": False}).json() == before


@pytest.mark.parametrize(
    ("body", "status", "part"),
    [
        ({"user_idx": 80}, 404, "there is no user_idx 80"),
        ({"user_idx": 1, "likes": [300]}, 404, "item_idx 300"),
        ({"likes": [120]}, 404, "item_idx 120"),
        ({"dislikes": [-1]}, 422, "dislikes.0"),
        ({"genres": ["Polka"]}, 404, "there is no genre Polka"),
        ({"k": 0}, 422, "k"),
        ({"diversity": 2}, 422, "diversity"),
        ({"history": [{"item_idx": 500}]}, 404, "item_idx 500"),
        ({"who": 3}, 422, "there is no who"),
    ],
)
def test_bad_page_requests(client, body, status, part):
    check_problem(client.post("/home", json=body), status, part)


ROUTES = {
    "/health",
    "/metrics",
    "/recommend/user/{user_idx}",
    "/recommend/user/{user_idx}/debug",
    "/recommend",
    "/similar/{item_idx}",
    "/movies",
    "/movies/{item_idx}",
    "/users/{user_idx}/history",
    "/posters",
    "/posters/{item_idx}",
    "/feedback",
    "/feedback/{user_idx}",
    "/about",
    "/home",
    "/why",
}


def test_documentation(client):
    document = client.get("/openapi.json").json()
    assert set(document["paths"]) == ROUTES
    for path in document["paths"].values():
        for operation in path.values():
            assert "429" in operation["responses"] and operation["description"]


@pytest.mark.parametrize("route", sorted(ROUTES))
def test_the_curl_examples_show_every_route(route):
    """The examples themselves are run with the notebook; see test_notebooks.py."""
    cells = json.loads((ROOT / "nbs" / "83_curl.ipynb").read_text(encoding="utf-8"))["cells"]
    code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    requested = re.findall(r'curl [^\n]*?"\$API(/[^"?]*)', code)
    pattern = re.sub(r"\{\w+\}", r"\\d+", route)
    assert any(re.fullmatch(pattern, path) for path in requested), f"add an example of {route} to nbs/83_curl.ipynb"


def test_no_other_origin_may_read(client):
    answer = client.get("/recommend/user/1", headers={"Origin": "https://example.org"})
    assert not [name for name in answer.headers if name.startswith("access-control")]
    body = b'{"user_idx": 1, "item_idx": 1, "action": "like"}'
    check_problem(client.post("/feedback", content=body, headers={"content-type": "text/plain"}), 422)


def test_posters(client, mine):
    """A generated one, until there is an image on disk; browsers may keep both, and no request reaches a path."""
    generated = client.get("/posters/3")
    movie = client.get("/movies/3").json()
    assert generated.status_code == 200 and generated.headers["Content-Type"].startswith("image/svg+xml")
    assert generated.headers["X-Content-Type-Options"] == "nosniff" and "Link" not in generated.headers
    assert generated.text == generated_poster(movie["movieId"], movie["title"], movie["year"], movie["genres"])
    assert "max-age=" in generated.headers["Cache-Control"]
    etag = generated.headers["ETag"]
    for known in (etag, f'"other", W/{etag}', "*"):
        same = client.get("/posters/3", headers={"If-None-Match": known})
        assert same.status_code == 304 and same.content == b"" and same.headers["ETag"] == etag
    assert client.get("/posters/3", headers={"If-None-Match": '"other"'}).status_code == 200
    assert client.get("/posters").json() == {"movies": 120, "from_tmdb": 0, "attribution": None}

    jpeg = b"\xff\xd8\xff" + bytes(100)
    ImageCache(paths(mine).posters, 10_000).put(movie["movieId"], jpeg, time.time())
    image = client.get("/posters/3", headers={"If-None-Match": etag})
    assert (image.status_code, image.headers["Content-Type"], image.content) == (200, "image/jpeg", jpeg)
    assert "not endorsed or certified by TMDB" in image.headers["Link"]
    assert "https://www.themoviedb.org/" in image.headers["Link"]
    assert client.get("/posters").json() == {"movies": 120, "from_tmdb": 1, "attribution": ATTRIBUTION}


@pytest.mark.parametrize("index", ["-1", "x", "1.5", "..%2f..%2fetc%2fpasswd", "%00", "1e9", "9" * 400])
def test_posters_of_strange_indices(client, index):
    answer = client.get(f"/posters/{index}")
    check_problem(answer, 404 if answer.status_code == 404 else 422)


def test_many_clients_at_once(client):
    """Eight clients ask for the lists of the same users: each gets what one gets alone."""
    alone = [client.get(f"/recommend/user/{user}", params={"k": 5}).json() for user in range(20)]
    wrong = []

    def ask(seed):
        with httpx.Client(base_url=client.base_url, timeout=30) as other:
            for user in np.random.default_rng(seed).permutation(20):
                if other.get(f"/recommend/user/{user}", params={"k": 5}).json() != alone[user]:
                    wrong.append(user)

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_hot_reload(settings, tmp_path):
    """No run, a run, a newer run, a damaged one: what is served follows, and requests never fail in between."""
    empty = tiny_settings(tmp_path, data_dir=tmp_path / "data_dir", reports_dir=tmp_path / "reports_dir")
    empty = empty.model_copy(update={"service": settings.service.model_copy(update={"reload_seconds": 0.05})})
    with serving(empty, wait=False) as client:
        wait_for(lambda: "movierec run" in (client.get("/health").json()["why"] or ""))
        assert client.get("/health").status_code == 503
        check_problem(client.get("/recommend/user/1"), 503, "not ready: ", "movierec run")
        check_problem(give(client, 1, 1, "like"), 503)
        assert client.get("/metrics").status_code == 200

        mine = copy_of(settings, tmp_path, reload_seconds=0.05)
        wait_for(lambda: client.get("/health").status_code == 200)
        old = client.get("/health").json()["model"]
        give(client, 5, 7, "dislike")
        stop, answers = threading.Event(), []

        def ask():
            with httpx.Client(base_url=client.base_url, timeout=30) as other:
                while not stop.is_set():
                    answers.append(other.get("/recommend/user/5"))

        asking = threading.Thread(target=ask)
        asking.start()
        try:
            shorter = {"service": mine.service.model_copy(update={"precomputed": 5})}
            pipeline.run(mine.model_copy(update=shorter | {"protocol": "global-time"}))
            new = open_serving(mine).key
            wait_for(lambda: answers[-1].json()["model"] == new)
        finally:
            stop.set()
            asking.join()
        assert old != new and {answer.status_code for answer in answers} == {200}
        assert {answer.json()["model"] for answer in answers} >= {old, new}
        dislikes = client.get("/feedback/5").json()["dislikes"]
        assert [one["movie"]["item_idx"] for one in dislikes] == [7], "feedback outlives a run"

        (paths(mine).serving / "als" / "item_factors.npy").write_bytes(b"torn")
        manifest = paths(mine).serving / "manifest.json"
        manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"key": "another"}))
        wait_for(lambda: client.get("/health").json()["why"])
        health = client.get("/health").json()
        assert health["ready"] and health["model"] == new and "can't be read" in health["why"]
        assert client.get("/recommend/user/5").status_code == 200, "the model in memory goes on answering"


@pytest.mark.slow
def test_every_answer_is_as_documented(client):
    """Schemathesis makes up requests from the OpenAPI document: no 5xx, nothing that isn't documented."""
    command = [Path(sys.executable).with_name("schemathesis"), "run", f"{client.base_url}/openapi.json"]
    options = ["--checks=all", "--max-examples=10", "--seed=1", "--no-color"]
    done = subprocess.run([*command, *options], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout[-8_000:]


def api_command(settings, *options):
    """`movierec api` as a person types it."""
    folders = ["--dataset", settings.dataset, "--data-dir", settings.data_dir, "--reports-dir", settings.reports_dir]
    return [Path(sys.executable).with_name("movierec"), "api", *map(str, folders), *map(str, options)]


@contextmanager
def command(settings, *options):
    """The server as a process of its own; yields the process and its address."""
    process = subprocess.Popen(api_command(settings, "--port", 0, *options), stderr=subprocess.PIPE, text=True)
    try:
        first = process.stderr.readline()
        assert "http://127.0.0.1:" in first, first + process.stderr.read()
        yield process, first.split()[1]
    finally:
        if process.poll() is None:
            process.terminate()
        process.communicate(timeout=30)


@pytest.mark.slow
def test_two_workers_are_one_service(settings, tmp_path):
    mine, line = copy_of(settings, tmp_path), 'movierec_requests_total{method="GET",route="/recommend/user/{user_idx}"'
    closing = {"Connection": "close"}  # so that any worker may get the next request
    with (
        command(mine, "--workers", 2) as (process, address),
        httpx.Client(base_url=address, timeout=30, headers=closing) as client,
    ):
        wait_for(lambda: client.get("/health").status_code == 200)
        wait_for(lambda: all(client.get("/health").status_code == 200 for _ in range(20)))
        first = items_of(client.get("/recommend/user/1"))[0]
        for turn in range(10):  # whichever worker gets it, both know
            assert give(client, 1, first, "undislike" if turn % 2 else "dislike", f"turn {turn}").json()["new"]
            shown = [first in items_of(client.get("/recommend/user/1")) for _ in range(6)]
            assert shown == [bool(turn % 2)] * 6
        assert not any(give(client, 1, first, "dislike", "turn 0").json()["new"] for _ in range(6))
        counts = [float(text.split()[-1]) for text in client.get("/metrics").text.splitlines() if text.startswith(line)]
        assert sum(counts) == 61, "the metrics are those of both workers"
        process.terminate()
        assert process.wait(timeout=30) == 0


@pytest.mark.slow
def test_requests_under_way_are_answered_before_it_stops(settings, tmp_path):
    mine, headers = copy_of(settings, tmp_path), {"Content-Type": "application/json"}
    with command(mine) as (process, address), httpx.Client(base_url=address, timeout=30) as client:
        wait_for(lambda: client.get("/health").status_code == 200)
        answers, begun, stopping = [], threading.Event(), threading.Event()

        def slow_body():
            yield b'{"history": ['
            begun.set()
            stopping.wait()
            yield b"]}"

        def ask():
            with httpx.Client(base_url=address, timeout=30) as other:
                answers.append(other.post("/recommend", content=slow_body(), headers=headers).status_code)

        asking = threading.Thread(target=ask)
        asking.start()
        begun.wait()
        client.get("/health")  # the server has seen the request that began before this one
        process.terminate()
        wait_for(lambda: refuses(address))
        stopping.set()
        asking.join()
        assert answers == [200] and process.wait(timeout=30) in (0, -signal.SIGTERM)
        assert "Traceback" not in process.stderr.read()


def refuses(address):
    """Whether a server takes no new requests."""
    try:
        httpx.get(f"{address}/health", timeout=1)
    except httpx.HTTPError:
        return True
    return False


@pytest.mark.slow
def test_kill_9_of_the_server_loses_nothing_it_acknowledged(settings, tmp_path):
    mine, acknowledged = copy_of(settings, tmp_path), []
    with command(mine, "--workers", 2) as (process, address):
        with httpx.Client(base_url=address, timeout=30) as client:
            wait_for(lambda: client.get("/health").status_code == 200)

        def write(user):
            with suppress(httpx.HTTPError), httpx.Client(base_url=address, timeout=30) as other:
                for item in range(120):
                    if give(other, user, item, "save").status_code == 200:
                        acknowledged.append((user, item))

        writers = [threading.Thread(target=write, args=(user,)) for user in range(8)]
        for thread in writers:
            thread.start()
        wait_for(lambda: len(acknowledged) > 100)
        for child in psutil.Process(process.pid).children(recursive=True):
            child.kill()
        process.kill()
        for thread in writers:
            thread.join()
    log = FeedbackLog(paths(mine).feedback, np.arange(1, 81), np.arange(1, 121))
    assert all(item in log.feedback_of(user).saves for user, item in acknowledged)


@pytest.mark.slow
def test_the_command_says_what_is_wrong(settings, tmp_path):
    with command(settings) as (_, address):
        port = address.rpartition(":")[2]
        done = subprocess.run(api_command(settings, "--port", port), capture_output=True, text=True, timeout=60)
        assert done.returncode == 1 and done.stderr.count("\n") == 1
        assert done.stderr.startswith("Error: 127.0.0.1 port ")
    wrong = settings.model_copy(update={"dataset": "tinny"})
    done = subprocess.run(api_command(wrong), capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and "did you mean tiny?" in done.stderr
