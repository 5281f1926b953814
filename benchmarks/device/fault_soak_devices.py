"""A camera that can be pulled, a disk that can be filled and a broker, for `fault_soak.py` and tests/systemd."""

from __future__ import annotations

import http.server
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho

from edgekit.errors import InputError

TOPIC = "edgekit/soak"
_DELIVERY_TIMEOUT_S = 60.0


class Camera:
    """An MJPEG camera on a free port of this machine that can be pulled and plugged in again.

    Attributes:
        viewers: Number of connections.
    """

    def __init__(self, pictures: Callable[[], Iterable[bytes]], fps: float) -> None:
        """Begin to serve; `pictures` returns the endless JPEG files of a connection."""
        self.pictures, self.period_s = pictures, 1 / fps
        self.viewers = 0
        with socket.create_server(("127.0.0.1", 0)) as server:
            self._port: int = server.getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}/video"
        self.plug()

    def plug(self) -> None:
        """Begin to serve."""
        plugged = self._plugged = threading.Event()
        plugged.set()
        handler = partial(_CameraHandler, self, plugged)
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", self._port), handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.1,), daemon=True).start()

    def pull(self) -> None:
        """Close all connections and the port."""
        self._plugged.clear()
        self._server.shutdown()
        self._server.server_close()


class _CameraHandler(http.server.BaseHTTPRequestHandler):
    def __init__(self, camera: Camera, plugged: threading.Event, *request: Any) -> None:
        self._camera, self._plugged = camera, plugged
        super().__init__(*request)

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        self._camera.viewers += 1
        due_s = time.monotonic()
        try:
            for picture in self._camera.pictures():
                if not self._plugged.is_set():
                    return
                head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(picture)}\r\n\r\n"
                self.wfile.write(head.encode() + picture + b"\r\n")
                due_s = max(due_s + self._camera.period_s, time.monotonic() - 1)
                time.sleep(max(0.0, due_s - time.monotonic()))
        except OSError:
            return  # the viewer has left
        finally:
            self._camera.viewers -= 1

    def log_message(self, *_: object) -> None:
        """Print nothing."""


class Disk:
    """A disk in memory that can be filled and freed."""

    def __init__(self, folder: Path, size_mib: int) -> None:
        """Mount it at `folder`.

        Raises:
            InputError: That is not allowed.
        """
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={size_mib}m", "tmpfs", str(folder)]
        mounted = subprocess.run(command, capture_output=True, text=True, check=False)
        if mounted.returncode:
            raise InputError(f"the small disk needs root: {mounted.stderr.strip()}")
        self.folder = folder
        self._ballast = folder / "ballast"

    def fill(self) -> None:
        """Leave no byte free."""
        with self._ballast.open("wb") as stream, suppress(OSError):
            while free := os.statvfs(self.folder).f_bavail:
                os.posix_fallocate(
                    stream.fileno(), stream.seek(0, os.SEEK_END), free * os.statvfs(self.folder).f_frsize
                )

    def free(self) -> None:
        """Free what `fill` occupies."""
        self._ballast.unlink(missing_ok=True)

    def unmount(self) -> None:
        """Remove the disk."""
        subprocess.run(["umount", "--lazy", str(self.folder)], check=True)


class Broker:
    """A mosquitto on a free port of this machine that keeps its sessions in `folder`."""

    def __init__(self, folder: Path) -> None:
        program = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")
        if program is None:
            raise InputError("there is no mosquitto on this machine: apt install mosquitto")
        with socket.create_server(("127.0.0.1", 0)) as server:
            self.port: int = server.getsockname()[1]
        settings = folder / "broker.conf"
        settings.write_text(
            f"listener {self.port} 127.0.0.1\nallow_anonymous true\nuser root\npersistence true\n"
            f"persistence_location {folder}/\nmax_queued_messages 0\n"
        )
        self._command = [program, "-c", str(settings)]
        self._process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def restart(self, pause_s: float) -> None:
        """Stop the broker, which saves its state, and start it again after a pause."""
        self.stop()
        time.sleep(pause_s)
        self._process = self._start()

    def stop(self) -> None:
        """Stop the broker."""
        self._process.terminate()
        self._process.wait()


@contextmanager
def subscribed(port: int) -> Iterator[list[str]]:
    """Yield a list to which the id of each event that arrives is appended."""
    received: list[str] = []
    ready = threading.Event()
    client = paho.Client(paho.CallbackAPIVersion.VERSION2, "recorder", clean_session=False)
    client.reconnect_delay_set(0.1, 0.2)  # type: ignore[no-untyped-call]
    client.on_connect = lambda client, *_: client.subscribe(f"{TOPIC}/event", qos=1)
    client.on_subscribe = lambda *_: ready.set()
    client.on_message = lambda _, __, message: received.append(json.loads(message.payload)["event_id"])
    wait_until(lambda: _is_connected(client, port), "the broker does not start")
    client.loop_start()
    ready.wait(_DELIVERY_TIMEOUT_S)
    try:
        yield received
    finally:
        client.disconnect()
        client.loop_stop()


def _is_connected(client: paho.Client, port: int) -> bool:
    try:
        client.connect("127.0.0.1", port)
    except OSError:
        return False
    return True


def wait_until(holds: Callable[[], bool], problem: str) -> None:
    """Wait until `holds()`; print the problem if it takes too long, which the verdict then shows."""
    end_s = time.monotonic() + _DELIVERY_TIMEOUT_S
    while not holds():
        if time.monotonic() > end_s:
            print(problem, file=sys.stderr)
            return
        time.sleep(0.05)
