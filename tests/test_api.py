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
from helpers import tiny_settings, write_archive

from movierec import pipeline
from movierec.artifacts import paths
from movierec.config import load_settings
from movierec.serving.api import create_app
from movierec.serving.feedback import FeedbackLog
from movierec.serving.middleware import TokenBuckets
from movierec.serving.poster_art import generated_poster
from movierec.serving.posters import ImageCache
from movierec.serving.service import RecommenderService, recommend
from movierec.serving.tmdb import ATTRIBUTION


def copy_of(settings, folder, **service):
    """The same run in a folder of its own, which may be written to."""
    for name in ("data", "reports"):
        shutil.copytree(getattr(settings, f"{name}_dir"), folder / name)
    return settings.model_copy(update={"data_dir": folder / "data", "reports_dir": folder / "reports", "service": settings.service.model_copy(update=service)})


@contextmanager
def serving(settings, ready=True):
    """A server on a free port, and a client for it."""
    server = uvicorn.Server(uvicorn.Config(create_app(settings), port=0, access_log=False, log_level="error", server_header=False, proxy_headers=False))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_for(lambda: server.started)
        with httpx.Client(base_url=f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}", timeout=30) as client:
            if ready:
                wait_for(lambda: client.get("/health").status_code == 200)
            yield client
    finally:
        server.should_exit = True
        thread.join()


def wait_for(what, seconds=30.0):
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.01)


@pytest.fixture(scope="module")
def mine(tiny_run, tmp_path_factory):
    return copy_of(tiny_run[0], tmp_path_factory.mktemp("api"), reload_seconds=0.05)


@pytest.fixture(scope="module")
def client(mine):
    with serving(mine) as client:
        yield client


def told(answer, status, *parts):
    """A status, and one sentence about it."""
    assert answer.status_code == status, answer.text
    detail = answer.json()["detail"]
    assert set(answer.json()) == {"detail"} and isinstance(detail, str) and "\n" not in detail and "Traceback" not in detail
    for part in parts:
        assert part in detail, detail
    return answer


def test_lists_are_those_of_the_command(client, mine):
    service = RecommenderService(mine)
    for user in (0, 5, 79):
        answer = client.get(f"/recommend/user/{user}", params={"k": 7}).json()
        table = recommend(mine, service.users[user], 7).table
        assert [pick["movieId"] for pick in answer["items"]] == table.movieId.tolist() and [pick["score"] for pick in answer["items"]] == table.score.tolist()
        assert [pick["reason"] for pick in answer["items"]] == table.reason.tolist() and answer["system"] == service.system
        assert list(answer["items"][0]) == ["item_idx", "movieId", "title", "year", "genres", "rank", "score", "reason"]


def test_k_and_diversity(client):
    assert len(client.get("/recommend/user/3").json()["items"]) == 10
    for k in (1, 100):
        answer = client.get("/recommend/user/3", params={"k": k}).json()
        assert len(answer["items"]) == k or answer["notes"] == [f"{answer['system']} has only {len(answer['items'])} films to suggest"]
    plain, mixed = (client.get("/recommend/user/3", params={"diversity": d}).json()["items"] for d in (0, 0.8))
    assert plain == client.get("/recommend/user/3").json()["items"] and plain[0] == mixed[0] and plain != mixed


@pytest.mark.parametrize("path", ["/recommend/user/3?k=0", "/recommend/user/3?k=101", "/recommend/user/3?k=ten", "/recommend/user/3?k=", "/recommend/user/-1", "/recommend/user/x",
                                  "/recommend/user/3?diversity=1.1", "/recommend/user/3?diversity=nan", "/recommend/user/3/debug?k=101", "/similar/1.5", "/similar/3?k=1e3",
                                  "/movies", "/movies?query=", "/movies?query=" + "x" * 201, "/movies?query=a&limit=0", "/movies/%00", "/users/1/history?limit=0", "/feedback/-3"])
def test_bad_values_are_422(client, path):
    told(client.get(path), 422)


@pytest.mark.parametrize("path", ["/recommend/user/80", "/recommend/user/80/debug", "/recommend/user/99999999999999999999999999", "/similar/120", "/movies/120", "/users/80/history", "/feedback/80"])
def test_unknown_ones_are_404(client, path):
    told(client.get(path), 404, "there is no ", "they go from 0 to ")


def test_unknown_routes_and_methods(client):
    for path in ("/", "/recommend", "/movies/1/2", "/../etc/passwd", "/recommend/user/1%2F..%2F2"):
        assert client.get(path).status_code in (404, 405, 422)
    told(client.get("/recommended"), 404, "/docs")
    assert "POST" in told(client.get("/feedback"), 405, "POST").headers["allow"]
    told(client.delete("/movies/1"), 405, "GET")


@pytest.mark.parametrize("body", [{}, {"history": "x"}, {"history": [{"item_idx": "1"}]}, {"history": [{"item_idx": -1}]}, {"history": [{"item_idx": 1, "rating": 6}]},
                                  {"history": [{"item_idx": 1, "stars": 3}]}, {"history": [], "k": 0}, {"history": [], "diversity": 2}, {"history": [], "user": 3}, [], None,
                                  {"history": [{"item_idx": 1}] * 1_001}, {"history": [{"item_idx": True}]}])
def test_bad_histories_are_422(client, body):
    told(client.post("/recommend", json=body), 422)


def test_bodies_that_are_no_json(client):
    assert told(client.post("/recommend", content=b"{", headers={"content-type": "application/json"}), 422, "JSON")
    for body in (b"\xff\xfe", b"[" * 60_000, b'{"history": [{"item_idx": ' + b"9" * 5_000 + b"}]}", b'{"history": [{"item_idx": 1, "rating": NaN}]}'):
        assert client.post("/recommend", content=body, headers={"content-type": "application/json"}).status_code in (400, 422)


def test_newcomers(client):
    cold = client.post("/recommend", json={"history": []}).json()
    assert len(cold["items"]) == 10 and all(pick["reason"].startswith(("Liked by many", "Trending now")) for pick in cold["items"])
    seen = [pick["item_idx"] for pick in cold["items"][:3]]
    warm = client.post("/recommend", json={"history": [{"item_idx": item, "rating": 5} for item in seen], "k": 20}).json()
    assert not set(seen) & {pick["item_idx"] for pick in warm["items"]} and warm["items"] != cold["items"]
    told(client.post("/recommend", json={"history": [{"item_idx": 120}]}), 404, "there is no item_idx 120")


def test_films_and_histories(client, mine):
    film = client.get("/movies/6").json()
    assert client.get("/movies", params={"query": film["title"].lower().replace("i", "o", 1), "limit": 100}).json()[0].keys() == film.keys()
    assert film in client.get("/movies", params={"query": film["title"]}).json()
    assert client.get("/movies", params={"query": "☃"}).json() == []
    watched = client.get("/users/4/history", params={"limit": 5}).json()
    assert len(watched) == 5 and [w["timestamp"] for w in watched] == sorted((w["timestamp"] for w in watched), reverse=True)
    similar = client.get("/similar/6", params={"k": 5}).json()["items"]
    assert len(similar) == 5 and 6 not in {pick["item_idx"] for pick in similar} and all(pick["reason"] for pick in similar)


def test_debug_shows_everything(client):
    debug = client.get("/recommend/user/9/debug", params={"k": 4}).json()
    assert [item["item_idx"] for item in debug["items"]] == [pick["item_idx"] for pick in client.get("/recommend/user/9", params={"k": 4}).json()["items"]]
    assert {"sources", "pool", "features", "milliseconds", "user_context", "as_of"} <= set(debug)


def give(client, user, item, action, key=None):
    return client.post("/feedback", json={"user_idx": user, "item_idx": item, "action": action} | ({} if key is None else {"idempotency_key": key}))


def test_feedback_counts_at_once(client, mine):
    before = client.get("/recommend/user/20").json()["items"]
    first, second, third = (pick["item_idx"] for pick in before[:3])
    answer = give(client, 20, first, "dislike").json()
    assert answer["new"] and [mark["movie"]["item_idx"] for mark in answer["feedback"]["dislikes"]] == [first]
    assert first not in {pick["item_idx"] for pick in client.get("/recommend/user/20", params={"k": 100}).json()["items"]}
    assert give(client, 20, second, "like").status_code == 200 and give(client, 20, third, "save").status_code == 200
    after = client.get("/recommend/user/20", params={"k": 100}).json()["items"]
    assert not {first, second} & {pick["item_idx"] for pick in after} and third in {pick["item_idx"] for pick in after}
    kept = client.get("/feedback/20").json()
    assert [[mark["movie"]["item_idx"] for mark in kept[name]] for name in ("likes", "dislikes", "saves")] == [[second], [first], [third]]
    for item, action in ((first, "undislike"), (second, "unlike"), (third, "unsave")):
        give(client, 20, item, action)
    assert client.get("/recommend/user/20").json()["items"] == before
    lines = [json.loads(line) for line in paths(mine).feedback.read_text().splitlines()]
    assert [line["action"] for line in lines if line["user_idx"] == 20] == ["dislike", "like", "save", "undislike", "unlike", "unsave"]


def test_a_repeated_request_counts_once(client, mine):
    assert [give(client, 21, 3, "save", "key-1").json()["new"] for _ in range(3)] == [True, False, False]
    told(give(client, 21, 4, "save", "key-1"), 409, "key-1")
    assert give(client, 22, 4, "save", "key-1").json()["new"], "keys are a user's own"
    assert sum('"key-1"' in line and '"user_idx": 21' in line for line in paths(mine).feedback.read_text().splitlines()) == 1


@pytest.mark.parametrize(("body", "status"), [({"user_idx": 80, "item_idx": 1, "action": "like"}, 404), ({"user_idx": 1, "item_idx": 120, "action": "like"}, 404),
                                              ({"user_idx": 1, "item_idx": 1, "action": "love"}, 422), ({"user_idx": 1, "item_idx": 1}, 422),
                                              ({"user_idx": 1, "item_idx": 1, "action": "like", "idempotency_key": ""}, 422), ({"user_idx": "1", "item_idx": 1, "action": "like"}, 422)])
def test_bad_feedback_is_not_kept(client, mine, body, status):
    before = paths(mine).feedback.read_bytes() if paths(mine).feedback.exists() else b""
    told(client.post("/feedback", json=body), status)
    assert (paths(mine).feedback.read_bytes() if paths(mine).feedback.exists() else b"") == before


def test_what_comes_from_outside_reaches_the_log_escaped(client, mine, caplog):
    nasty = "\n{\"forged\": 1}\u2028\x1b[31m"
    give(client, 23, 5, "save", nasty)
    lines = paths(mine).feedback.read_bytes().split(b"\n")
    assert b"\x1b" not in b"".join(lines) and sum(json.loads(line).get("key") == nasty for line in lines if line) == 1 and not any(b'{"forged' in line[:3] for line in lines)
    client.get("/movies", params={"query": nasty})
    assert "\x1b" not in caplog.text


def test_health_and_metrics(client, mine):
    health = client.get("/health").json()
    assert health["ready"] and health["dataset"] == "tiny" and health["why"] is None and health["model"] == RecommenderService(mine).model
    client.get("/recommend/user/9999")
    text = client.get("/metrics").text
    assert 'movierec_requests_total{method="GET",route="/recommend/user/{user_idx}",status="404"}' in text and "movierec_request_seconds_bucket" in text
    client.get("/nowhere/at/all")
    text = client.get("/metrics").text
    assert 'route="other"' in text and "nowhere" not in text and "/recommend/user/9999" not in text


def test_pages(client, mine):
    about = client.get("/about").json()
    assert (about["users"], about["movies"], about["dataset"]) == (80, 120, "tiny") and "Drama" in about["genres"]
    page = client.post("/home", json={"user_idx": 11, "k": 6}).json()
    assert [card["item_idx"] for card in page["rows"][0]["items"]] == [pick["item_idx"] for pick in client.get("/recommend/user/11", params={"k": 6}).json()["items"]]
    first = page["rows"][0]["items"][0]
    reason = client.post("/why", json={"user_idx": 11, "item_idx": first["item_idx"]}).json()
    assert reason["movie"]["score"] == first["score"] and reason["movie"]["rank"] == 1 and reason["top_source"]
    newcomer = {"history": [{"item_idx": 3, "rating": 5}], "likes": [5], "dislikes": [first["item_idx"]]}
    shown = {card["item_idx"] for row in client.post("/home", json=newcomer).json()["rows"] for card in row["items"]}
    assert shown and not shown & {3, 5, first["item_idx"]}


def test_a_page_with_and_without_feedback(client):
    before = client.post("/home", json={"user_idx": 12}).json()
    disliked = before["rows"][0]["items"][0]["item_idx"]
    client.post("/feedback", json={"user_idx": 12, "item_idx": disliked, "action": "dislike"})
    after = client.post("/home", json={"user_idx": 12}).json()
    assert disliked not in {card["item_idx"] for row in after["rows"] for card in row["items"]}
    assert client.post("/home", json={"user_idx": 12, "feedback": False}).json() == before


@pytest.mark.parametrize(("body", "status", "part"), [({"user_idx": 80}, 404, "there is no user_idx 80"), ({"user_idx": 1, "likes": [300]}, 404, "item_idx 300"), ({"likes": [120]}, 404, "item_idx 120"),
                                                      ({"dislikes": [-1]}, 422, "dislikes.0"), ({"genres": ["Polka"]}, 404, "there is no genre Polka"), ({"k": 0}, 422, "k"), ({"diversity": 2}, 422, "diversity"),
                                                      ({"history": [{"item_idx": 500}]}, 404, "item_idx 500"), ({"who": 3}, 422, "there is no who")])
def test_wishes_that_can_not_be_met(client, body, status, part):
    told(client.post("/home", json=body), status, part)


def test_documentation(client):
    document = client.get("/openapi.json").json()
    assert set(document["paths"]) == {"/health", "/metrics", "/recommend/user/{user_idx}", "/recommend/user/{user_idx}/debug", "/recommend", "/similar/{item_idx}", "/movies",
                                      "/movies/{item_idx}", "/users/{user_idx}/history", "/posters", "/posters/{item_idx}", "/feedback", "/feedback/{user_idx}", "/about", "/home", "/why"}
    for path in document["paths"].values():
        for operation in path.values():
            assert "429" in operation["responses"] and operation["description"]


def test_the_page_of_calls_shows_every_route(client):
    """The calls themselves are run with the notebook; see test_notebooks.py."""
    page = json.loads((Path(__file__).parent.parent / "nbs" / "13b_curl.ipynb").read_text(encoding="utf-8"))
    asked = re.findall(r'curl [^\n]*?"\$API(/[^"?]*)', "\n".join("".join(cell["source"]) for cell in page["cells"] if cell["cell_type"] == "code"))
    for route in client.get("/openapi.json").json()["paths"]:
        assert any(re.fullmatch(re.sub(r"\{\w+\}", r"\\d+", route), path) for path in asked), f"{route} isn't on the page"


def test_no_other_origin_may_read(client):
    answer = client.get("/recommend/user/1", headers={"Origin": "https://example.org"})
    assert not [name for name in answer.headers if name.startswith("access-control")]
    told(client.post("/feedback", content=b'{"user_idx": 1, "item_idx": 1, "action": "like"}', headers={"content-type": "text/plain"}), 422)


def test_a_key_a_rate_and_a_size(mine):
    guarded = mine.model_copy(update={"service": mine.service.model_copy(update={"api_key": load_settings(service={"api_key": "correct horse"}).service.api_key, "rate": 10.0, "max_body": 1_024})})
    with serving(guarded) as client:
        told(client.get("/movies/1"), 401, "X-API-Key")
        told(client.get("/movies/1", headers={"X-API-Key": "correct hors"}), 401)
        told(client.get("/movies/1", headers={"X-API-Key": "ü".encode()}), 401)
        client.headers["X-API-Key"] = "correct horse"
        wait_for(lambda: client.get("/movies/1").status_code == 200)  # the waiting for it may have emptied the bucket
        wait_for(lambda: client.post("/recommend", content=b" " * 1_025).status_code == 413)

        def piecewise():
            for _ in range(20):
                yield b" " * 100

        wait_for(lambda: client.post("/recommend", content=piecewise()).status_code == 413)  # no Content-Length
        answers = [client.get("/movies/1") for _ in range(40)]
        refused = [answer for answer in answers if answer.status_code == 429]
        assert refused and int(told(refused[0], 429, "10 requests").headers["retry-after"]) >= 1


def test_buckets_forget_the_oldest():
    buckets = TokenBuckets(1, 2, most=3)
    for who in "abcd":
        assert [buckets.take(who, 0.0) for _ in range(3)] == [0.0, 0.0, 1.0]
    assert len(buckets._left) == 3 and buckets.take("a", 0.0) == 0.0


def test_without_a_run_it_says_so_and_takes_one_when_it_comes(tmp_path):
    settings = tiny_settings(tmp_path, protocol="global-time", service={"reload_seconds": 0.05})
    with serving(settings, ready=False) as client:
        wait_for(lambda: "movierec run" in (client.get("/health").json()["why"] or ""))
        assert client.get("/health").status_code == 503
        told(client.get("/recommend/user/1"), 503, "not ready: ", "movierec run")
        told(give(client, 1, 1, "like"), 503)
        assert client.get("/metrics").status_code == 200
        pipeline.run(settings, write_archive(tmp_path / "archive", n_users=40, n_movies=60, per_user=20))
        wait_for(lambda: client.get("/health").status_code == 200)
        assert client.get("/recommend/user/39").status_code == 200


def test_a_new_run_is_taken_between_two_requests(tiny_run, tmp_path):
    settings = copy_of(tiny_run[0], tmp_path, reload_seconds=0.05).model_copy(update={"protocol": "global-time"})
    with serving(settings) as client:
        old = client.get("/health").json()["model"]
        give(client, 5, 7, "dislike")
        stop, seen = threading.Event(), []

        def ask():
            with httpx.Client(base_url=client.base_url, timeout=30) as mine:
                while not stop.is_set():
                    seen.append(mine.get("/recommend/user/5"))

        asking = threading.Thread(target=ask)
        asking.start()
        pipeline.run(settings.model_copy(update={"als": settings.als.model_copy(update={"factors": 6})}))
        new = pipeline.open_serving(settings).key
        wait_for(lambda: seen[-1].json()["model"] == new)
        stop.set()
        asking.join()
        assert old != new and {answer.status_code for answer in seen} == {200} and {answer.json()["model"] for answer in seen} >= {old, new}
        assert [mark["movie"]["item_idx"] for mark in client.get("/feedback/5").json()["dislikes"]] == [7], "what was said stays said"
        (paths(settings).serving / "als" / "item_factors.npy").write_bytes(b"torn")
        manifest = paths(settings).serving / "manifest.json"
        manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"key": "another"}))
        wait_for(lambda: client.get("/health").json()["why"])
        health = client.get("/health").json()
        assert health["ready"] and health["model"] == new and "can't be read" in health["why"] and client.get("/recommend/user/5").status_code == 200


def test_many_at_once(client):
    """Sixteen clients, each asking for everybody's list: what they get is what one gets alone."""
    alone = [client.get(f"/recommend/user/{user}", params={"k": 5}).json() for user in range(40)]
    wrong = []

    def ask(seed):
        with httpx.Client(base_url=client.base_url, timeout=30) as mine:
            wrong.extend(user for user in np.random.default_rng(seed).permutation(40) if mine.get(f"/recommend/user/{user}", params={"k": 5}).json() != alone[user])

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.slow
def test_every_answer_is_as_documented(client):
    """What schemathesis makes up from the OpenAPI document, right and wrong: no 5xx, no status, type or body that isn't documented."""
    done = subprocess.run([Path(sys.executable).with_name("schemathesis"), "run", f"{client.base_url}/openapi.json", "--checks=all", "--max-examples=40", "--seed=1", "--no-color"],
                          capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-8_000:]


@contextmanager
def command(settings, *options):
    """`movierec api` as a person starts it; yields the process and its address."""
    process = subprocess.Popen([Path(sys.executable).with_name("movierec"), "api", "--port", "0", "--dataset", settings.dataset, "--data-dir", settings.data_dir, "--reports-dir", settings.reports_dir,
                                *map(str, options)], stderr=subprocess.PIPE, text=True)
    try:
        first = process.stderr.readline()
        assert "http://127.0.0.1:" in first, first + process.stderr.read()
        yield process, first.split()[1]
    finally:
        if process.poll() is None:
            process.terminate()
        process.communicate(timeout=30)


@pytest.mark.slow
def test_two_workers_are_one_service(tiny_run, tmp_path):
    settings = copy_of(tiny_run[0], tmp_path)
    with command(settings, "--workers", 2) as (process, address), httpx.Client(base_url=address, timeout=30, headers={"Connection": "close"}) as client:
        wait_for(lambda: client.get("/health").status_code == 200)
        wait_for(lambda: all(client.get("/health").status_code == 200 for _ in range(20)))
        first = client.get("/recommend/user/1").json()["items"][0]["item_idx"]
        for turn in range(10):  # whichever worker hears it, both know
            assert give(client, 1, first, "undislike" if turn % 2 else "dislike", f"turn {turn}").json()["new"]
            shown = [first in [pick["item_idx"] for pick in client.get("/recommend/user/1").json()["items"]] for _ in range(6)]
            assert shown == [bool(turn % 2)] * 6
        assert not any(give(client, 1, first, "dislike", "turn 0").json()["new"] for _ in range(6)), "a key is a key for both"
        report_progress = [line for line in client.get("/metrics").text.splitlines() if line.startswith('movierec_requests_total{method="GET",route="/recommend/user/{user_idx}"')]
        assert sum(float(line.split()[-1]) for line in report_progress) == 61, "the numbers of both"
        process.terminate()
        assert process.wait(timeout=30) == 0


@pytest.mark.slow
def test_requests_under_way_are_answered_before_it_stops(tiny_run, tmp_path):
    settings = copy_of(tiny_run[0], tmp_path)
    with command(settings) as (process, address), httpx.Client(base_url=address, timeout=30) as client:
        wait_for(lambda: client.get("/health").status_code == 200)
        answers = []

        def ask():
            with httpx.Client(base_url=address, timeout=30) as mine:
                answers.append(mine.post("/recommend", content=slowly(), headers={"Content-Type": "application/json"}).status_code)

        def slowly():
            yield b'{"history": ['
            begun.set()
            time.sleep(0.5)
            yield b"]}"

        begun = threading.Event()
        asking = threading.Thread(target=ask)
        asking.start()
        begun.wait()
        time.sleep(0.2)
        process.terminate()
        asking.join()
        assert answers == [200] and process.wait(timeout=30) in (0, -signal.SIGTERM) and "Traceback" not in process.stderr.read()


@pytest.mark.slow
def test_kill_9_of_the_server_loses_nothing_it_acknowledged(tiny_run, tmp_path):
    settings, heard = copy_of(tiny_run[0], tmp_path), []
    with command(settings, "--workers", 2) as (process, address):
        with httpx.Client(base_url=address, timeout=30) as client:
            wait_for(lambda: client.get("/health").status_code == 200)

        def write(user):
            with suppress(httpx.HTTPError), httpx.Client(base_url=address, timeout=30) as mine:
                for item in range(120):
                    if give(mine, user, item, "save").status_code == 200:
                        heard.append((user, item))

        writers = [threading.Thread(target=write, args=(user,)) for user in range(16)]
        for thread in writers:
            thread.start()
        wait_for(lambda: len(heard) > 200)
        for child in psutil.Process(process.pid).children(recursive=True):
            child.kill()
        process.kill()
        for thread in writers:
            thread.join()
    log = FeedbackLog(paths(settings).feedback, np.arange(1, 81), np.arange(1, 121))
    assert len(heard) > 200 and all(item in log.taste(user).saves for user, item in heard)


@pytest.mark.slow
def test_the_command_says_what_is_wrong(tiny_run, tmp_path):
    settings = copy_of(tiny_run[0], tmp_path)
    with command(settings) as (_, address):
        done = subprocess.run([Path(sys.executable).with_name("movierec"), "api", "--port", address.rpartition(":")[2], "--dataset", "tiny", "--data-dir", settings.data_dir, "--reports-dir", settings.reports_dir],
                              capture_output=True, text=True, timeout=60)
        assert done.returncode == 1 and done.stderr.startswith("Error: 127.0.0.1 port ") and done.stderr.count("\n") == 1
    done = subprocess.run([Path(sys.executable).with_name("movierec"), "api", "--dataset", "tinny", "--data-dir", settings.data_dir], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and "did you mean tiny?" in done.stderr


def test_posters(tiny_run, tmp_path):
    """A generated one, until an image lies on the disk; browsers may keep them, and nothing of a request reaches a path."""
    mine = copy_of(tiny_run[0], tmp_path)
    with serving(mine) as client:
        drawn = client.get("/posters/3")
        film = client.get("/movies/3").json()
        assert drawn.status_code == 200 and drawn.headers["Content-Type"].startswith("image/svg+xml") and drawn.headers["X-Content-Type-Options"] == "nosniff"
        assert drawn.text == generated_poster(film["movieId"], film["title"], film["year"], film["genres"]) and "Link" not in drawn.headers
        assert "max-age=" in drawn.headers["Cache-Control"]
        for known in (drawn.headers["ETag"], f'"other", W/{drawn.headers["ETag"]}', "*"):
            same = client.get("/posters/3", headers={"If-None-Match": known})
            assert same.status_code == 304 and same.content == b"" and same.headers["ETag"] == drawn.headers["ETag"]
        assert client.get("/posters/3", headers={"If-None-Match": '"other"'}).status_code == 200
        assert client.get("/posters").json() == {"movies": 120, "from_tmdb": 0, "attribution": None}

        jpeg = b"\xff\xd8\xff" + bytes(100)
        ImageCache(paths(mine).posters, 10_000).put(film["movieId"], jpeg, time.time())
        image = client.get("/posters/3", headers={"If-None-Match": drawn.headers["ETag"]})
        assert (image.status_code, image.headers["Content-Type"], image.content) == (200, "image/jpeg", jpeg)
        assert "not endorsed or certified by TMDB" in image.headers["Link"] and "https://www.themoviedb.org/" in image.headers["Link"]
        assert client.get("/posters").json() == {"movies": 120, "from_tmdb": 1, "attribution": ATTRIBUTION}

        told(client.get("/posters/120"), 404, "there is no item_idx 120 in tiny", "119")
        for strange in ("-1", "x", "1.5", "..%2f..%2fetc%2fpasswd", "%00", "1e9", "9" * 400):
            answer = client.get(f"/posters/{strange}")
            told(answer, 404 if answer.status_code == 404 else 422)
