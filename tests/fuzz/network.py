"""Readers of untrusted network input: streams and web requests."""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

_SOON_S = 0.3
_PATIENCE_S = 20.0


@contextmanager
def _peer(content: bytes) -> Iterator[int]:
    """Run a server that sends the same bytes in response to every request, and yield its port."""
    listener = socket.create_server(("127.0.0.1", 0))

    def answer(client: socket.socket) -> None:
        with client, suppress(OSError):
            client.settimeout(1.0)
            client.recv(65536)
            client.sendall(content)

    def serve() -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                threading.Thread(target=answer, args=(client,), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    with listener:
        yield listener.getsockname()[1]


@cache
def _jpeg(side_px: int = 32) -> bytes:
    import cv2
    import numpy as np

    return cv2.imencode(".jpg", np.full((side_px, side_px, 3), 90, np.uint8))[1].tobytes()


def _read_frames(url: str) -> None:
    from edgekit.device.sources import live, opencv

    opencv.OPEN_TIMEOUT_MS = opencv.READ_TIMEOUT_MS = 700
    live.REOPEN_PAUSES_S = (0.01,)
    with opencv.open_stream(url, lambda _: None) as source:
        for _, frame in zip(range(4), source, strict=False):
            assert frame.image_bgr.ndim == 3


def http_stream(path: Path) -> None:
    """Read frames from an HTTP address whose response is the content of the file."""
    with _peer(path.read_bytes()) as port:
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


@cache
def _web() -> Any:
    """Return a web page that runs until the process ends."""
    from edgekit.device.pipeline import StreamOptions
    from edgekit.device.pipeline.stream import Stream
    from edgekit.device.sinks.monitor import Monitor
    from edgekit.device.sinks.web.server import WebSink

    stream = Stream(StreamOptions(source="demo", detector="none"))
    monitor = Monitor("demo", lambda: None)
    sink = WebSink("127.0.0.1:0", None, monitor, recognise=stream.picture_recogniser())
    sink.__enter__()
    return sink


def web_request(path: Path) -> None:
    """Send the file to the web page, which must still serve other requests."""
    address = urlsplit(_web().url)
    with socket.create_connection((address.hostname, address.port), _SOON_S) as client, suppress(OSError):
        client.sendall(path.read_bytes())
        while client.recv(65536):
            pass
    with contextlib.closing(
        http.client.HTTPConnection(str(address.hostname), address.port, timeout=_PATIENCE_S)
    ) as other:
        other.request("GET", "/api/state")
        assert other.getresponse().status == 200


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
