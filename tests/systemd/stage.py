"""Common parts of the scenarios: a stream of images, a camera that can be unplugged, the output of steps."""

from __future__ import annotations

import http.server
import json
import socket
import threading
import time
from typing import Any

import cv2
import numpy as np

PATIENCE_S = 60


class Stream(http.server.BaseHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        picture = cv2.imencode(".jpg", np.full((48, 64, 3), 90, np.uint8))[1].tobytes()
        try:
            while True:
                self.wfile.write(_part(picture))
                time.sleep(0.02)
        except OSError:
            pass


def serve() -> str:
    """Start an endless stream of images and return its URL."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Stream)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}/"


class Camera:
    """An MJPEG camera of noise that turns from red to green every second; it can be unplugged.

    Attributes:
        viewers: Number of connections.
    """

    def __init__(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            self._port: int = server.getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}/"
        self.viewers = 0
        self.plug()

    def plug(self) -> None:
        """Begin to serve."""
        camera, plugged = self, threading.Event()
        plugged.set()
        noise = np.random.default_rng(0)

        class Handler(Stream):
            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
                self.end_headers()
                camera.viewers += 1
                try:
                    while plugged.is_set():
                        image = noise.integers(0, 60, (96, 128, 3), np.uint8)
                        image[:, ::16, :] = 0
                        image[:, :, 1 + int(time.monotonic()) % 2] += 180
                        self.wfile.write(_part(cv2.imencode(".jpg", image)[1].tobytes()))
                        time.sleep(0.1)
                except OSError:
                    pass
                finally:
                    camera.viewers -= 1

        self._plugged = plugged
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", self._port), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.1,), daemon=True).start()

    def pull(self) -> None:
        """Close all connections and the port."""
        self._plugged.clear()
        self._server.shutdown()
        self._server.server_close()


def _part(jpeg: bytes) -> bytes:
    head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
    return head.encode() + jpeg + b"\r\n"


def print_step(step: str, **facts: Any) -> None:
    print(json.dumps({"step": step, **facts}), flush=True)
