"""Posters: drawn ones by what they promise, fetched ones from a TMDB on this machine that has bad days."""

import json
import logging
import os
import re
import signal
import subprocess
import sys
import threading
import time
import xml.etree.ElementTree as ET
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from movierec.artifacts import paths
from movierec.config import DAY, ConfigError, DataError, NotFoundError, load_settings
from movierec.data.ingest import ingest
from movierec.serving.poster_art import (
    MOTIFS,
    PALETTES,
    PLAIN,
    Palette,
    balanced,
    fitted,
    generated_poster,
    lead_genre,
    luminance,
    text_width,
    title_parts,
)
from movierec.serving.posters import Images, Posters, image_kind
from movierec.serving.tmdb import (
    ATTRIBUTION,
    RequestPace,
    TmdbClient,
    download_posters,
    movies_with_tmdb_id,
    retry_after,
    tmdb_key,
)

COMMAND = Path(sys.executable).with_name("movierec")
V3, V4 = "0123456789abcdef0123456789abcdef", "eyJhbGciOiJIUzI1NiJ9.eyJhdWQiOiIwMTIzIn0.c2lnbmF0dXJlLXNpZ25hdHVyZQ"
JPEG, PNG, WEBP = b"\xff\xd8\xff\xe0" + bytes(5_000), b"\x89PNG\r\n\x1a\n" + bytes(4_000), b"RIFF\x10\x00\x00\x00WEBPVP8 " + bytes(3_000)
NOW = 1_700_000_000
SVG = "{http://www.w3.org/2000/svg}"


# --- generated posters -------------------------------------------------------------------------------------------------------------------


def texts(poster):
    return [" ".join(part.text or "" for part in text) for text in ET.fromstring(poster).iter(f"{SVG}text")]


def contrast(first, second):
    """By hand, after WCAG 2.2."""
    def light(colour):
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    a, b = light(first) + 0.05, light(second) + 0.05
    return max(a / b, b / a)


def test_contrast_as_the_standard_has_it():
    assert luminance("#ffffff") == pytest.approx(1) and luminance("#000000") == 0
    assert Palette("#777777", *["#ffffff"] * 5).against("#ffffff") == pytest.approx(4.48, abs=0.005)  # the well-known grey that just fails


@pytest.mark.parametrize("genre", [*PALETTES, ""])
def test_what_is_written_can_be_read(genre):
    """Every text of a poster, against the rectangle that it stands on."""
    for movie in range(60):
        root = ET.fromstring(generated_poster(movie, "A Film", 1999, [genre] if genre else []))
        ground = [part for part in root if part.tag == f"{SVG}rect" and part.get("height") == "513"][-1]
        for text in root.iter(f"{SVG}text"):
            assert contrast(text.get("fill"), ground.get("fill")) >= 4.5
            for line in text:
                assert float(line.get("y")) - float(text.get("font-size")) >= float(ground.get("y")) and float(line.get("y")) < 513


def test_every_palette_and_motif_is_there():
    assert list(MOTIFS) == [*PALETTES, ""] and all(re.fullmatch("#[0-9a-f]{6}", colour) for some in [*PALETTES.values(), PLAIN] for palette in some for colour in palette)
    assert lead_genre(["Drama", "Comedy", "Sci-Fi"]) == "Sci-Fi" and lead_genre([]) == lead_genre(["Telenovela"]) == ""


def test_the_same_film_has_the_same_poster_everywhere():
    mine = generated_poster(1, "Toy Story", 1995, ["Adventure", "Animation"])
    program = "import sys; from movierec.posters import generated_poster as g; sys.stdout.buffer.write(g(1, 'Toy Story', 1995, ['Adventure', 'Animation']).encode())"
    other = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, env=os.environ | {"PYTHONHASHSEED": "7"}).stdout
    assert mine.encode() == other
    assert texts(mine) == ["Toy Story", "1995 · Animation · Adventure"]


@pytest.mark.parametrize("genre", [*PALETTES, "", "Telenovela"])
def test_no_two_look_alike(genre):
    """Without what is written on them; and small they are."""
    drawn = [generated_poster(movie, "The Same", 2000, [genre]) for movie in range(400)]
    assert len({re.sub("<text.*?</text>|<title.*?</title>|f[0-9a-f]{8}", "", poster) for poster in drawn}) == 400
    assert max(len(poster.encode()) for poster in drawn) < 6_000
    assert generated_poster(1, "One", 2000, [genre]) != generated_poster(1, "Another", 2000, [genre])


@given(st.one_of(st.integers(0, 10**9), st.text(max_size=40)), st.text(max_size=300), st.one_of(st.none(), st.integers(-5, 99_999)), st.lists(st.one_of(st.sampled_from([*PALETTES]), st.text(max_size=60)), max_size=5))
def test_any_title_gives_a_sound_poster(movie, title, year, genres):
    poster = generated_poster(movie, title, year, genres)
    root = ET.fromstring(poster.encode())
    assert root.get("viewBox") == "0 0 342 513" and len(poster.encode()) < 12_000
    assert {part.tag.removeprefix(SVG) for part in root.iter()} <= {"svg", "title", "defs", "linearGradient", "stop", "g", "path", "rect", "circle", "ellipse", "text", "tspan"}
    for part in root.iter():
        assert not any("href" in name or name.startswith("on") or name == "style" for name in part.attrib)
    assert re.findall(r"url\((?!#)|https?://(?!www\.w3\.org/2000/svg\")", re.sub("<title.*?</title>|<tspan.*?</tspan>", "", poster, flags=re.S)) == []


@pytest.mark.parametrize("title", ["Heat", "Supercalifragilisticexpialidocious", "Dr. Strangelove or How I Learned to Stop Worrying and Love the Bomb", "千と千尋の神隠し", "x" * 400,
                                   "Amélie Žižek Łódź Ñandú", "기생충과 그 밖의 이야기들", "A B C D E F G H I J K L M N O P Q R S T U V W X Y Z " * 4])
def test_titles_fit(title):
    lines, size = fitted(title, 294, 120, 44, 15)
    assert 15 <= size <= 44 or len(lines) == 1
    assert all(text_width(line) * size <= 294.01 for line in lines) and len(lines) * size * 1.12 <= 120.01
    whole = "".join(lines).replace(" ", "")
    assert whole == title.replace(" ", "") or (whole.endswith("…") and title.replace(" ", "").startswith(whole[:-1]))


def test_long_titles_shrink():
    assert fitted("Heat", 294, 120, 44, 15)[1] == 44 > fitted("The Assassination of Jesse James by the Coward Robert Ford", 294, 120, 44, 15)[1]


@given(st.lists(st.sampled_from(["a", "bb", "lli", "Wm", "ccccc", "dddddddd"]), min_size=1, max_size=9), st.integers(1, 4))
def test_lines_are_as_even_as_can_be(words, number):
    """Beside all ways to break it."""
    text = " ".join(words)
    lines = balanced(text, number)
    assert " ".join(lines) == text and len(lines) <= number

    def ways(rest, left):
        yield [" ".join(rest)]
        if left > 1:
            yield from ([" ".join(rest[:at]), *more] for at in range(1, len(rest)) for more in ways(rest[at:], left - 1))

    best = min(max(map(text_width, way)) for way in ways(words, number))
    assert max(map(text_width, lines)) <= best + text_width(" ") + 1e-9  # a space at the end of a line counts while it breaks


@pytest.mark.parametrize(("title", "parts"), [
    ("Heat", ("Heat", "")),
    ("Seven (a.k.a. Se7en) (1995)", ("Seven", "Se7en")),
    ("City of God (Cidade de Deus)", ("City of God", "Cidade de Deus")),
    ("Mission: Impossible", ("Mission: Impossible", "")),
    ("The Lord of the Rings: The Two Towers (2002)", ("The Lord of the Rings", "The Two Towers")),
    ("(500) Days of Summer", ("(500) Days of Summer", "")),
    ("Fish (I)mplied", ("Fish (I)mplied", "")),
    ("(2009)", ("(2009)", "")),
    ("a\x00b\nc\ud800", ("a b c", "")),
    ("", ("", "")),
])
def test_title_parts(title, parts):
    assert title_parts(title) == parts


def test_markup_in_titles_stays_text():
    poster = generated_poster(1, """</text><script>alert("x")</script>&amp;'""", 2000, ["<b>Drama</b>"])
    assert "<script" not in poster and "&lt;script&gt;" in poster and "&lt;b&gt;Drama" in poster
    assert ET.fromstring(poster).find(f"{SVG}title").text == """</text><script>alert("x")</script>&amp;' (2000)"""


# --- images on the disk ------------------------------------------------------------------------------------------------------------------


def test_image_kinds():
    assert [image_kind(content) for content in (JPEG, PNG, WEBP)] == ["jpg", "png", "webp"]
    assert [image_kind(content) for content in (b"", b"\xff\xd8", b"<html>", b"GIF89a", b"<svg xmlns=", b"RIFF0000WAVE", b"xxxx0000WEBP")] == [None] * 7


def test_the_least_recently_used_image_goes_first(tmp_path):
    images = Images(tmp_path / "new", 20_100)
    for moment, movie in enumerate((1, 2, 3, 4)):
        assert images.put(movie, JPEG, NOW + moment)
    images.use(1, NOW + 10)
    again = Images(tmp_path / "new", 20_100)  # another process
    assert again.put(5, JPEG, NOW + 11) and again.put(6, JPEG, NOW + 12)
    assert [movie for movie in range(1, 7) if again.find(movie)] == [1, 4, 5, 6] and len(again) == 4
    assert not again.put(7, JPEG, NOW + 13, spare=NOW) and not again.put(7, bytes(30_000), NOW + 13)
    assert len(again) == 4 and not list((tmp_path / "new").glob(".*"))


def test_an_image_is_replaced_in_whatever_format(tmp_path):
    images = Images(tmp_path, 8_000)
    assert images.put(1, JPEG, NOW) and images.put(1, PNG, NOW + 1)
    assert [file.name for file in tmp_path.iterdir()] == ["1.png"]
    images.remove(1)
    images.remove(1)
    assert images.find(1) is None and len(images) == 0


def test_what_a_killed_run_left_is_cleared(tmp_path):
    (tmp_path / ".1.jpg.99.tmp").write_bytes(JPEG[:100])
    assert Images(tmp_path, 10_000).put(2, JPEG, NOW) and [file.name for file in tmp_path.iterdir()] == ["2.jpg"]


# --- pace, waiting, key ------------------------------------------------------------------------------------------------------------------


def test_threads_share_one_pace():
    """On a clock that moves when somebody waits, eight threads take no more turns than one could."""
    lock, moments, clock = threading.Lock(), [], [0.0]

    def wait(seconds):
        with lock:
            clock[0] += seconds
        return False

    pace = RequestPace(10, lambda: clock[0], wait)
    wanted = iter(range(40))

    def work():
        for _ in wanted:
            pace.take()
            with lock:
                moments.append(clock[0])

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(moments) >= 40 and clock[0] >= 39 / 10 - 1e-6


def test_retry_after():
    assert retry_after("7", 0) == 7 and retry_after(" 0 ", 0) == 0
    assert retry_after("Wed, 21 Oct 2015 07:28:00 GMT", 1_445_412_450) == 30 and retry_after("Wed, 21 Oct 2015 07:28:00 GMT", 2_000_000_000) == 0
    assert [retry_after(text, 0) for text in (None, "", "soon", "-3", "1.5", "9" * 30)] == [0] * 6


def test_keys(monkeypatch):
    for value, expected in (("", None), ("   ", None), (f" {V3}\n", V3), (V4, V4)):
        monkeypatch.setenv("TMDB_API_KEY", value)
        assert (key := tmdb_key()) is None or (key.get_secret_value() == expected and expected not in repr(key))
        assert (key is None) == (expected is None)
    for value in ("short", "Bearer " + V4, "key\u00e9" * 4, "a" * 3_000, "abc&admin=true"):
        monkeypatch.setenv("TMDB_API_KEY", value)
        with pytest.raises(ConfigError) as error:
            tmdb_key()
        assert value not in str(error.value)
    monkeypatch.delenv("TMDB_API_KEY")
    assert tmdb_key() is None


# --- a TMDB with bad days ----------------------------------------------------------------------------------------------------------------


class Fake:
    """What is asked, and what is answered: `quirk(path, how often it was asked before)` may return (status, headers, body) or a function of the handler."""

    def __init__(self, quirk=lambda path, before: None, without=()):
        self.quirk, self.without, self.requests, self.keys, self._lock = quirk, without, [], [], threading.Lock()

    def asked(self, start):
        return [path for path in self.requests if path.startswith(start)]

    def answer(self, handler):
        path, _, query = handler.path.partition("?")
        with self._lock:
            before = self.requests.count(path)
            self.requests.append(path)
            self.keys.append((path, query, handler.headers.get("Authorization")))
        found = self.quirk(path, before)
        if callable(found):
            return found(handler)
        if found is None and path.startswith("/3/movie/"):
            number = int(path.removeprefix("/3/movie/"))
            found = 200, {"Content-Type": "application/json"}, json.dumps({"id": number, "poster_path": None if number in self.without else f"/p{number}.jpg"}).encode()
        status, headers, body = found or (200, {"Content-Type": "image/jpeg"}, JPEG)
        handler.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | headers).items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body)


@contextmanager
def fake(*args, **kwargs):
    state = Fake(*args, **kwargs)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            with suppress(BrokenPipeError, ConnectionResetError):
                state.answer(self)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def settings(tmp_path):
    """Twelve films, of which the tenth has no number at TMDB; film 3 is the best known."""
    folder = tmp_path / "archive"
    folder.mkdir()
    (folder / "movies.csv").write_text("movieId,title,genres\n" + "".join(f"{m},Film {m} (2000),Drama\n" for m in range(1, 13)))
    (folder / "links.csv").write_text("movieId,imdbId,tmdbId\n" + "".join(f"{m},0{m},{'' if m == 10 else 100 + m}\n" for m in range(1, 13)))
    (folder / "ratings.csv").write_text("userId,movieId,rating,timestamp\n" + "1,3,5.0,1000000000\n2,3,4.0,1000000000\n" + "".join(f"1,{m},4.0,{1_000_002_000 + m}\n" for m in range(1, 13) if m != 3))
    settings = load_settings(dataset="twelve", data_dir=tmp_path / "data", reports_dir=tmp_path / "reports", posters={"backoff": 0.0, "rate": 100_000, "timeout": 5, "threads": 4})
    ingest(settings, folder)
    return settings


def at(settings, server, **changes):
    return settings.model_copy(update={"posters": settings.posters.model_copy(update={"api_url": f"{server.url}/3", "image_url": f"{server.url}/t/p", **changes})})


def fetch(settings, server, key=V3, now=NOW, changes=None, **options):
    return download_posters(at(settings, server, **(changes or {})), SecretStr(key), now, **options)


def known(settings):
    return json.loads(paths(settings).item_posters.read_text())


def images(settings):
    return sorted(int(file.stem) for file in paths(settings).posters.iterdir())


def test_posters_are_fetched_and_remembered(settings):
    told = []
    with fake(without={105}) as server:
        found = fetch(settings, server, tell=lambda done, total: told.append((done, total)))
        assert (found.films, found.wanted, found.posters, found.missing, found.failed, found.unfit) == (11, 11, 10, 1, 0, 0)
        assert told == [(done, 11) for done in range(1, 12)]
        assert sorted(server.requests) == sorted([f"/3/movie/{100 + m}" for m in range(1, 13) if m != 10] + [f"/t/p/w342/p{100 + m}.jpg" for m in range(1, 13) if m not in (5, 10)])
        server.requests.clear()
        assert fetch(settings, server).wanted == 0 and server.requests == []
    assert list(known(settings)) == [str(m) for m in range(1, 13) if m != 10]
    assert known(settings)["3"] == {"tmdbId": 103, "poster": "/p103.jpg", "size": "w342", "asked": NOW}
    assert known(settings)["5"] == {"tmdbId": 105, "poster": None, "size": None, "asked": NOW}
    assert images(settings) == [m for m in range(1, 13) if m not in (5, 10)] and (paths(settings).posters / "3.jpg").read_bytes() == JPEG


def test_the_best_known_come_first_and_the_rest_later(settings):
    assert movies_with_tmdb_id(settings)["movieId"].tolist()[:3] == [3, 1, 2]
    with fake() as server:
        assert fetch(settings, server, limit=2).wanted == 2 and list(known(settings)) == ["1", "3"]
        server.requests.clear()
        assert fetch(settings, server, limit=3, now=NOW + 5).posters == 3
        assert sorted(server.asked("/3")) == ["/3/movie/102", "/3/movie/104", "/3/movie/105"]


def test_answers_expire(settings):
    with fake(without={105}) as server:
        fetch(settings, server)
        for days, expected in ((29, []), (31, ["/3/movie/105"]), (60, []), (62, ["/3/movie/105"])):
            server.requests.clear()
            fetch(settings, server, now=NOW + days * DAY)
            assert server.requests == expected
        server.requests.clear()
        server.without = {101}  # it has been taken away there
        assert fetch(settings, server, now=NOW + 151 * DAY).missing == 1
        assert len(server.asked("/3")) == 11 and 1 not in images(settings) and 5 in images(settings)


def test_refresh_size_and_lost_images(settings):
    with fake() as server:
        fetch(settings, server)
        server.requests.clear()
        assert fetch(settings, server, refresh=True, limit=1).posters == 1 and server.requests == ["/3/movie/103", "/t/p/w342/p103.jpg"]
        server.requests.clear()
        assert fetch(settings, server, size="w185").posters == 11 and server.asked("/3") == [] and len(server.asked("/t/p/w185/")) == 11
        server.requests.clear()
        (paths(settings).posters / "4.jpg").unlink()
        assert fetch(settings, server, size="w185").posters == 1 and server.requests == ["/t/p/w185/p104.jpg"]
        with pytest.raises(ConfigError, match="there is no size w1"):
            fetch(settings, server, size="w1")


def test_another_number_at_tmdb_is_asked_anew(settings):
    with fake() as server:
        fetch(settings, server)
        entries = known(settings)
        entries["3"]["tmdbId"] = 999
        paths(settings).item_posters.write_text(json.dumps(entries))
        server.requests.clear()
        fetch(settings, server)
        assert server.requests == ["/3/movie/103", "/t/p/w342/p103.jpg"]


@pytest.mark.parametrize("text", ["", "{", "[]", "7", '{"1": 5, "2": {"asked": "x"}, "3": {}}', "\x00"])
def test_a_damaged_memory_is_no_memory(settings, text):
    paths(settings).item_posters.write_text(text)
    with fake() as server:
        assert fetch(settings, server).posters == 11 and len(known(settings)) == 11


@pytest.mark.parametrize("quirk", [
    (500, {}, b""), (503, {}, b"<html>busy</html>"), (429, {}, b""), (200, {}, b"<html>hello</html>"), (200, {}, b""), (200, {}, b"[]"), (200, {}, b"null"), (200, {}, b'"text"'),
    (200, {}, b"{}"), (200, {}, b'{"poster_path": 7}'), (200, {}, b'{"poster_path": "/../../etc/passwd"}'), (200, {}, b'{"poster_path": "http://evil.example/x.jpg"}'),
    (200, {}, b'{"poster_path": "/x.svg"}'), (200, {}, b"[" * 100_000), (200, {}, bytes(range(256))), (200, {"Content-Encoding": "gzip"}, b"not gzip"), (200, {"Content-Length": "9000"}, b"short"),
    lambda handler: handler.connection.close(), lambda handler: handler.wfile.write(b"SSH-2.0-OpenSSH\r\n"),
], ids=str)
def test_what_may_pass_is_tried_again(settings, quirk):
    """Each film's first two attempts go wrong, of the question and of the image; in the end everything is there."""
    def closing(handler):
        handler.close_connection = True
        return quirk(handler)

    with fake(lambda path, before: (closing if callable(quirk) else (quirk[0], {"Connection": "close"} | quirk[1], quirk[2])) if before < 2 else None) as server:
        found = fetch(settings, server, changes={"timeout": 1})
        assert (found.posters, found.failed) == (11, 0) and images(settings) == [m for m in range(1, 13) if m != 10]
        assert {server.requests.count(path) for path in server.requests} == {3}


@pytest.mark.parametrize(("kind", "trouble"), [
    ((500, {}, b""), "500"), ((200, {"Content-Type": "image/jpeg"}, b"<html>nothing here</html>"), "isn't an image"), ((404, {}, b""), "doesn't have the image"), ((302, {"Location": "http://127.0.0.1:1/"}, b""), "302"),
    ((200, {}, JPEG + bytes(60_000)), "more than 50,000 bytes"), ((418, {}, b""), "418"), ((403, {}, b""), "403"),
], ids=lambda value: str(value)[:30])
def test_a_film_that_fails_costs_only_itself(settings, kind, trouble):
    with fake(lambda path, before: kind if path.endswith("p103.jpg") else None) as server:
        found = fetch(settings, server, changes={"max_image": 50_000})
        assert (found.posters, found.failed) == (10, 1) and trouble in found.trouble
        assert 3 not in images(settings) and known(settings)["3"]["poster"] == "/p103.jpg"
        server.quirk = lambda path, before: None
        server.requests.clear()
        assert fetch(settings, server).posters == 1 and server.requests == ["/t/p/w342/p103.jpg"]  # what is known isn't asked again


def test_png_and_webp_are_taken_whatever_they_are_called(settings):
    with fake(lambda path, before: (200, {"Content-Type": "text/html"}, PNG if "p103" in path else WEBP) if path.startswith("/t/") else None) as server:
        fetch(settings, server, limit=2)
    assert sorted(file.name for file in paths(settings).posters.iterdir()) == ["1.webp", "3.png"]
    assert Posters(settings).of(3, "Film 3", 2000, [], NOW).media_type == "image/png" and Posters(settings).of(1, "Film 1", 2000, [], NOW).media_type == "image/webp"


def test_endless_and_lying_bodies(settings):
    """A body without an end is left, and one that claims to be longer than it is isn't taken."""
    def endless(handler):
        handler.close_connection = True
        handler.send_response(200)
        handler.end_headers()
        while True:
            handler.wfile.write(JPEG)

    with fake(lambda path, before: endless if path.endswith("p103.jpg") else None) as server:
        found = fetch(settings, server)
        assert (found.posters, found.failed) == (10, 1) and "more than 2,000,000 bytes" in found.trouble
    with fake(lambda path, before: (200, {"Content-Length": "9000", "Connection": "close"}, JPEG) if path.endswith("p103.jpg") else None) as server:
        assert fetch(settings, server).failed == 1 and 3 not in images(settings)


def test_all_wait_when_the_server_says_so(settings):
    """Two requests are turned away with Retry-After; nobody asks again before that."""
    moments, waited, now = [], [], [0.0]
    lock = threading.Lock()

    def wait(seconds):
        with lock:
            waited.append(seconds)
            now[0] += seconds
        return False

    def quirk(path, before):
        with lock:
            moments.append(now[0])
        return (429, {"Retry-After": "7"}, b"") if path == "/3/movie/103" and before < 2 else None

    with fake(quirk) as server:
        mine = at(settings, server, threads=1)
        found = download_posters(mine, SecretStr(V3), NOW, tmdb=TmdbClient(mine.posters, SecretStr(V3), pace=RequestPace(1_000, lambda: now[0], wait)))
    assert found.posters == 11 and now[0] >= 14
    assert moments[0] < 1 and 7 <= moments[1] < 8 and 14 <= moments[2] < 15


def test_a_server_that_wants_to_be_left_alone_is(settings):
    with fake(lambda path, before: (429, {"Retry-After": "3600"}, b"") if path == "/3/movie/112" else None) as server, pytest.raises(DataError, match=r"3,600 seconds"):
        fetch(settings, server, changes={"threads": 1})
    assert len(known(settings)) == 10  # what came before is kept


def test_waits_grow_with_jitter_and_can_be_repeated(settings):
    def waits(seed):
        waited = []
        with fake(lambda path, before: (500, {}, b"")) as server:
            tmdb = TmdbClient(at(settings, server, threads=1, backoff=1.0, attempts=4).posters, SecretStr(V3), seed, RequestPace(1e9, wait=lambda seconds: waited.append(seconds)))
            with pytest.raises(Exception, match="500"):
                tmdb.poster(1)
            tmdb.close()
        return [seconds for seconds in waited if seconds > 1e-6]

    first = waits(1)
    assert len(first) == 3 and all(seconds <= most for seconds, most in zip(first, (1, 2, 4), strict=True))
    assert first == waits(1) != waits(2)
    expected = Random(1)
    assert first == [expected.uniform(0, most) for most in (1, 2, 4)]


@pytest.mark.parametrize(("key", "status"), [(V3, 401), (V4, 401), (V3, 403)])
def test_a_key_that_is_refused_ends_it_and_is_told_to_nobody(settings, key, status, caplog):
    caplog.set_level(logging.DEBUG)
    with fake(lambda path, before: (status, {}, b'{"status_message": "Invalid API key"}') if path == "/3/movie/112" else None) as server:
        with pytest.raises(ConfigError, match="doesn't accept the key in TMDB_API_KEY") as error:
            fetch(settings, server, key, changes={"threads": 1})
        fetch(settings, server, key, limit=1, refresh=True)
        of_api = [told for told in server.keys if told[0].startswith("/3/")]
        assert all(told[1:] == ((f"api_key={V3}", None) if key == V3 else ("", f"Bearer {V4}")) for told in of_api)
        assert all(told[1:] == ("", None) for told in server.keys if told[0].startswith("/t/"))  # images are public
    written = b"".join(file.read_bytes() for file in settings.data_dir.rglob("*") if file.is_file())
    assert key not in str(error.value) + caplog.text + repr(error.getrepr()) and key.encode() not in written
    assert "/3/movie/1" in caplog.text and len(known(settings)) == 10  # the addresses are logged, without it


def test_a_server_that_is_away_is_not_asked_for_every_film(settings):
    with fake() as server:
        pass
    with pytest.raises(DataError, match=r"can't be reached \(ConnectError\), for \d+ films in a row"):
        fetch(settings, server, changes={"threads": 1, "attempts": 2})
    assert known(settings) == {}


def test_interrupted_it_keeps_what_it_has(settings):
    def tell(done, total):
        if done == 4:
            raise KeyboardInterrupt

    with fake() as server:
        with pytest.raises(KeyboardInterrupt):
            fetch(settings, server, tell=tell, changes={"threads": 1})
        kept = known(settings)
        assert 4 <= len(kept) <= 6
        server.requests.clear()
        found = fetch(settings, server)
        assert found.posters == 11 - len(images_before(kept)) and len(known(settings)) == 11 and not set(server.requests) & {f"/3/movie/{entry['tmdbId']}" for entry in kept.values()}


def images_before(kept):
    """Films of which everything was there."""
    return [movie for movie, entry in kept.items() if entry["size"]]


def test_a_full_folder_keeps_the_best_known(settings):
    small = {"cache_mb": 0.0155, "threads": 1}  # three images
    with fake() as server:
        found = fetch(settings, server, changes=small)
        assert (found.posters, found.unfit) == (3, 8) and images(settings) == [1, 2, 3]
        server.requests.clear()
        found = fetch(settings, server, changes=small, now=NOW + 5)
        assert found.unfit == 8 and images(settings) == [1, 2, 3] and len(server.requests) == 1  # one try is enough
        (paths(settings).posters / "77.jpg").write_bytes(JPEG)  # of a film that is no longer in the data
        os.utime(paths(settings).posters / "77.jpg", (NOW - 5, NOW - 5))
        (paths(settings).posters / "2.jpg").unlink()
        assert fetch(settings, server, changes=small, now=NOW + 10).posters == 1 and images(settings) == [1, 2, 3]


def test_two_runs_at_once_are_one_too_many(settings):
    started, go_on = threading.Event(), threading.Event()

    def quirk(path, before):
        started.set()
        go_on.wait(20)

    with fake(quirk) as server:
        first = threading.Thread(target=fetch, args=(settings, server))
        first.start()
        started.wait(20)
        with pytest.raises(DataError, match="another `movierec posters` is busy with twelve"):
            fetch(settings, server)
        go_on.set()
        first.join()
    assert len(known(settings)) == 11


def test_a_dataset_that_was_not_read_says_so(tmp_path):
    with pytest.raises(NotFoundError, match="`movierec run` comes first"):
        movies_with_tmdb_id(load_settings(data_dir=tmp_path))


# --- serving -----------------------------------------------------------------------------------------------------------------------------


def test_serving_from_the_disk_or_drawn(settings):
    images_of = Images(paths(settings).posters, 100_000)
    images_of.put(1, JPEG, NOW)
    posters = Posters(settings)
    fetched, drawn = posters.of(1, "Film 1", 2000, ["Drama"], NOW + 1), posters.of(2, "Film 2", 2000, ["Drama"], NOW)
    assert (fetched.content, fetched.media_type, fetched.from_tmdb) == (JPEG, "image/jpeg", True)
    assert (drawn.content.decode(), drawn.media_type, drawn.from_tmdb) == (generated_poster(2, "Film 2", 2000, ["Drama"]), "image/svg+xml", False)
    assert fetched.etag != drawn.etag == posters.of(2, "Film 2", 2000, ["Drama"], NOW).etag
    assert posters.of("../../1", "Film", None, [], NOW).media_type == "image/svg+xml" and posters.count() == 1
    file = paths(settings).posters / "1.jpg"
    for used, asked, then in ((NOW, NOW + 7_200, NOW + 7_200), (NOW + 50, NOW + 60, None)):
        os.utime(file, (used, NOW))
        posters.of(1, "Film 1", 2000, ["Drama"], asked)
        assert file.stat().st_mtime == NOW and then in (None, file.stat().st_atime)


# --- the command -------------------------------------------------------------------------------------------------------------------------


def command(settings, *arguments, **environment):
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MOVIEREC_", "TMDB_", "FORCE_COLOR"))}
    arguments = ["posters", "--dataset", settings.dataset, "--data-dir", settings.data_dir, *arguments]
    return subprocess.Popen([str(COMMAND), *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=kept | environment)


def places(server):
    return "--set", f"posters.api_url={server.url}/3", "--set", f"posters.image_url={server.url}/t/p", "--set", "posters.backoff=0", "--set", "posters.rate=10000"


def test_the_command(settings):
    with fake(without={105}) as server:
        out, err = (process := command(settings, *places(server), "--limit", 9, "--size", "w92", TMDB_API_KEY=V4)).communicate(timeout=60)
        assert process.returncode == 0 and err == "" and "8 posters fetched, 1 not to be had at TMDB" in out and ATTRIBUTION["text"] in out and ATTRIBUTION["link"] in out
        out, _ = command(settings, *places(server), "--size", "w92", TMDB_API_KEY=V3).communicate(timeout=60)
        assert "2 posters fetched" in out and len(server.asked("/3")) == 11
        server.quirk = lambda path, before: (401, {}, b"")
        out, err = (process := command(settings, *places(server), "--refresh", TMDB_API_KEY=V3)).communicate(timeout=60)
        assert process.returncode == 1 and out == "" and err == "Error: TMDB doesn't accept the key in TMDB_API_KEY\n"
    out, err = (process := command(settings)).communicate(timeout=60)
    assert process.returncode == 1 and err.startswith("Error: TMDB_API_KEY isn't set") and err.count("\n") == 1
    out, err = (process := command(settings.model_copy(update={"dataset": "none"}))).communicate(timeout=60)
    assert process.returncode == 1 and "`movierec run` comes first" in err


def test_without_links_there_are_generated_posters(tmp_path):
    folder = tmp_path / "archive"
    folder.mkdir()
    (folder / "movies.csv").write_text("movieId,title,genres\n1,Film (2000),Drama\n")
    (folder / "ratings.csv").write_text("userId,movieId,rating,timestamp\n1,1,5.0,1000000000\n")
    settings = load_settings(dataset="plain", data_dir=tmp_path / "data", reports_dir=tmp_path / "reports")
    ingest(settings, folder)
    out, err = (process := command(settings, TMDB_API_KEY=V3)).communicate(timeout=60)
    assert process.returncode == 0 and err == "" and out == "plain doesn't say which films of TMDB its films are, so they keep their generated posters.\n"


def test_ctrl_c(settings):
    """The first films are answered, then the server hangs; Ctrl-C ends it, and what was found is on the disk."""
    hanging, go_on = threading.Event(), threading.Event()

    def quirk(path, before):
        if path == "/3/movie/106":
            hanging.set()
            go_on.wait(30)

    with fake(quirk) as server:
        process = command(settings, *places(server), "--set", "posters.threads=1", TMDB_API_KEY=V3)
        assert hanging.wait(60)
        process.send_signal(signal.SIGINT)
        time.sleep(0.2)  # the answer may come before the signal or after: neither makes a difference
        go_on.set()
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and err.startswith("Stopped.") and "Traceback" not in err
    assert {"1", "2", "3", "4", "5"} <= set(known(settings))
