"""A camera that can be pulled and a disk that can be filled, for `fault_soak.py` and tests/systemd."""

from __future__ import annotations

import http.server
import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from edgekit.errors import InputError


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
