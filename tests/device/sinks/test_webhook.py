"""Webhooks with a real web server: delivery, failures, endless responses, secrets, and concurrent exits."""

from __future__ import annotations

import base64
import json
import os
import random
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from edgekit.device.events import Event
from edgekit.device.sink import Sink
from edgekit.device.sinks import webhook as module
from edgekit.device.sinks.credentials import read_secret
from edgekit.device.sinks.webhook import Webhook
from edgekit.errors import InputError, StorageError
from tests.waiting import wait_until

PATIENCE_S = 30


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
    monkeypatch.setattr(module, "_RETRY_PAUSES_S", (0.01, 0.01))


def counts(hook: Webhook) -> dict[str, Any]:
    (account,) = hook.accounts
    return account.as_document()


def event(sequence: int) -> Event:
    return Event(f"run-{sequence}", 1, "sad", "happy", 0.9, 1.0, sequence, float(sequence), 1.7e9)


def test_events_are_posted_as_json_in_order_with_the_token(receiver, notices):
    with Webhook(receiver.url, "the-token", notices.append) as hook:
        for sequence in range(5):
            hook.post(event(sequence))
        wait_until(lambda: counts(hook)["written"] == 5)
    assert receiver.received == [event(sequence).as_document() for sequence in range(5)]
    assert receiver.headers[0]["Authorization"] == "Bearer the-token"
    assert receiver.headers[0]["Content-Type"] == "application/json"
    assert notices == []


def test_an_event_has_its_image_if_it_is_there(receiver, notices):
    images = {"a.jpg": b"\xff\xd8 an image"}
    with Webhook(receiver.url, None, notices.append, images.get) as hook:
        for name in ("a.jpg", "deleted.jpg", None):
            hook.post(replace(event(0), snapshot=name))
        wait_until(lambda: counts(hook)["written"] == 3)
    first, second, third = receiver.received
    assert base64.b64decode(first.pop("snapshot_jpeg")) == images["a.jpg"]
    assert (first["snapshot"], second["snapshot"]) == ("a.jpg", "deleted.jpg")
    assert third == event(0).as_document()


def test_a_receiver_that_stumbles_gets_the_event_again(receiver, notices):
    receiver.answers = [503, 429]
    with Webhook(receiver.url, None, notices.append) as hook:
        hook.post(event(0))
        wait_until(lambda: counts(hook)["written"] == 1)
    assert (len(receiver.headers), counts(hook)["dropped"], notices) == (3, {}, [])
    assert "Authorization" not in receiver.headers[0]


@pytest.mark.parametrize("status", [400, 401, 404])
def test_an_event_that_a_receiver_refuses_is_not_repeated_and_reported_once(receiver, notices, status):
    receiver.answers = [status] * 3
    with Webhook(receiver.url, "the-token", notices.append) as hook:
        for sequence in range(4):
            hook.post(event(sequence))
        wait_until(lambda: counts(hook)["written"] == 1)
    assert (len(receiver.headers), counts(hook)["dropped"]) == (4, {"rejected": 3})
    assert notices == [
        f"webhook 127.0.0.1 failed, events are dropped: HTTP status {status}",
        "webhook 127.0.0.1 accepts events again (3 dropped so far)",
    ]


@pytest.mark.parametrize("seed", range(4))
def test_after_faults_in_any_order_the_account_is_what_the_receiver_has(receiver, notices, monkeypatch, seed):
    monkeypatch.setattr(module, "_RETRY_PAUSES_S", (0.0, 0.0))
    choose = random.Random(seed)  # noqa: S311 - not for security
    receiver.answers = choose.choices((204, 500, 429, 404, 302), (4, 4, 2, 1, 1), k=200)
    with Webhook(receiver.url, None, notices.append) as hook:
        for sequence in range(60):
            hook.post(event(sequence))
        wait_until(lambda: counts(hook)["waiting"] == 0)
    received = [document["sequence"] for document in receiver.received]
    assert received == sorted(set(received))
    account = counts(hook)
    assert account["written"] == len(received) == 60 - sum(account["dropped"].values())
    assert set(account["dropped"]) == {"rejected", "receiver failed"}


def test_a_redirect_does_not_carry_the_token_elsewhere(receiver, notices):
    receiver.answers = [302]
    with Webhook(receiver.url, "the-token", notices.append) as hook:
        hook.post(event(0))
        wait_until(lambda: counts(hook)["dropped"] == {"rejected": 1})
    assert len(receiver.headers) == 1
    assert "HTTP status 302" in notices[0]


def test_an_unreachable_receiver_is_reported_without_secrets_and_delays_no_frame(receiver, notices):
    receiver.server_close()
    with Webhook(receiver.url, "the-token", notices.append) as hook:
        for sequence in range(module._MAX_QUEUED_EVENTS * 2):
            hook.post(event(sequence))
        wait_until(lambda: counts(hook)["dropped"] and notices != [])
    document = counts(hook)
    assert document["waiting"] == 0
    assert sum(document["dropped"].values()) == document["produced"] == module._MAX_QUEUED_EVENTS * 2
    assert len(notices) == 2
    assert "not confirmed at the end of the run" in notices[1]
    assert "secret-in-address" not in str(notices)
    assert "the-token" not in str(notices)


class Endless:
    """A receiver that responds to each request with `pieces` again and again, with a pause before each."""

    def __init__(self, pieces: bytes, pause_s: float) -> None:
        self._pieces, self._pause_s = pieces, pause_s
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._closing = threading.Event()
        self.requests = 0
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/"

    def serve(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                threading.Thread(target=self._talk, args=(connection,), daemon=True).start()

    def _talk(self, connection: socket.socket) -> None:
        self.requests += 1
        with connection, suppress(OSError):
            connection.recv(1 << 16)
            while not self._closing.wait(self._pause_s):
                connection.sendall(self._pieces)

    def close(self) -> None:
        self._closing.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


@pytest.mark.parametrize(
    ("pieces", "pause_s", "timeout_s", "reason"),
    [
        (b"HTTP/1.1 100 Continue\r\n\r\n" * 40, 0.0, PATIENCE_S, "a response of more than 64 KiB"),
        (b"HTTP/1.1 100 Continue\r\n\r\n", 0.02, 0.3, "no complete response within 0.3 s"),
        (b"H", 0.02, 0.3, "no complete response within 0.3 s"),
    ],
    ids=["interim responses at full speed", "interim responses", "drip"],
)
def test_a_response_that_never_ends_is_a_failure_and_uses_little_processor_time(
    notices, monkeypatch, pieces, pause_s, timeout_s, reason
):
    monkeypatch.setattr(module, "_TIMEOUT_S", timeout_s)
    receiver = Endless(pieces, pause_s)
    threading.Thread(target=receiver.serve, daemon=True).start()
    used: list[float] = []
    monkeypatch.setattr(Webhook, "_work", lambda hook: (work(hook), used.append(time.thread_time())), raising=True)
    with Webhook(receiver.url, None, notices.append) as hook:
        hook.post(event(0))
        wait_until(lambda: counts(hook)["dropped"])
    wait_until(lambda: used)
    receiver.close()
    assert counts(hook) == {"produced": 1, "written": 0, "dropped": {"receiver failed": 1}, "waiting": 0}
    assert (receiver.requests, notices) == (3, [f"webhook 127.0.0.1 failed, events are dropped: {reason}"])
    # Three attempts; without the limit, each of them uses a core until its timeout.
    assert used[0] < 0.3


work = Webhook._work


def test_events_that_the_end_of_the_run_cuts_off_are_counted_and_reported(notices, monkeypatch):
    monkeypatch.setattr(module, "_CLOSE_TIMEOUT_S", 0.1)
    receiver = Endless(b"H", 0.02)
    threading.Thread(target=receiver.serve, daemon=True).start()
    with Webhook(receiver.url, None, notices.append) as hook:
        for sequence in range(3):
            hook.post(event(sequence))
        wait_until(lambda: receiver.requests)
    assert counts(hook) == {"produced": 3, "written": 0, "dropped": {"end of the run": 3}, "waiting": 0}
    assert notices == ["webhook 127.0.0.1: 3 events not confirmed at the end of the run"]
    receiver.close()


def test_a_failure_at_the_last_event_ends_the_run(receiver, notices):
    def fail(_: str) -> bytes:
        raise ZeroDivisionError

    hook = Webhook(receiver.url, None, notices.append, fail)
    with pytest.raises(ZeroDivisionError), hook:
        hook.post(replace(event(0), snapshot="a.jpg"))
    assert counts(hook)["dropped"] == {"end of the run": 1}


def test_events_of_a_full_queue_are_sent_at_the_end_of_the_run(receiver, notices, monkeypatch):
    monkeypatch.setattr(module, "_MAX_QUEUED_EVENTS", 3)
    monkeypatch.setattr(module, "_CLOSE_TIMEOUT_S", PATIENCE_S)
    hook = Webhook(receiver.url, None, notices.append)
    first_runs, may_run = threading.Event(), threading.Event()
    deliver = hook._deliver
    hook._deliver = lambda body: (first_runs.set(), may_run.wait(PATIENCE_S), deliver(body))
    hook.__enter__()
    hook.post(event(0))
    assert first_runs.wait(PATIENCE_S)
    for sequence in range(1, 4):
        hook.post(event(sequence))
    finish = hook._thread.finish
    hook._thread.finish = lambda *arguments: (may_run.set(), finish(*arguments))
    hook.__exit__()
    assert counts(hook) == {"produced": 4, "written": 4, "dropped": {}, "waiting": 0}
    assert notices == []


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


def test_a_secret_is_the_files_first_line_or_the_environments(tmp_path, notices, monkeypatch):
    path = tmp_path / "token"
    path.write_text("the-token\nsecond line\n")
    path.chmod(0o600)
    monkeypatch.setenv("SOME_TOKEN", "from-the-environment")
    assert read_secret(path, "SOME_TOKEN", "token", notices.append) == "the-token"
    assert read_secret(None, "SOME_TOKEN", "token", notices.append) == "from-the-environment"
    assert read_secret(None, "NO_SUCH_TOKEN", "token", notices.append) is None
    assert notices == []
    path.chmod(0o644)
    read_secret(path, "SOME_TOKEN", "token", notices.append)
    assert notices == [f"other users can read the token in '{path}': run chmod 600 on it"]


@pytest.mark.parametrize("content", [b"", b"\n", b"\xff\xfe", b"\x1b[2J\n"])
def test_a_file_without_a_secret_is_refused(tmp_path, notices, content):
    path = tmp_path / "token"
    path.write_bytes(content)
    with pytest.raises(InputError, match="the first line must be the token"):
        read_secret(path, "SOME_TOKEN", "token", notices.append)


@pytest.mark.parametrize("value", [b"two\nlines", b"not UTF-8 \xff", b"\x1b[2J", b"  "])
def test_a_variable_without_a_secret_is_refused(notices, monkeypatch, value):
    monkeypatch.setitem(os.environb, b"SOME_TOKEN", value)
    with pytest.raises(InputError, match="SOME_TOKEN must be the token in one line of plain text") as raised:
        read_secret(None, "SOME_TOKEN", "token", notices.append)
    assert "lines" not in str(raised.value)


def test_a_line_break_at_the_end_of_a_variable_is_no_part_of_the_secret(notices, monkeypatch):
    monkeypatch.setitem(os.environb, b"SOME_TOKEN", "schlüssel\n".encode())
    assert read_secret(None, "SOME_TOKEN", "token", notices.append) == "schlüssel"


def test_a_concurrent_group_exits_its_sinks_concurrently_and_those_entered_if_one_fails_to_enter(feed):
    from edgekit.device.sinks.concurrent_group import ConcurrentGroup

    meeting = threading.Barrier(2, timeout=PATIENCE_S)
    happened: list[str] = []

    class Guest(Sink):
        def __enter__(self):
            happened.append("in")
            return self

        def __exit__(self, *_: object) -> None:
            # The barrier times out if the sinks exit one after the other.
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


def test_a_concurrent_group_raises_what_a_sink_raises_and_exits_all(feed):
    from edgekit.device.sinks.concurrent_group import ConcurrentGroup

    happened: list[str] = []

    class Failing(Sink):
        def __exit__(self, *_: object) -> None:
            happened.append("out")
            raise StorageError("no space")

    with pytest.raises(StorageError, match="no space"), ConcurrentGroup([Failing(), Failing()]) as group:
        group.write(*feed.next())
    assert happened == ["out", "out"]


def test_a_redirect_to_a_malformed_address_is_a_rejection(notices):
    def answer(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 301 Moved\r\nLocation: http://[::1/\r\n\r\n")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=answer, args=(listener,)).start()
        with Webhook(f"http://127.0.0.1:{listener.getsockname()[1]}/", None, notices.append) as sink:
            sink.post(Event("run-0", 1, "sad", None, 0.9, 1.0, 0, 0.0, 1.7e9))
            wait_until(lambda: sink.accounts[0].lost)
            sink.write(None, None)
    assert sink.accounts[0].as_document()["dropped"] == {"rejected": 1}
    assert "HTTP status 301" in notices[0]
