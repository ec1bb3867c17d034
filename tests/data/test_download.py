"""Downloads from a server on this machine that misbehaves in one way at a time."""

import hashlib
import threading
import time
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from movierec.config import DataError, NotFoundError, load_settings
from movierec.data.download import download
from movierec.pipeline import run

ROOT = Path(__file__).resolve().parent.parent
CONTENT = bytes(range(256)) * 800  # 204,800 bytes


class Server:
    """What is served, how badly, and what was asked for."""

    def __init__(self, content=CONTENT, **quirks):
        self.content, self.quirks, self.requests = content, quirks, []
        self.md5 = quirks.get("md5", hashlib.md5(content).hexdigest())

    def answer(self, handler):
        asked = handler.headers.get("Range")
        if handler.path.endswith(".md5"):
            handler.send_response(404 if self.md5 is None else 200)
            body = (self.md5 or "").encode() + b"  archive.zip\n"
            handler.send_header("Content-Length", str(len(body)))
            handler.end_headers()
            handler.wfile.write(body)
            return
        self.requests.append(asked)
        failing = len(self.requests) <= self.quirks.get("times", 10**9)
        if failing and "status" in self.quirks:
            handler.send_response(self.quirks["status"])
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and self.quirks.get("ranges", True) else 0
        if start >= len(self.content):
            handler.send_response(416)
            handler.send_header("Content-Range", f"bytes */{len(self.content)}")
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return
        body = self.content[start:]
        handler.send_response(206 if start else 200)
        if start:
            handler.send_header("Content-Range", f"bytes {start}-{len(self.content) - 1}/{len(self.content)}")
        handler.send_header("Content-Length", str(len(body) + (self.quirks.get("lie", 0) if failing else 0)))
        handler.end_headers()
        if failing and "stall" in self.quirks:
            handler.wfile.write(body[:10_000])
            handler.wfile.flush()
            self.quirks["stall"].wait(10)
        elif failing and "cut" in self.quirks:
            handler.wfile.write(body[: self.quirks["cut"]])
        else:
            handler.wfile.write(body)
        handler.close_connection = True


@contextmanager
def serving(content=CONTENT, **quirks):
    state = Server(content, **quirks)

    class Handler(BaseHTTPRequestHandler):
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
        if "stall" in quirks:
            quirks["stall"].set()
        server.shutdown()
        server.server_close()
        thread.join()


def settings_for(server, folder, **options):
    return load_settings(data_dir=folder, download={"url": server.url, "backoff": 0.001, "timeout": 5, "attempts": 3} | options)


def files(folder):
    return sorted(path.name for path in (folder / "raw").iterdir() if not path.name.endswith(".lock"))


def test_a_good_server(tmp_path):
    told = []
    with serving() as server:
        archive = download(settings_for(server, tmp_path), "ml-20m", lambda done, total: told.append((done, total)))
        assert archive == tmp_path / "raw" / "ml-20m.zip" and archive.read_bytes() == CONTENT
        assert told[-1] == (len(CONTENT), len(CONTENT)) and files(tmp_path) == ["ml-20m.zip"]
        download(settings_for(server, tmp_path), "ml-20m")
        assert server.requests == [None], "a verified archive isn't fetched again"


def test_cut_connections_are_resumed(tmp_path):
    with serving(cut=50_000) as server:
        assert download(settings_for(server, tmp_path), "ml-20m").read_bytes() == CONTENT
        assert server.requests == [None, "bytes=50000-", "bytes=100000-", "bytes=150000-", "bytes=200000-"]


def test_a_part_from_another_day_is_continued(tmp_path):
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "ml-20m.zip.part").write_bytes(CONTENT[:70_000])
    with serving() as server:
        assert download(settings_for(server, tmp_path), "ml-20m").read_bytes() == CONTENT
        assert server.requests == ["bytes=70000-"]


def test_a_part_of_another_file_is_thrown_away(tmp_path):
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "ml-20m.zip.part").write_bytes(b"x" * 70_000)
    with serving() as server:
        assert download(settings_for(server, tmp_path), "ml-20m").read_bytes() == CONTENT
        assert server.requests == ["bytes=70000-", None]


@pytest.mark.parametrize("have", [len(CONTENT), len(CONTENT) + 5])
def test_a_part_that_is_whole_or_too_long(tmp_path, have):
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "ml-20m.zip.part").write_bytes((CONTENT + b"12345")[:have])
    with serving() as server:
        assert download(settings_for(server, tmp_path), "ml-20m").read_bytes() == CONTENT


def test_a_server_without_ranges(tmp_path):
    with serving(ranges=False, cut=50_000, times=2) as server:
        assert download(settings_for(server, tmp_path), "ml-20m").read_bytes() == CONTENT
        assert server.requests == [None, "bytes=50000-", "bytes=50000-"]


def test_passing_trouble_is_waited_out(tmp_path):
    with serving(status=503, times=2) as server:
        assert download(settings_for(server, tmp_path), "ml-20m").read_bytes() == CONTENT


def test_lasting_trouble_is_told(tmp_path):
    with serving(status=503) as server, pytest.raises(DataError, match=r"the server answers 503 \(3 attempts without progress\).*raw/ml-20m\.zip.*--source") as error:
        download(settings_for(server, tmp_path), "ml-20m")
    assert "\n" not in str(error.value) and files(tmp_path) == []


def test_a_missing_file_is_not_tried_again(tmp_path):
    with serving(status=404) as server:
        with pytest.raises(DataError, match="the server answers 404"):
            download(settings_for(server, tmp_path), "ml-20m")
        assert server.requests == [None]


def test_a_wrong_sum_is_tried_once_more_and_never_kept(tmp_path):
    with serving(md5="0" * 32) as server:
        with pytest.raises(DataError, match=r"its MD5 sum is .* where 0+ is published, twice"):
            download(settings_for(server, tmp_path), "ml-20m")
        assert server.requests == [None, None] and files(tmp_path) == []


def test_without_a_published_sum(tmp_path):
    with serving(md5=None) as server:
        assert download(settings_for(server, tmp_path), "ml-20m").read_bytes() == CONTENT


def test_a_server_that_promises_too_much(tmp_path):
    with serving(lie=1_000, times=1) as server:
        assert download(settings_for(server, tmp_path), "ml-20m").read_bytes() == CONTENT


def test_a_stalled_connection_is_left(tmp_path):
    with serving(stall=threading.Event(), times=1) as server:
        started = time.monotonic()
        assert download(settings_for(server, tmp_path, timeout=0.3), "ml-20m").read_bytes() == CONTENT
        assert time.monotonic() - started < 8 and server.requests == [None, "bytes=10000-"]


def test_no_network(tmp_path):
    with serving() as server:
        settings = settings_for(server, tmp_path)
    with pytest.raises(DataError, match=r"ml-20m can't be downloaded from http://127.*ConnectError.*put it at .*ml-20m\.zip") as error:
        download(settings, "ml-20m")
    assert "\n" not in str(error.value)


def test_a_full_disk_is_told_before_the_first_byte(tmp_path, monkeypatch):
    import shutil

    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 9, 1))
    with serving() as server, pytest.raises(DataError, match=r"needs 0 MB and .* has 0 MB left"):
        download(settings_for(server, tmp_path), "ml-20m")
    assert files(tmp_path) == []


def test_unknown_dataset(tmp_path):
    with pytest.raises(NotFoundError, match=r"no dataset ml-20 \(did you mean ml-20m\?\)"):
        download(load_settings(data_dir=tmp_path), "ml-20")


@pytest.mark.slow
def test_run_fetches_what_is_not_at_hand(tmp_path):
    with serving((ROOT / "data" / "ml-latest-small.zip").read_bytes(), cut=400_000) as server:
        settings = load_settings(dataset="ml-25m", data_dir=tmp_path / "data", reports_dir=tmp_path / "reports", protocol="global-time",
                                 download={"url": server.url, "backoff": 0.001})
        results = run(settings)
    assert results["global-time"]["dataset"]["rows"]["ratings"] == 100_836 and len(server.requests) == 3
