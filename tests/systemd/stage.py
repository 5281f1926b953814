"""Common parts of the scenarios: a stream of images, the output of steps."""

from __future__ import annotations

import http.server
import json
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


def _part(jpeg: bytes) -> bytes:
    head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
    return head.encode() + jpeg + b"\r\n"


def print_step(step: str, **facts: Any) -> None:
    print(json.dumps({"step": step, **facts}), flush=True)
