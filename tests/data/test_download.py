"""Downloads from local servers that misbehave in one way at a time.

`ml-latest` has no checksum in the catalogue, so that the servers publish one for what they serve.
"""

import hashlib
import shutil
import ssl
import subprocess
import threading
from contextlib import contextmanager, suppress
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from movierec.config import DataError, NotFoundError, load_settings
from movierec.data.catalogue import CATALOGUE
from movierec.data.download import download
from movierec.pipeline import run

CONTENT = bytes(range(256)) * 800  # 204,800 bytes


class Server:
    """What is served, how badly, and which ranges were asked for."""

    def __init__(self, content=CONTENT, **quirks):
        self.content, self.quirks, self.requests = content, quirks, []
        self.md5 = quirks.get("md5", hashlib.md5(content).hexdigest())
        self.md5_requests = 0

    def answer(self, handler):
        if handler.path.endswith(".md5"):
            self.md5_requests += 1
            return self.send(handler, 404 if self.md5 is None else 200, (self.md5 or "").encode() + b"  archive.zip\n")
        requested = handler.headers.get("Range")
        self.requests.append(requested)
        is_failing = len(self.requests) <= self.quirks.get("times", 10**9)
        if is_failing and "status" in self.quirks:
            return self.send(handler, self.quirks["status"], b"")
        has_range = requested and self.quirks.get("ranges", True)
        start = int(requested.removeprefix("bytes=").removesuffix("-")) if has_range else 0
        size = len(self.content)
        if start >= size:
            return self.send(handler, 416, b"", content_range=f"bytes */{size}")
        body, sent = self.content[start:], size
        if is_failing and "cut" in self.quirks:
            sent = self.quirks["cut"]
        excess = self.quirks.get("promised_too_much", 0) if is_failing else 0
        content_range = f"bytes {start}-{size - 1}/{size}" if start else None
        self.send(handler, 206 if start else 200, body[:sent], len(body) + excess, content_range)
        if is_failing and "stall" in self.quirks:
            self.quirks["stall"].wait(10)

    def send(self, handler, status, body, length=None, content_range=None):
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(body) if length is None else length))
        if content_range:
            handler.send_header("Content-Range", content_range)
        handler.end_headers()
        handler.wfile.write(body)
        handler.wfile.flush()
        handler.close_connection = True


@contextmanager
def serving(content=CONTENT, certificate=None, **quirks):
    state = Server(content, **quirks)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            with suppress(BrokenPipeError, ConnectionResetError):
                state.answer(self)

        def log_message(self, *_):
            pass

    class QuietServer(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request, client_address):
            """A client that refuses the certificate is no error of this server."""

    server = QuietServer(("127.0.0.1", 0), Handler)
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    state.url = f"{'https' if certificate else 'http'}://127.0.0.1:{server.server_port}"
    try:
        yield state
    finally:
        if "stall" in quirks:
            quirks["stall"].set()
        server.shutdown()
        server.server_close()
        thread.join()


def settings_for(server, folder, attempts=3, timeout=20, mirrors=()):
    urls = [one.url for one in (server, *mirrors)]
    options = {"urls": urls, "backoff": 0.001, "timeout": timeout, "attempts": attempts}
    return load_settings(dataset="ml-latest", data_dir=folder, reports_dir=folder / "reports", download=options)


def fetch(server, folder, **options):
    return download(settings_for(server, folder, **options), "ml-latest").read_bytes()


def files(folder):
    return sorted(path.name for path in (folder / "raw").iterdir() if not path.name.endswith(".lock"))


def test_a_good_server(tmp_path):
    progress = []
    with serving() as server:
        settings = settings_for(server, tmp_path)
        archive = download(settings, "ml-latest", lambda done, total: progress.append((done, total)))
        assert archive == tmp_path / "raw" / "ml-latest.zip" and archive.read_bytes() == CONTENT
        assert progress[-1] == (len(CONTENT), len(CONTENT)) and files(tmp_path) == ["ml-latest.zip"]
        download(settings, "ml-latest")
        assert server.requests == [None], "a verified archive isn't fetched again"


def test_broken_connections_are_resumed(tmp_path):
    with serving(cut=50_000) as server:
        assert fetch(server, tmp_path) == CONTENT
        assert server.requests == [None, "bytes=50000-", "bytes=100000-", "bytes=150000-", "bytes=200000-"]


@pytest.mark.parametrize(("part", "requests"), [
    (CONTENT[:70_000], ["bytes=70000-"]), # of an earlier attempt: resumed
    (b"x" * 70_000, ["bytes=70000-", None]), # of another file: the checksum is wrong, so it is fetched from the start
    (CONTENT, ["bytes=204800-"]), # complete
    (CONTENT + b"12345", ["bytes=204805-", None]), # longer than the file: fetched from the start
])
def test_partial_files(tmp_path, part, requests):
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "ml-latest.zip.part").write_bytes(part)
    with serving() as server:
        assert fetch(server, tmp_path) == CONTENT
        assert server.requests == requests


def test_a_server_without_ranges(tmp_path):
    with serving(ranges=False, cut=50_000, times=2) as server:
        assert fetch(server, tmp_path) == CONTENT
        assert server.requests == [None, "bytes=50000-", "bytes=50000-"]


def test_temporary_errors_are_retried(tmp_path):
    with serving(status=503, times=2) as server:
        assert fetch(server, tmp_path) == CONTENT


def test_lasting_errors_are_reported(tmp_path):
    message = r"the server answers 503 \(3 attempts without progress\).*raw/ml-latest\.zip.*--source"
    with serving(status=503) as server, pytest.raises(DataError, match=message) as error:
        fetch(server, tmp_path)
    assert "\n" not in str(error.value) and files(tmp_path) == []


def test_a_missing_file_is_not_retried(tmp_path):
    with serving(status=404) as server:
        with pytest.raises(DataError, match="the server answers 404"):
            fetch(server, tmp_path)
        assert server.requests == [None]


def test_a_wrong_checksum_is_retried_once_and_never_kept(tmp_path):
    with serving(md5="0" * 32) as server:
        with pytest.raises(DataError, match=r"the file's MD5 sum is .* where 0+ is published, twice"):
            fetch(server, tmp_path)
        assert server.requests == [None, None] and files(tmp_path) == []


def test_without_a_published_checksum(tmp_path):
    with serving(md5=None) as server:
        assert fetch(server, tmp_path) == CONTENT


def test_without_any_checksum_no_two_servers_files_are_joined(tmp_path):
    """A partial file of the first server must not be continued by the second, nothing would tell."""
    with serving(b"x" * len(CONTENT), md5=None, cut=50_000, ranges=False) as broken, serving(md5=None) as mirror:
        assert fetch(broken, tmp_path, mirrors=[mirror]) == CONTENT
        assert mirror.requests == [None]


@pytest.mark.parametrize("quirks", [{"status": 404}, {"status": 503}, {"md5": "0" * 32}, {"status": 403}])
def test_the_next_server_is_tried(tmp_path, quirks):
    with serving(**quirks) as server, serving() as mirror:
        assert fetch(server, tmp_path, mirrors=[mirror]) == CONTENT
        assert server.requests and mirror.requests == [None] and files(tmp_path) == ["ml-latest.zip"]


def test_the_next_server_continues_a_partial_file(tmp_path):
    with serving(cut=50_000, ranges=False) as server, serving() as mirror:
        assert fetch(server, tmp_path, mirrors=[mirror]) == CONTENT
        assert mirror.requests == ["bytes=50000-"]


def test_an_error_lists_what_was_wrong_with_each_server(tmp_path):
    with serving() as stopped:
        pass
    with serving(status=404) as first, serving(status=503) as second, pytest.raises(DataError) as error:
        fetch(first, tmp_path, mirrors=[second, stopped])
    message = str(error.value)
    assert f"from {first.url}/ml-latest.zip: the server answers 404; from {second.url}" in message
    assert f"{second.url}/ml-latest.zip: the server answers 503 (3 attempts without progress); from" in message
    assert f"from {stopped.url}/ml-latest.zip: ConnectError" in message
    assert "download.urls" in message and "--source" in message and "\n" not in message


@pytest.fixture
def pinned(monkeypatch):
    """The catalogue has the size and the MD5 sum of what the servers serve."""
    dataset = replace(CATALOGUE["ml-latest"], size=len(CONTENT), md5=hashlib.md5(CONTENT).hexdigest())
    monkeypatch.setitem(CATALOGUE, "ml-latest", dataset)


@pytest.mark.usefixtures("pinned")
def test_a_mirror_is_held_to_the_catalogue_not_to_what_it_publishes(tmp_path):
    changed = CONTENT[:-1] + b"!"
    with serving(changed) as server, serving(md5=None) as mirror:
        with pytest.raises(DataError, match=r"MD5 sum is .* published, twice"):
            fetch(server, tmp_path)
        assert fetch(server, tmp_path, mirrors=[mirror]) == CONTENT
        assert server.md5_requests == mirror.md5_requests == 0


@pytest.mark.usefixtures("pinned")
def test_a_file_of_another_size_is_not_fetched(tmp_path):
    with serving(b"<html>Please log in</html>") as server, serving() as mirror:
        with pytest.raises(DataError, match=r"a file of 26 bytes, and the archive has 204,800"):
            fetch(server, tmp_path)
        assert files(tmp_path) == [] and server.requests == [None]
        assert fetch(server, tmp_path, mirrors=[mirror]) == CONTENT


@pytest.mark.usefixtures("pinned")
def test_a_verified_archive_needs_no_network(tmp_path):
    with serving() as server:
        assert fetch(server, tmp_path) == CONTENT
    assert fetch(server, tmp_path) == CONTENT


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A self-signed certificate, with its key."""
    if not shutil.which("openssl"):
        pytest.skip("openssl, which makes a certificate, isn't installed")
    file = tmp_path_factory.mktemp("tls") / "server.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=127.0.0.1",
               "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", file, "-out", file.with_suffix(".crt")]
    subprocess.run(command, check=True, capture_output=True)
    file.write_text(file.read_text() + file.with_suffix(".crt").read_text())
    return file


@pytest.mark.usefixtures("pinned")
def test_a_refused_certificate_is_tried_once(tmp_path, certificate):
    with serving(certificate=certificate) as server, serving() as mirror:
        message = r"the server's certificate was refused \(self[- ]signed certificate\)\. Name another server"
        with pytest.raises(DataError, match=message) as error:
            fetch(server, tmp_path, attempts=1_000_000)
        assert "\n" not in str(error.value) and server.requests == [] and files(tmp_path) == []
        assert fetch(server, tmp_path, attempts=1_000_000, mirrors=[mirror]) == CONTENT


def test_a_refused_certificate_is_tried_once_for_the_checksum_too(tmp_path, certificate):
    with serving(certificate=certificate) as server, serving() as mirror:
        assert fetch(server, tmp_path, attempts=1_000_000, mirrors=[mirror]) == CONTENT
        assert server.md5_requests == 0


def test_a_trusted_certificate_of_ones_own(tmp_path, certificate, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate.with_suffix(".crt")))
    with serving(certificate=certificate) as server:
        assert fetch(server, tmp_path) == CONTENT


@pytest.mark.parametrize("url", ["http://a..b", "http://a:b"])
def test_an_address_that_is_none(tmp_path, url):
    options = {"urls": [url], "attempts": 1_000_000}
    with pytest.raises(DataError, match="can't be downloaded from http://") as error:
        download(load_settings(data_dir=tmp_path, download=options), "ml-latest")
    assert "\n" not in str(error.value)


def test_a_server_that_promises_too_much(tmp_path):
    with serving(promised_too_much=1_000, times=1) as server:
        assert fetch(server, tmp_path) == CONTENT


def test_a_stalled_connection_is_given_up(tmp_path):
    with serving(stall=threading.Event(), cut=10_000, times=1) as server:
        assert fetch(server, tmp_path, timeout=0.5, attempts=50) == CONTENT
        assert len(server.requests) > 1


def test_no_network(tmp_path):
    with serving() as server:
        settings = settings_for(server, tmp_path)
    message = r"ml-latest can't be downloaded from http://127.*ConnectError.*put it at .*ml-latest\.zip"
    with pytest.raises(DataError, match=message) as error:
        download(settings, "ml-latest")
    assert "\n" not in str(error.value)


def test_a_full_disk_is_reported_before_the_first_byte(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 9, 1))
    with serving() as server, serving() as mirror:
        with pytest.raises(DataError, match=r"needs 0 MB, and .* has 0 MB left; make room") as error:
            fetch(server, tmp_path, mirrors=[mirror])
        assert "\n" not in str(error.value) and files(tmp_path) == []
        assert mirror.requests == [], "another server's file would need as much"


def test_unknown_dataset(tmp_path):
    with pytest.raises(NotFoundError, match=r"no dataset ml-20 \(did you mean ml-20m\?\)"):
        download(load_settings(data_dir=tmp_path), "ml-20")


def test_a_run_downloads_a_missing_archive(tmp_path):
    """What is served is no archive, so that the run ends right after the download."""
    message = r"ml-latest\.zip is not a complete zip archive"
    with serving(cut=100_000) as server, pytest.raises(DataError, match=message):
        run(settings_for(server, tmp_path))
    assert (tmp_path / "raw" / "ml-latest.zip").read_bytes() == CONTENT
