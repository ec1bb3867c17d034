"""Downloading posters from a made-up TMDB on this machine that has bad days, and the command that does it."""

import json
import logging
import os
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from random import Random

import pytest
from pydantic import SecretStr

from movierec.artifacts import paths
from movierec.config import DAY, ConfigError, DataError, NotFoundError, load_settings
from movierec.data.ingest import ingest
from movierec.serving.poster_download import download_posters, movies_with_tmdb_id
from movierec.serving.posters import Posters
from movierec.serving.tmdb import ATTRIBUTION, MovieFailure, RateLimiter, TmdbClient, retry_after, tmdb_key

COMMAND = Path(sys.executable).with_name("movierec")
V3 = "0123456789abcdef0123456789abcdef"
V4 = "eyJhbGciOiJIUzI1NiJ9.eyJhdWQiOiIwMTIzIn0.c2lnbmF0dXJlLXNpZ25hdHVyZQ"
JPEG, PNG = b"\xff\xd8\xff\xe0" + bytes(5_000), b"\x89PNG\r\n\x1a\n" + bytes(4_000)
WEBP = b"RIFF\x10\x00\x00\x00WEBPVP8 " + bytes(3_000)
NOW = 1_700_000_000


# Rate limit, Retry-After and keys


def test_threads_share_one_rate():
    """With a clock that moves only while a thread waits, eight threads send no more requests than one could."""
    lock, times, clock = threading.Lock(), [], [0.0]

    def wait(seconds):
        with lock:
            clock[0] += seconds
        return False

    limiter = RateLimiter(10, lambda: clock[0], wait)
    requests = iter(range(40))

    def work():
        for _ in requests:
            limiter.acquire()
            with lock:
                times.append(clock[0])

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(times) >= 40 and clock[0] >= 39 / 10 - 1e-6


def test_retry_after():
    assert retry_after("7", 0) == 7 and retry_after(" 0 ", 0) == 0
    date = "Wed, 21 Oct 2015 07:28:00 GMT"
    assert retry_after(date, 1_445_412_450) == 30 and retry_after(date, 2_000_000_000) == 0
    assert [retry_after(text, 0) for text in (None, "", "soon", "-3", "1.5", "9" * 30)] == [0] * 6


@pytest.mark.parametrize(("value", "expected"), [("", None), ("   ", None), (f" {V3}\n", V3), (V4, V4)])
def test_keys(monkeypatch, value, expected):
    monkeypatch.setenv("TMDB_API_KEY", value)
    key = tmdb_key()
    assert (key and key.get_secret_value()) == expected and V3 not in repr(key) and V4 not in repr(key)


@pytest.mark.parametrize("value", ["short", f"Bearer {V4}", "key\u00e9" * 4, "a" * 3_000, "abc&admin=true"])
def test_what_can_not_be_a_key_is_rejected_and_not_repeated(monkeypatch, value):
    monkeypatch.setenv("TMDB_API_KEY", value)
    with pytest.raises(ConfigError) as error:
        tmdb_key()
    assert value not in str(error.value)


# A made-up TMDB


class FakeTmdb:
    """Answers like TMDB. `quirk(path, number of earlier requests)` may return something else:
    (status, headers, body), or a function of the request's handler."""

    def __init__(self, quirk=lambda path, before: None, without=()):
        self.quirk, self.without = quirk, without # without: TMDB ids of movies that have no poster
        self.requests, self.keys, self._lock = [], [], threading.Lock()

    def requests_to(self, start):
        return [path for path in self.requests if path.startswith(start)]

    def answer(self, handler):
        path, _, query = handler.path.partition("?")
        with self._lock:
            before = self.requests.count(path)
            self.requests.append(path)
            self.keys.append((path, query, handler.headers.get("Authorization")))
        answer = self.quirk(path, before) or self.usual_answer(path)
        if callable(answer):
            return answer(handler)
        status, headers, body = answer
        handler.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | headers).items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body)

    def usual_answer(self, path):
        if not path.startswith("/3/movie/"):
            return 200, {"Content-Type": "image/jpeg"}, JPEG
        number = int(path.removeprefix("/3/movie/"))
        record = {"id": number, "poster_path": None if number in self.without else f"/p{number}.jpg"}
        return 200, {"Content-Type": "application/json"}, json.dumps(record).encode()


@contextmanager
def fake_tmdb(*args, **options):
    fake = FakeTmdb(*args, **options)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            with suppress(BrokenPipeError, ConnectionResetError):
                fake.answer(self)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    fake.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield fake
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """Twelve movies, the tenth without a TMDB id; movie 3 has the most ratings."""
    folder = tmp_path_factory.mktemp("twelve")
    movies = range(1, 13)
    titles = "".join(f"{movie},Movie {movie} (2000),Drama\n" for movie in movies)
    links = "".join(f"{movie},0{movie},{'' if movie == 10 else 100 + movie}\n" for movie in movies)
    ratings = "".join(f"1,{movie},4.0,{1_000_002_000 + movie}\n" for movie in movies if movie != 3)
    (folder / "movies.csv").write_text("movieId,title,genres\n" + titles)
    (folder / "links.csv").write_text("movieId,imdbId,tmdbId\n" + links)
    (folder / "ratings.csv").write_text(
        "userId,movieId,rating,timestamp\n1,3,5.0,1000000000\n2,3,4.0,1000000000\n" + ratings)
    return folder


@pytest.fixture
def settings(archive, tmp_path):
    options = {"backoff": 0.0, "rate": 100_000, "timeout": 5, "threads": 4}
    settings = load_settings(
        dataset="twelve", data_dir=tmp_path / "data", reports_dir=tmp_path / "reports", posters=options)
    ingest(settings, archive)
    return settings


def using(settings, fake, **changes):
    """The settings for a made-up TMDB."""
    urls = {"api_url": f"{fake.url}/3", "image_url": f"{fake.url}/t/p"}
    return settings.model_copy(update={"posters": settings.posters.model_copy(update=urls | changes)})


def download(settings, fake, key=V3, now=NOW, changes=None, **options):
    return download_posters(using(settings, fake, **(changes or {})), SecretStr(key), now, **options)


def records(settings):
    return json.loads(paths(settings).item_posters.read_text())


def images(settings):
    return sorted(int(file.stem) for file in paths(settings).posters.iterdir())


LINKED = [movie for movie in range(1, 13) if movie != 10]


def test_posters_are_downloaded_and_remembered(settings):
    calls = []
    with fake_tmdb(without={105}) as fake:
        report = download(settings, fake, progress=lambda done, total: calls.append((done, total)))
        assert (report.movies, report.requested, report.downloaded, report.missing) == (11, 11, 10, 1)
        assert (report.failed, report.not_stored) == (0, 0) and calls == [(done, 11) for done in range(1, 12)]
        expected = [f"/3/movie/{100 + movie}" for movie in LINKED]
        expected += [f"/t/p/w342/p{100 + movie}.jpg" for movie in LINKED if movie != 5]
        assert sorted(fake.requests) == sorted(expected)
        fake.requests.clear()
        assert download(settings, fake).requested == 0 and fake.requests == []
    assert list(records(settings)) == [str(movie) for movie in LINKED]
    assert records(settings)["3"] == {"tmdbId": 103, "poster": "/p103.jpg", "size": "w342", "checked_at": NOW}
    assert records(settings)["5"] == {"tmdbId": 105, "poster": None, "size": None, "checked_at": NOW}
    assert images(settings) == [movie for movie in LINKED if movie != 5]
    assert (paths(settings).posters / "3.jpg").read_bytes() == JPEG


def test_the_most_rated_come_first(settings):
    assert movies_with_tmdb_id(settings)["movieId"].tolist()[:3] == [3, 1, 2]
    with fake_tmdb() as fake:
        assert download(settings, fake, limit=2).requested == 2 and list(records(settings)) == ["1", "3"]
        fake.requests.clear()
        assert download(settings, fake, limit=3, now=NOW + 5).downloaded == 3
        assert sorted(fake.requests_to("/3")) == ["/3/movie/102", "/3/movie/104", "/3/movie/105"]


def test_answers_expire(settings):
    with fake_tmdb(without={105}) as fake:
        download(settings, fake)
        for days, expected in ((29, []), (31, ["/3/movie/105"]), (60, []), (62, ["/3/movie/105"])):
            fake.requests.clear()
            download(settings, fake, now=NOW + days * DAY)
            assert fake.requests == expected
        fake.requests.clear()
        fake.without = {101}  # TMDB has removed it
        assert download(settings, fake, now=NOW + 151 * DAY).missing == 1
        assert len(fake.requests_to("/3")) == 11 and 1 not in images(settings) and 5 in images(settings)


def test_refresh_size_and_lost_images(settings):
    with fake_tmdb() as fake:
        download(settings, fake)
        fake.requests.clear()
        assert download(settings, fake, refresh=True, limit=1).downloaded == 1
        assert fake.requests == ["/3/movie/103", "/t/p/w342/p103.jpg"]
        fake.requests.clear()
        assert download(settings, fake, size="w185").downloaded == 11
        assert fake.requests_to("/3") == [] and len(fake.requests_to("/t/p/w185/")) == 11
        fake.requests.clear()
        (paths(settings).posters / "4.jpg").unlink()
        assert download(settings, fake, size="w185").downloaded == 1 and fake.requests == ["/t/p/w185/p104.jpg"]
        with pytest.raises(ConfigError, match="there is no size w1"):
            download(settings, fake, size="w1")


def test_a_changed_tmdb_id_is_requested_again(settings):
    with fake_tmdb() as fake:
        download(settings, fake)
        changed = records(settings)
        changed["3"]["tmdbId"] = 999
        paths(settings).item_posters.write_text(json.dumps(changed))
        fake.requests.clear()
        download(settings, fake)
        assert fake.requests == ["/3/movie/103", "/t/p/w342/p103.jpg"]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"1": 5, "2": {"checked_at": "x"}, "3": {}}', "\x00"])
def test_damaged_records_count_as_missing(settings, text):
    paths(settings).item_posters.write_text(text)
    with fake_tmdb() as fake:
        assert download(settings, fake).downloaded == 11 and len(records(settings)) == 11


def test_movies_of_a_dataset_that_was_not_read(tmp_path):
    with pytest.raises(NotFoundError, match="`movierec run` comes first"):
        movies_with_tmdb_id(load_settings(data_dir=tmp_path))


# Failures


def json_answer(body):
    return 200, {}, body


@pytest.mark.parametrize("quirk", [
    (500, {}, b""), (503, {}, b"<html>busy</html>"), (429, {}, b""),
    *map(json_answer, (b"<html>hello</html>", b"", b"[]", b"null", b'"text"', b"{}", b'{"poster_path": 7}')),
    *map(json_answer, (b'{"poster_path": "/../../etc/passwd"}', b'{"poster_path": "http://evil.example/x.jpg"}')),
    *map(json_answer, (b'{"poster_path": "/x.svg"}', b"[" * 100_000, bytes(range(256)))),
    (200, {"Content-Encoding": "gzip"}, b"not gzip"), (200, {"Content-Length": "9000"}, b"short"),
    lambda handler: handler.connection.close(), lambda handler: handler.wfile.write(b"SSH-2.0-OpenSSH\r\n"),
], ids=lambda quirk: "breaks off" if callable(quirk) else str(quirk)[:40])
def test_temporary_failures_are_retried(settings, quirk):
    """The first two requests for each address fail, of records and of images; in the end everything is there."""
    def closing(handler):
        handler.close_connection = True
        return quirk(handler)

    failure = closing if callable(quirk) else (quirk[0], {"Connection": "close"} | quirk[1], quirk[2])
    with fake_tmdb(lambda path, before: failure if before < 2 else None) as fake:
        report = download(settings, fake, changes={"timeout": 1}, limit=3)
        assert (report.downloaded, report.failed) == (3, 0) and images(settings) == [1, 2, 3]
        assert {fake.requests.count(path) for path in fake.requests} == {3}


@pytest.mark.parametrize(("answer", "error"), [
    ((500, {}, b""), "500"), ((418, {}, b""), "418"), ((403, {}, b""), "403"),
    ((404, {}, b""), "doesn't have the image"),
    ((200, {"Content-Type": "image/jpeg"}, b"<html>nothing here</html>"), "isn't an image"),
    ((302, {"Location": "http://127.0.0.1:1/"}, b""), "302"),
    ((200, {}, JPEG + bytes(60_000)), "more than 50,000 bytes"),
], ids=lambda value: str(value)[:30])
def test_a_movie_that_fails_affects_no_other(settings, answer, error):
    with fake_tmdb(lambda path, before: answer if path.endswith("p103.jpg") else None) as fake:
        report = download(settings, fake, changes={"max_image": 50_000})
        assert (report.downloaded, report.failed) == (10, 1) and error in report.last_error
        assert 3 not in images(settings) and records(settings)["3"]["poster"] == "/p103.jpg"
        fake.quirk = lambda path, before: None
        fake.requests.clear()
        assert download(settings, fake).downloaded == 1
        assert fake.requests == ["/t/p/w342/p103.jpg"]  # the record isn't requested again


def test_png_and_webp_are_recognized_whatever_their_media_type(settings):
    def quirk(path, before):
        body = PNG if "p103" in path else WEBP
        return (200, {"Content-Type": "text/html"}, body) if path.startswith("/t/") else None

    with fake_tmdb(quirk) as fake:
        download(settings, fake, limit=2)
    assert sorted(file.name for file in paths(settings).posters.iterdir()) == ["1.webp", "3.png"]
    posters = Posters(settings)
    assert [posters.of(movie, "A Movie", 2000, [], NOW).media_type for movie in (1, 3)] == ["image/webp", "image/png"]


def test_an_endless_body_and_a_truncated_one(settings):
    def endless(handler):
        handler.close_connection = True
        handler.send_response(200)
        handler.end_headers()
        while True:
            handler.wfile.write(JPEG)

    with fake_tmdb(lambda path, before: endless if path.endswith("p103.jpg") else None) as fake:
        report = download(settings, fake)
        assert (report.downloaded, report.failed) == (10, 1) and "more than 2,000,000 bytes" in report.last_error
    truncated = (200, {"Content-Length": "9000", "Connection": "close"}, JPEG)
    with fake_tmdb(lambda path, before: truncated if path.endswith("p103.jpg") else None) as fake:
        assert download(settings, fake).failed == 1 and 3 not in images(settings)


def test_all_requests_wait_when_the_server_asks_for_it(settings):
    """Two requests are rejected with Retry-After; no request is sent before that time."""
    times, clock, lock = [], [0.0], threading.Lock()

    def wait(seconds):
        with lock:
            clock[0] += seconds
        return False

    def quirk(path, before):
        with lock:
            times.append(clock[0])
        return (429, {"Retry-After": "7"}, b"") if path == "/3/movie/103" and before < 2 else None

    with fake_tmdb(quirk) as fake:
        mine = using(settings, fake, threads=1)
        tmdb = TmdbClient(mine.posters, SecretStr(V3), limiter=RateLimiter(1_000, lambda: clock[0], wait))
        report = download_posters(mine, SecretStr(V3), NOW, tmdb=tmdb)
    assert report.downloaded == 11 and clock[0] >= 14
    assert times[0] < 1 and 7 <= times[1] < 8 and 14 <= times[2] < 15


def test_a_server_that_asks_for_too_long_a_wait_ends_the_run(settings):
    busy = (429, {"Retry-After": "3600"}, b"")
    with (fake_tmdb(lambda path, before: busy if path == "/3/movie/112" else None) as fake,
          pytest.raises(DataError, match=r"3,600 seconds")):
        download(settings, fake, changes={"threads": 1})
    assert len(records(settings)) == 10  # what came before is kept


def test_waits_grow_with_jitter_and_are_reproducible(settings):
    def waits(seed):
        waited = []
        with fake_tmdb(lambda path, before: (500, {}, b"")) as fake:
            options = using(settings, fake, threads=1, backoff=1.0, attempts=4).posters
            limiter = RateLimiter(1e9, wait=lambda seconds: waited.append(seconds))
            tmdb = TmdbClient(options, SecretStr(V3), seed, limiter)
            with pytest.raises(MovieFailure, match="500"):
                tmdb.poster_path(1)
            tmdb.close()
        return [seconds for seconds in waited if seconds > 1e-6]

    expected = Random(1)
    assert waits(1) == [expected.uniform(0, limit) for limit in (1, 2, 4)] != waits(2)


@pytest.mark.parametrize(("key", "status"), [(V3, 401), (V4, 401), (V3, 403)])
def test_a_rejected_key_ends_the_run_and_appears_nowhere(settings, key, status, caplog):
    caplog.set_level(logging.DEBUG)
    rejection = (status, {}, b'{"status_message": "Invalid API key"}')
    with fake_tmdb(lambda path, before: rejection if path == "/3/movie/112" else None) as fake:
        with pytest.raises(ConfigError, match="doesn't accept the key in TMDB_API_KEY") as error:
            download(settings, fake, key, changes={"threads": 1})
        download(settings, fake, key, limit=1, refresh=True)
    sent = (f"api_key={V3}", None) if key == V3 else ("", f"Bearer {V4}")
    assert {tuple(rest) for path, *rest in fake.keys if path.startswith("/3/")} == {sent}
    assert {tuple(rest) for path, *rest in fake.keys if path.startswith("/t/")} == {("", None)}  # images are public
    written = b"".join(file.read_bytes() for file in settings.data_dir.rglob("*") if file.is_file())
    assert key not in str(error.value) + caplog.text + repr(error.getrepr()) and key.encode() not in written
    assert "/3/movie/1" in caplog.text and len(records(settings)) == 10  # addresses are logged, without the key


def test_a_server_that_is_down_ends_the_run(settings):
    with fake_tmdb() as fake:
        pass
    with pytest.raises(DataError, match=r"can't be reached \(ConnectError\), for \d+ movies in a row"):
        download(settings, fake, changes={"threads": 1, "attempts": 2})
    assert records(settings) == {}


def test_an_interrupted_run_keeps_what_it_has(settings):
    def interrupt(done, total):
        if done == 4:
            raise KeyboardInterrupt

    with fake_tmdb() as fake:
        with pytest.raises(KeyboardInterrupt):
            download(settings, fake, progress=interrupt, changes={"threads": 1})
        kept = records(settings)
        stored = [movie for movie, record in kept.items() if record["size"]]
        assert 4 <= len(kept) <= 6
        fake.requests.clear()
        assert download(settings, fake).downloaded == 11 - len(stored) and len(records(settings)) == 11
        assert not set(fake.requests) & {f"/3/movie/{record['tmdbId']}" for record in kept.values()}


def test_a_full_cache_keeps_the_most_rated(settings):
    small = {"cache_mb": 0.0155, "threads": 1}  # three images
    with fake_tmdb() as fake:
        report = download(settings, fake, changes=small)
        assert (report.downloaded, report.not_stored) == (3, 8) and images(settings) == [1, 2, 3]
        fake.requests.clear()
        report = download(settings, fake, changes=small, now=NOW + 5)
        assert report.not_stored == 8 and images(settings) == [1, 2, 3] and len(fake.requests) == 1  # one try is enough
        other = paths(settings).posters / "77.jpg"  # of a movie that is no longer in the data
        other.write_bytes(JPEG)
        os.utime(other, (NOW - 5, NOW - 5))
        (paths(settings).posters / "2.jpg").unlink()
        assert download(settings, fake, changes=small, now=NOW + 10).downloaded == 1 and images(settings) == [1, 2, 3]


def test_a_second_run_at_the_same_time_is_rejected(settings):
    has_started, may_continue = threading.Event(), threading.Event()

    def quirk(path, before):
        has_started.set()
        may_continue.wait(60)

    with fake_tmdb(quirk) as fake:
        first = threading.Thread(target=download, args=(settings, fake), kwargs={"changes": {"timeout": 60}})
        first.start()
        assert has_started.wait(60), "the first run sent no request"
        with pytest.raises(DataError, match="another `movierec posters` is running for twelve"):
            download(settings, fake)
        may_continue.set()
        first.join()
    assert len(records(settings)) == 11


# The command


def start_command(settings, *options, launcher=(COMMAND,), **environment):
    hidden = ("MOVIEREC_", "TMDB_", "FORCE_COLOR")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(hidden)}
    arguments = [*launcher, "posters", "--dataset", settings.dataset, "--data-dir", settings.data_dir, *options]
    return subprocess.Popen([*map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                            env=kept | environment)


def run_command(settings, *options, **environment):
    process = start_command(settings, *options, **environment)
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def options_for(fake):
    values = {"api_url": f"{fake.url}/3", "image_url": f"{fake.url}/t/p", "backoff": 0, "rate": 10_000}
    return [part for name, value in values.items() for part in ("--set", f"posters.{name}={value}")]


def test_the_command(settings):
    with fake_tmdb(without={105}) as fake:
        status, out, err = run_command(settings, *options_for(fake), "--limit", 9, "--size", "w92", TMDB_API_KEY=V4)
        assert (status, err) == (0, "") and "8 posters downloaded, 1 not available at TMDB" in out
        assert ATTRIBUTION["text"] in out and ATTRIBUTION["link"] in out
        fake.quirk = lambda path, before: (401, {}, b"")
        result = run_command(settings, *options_for(fake), "--refresh", TMDB_API_KEY=V3)
        assert result == (1, "", "Error: TMDB doesn't accept the key in TMDB_API_KEY\n")


def test_the_command_without_links(tmp_path):
    folder = tmp_path / "archive"
    folder.mkdir()
    (folder / "movies.csv").write_text("movieId,title,genres\n1,Movie (2000),Drama\n")
    (folder / "ratings.csv").write_text("userId,movieId,rating,timestamp\n1,1,5.0,1000000000\n")
    settings = load_settings(dataset="plain", data_dir=tmp_path / "data", reports_dir=tmp_path / "reports")
    ingest(settings, folder)
    status, out, err = run_command(settings, TMDB_API_KEY=V3)
    assert (status, err) == (0, "") and "plain has no TMDB ids of its movies" in out


# Restores the handler of Ctrl-C, which Python doesn't install where the parent ignores the signal (nohup, some CI).
WITH_CTRL_C = """
import runpy, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_ctrl_c_keeps_what_was_found(settings):
    """The first movies are answered, then the server hangs; Ctrl-C ends the command, and the records are on disk."""
    is_hanging, may_continue, has_ended = threading.Event(), threading.Event(), threading.Event()

    def quirk(path, before):
        if path == "/3/movie/106":
            is_hanging.set()
            may_continue.wait(60)
        elif may_continue.is_set():  # the signal hasn't arrived yet
            has_ended.wait(60)

    launcher = (sys.executable, "-c", WITH_CTRL_C, COMMAND)
    with fake_tmdb(quirk) as fake:
        options = [*options_for(fake), "--set", "posters.threads=1", "--set", "posters.timeout=10"]
        process = start_command(settings, *options, launcher=launcher, TMDB_API_KEY=V3)
        assert is_hanging.wait(60), "the command sent no request"
        process.send_signal(signal.SIGINT)
        may_continue.set()
        _, err = process.communicate(timeout=60)
        has_ended.set()
    assert process.returncode == 130 and err.startswith("Stopped.") and "Traceback" not in err
    assert {"1", "2", "3", "4", "5"} <= set(records(settings))
