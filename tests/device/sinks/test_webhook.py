"""Webhooks against a real web server that behaves well, badly, or not at all."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from edgekit.device.events import Event
from edgekit.device.sinks import webhook as module
from edgekit.device.sinks.credentials import read_secret
from edgekit.device.sinks.webhook import Webhook
from edgekit.errors import InputError
from tests.waiting import wait_until

PATIENCE_S = 30


class Receiver(ThreadingHTTPServer):
    """Answers with the statuses in `answers`, then with 204; remembers what came."""

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
        # Before the answer: after it the next event may come, to another thread.
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
    monkeypatch.setattr(module, "_RETRY_PAUSES_S", (0.01, 0.01))


def event(sequence: int) -> Event:
    return Event(f"run-{sequence}", 1, "sad", "happy", 0.9, 1.0, sequence, float(sequence), 1.7e9)


def test_events_are_posted_as_json_in_order_with_the_token(receiver, told):
    with Webhook(receiver.url, "the-token", told.append) as hook:
        for sequence in range(5):
            hook.post(event(sequence))
        wait_until(lambda: hook.sent == 5)
    assert receiver.received == [event(sequence).as_document() for sequence in range(5)]
    assert receiver.headers[0]["Authorization"] == "Bearer the-token"
    assert receiver.headers[0]["Content-Type"] == "application/json"
    assert told == []


def test_an_event_has_its_image_if_it_is_there(receiver, told):
    images = {"a.jpg": b"\xff\xd8 an image"}
    with Webhook(receiver.url, None, told.append, images.get) as hook:
        for name in ("a.jpg", "deleted.jpg", None):
            hook.post(replace(event(0), snapshot=name))
        wait_until(lambda: hook.sent == 3)
    first, second, third = receiver.received
    assert base64.b64decode(first.pop("snapshot_jpeg")) == images["a.jpg"]
    assert (first["snapshot"], second["snapshot"]) == ("a.jpg", "deleted.jpg")
    assert third == event(0).as_document()


def test_a_receiver_that_stumbles_gets_the_event_again(receiver, told):
    receiver.answers = [503, 429]
    with Webhook(receiver.url, None, told.append) as hook:
        hook.post(event(0))
        wait_until(lambda: hook.sent == 1)
    assert (len(receiver.headers), hook.lost, told) == (3, 0, [])
    assert "Authorization" not in receiver.headers[0]


@pytest.mark.parametrize("status", [400, 401, 404])
def test_what_a_receiver_refuses_is_not_repeated_and_told_once(receiver, told, status):
    receiver.answers = [status] * 3
    with Webhook(receiver.url, "the-token", told.append) as hook:
        for sequence in range(4):
            hook.post(event(sequence))
        wait_until(lambda: hook.sent == 1)
    assert (len(receiver.headers), hook.lost) == (4, 3)
    assert told == [
        f"webhook 127.0.0.1 failed, events are dropped: HTTP status {status}",
        "webhook 127.0.0.1 accepts events again (3 dropped so far)",
    ]


def test_a_redirect_does_not_carry_the_token_elsewhere(receiver, told):
    receiver.answers = [302]
    with Webhook(receiver.url, "the-token", told.append) as hook:
        hook.post(event(0))
        wait_until(lambda: hook.lost == 1)
    assert len(receiver.headers) == 1
    assert "HTTP status 302" in told[0]


def test_nobody_there_is_told_without_the_addresss_secrets_and_holds_up_nobody(receiver, told):
    receiver.server_close()
    with Webhook(receiver.url, "the-token", told.append) as hook:
        for sequence in range(module._MAX_QUEUED_EVENTS * 2):
            hook.post(event(sequence))
        wait_until(lambda: hook.lost > 0 and told != [])
    assert len(told) == 1
    assert "secret-in-address" not in told[0]
    assert "the-token" not in told[0]


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("ftp://host/x", "must look like https://host/path"),
        ("https:///x", "must look like"),
        ("file:///etc/passwd", "must look like"),
        ("https://host:port/", "must look like"),
        ("https://user:secret-word@host/", "use --webhook-token-file"),
        ("https://host/a b", "must look like"),
        ("https://host/tür", "must look like"),
        (f"https://{'a' * 64}.de/", "must look like"),
    ],
)
def test_an_address_that_cannot_be_is_refused(url, message):
    with pytest.raises(InputError, match=message) as raised:
        Webhook(url, None, print)
    assert "secret-word" not in str(raised.value)


def test_a_secret_is_the_files_first_line_or_the_environments(tmp_path, told, monkeypatch):
    path = tmp_path / "token"
    path.write_text("the-token\nsecond line\n")
    path.chmod(0o600)
    monkeypatch.setenv("SOME_TOKEN", "from-the-environment")
    assert read_secret(path, "SOME_TOKEN", "token", told.append) == "the-token"
    assert read_secret(None, "SOME_TOKEN", "token", told.append) == "from-the-environment"
    assert read_secret(None, "NO_SUCH_TOKEN", "token", told.append) is None
    assert told == []
    path.chmod(0o644)
    read_secret(path, "SOME_TOKEN", "token", told.append)
    assert told == [f"other users can read the token in '{path}': run chmod 600 on it"]


@pytest.mark.parametrize("content", [b"", b"\n", b"\xff\xfe", b"\x1b[2J\n"])
def test_a_file_without_a_secret_is_refused(tmp_path, told, content):
    path = tmp_path / "token"
    path.write_bytes(content)
    with pytest.raises(InputError, match="the first line must be the token"):
        read_secret(path, "SOME_TOKEN", "token", told.append)


def test_a_concurrent_group_exits_its_sinks_concurrently_and_those_entered_if_one_fails_to_enter(feed):
    from edgekit.device.sinks.concurrent_group import ConcurrentGroup

    meeting = threading.Barrier(2, timeout=PATIENCE_S)
    happened: list[str] = []

    class Guest:
        def __enter__(self):
            happened.append("in")
            return self

        def __exit__(self, *_: object) -> None:
            # One after the other, they would never meet.
            meeting.wait()
            happened.append("out")

        def write(self, frame, _) -> None:
            happened.append(f"{frame.sequence}")

    with ConcurrentGroup([Guest(), Guest()]) as group:
        group.write(*feed.next())
    assert happened == ["in", "in", "1", "1", "out", "out"]

    class Absent(Guest):
        def __enter__(self):
            raise InputError("no entry")

        def __exit__(self, *_: object) -> None:
            raise AssertionError("never came in")

    class Alone(Guest):
        def __exit__(self, *_: object) -> None:
            happened.append("out")

    happened.clear()
    with pytest.raises(InputError, match="no entry"):
        ConcurrentGroup([Alone(), Absent()]).__enter__()
    assert happened == ["in", "out"]
