"""The program of docs/how-to/webhooks.md that sends events to Telegram, with a server that stands for Telegram's."""

from __future__ import annotations

import email
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from edgekit.device.sinks.events import Event
from edgekit.device.sinks.webhook import WebhookOptions
from tests.docs.pages import DOCS, blocks
from tests.runs import counts, run_of
from tests.waiting import wait_until

EVENT = Event("run-1", 1, "happy", None, 0.93, 1.0, 1, 1.0, 1.7e9)


class Telegram(HTTPServer):
    """Records the method and the fields of each request; responds with the statuses in `answers`, then with 200."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: list[int] = []
        self.received: list[tuple[str, dict[str, bytes]]] = []
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()


class Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        form = email.message_from_bytes(f"Content-Type: {self.headers['Content-Type']}\r\n\r\n".encode() + body)
        fields = {part.get_param("name", header="content-disposition"): part for part in form.get_payload()}
        values = {name: part.get_payload(decode=True) for name, part in fields.items()}
        self.server.received.append((self.path, values))
        self.send_response(self.server.answers.pop(0) if self.server.answers else 200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


class Images:
    def jpeg(self, name: str) -> bytes:
        return f"\xff\xd8 {name} \r\n".encode("latin-1")


@pytest.fixture
def telegram(tmp_path: Path) -> Iterator[tuple[Telegram, str]]:
    """Run the program of the page; yield the server, and the address for --webhook."""
    server = Telegram()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    (program,) = blocks((DOCS / "how-to/webhooks.md").read_text(), "python")
    code = program.body.replace("https://api.telegram.org", f"http://127.0.0.1:{server.server_port}")
    (tmp_path / "telegram.py").write_text(code.replace("8090", str(port)))
    with subprocess.Popen([sys.executable, tmp_path / "telegram.py"], stderr=subprocess.DEVNULL) as process:

        def accepts() -> bool:
            with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                return True
            return False

        wait_until(accepts)
        yield server, f"http://127.0.0.1:{port}"
        process.kill()
    server.shutdown()
    server.server_close()


def test_an_event_becomes_a_message_or_a_picture_and_is_sent_again_after_a_failure(telegram, monkeypatch):
    server, url = telegram
    monkeypatch.setattr("edgekit.device.sinks.webhook.RETRY_PAUSES_S", (0.1,))
    run = run_of(print)
    run.links.snapshots, run.links.sends_snapshots = Images(), True
    server.answers = [502]
    with WebhookOptions(webhook=url).open(run) as webhook:
        for event in (EVENT, replace(EVENT, snapshot="a.jpg")):
            webhook.put(event)
        wait_until(lambda: counts(run, "webhook")["written"] == 2)
    message = ("/botTOKEN/sendMessage", {"chat_id": b"123456789", "text": b"happy 93%"})
    picture = {"chat_id": b"123456789", "caption": b"happy 93%", "photo": Images().jpeg("a.jpg")}
    assert server.received == [message, message, ("/botTOKEN/sendPhoto", picture)]
