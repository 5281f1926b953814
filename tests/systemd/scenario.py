"""Lives through a service's life below a systemd that was booted for it, and prints what happened as JSON lines.

`scenario.py FOLDER MODEL`; run by boot.sh, looked at by tests/device/test_service_systemd.py.
"""

from __future__ import annotations

import http.server
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

PATIENCE_S = 60
UNITS = Path("/etc/systemd/system")
# Nobody waits five seconds for a restart and a minute for the watchdog here.
QUICK = "[Service]\nRestartSec=0.2\nRestartSteps=0\nRestartMaxDelaySec=infinity\nWatchdogSec=4\n"


class Stream(http.server.BaseHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        picture = cv2.imencode(".jpg", np.full((48, 64, 3), 90, np.uint8))[1].tobytes()
        head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(picture)}\r\n\r\n".encode()
        try:
            while True:
                self.wfile.write(head + picture + b"\r\n")
                time.sleep(0.02)
        except OSError:
            pass


def edgekit(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edgekit.cli", "service", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S)


def status(name: str) -> dict[str, Any]:
    return json.loads(edgekit("status", "--name", name, "--json").stdout)


def until(name: str, condition: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    end_s = time.monotonic() + PATIENCE_S
    while not condition(found := status(name)) and time.monotonic() < end_s:
        time.sleep(0.1)
    return found


def tell(step: str, **facts: Any) -> None:
    print(json.dumps({"step": step, **facts}), flush=True)


def install(name: str, folder: Path, *run_options: str) -> subprocess.CompletedProcess[str]:
    place = [
        "--name",
        name,
        "--run-as",
        "root",
        "--folder",
        str(folder),
        "--env",
        f"PYTHONPATH={os.environ['PYTHONPATH']}",
    ]
    done = edgekit("install", *place, "--", *run_options)
    tell("install", name=name, code=done.returncode, errors=done.stderr)
    return done


def main(folder: Path, model: str) -> None:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Stream)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    # The one that fails for certain waits long enough to be seen.
    for name in ("camera", "bad"):
        (UNITS / f"{name}.service.d").mkdir()
        (UNITS / f"{name}.service.d/quick.conf").write_text(QUICK)
    common = ("--model", model, "--detector", "none")

    odd_name = "a b%h$HOME.jsonl"
    stream = f"http://127.0.0.1:{server.server_port}/"
    # No broker is there: the events wait where the service may write.
    nobody = "mqtt://127.0.0.1:9"
    install("camera", folder, *common, "--source", stream, "--jsonl", odd_name, "--mqtt", nobody)
    running = until("camera", lambda found: found["state"] == "running" and "a second" in (found["text"] or ""))
    end_s = time.monotonic() + PATIENCE_S
    while not (folder / odd_name).exists() and time.monotonic() < end_s:
        time.sleep(0.1)
    groups = re.search(r"^Groups:\t(.*)$", Path(f"/proc/{running['pid']}/status").read_text(), re.MULTILINE)
    tell(
        "running",
        **running,
        groups=groups and groups.group(1).split(),
        wrote=(folder / odd_name).exists(),
        buffers=[path.name for path in Path("/var/lib/edgekit/camera").glob("mqtt-*.sqlite")],
    )

    os.kill(running["pid"], signal.SIGKILL)
    again = until("camera", lambda found: found["state"] == "running" and found["restarts"] == 1)
    tell("killed", **again)

    os.kill(again["pid"], signal.SIGSTOP)
    found = until("camera", lambda now: now["state"] == "running" and now["restarts"] == 2)
    tell("frozen", **found)

    done = edgekit("restart", "--name", "camera")
    fresh = until("camera", lambda now: now["state"] == "running" and now["pid"] not in (None, found["pid"]))
    tell("restarted", code=done.returncode, errors=done.stderr, before=found["pid"], **fresh)

    subprocess.run(["systemctl", "stop", "camera.service"], check=True)
    tell("stopped", **status("camera"))
    tell("logs", text=edgekit("logs", "--name", "camera", "--lines", "1000", "--json").stdout)

    install("bad", folder, "--source", "demo", "--detector", "dlib")
    tell("bad", **until("bad", lambda found: found["state"] == "failed"))

    install("outside", folder, *common, "--source", "demo", "--jsonl", "/etc/outside.jsonl")
    found = until("outside", lambda found: found["last_exit"] is not None)
    tell("outside", **found, wrote=Path("/etc/outside.jsonl").exists())

    (UNITS / "other.service").write_text("[Service]\nExecStart=/bin/true\n")
    install("other", folder, "--source", "demo")
    tell("restart other", code=edgekit("restart", "--name", "other").returncode)
    tell(
        "removed other", code=edgekit("remove", "--name", "other").returncode, there=(UNITS / "other.service").exists()
    )

    for name in ("camera", "bad", "outside"):
        edgekit("remove", "--name", name)
    tell("removed", **status("camera"), there=(UNITS / "camera.service").exists())


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
