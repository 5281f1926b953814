"""Pinned downloads from a real local server: the cache contains the complete file or no file."""

from __future__ import annotations

import hashlib
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from edgekit import downloads
from edgekit.downloads import PinnedFile, UnavailableError, cached_download
from edgekit.errors import StorageError
from tests.waiting import PATIENCE_S

CONTENT = bytes(range(256)) * 1000


class Handler(BaseHTTPRequestHandler):
    stop = threading.Event()

    def do_GET(self) -> None:
        self.server.requests.append(self.path)
        getattr(self, f"answer_{self.path.strip('/')}")()

    def send(self, body: bytes, length: int | None = None, status: int = 200) -> None:
        self.send_response(status)
        if length is not None:
            self.send_header("Content-Length", str(length))
        self.end_headers()
        self.wfile.write(body)

    def answer_right(self) -> None:
        self.send(CONTENT, len(CONTENT))

    def answer_wrong(self) -> None:
        self.send(CONTENT[::-1], len(CONTENT))

    def answer_page(self) -> None:
        self.send(b"<html>please log in</html>", 26)

    def answer_truncated(self) -> None:
        self.send(CONTENT[:1000], len(CONTENT))

    def answer_missing(self) -> None:
        self.send(b"no", 2, 404)

    def answer_endless(self) -> None:
        self.send(b"")
        with suppress(OSError):  # the client disconnects
            while not self.stop.is_set():
                self.wfile.write(CONTENT)

    def answer_hanging(self) -> None:
        self.stop.wait(20)

    def answer_elsewhere(self) -> None:
        self.send_response(302)
        self.send_header("Location", f"http://127.0.0.1:{self.server.server_port}/right")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def answer_local(self) -> None:
        self.send_response(302)
        self.send_header("Location", self.server.file_url)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        pass  # some tests disconnect clients on purpose


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.delenv("EDGEKIT_OFFLINE", raising=False)
    Handler.stop = threading.Event()
    with Server(("127.0.0.1", 0), Handler) as running:
        running.requests = []
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        Handler.stop.set()
        running.shutdown()
        thread.join()


def pinned(server: Server, answer: str) -> PinnedFile:
    url = f"http://127.0.0.1:{server.server_port}/{answer}"
    return PinnedFile("model.onnx", url, hashlib.sha256(CONTENT).hexdigest(), len(CONTENT))


def fetch(server: Server, answer: str, cache: Path, **settings: float) -> Path:
    return cached_download(pinned(server, answer), cache_dir=cache, **{"timeout_s": PATIENCE_S, **settings})


def files_in(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob("*")] if folder.exists() else []


@pytest.mark.parametrize("answer", ["right", "elsewhere"])
def test_the_right_file_is_downloaded_once_and_cached(server: Server, tmp_path: Path, answer: str) -> None:
    messages: list[str] = []
    for _ in range(2):
        path = cached_download(pinned(server, answer), cache_dir=tmp_path / "cache", notify=messages.append)
        assert path.read_bytes() == CONTENT
        assert files_in(tmp_path / "cache") == ["model.onnx"]
    assert server.requests.count(f"/{answer}") == 1
    assert len(messages) == 1


@pytest.mark.parametrize("damage", [CONTENT[:-1], CONTENT[:-1] + b"!"])
def test_a_damaged_cached_file_is_downloaded_again(server: Server, tmp_path: Path, damage: bytes) -> None:
    (tmp_path / "model.onnx").write_bytes(damage)
    assert fetch(server, "right", tmp_path).read_bytes() == CONTENT


@pytest.mark.parametrize("answer", ["wrong", "page", "endless"])
def test_another_file_is_an_error_and_leaves_nothing(server: Server, tmp_path: Path, answer: str) -> None:
    with pytest.raises(StorageError, match=f"model.onnx.*/{answer}.*log-in page"):
        fetch(server, answer, tmp_path / "cache")
    assert files_in(tmp_path / "cache") == []


@pytest.mark.parametrize(
    ("answer", "reason", "limits"),
    [
        ("missing", "HTTP status 404", {}),
        ("truncated", "closed after 1000 of 256000 bytes", {}),
        ("hanging", "timed out", {"timeout_s": 0.3}),
        ("local", "HTTP status 302", {}),
    ],
)
def test_a_useless_response_is_an_unavailable_error(
    server: Server, tmp_path: Path, answer: str, reason: str, limits: dict[str, float]
) -> None:
    server.file_url = (tmp_path / "secret").as_uri()
    (tmp_path / "secret").write_bytes(CONTENT)
    with pytest.raises(UnavailableError, match=reason):
        fetch(server, answer, tmp_path / "cache", **limits)
    assert files_in(tmp_path / "cache") == ["model.onnx.failed"]


def test_a_failed_download_is_tried_again_after_an_hour(server: Server, tmp_path: Path) -> None:
    messages: list[str] = []
    failure = tmp_path / "model.onnx.failed"
    with pytest.raises(UnavailableError, match="HTTP status 404"):
        cached_download(pinned(server, "missing"), cache_dir=tmp_path, notify=messages.append)
    for _ in range(2):
        with pytest.raises(UnavailableError, match=rf"HTTP status 404\).*once per hour, .*'rm {failure}'"):
            cached_download(pinned(server, "right"), cache_dir=tmp_path, notify=messages.append)
    assert (server.requests, len(messages)) == (["/missing"], 1)
    hour_ago_s = failure.stat().st_mtime - 3601
    os.utime(failure, (hour_ago_s, hour_ago_s))
    fetch(server, "right", tmp_path)
    assert files_in(tmp_path) == ["model.onnx"]


def test_no_server_is_unavailable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with socket.socket() as bound:  # bound, but not listening
        bound.bind(("127.0.0.1", 0))
        entry = PinnedFile("model.onnx", f"http://127.0.0.1:{bound.getsockname()[1]}/right", "0" * 64, 1)
        with pytest.raises(UnavailableError, match="refused"):
            cached_download(entry, cache_dir=tmp_path, timeout_s=5)


def test_a_cache_that_cannot_be_made_is_unavailable(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UnavailableError, match="cannot be stored"):
        fetch(server, "right", tmp_path / "file" / "cache")


def test_offline_mode_sends_no_request(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEKIT_OFFLINE", "1")
    with pytest.raises(UnavailableError, match="EDGEKIT_OFFLINE"):
        fetch(server, "right", tmp_path)
    assert server.requests == []


@pytest.mark.parametrize(
    ("xdg", "expected"),
    [("/somewhere", "/somewhere/edgekit"), ("", "/home/me/.cache/edgekit"), ("rel", "/home/me/.cache/edgekit")],
)
def test_the_cache_is_in_the_folder_of_xdg(monkeypatch: pytest.MonkeyPatch, xdg: str, expected: str) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", xdg)
    monkeypatch.setenv("HOME", "/home/me")
    assert downloads.default_cache_dir() == Path(expected)
