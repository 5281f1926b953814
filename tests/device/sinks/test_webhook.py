"""Webhooks with a real web server: delivery, failures, silence, and secrets."""

from __future__ import annotations

import base64
import json
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from edgekit.device.sink import read_secret
from edgekit.device.sinks import webhook as module
from edgekit.device.sinks.events import Event
from edgekit.device.sinks.webhook import WebhookOptions
from edgekit.device.sinks.writer import Writer
from edgekit.errors import InputError
from tests.runs import Images, run_of
from tests.waiting import wait_until


class Receiver(ThreadingHTTPServer):
    """Responds with the statuses in `answers`, then with 204; records the requests."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: list[int] = []
        self.received: list[dict] = []
        self.headers: list[dict[str, str]] = []
        self.url = f"http://127.0.0.1:{self.server_port}/hook?key=secret-in-address"


class Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        status = self.server.answers.pop(0) if self.server.answers else 204
        # Recorded before the response, because after it the next event can arrive in another thread.
        self.server.headers.append(dict(self.headers))
        if status == 204:
            self.server.received.append(json.loads(body))
        self.send_response(status)
        if status == 302:
            self.send_header("Location", f"http://127.0.0.1:{self.server.server_port}/elsewhere")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch) -> None:
    monkeypatch.setattr(module, "RETRY_PAUSES_S", (0.01, 0.01))


@pytest.fixture
def open_hook(receiver, notices, tmp_path) -> Callable[..., Writer]:
    def start(token: str | None = None, images=None) -> Writer:
        run = run_of(notices.append)
        if images is not None:
            run.links.snapshots, run.links.sends_snapshots = Images(images), True
        file = None
        if token is not None:
            file = tmp_path / "token"
            file.write_text(token)
            file.chmod(0o600)
        hook = WebhookOptions(webhook=receiver.url, webhook_token_file=file).open(run)
        assert run.links.outlets == [hook.put]
        return hook

    return start


def counts(hook: Writer) -> dict[str, Any]:
    return hook.account.as_document()


def event(sequence: int) -> Event:
    return Event(f"run-{sequence}", 1, "sad", "happy", 0.9, 1.0, sequence, float(sequence), 1.7e9)


def test_events_are_posted_as_json_in_order_with_the_token(receiver, open_hook, notices):
    with open_hook(token="the-token") as hook:
        for sequence in range(5):
            hook.put(event(sequence))
        wait_until(lambda: counts(hook)["written"] == 5)
    assert receiver.received == [event(sequence).as_document() for sequence in range(5)]
    assert receiver.headers[0]["Authorization"] == "Bearer the-token"
    assert receiver.headers[0]["Content-Type"] == "application/json"
    assert notices == []


def test_an_event_has_its_image_if_it_is_there(receiver, open_hook):
    images = {"a.jpg": b"\xff\xd8 an image"}
    with open_hook(images=images) as hook:
        for name in ("a.jpg", "deleted.jpg", None):
            hook.put(replace(event(0), snapshot=name))
        wait_until(lambda: counts(hook)["written"] == 3)
    first, second, third = receiver.received
    assert base64.b64decode(first.pop("snapshot_jpeg")) == images["a.jpg"]
    assert (first["snapshot"], second["snapshot"]) == ("a.jpg", "deleted.jpg")
    assert third == event(0).as_document()


@pytest.mark.parametrize("status", [302, 401])
def test_a_rejected_event_is_not_repeated_reported_once_and_its_token_goes_nowhere_else(
    receiver, open_hook, notices, status
):
    receiver.answers = [503, 429, *[status] * 3]  # two attempts that fail for a moment
    with open_hook(token="the-token") as hook:
        for sequence in range(4):
            hook.put(event(sequence))
        wait_until(lambda: counts(hook)["written"] == 1)
    assert (len(receiver.headers), counts(hook)["dropped"]) == (6, {"rejected": 3})
    assert len(notices) == 2
    assert "secret-in-address" not in str(notices)
    assert "the-token" not in str(notices)


def test_a_receiver_that_does_not_respond_delays_neither_the_run_nor_its_end(notices):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        run = run_of(notices.append, end_s=0.1)
        hook = WebhookOptions(webhook=f"http://127.0.0.1:{silent.getsockname()[1]}/").open(run)
        assert isinstance(hook, Writer)
        with hook:
            for sequence in range(3):
                hook.put(event(sequence))
            connection, _ = silent.accept()
        connection.close()
    assert sum(counts(hook)["dropped"].values()) == 3


@pytest.mark.parametrize("url", ["file:///etc/passwd", "https://host:port/", "https://user:secret-word@host/"])
def test_an_address_that_cannot_be_is_refused(notices, url):
    with pytest.raises(InputError) as refused:
        WebhookOptions(webhook=url).open(run_of(notices.append))
    assert "secret-word" not in str(refused.value)


def test_a_secret_is_the_files_first_line_or_the_environments(tmp_path, notices, monkeypatch):
    path = tmp_path / "token"
    path.write_text("the-token\nsecond line\n")
    path.chmod(0o600)
    monkeypatch.setenv("SOME_TOKEN", "schlüssel\n")
    assert read_secret(path, "SOME_TOKEN", "token", notices.append) == "the-token"
    assert read_secret(None, "SOME_TOKEN", "token", notices.append) == "schlüssel"
    assert read_secret(None, "NO_SUCH_TOKEN", "token", notices.append) is None
    assert notices == []
    path.chmod(0o644)
    read_secret(path, "SOME_TOKEN", "token", notices.append)
    assert len(notices) == 1
