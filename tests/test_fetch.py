"""Downloads from a server on this machine that resumes, breaks, lies or does not know ranges."""

from __future__ import annotations

import hashlib
import http.server
import os
import re
import socket
import threading

import pytest

from neocog.data import fetch as module
from neocog.data.fetch import fetch
from neocog.errors import DataError

CONTENT = os.urandom(700_000)
SHA = hashlib.sha256(CONTENT).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves CONTENT in the manner that the path names; the server keeps the ranges asked for."""

    def do_GET(self):
        asked = self.headers.get("Range")
        self.server.asked.append(asked)
        manner = self.path.strip("/")
        body, start = CONTENT, 0
        if manner == "wrong":
            body = bytes(len(CONTENT))
        if manner == "gone":
            return self.send_error(404)
        if manner == "busy" and len(self.server.asked) < 3:
            return self.send_error(503)
        if manner == "moved":
            self.send_response(302)
            self.send_header("Location", "/good")
            return self.end_headers()
        if manner == "escape":
            self.send_response(302)
            self.send_header("Location", "ftp://127.0.0.1/x")
            return self.end_headers()
        if asked and manner != "no-range":
            start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1])
            if start >= len(body):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(body)}")
                self.send_header("Content-Length", "0")
                return self.end_headers()
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        stop = len(body)
        if manner in ("breaks", "no-range") and len(self.server.asked) == 1:
            stop = 400_000
        if manner == "dead":
            stop = start
        self.wfile.write(body[start:stop])
        if stop < len(body):
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)
        return None

    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def _server():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def server(_server, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(module, "_PAUSE", 0.001)
    _server.asked = []
    _server.url = f"http://127.0.0.1:{_server.server_port}/"
    return _server


def test_download_reports_progress_and_happens_once(server, tmp_path):
    target = tmp_path / "new" / "file.gz"
    seen = []
    fetch(server.url + "good", target, SHA, progress=lambda done, total: seen.append((done, total)))
    assert target.read_bytes() == CONTENT
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert seen == sorted(seen)
    assert [p.name for p in target.parent.iterdir()] == ["file.gz"]
    fetch(server.url + "good", target, SHA)
    assert server.asked == [None]


def test_a_broken_connection_goes_on_where_it_stopped(server, tmp_path):
    fetch(server.url + "breaks", tmp_path / "x", SHA)
    assert (tmp_path / "x").read_bytes() == CONTENT
    assert len(server.asked) == 2
    assert 0 < int(server.asked[1].removeprefix("bytes=").rstrip("-")) <= 400_000


def test_a_server_without_ranges_sends_it_all_again(server, tmp_path):
    fetch(server.url + "no-range", tmp_path / "x", SHA)
    assert (tmp_path / "x").read_bytes() == CONTENT
    assert len(server.asked) == 2


def test_an_earlier_part_is_used(server, tmp_path):
    (tmp_path / "x.part").write_bytes(CONTENT[:123_456])
    fetch(server.url + "good", tmp_path / "x", SHA)
    assert server.asked == ["bytes=123456-"]
    assert (tmp_path / "x").read_bytes() == CONTENT


def test_a_part_that_is_whole_already(server, tmp_path):
    (tmp_path / "x.part").write_bytes(CONTENT)
    fetch(server.url + "good", tmp_path / "x", SHA)
    assert (tmp_path / "x").read_bytes() == CONTENT


@pytest.mark.parametrize("length", [1000, 700_000, 800_000])
def test_a_part_of_another_file_is_thrown_away(server, tmp_path, length):
    (tmp_path / "x.part").write_bytes(bytes(length))
    fetch(server.url + "good", tmp_path / "x", SHA)
    assert (tmp_path / "x").read_bytes() == CONTENT
    assert server.asked[-1] is None


def test_wrong_content_is_not_kept(server, tmp_path):
    with pytest.raises(DataError, match="expected the SHA-256") as caught:
        fetch(server.url + "wrong", tmp_path / "x", SHA)
    assert str(tmp_path / "x") in caught.value.hint
    assert list(tmp_path.iterdir()) == []
    assert server.asked == [None]


def test_a_present_file_with_other_content_is_left_alone(server, tmp_path):
    (tmp_path / "x").write_bytes(b"mine")
    with pytest.raises(DataError, match="found another"):
        fetch(server.url + "good", tmp_path / "x", SHA)
    assert (tmp_path / "x").read_bytes() == b"mine"
    assert server.asked == []


@pytest.mark.parametrize(("manner", "tries"), [("gone", 1), ("dead", 4)])
def test_a_server_that_cannot(server, tmp_path, manner, tries):
    with pytest.raises(DataError, match="cannot fetch") as caught:
        fetch(server.url + manner, tmp_path / "x", SHA)
    assert str(tmp_path / "x") in caught.value.hint
    assert server.url in caught.value.hint
    assert len(server.asked) == tries


def test_a_busy_server_is_asked_again(server, tmp_path):
    fetch(server.url + "busy", tmp_path / "x", SHA)
    assert len(server.asked) == 3


def test_redirects(server, tmp_path):
    fetch(server.url + "moved", tmp_path / "x", SHA)
    with pytest.raises(DataError):
        fetch(server.url + "escape", tmp_path / "y", SHA)
    assert not (tmp_path / "y").exists()


def test_no_network_says_which_file_to_put_where(server, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/x"
    with pytest.raises(DataError, match="cannot fetch") as caught:
        fetch(url, tmp_path / "x", SHA)
    assert caught.value.hint == f"download {url} yourself and put it at {tmp_path / 'x'}"


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://127.0.0.1/x", "x"])
def test_other_schemes_are_refused(tmp_path, url):
    with pytest.raises(DataError, match="http"):
        fetch(url, tmp_path / "x", SHA)
