"""Readers of untrusted network input: streams, web requests, responses of webhook receivers and MQTT brokers."""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.runs import run_of

_SOON_S = 0.3
_PATIENCE_S = 20.0


class _Peer:
    """A server that sends the same parts to every client, one part for each block of bytes that it receives."""

    def __init__(self, parts: list[bytes], stays: bool = False) -> None:
        self._parts, self._stays = parts, stays
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._answer, args=(client,), daemon=True).start()

    def _answer(self, client: socket.socket) -> None:
        with client, suppress(OSError):
            client.settimeout(1.0)
            for part in self._parts:
                client.recv(65536)
                client.sendall(part)
            while self._stays and client.recv(65536):
                pass

    def close(self) -> None:
        self._listener.close()


@contextmanager
def _peer(parts: list[bytes], stays: bool = False) -> Iterator[int]:
    peer = _Peer(parts, stays)
    try:
        yield peer.port
    finally:
        peer.close()


@cache
def _jpeg(side_px: int = 32) -> bytes:
    import cv2
    import numpy as np

    return cv2.imencode(".jpg", np.full((side_px, side_px, 3), 90, np.uint8))[1].tobytes()


def _read_frames(url: str) -> None:
    from edgekit.device.sources import live, opencv

    opencv.OPEN_TIMEOUT_MS = opencv._READ_TIMEOUT_MS = 700
    live._REOPEN_PAUSES_S = (0.01,)
    with opencv.open_stream(url, lambda _: None) as source:
        for _, frame in zip(range(4), source, strict=False):
            assert frame.image_bgr.ndim == 3


def http_stream(path: Path) -> None:
    """Read frames from an HTTP address whose response is the content of the file."""
    with _peer([path.read_bytes()]) as port:
        _read_frames(f"http://127.0.0.1:{port}/video")


def http_streams() -> list[bytes]:
    """Return responses of MJPEG cameras, a response with a single image, and a redirect."""
    part = b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n%b\r\n" % (len(_jpeg()), _jpeg())
    other = part.replace(_jpeg(), _jpeg(48)).replace(b"%d" % len(_jpeg()), b"%d" % len(_jpeg(48)), 1)
    head = b"HTTP/1.1 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary=frame\r\n\r\n"
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for _ in range(5)) + b"0\r\n\r\n"
    return [
        head + part * 6,
        head + part * 2 + other * 2 + part,
        head.replace(b"\r\n\r\n", b"\r\nTransfer-Encoding: chunked\r\n\r\n") + chunks,
        b"HTTP/1.0 200 OK\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(_jpeg()) + _jpeg(),
        b"HTTP/1.1 302 Found\r\nLocation: file:///etc/passwd\r\n\r\n",
    ]


def rtsp_stream(path: Path) -> None:
    """Read frames from an RTSP server whose responses are the parts of the file between lines of dashes."""
    with _peer(path.read_bytes().split(b"\n----\n"), stays=True) as port:
        _read_frames(f"rtsp://127.0.0.1:{port}/door")


def rtsp_streams() -> list[bytes]:
    """Return the responses to OPTIONS, DESCRIBE, SETUP and PLAY, and packets of a stream."""
    sdp = (
        b"v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=door\r\nt=0 0\r\nm=video 0 RTP/AVP/TCP 26\r\na=control:track1\r\n"
        b"a=rtpmap:26 JPEG/90000\r\n"
    )
    answers = [
        b"RTSP/1.0 200 OK\r\nCSeq: 1\r\nPublic: OPTIONS, DESCRIBE, SETUP, PLAY\r\n\r\n",
        b"RTSP/1.0 200 OK\r\nCSeq: 2\r\nContent-Type: application/sdp\r\nContent-Length: %d\r\n\r\n%b"
        % (len(sdp), sdp),
        b"RTSP/1.0 200 OK\r\nCSeq: 3\r\nTransport: RTP/AVP/TCP;interleaved=0-1\r\nSession: 1\r\n\r\n",
        b"RTSP/1.0 200 OK\r\nCSeq: 4\r\nSession: 1\r\n\r\n" + b"$\0\0\x14\x80\x9a\0\1\0\0\0\1\0\0\0\1" + b"\0" * 8,
    ]
    h264 = sdp.replace(b"26 JPEG", b"96 H264").replace(b"TCP 26", b"TCP 96")
    h264 += b"a=fmtp:96 packetization-mode=1; sprop-parameter-sets=Z0IAHpWoKA9k,aM48gA==\r\n"
    other = answers[1].replace(sdp, h264).replace(b"%d" % len(sdp), b"%d" % len(h264))
    unauthorised = b'RTSP/1.0 401 Unauthorized\r\nCSeq: 2\r\nWWW-Authenticate: Digest realm="x", nonce="y"\r\n\r\n'
    return [b"\n----\n".join([answers[0], middle, *answers[2:]]) for middle in (answers[1], other, unauthorised)]


@cache
def _web() -> tuple[Any, list[str]]:
    """Return a web page that runs until the process ends, and the list of its notices."""
    from edgekit.device.pipeline import StreamOptions
    from edgekit.device.pipeline.stream import Stream
    from edgekit.device.sinks.monitor import Monitor
    from edgekit.device.sinks.web.server import WebSink

    notices: list[str] = []
    stream = Stream(StreamOptions(source="demo", detector="none"))
    monitor = Monitor("demo", lambda: None)
    sink = WebSink("127.0.0.1:0", None, monitor, recognise=stream.picture_recogniser())
    sink.__enter__()
    return sink, notices


def web_request(path: Path) -> None:
    """Send the file to the web page, which must still serve other requests and report no error."""
    sink, notices = _web()
    address = urlsplit(sink.url)
    with socket.create_connection((address.hostname, address.port), _SOON_S) as client, suppress(OSError):
        client.sendall(path.read_bytes())
        while client.recv(65536):
            pass
    with contextlib.closing(
        http.client.HTTPConnection(str(address.hostname), address.port, timeout=_PATIENCE_S)
    ) as other:
        other.request("GET", "/api/state")
        assert other.getresponse().status == 200
    assert not notices, notices.pop()


def web_requests() -> list[bytes]:
    """Return typical requests of browsers and programs."""
    host = b"Host: 127.0.0.1:8080\r\n"
    picture = b"POST /classify HTTP/1.1\r\n" + host + b"Content-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n%b"
    login = b"POST /login HTTP/1.1\r\n" + host + b"Content-Length: 11\r\n\r\ntoken=right"
    chunked = b"POST /classify HTTP/1.1\r\n" + host + b"Content-Type: image/png\r\nTransfer-Encoding: chunked\r\n\r\n"
    upgrade = b"GET /stream.mjpg HTTP/1.1\r\n" + host + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    get = b"GET %b HTTP/1.1\r\n" + host + b"Cookie: edgekit=x; a=b\r\nAuthorization: Bearer x\r\n\r\n"
    gets = [get % path for path in (b"/", b"/metrics", b"/api/events", b"/../../etc/passwd", b"/%2e%2e/", b"http://x/")]
    return [picture % (len(_jpeg()), _jpeg()), login, chunked + b"5\r\nhello\r\n0\r\n\r\n", upgrade, *gets]


def _event(number: int) -> Any:
    from edgekit.device.sinks.events import Event

    return Event(f"run-{number}", 1, "sad", None, 0.9, 1.0, number, float(number), 1.7e9)


def webhook_answer(path: Path) -> None:
    """Post an event to a receiver that responds with the file; the event must not stay in the queue."""
    from edgekit.device.sinks import webhook

    webhook._TIMEOUT_S, webhook._RETRY_PAUSES_S = _SOON_S, (0.0,)
    with _peer([path.read_bytes()]) as port:
        sink = webhook.WebhookOptions(webhook=f"http://127.0.0.1:{port}/").open(run_of(lambda _: None))
        assert sink is not None
        with sink:
            sink.put(_event(0))
            end_s = time.monotonic() + _PATIENCE_S
            while sink.account.waiting and time.monotonic() < end_s:
                time.sleep(0.01)
            sink.check()
    assert sink.account.waiting == 0


def webhook_answers() -> list[bytes]:
    """Return responses of webhook receivers."""
    return [
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 503 Busy\r\nRetry-After: 1\r\n\r\n",
        b"HTTP/1.1 301 Moved\r\nLocation: http://127.0.0.1:1/\r\n\r\n",
        b'HTTP/1.1 401 No\r\nWWW-Authenticate: Basic realm="x"\r\n\r\n',
    ]


def mqtt_answer(path: Path) -> None:
    """Send events to a broker that responds with the file; no event may be lost."""
    from edgekit.device.sinks.mqtt import MqttOptions, session
    from edgekit.device.sinks.mqtt import sink as sink_module
    from edgekit.device.sinks.mqtt.session import MqttSettings

    session._CONNECT_TIMEOUT_S = sink_module._FLUSH_TIMEOUT_S = _SOON_S
    os.environ["STATE_DIRECTORY"] = str(path.parent)
    path.with_name("mqtt-edgekit_fuzz.sqlite").unlink(missing_ok=True)
    run = run_of(lambda _: None)
    with _peer([path.read_bytes()], stays=True) as port:
        settings = MqttSettings(MqttOptions(mqtt=f"mqtt://127.0.0.1:{port}", mqtt_topic="edgekit/fuzz"))
        with sink_module.MqttSink(settings, run, pauses_s=(0.05,)) as sink:
            for number in range(3):
                sink.post(_event(number))
            time.sleep(_SOON_S)
            sink.write(None, None)  # type: ignore[arg-type]
    counts = run.accounts[0].as_document()
    assert counts["written"] + counts["waiting"] == counts["produced"] == 3, counts


def mqtt_answers() -> list[bytes]:
    """Return packets of brokers: the response to a connection, confirmations, ping responses and messages."""
    accepted, rejected = b"\x20\x02\0\0", b"\x20\x02\0\5"
    confirmed = b"".join(b"\x40\x02" + number.to_bytes(2, "big") for number in range(1, 9))
    message = b"\x32\x0a\0\3a/b\0\1{}!"
    return [
        accepted + confirmed,
        rejected,
        accepted + b"\xd0\0" + message + confirmed,
        accepted + b"\x50\x02\0\1\x70\x02\0\1",
    ]
