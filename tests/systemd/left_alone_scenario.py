"""Three days of a service in a few minutes, below a booted systemd: prints each step, and what is stored at the end.

Usage: `left_alone_scenario.py FOLDER MODEL`. boot.sh runs it, and test_left_alone_systemd.py checks the output. On each
day the service is killed, its broker restarts, its disk fills up, its camera is unplugged, and a run by hand takes its
files.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import paho.mqtt.client as paho
from service_scenario import QUICK, UNITS, edgekit, install, status, until
from stage import PATIENCE_S, print_step

sys.path.append(str(Path(__file__).parents[2] / "benchmarks/device"))

from fault_soak_devices import Camera

DAYS = 3
TOPIC = "edgekit/lab"
NAME = "alone"


def pictures() -> Iterator[bytes]:
    """Yield noise that turns from red to green every second."""
    noise = np.random.default_rng(0)
    while True:
        image = noise.integers(0, 60, (96, 128, 3), np.uint8)
        image[:, ::16, :] = 0
        image[:, :, 1 + int(time.monotonic()) % 2] += 180
        yield cv2.imencode(".jpg", image)[1].tobytes()


class Broker:
    """A mosquitto that keeps its sessions over a restart."""

    def __init__(self, folder: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            self.port: int = server.getsockname()[1]
        program = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")
        assert program is not None
        settings = folder / "broker.conf"
        settings.write_text(
            f"listener {self.port} 127.0.0.1\nallow_anonymous true\nuser root\npersistence true\n"
            f"persistence_location {folder}/\nmax_queued_messages 0\n"
        )
        self._command = [program, "-c", str(settings)]
        self.start()

    def start(self) -> None:
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait()


class Subscriber:
    """Keeps the ids of the events that arrive, and the newest health document."""

    def __init__(self, port: int) -> None:
        self.events: list[str] = []
        self.health: dict[str, Any] = {}
        self.subscribed = threading.Event()
        self._client = paho.Client(paho.CallbackAPIVersion.VERSION2, "lab", clean_session=False)
        self._client.reconnect_delay_set(1, 1)
        self._client.on_connect = lambda client, *_: client.subscribe([(f"{TOPIC}/event", 1), (f"{TOPIC}/health", 1)])
        self._client.on_subscribe = lambda *_: self.subscribed.set()
        self._client.on_message = self._receive
        self._client.connect_async("127.0.0.1", port)
        self._client.loop_start()

    def _receive(self, client: paho.Client, data: object, message: paho.MQTTMessage) -> None:
        del client, data
        document = json.loads(message.payload)
        if message.topic.endswith("/event"):
            self.events.append(document["event_id"])
        else:
            self.health = document


def wait_for(what: str, condition: Callable[[], object]) -> None:
    end_s = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > end_s:
            print_step("not reached", what=what, log=edgekit("logs", "--name", NAME, "--lines", "30").stdout)
            sys.exit(1)
        time.sleep(0.1)


def records(file: Path) -> list[dict[str, Any]]:
    """Return the records of a JSON Lines file; a torn line fails."""
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def is_working() -> bool:
    return status(NAME)["state"] == "running"


def stored(folder: Path, events: list[str]) -> dict[str, Any]:
    """Return counts of what the outputs have stored, and of what the subscriber has received."""
    rows = list(csv.reader((folder / "r.csv").open(newline="")))
    frames = {}
    for video in sorted(folder.glob("o*.mp4")):
        frames[video.name] = 0
        with suppress(av.FFmpegError), av.open(str(video)) as opened:  # killed in its first second
            frames[video.name] = sum(1 for _ in opened.decode(video=0))
    by_run: dict[str, list[int]] = defaultdict(list)
    for event in events:
        run, _, number = event.rpartition("-")
        by_run[run].append(int(number))
    missing = {run: sorted(set(range(max(numbers))) - set(numbers)) for run, numbers in by_run.items()}
    return {
        "records": len(records(folder / "r.jsonl")),
        "rows": len(rows),
        "headers": sum(row[0] == "sequence" for row in rows),
        "row_lengths": sorted({len(row) for row in rows}),
        "videos": frames,
        "snapshots": sum(cv2.imread(str(path)) is not None for path in (folder / "events").glob("*.jpg")),
        "snapshot_files": len(list((folder / "events").glob("*.jpg"))),
        "events": len(events),
        "twice": len(events) - len(set(events)),
        "missing": {run: numbers for run, numbers in missing.items() if numbers},
    }


def main(work: Path, model: str) -> None:
    broker, camera = Broker(work), Camera(pictures, fps=10)
    subscriber = Subscriber(broker.port)
    wait_for("the subscription", subscriber.subscribed.is_set)  # what is sent before it has no receiver
    folder = work / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(folder)], check=True)
    (UNITS / f"{NAME}.service.d").mkdir()
    (UNITS / f"{NAME}.service.d/quick.conf").write_text(QUICK)
    outputs = [
        "--model", model, "--detector", "none", "--jsonl", "r.jsonl", "--csv", "r.csv", "--save", "o.mp4",
        "--event-snapshots", "events", "--event-hold", "0.2s",
    ]  # fmt: skip
    mqtt = ["--mqtt", f"mqtt://127.0.0.1:{broker.port}", "--mqtt-topic", TOPIC]
    install(NAME, folder, *outputs, "--source", camera.url, *mqtt)

    def lines() -> int:
        file = folder / "r.jsonl"
        return file.read_bytes().count(b"\n") if file.exists() else 0

    def grows(what: str) -> None:
        """Wait until records and events arrive again."""
        before = lines(), len(subscriber.events)
        wait_for(f"{what}: records", lambda: lines() > before[0])
        wait_for(f"{what}: events", lambda: len(subscriber.events) > before[1])

    grows("start")
    for day in range(DAYS):
        os.kill(status(NAME)["pid"], signal.SIGKILL)
        wait_for("restart", is_working)
        grows("killed")

        broker.stop()
        time.sleep(3)
        broker.start()
        grows("broker restarted")

        ballast = folder / "ballast"
        with ballast.open("wb") as stream:
            free = os.statvfs(folder)
            os.posix_fallocate(stream.fileno(), 0, max(1, free.f_bavail - 8) * free.f_frsize)
        wait_for("the loss is published", lambda: subscriber.health.get("dropped", 0) > 0)
        full = dict(subscriber.health)
        ballast.unlink()
        grows("disk full")

        camera.pull()
        wait_for("the service waits for its camera", lambda: not camera.viewers)
        time.sleep(2)
        camera.plug()
        grows("camera unplugged")

        subprocess.run(["systemctl", "stop", f"{NAME}.service"], check=True)
        by_hand = subprocess.Popen(
            [sys.executable, "-m", "edgekit.cli", "run", "--source", camera.url, *outputs, "-q"],
            cwd=folder,
            stderr=subprocess.PIPE,
        )
        wait_for("the run by hand has the files", lambda: (folder / ".r.jsonl.lock").exists())
        subprocess.run(["systemctl", "start", "--no-block", f"{NAME}.service"], check=True)
        found = until(NAME, lambda now: now["last_exit"] is not None and now["restarts"])
        print_step("locked", day=day, last_exit=found["last_exit"], restarts=found["restarts"], state=found["state"])
        by_hand.send_signal(signal.SIGTERM)
        code = by_hand.wait(PATIENCE_S)
        wait_for("the service is back", is_working)
        grows("locked")
        print_step("day", day=day, by_hand=code, dropped=full["dropped"], disk_free_mib=full.get("disk_free_mib"))

    subprocess.run(["systemctl", "stop", f"{NAME}.service"], check=True)
    print_step("stopped", **status(NAME))
    time.sleep(2)  # the last messages of the broker
    print_step("stored", **stored(folder, subscriber.events))
    edgekit("remove", "--name", NAME)
    broker.stop()
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
